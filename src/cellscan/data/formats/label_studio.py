"""Label Studio's JSON and JSON-MIN: a list of tasks, coordinates in hundredths of the image; labelstud.io."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Sequence
from typing import Any

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    around,
    counted,
    name_of,
    number,
    reason,
    round_box,
    sorted_names,
    whole_size,
)
from cellscan.errors import DataError

_SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels", "keypointlabels", "brushlabels")


def _recognise(file: AnnotationFile, place: Place) -> bool:
    raw = file.json
    first = raw[0] if isinstance(raw, list) and raw else None
    if not isinstance(first, dict):
        return False
    return {"data", "annotations"} <= set(first) or any(_is_regions(value) for value in first.values())


def _is_regions(value: Any) -> bool:
    """Whether a value of JSON-MIN is a list of regions."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and any(shape in first for shape in _SHAPES)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries: list[Entry] = []
    tally = {"results that are no regions left out": 0, "tasks without an annotation: fields without boxes": 0}
    for file in files:
        try:
            tasks = list(file.json)
        except BAD as error:
            raise DataError(f"{file}: {reason(error)}") from error
        for row, task in enumerate(tasks):
            where = f"{file}, task {row}"
            entry = Entry("", str(file))
            entries.append(entry)
            try:
                where = f"{file}, task {task.get('id', row)!r}"
                entry.file = _file_of(task)
                results = _results(task, tally)
                for number_, result in enumerate(results):
                    where = f"{file}, task {task.get('id', row)!r}, region {number_}"
                    _add(entry, result, tally)
            except BAD as error:
                entry.fail(where, error)
    notes = [note for what, count in tally.items() for note in counted(count, what)]
    return Parsed(entries, sorted_names(entries), "coordinates in hundredths of the image", notes)


def _file_of(task: dict[str, Any]) -> str:
    """Return the path of the image: of an upload, a local file, a store or a URL."""
    data = task.get("data") or {
        key: value for key, value in task.items() if isinstance(value, str) and key not in ("created_at", "updated_at")
    }
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if not texts:
        raise ValueError("it names no image")
    found = texts.get("image") or next((value for value in texts.values() if "/" in value), next(iter(texts.values())))
    address = urllib.parse.urlsplit(found)
    local = urllib.parse.parse_qs(address.query).get("d")
    return local[0] if local else urllib.parse.unquote(address.path or found)


def _results(task: dict[str, Any], tally: dict[str, int]) -> list[dict[str, Any]]:
    """Return the regions of the one annotation that counts."""
    if "data" not in task:
        return [region for value in task.values() if _is_regions(value) for region in value]
    made = [one for one in task["annotations"] if not one.get("was_cancelled")]
    sure = [one for one in made if one.get("ground_truth")]
    if len(sure or made) > 1:
        raise ValueError(f"{len(sure or made)} annotations of one image; keep one, or mark one as ground truth")
    if not made:
        tally["tasks without an annotation: fields without boxes"] += 1
        return []
    return (sure or made)[0]["result"]


def _add(entry: Entry, result: dict[str, Any], tally: dict[str, int]) -> None:
    value = result.get("value", result)
    kind = next((shape for shape in _SHAPES if shape in value), None)
    if kind is None:
        tally["results that are no regions left out"] += 1
        return
    size = whole_size(result.get("original_width"), result.get("original_height"))
    entry.size = entry.size or size
    entry.relative = True
    if len(value[kind]) != 1:
        raise ValueError(f"the labels {value[kind]!r:.80}; expected one")
    name = name_of(value[kind][0])
    if kind == "polygonlabels":
        entry.add_polygon([[number(side) / 100 for point in value["points"] for side in point]], name)
        return
    if kind == "brushlabels":
        raise ValueError("a mask of the brush; export it as COCO, or draw polygons")
    x, y = number(value["x"]) / 100, number(value["y"]) / 100
    if kind == "keypointlabels":
        entry.add_point(x, y, name)
        return
    turn = number(value.get("rotation") or 0)
    if turn and entry.size is None:
        raise ValueError("it is turned, and the size of its image is not said")
    wide, high = entry.size or (1, 1)  # an angle is one in pixels, where both axes are alike
    if kind == "ellipselabels":
        radii = number(value["radiusX"]) / 100 * wide, number(value["radiusY"]) / 100 * high
        left, top, right, bottom = round_box(x * wide, y * high, *radii, turn)
        entry.add([left / wide, top / high, right / wide, bottom / high], name)
        return
    w, h = number(value["width"]) / 100, number(value["height"]) / 100
    if not turn:
        entry.add([x, y, x + w, y + h], name)
        return
    if w < 0 or h < 0:
        raise ValueError(f"a box of {w:g} x {h:g} has a negative side")
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))  # about the corner x, y
    ring: list[float] = []
    for dx, dy in ((0, 0), (w * wide, 0), (w * wide, h * high), (0, h * high)):
        ring += [x + (dx * c - dy * s) / wide, y + (dx * s + dy * c) / high]
    entry.add(around(ring), name, [ring])


FORMAT = Format("label_studio", "Label Studio", (".json",), _recognise, _read)
