"""`Description`: counts and image sizes of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cellscan.errors import ImageError
from cellscan.notebook import TextInNotebook
from cellscan.progress import Progress


@dataclass(frozen=True, repr=False)
class Description(TextInNotebook):
    """Counts and image sizes of a data set; printing one shows a short table.

    Attributes
    ----------
    cells : int
        Number of cells.
    per_class : dict[str, int]
        Cells of each class.
    patients : int
        Number of patients; 0 if unknown.
    per_patient : tuple[int, int, int]
        Minimum, median and maximum number of cells of a patient; zeros if the patients are unknown.
    sides : tuple[int, int, int]
        Minimum, median and maximum side of an image, in pixels.
    formats : dict[str, int]
        Number of images of each file format.
    unreadable : int
        Number of images that cannot be opened.

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
        width = max(map(len, self.per_class))
        lines = [f"{self.cells:,} cells"]
        for name, count in self.per_class.items():
            share = f"{count / max(self.cells, 1):.0%}".replace("%", " %")
            lines.append(f"  {name:{width}}  {count:>{len(f'{self.cells:,}')},}  ({share})")
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
    """Count the images without decoding any; `patients` is empty if they are unknown."""
    count = sum(per_class.values())

    def header_or_none(row: int) -> tuple[int, int, str] | None:
        try:
            return header(row)
        except ImageError:
            return None

    headers: list[tuple[int, int, str] | None] = []
    with Progress("reading headers", count, show=progress) as bar, ThreadPoolExecutor() as pool:
        for start in range(0, count, 512):
            rows = range(start, min(start + 512, count))
            headers += pool.map(header_or_none, rows)
            bar.advance(len(rows))
    sides = np.array([side for result in headers if result for side in result[:2]] or [0])
    counts = np.array(list(Counter(patients).values()))
    return Description(
        cells=count,
        per_class=per_class,
        patients=len(counts),
        per_patient=_spread(counts),
        sides=_spread(sides),
        formats=dict(Counter(result[2] for result in headers if result).most_common()),
        unreadable=sum(result is None for result in headers),
    )


def _spread(values: np.ndarray) -> tuple[int, int, int]:
    """Return minimum, median and maximum, or zeros of no values."""
    if not values.size:
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())
