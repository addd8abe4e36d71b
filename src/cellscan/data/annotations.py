"""Annotation files -> `FieldDataset`: which layout a folder has, where its images are, and what is left unread."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from cellscan.data.dialects import Entry, read_json, read_names, read_text, read_voc, read_yolo
from cellscan.data.fields import IGNORED, FieldDataset
from cellscan.data.images import SUFFIXES, is_image_name, list_folder
from cellscan.data.sources import FileSource
from cellscan.data.values import as_list, as_path
from cellscan.errors import ArgumentError, DataError, ImageError, check_choice

IML_TWO_CLASS: dict[str, str | None] = {
    "red blood cell": "red blood cell",
    "ring": "infected",
    "trophozoite": "infected",
    "schizont": "infected",
    "gametocyte": "infected",
    "difficult": None,
}
"""Classes of IML-Malaria as two: every stage is an infected cell, and a difficult one is ignored."""

_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
"""Names, in any case, of folders beside annotations that hold their images."""

_TABLES = frozenset(
    ".txt .xml .json .jsonl .ndjson .geojson .csv .tsv .yaml .yml .xls .xlsx .ods .mat .npy .npz .pkl .pickle .parquet "
    ".h5 .hdf5 .tfrecord .record .roi .names .data .lst .dat .db .sqlite".split()
)
"""Suffixes of files that may hold boxes."""

_ABOUT = re.compile(r"(readme|licen[cs]e|copying|notice|citation|changelog|requirements)", re.IGNORECASE)
"""How names begin of files that speak about a data set; they hold no boxes."""

_CLASS_FILES = ("classes.txt", "data.yaml", "data.yml", "dataset.yaml")

_NOT_LABELS = ("classes.txt", "notes.json")
"""Files beside YOLO labels that are none; the second is Label Studio's."""


@dataclass
class _Layout:
    """What was read of a file or folder: entries, where the image of each may be, and classes in order.

    `whole` says that images which lie there and have no entry are worth a note.
    """

    entries: list[Entry]
    folders: list[list[Path]]
    order: list[str]
    annotated: bool = True
    whole: bool = True
    notes: list[str] = field(default_factory=list)


def load_fields(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    classes: Mapping[str, str | None] | Sequence[str] | None = None,
    boxes: bool = True,
    on_error: str = "raise",
) -> FieldDataset:
    """Read whole fields and the boxes in them.

    Recognised are

    - a COCO file (``.json`` with ``images``, ``annotations`` and ``categories``), or a folder that holds one, or one
      ``_annotations.coco.json`` in each part; crowds are ignored, and a polygon without a box stands for the box
      around it;
    - the annotation file of IML-Malaria (``.json``, a list of ``image_name`` and ``objects``);
    - a Pascal VOC folder with ``.xml`` files in ``Annotations`` or beside the images, or one of its lists,
      ``ImageSets/Main/train.txt``; what is marked difficult is ignored;
    - a YOLO folder with ``.txt`` files in ``labels`` or beside the images, of boxes or polygons, and ``classes.txt`` or
      ``data.yaml``; an image without a label file has no boxes;
    - a folder of images alone, without boxes.

    Text is read as UTF-8, with or without a byte order mark, or UTF-16 with one; XML as it declares.

    Parameters
    ----------
    path : path
    images : path, optional
        Where the images are. Left out, they are sought beside the annotation file, then in ``images`` and
        ``JPEGImages``. Where an annotation has a path, its end is enough.
    classes : mapping or sequence of str, optional
        Name in the file -> name in the data set, or None for boxes to ignore, such as `cellscan.IML_TWO_CLASS`; or the
        names of the classes in order, which YOLO needs where no file has them. Left out, all
        classes of the file, in its order, or sorted where it has none.
    boxes : bool
        False reads the images of a folder alone, whatever annotations lie beside them.
    on_error : {"raise", "skip"}
        ``"skip"`` passes over fields that cannot be used, and says so in the notes.

    Returns
    -------
    FieldDataset
        Boxes are clipped to the frame; boxes without area, or given twice, are dropped. All of it is counted in
        its notes, and so are files that were not read.

    Raises
    ------
    ArgumentError
        Where an argument is of another kind than expected.
    DataError
        Where the layout is not known or two are mixed, a class is unknown, an annotation cannot be what it claims
        (pixels as shares, boxes outside the image), or an image is missing, damaged, named twice or of another size
        than annotated.

    Examples
    --------
    >>> import json, pathlib, tempfile, cellscan
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (64, 48)).save(folder / "a.png")
    >>> box = {"type": "ring", "bbox": {"x": "4", "y": "5", "w": "20", "h": "20"}}
    >>> _ = (folder / "annotations.json").write_text(json.dumps([{"image_name": "a.png", "objects": [box]}]))
    >>> print(cellscan.load_fields(folder / "annotations.json", classes=cellscan.IML_TWO_CLASS))
    1 fields, 1 boxes: red blood cell 0, infected 1
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    if not isinstance(boxes, bool):
        raise ArgumentError(f"boxes is {boxes!r:.80}; expected True or False")
    target, given = _existing("path", path), _class_list(classes)
    layout = _read(target, given, None if images is None else _existing("images", images), boxes)
    if not layout.entries:
        raise DataError(f"{target}: it names no fields; expected at least one")
    renamed: dict[str, str | None] = (
        dict(classes) if isinstance(classes, Mapping) else {name: name for name in given or layout.order}
    )
    found = {name for entry in layout.entries if not entry.problem for name in entry.names if name is not None}
    unknown = sorted(found - set(renamed))
    if unknown:
        raise DataError(
            f"{target}: boxes of class {', '.join(map(repr, unknown))}; classes= has {', '.join(map(repr, renamed))}. "
            "Add them, with None for boxes to ignore"
        )
    good, paths, sizes, skipped = [], [], [], []
    finder = _Finder()
    for entry, folders in zip(layout.entries, layout.folders, strict=True):
        try:
            if entry.problem:
                raise DataError(entry.problem)
            found_at, size = finder.find(entry, folders)
            paths.append(found_at)
            sizes.append(size)
            good.append(entry)
        except DataError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
    if not good:
        raise DataError(f"{target}: not one of {len(layout.entries)} fields can be used; the first: {skipped[0]}")
    _check_pixels(good)
    class_names = list(dict.fromkeys(name for name in renamed.values() if name is not None))
    own, labels = [], []
    for entry, size in zip(good, sizes, strict=True):
        sides = np.tile(np.array(size if entry.relative else (1, 1), np.float32), 2)
        own.append(np.array(entry.boxes, np.float32).reshape(-1, 4) * sides)
        targets = [None if name is None else renamed[name] for name in entry.names]
        labels.append(np.array([IGNORED if t is None else class_names.index(t) for t in targets], np.int32))
    notes = [f"{len(skipped)} fields passed over; the first: {skipped[0]}"] if skipped else []
    unnamed = finder.count_unnamed() - len(skipped) if layout.whole else 0
    notes += [f"{unnamed} images in the same folders are not annotated, and left out"] if unnamed > 0 else []
    source = FileSource([folder / name for folder, name in paths])
    return FieldDataset.from_source(
        source, own, labels, _names(paths), class_names, notes=[*notes, *layout.notes], annotated=layout.annotated
    )


def _existing(name: str, path: object) -> Path:
    found = as_path(name, path)
    if not os.path.exists(found):
        raise DataError(f"{found}: there is no such file or folder")
    if name == "images" and not found.is_dir():
        raise DataError(f"{found}: images= expects the folder of the images")
    return found


def _class_list(classes: object) -> list[str] | None:
    """Return the names where they are given in order."""
    if classes is None:
        return None
    if isinstance(classes, Mapping):
        if not all(isinstance(old, str) and (new is None or isinstance(new, str)) for old, new in classes.items()):
            raise ArgumentError(f"classes is {classes!r:.200}; expected names, and for each a name or None")
        return None
    names = as_list("classes", classes)
    if not names or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"classes is {classes!r:.200}; expected a mapping of names, or a sequence of names")
    return names


def _read(path: Path, given: list[str] | None, images: Path | None, boxes: bool) -> _Layout:
    """Say which layout a file or folder has, and read it."""
    if not boxes:
        if not path.is_dir():
            raise ArgumentError(f"{path}: boxes=False reads the images of a folder; expected its path")
        return _read_plain(path, given, None)
    if not path.is_dir():
        return _read_file(path, given, images)
    pictures, others = list_folder(path)
    xml = [name for name in others if name.lower().endswith(".xml")]
    tables = [name for name in others if name.lower().endswith(".json") and _base(name) not in _NOT_LABELS]
    stems = {os.path.splitext(name)[0] for name in pictures}
    texts = [name for name in others if _is_label(name) and (_in_labels(name) or name[:-4] in stems)]
    if not pictures and path.name.casefold() == "annotations" and xml:  # the one that is meant, where two are mixed
        return _read_voc(path.parent, [path / name for name in xml], images)
    if not pictures and path.name.casefold() == "labels" and any(map(_is_label, others)):
        return _read_yolo(path.parent, given, images)
    layouts = {"Pascal VOC": xml, "YOLO": texts, "an annotation file": tables}
    there = [name for name, files in layouts.items() if files]
    if len(there) > 1:
        raise DataError(
            f"{path}: holds {' and '.join(there)}; give the path of the one that is meant: the .json file, or the "
            "folder Annotations or labels"
        )
    if not there:
        return _read_plain(path, given, others)
    if xml:
        layout = _read_voc(path, [path / name for name in xml], images)
        read = {*xml, *(name for name in others if "ImageSets" in name.split("/"))}
    elif texts:
        layout = _read_yolo(path, given, images)
        read = {*texts, *(name for name in others if _base(name) in _NOT_LABELS)}
        read |= {name for name in others if name.lower().endswith((".yaml", ".yml", ".names"))}
    else:
        if len(tables) > 1 and {_base(name) for name in tables} != {"_annotations.coco.json"}:
            raise DataError(f"{path}: holds {len(tables)} .json files; give the path of one")
        layout, read = _read_json([path / name for name in tables], images), set(tables)
    layout.notes += _note_unread(name for name in others if name not in read)
    return layout


def _read_file(path: Path, given: list[str] | None, images: Path | None) -> _Layout:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _read_json([path], images)
    if suffix == ".xml":
        return replace(_read_voc(path.parent, [path], images), whole=False)
    if suffix in (".yaml", ".yml"):
        return _read_yolo(path.parent, given or read_names(path), images)
    if suffix == ".txt" and path.parent.parent.name == "ImageSets":
        root = path.parents[2]
        folder = next(iter(_children(root, ("annotations",))), root / "Annotations")
        files = []
        for line in filter(None, map(str.strip, read_text(path).splitlines())):
            whole, first = (folder / f"{stem}.xml" for stem in (line, line.split()[0]))
            files.append(whole if whole.is_file() else first)
        return replace(_read_voc(root, files, images), whole=False)
    raise DataError(
        f"{path}: expected a COCO or IML annotation file (.json), a Pascal VOC file (.xml) or list "
        "(ImageSets/Main/*.txt), a YOLO data.yaml, or a folder"
    )


def _read_json(files: Sequence[Path], images: Path | None) -> _Layout:
    entries, folders, order = [], [], []
    for file in files:
        own, classes = read_json(file)
        roots = [file.parent, *_children(file.parent, _IMAGE_FOLDERS)]
        if file.parent.name.casefold() == "annotations":
            roots += [*_children(file.parent.parent, _IMAGE_FOLDERS), file.parent.parent]
        entries += own
        folders += [roots if images is None else [images]] * len(own)
        order += classes
    return _Layout(entries, folders, list(dict.fromkeys(order)))


def _read_voc(path: Path, files: Sequence[Path], images: Path | None) -> _Layout:
    entries, order = read_voc(files)
    folders = []
    for file in files:
        inside = [parent for parent in file.parents if parent.name.casefold() == "annotations"]
        root, below = (inside[0].parent, file.parent.relative_to(inside[0])) if inside else (path, Path())
        roots = [*_children(root, _IMAGE_FOLDERS), root] if images is None else [images]
        beside = [] if inside or images is not None else [file.parent]
        folders.append([*beside, *dict.fromkeys([*(folder / below for folder in roots), *roots])])
    return _Layout(entries, folders, order)


def _read_yolo(path: Path, given: list[str] | None, images: Path | None) -> _Layout:
    others = list_folder(path)[1]
    order = given or _yolo_classes(path, others)
    labels = {_key(name[:-4]): path / name for name in others if _is_label(name)}
    root = path if images is None else images
    files = list_folder(root)[0]
    claims: dict[str, dict[int, list[str]]] = {}
    for name in files:
        folder, _, stem = _key(os.path.splitext(name)[0]).rpartition("/")
        parts = folder.split("/") if folder else []
        swapped = ["labels" if part == "images" else part for part in parts]
        for rank, place in enumerate((parts, swapped, ["labels", *parts], ["labels", *parts[1:]])):
            key = "/".join([*place, stem])
            if key in labels:
                claims.setdefault(key, {}).setdefault(rank, []).append(name)
                break
    owners = {key: ranks[min(ranks)] for key, ranks in claims.items()}  # the images that lie nearest
    label = {name: key for key, names in owners.items() for name in names}
    # Folders with labelled images, and those called images: what lies elsewhere, such as previews, belongs to no label.
    inside = {os.path.dirname(name) for name in label}
    inside |= {folder for folder in map(os.path.dirname, files) if "images" in folder.casefold().split("/")}
    taken = [name for name in files if images is not None or os.path.dirname(name) in inside]
    entries = []
    for name in taken:
        file = labels.get(label.get(name, ""), path)
        entries.append(Entry(name, str(file)))
        if name in label:
            if owners[label[name]] != [name]:
                entries[-1].fail(str(file), f"it belongs to the images {' and '.join(owners[label[name]])}; keep one")
            read_yolo(file, entries[-1], order)
    for key in sorted(labels.keys() - owners.keys()):
        if _in_labels(key) and not _ABOUT.match(_base(key)):
            entries.append(Entry("", str(labels[key]), problem=f"{labels[key]}: there is no image of that name"))
    bare, left = len(taken) - len(label), len(files) - len(taken)
    notes = [f"{bare} images without a label file: fields without boxes"] if bare else []
    notes += [f"{left} images elsewhere, without labels, not read"] if left else []
    if images is None and all(entry.file.startswith("images/") for entry in entries if entry.file):
        root = path / "images"
        for entry in entries:
            entry.file = entry.file.removeprefix("images/")
    return _Layout(entries, [[root]] * len(entries), order, whole=False, notes=notes)


def _yolo_classes(path: Path, others: Sequence[str]) -> list[str]:
    own = [path / name for name in others if _base(name) in _CLASS_FILES or name.lower().endswith(".names")]
    above = [path.absolute().parent / name for name in _CLASS_FILES]  # where the folder is one part of a set
    lists = [read_names(file) for file in own or above if file.is_file()]
    if not lists:
        raise DataError(
            f"{path}: there is no classes.txt and no data.yaml; pass classes=[...] with the names in the order of "
            "their numbers"
        )
    if any(names != lists[0] for names in lists):
        raise DataError(f"{path}: its lists of classes differ; pass classes=[...] with the names in order")
    return lists[0]


def _read_plain(path: Path, given: list[str] | None, others: list[str] | None) -> _Layout:
    files, beside = list_folder(path)
    if not files:
        raise DataError(f"{path}: there are neither annotations nor images in this folder")
    if others is not None:
        unread = [name for name in others if _may_hold_boxes(name)]
        if path.name.casefold() in _IMAGE_FOLDERS:
            unread += [f"../{child.name}" for child in _children(path.parent, ("labels", "annotations"))]
        if unread:
            raise DataError(
                f"{path}: files beside the images may hold boxes and are not of a layout that is read: {unread[0]}"
                f"{f' and {len(unread) - 1} others' if unread[1:] else ''}. Give the path of a COCO file, a Pascal VOC "
                "or a YOLO folder; for the images alone, without boxes, pass boxes=False"
            )
    return _Layout(
        [Entry(name, str(path)) for name in files],
        [[path]] * len(files),
        given or [],
        annotated=False,
        whole=False,
        notes=_note_unread(beside),
    )


def _children(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders in `folder` of these names, in any case, in the order of the names."""
    there = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    return [child for name in names for child in there if child.name.casefold() == name]


def _base(name: str) -> str:
    return name.rpartition("/")[2].lower()


def _key(stem: str) -> str:
    """Return a path without suffix, its folders in lower case."""
    folder, slash, name = stem.rpartition("/")
    return folder.casefold() + slash + name


def _in_labels(name: str) -> bool:
    return "labels" in name.casefold().split("/")[:-1]


def _is_label(name: str) -> bool:
    return name.lower().endswith(".txt") and _base(name) not in _NOT_LABELS


def _note_unread(names: Iterable[str]) -> list[str]:
    unread = [name for name in names if not _ABOUT.match(_base(name))]
    return [f"{len(unread)} files not read, such as {unread[0]}"] if unread else []


def _may_hold_boxes(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _TABLES and not _ABOUT.match(_base(name))


class _Finder:
    """Finds the images of entries; each image belongs to one entry."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}
        self._stems: dict[Path, dict[str, list[str]]] = {}

    def find(self, entry: Entry, folders: Sequence[Path]) -> tuple[tuple[Path, str], tuple[int, int]]:
        """Return the folder and the path in it of the image of an entry, and its width and height."""
        folder, name = self._search(entry, folders)
        path = folder / name
        try:
            size = FileSource([str(path)]).header(0)[:2]
        except ImageError as error:
            raise DataError(str(error)) from error
        if entry.size is not None and entry.size != size:
            hint = ". If its EXIF orientation turns it, save it turned, or annotate it as viewers show it"
            raise DataError(
                f"{path}: the image has {size[0]} x {size[1]} pixels, its annotation speaks of {entry.size[0]} x "
                f"{entry.size[1]}; boxes would lie elsewhere"
                f"{hint if entry.size == size[::-1] else ''}"
            )
        for left, top, right, bottom in [] if entry.relative else entry.boxes:
            if left > size[0] or top > size[1] or right < 0 or bottom < 0:
                raise DataError(
                    f"{entry.where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) lies outside "
                    f"{path}, {size[0]} x {size[1]} pixels"
                )
        own = os.path.abspath(path)
        if own in self._owner:
            raise DataError(f"{entry.where}: the image {path} is annotated twice, also in {self._owner[own]}")
        self._owner[own] = entry.where
        return (folder, name), size

    def count_unnamed(self) -> int:
        """Return how many images lie beside those that were found, and belong to no entry."""
        folders = {os.path.dirname(path) for path in self._owner}
        there = (os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if is_image_name(name))
        return sum(path not in self._owner for path in there)

    def _search(self, entry: Entry, folders: Sequence[Path]) -> tuple[Path, str]:
        plain = entry.file.replace("\\", "/")
        parts = [part for part in plain.split("/") if part not in ("", ".", "..") and not part.endswith(":")]
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for name in dict.fromkeys([entry.file, plain, *tails]):
            for folder in folders:
                if name and (folder / name).is_file():
                    return folder, str(PurePosixPath(name))
        bare = parts[-1] if parts and os.path.splitext(parts[-1])[1].lower() not in SUFFIXES else ""
        for stem in filter(None, (bare, entry.stem)):
            for folder in folders:
                matching = self._list(folder).get(stem, [])
                if len(matching) > 1:
                    raise DataError(f"{entry.where}: the image may be {' or '.join(matching)} in {folder}; name one")
                if matching:
                    return folder, matching[0]
        raise DataError(
            f"{entry.where}: there is no image {entry.file!r} in {' or '.join(map(str, folders))}; pass images=FOLDER"
        )

    def _list(self, folder: Path) -> dict[str, list[str]]:
        """Return the images right in a folder, by their names without suffix."""
        if folder not in self._stems:
            found: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    found.setdefault(stem, []).append(name)
            self._stems[folder] = found
        return self._stems[folder]


def _check_pixels(entries: Sequence[Entry]) -> None:
    """Raise where boxes in pixels are shares of the image: not one reaches beyond the first pixel."""
    sides = [side for entry in entries if not entry.relative for box in entry.boxes for side in box]
    if sides and max(sides) <= 1:
        raise DataError(f"{entries[0].where}: no box reaches beyond 1; expected pixels, these are shares of the image")


def _names(paths: Sequence[tuple[Path, str]]) -> list[str]:
    """Return names of fields: below the folder of their images, or where two are alike, below what all share."""
    names = [name for _, name in paths]
    if len(set(names)) == len(names) and not any(name.startswith(("/", "..")) for name in names):
        return names
    whole = [os.path.abspath(folder / name) for folder, name in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [Path(path).relative_to(shared).as_posix() for path in whole]
