"""VGG Image Annotator: project or annotations as JSON, or as CSV. Dutta and Zisserman (2019), ACM Multimedia."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    counted,
    name_of,
    number,
    numbers,
    reason,
    round_box,
    sorted_names,
)
from cellscan.errors import DataError

_CLASS = ("class", "label", "type", "category", "name", "species", "stage")
"""Names of attributes that may be the class of a region, if it has several attributes."""

BARE = "object"
"""The class of regions without attributes."""

_COLUMNS = frozenset(("filename", "region_shape_attributes", "region_attributes"))


def _recognise(file: AnnotationFile, place: Place) -> bool:
    if file.path.suffix.lower() == ".csv":
        return _COLUMNS <= set(_header(file))
    raw = file.json
    if not isinstance(raw, dict) or not raw:
        return False
    if "_via_img_metadata" in raw:
        return True
    first = next(iter(raw.values()))
    return isinstance(first, dict) and {"filename", "regions"} <= set(first)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries: list[Entry] = []
    bare = 0
    for file in files:
        by_name: dict[str, Entry] = {}
        for where, name, shape, attributes in _regions(file):
            entry = by_name.setdefault(name, Entry(name, str(file)))
            if shape:
                try:
                    kind = _class_of(attributes)
                    bare += kind == BARE
                    _add(entry, shape, kind)
                except BAD as error:
                    entry.fail(where, error)
        entries += by_name.values()
    coordinates = "corners in pixels as written; the first pixel spans 0 to 1"
    return Parsed(
        entries, sorted_names(entries), coordinates, counted(bare, f"regions without a class, read as {BARE!r}")
    )


def _regions(file: AnnotationFile) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield the location in the file, image, shape and attributes of each region.

    The shape is empty or None for an image without regions.
    """
    where = str(file)
    try:
        if file.path.suffix.lower() == ".csv":
            rows = csv.reader(io.StringIO(file.text, newline=""))
            header = _header(file)
            next(rows)
            for row in rows:
                where = f"{file}, line {rows.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} columns; expected {len(header)}")
                cells = dict(zip(header, row, strict=True))
                shape, attributes = (json.loads(cells[key] or "{}") for key in sorted(_COLUMNS)[:0:-1])
                yield where, name_of(cells["filename"]), shape, attributes
            return
        raw = file.json
        for key, image in raw.get("_via_img_metadata", raw).items():
            where = f"{file}, image {key!r}"
            name, regions = name_of(image["filename"]), image["regions"]
            yield where, name, None, None
            for row, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
                where = f"{file}, image {key!r}, region {row}"
                shape = region["shape_attributes"]
                yield where, name, shape or {"name": ""}, region.get("region_attributes")
    except (csv.Error, *BAD) as error:
        raise DataError(f"{where}: {reason(error) if not isinstance(error, csv.Error) else error}") from error


def _header(file: AnnotationFile) -> list[str]:
    return [name.strip().lstrip("#") for name in next(csv.reader(file.lines[:1]), [])]


def _class_of(attributes: Any) -> str:
    """Return the class of a region: its only attribute, or the first of `_CLASS` among several."""
    values = {key.strip().casefold(): _value(value) for key, value in (attributes or {}).items()}
    values = {key: value for key, value in values.items() if value}
    if not values:
        return BARE
    if len(values) == 1:
        return next(iter(values.values()))
    for key in _CLASS:
        if key in values:
            return values[key]
    raise ValueError(
        f"the region has the attributes {', '.join(values)}; expected one attribute, or one of {', '.join(_CLASS)}"
    )


def _value(value: Any) -> str:
    if isinstance(value, dict):  # Attributes with checkboxes.
        ticked = [key for key, on in value.items() if on]
        if len(ticked) > 1:
            raise ValueError(f"the region has the classes {', '.join(ticked)}; expected one")
        return ticked[0] if ticked else ""
    return "" if value is None or value == "" else name_of(value)


def _add(entry: Entry, shape: dict[str, Any], name: str) -> None:
    kind = shape.get("name")
    if kind == "rect":
        x, y, width, height = (number(shape[key]) for key in ("x", "y", "width", "height"))
        entry.add([x, y, x + width, y + height], name)
    elif kind in ("circle", "ellipse"):
        x, y = number(shape["cx"]), number(shape["cy"])
        radii = (shape["r"],) * 2 if kind == "circle" else (shape["rx"], shape["ry"])
        turn = math.degrees(number(shape.get("theta") or 0))
        entry.add(round_box(x, y, number(radii[0]), number(radii[1]), turn), name)
    elif kind == "polygon":
        xs, ys = numbers(shape["all_points_x"]), numbers(shape["all_points_y"])
        if len(xs) != len(ys):
            raise ValueError(f"the polygon has {len(xs)} x and {len(ys)} y; expected as many of each")
        entry.add_polygon([[side for pair in zip(xs, ys, strict=True) for side in pair]], name)
    elif kind == "point":
        entry.add_point(number(shape["cx"]), number(shape["cy"]), name)
    else:
        raise ValueError(f"a region of shape {kind!r}; expected rect, circle, ellipse, polygon or point")


FORMAT = Format("via", "VGG Image Annotator", (".json", ".csv"), _recognise, _read)
