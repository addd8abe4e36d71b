"""CSV: a line a box, by its header; the layouts that tools and published sets share.

Sources: the CSV of TensorFlow's object detection and of Roboflow (``filename,...,xmin,ymin,xmax,ymax``), MP-IDB,
Lacuna, keras-retinanet (no header: path, corners, class), Kaggle's ``bbox`` column, and cellscan's own.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence

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
from cellscan.errors import DataError

_IMAGE = tuple("filename file image imageid imagename imagepath img imgname filepath path field name".split())
_CLASS = tuple("class label category classname labelname parasitetype celltype type stage species".split())
_SCORE = ("score", "confidence", "conf", "probability")
_IGNORED = ("ignored", "difficult", "iscrowd")
_NOT_ONE = ("neg", "negative")
"""Classes of lines that say that an image has no box, as of Lacuna."""

_Sides = Sequence[float]
_BOXES: tuple[tuple[tuple[str, ...], str, Callable[[_Sides], list[float]]], ...] = (
    (("xmin", "ymin", "xmax", "ymax"), "corners", list),
    (("left", "top", "right", "bottom"), "corners", list),
    (("x1", "y1", "x2", "y2"), "corners", list),
    (("x0", "y0", "x1", "y1"), "corners", list),
    (("xtl", "ytl", "xbr", "ybr"), "corners", list),
    (("minx", "miny", "maxx", "maxy"), "corners", list),
    (("xcenter", "ycenter", "width", "height"), "middle and size", lambda s: _about(*s)),
    (("xcenter", "ycenter", "w", "h"), "middle and size", lambda s: _about(*s)),
    (("cx", "cy", "w", "h"), "middle and size", lambda s: _about(*s)),
    (("cx", "cy", "width", "height"), "middle and size", lambda s: _about(*s)),
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
    """Which column of a file says what."""

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
        # Where the numbers of a line stand: asked for every box.
        self.box_at = [self.header.index(key) for key in self.box[0]] if self.box else []
        self.point_at = [self.header.index(key) for key in "xy"] if self.point else []
        self.size_at = [self.header.index(key) for key in ("width", "height")] if self.size else []

    def _find(self, names: Sequence[str]) -> int | None:
        return next((self.header.index(name) for name in names if name in self.header), None)

    @property
    def complete(self) -> bool:
        shape = self.box is not None or self.list is not None or self.point
        return self.image is not None and shape and (self.kind is not None or self.list is not None)

    def told(self) -> str:
        if self.box:
            return f"{self.box[1]} ({', '.join(self.box[0])})"
        return "upper left corner and size (bbox)" if self.list is not None else "points (x, y)"


def _layout(file: AnnotationFile) -> _Layout:
    header = next(csv.reader(file.lines[:1], delimiter=_mark(file)), [])
    if len(header) == 6 and _numeric(header[1:5]) and not _numeric(header[:1]):  # keras-retinanet: no header
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
        twice = [str(file) for file in files if folders.count(file.path.parent) > 1]
        raise DataError(f"{place.root}: {len(twice)} tables of boxes lie in one folder, {' and '.join(twice[:3])}; "
                        "give the path of the one that is meant")  # fmt: skip
    entries: list[Entry] = []
    told, notes, shares = [], [], []
    for file in files:
        layout = _layout(file)
        if not layout.complete:
            raise DataError(
                f"{file}, line 1: the columns are {', '.join(layout.header)[:200]}; expected one of the image, one of "
                "the class, and xmin, ymin, xmax, ymax, or x, y, width, height"
            )
        own, said = _read_one(file, layout)
        sides = [side for entry in own for box in entry.boxes for side in box]
        sides += [side for entry in own for point in entry.points for side in point]
        relative = bool(sides) and -OVERRUN <= min(sides) and max(sides) <= 1 + OVERRUN
        for entry in own:
            entry.relative = relative
        shares.append(relative)
        told.append(f"{layout.told()} in {'shares of the image' if relative else 'pixels'}")
        entries += own
        notes += said
    if any(shares) != all(shares):
        mixed = [str(file) for file, one in zip(files, shares, strict=True) if one]
        notes.append(f"coordinates of {' and '.join(mixed[:3])} are shares of the image, those of other files pixels")
    return Parsed(entries, sorted_names(entries), "; ".join(dict.fromkeys(told)), notes)


def _read_one(file: AnnotationFile, layout: _Layout) -> tuple[list[Entry], list[str]]:
    found: dict[str, Entry] = {}
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
                raise DataError(f"{where}: {len(row)} columns; expected {len(layout.header)}")
            assert layout.image is not None
            name = row[layout.image].strip()
            if not name:
                raise DataError(f"{where}: it names no image")
            entry = found.get(name)
            if entry is None:
                entry = found[name] = Entry(name, str(file), stem=name)
            try:
                kept = _add(entry, row, layout)
            except BAD as error:
                entry.fail(where, error)
                continue
            scores += kept and layout.score is not None and bool(row[layout.score].strip())
            bare += kept and layout.kind is None
    except csv.Error as error:
        raise DataError(f"{where}: {reason(str(error))}") from error
    return list(found.values()), [*counted(scores, "scores not kept"), *counted(bare, "boxes without a class")]


def _add(entry: Entry, row: Sequence[str], layout: _Layout) -> bool:
    """Add the box or point of a line; return whether it has one."""
    name = "object" if layout.kind is None else row[layout.kind].strip()
    ignored = "" if layout.ignored is None else row[layout.ignored].strip().casefold()
    if ignored not in _TRUE and ignored not in _FALSE:
        raise ValueError(f"{layout.header[layout.ignored or 0]} is {ignored!r}; expected 0 or 1")
    if layout.size_at:
        size = whole_size(*(row[place].strip() for place in layout.size_at))
        if None not in (size, entry.size) and size != entry.size:
            raise ValueError(f"the image is {size[0]} x {size[1]} here, {entry.size[0]} x {entry.size[1]} above")  # type: ignore[index]
        entry.size = entry.size or size
    texts = [row[place].strip() for place in layout.box_at]
    if layout.list is not None:
        texts = re.sub(r"[][()]", "", row[layout.list]).replace(",", " ").split()
    point = [row[place].strip() for place in layout.point_at]
    if not any(texts) and not any(point):  # an image without a box
        return False
    if name.casefold() in _NOT_ONE and not any(numbers(text for text in texts if text)):
        return False
    if not name and ignored not in _TRUE:
        raise ValueError("a box without a class")
    said = None if ignored in _TRUE else name
    if any(texts):
        sides = numbers(texts)
        if len(sides) != 4:
            raise ValueError(f"{len(sides)} numbers of a box; expected 4")
        box = layout.box[2](sides) if layout.box else _from(*sides)
        text = "" if layout.polygon is None else row[layout.polygon].strip()
        entry.add(box, said, _rings(text) if text else None)
    else:
        entry.add_point(*numbers(point), said)  # type: ignore[arg-type]
    return True


def _rings(text: str) -> list[list[float]]:
    """Return the polygons of a cell such as [[1, 2, 3, 4, 5, 6]], as COCO writes them."""
    try:
        rings = [numbers(ring) for ring in json.loads(text)]
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the polygon {text[:60]!r}: expected lists of x and y, as of COCO") from error
    if any(len(ring) < 6 or len(ring) % 2 for ring in rings):
        raise ValueError(f"the polygon {text[:60]!r}: expected x and y of three corners or more")
    return rings


def _write(records: Sequence[Record], class_names: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    scored = any(one.scores is not None for one in records)
    header = "field width height left top right bottom class ignored polygon x y".split()
    writer.writerow([*header, "score"] if scored else header)
    for one in records:
        rows = []
        for row, (box, label) in enumerate(zip(one.boxes, one.labels.tolist(), strict=True)):
            rings = [ring.ravel().tolist() for ring in one.polygons[row]]
            score = [] if not scored else [""] if one.scores is None else [f"{one.scores[row]:.6f}"]
            rows.append(
                [*map(plain, box), *_said(label, class_names), json.dumps(rings) if rings else "", "", "", *score]
            )
        for (x, y), label in zip(one.points, one.point_labels.tolist(), strict=True):
            rows.append([*[""] * 4, *_said(label, class_names), "", plain(x), plain(y), *[""] * scored])
        for cells in rows or [[""] * (9 + scored)]:
            writer.writerow([one.name, *one.size, *cells])
    return {"annotations.csv": text.getvalue()}, {}


def _said(label: int, class_names: Sequence[str]) -> list[object]:
    """Return class, and whether it is ignored."""
    return ["", 1] if label < 0 else [class_names[label], 0]


FORMAT = Format("csv", "CSV", (".csv", ".tsv"), _recognise, _read, write=_write)
