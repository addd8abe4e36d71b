"""COCO: one JSON file with images, annotations and categories. Lin et al., Microsoft COCO (2014); cocodataset.org."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    Record,
    around,
    counted,
    name_of,
    number,
    numbers,
    reason,
    whole_size,
)
from cellscan.errors import DataError

_KEYS = frozenset(("images", "annotations", "categories"))


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return isinstance(file.json, dict) and set(file.json) >= _KEYS


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    result = Parsed([], [], "corners in pixels as written; the first pixel spans 0 to 1")
    tally = {
        "masks (RLE) read as the box around them": 0,
        "polygons with fewer than three corners left out, their boxes kept": 0,
        "scores not kept": 0,
    }
    for file in files:
        try:
            _read_one(file, result, tally)
        except BAD as error:
            raise DataError(f"{file}: {reason(error)}") from error
    result.classes = list(dict.fromkeys(result.classes))
    result.notes = list(dict.fromkeys(result.notes))
    result.notes += [note for what, count in tally.items() for note in counted(count, what)]
    return result


def _read_one(file: AnnotationFile, found: Parsed, tally: dict[str, int]) -> None:
    raw = file.json
    if not isinstance(raw, dict) or not set(raw) >= _KEYS:
        raise ValueError("this is not a COCO file; expected images, annotations and categories")
    kinds: dict[Any, str] = {}
    for kind in raw["categories"]:
        if kinds.setdefault(kind["id"], name_of(kind["name"])) != name_of(kind["name"]):
            raise ValueError(f"two categories have the id {kind['id']!r}")
    entries: dict[Any, Entry] = {}
    for image in raw["images"]:
        if image["id"] in entries:
            raise ValueError(f"two images have the id {image['id']!r}")
        entry = entries[image["id"]] = Entry(name_of(image["file_name"]), str(file))
        try:
            entry.size = whole_size(image.get("width"), image.get("height"))
        except BAD as error:
            entry.fail(f"{file}, image {image['id']!r}", error)
    lost: list[Entry] = []
    masks, spoilt, scores = tally
    for row, thing in enumerate(raw["annotations"]):
        where = f"{file}, annotation number {row}"
        entry = Entry("", str(file))
        try:
            where = f"{file}, annotation {thing.get('id', f'number {row}')!r}"
            if thing["image_id"] not in entries:
                lost.append(entry)
                raise ValueError(f"there is no image {thing['image_id']!r} in images")
            entry = entries[thing["image_id"]]
            if thing["category_id"] not in kinds:
                raise ValueError(f"there is no category {thing['category_id']!r} in categories")
            crowd = thing.get("iscrowd") or 0
            if crowd not in (0, 1, "0", "1"):
                raise ValueError(f"iscrowd is {crowd!r}; expected 0 or 1")
            name = None if int(crowd) else kinds[thing["category_id"]]
            box, shape = thing.get("bbox") or (), thing.get("segmentation")
            tally[scores] += thing.get("score") is not None
            if thing.get("num_keypoints") == 1 and (not box or not any(numbers(box[2:]))):
                x, y, _ = thing["keypoints"]
                entry.add_point(number(x), number(y), name)
                continue
            rings = [numbers(ring) for ring in shape] if isinstance(shape, list) else []
            good = [ring for ring in rings if len(ring) >= 6 and len(ring) % 2 == 0]
            tally[masks] += isinstance(shape, dict)
            if box:
                tally[spoilt] += len(rings) - len(good)
                x, y, w, h = numbers(box)
                entry.add([x, y, x + w, y + h], name, good)
            elif isinstance(shape, dict):
                entry.add(box_of_mask(shape), name)
            elif rings:
                entry.add(around([value for ring in rings for value in ring]), name, good)
            else:
                raise ValueError("it has neither a bbox nor polygons")
        except BAD as error:
            entry.fail(where, error)
    used = {name for entry in entries.values() for name in (*entry.names, *entry.point_names)}
    above = {kind.get("supercategory") for kind in raw["categories"] if kind.get("supercategory") != kind["name"]}
    for kind in raw["categories"]:
        name = name_of(kind["name"])
        # Roboflow writes the name of the project as an additional category, the supercategory of all others.
        if name in above and name not in used and kind.get("supercategory") in (None, "", "none"):
            found.notes.append(f"category {name!r} left out: it is the supercategory of others and has no box")
        else:
            found.classes.append(name)
    found.entries += [*entries.values(), *lost]


def box_of_mask(mask: dict[str, Any]) -> list[float]:
    """Return the box around a mask in COCO's run-length encoding.

    The run lengths count background and mask pixels alternately, column by column.

    Examples
    --------
    >>> from cellscan.data.formats.coco import box_of_mask
    >>> box_of_mask({"size": [4, 5], "counts": [5, 2, 2, 2, 9]})
    [1.0, 1.0, 3.0, 3.0]
    >>> box_of_mask({"size": [4, 5], "counts": "52207"})
    [1.0, 1.0, 3.0, 3.0]
    """
    height, width = (int(number(side)) for side in mask["size"])
    runs = mask["counts"]
    runs = _unpack(runs) if isinstance(runs, str) else [int(number(run)) for run in runs]
    if min(runs, default=0) < 0 or sum(runs) != height * width or min(height, width) < 1:
        raise ValueError(f"a mask of {sum(runs)} pixels; expected {height} x {width} pixels")
    left, top, right, bottom, start = width, height, 0, 0, 0
    for row, run in enumerate(runs):
        if row % 2 and run:
            first, last = start, start + run - 1
            left, right = min(left, first // height), max(right, last // height + 1)
            if first // height != last // height:  # The run continues in the next column.
                top, bottom = 0, height
            else:
                top, bottom = min(top, first % height), max(bottom, last % height + 1)
        start += run
    if right <= left:
        raise ValueError("the mask is empty; expected at least one pixel")
    return [float(left), float(top), float(right), float(bottom)]


def _unpack(text: str) -> list[int]:
    """Return the run lengths in a compressed text.

    Each number has digits of five bits, the lowest first. From the fourth on, a number is the difference to the
    number two before.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64 or shift > 50:
            raise ValueError(f"{text[:40]!r} is not a run-length text of COCO")
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:  # This bit is set if the number has more digits.
            continue
        if digit & 0x10:  # This bit of the last digit is the sign.
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError(f"the run-length text {text[:40]!r} ends within a number")
    return runs


def _write(records: Sequence[Record], class_names: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    images, things = [], []
    for number_, record in enumerate(records, 1):
        width, height = record.size
        images.append({"id": number_, "file_name": record.name, "width": width, "height": height})
        for row, (box, label) in enumerate(zip(record.boxes.tolist(), record.labels.tolist(), strict=True)):
            left, top, right, bottom = box
            thing = _thing(len(things) + 1, number_, label)
            thing |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            thing["segmentation"] = [ring.ravel().tolist() for ring in record.polygons[row]]
            if record.scores is not None:
                thing["score"] = float(record.scores[row])
            things.append(thing)
        for (x, y), label in zip(record.points.tolist(), record.point_labels.tolist(), strict=True):
            thing = _thing(len(things) + 1, number_, label)
            thing |= {"bbox": [x, y, 0.0, 0.0], "area": 0.0, "keypoints": [x, y, 2], "num_keypoints": 1}
            things.append(thing)
    kinds = [{"id": number_, "name": name} for number_, name in enumerate(class_names, 1)]
    raw = {"info": {"description": "written by cellscan"}, "images": images, "annotations": things, "categories": kinds}
    return {"annotations.json": json.dumps(raw) + "\n"}, {}


def _thing(number_: int, image: int, label: int) -> dict[str, Any]:
    """Return an annotation. An ignored one is written as a crowd of the first class, because COCO requires a class."""
    return {"id": number_, "image_id": image, "category_id": max(label, 0) + 1, "iscrowd": int(label < 0)}


FORMAT = Format("coco", "COCO", (".json",), _recognise, _read, write=_write)
