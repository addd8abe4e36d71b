"""labelme: one JSON file for each image, with shapes and imagePath; github.com/wkentaro/labelme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    corners,
    counted,
    name_of,
    numbers,
    round_box,
    sorted_names,
    whole_size,
)
from cellscan.errors import DataError


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return isinstance(file.json, dict) and {"shapes", "imagePath"} <= set(file.json)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries, masks = [], 0
    for file in files:
        entry = Entry("", str(file), stem=file.path.stem)
        entries.append(entry)
        where = str(file)
        try:
            raw = file.json
            entry.file = name_of(raw["imagePath"])
            entry.size = whole_size(raw.get("imageWidth"), raw.get("imageHeight"))
            for row, thing in enumerate(raw["shapes"]):
                where = f"{file}, shape {row}"
                masks += thing.get("shape_type") == "mask"
                _add(entry, thing)
        except (DataError, *BAD) as error:
            entry.fail(where, error)
    coordinates = "corners in pixels as written; the first pixel spans 0 to 1"
    return Parsed(entries, sorted_names(entries), coordinates, counted(masks, "masks read as the box around them"))


def _add(entry: Entry, thing: dict[str, Any]) -> None:
    name, kind = name_of(thing["label"]), thing.get("shape_type") or "polygon"
    points = [numbers(point) for point in thing["points"]]
    if any(len(point) != 2 for point in points):
        raise ValueError("a point does not have two numbers; expected x and y")
    flat = [side for point in points for side in point]
    if kind in ("rectangle", "mask") and len(points) == 2:
        entry.add(corners(flat), name)
    elif kind in ("polygon", "rectangle", "oriented_rectangle"):
        entry.add_polygon([flat], name)
    elif kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        entry.add(round_box(points[0][0], points[0][1], radius, radius), name)
    elif kind in ("point", "points"):
        for x, y in points:
            entry.add_point(x, y, name)
    else:
        raise ValueError(f"a {kind!r} of {len(points)} points; expected a rectangle, polygon, circle or point")


FORMAT = Format("labelme", "labelme", (".json",), _recognise, _read, a_picture=True)
