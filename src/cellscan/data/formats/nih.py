"""Smears of the NIH: one text file for each image, a polygon, circle or point in each line. Kassim et al. (2020)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from cellscan.data.formats.common import (
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    number,
    numbers,
    read_lines,
    round_box,
    sorted_names,
    whole_size,
)
from cellscan.errors import DataError

_HEADER = re.compile(r"\d+\s*,\s*\d+(\.0+)?\s*,\s*\d+(\.0+)?\s*,*$")


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return _HEADER.match(file.first) is not None and place.may_be_label(file.name)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries = []
    for file in files:
        entry = Entry("", str(file), stem=file.path.stem, either_way=True)
        entries.append(entry)
        try:
            lines = [line for line in file.lines if line.strip(" ,")]
            columns = lines[0].strip(" ,").split(",") if lines else []
            if len(columns) != 3:
                raise ValueError(f"{lines[:1]!r:.80}: expected count,width,height")
            if number(columns[0]) != len(lines) - 1:
                raise ValueError(
                    f"{columns[0]} cells are announced, but {len(lines) - 1} lines follow; the file may be incomplete"
                )
            entry.size = whole_size(*columns[1:])
        except (DataError, ValueError) as error:
            entry.fail(f"{file}, line 1", error)
        read_lines(file, entry, lambda line, entry=entry: _add(entry, line.strip(" ,").split(",")), skip=1)
    coordinates = "polygons, circles and points in pixels as written; the first pixel spans 0 to 1"
    return Parsed(entries, sorted_names(entries), coordinates)


def _add(entry: Entry, columns: Sequence[str]) -> None:
    if columns == [""]:
        return
    if len(columns) < 7 or not columns[1].strip():
        raise ValueError("expected id,label,comment,Polygon,count,x1,y1,...")
    name, kind, (count, *sides) = columns[1].strip(), columns[3].strip().casefold(), numbers(columns[4:])
    if len(sides) != 2 * count:
        raise ValueError(f"there are {len(sides)} numbers for {count:g} points; expected x and y of each")
    if kind == "polygon":
        entry.add_polygon([sides], name)
    elif kind == "circle" and count == 2:  # The first point is the centre, the second is on the circle.
        radius = math.dist(sides[:2], sides[2:])
        entry.add(round_box(sides[0], sides[1], radius, radius), name)
    elif kind == "point" and count == 1:
        entry.add_point(sides[0], sides[1], name)
    else:
        raise ValueError(f"a {columns[3]!r:.40} of {count:g} points; expected a Polygon, Circle or Point")


FORMAT = Format("nih", "NIH's polygon and point sets", (".txt",), _recognise, _read, a_picture=True)
