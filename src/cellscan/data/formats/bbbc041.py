"""BBBC041: one JSON file with a list of images and their objects. Ljosa et al. (2012), Nature Methods 9:637."""

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
    reason,
    sorted_names,
    whole_size,
)
from cellscan.errors import DataError


def _recognise(file: AnnotationFile, place: Place) -> bool:
    raw = file.json
    first = raw[0] if isinstance(raw, list) and raw else None
    return isinstance(first, dict) and {"image", "objects"} <= set(first) and isinstance(first["image"], dict)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries: list[Entry] = []
    for file in files:
        try:
            for row, item in enumerate(file.json):
                entries.append(_read_one(file, row, item))
        except BAD as error:
            raise DataError(f"{file}: {reason(error)}") from error
    return Parsed(entries, sorted_names(entries), "corners by row and column in pixels; the first pixel spans 0 to 1")


def _read_one(file: AnnotationFile, row: int, item: dict[str, Any]) -> Entry:
    entry = Entry(name_of(item["image"]["pathname"]), str(file))
    where = f"{file}, image {entry.file!r} (number {row})"
    try:
        shape = item["image"].get("shape") or {}
        entry.size = whole_size(shape.get("c"), shape.get("r"))
        for index, cell in enumerate(item["objects"]):
            where = f"{file}, image {entry.file!r}, object {index}"
            first, last = cell["bounding_box"]["minimum"], cell["bounding_box"]["maximum"]
            entry.add([number(corner[key]) for corner in (first, last) for key in "cr"], name_of(cell["category"]))
    except BAD as error:
        entry.fail(where, error)
    return entry


FORMAT = Format("bbbc041", "BBBC041", (".json",), _recognise, _read)
