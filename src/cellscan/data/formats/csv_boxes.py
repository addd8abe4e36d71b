"""CSV files with one box in each line. The columns are recognised by the header.

Known layouts: TensorFlow object detection and Roboflow (``filename,...,xmin,ymin,xmax,ymax``), MP-IDB, Lacuna,
keras-retinanet (no header: path, corners, class), the ``bbox`` column of Kaggle, and the CSV that cellscan writes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cellscan.data.formats.common import (
    BAD,
    OVERRUN,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    Record,
    counted,
    numbers,
    plain,
    reason,
    sorted_names,
    whole_size,
)
from cellscan.data.tables import Column, Table, csv_rows
from cellscan.errors import DataError

_IMAGE = tuple("filename file image imageid imagename imagepath img imgname filepath path field name".split())
_CLASS = tuple("class label category classname labelname parasitetype celltype type stage species".split())
_SCORE = ("score", "confidence", "conf", "probability")
_IGNORED = ("ignored", "difficult", "iscrowd")
_NOT_ONE = ("neg", "negative")
"""Classes that mark an image without boxes, as in the Lacuna set."""

_Sides = Sequence[float]
_BOXES: tuple[tuple[tuple[str, ...], str, Callable[[_Sides], list[float]]], ...] = (
    (("xmin", "ymin", "xmax", "ymax"), "corners", list),
    (("left", "top", "right", "bottom"), "corners", list),
    (("x1", "y1", "x2", "y2"), "corners", list),
    (("x0", "y0", "x1", "y1"), "corners", list),
    (("xtl", "ytl", "xbr", "ybr"), "corners", list),
    (("minx", "miny", "maxx", "maxy"), "corners", list),
    (("xcenter", "ycenter", "width", "height"), "centre and size", lambda s: _about(*s)),
    (("xcenter", "ycenter", "w", "h"), "centre and size", lambda s: _about(*s)),
    (("cx", "cy", "w", "h"), "centre and size", lambda s: _about(*s)),
    (("cx", "cy", "width", "height"), "centre and size", lambda s: _about(*s)),
    (("x", "y", "width", "height"), "upper left corner and size", lambda s: _from(*s)),
    (("x", "y", "w", "h"), "upper left corner and size", lambda s: _from(*s)),
    (("left", "top", "width", "height"), "upper left corner and size", lambda s: _from(*s)),
    (("xmin", "ymin", "width", "height"), "upper left corner and size", lambda s: _from(*s)),
    (("bboxx", "bboxy", "bboxwidth", "bboxheight"), "upper left corner and size", lambda s: _from(*s)),
)
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


def _about(x: float, y: float, w: float, h: float) -> list[float]:
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def _from(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y + h]


class _Layout:
    """The meaning of the columns of a file."""

    def __init__(self, header: Sequence[str], named: bool = True) -> None:
        self.header = [re.sub(r"[^a-z0-9]", "", name.casefold()) for name in header]
        self.named = named
        self.image, self.kind = self._find(_IMAGE), self._find(_CLASS)
        self.score, self.ignored = self._find(_SCORE), self._find(_IGNORED)
        self.box = next((box for box in _BOXES if set(box[0]) <= set(self.header)), None)
        self.list = self._find(("bbox",)) if self.box is None else None
        taken = set(self.box[0]) if self.box else set()
        self.point = {"x", "y"} <= set(self.header) and not taken & {"x", "y"}
        self.size = {"width", "height"} <= set(self.header) and not taken & {"width", "height"}
        self.polygon = self._find(("polygon",))
        # Column indices are computed once here, because they are needed for each box.
        self.box_at = [self.header.index(key) for key in self.box[0]] if self.box else []
        self.point_at = [self.header.index(key) for key in "xy"] if self.point else []
        self.size_at = [self.header.index(key) for key in ("width", "height")] if self.size else []

    def _find(self, names: Sequence[str]) -> int | None:
        return next((self.header.index(name) for name in names if name in self.header), None)

    @property
    def complete(self) -> bool:
        shape = self.box is not None or self.list is not None or self.point
        return self.image is not None and shape and (self.kind is not None or self.list is not None)

    def describe(self) -> str:
        if self.box:
            return f"{self.box[1]} ({', '.join(self.box[0])})"
        return "upper left corner and size (bbox)" if self.list is not None else "points (x, y)"


def _layout(file: AnnotationFile) -> _Layout:
    header = next(csv.reader(file.lines[:1], delimiter=_mark(file)), [])
    if len(header) == 6 and _numeric(header[1:5]) and not _numeric(header[:1]):  # keras-retinanet has no header.
        return _Layout(("filename", "x1", "y1", "x2", "y2", "class"), named=False)
    return _Layout(header)


def _numeric(columns: Sequence[str]) -> bool:
    try:
        numbers(columns)
    except ValueError:
        return not any(columns) and len(columns) > 1
    return True


def _mark(file: AnnotationFile) -> str:
    return max(",;\t", key=(file.lines or [""])[0].count)


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return _layout(file).complete


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    folders = [file.path.parent for file in files]
    if len(set(folders)) < len(files):
        tables = [str(file) for file in files if folders.count(file.path.parent) > 1]
        raise DataError(
            f"{place.root}: there are {len(tables)} tables of boxes in one folder, {' and '.join(tables[:3])}; pass "
            "the path of the one to read"
        )
    entries: list[Entry] = []
    coordinates, notes, shares = [], [], []
    for file in files:
        layout = _layout(file)
        if not layout.complete:
            raise DataError(
                f"{file}, line 1: the columns are {', '.join(layout.header)[:200]}; expected a column for the image, "
                "one for the class, and xmin, ymin, xmax, ymax or x, y, width, height"
            )
        file_entries, file_notes = _read_one(file, layout)
        sides = [side for entry in file_entries for box in entry.boxes for side in box]
        sides += [side for entry in file_entries for point in entry.points for side in point]
        relative = bool(sides) and -OVERRUN <= min(sides) and max(sides) <= 1 + OVERRUN
        for entry in file_entries:
            entry.relative = relative
        shares.append(relative)
        coordinates.append(f"{layout.describe()} in {'shares of the image' if relative else 'pixels'}")
        entries += file_entries
        notes += file_notes
    if any(shares) != all(shares):
        mixed = [str(file) for file, relative in zip(files, shares, strict=True) if relative]
        notes.append(f"coordinates are shares of the image in {' and '.join(mixed[:3])}, pixels in the other files")
    return Parsed(entries, sorted_names(entries), "; ".join(dict.fromkeys(coordinates)), notes)


def _read_one(file: AnnotationFile, layout: _Layout) -> tuple[list[Entry], list[str]]:
    result: dict[str, Entry] = {}
    scores, bare = 0, 0
    rows = csv.reader(io.StringIO(file.text, newline=""), delimiter=_mark(file))
    where = str(file)
    try:
        if layout.named:
            next(rows, None)
        for row in rows:
            where = f"{file}, line {rows.line_num}"
            if not row or not any(map(str.strip, row)):
                continue
            if len(row) != len(layout.header):
                raise DataError(
                    f"{where}: {len(row)} columns; expected {len(layout.header)}, as in "
                    f"{'the header' if layout.named else 'the first line'}"
                )
            assert layout.image is not None
            name = row[layout.image].strip()
            if not name:
                raise DataError(f"{where}: the name of the image is empty")
            entry = result.get(name)
            if entry is None:
                entry = result[name] = Entry(name, str(file), stem=name)
            try:
                added = _add(entry, row, layout)
            except BAD as error:
                entry.fail(where, error)
                continue
            scores += added and layout.score is not None and bool(row[layout.score].strip())
            bare += added and layout.kind is None
    except csv.Error as error:
        raise DataError(f"{where}: {reason(str(error))}") from error
    return list(result.values()), [*counted(scores, "scores not kept"), *counted(bare, "boxes without a class")]


def _add(entry: Entry, row: Sequence[str], layout: _Layout) -> bool:
    """Add the box or point of a line; return True if there is one."""
    name = "object" if layout.kind is None else row[layout.kind].strip()
    ignored = "" if layout.ignored is None else row[layout.ignored].strip().casefold()
    if ignored not in _TRUE and ignored not in _FALSE:
        raise ValueError(f"{layout.header[layout.ignored or 0]} is {ignored!r}; expected 0 or 1")
    if layout.size_at:
        size = whole_size(*(row[column].strip() for column in layout.size_at))
        if size is not None and entry.size is not None and size != entry.size:
            raise ValueError(
                f"the image is {size[0]} x {size[1]} pixels here, but {entry.size[0]} x {entry.size[1]} above"
            )
        entry.size = entry.size or size
    texts = [row[column].strip() for column in layout.box_at]
    if layout.list is not None:
        texts = re.sub(r"[][()]", "", row[layout.list]).replace(",", " ").split()
    point = [row[column].strip() for column in layout.point_at]
    if not any(texts) and not any(point):  # The image has no box.
        return False
    if name.casefold() in _NOT_ONE and not any(numbers(text for text in texts if text)):
        return False
    if not name and ignored not in _TRUE:
        raise ValueError("a box without a class")
    class_name = None if ignored in _TRUE else name
    if any(texts):
        sides = numbers(texts)
        if len(sides) != 4:
            raise ValueError(f"the box has {len(sides)} numbers; expected 4")
        box = layout.box[2](sides) if layout.box else _from(*sides)
        text = "" if layout.polygon is None else row[layout.polygon].strip()
        entry.add(box, class_name, _rings(text) if text else None)
    else:
        entry.add_point(*numbers(point), class_name)  # type: ignore[arg-type]
    return True


def _rings(text: str) -> list[list[float]]:
    """Return the polygons in a text such as [[1, 2, 3, 4, 5, 6]], the notation of COCO."""
    try:
        rings = [numbers(ring) for ring in json.loads(text)]
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the polygon is {text[:60]!r}; expected lists such as [[x, y, x, y, x, y]]") from error
    if any(len(ring) < 6 or len(ring) % 2 for ring in rings):
        raise ValueError(f"the polygon is {text[:60]!r}; expected x and y of at least three corners")
    return rings


def box_table(records: Sequence[Record], class_names: Sequence[str]) -> Table:
    """Return the table of some fields, with one row per box or point, and one for a field without either.

    An ignored box has no class. The column ``score`` is there if one of the fields has scores.
    """
    cells: list[_Cell] = []
    for record in records:
        count = len(cells)
        scores = [None] * len(record.boxes) if record.scores is None else record.scores.tolist()
        for box, label, rings, score in zip(record.boxes, record.labels, record.polygons, scores, strict=True):
            polygon = json.dumps([ring.ravel().tolist() for ring in rings]) if len(rings) else None
            cells.append(_Cell(record, int(label), box.tolist(), polygon=polygon, score=score))
        for point, label in zip(record.points, record.point_labels, strict=True):
            cells.append(_Cell(record, int(label), point=point.tolist()))
        if len(cells) == count:
            cells.append(_Cell(record))
    labels = [cell.label for cell in cells]
    table = {
        "field": Column([cell.record.name for cell in cells]),
        "width": Column([cell.record.size[0] for cell in cells], "whole"),
        "height": Column([cell.record.size[1] for cell in cells], "whole"),
        **{
            name: Column([cell.box[side] for cell in cells], "number", plain)
            for side, name in enumerate(("left", "top", "right", "bottom"))
        },
        "class": Column([class_names[k] if k is not None and k >= 0 else None for k in labels], tuple(class_names)),
        "ignored": Column([None if label is None else label < 0 for label in labels], "flag", "d"),
        "polygon": Column([cell.polygon for cell in cells]),
        "x": Column([cell.point[0] for cell in cells], "number", plain),
        "y": Column([cell.point[1] for cell in cells], "number", plain),
    }
    if any(record.scores is not None for record in records):
        table["score"] = Column([cell.score for cell in cells], "number", ".6f")
    return table


class _Cell(NamedTuple):
    """A row of the table: a box, a point, or neither."""

    record: Record
    label: int | None = None
    box: Sequence[float | None] = (None,) * 4
    point: Sequence[float | None] = (None,) * 2
    polygon: str | None = None
    score: float | None = None


def _write(records: Sequence[Record], class_names: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(csv_rows(box_table(records, class_names)))
    return {"annotations.csv": text.getvalue()}, {}


FORMAT = Format("csv", "CSV", (".csv", ".tsv"), _recognise, _read, write=_write)
