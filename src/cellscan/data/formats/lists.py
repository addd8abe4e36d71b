"""A JSON file of fields with short lists: boxes are left, top, right, bottom, class; points are x, y, class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    name_of,
    number,
    numbers,
    reason,
    whole_size,
)
from cellscan.errors import DataError


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return isinstance(file.json, dict) and {"classes", "fields"} <= set(file.json)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    result = Parsed([], [], "boxes and points in pixels; the first pixel spans 0 to 1")
    for file in files:
        try:
            names = [name_of(name) for name in file.json["classes"]]
            result.classes += names
            result.entries += [_read_one(file, item, names) for item in file.json["fields"]]
        except BAD as error:
            raise DataError(f"{file}: {reason(error)}") from error
    result.classes = list(dict.fromkeys(result.classes))
    return result


def _read_one(file: AnnotationFile, item: dict[str, Any], names: Sequence[str]) -> Entry:
    entry = Entry(name_of(item["file"]), str(file))
    where = f"{file}, field {entry.file!r}"
    try:
        entry.size = whole_size(item.get("width"), item.get("height"))
        for row, thing in enumerate(item.get("boxes") or ()):
            where = f"{file}, field {entry.file!r}, box {row}"
            entry.add(numbers(thing[:-1]), _class(thing[-1], names))
        points: list[Any] = item.get("points") or []
        for row in range(len(points)):
            where = f"{file}, field {entry.file!r}, point {row}"
            x, y, kind = points[row]
            entry.add_point(number(x), number(y), _class(kind, names))
    except BAD as error:
        entry.fail(where, error)
    return entry


def _class(kind: object, names: Sequence[str]) -> str:
    if isinstance(kind, bool) or not isinstance(kind, int) or not 0 <= kind < len(names):
        raise ValueError(f"the class {kind!r} is unknown; expected a whole number from 0 to {len(names) - 1}")
    return names[kind]


FORMAT = Format("lists", "a JSON of fields with lists of boxes and points", (".json",), _recognise, _read)
