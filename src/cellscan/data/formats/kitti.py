"""KITTI: one text file for each image, with fifteen columns for each object.

Source: Geiger et al., Are we ready for autonomous driving? (2012).
"""

from __future__ import annotations

from collections.abc import Sequence

from cellscan.data.formats.common import (
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    counted,
    numbers,
    read_lines,
    sorted_names,
)


def _recognise(file: AnnotationFile, place: Place) -> bool:
    columns = file.first.split()
    if len(columns) not in (15, 16) or not place.may_be_label(file.name):
        return False
    try:
        numbers(columns[:1])
    except ValueError:
        return True
    return False


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries, scores = [], []
    for file in files:
        entry = Entry("", str(file), stem=file.path.stem)
        entries.append(entry)
        read_lines(file, entry, lambda line, entry=entry: scores.append(_add(entry, line)))
    notes = counted(sum(scores), "scores not kept")
    return Parsed(entries, sorted_names(entries), "corners in pixels as written; the first pixel spans 0 to 1", notes)


def _add(entry: Entry, line: str) -> bool:
    """Add the box of a line; return True if it has a score."""
    name, *columns = line.split()
    if len(columns) not in (14, 15):
        raise ValueError(f"the line has {len(columns) + 1} columns; expected 15, or 16 with a score")
    values = numbers(columns)
    entry.add(values[3:7], None if name == "DontCare" else name)
    return len(values) == 15


FORMAT = Format("kitti", "KITTI", (".txt",), _recognise, _read, a_picture=True)
