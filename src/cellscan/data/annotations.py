"""Reading annotation files into a `FieldDataset`: the format of a folder, its images, and the files not read."""

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
    OVERRUN,
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
from cellscan.data.formats.registry import FORMATS, SIDECAR, is_about, is_label_folder, may_hold_boxes, recognise
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
"""The classes of IML-Malaria mapped to two: all stages become "infected"; difficult cells are ignored."""

_MASK_FOLDERS = ("gt", "mask", "masks", "ground_truth", "groundtruth")
"""Names (lower case) of folders whose images are masks of cells instead of fields."""


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
    """Read whole fields with their boxes, polygons and points.

    The annotation format is recognised from the content of the files. The files may be beside the images, in separate
    folders, or in parts such as ``train`` and ``valid``, which are joined. `FieldDataset.format` and the line
    ``format ...`` of ``print(fields)`` report the recognised format and how it counts corners.

    Parameters
    ----------
    path : path
        A folder, an annotation file, a folder of annotation files, a YOLO ``data.yaml``, or a Pascal VOC list such as
        ``ImageSets/Main/train.txt``.
    format : str, optional
        The format to read if a folder contains annotations in several formats, such as ``"coco"``, ``"voc"``
        (Pascal VOC), ``"yolo"`` or ``"csv"``. The error for an unknown name lists all formats.
    images : path, optional
        Folder of the images. Default: images are searched for beside the annotation file, then in folders with names
        such as ``images`` and ``JPEGImages``, then anywhere below `path`. If an annotation contains a path, its last
        parts are enough.
    classes : mapping or sequence of str, optional
        A mapping from names in the file to names in the data set, or to None for boxes to ignore, such as
        `cellscan.IML_TWO_CLASS`. Or the names of the classes in order; YOLO needs them if no file contains them.
        Default: all classes of the file, in its order, or sorted if the file has no order.
    complete : sequence of str, optional
        Classes of which every cell is annotated in every field. A field without a box of such a class contains no
        cell of it. Cells of other classes that have no box count neither as background in training nor as false
        positives in evaluation. Default: all classes.
    patient, slide, laboratory : callable, mapping or path, optional
        A function from the name of a field, such as ``"p1/a.png"``, to its patient, slide or laboratory. Or a mapping
        from names, or a CSV file with the header ``name,patient`` (``name,slide``, ``name,laboratory``). A name may be
        the part after a slash if it fits only one field. `laboratory` may also be one name for all fields.
    boxes : bool
        False reads only the images of a folder and skips annotations.
    on_error : {"raise", "skip"}
        ``"skip"`` leaves out fields that cannot be used, and counts them in the notes.

    Returns
    -------
    FieldDataset
        Names are paths relative to the folder, without a leading folder for images such as ``images``. Boxes are
        clipped to the frame; boxes without area and repeated boxes are dropped. The notes count these boxes, and files
        that were not read.

    Raises
    ------
    ArgumentError
        An argument has the wrong type or value.
    DataError
        The format is unknown, or two formats are mixed; a class is unknown; coordinates are impossible, such as shares
        of the image where pixels are expected, boxes outside the image, or many boxes far beyond its frame; or an image
        is missing, damaged, annotated twice or of another size than the annotation states. The message contains the
        file and the line or entry.

    Notes
    -----
    Text is read as UTF-8 with or without a byte order mark, or as UTF-16 with one; XML in its declared encoding.
    Corners are kept as written. In sets that count pixels from 1 they are one pixel off; a note reports it if the
    corners suggest such counting.

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
      format iml: IML-Malaria, corners in pixels as written; the first pixel spans 0 to 1
      1 patients
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    if not isinstance(boxes, bool):
        raise ArgumentError(f"boxes is {boxes!r:.80}; expected True or False")
    if format is not None:
        check_choice("format", format, tuple(FORMATS))
    target, given = _existing("path", path), _class_list(classes)
    tables = [groups for groups in (patient, slide, laboratory) if isinstance(groups, (str, os.PathLike))]
    place = Place(
        _root(target),
        given,
        None if images is None else _existing("images", images),
        frozenset(os.path.abspath(table) for table in tables),
    )
    result = _find(target, place, format) if boxes else None
    if result is None:
        fields, saved = _read_plain(target, place, refuse=boxes), {}
    else:
        fields, saved = _read(target, place, *result, classes=classes, complete=complete, on_error=on_error)
    names = fields.names.tolist()
    given_groups = {"patient": patient, "slide": slide, "laboratory": laboratory}
    groups = {
        kind: [saved.get(name, {}).get(kind, "") for name in names]
        if given is None
        else read_groups(kind, names, given)
        for kind, given in given_groups.items()
    }
    return fields.with_groups(groups["patient"], groups["slide"], groups["laboratory"])


def _existing(name: str, path: object) -> Path:
    result = as_path(name, path)
    if not os.path.exists(result):
        raise DataError(f"{result}: there is no such file or folder")
    if name == "images" and not result.is_dir():
        raise DataError(f"{result}: this is a file; images= expects the folder of the images")
    return result


def _class_list(classes: object) -> list[str] | None:
    """Return the class names if they are given in order, or None for a mapping."""
    if classes is None:
        return None
    if isinstance(classes, Mapping):
        if not all(isinstance(old, str) and (new is None or isinstance(new, str)) for old, new in classes.items()):
            raise ArgumentError(f"classes is {classes!r:.200}; expected a mapping from names to names or None")
        return None
    names = as_list("classes", classes)
    if not names or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"classes is {classes!r:.200}; expected a mapping from names, or a sequence of names")
    return names


def _root(target: Path) -> Path:
    """Return the folder of the set: the parent if the caller gave an annotation folder or a file in one."""
    if target.is_dir():
        return target.absolute().parent if is_label_folder(target) and not list_folder(target)[0] else target
    if target.parent.parent.name == "ImageSets":
        return target.parents[2]
    return target.absolute().parent.parent if is_label_folder(target.absolute().parent) else target.parent


def _find(target: Path, place: Place, wanted: str | None) -> tuple[Format, list[AnnotationFile], list[str]] | None:
    """Return the format, its files and the names of all inspected files, or None if there are only images."""
    if target.is_dir():
        names = place.others
        if target != place.root:  # The caller chose one of several annotation folders.
            names = [name for name in names if name.startswith(f"{target.name}/")]
        result = recognise(place, names, wanted)
        return None if result is None else (*result, names)
    suffix = target.suffix.lower()
    if suffix in (".yaml", ".yml"):
        place.given = place.given or yolo.read_names(target)
        return *(recognise(place, place.others, "yolo") or ()), place.others  # type: ignore[return-value]
    if suffix == ".txt" and target.parent.parent.name == "ImageSets":
        return FORMATS["voc"], _listed(target, place), []
    file = AnnotationFile(target, target.relative_to(place.root).as_posix() if place.root in target.parents else "")
    candidates = [kind for kind in FORMATS.values() if suffix in kind.suffixes and wanted in (None, kind.name)]
    if not candidates:
        known = ", ".join(sorted({suffix for kind in FORMATS.values() for suffix in kind.suffixes}))
        other = "" if wanted is None else f"; files of format={wanted!r} have another suffix"
        raise DataError(
            f"{target}: expected an annotation file ({known}), a Pascal VOC list (ImageSets/Main/*.txt), a YOLO "
            f"data.yaml, or a folder{other}"
        )
    fitting = [kind for kind in candidates if _is_of(kind, file, place)]
    if not fitting and (wanted or len(candidates) == 1):
        fitting = candidates
    if not fitting:
        raise DataError(
            f"{target}: the file is neither COCO (images, annotations, categories) nor another known format: "
            f"{', '.join(sorted(FORMATS))}. Export it as COCO, Pascal VOC or YOLO"
        )
    if fitting[0].name == "yolo":
        raise DataError(f"{target}: this is one YOLO label file; pass its folder, or the data.yaml of the set")
    return fitting[0], [file], []


def _is_of(kind: Format, file: AnnotationFile, place: Place) -> bool:
    try:
        return kind.name != "yolo" and kind.recognise(file, place)
    except DataError:
        # The usual format of the suffix is tried, so that its reader reports what cannot be parsed.
        if kind.name in ("coco", "voc", "csv"):
            return True
        raise


def _listed(target: Path, place: Place) -> list[AnnotationFile]:
    """Return the Pascal VOC annotation files of a list."""
    folders = sorted(
        child for child in place.root.iterdir() if child.is_dir() and child.name.casefold() == "annotations"
    )
    folder = folders[0] if folders else place.root / "Annotations"
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
    """Return the annotated fields, and for each field the values that `cellscan.json` stores."""
    reading = kind.read(files, place)
    if not reading.entries:
        listed = " and ".join(str(file) for file in files[:3])
        raise DataError(f"{target}: the annotations contain no fields ({listed}); expected at least one")
    order, saved_notes, saved = _sidecar(place.root, reading.classes)
    renamed: dict[str, str | None] = (
        dict(classes) if isinstance(classes, Mapping) else {name: name for name in place.given or order}
    )
    good, paths, sizes, skipped = _locate(target, place, reading, renamed, on_error)
    _check_pixels(good)
    _check_frames(good, sizes, reading.coordinates)
    field_names = names_of(paths, place.images or place.root)
    rank = {name: number for number, name in enumerate(saved)}
    row_order = sorted(range(len(good)), key=lambda row: rank.get(field_names[row], len(rank)))
    good, paths = [good[row] for row in row_order], [paths[row] for row in row_order]
    sizes, field_names = [sizes[row] for row in row_order], [field_names[row] for row in row_order]
    class_names = list(dict.fromkeys(name for name in renamed.values() if name is not None))
    complete_names = None if complete is None else as_texts("complete", as_list("complete", complete, ordered=False))
    class_names += [name for name in dict.fromkeys(complete_names or ()) if name not in class_names]
    index = {old: IGNORED if new is None else class_names.index(new) for old, new in renamed.items()} | {None: IGNORED}
    scale = [np.array(size if entry.relative else (1, 1), float) for entry, size in zip(good, sizes, strict=True)]
    notes = [f"{len(skipped)} fields skipped; the first: {skipped[0]}"] if skipped else []
    counts_images = reading.whole and (target.is_dir() or not kind.a_picture)
    unnamed = _count_unnamed(paths) - len(skipped) if counts_images else 0
    notes += counted(max(unnamed, 0), "images in the same folders are not annotated, and left out")
    read = {*(file.name for file in files), *reading.used}
    unread = [name for name in names if name not in read and not is_about(name)]
    notes += [f"{len(unread)} files not read, such as {unread[0]}"] if unread else []
    full = np.ones((len(good), len(class_names)), bool)
    for row, name in enumerate(field_names):
        in_field = saved.get(name, {}).get("complete") if complete_names is None else complete_names
        if in_field is not None:
            full[row] = [class_name in in_field for class_name in class_names]
    fields = FieldDataset.from_source(
        FileSource(paths),
        [_array(e.boxes, 4) * np.tile(s, 2) for e, s in zip(good, scale, strict=True)],
        [np.array([index[name] for name in entry.names], np.int32) for entry in good],
        field_names,
        class_names,
        notes=[*saved_notes, *reading.notes, *notes],
        polygons=[
            [[_array(ring, 2) * s for ring in rings] for rings in e.rings] for e, s in zip(good, scale, strict=True)
        ],
        points=[_array(e.points, 2) * s for e, s in zip(good, scale, strict=True)],
        point_labels=[np.array([index[name] for name in entry.point_names], np.int32) for entry in good],
        complete=full,
        sizes=sizes,
        format=kind.name,
        coordinates_note=f"{kind.title}, {reading.coordinates}",
    )
    return fields, saved


def _locate(
    target: Path, place: Place, reading: Parsed, renamed: Mapping[str, str | None], on_error: str
) -> tuple[list[Entry], list[Path], list[tuple[int, int]], list[str]]:
    """Return the usable entries, their images and sizes, and the error messages of the others."""
    good, paths, sizes, skipped = [], [], [], []
    used = {name for e in reading.entries if not e.problem for name in (*e.names, *e.point_names) if name is not None}
    unknown = sorted(used - set(renamed))
    if unknown:
        raise DataError(
            f"{target}: it has boxes of class {', '.join(map(repr, unknown))}, but classes= has only "
            f"{', '.join(map(repr, renamed))}. Add the missing classes to classes=; map them to None to ignore them"
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
        raise DataError(f"{target}: none of the {len(reading.entries)} fields can be used; the first: {skipped[0]}")
    return good, paths, sizes, skipped


def _sidecar(root: Path, classes: list[str]) -> tuple[list[str], list[str], dict[str, dict[str, Any]]]:
    """Return the classes, the notes, and the values of each field that `FieldDataset.save` stored."""
    path = root / SIDECAR
    if not path.is_file():
        return classes, [], {}
    raw = AnnotationFile(path, SIDECAR).json
    try:
        order, notes = [name_of(name) for name in raw["class_names"]], [name_of(note) for note in raw["notes"]]
        fields = {name: dict(values) for name, values in raw["fields"].items()}
        for name, values in fields.items():
            unknown = set(values) - {"patient", "slide", "laboratory", "complete"}
            texts = [values.get(key, "") for key in ("patient", "slide", "laboratory")] + values.get("complete", [])
            if unknown or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"fields, {name!r}: {values!r:.80}; expected patient, slide, laboratory and complete")
    except BAD as error:
        raise DataError(
            f"{path}: {reason(error)}. cellscan writes this file beside annotations; delete it to read only the "
            "annotations"
        ) from error
    return list(dict.fromkeys([*order, *classes])), notes, fields


def _read_plain(target: Path, place: Place, *, refuse: bool) -> FieldDataset:
    """Read the images of a folder. With `refuse`, raise if other files may contain boxes or images may be masks."""
    if not target.is_dir():
        raise ArgumentError(f"{target}: this is a file, but boxes=False reads the images of a folder; pass the folder")
    if target != place.root:
        place = Place(target, place.given, place.images, place.aside)
    if not place.pictures:
        raise DataError(f"{target}: the folder has neither annotations nor images")
    masks = [name for name in place.pictures if set(name.casefold().split("/")[:-1]) & {*_MASK_FOLDERS}]
    masks = masks if len(masks) < len(place.pictures) else []
    if refuse:
        unread = [name for name in place.others if may_hold_boxes(name)]
        if target.name.casefold() in IMAGE_FOLDERS:
            siblings = sorted(child.name for child in target.absolute().parent.iterdir() if child.is_dir())
            unread += [f"../{name}" for name in siblings if name.casefold() in ("labels", "annotations")]
        if unread or masks:
            problem = f"some files may contain boxes, but their format is unknown: {[*unread, ''][0]}"
            if not unread:
                problem = f"some images look like masks of cells instead of fields: {masks[0]}"
                unread = masks
            raise DataError(
                f"{target}: {problem}{f' and {len(unread) - 1} others' if unread[1:] else ''}. Pass the path of a COCO "
                "file, or of a Pascal VOC or YOLO folder; to read only the images, pass boxes=False"
            )
    taken = [name for name in place.pictures if name not in set(masks)]
    unread = [name for name in place.others if not is_about(name)]
    notes = counted(len(masks), "images in folders for masks, not read")
    notes += [f"{len(unread)} files not read, such as {unread[0]}"] if unread else []
    paths = [place.root / name for name in taken]
    nothing: list[list[float]] = [[]] * len(taken)
    return FieldDataset.from_source(
        FileSource(paths), nothing, nothing, names_of(paths, place.root), place.given or [], notes=notes,
        annotated=False, format="images", coordinates_note="images only, no annotations",
    )  # fmt: skip


def _count_unnamed(paths: Iterable[Path]) -> int:
    """Return the number of other images in the folders of these images."""
    known = {os.path.abspath(path) for path in paths}
    folders = {os.path.dirname(path) for path in known}
    images = (os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if is_image_name(name))
    return sum(path not in known for path in images)


def _check_pixels(entries: Sequence[Entry]) -> None:
    """Raise if no box extends beyond the first pixel: such coordinates are shares of the image."""
    sides = [side for entry in entries if not entry.relative for box in entry.boxes for side in box]
    if sides and max(sides) <= 1:
        raise DataError(
            f"{entries[0].where}: no coordinate is larger than 1, so these are shares of the image; expected pixels"
        )


def _check_frames(entries: Sequence[Entry], sizes: Sequence[tuple[int, int]], coordinates: str) -> None:
    """Raise if many boxes extend far beyond their images, as if two corners were read as a corner and a size."""
    count, beyond = 0, []
    for entry, (width, height) in zip(entries, sizes, strict=True):
        w, h = (1, 1) if entry.relative else (width, height)
        count += len(entry.boxes)
        beyond += [
            f"{entry.where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) in an image of {w} x {h}"
            for left, top, right, bottom in entry.boxes
            if min(left / w, top / h) < -OVERRUN or max(right / w, bottom / h) > 1 + OVERRUN
        ]
    if len(beyond) > max(count / 4, 2):
        raise DataError(
            f"{beyond[0]} and {len(beyond) - 1} others of {count} boxes extend far beyond their images. The format "
            f"has {coordinates}; does the file have other sides, such as two corners instead of a corner and a size?"
        )


def _array(values: Any, width: int) -> np.ndarray:
    return np.array(values, float).reshape(-1, width)
