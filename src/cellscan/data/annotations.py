"""Annotation files -> `FieldDataset`: which format a folder has, where its images are, and what is left unread."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellscan.data.fields import FieldDataset
from cellscan.data.finding import IMAGE_FOLDERS, Finder, names_of
from cellscan.data.formats import yolo
from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    counted,
    name_of,
    read_text,
    reason,
)
from cellscan.data.formats.table import FORMATS, SIDECAR, is_about, is_label_folder, may_hold_boxes, recognise
from cellscan.data.groups import Groups, read_groups
from cellscan.data.images import is_image_name, list_folder
from cellscan.data.shapes import IGNORED
from cellscan.data.sources import FileSource
from cellscan.data.values import as_list, as_path, as_texts
from cellscan.errors import ArgumentError, DataError, check_choice

IML_TWO_CLASS: dict[str, str | None] = {
    "red blood cell": "red blood cell",
    "ring": "infected",
    "trophozoite": "infected",
    "schizont": "infected",
    "gametocyte": "infected",
    "difficult": None,
}
"""Classes of IML-Malaria as two: every stage is an infected cell, and a difficult one is ignored."""

_MASK_FOLDERS = ("gt", "mask", "masks", "ground_truth", "groundtruth")
"""Names, in any case, of folders whose images are masks of cells, and no fields."""


def load_fields(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    classes: Mapping[str, str | None] | Sequence[str] | None = None,
    complete: Sequence[str] | None = None,
    patient: Groups | None = None,
    slide: Groups | None = None,
    laboratory: Groups | None = None,
    boxes: bool = True,
    on_error: str = "raise",
) -> FieldDataset:
    """Read whole fields, and the boxes, polygons and points in them.

    The format is recognised by the content of the files, wherever tools put them: beside the images, in folders of
    their own, or in parts such as ``train`` and ``valid``, which are joined. `FieldDataset.format` and the first line
    below the counts of ``print(fields)`` say what was recognised, and how corners are counted.

    Parameters
    ----------
    path : path
        A folder; or an annotation file, a folder of such files, a YOLO ``data.yaml``, or a list of Pascal VOC,
        ``ImageSets/Main/train.txt``.
    format : str, optional
        Where a folder holds annotations in several formats, the one that is meant, such as ``"coco"``, ``"voc"``
        (Pascal VOC), ``"yolo"`` or ``"csv"``; an unknown name is answered with all of them.
    images : path, optional
        Where the images are. Left out, they are sought beside the annotation file, then in folders called ``images``,
        ``JPEGImages`` and alike, then anywhere below `path`. Where an annotation has a path, its end is enough.
    classes : mapping or sequence of str, optional
        Name in the file -> name in the data set, or None for boxes to ignore, such as `cellscan.IML_TWO_CLASS`; or the
        names of the classes in order, which YOLO needs where no file has them. Left out, all
        classes of the file, in its order, or sorted where it has none.
    complete : sequence of str, optional
        Classes of which every cell is annotated in every field; one that has no box here says that there is no such
        cell. What is not among them counts, where it is not annotated, neither as background in training nor as a
        false call in evaluation. Left out: all classes.
    patient, slide, laboratory : callable, mapping or path, optional
        A function from the name of a field, such as ``"p1/a.png"``, to its patient, slide or laboratory. Or a mapping,
        or a CSV file with the header ``name,patient`` (``name,slide``, ``name,laboratory``), whose names are `names` or
        their ends behind a slash, where those fit one field only. A laboratory may also be one name for all.
    boxes : bool
        False reads the images of a folder alone, whatever annotations lie beside them.
    on_error : {"raise", "skip"}
        ``"skip"`` passes over fields that cannot be used, and says so in the notes.

    Returns
    -------
    FieldDataset
        Names are paths below the folder, without a folder for images that comes first. Boxes are clipped to the frame;
        boxes without area, or given twice, are dropped. All of it is counted in its notes, and so are files that
        were not read.

    Raises
    ------
    ArgumentError
        Where an argument is of another kind than expected.
    DataError
        Where the format is not known or two are mixed, a class is unknown, an annotation cannot be what it claims
        (pixels as shares, boxes outside the image), or an image is missing, damaged, named twice or of another size
        than annotated. It names the file and the line or the entry.

    Notes
    -----
    Text is read as UTF-8, with or without a byte order mark, or UTF-16 with one; XML as it declares. Corners are kept
    as written: sets that count pixels from 1 are one pixel off, and a note says where it looks so.

    Examples
    --------
    >>> import json, pathlib, tempfile, cellscan
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (64, 48)).save(folder / "p1_a.png")
    >>> box = {"type": "ring", "bbox": {"x": "4", "y": "5", "w": "20", "h": "20"}}
    >>> _ = (folder / "annotations.json").write_text(json.dumps([{"image_name": "p1_a.png", "objects": [box]}]))
    >>> fields = cellscan.load_fields(
    ...     folder, classes=cellscan.IML_TWO_CLASS, patient=lambda name: name.split("_")[0]
    ... )
    >>> print(fields)
    1 fields, 1 boxes: red blood cell 0, infected 1
      format iml: IML-Malaria, corners in pixels as written, the first pixel from 0 to 1
      1 patients
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    if not isinstance(boxes, bool):
        raise ArgumentError(f"boxes is {boxes!r:.80}; expected True or False")
    if format is not None:
        check_choice("format", format, tuple(FORMATS))
    target, given = _existing("path", path), _class_list(classes)
    tables = [one for one in (patient, slide, laboratory) if isinstance(one, (str, os.PathLike))]
    place = Place(
        _root(target),
        given,
        None if images is None else _existing("images", images),
        frozenset(os.path.abspath(one) for one in tables),
    )
    found = _find(target, place, format) if boxes else None
    if found is None:
        fields, kept = _read_plain(target, place, refuse=boxes), {}
    else:
        fields, kept = _read(target, place, *found, classes=classes, complete=complete, on_error=on_error)
    names = fields.names.tolist()
    given_groups = {"patient": patient, "slide": slide, "laboratory": laboratory}
    groups = {
        what: [kept.get(name, {}).get(what, "") for name in names] if one is None else read_groups(what, names, one)
        for what, one in given_groups.items()
    }
    return fields.with_groups(groups["patient"], groups["slide"], groups["laboratory"])


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


def _root(target: Path) -> Path:
    """Return the folder of the set: the one above where annotations alone, or one of their files, are given."""
    if target.is_dir():
        return target.absolute().parent if is_label_folder(target) and not list_folder(target)[0] else target
    if target.parent.parent.name == "ImageSets":
        return target.parents[2]
    return target.absolute().parent.parent if is_label_folder(target.absolute().parent) else target.parent


def _find(target: Path, place: Place, wanted: str | None) -> tuple[Format, list[AnnotationFile], list[str]] | None:
    """Return the format, its files, and all files that were looked at; None for images alone."""
    if target.is_dir():
        names = place.others
        if target != place.root:  # the folder of annotations that is meant, where two are mixed
            names = [name for name in names if name.startswith(f"{target.name}/")]
        found = recognise(place, names, wanted)
        return None if found is None else (*found, names)
    suffix = target.suffix.lower()
    if suffix in (".yaml", ".yml"):
        place.given = place.given or yolo.read_names(target)
        return *(recognise(place, place.others, "yolo") or ()), place.others  # type: ignore[return-value]
    if suffix == ".txt" and target.parent.parent.name == "ImageSets":
        return FORMATS["voc"], _listed(target, place), []
    file = AnnotationFile(target, target.relative_to(place.root).as_posix() if place.root in target.parents else "")
    ways = [one for one in FORMATS.values() if suffix in one.suffixes and wanted in (None, one.name)]
    if not ways:
        known = ", ".join(sorted({suffix for one in FORMATS.values() for suffix in one.suffixes}))
        raise DataError(
            f"{target}: expected an annotation file ({known}), a list of Pascal VOC (ImageSets/Main/*.txt), a YOLO "
            f"data.yaml, or a folder{'' if wanted is None else f'; format={wanted!r} has other files'}"
        )
    fitting = [one for one in ways if _is_of(one, file, place)] or (ways if wanted or len(ways) == 1 else [])
    if not fitting:
        raise DataError(
            f"{target}: neither COCO (images, annotations, categories) nor another format that is read: "
            f"{', '.join(sorted(FORMATS))}. Export it as COCO, Pascal VOC or YOLO"
        )
    if fitting[0].name == "yolo":
        raise DataError(f"{target}: one label file of YOLO; give its folder, or the data.yaml of the set")
    return fitting[0], [file], []


def _is_of(kind: Format, file: AnnotationFile, place: Place) -> bool:
    try:
        return kind.name != "yolo" and kind.recognise(file, place)
    except DataError:
        # What cannot be parsed says so itself, in the reading of the format that most such files have.
        if kind.name in ("coco", "voc", "csv"):
            return True
        raise


def _listed(target: Path, place: Place) -> list[AnnotationFile]:
    """Return the Pascal VOC files that a list names."""
    there = sorted(child for child in place.root.iterdir() if child.is_dir() and child.name.casefold() == "annotations")
    folder = there[0] if there else place.root / "Annotations"
    files = []
    for line in filter(None, map(str.strip, read_text(target).splitlines())):
        whole, first = (folder / f"{stem}.xml" for stem in (line, line.split()[0]))
        file = whole if whole.is_file() else first
        files.append(AnnotationFile(file, file.relative_to(place.root).as_posix()))
    return files


def _read(
    target: Path,
    place: Place,
    kind: Format,
    files: Sequence[AnnotationFile],
    names: Sequence[str],
    *,
    classes: Any,
    complete: Any,
    on_error: str,
) -> tuple[FieldDataset, dict[str, dict[str, Any]]]:
    """Return what annotation files say, and of each field what was kept beside them."""
    reading = kind.read(files, place)
    if not reading.entries:
        listed = " and ".join(str(file) for file in files[:3])
        raise DataError(f"{target}: it names no fields ({listed}); expected at least one")
    order, before, kept = _sidecar(place.root, reading.classes)
    renamed: dict[str, str | None] = (
        dict(classes) if isinstance(classes, Mapping) else {name: name for name in place.given or order}
    )
    good, paths, sizes, skipped = _locate(target, place, reading, renamed, on_error)
    _check_pixels(good)
    field_names = names_of(paths, place.images or place.root)
    rank = {name: number for number, name in enumerate(kept)}
    row_order = sorted(range(len(good)), key=lambda row: rank.get(field_names[row], len(rank)))
    good, paths = [good[row] for row in row_order], [paths[row] for row in row_order]
    sizes, field_names = [sizes[row] for row in row_order], [field_names[row] for row in row_order]
    class_names = list(dict.fromkeys(name for name in renamed.values() if name is not None))
    whole = None if complete is None else as_texts("complete", as_list("complete", complete))
    class_names += [name for name in dict.fromkeys(whole or ()) if name not in class_names]
    index = {old: IGNORED if new is None else class_names.index(new) for old, new in renamed.items()} | {None: IGNORED}
    scale = [np.array(size if entry.relative else (1, 1), float) for entry, size in zip(good, sizes, strict=True)]
    notes = [f"{len(skipped)} fields passed over; the first: {skipped[0]}"] if skipped else []
    finder_told = reading.whole and (target.is_dir() or not kind.a_picture)
    unnamed = _count_unnamed(paths) - len(skipped) if finder_told else 0
    notes += counted(max(unnamed, 0), "images in the same folders are not annotated, and left out")
    read = {*(file.name for file in files), *reading.used}
    unread = [name for name in names if name not in read and not is_about(name)]
    notes += [f"{len(unread)} files not read, such as {unread[0]}"] if unread else []
    full = np.ones((len(good), len(class_names)), bool)
    for row, name in enumerate(field_names):
        said = kept.get(name, {}).get("complete") if whole is None else whole
        if said is not None:
            full[row] = [one in said for one in class_names]
    fields = FieldDataset.from_source(
        FileSource(paths),
        [_array(e.boxes, 4) * np.tile(s, 2) for e, s in zip(good, scale, strict=True)],
        [np.array([index[name] for name in entry.names], np.int32) for entry in good],
        field_names,
        class_names,
        notes=[*before, *reading.notes, *notes],
        polygons=[
            [[_array(ring, 2) * s for ring in rings] for rings in e.rings] for e, s in zip(good, scale, strict=True)
        ],
        points=[_array(e.points, 2) * s for e, s in zip(good, scale, strict=True)],
        point_labels=[np.array([index[name] for name in entry.point_names], np.int32) for entry in good],
        complete=full,
        sizes=sizes,
        format=kind.name,
        told=f"{kind.title}, {reading.told}",
    )
    return fields, kept


def _locate(
    target: Path, place: Place, reading: Parsed, renamed: Mapping[str, str | None], on_error: str
) -> tuple[list[Entry], list[Path], list[tuple[int, int]], list[str]]:
    """Return the entries that can be used, their images and sizes, and why others cannot."""
    good, paths, sizes, skipped = [], [], [], []
    used = {name for e in reading.entries if not e.problem for name in (*e.names, *e.point_names) if name is not None}
    unknown = sorted(used - set(renamed))
    if unknown:
        raise DataError(
            f"{target}: boxes of class {', '.join(map(repr, unknown))}; classes= has {', '.join(map(repr, renamed))}. "
            "Add them, with None for boxes to ignore"
        )
    finder = Finder(place, walk=target.is_dir())
    for entry in reading.entries:
        try:
            if entry.problem:
                raise DataError(entry.problem)
            path, size = finder.find(entry)
        except DataError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
        else:
            good.append(entry)
            paths.append(path)
            sizes.append(size)
    if not good:
        raise DataError(f"{target}: not one of {len(reading.entries)} fields can be used; the first: {skipped[0]}")
    return good, paths, sizes, skipped


def _sidecar(root: Path, classes: list[str]) -> tuple[list[str], list[str], dict[str, dict[str, Any]]]:
    """Return the order of classes, the notes, and what is kept of each field, in their order, as `save` wrote it."""
    path = root / SIDECAR
    if not path.is_file():
        return classes, [], {}
    raw = AnnotationFile(path, SIDECAR).json
    try:
        order, notes = [name_of(name) for name in raw["class_names"]], [name_of(note) for note in raw["notes"]]
        fields = {name: dict(kept) for name, kept in raw["fields"].items()}
        for name, kept in fields.items():
            strange = set(kept) - {"patient", "slide", "laboratory", "complete"}
            texts = [kept.get(key, "") for key in ("patient", "slide", "laboratory")] + kept.get("complete", [])
            if strange or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"fields, {name!r}: {kept!r:.80}; expected patient, slide, laboratory and complete")
    except BAD as error:
        raise DataError(
            f"{path}: {reason(error)}. cellscan wrote this file beside annotations; delete it to read them alone"
        ) from error
    return list(dict.fromkeys([*order, *classes])), notes, fields


def _read_plain(target: Path, place: Place, *, refuse: bool) -> FieldDataset:
    """Read the images of a folder, unless something beside them may hold boxes."""
    if not target.is_dir():
        raise ArgumentError(f"{target}: boxes=False reads the images of a folder; expected its path")
    if target != place.root:
        place = Place(target, place.given, place.images, place.aside)
    if not place.pictures:
        raise DataError(f"{target}: there are neither annotations nor images in this folder")
    masks = [name for name in place.pictures if set(name.casefold().split("/")[:-1]) & {*_MASK_FOLDERS}]
    masks = masks if len(masks) < len(place.pictures) else []
    if refuse:
        unread = [name for name in place.others if may_hold_boxes(name)]
        if target.name.casefold() in IMAGE_FOLDERS:
            there = sorted(child.name for child in target.absolute().parent.iterdir() if child.is_dir())
            unread += [f"../{name}" for name in there if name.casefold() in ("labels", "annotations")]
        if unread or masks:
            what = f"files beside the images may hold boxes and are not of a format that is read: {[*unread, ''][0]}"
            if not unread:
                what = f"images in folders such as {masks[0]} look like masks of cells, which are no fields"
                unread = masks
            raise DataError(
                f"{target}: {what}{f' and {len(unread) - 1} others' if unread[1:] else ''}. Give the path of a COCO "
                "file, a Pascal VOC or a YOLO folder; for the images alone, without boxes, pass boxes=False"
            )
    taken = [name for name in place.pictures if name not in set(masks)]
    unread = [name for name in place.others if not is_about(name)]
    notes = counted(len(masks), "images in folders for masks, not read")
    notes += [f"{len(unread)} files not read, such as {unread[0]}"] if unread else []
    paths = [place.root / name for name in taken]
    nothing: list[list[float]] = [[]] * len(taken)
    return FieldDataset.from_source(
        FileSource(paths), nothing, nothing, names_of(paths, place.root), place.given or [], notes=notes,
        annotated=False, format="images", told="images alone, no annotations",
    )  # fmt: skip


def _count_unnamed(paths: Iterable[Path]) -> int:
    """Return how many images lie beside these and are none of them."""
    own = {os.path.abspath(path) for path in paths}
    folders = {os.path.dirname(path) for path in own}
    there = (os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if is_image_name(name))
    return sum(path not in own for path in there)


def _check_pixels(entries: Sequence[Entry]) -> None:
    """Raise where boxes in pixels are shares of the image: not one reaches beyond the first pixel."""
    sides = [side for entry in entries if not entry.relative for box in entry.boxes for side in box]
    if sides and max(sides) <= 1:
        raise DataError(f"{entries[0].where}: no box reaches beyond 1; expected pixels, these are shares of the image")


def _array(values: Any, width: int) -> np.ndarray:
    return np.array(values, float).reshape(-1, width)
