"""`Description`: what a data set holds, counted."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cellscan.data.cells import CellDataset
from cellscan.errors import ImageError
from cellscan.progress import Progress


@dataclass(frozen=True, repr=False)
class Description:
    """What a data set holds; prints as a short table.

    Attributes
    ----------
    cells : int
        Number of cells.
    per_class : dict[str, int]
        Cells of each class.
    patients : int
        Number of patients; 0 where unknown.
    per_patient : tuple[int, int, int]
        Least, median and most cells of a patient; zeros where unknown.
    sides : tuple[int, int, int]
        Least, median and greatest side of an image, in pixels.
    formats : dict[str, int]
        Images of each file format.
    unreadable : int
        Images that cannot be opened.

    Examples
    --------
    >>> import cellscan
    >>> print(cellscan.synthetic_cells(80, seed=0).describe())  # doctest: +ELLIPSIS
    80 cells
      parasitized   40  (50 %)
      uninfected    40  (50 %)
    4 patients, ... cells each (median 20)
    sides ... px (median ...)
    formats: array 80
    """

    cells: int
    per_class: dict[str, int]
    patients: int
    per_patient: tuple[int, int, int]
    sides: tuple[int, int, int]
    formats: dict[str, int]
    unreadable: int

    def __repr__(self) -> str:
        wide = max(map(len, self.per_class))
        lines = [f"{self.cells:,} cells"]
        for name, count in self.per_class.items():
            lines.append(
                f"  {name:{wide}}  {count:>{len(f'{self.cells:,}')},}  ({count / self.cells:.0%})".replace("%", " %")
            )
        if self.patients:
            low, middle, high = self.per_patient
            lines.append(f"{self.patients} patients, {low} to {high} cells each (median {middle})")
        else:
            lines.append("patients unknown: a split by patient is not possible")
        low, middle, high = self.sides
        lines.append(f"sides {low} to {high} px (median {middle})")
        lines.append("formats: " + ", ".join(f"{name} {count:,}" for name, count in self.formats.items()))
        if self.unreadable:
            lines.append(f"{self.unreadable} images cannot be opened")
        return "\n".join(lines)

    __str__ = __repr__


def describe_cells(cells: CellDataset, progress: bool) -> Description:
    """Open every file, decode none, and count."""

    def header(row: int) -> tuple[int, int, str] | None:
        try:
            return cells._sources[int(cells._part[row])].header(int(cells._row[row]))
        except ImageError:
            return None

    found: list[tuple[int, int, str] | None] = []
    with Progress("reading headers", len(cells), show=progress) as bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(cells), 512):
            rows = range(start, min(start + 512, len(cells)))
            found += pool.map(header, rows)
            bar.advance(len(rows))
    sides = np.array([side for f in found if f for side in f[:2]] or [0])
    each = np.array(list(Counter(cells.patients.tolist()).values())) if cells.has_patients else np.array([])
    return Description(
        cells=len(cells),
        per_class=cells.per_class(),
        patients=len(each),
        per_patient=_spread(each),
        sides=_spread(sides),
        formats=dict(Counter(f[2] for f in found if f).most_common()),
        unreadable=sum(f is None for f in found),
    )


def _spread(values: np.ndarray) -> tuple[int, int, int]:
    if not values.size:
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())
