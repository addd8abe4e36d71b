"""From fields to a smear: how many red cells, how many infected, and how sure that is."""

from __future__ import annotations

import heapq
import math
import os
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from cellscan.data.fields import FieldDataset
from cellscan.data.inputs import Images
from cellscan.data.tables import write_csv
from cellscan.data.values import check_seed, check_whole
from cellscan.detections import Detections
from cellscan.detector import Detector
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import DRAWS, draw_chunks, interval
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
        95 % of the parasitemia, by bootstrap over fields; NaN for one field alone, which says nothing about how far
        fields differ. It does not know how uncertain s and f are.
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
        over = "n/a: one field" if math.isnan(low) else f"{low:.2%} to {high:.2%}"
        lines = [f"{len(self.fields):,} fields, {self.red_cells:,} red cells, {self.infected:,} infected"]
        if not self.enough:
            lines.append(f"not enough cells: {self.red_cells:,} of {self.minimum_cells:,}; count more fields")
        how = "corrected for the detector's errors" if self.corrected else "as counted: the errors were not measured"
        lines.append(f"parasitemia {self.parasitemia:.2%} (95 % over fields {over}), {how}")
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
        rows = ([one.name, one.red_cells, one.infected] for one in self.fields)
        write_csv(path, [["field", "red_cells", "infected"], *rows])


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
    >>> smear.red_cells == sum(one.red_cells for one in smear.fields), smear.infected <= smear.red_cells
    (True, True)
    """
    if not isinstance(detector, Detector):
        raise ArgumentError(f"detector is {detector!r}; expected a cellscan.Detector")
    if len(detector.class_names) != 2:
        raise ArgumentError(
            f"the detector knows {', '.join(detector.class_names)}; screening needs two classes, the second infected"
        )
    minimum_cells = check_whole("minimum_cells", minimum_cells, 1)
    density = red_cells_per_microlitre
    if density is not None and not (isinstance(density, Real) and 0 < density < math.inf):
        raise ArgumentError(f"red_cells_per_microlitre is {density!r}; expected a number above 0")
    check_seed(seed)
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
    if not counts and failed:
        raise DataError(f"not one of {len(failed)} fields could be read; the first: {failed[0].reason}")
    if not total:
        raise DataError(f"no cell was found in {len(counts)} fields; is this the detector for them?")
    s, f = rules.sensitivity, rules.false_positive_rate
    corrected = s is not None and f is not None and s > f
    apparent = float(sick.sum() / total)
    drawn = np.full(1, np.nan)
    if len(counts) > 1:
        chunks = draw_chunks(len(counts), DRAWS, seed, max(1, 2_000_000 // len(counts)))
        cells = np.concatenate([weights @ np.stack([sick, red], 1) for weights in chunks])
        drawn = cells[cells[:, 1] > 0, 0] / cells[cells[:, 1] > 0, 1]
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
        per_microlitre=None if density is None else parasitemia * float(density),
        fields=tuple(counts),
        failed=tuple(failed),
        shown=tuple(one for _, _, one in sorted(best, key=lambda entry: entry[:2], reverse=True)),
    )
