"""From fields to a smear: how many red cells, how many infected, and how sure that is."""

from __future__ import annotations

import csv
import heapq
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cellscan.data.fields import FieldDataset
from cellscan.data.inputs import Images
from cellscan.detections import Detections
from cellscan.detector import Detector
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import interval
from cellscan.evaluate.detection import once
from cellscan.notebook import as_text
from cellscan.predictions import Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINIMUM = 5000
"""Cells from which a parasitemia is called counted: a rule in common use; no source was read for it."""

_SHOWN = 4


@dataclass(frozen=True)
class FieldCount:
    """The cells of one field.

    Attributes
    ----------
    name : str
        File name, or what else names the field.
    red_cells : int
        All, infected ones included.
    infected : int
        Of those.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.FieldCount("a.png", red_cells=120, infected=2).infected
    2
    """

    name: str
    red_cells: int
    infected: int


@dataclass(frozen=True, repr=False, eq=False)
class SmearReport:
    """What the fields of one smear hold together; prints as a few lines. Research use only, not a medical device.

    Attributes
    ----------
    red_cells, infected : int
        Counted over all fields, each cell once; an infected cell is a red cell too.
    apparent : float
        infected / red_cells.
    parasitemia : float
        The same, corrected for what the detector misses and for what it calls infected wrongly (Rogan and Gladen,
        1978): (apparent - f) / (s - f), cut to [0, 1], with s and f as `Detector.choose_threshold` measured them.
        The apparent share where they were not measured.
    interval : tuple[float, float]
        95 % of the parasitemia, by bootstrap over fields. It does not know how uncertain s and f are.
    limit_of_detection : float or None
        Parasitemia that stands two standard deviations above what false positives alone give in so many cells.
    corrected, enough : bool
        Whether s and f were there; whether `minimum_cells` were counted.
    per_microlitre : float or None
        Infected cells in a microlitre of blood, where its red cells were given.
    fields : tuple[FieldCount, ...]
        One a field, in the order of the input.
    failed : tuple[Failure, ...]
        Fields passed over under ``on_error="skip"``.

    Examples
    --------
    >>> import cellscan
    >>> smear = cellscan.screen(fields, det)  # as of `cellscan.Detector`
    >>> len(smear.fields), smear.enough
    (4, False)
    """

    red_cells: int
    infected: int
    apparent: float
    parasitemia: float
    interval: tuple[float, float]
    limit_of_detection: float | None
    corrected: bool
    enough: bool
    minimum_cells: int
    per_microlitre: float | None
    fields: tuple[FieldCount, ...]
    failed: tuple[Failure, ...]
    shown: tuple[Detections, ...] = field(repr=False)

    def __str__(self) -> str:
        low, high = self.interval
        lines = [f"{len(self.fields):,} fields, {self.red_cells:,} red cells, {self.infected:,} infected"]
        if not self.enough:
            lines.append(f"not enough cells: {self.red_cells:,} of {self.minimum_cells:,}; count more fields")
        how = "corrected for the detector's errors" if self.corrected else "as counted: the errors were not measured"
        lines.append(f"parasitemia {self.parasitemia:.2%} (95 % over fields {low:.2%} to {high:.2%}), {how}")
        if self.corrected:
            lines.append(f"as counted {self.apparent:.2%}")
        if self.limit_of_detection is not None:
            lines.append(f"limit of detection with so many cells {self.limit_of_detection:.2%}")
        if self.per_microlitre is not None:
            lines.append(f"{self.per_microlitre:,.0f} infected cells a microlitre")
        if self.failed:
            lines.append(f"{len(self.failed)} fields could not be read; the first: {self.failed[0].reason}")
        return "\n".join([*lines, "Research use only, not a medical device."])

    def _repr_html_(self) -> str:
        return as_text(str(self))

    def __repr__(self) -> str:
        return f"SmearReport(red_cells={self.red_cells}, infected={self.infected}, fields={len(self.fields)})"

    def plot(self) -> Figure:
        """Draw the fields with most infected cells, four at most; infected ones are highlighted.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.screen(fields, det).plot().axes)
        4
        """
        from cellscan.plots import plot_fields

        return plot_fields(
            [(one.name, one.pixels(), one.boxes, one.labels, one.scores) for one in self.shown],
            self.shown[0].class_names,
        )

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line a field: name, red cells, infected.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smear.csv"
        >>> cellscan.screen(fields, det).to_csv(file)
        >>> file.read_text().splitlines()[0]
        'field,red_cells,infected'
        """
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["field", "red_cells", "infected"])
            out.writerows([one.name, one.red_cells, one.infected] for one in self.fields)


def screen(
    images: Images | FieldDataset,
    detector: Detector,
    *,
    minimum_cells: int = MINIMUM,
    red_cells_per_microlitre: float | None = None,
    on_error: str = "raise",
    seed: int = 0,
    progress: bool = True,
) -> SmearReport:
    """Count the red cells and the infected ones over the fields of one smear, and estimate its parasitemia.

    For research use only: not a medical device. Fields are read one after another, in bounded memory.

    Parameters
    ----------
    images
        As of `Detector.predict`.
    detector : Detector
        With two classes, the second infected; after `Detector.choose_threshold`, so that its errors are known.
    minimum_cells : int
        Below, the report says that cells are not enough.
    red_cells_per_microlitre : float, optional
        Of the blood, for infected cells a microlitre.
    on_error : {"raise", "skip"}
        As of `Detector.predict`.
    seed : int
        Of the bootstrap.
    progress : bool

    Returns
    -------
    SmearReport

    Raises
    ------
    ArgumentError
        Where the detector has not two classes, or a number is out of range.
    DataError
        Where no cell was found at all.

    Examples
    --------
    >>> import cellscan
    >>> smear = cellscan.screen(fields, det)  # as of `cellscan.Detector`
    >>> smear.red_cells >= smear.infected
    True
    """
    if len(detector.class_names) != 2:
        raise ArgumentError(
            f"the detector knows {', '.join(detector.class_names)}; screening needs two classes, the second infected"
        )
    if minimum_cells < 1:
        raise ArgumentError(f"minimum_cells is {minimum_cells!r}; expected a whole number from 1")
    if red_cells_per_microlitre is not None and not red_cells_per_microlitre > 0:
        raise ArgumentError(f"red_cells_per_microlitre is {red_cells_per_microlitre!r}; expected a number above 0")
    rules = detector.card.detection
    assert rules is not None
    counts: list[FieldCount] = []
    failed: list[Failure] = []
    best: list[tuple[int, int, Detections]] = []
    for one in detector.stream(images, on_error=on_error, progress=progress):
        if isinstance(one, Failure):
            failed.append(one)
            continue
        cells = one.select(once(one, rules))
        counts.append(FieldCount(one.name, len(cells), int((cells.labels == 1).sum())))
        heapq.heappush(best, (counts[-1].infected, -len(counts), cells))
        if len(best) > _SHOWN:
            heapq.heappop(best)
    red = np.array([one.red_cells for one in counts], np.int64)
    sick = np.array([one.infected for one in counts], np.int64)
    total = int(red.sum())
    if not total:
        raise DataError(f"no cell was found in {len(counts)} fields; is this the detector for them?")
    s, f = rules.sensitivity, rules.false_positive_rate
    corrected = s is not None and f is not None and s > f
    apparent = float(sick.sum() / total)
    rows = np.random.default_rng(seed).integers(0, len(counts), (2000, len(counts)))
    drawn = sick[rows].sum(1) / np.maximum(red[rows].sum(1), 1)
    parasitemia, limit = apparent, None
    if corrected:
        assert s is not None
        assert f is not None
        parasitemia = float(np.clip((apparent - f) / (s - f), 0, 1))
        drawn = np.clip((drawn - f) / (s - f), 0, 1)
        noise = max(math.sqrt(f * (1 - f) / total), (rules.false_positive_sd or 0.0) / math.sqrt(len(counts)))
        limit = 2 * noise / (s - f)
    return SmearReport(
        red_cells=total,
        infected=int(sick.sum()),
        apparent=apparent,
        parasitemia=parasitemia,
        interval=interval(drawn),
        limit_of_detection=limit,
        corrected=corrected,
        enough=total >= minimum_cells,
        minimum_cells=minimum_cells,
        per_microlitre=None if red_cells_per_microlitre is None else parasitemia * red_cells_per_microlitre,
        fields=tuple(counts),
        failed=tuple(failed),
        shown=tuple(one for _, _, one in sorted(best, key=lambda entry: entry[:2], reverse=True)),
    )
