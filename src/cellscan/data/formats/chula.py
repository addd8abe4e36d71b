"""Chula RBC-12: one text file for each image, with x, y and class in each line.

Source: Naruenatthanaset et al. (2021), arXiv:2012.01321.
"""

from __future__ import annotations

from collections.abc import Sequence

from cellscan.data.formats.common import AnnotationFile, Entry, Format, Parsed, Place, counted, numbers, read_lines

CLASSES = (
    "normal", "macrocyte", "microcyte", "spherocyte", "target", "stomatocyte", "ovalocyte", "teardrop", "burr",
    "schistocyte", "uncategorised", "hypochromia", "elliptocyte",
)  # fmt: skip
"""The published names of the classes, in the order of their numbers."""


def _recognise(file: AnnotationFile, place: Place) -> bool:
    columns = file.first.split()
    return len(columns) == 3 and all(map(str.isdecimal, columns)) and place.may_be_label(file.name)


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    order, entries = place.given or list(CLASSES), []
    for file in files:
        entry = Entry("", str(file), stem=file.path.stem)
        entries.append(entry)
        read_lines(file, entry, lambda line, entry=entry: _add(entry, line, order))
    stems = {entry.stem for entry in entries}
    notes = counted(len(place.stems - stems), "images without a label file, left out") if len(files) > 1 else []
    return Parsed(entries, order, "points in pixels; the first pixel spans 0 to 1", notes, whole=False)


def _add(entry: Entry, line: str, order: Sequence[str]) -> None:
    values = numbers(line.split())
    if len(values) != 3:
        raise ValueError(f"the line has {len(values)} columns; expected x, y and class")
    x, y, label = values
    if label != int(label) or not 0 <= label < len(order):
        raise ValueError(f"it has the class {label:g}; expected a whole number from 0 to {len(order) - 1}")
    entry.add_point(x, y, order[int(label)])


FORMAT = Format("chula", "Chula RBC-12's points", (".txt",), _recognise, _read, a_picture=True)
