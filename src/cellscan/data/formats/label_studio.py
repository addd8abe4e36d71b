"""Label Studio's JSON and JSON-MIN: a list of tasks with coordinates in percent of the image size; labelstud.io."""

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
    """Return True if a value of JSON-MIN is a list of regions."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and any(shape in first for shape in _SHAPES)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries: list[Entry] = []
    tally = {"results that are not regions left out": 0, "tasks without an annotation: fields without boxes": 0}
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
    return Parsed(entries, sorted_names(entries), "coordinates in percent of the image size", notes)


def _file_of(task: dict[str, Any]) -> str:
    """Return the path of the image of a task. It may be an upload, a local file, a file in cloud storage or a URL."""
    data = task.get("data") or {
        key: value for key, value in task.items() if isinstance(value, str) and key not in ("created_at", "updated_at")
    }
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if not texts:
        raise ValueError("it contains no path of an image")
    text = texts.get("image") or next((value for value in texts.values() if "/" in value), next(iter(texts.values())))
    address = urllib.parse.urlsplit(text)
    local = urllib.parse.parse_qs(address.query).get("d")
    return local[0] if local else urllib.parse.unquote(address.path or text)


def _results(task: dict[str, Any], tally: dict[str, int]) -> list[dict[str, Any]]:
    """Return the regions of the annotation to read: the only one, or the one that is marked as ground truth."""
    if "data" not in task:
        return [region for value in task.values() if _is_regions(value) for region in value]
    annotations = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    truths = [annotation for annotation in annotations if annotation.get("ground_truth")]
    chosen = truths or annotations
    if len(chosen) > 1:
        raise ValueError(f"it has {len(chosen)} annotations; keep one, or mark one as ground truth")
    if not chosen:
        tally["tasks without an annotation: fields without boxes"] += 1
        return []
    return chosen[0]["result"]


def _add(entry: Entry, result: dict[str, Any], tally: dict[str, int]) -> None:
    value = result.get("value", result)
    kind = next((shape for shape in _SHAPES if shape in value), None)
    if kind is None:
        tally["results that are not regions left out"] += 1
        return
    size = whole_size(result.get("original_width"), result.get("original_height"))
    entry.size = entry.size or size
    entry.relative = True
    if len(value[kind]) != 1:
        raise ValueError(f"the labels are {value[kind]!r:.80}; expected exactly one")
    name = name_of(value[kind][0])
    if kind == "polygonlabels":
        entry.add_polygon([[number(side) / 100 for point in value["points"] for side in point]], name)
        return
    if kind == "brushlabels":
        raise ValueError("brush masks are not supported; export them as COCO, or draw polygons")
    x, y = number(value["x"]) / 100, number(value["y"]) / 100
    if kind == "keypointlabels":
        entry.add_point(x, y, name)
        return
    turn = number(value.get("rotation") or 0)
    if turn and entry.size is None:
        raise ValueError("it is rotated, but original_width and original_height of its image are missing")
    # The rotation is computed in pixels: shares of the image have another scale on each axis.
    width, height = entry.size or (1, 1)
    if kind == "ellipselabels":
        radii = number(value["radiusX"]) / 100 * width, number(value["radiusY"]) / 100 * height
        left, top, right, bottom = round_box(x * width, y * height, *radii, turn)
        entry.add([left / width, top / height, right / width, bottom / height], name)
        return
    w, h = number(value["width"]) / 100, number(value["height"]) / 100
    if not turn:
        entry.add([x, y, x + w, y + h], name)
        return
    if w < 0 or h < 0:
        raise ValueError(f"a box of {w:g} x {h:g} has a negative side")
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    ring: list[float] = []
    # Label Studio rotates a box about its corner (x, y).
    for dx, dy in ((0, 0), (w * width, 0), (w * width, h * height), (0, h * height)):
        ring += [x + (dx * c - dy * s) / width, y + (dx * s + dy * c) / height]
    entry.add(around(ring), name, [ring])


FORMAT = Format("label_studio", "Label Studio", (".json",), _recognise, _read)
