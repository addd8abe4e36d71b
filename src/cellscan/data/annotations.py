"""Annotation files -> `FieldDataset`: COCO, Pascal VOC, YOLO, IML-Malaria, and folders without boxes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellscan.data.fields import IGNORED, FieldDataset
from cellscan.data.images import image_files, is_image_name
from cellscan.data.sources import FileSource
from cellscan.errors import DataError, ImageError, check_choice

IML_TWO_CLASS: dict[str, str | None] = {
    "red blood cell": "red blood cell",
    "ring": "infected",
    "trophozoite": "infected",
    "schizont": "infected",
    "gametocyte": "infected",
    "difficult": None,
}
"""Classes of IML-Malaria as two: every stage is an infected cell, and a difficult one is ignored."""


@dataclass
class _Entry:
    """One annotated field, before anything is checked."""

    file: str
    boxes: list[list[float]] = field(default_factory=list)  # xyxy
    names: list[str | None] = field(default_factory=list)  # None: ignored
    size: tuple[int, int] | None = None
    relative: bool = False  # boxes in shares of the image


def load_fields(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    classes: Mapping[str, str | None] | Sequence[str] | None = None,
    on_error: str = "raise",
) -> FieldDataset:
    """Read whole fields and the boxes in them.

    Recognised are

    - a COCO file (``.json`` with ``images``, ``annotations`` and ``categories``); crowds are ignored;
    - the annotation file of IML-Malaria (``.json``, a list of ``image_name`` and ``objects``);
    - a Pascal VOC folder with ``Annotations/*.xml``, or one of its lists, ``ImageSets/Main/train.txt``; what is
      marked difficult is ignored;
    - a YOLO folder with ``labels/*.txt`` and ``classes.txt``;
    - a folder of images, without boxes.

    Parameters
    ----------
    path : path
    images : path, optional
        Where the images are. Left out, they are sought beside the annotation file, then in ``images``,
        and for VOC in ``JPEGImages``.
    classes : mapping or sequence of str, optional
        Name in the file -> name in the data set, or None for boxes to ignore, such as `cellscan.IML_TWO_CLASS`; or the
        names of the classes in order, which YOLO needs where it has no ``classes.txt``. Left out, all
        classes of the file, in its order, or sorted where it has none.
    on_error : {"raise", "skip"}
        ``"skip"`` passes over fields that cannot be used, and says so in the notes.

    Returns
    -------
    FieldDataset
        Boxes are clipped to the frame; boxes without area, or given twice, are dropped. All of it is counted in
        its notes.

    Raises
    ------
    DataError
        Where the layout is not known or two are mixed, a class is unknown, an image is missing, damaged, or of
        another size than annotated.

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
    target = Path(path)
    if not target.exists():
        raise DataError(f"{target}: there is no such file or folder")
    given = list(classes) if classes is not None and not isinstance(classes, Mapping) else None
    read, beside = _recognise(target)
    entries, order = read(target, given)
    if not entries:
        raise DataError(f"{target}: it names no fields; expected at least one")
    annotated = read is not _read_plain
    renamed: dict[str, str | None] = (
        dict(classes) if isinstance(classes, Mapping) else {name: name for name in given or order}
    )
    found = {name for entry in entries for name in entry.names if name is not None}
    unknown = sorted(found - set(renamed))
    if unknown:
        raise DataError(
            f"{target}: boxes of class {', '.join(map(repr, unknown))}; classes= has {', '.join(map(repr, renamed))}. "
            "Add them, with None for boxes to ignore"
        )
    class_names = list(dict.fromkeys(name for name in renamed.values() if name is not None))
    folders = [Path(images)] if images is not None else beside
    good, paths, skipped = [], [], []
    for entry in entries:
        try:
            paths.append(_find(entry, folders, target))
            good.append(entry)
        except DataError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
    if not good:
        raise DataError(f"{target}: not one of {len(entries)} fields can be used; the first: {skipped[0]}")
    source = FileSource([str(p) for p in paths])
    boxes, labels = [], []
    for row, entry in enumerate(good):
        own = np.array(entry.boxes, np.float32).reshape(-1, 4)
        if entry.relative:
            own = own * np.tile(np.array(source.header(row)[:2], np.float32), 2)
        targets = [None if name is None else renamed[name] for name in entry.names]
        boxes.append(own)
        labels.append(np.array([IGNORED if t is None else class_names.index(t) for t in targets], np.int32))
    notes = [f"{len(skipped)} fields passed over; the first: {skipped[0]}"] if skipped else []
    names = [entry.file for entry in good]
    return FieldDataset.from_source(source, boxes, labels, names, class_names, notes=notes, annotated=annotated)


_Read = Callable[[Path, "list[str] | None"], tuple[list[_Entry], list[str]]]


def _recognise(path: Path) -> tuple[_Read, list[Path]]:
    """Say how a file or folder is read, and where its images may be."""
    if path.is_file():
        if path.suffix.lower() == ".json":
            return _read_json, [path.parent, path.parent / "images"]
        if path.suffix.lower() == ".txt" and path.parent.parent.name == "ImageSets":
            root = path.parents[2]
            return _read_voc, [root / "JPEGImages", root / "images", root]
        raise DataError(
            f"{path}: expected a COCO or IML annotation file (.json), a Pascal VOC list "
            "(ImageSets/Main/*.txt), or a folder"
        )
    layouts = {
        "Pascal VOC": any((path / "Annotations").glob("*.xml")),
        "YOLO": any((path / "labels").rglob("*.txt")),
        "an annotation file": bool(list(path.glob("*.json"))),
    }
    there = [name for name, here in layouts.items() if here]
    if len(there) > 1:
        raise DataError(f"{path}: holds {' and '.join(there)}; give the path of the one that is meant")
    if layouts["an annotation file"]:
        files = sorted(path.glob("*.json"))
        if len(files) > 1:
            raise DataError(f"{path}: holds {len(files)} .json files; give the path of one")
        return (lambda _, given: _read_json(files[0], given)), [path, path / "images"]
    if layouts["Pascal VOC"]:
        return _read_voc, [path / "JPEGImages", path / "images", path]
    if layouts["YOLO"]:
        return _read_yolo, [path / "images", path]
    return _read_plain, [path]


def _find(entry: _Entry, folders: Sequence[Path], where: Path) -> Path:
    for folder in folders:
        path = folder / entry.file
        if path.is_file():
            break
    else:
        raise DataError(
            f"{where}: there is no image {entry.file!r} in {' or '.join(map(str, folders))}; pass images=FOLDER"
        )
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
    return path


def _read_json(path: Path, given: list[str] | None) -> tuple[list[_Entry], list[str]]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON file that can be read ({error})") from error
    try:
        if isinstance(raw, dict) and {"images", "annotations", "categories"} <= set(raw):
            return _read_coco(raw)
        if isinstance(raw, list) and raw and all(isinstance(e, dict) and "image_name" in e for e in raw):
            return _read_iml(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: an entry is not as expected ({type(error).__name__}: {error})") from error
    raise DataError(
        f"{path}: neither COCO (images, annotations, categories) nor IML-Malaria (a list of image_name and objects)"
    )


def _read_coco(raw: dict[str, Any]) -> tuple[list[_Entry], list[str]]:
    kinds = {kind["id"]: str(kind["name"]) for kind in raw["categories"]}
    entries = {}
    for image in raw["images"]:
        size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
        entries[image["id"]] = _Entry(str(image["file_name"]), size=size)
    for thing in raw["annotations"]:
        x, y, w, h = map(float, thing["bbox"])
        entry = entries[thing["image_id"]]
        entry.boxes.append([x, y, x + w, y + h])
        entry.names.append(None if thing.get("iscrowd") else kinds[thing["category_id"]])
    return list(entries.values()), list(kinds.values())


def _read_iml(raw: list[dict[str, Any]]) -> tuple[list[_Entry], list[str]]:
    entries = []
    for item in raw:
        entry = _Entry(str(item["image_name"]))
        for thing in item["objects"]:
            x, y, w, h = (float(thing["bbox"][key]) for key in ("x", "y", "w", "h"))
            entry.boxes.append([x, y, x + w, y + h])
            entry.names.append(str(thing["type"]))
        entries.append(entry)
    return entries, sorted({name for entry in entries for name in entry.names if name is not None})


def _read_voc(path: Path, given: list[str] | None) -> tuple[list[_Entry], list[str]]:
    from xml.etree import ElementTree

    if path.is_file():
        stems = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        files = [path.parents[2] / "Annotations" / f"{stem}.xml" for stem in stems]
    else:
        files = sorted((path / "Annotations").glob("*.xml"))
    entries = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: the annotation cannot be read ({error})") from error
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # the only way to entities, external or nested
            raise DataError(f"{file}: declares a document type; annotations need none, and it is not read")
        try:
            root = ElementTree.fromstring(text)
            entries.append(_voc_entry(root, file))
        except (ElementTree.ParseError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{file}: this is no Pascal VOC annotation ({error})") from error
    return entries, sorted({name for entry in entries for name in entry.names if name is not None})


def _voc_entry(root: Any, file: Path) -> _Entry:
    size = root.find("size")
    wide, high = (int(size.findtext(key)) for key in ("width", "height")) if size is not None else (0, 0)
    name = root.findtext("filename") or f"{file.stem}.jpg"
    entry = _Entry(name if is_image_name(name) else f"{file.stem}.jpg", size=(wide, high) if wide and high else None)
    for thing in root.findall("object"):
        box = thing.find("bndbox")
        entry.boxes.append([float(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")])
        entry.names.append(None if (thing.findtext("difficult") or "0").strip() == "1" else thing.findtext("name"))
    return entry


def _read_yolo(path: Path, given: list[str] | None) -> tuple[list[_Entry], list[str]]:
    listed = next((p for p in (path / "classes.txt", path / "labels" / "classes.txt") if p.is_file()), None)
    if given is None and listed is None:
        raise DataError(
            f"{path}: there is no classes.txt; pass classes=[...] with the names in the order of their numbers"
        )
    order = given or [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]  # type: ignore[union-attr]
    folder = path / "images" if (path / "images").is_dir() else path
    labels = {p.relative_to(path / "labels").with_suffix("").as_posix(): p for p in (path / "labels").rglob("*.txt")}
    entries = []
    for name in image_files(folder):
        entry = _Entry(name, relative=True)
        file = labels.get(Path(name).with_suffix("").as_posix())
        for number, line in enumerate([] if file is None else file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                kind, x, y, w, h = line.split()[:5]
                middle, side = np.array([float(x), float(y)]), np.array([float(w), float(h)])
                entry.names.append(order[_index(kind, len(order))])
            except ValueError as error:
                raise DataError(
                    f"{file}, line {number}: {line.strip()!r}; expected a class number below {len(order)}, and x, y, "
                    "width and height in shares of the image"
                ) from error
            entry.boxes.append([*(middle - side / 2), *(middle + side / 2)])
        entries.append(entry)
    missing = set(labels) - {Path(e.file).with_suffix("").as_posix() for e in entries} - {"classes"}
    if missing:
        raise DataError(
            f"{path}: labels/{sorted(missing)[0]}.txt has no image of that name, and {len(missing) - 1} others"
        )
    return entries, list(order)


def _index(text: str, count: int) -> int:
    number = int(text)
    if not 0 <= number < count:
        raise ValueError(text)
    return number


def _read_plain(path: Path, given: list[str] | None) -> tuple[list[_Entry], list[str]]:
    files = image_files(path)
    if not files:
        raise DataError(f"{path}: there are neither annotations nor images in this folder")
    return [_Entry(name) for name in files], given or []
