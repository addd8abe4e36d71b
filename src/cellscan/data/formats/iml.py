"""IML-Malaria: one JSON file with a list of images and their objects.

Source: Arshad et al. (2022), Neural Computing and Applications.
"""

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
)
from cellscan.errors import DataError


def _recognise(file: AnnotationFile, place: Place) -> bool:
    raw = file.json
    return isinstance(raw, list) and bool(raw) and isinstance(raw[0], dict) and "image_name" in raw[0]


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries: list[Entry] = []
    for file in files:
        try:
            for item in file.json:
                entries.append(_read_one(file, item))
        except BAD as error:
            raise DataError(f"{file}: {reason(error)}") from error
    return Parsed(entries, sorted_names(entries), "corners in pixels as written; the first pixel spans 0 to 1")


def _read_one(file: AnnotationFile, item: dict[str, Any]) -> Entry:
    entry = Entry(name_of(item["image_name"]), str(file))
    where = f"{file}, image {entry.file!r}"
    try:
        for row, thing in enumerate(item["objects"]):
            where = f"{file}, image {entry.file!r}, object {row}"
            x, y, w, h = (number(thing["bbox"][key]) for key in ("x", "y", "w", "h"))
            entry.add([x, y, x + w, y + h], name_of(thing["type"]))
    except BAD as error:
        entry.fail(where, error)
    return entry


FORMAT = Format("iml", "IML-Malaria", (".json",), _recognise, _read)
