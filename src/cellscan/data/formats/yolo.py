"""YOLO: one text file for each image; each line is a class number and shares of the image.

Darknet, Ultralytics and labelImg write this format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cellscan.data.formats.common import (
    BAD,
    LABEL_FOLDERS,
    OVERRUN,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    Record,
    around,
    counted,
    lost_shapes,
    numbers,
    read_lines,
    read_text,
)
from cellscan.data.images import list_folder
from cellscan.errors import DataError, MissingExtraError

CLASS_FILES = ("classes.txt", "data.yaml", "data.yml", "dataset.yaml", "dataset.yml")

NOT_LABELS = ("classes.txt", "notes.json")
"""Files beside YOLO labels that are not labels. Label Studio writes the second."""


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return place.may_be_label(file.name)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    order, used = place.given, {name for name in place.others if _is_list(name)}
    if order is None:
        order = _find_classes(place.root, used)
    labels = {_key(file.name[:-4]): file for file in files}
    root = place.root if place.images is None else place.images
    pictures = place.pictures if place.images is None else list_folder(place.images)[0]
    claims: dict[str, dict[int, list[str]]] = {}
    for name in pictures:
        folder, _, stem = _key(os.path.splitext(name)[0]).rpartition("/")
        parts = folder.split("/") if folder else []
        swapped = ["labels" if part == "images" else part for part in parts]
        for rank, where in enumerate((parts, swapped, ["labels", *parts], ["labels", *parts[1:]])):
            key = "/".join([*where, stem])
            if key in labels:
                claims.setdefault(key, {}).setdefault(rank, []).append(name)
                break
    # Each label file belongs to the images in the first of the four possible locations that has any.
    owners = {key: ranks[min(ranks)] for key, ranks in claims.items()}
    label = {name: key for key, names in owners.items() for name in names}
    # Only folders with labelled images and folders named images are read. Others contain, for example, previews.
    inside = {os.path.dirname(name) for name in label}
    inside |= {folder for folder in map(os.path.dirname, pictures) if "images" in folder.casefold().split("/")}
    taken = [name for name in pictures if place.images is not None or os.path.dirname(name) in inside]
    entries, scores = [], 0
    for name in taken:
        file = labels.get(label.get(name, ""))
        entries.append(Entry(name, str(file or place.root), folder=root, relative=True))
        if file is not None:
            if owners[label[name]] != [name]:
                entries[-1].fail(str(file), f"it fits several images, {' and '.join(owners[label[name]])}; keep one")
            scores += _read_one(file, entries[-1], order)
    lonely = sorted(labels.keys() - owners.keys())
    if lonely and not owners:
        raise DataError(
            f"{labels[lonely[0]]}: there is no image of that name beside the label file or in a folder images; pass "
            "images=FOLDER"
        )
    inner = [key for key in lonely if set(key.split("/")[:-1]) & {*LABEL_FOLDERS}]
    for key in inner:
        entries.append(Entry("", str(labels[key]), problem=f"{labels[key]}: there is no image of that name"))
    notes = [
        *counted(len(lonely) - len(inner), "text files outside label folders, without an image, not read"),
        *counted(len(taken) - len(label), "images without a label file: fields without boxes"),
        *counted(len(pictures) - len(taken), "images in other folders, without labels, not read"),
        *counted(scores, "scores not kept"),
    ]
    return Parsed(entries, order, "centre and size, or corners of polygons, in shares of the image", notes, used, False)


def _read_one(file: AnnotationFile, entry: Entry, order: Sequence[str]) -> int:
    """Add the boxes of a label file to its entry; return the number of boxes with a score."""
    scores: list[bool] = []
    read_lines(file, entry, lambda line: scores.append(_add(entry, line.split(), order)))
    return sum(scores)


def _add(entry: Entry, columns: Sequence[str], order: Sequence[str]) -> bool:
    """Add the box of a line; return True if it has a score."""
    kind, *values = numbers(columns)
    if kind != int(kind) or not 0 <= kind < len(order):
        raise ValueError(f"the class number is {kind:g}; expected a whole number from 0 to {len(order) - 1}")
    if not (len(values) in (4, 5) or (len(values) >= 6 and len(values) % 2 == 0)):
        raise ValueError(
            f"there are {len(columns)} columns; expected 5 (class, x, y, width, height), 6 with a score, or the class "
            "and x, y of each corner of a polygon"
        )
    if min(values) < -OVERRUN or max(values) > 1 + OVERRUN:
        raise ValueError(
            "expected shares of the image from 0 to 1; if these are pixels, divide them by the width and height"
        )
    name = order[int(kind)]
    if len(values) > 5:
        entry.add(around(values), name, [values])
    else:
        x, y, w, h = values[:4]
        entry.add([x - w / 2, y - h / 2, x + w / 2, y + h / 2], name)
    return len(values) == 5


def _find_classes(root: Path, used: Iterable[str]) -> list[str]:
    inside = [root / name for name in sorted(used) if _is_list_of_classes(name)]
    # If the folder is one part of a data set, such as train, the list of classes is in its parent.
    above = [root.absolute().parent / name for name in CLASS_FILES]
    lists = [read_names(file) for file in inside or above if file.is_file()]
    if not lists:
        raise DataError(
            f"{root}: there is no classes.txt and no data.yaml; pass classes=[...] with the names in the order of "
            "their numbers"
        )
    if any(names != lists[0] for names in lists):
        raise DataError(
            f"{root}: its lists of classes differ; pass classes=[...] with the names in the order of their numbers"
        )
    return lists[0]


def read_names(path: Path) -> list[str]:
    """Return the classes of a ``classes.txt``, a Darknet ``.names`` file or a ``data.yaml``, in their order."""
    if path.suffix.lower() in (".txt", ".names"):
        names = [line.strip() for line in read_text(path).rstrip().splitlines()]
        if not names or not all(names):
            raise DataError(
                f"{path}, line {names.index('') + 1 if names else 1}: it is empty; expected one class name in each line"
            )
        return names
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading this file needs PyYAML; install it with pip install pyyaml, or pass classes=[...]"
        ) from error
    try:
        names = yaml.safe_load(read_text(path))["names"]
        if isinstance(names, dict):
            names = [names[number] for number in range(len(names))]
        if not isinstance(names, list) or not names:
            raise ValueError("names is not a list")
        return [str(name) for name in names]
    except (yaml.YAMLError, *BAD) as error:
        raise DataError(
            f"{path}: it has no list of class names under 'names'; add one, or pass classes=[...]"
        ) from error


def _is_list_of_classes(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return base in CLASS_FILES or base.endswith(".names")


def _is_list(name: str) -> bool:
    """Return True if a file describes the data set; such a file is not counted as unread."""
    return (
        _is_list_of_classes(name) or name.rpartition("/")[2].lower() in NOT_LABELS or name.endswith((".yaml", ".yml"))
    )


def _key(stem: str) -> str:
    """Return a path without suffix with its folders in lower case."""
    folder, slash, name = stem.rpartition("/")
    return folder.casefold() + slash + name


def _write(records: Sequence[Record], class_names: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(class_names))
    texts = {
        "classes.txt": "".join(f"{name}\n" for name in class_names),
        "data.yaml": f"path: .\ntrain: images\nval: images\nnames:\n{names}",
    }
    for record in records:
        width, height = record.size
        lines = [
            f"{label} {(left + right) / 2 / width} {(top + bottom) / 2 / height} "
            f"{(right - left) / width} {(bottom - top) / height}\n"
            for (left, top, right, bottom), label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
            if label >= 0
        ]
        texts[f"labels/{record.stem}.txt"] = "".join(lines)
    ignored = sum(int((record.labels < 0).sum()) for record in records)
    return texts, {"ignored boxes not written: YOLO cannot mark them": ignored, **lost_shapes(records)}


FORMAT = Format("yolo", "YOLO", (".txt",), _recognise, _read, a_picture=True, write=_write)
