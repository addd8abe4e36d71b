"""`Description`: what a data set holds, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

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
            share = f"{count / max(self.cells, 1):.0%}".replace("%", " %")
            lines.append(f"  {name:{wide}}  {count:>{len(f'{self.cells:,}')},}  ({share})")
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


def count_images(
    per_class: dict[str, int], patients: Sequence[str], header: Callable[[int], tuple[int, int, str]], *, progress: bool
) -> Description:
    """Open every file, decode none, and count; `patients` is empty where they are unknown."""
    count = sum(per_class.values())

    def one(row: int) -> tuple[int, int, str] | None:
        try:
            return header(row)
        except ImageError:
            return None

    found: list[tuple[int, int, str] | None] = []
    with Progress("reading headers", count, show=progress) as bar, ThreadPoolExecutor() as pool:
        for start in range(0, count, 512):
            rows = range(start, min(start + 512, count))
            found += pool.map(one, rows)
            bar.advance(len(rows))
    sides = np.array([side for f in found if f for side in f[:2]] or [0])
    each = np.array(list(Counter(patients).values()))
    return Description(
        cells=count,
        per_class=per_class,
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
