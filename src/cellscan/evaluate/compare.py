"""Comparison of two classifiers on the same cells, by a paired bootstrap over patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import interval
from cellscan.evaluate.metrics import NAMES
from cellscan.evaluate.report import Report
from cellscan.notebook import TextInNotebook


@dataclass(frozen=True, repr=False)
class Comparison(TextInNotebook):
    """Differences of metrics between two reports, first minus second; prints as a table.

    Attributes
    ----------
    difference : dict[str, float]
        Difference of every metric, by its name.
    interval : dict[str, tuple[float, float]]
        95 % interval of every difference; each draw uses the same patients for both reports. If an interval
        contains 0, the difference is not significant.
    cells : int
        Number of cells.
    patients : int
        Number of patients; 0 if they are unknown.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> report = cellscan.Classifier(image_size=32, seed=0).evaluate(cells)
    >>> cellscan.compare(report, report).difference["accuracy"]
    0.0
    """

    difference: dict[str, float]
    interval: dict[str, tuple[float, float]]
    cells: int
    patients: int

    def __repr__(self) -> str:
        return f"Comparison(accuracy={self.difference['accuracy']:+.4f})"

    def __str__(self) -> str:
        over = f"{self.patients} patients" if self.patients else "CELLS (patients unknown): too narrow"
        lines = [f"first minus second, {self.cells:,} cells", f"{'':28}  95 % interval over {over}"]
        for name, value in self.difference.items():
            low, high = self.interval[name]
            if not math.isnan(value):
                mark = "" if low <= 0 <= high or math.isnan(low) else "  *"
                lines.append(f"{name.replace('_', ' '):18}{value:+.4f}     {low:+.4f} to {high:+.4f}{mark}")
        lines.append("* the interval does not contain 0")
        return "\n".join(lines)


def compare(first: Report, second: Report, *, seed: int = 0) -> Comparison:
    """Compare two reports on the same cells, by a paired bootstrap over patients (2,000 draws).

    Parameters
    ----------
    first, second : Report
        Reports of the same cells; the order of the cells may differ.
    seed : int
        Seed of the draws.

    Returns
    -------
    Comparison
        The difference of every metric, `first` minus `second`, with its 95 % interval.

    Raises
    ------
    ArgumentError
        If one of the two is not a `Report`.
    DataError
        If classes, cells, labels or patients differ, or if several cells share a name and the order differs.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> a = cellscan.Classifier(image_size=32, seed=0).evaluate(cells)
    >>> b = cellscan.Classifier(image_size=32, seed=1).evaluate(cells)
    >>> low, high = cellscan.compare(a, b).interval["roc_auc"]
    >>> low <= high
    True
    """
    for report in (first, second):
        if not isinstance(report, Report):
            raise ArgumentError(f"got {report!r}; expected two reports, as Classifier.evaluate returns them")
    if (first.class_names, first.positive_class) != (second.class_names, second.positive_class):
        raise DataError(f"the reports have the classes {first.class_names} and {second.class_names}; expected the same")
    a, b = (report.select(np.argsort(report.names, kind="stable")) for report in (first, second))
    if not all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("names", "labels", "cell_patients")):
        raise DataError(
            f"the reports have {len(a.labels)} and {len(b.labels)} cells, and their names, labels or patients differ; "
            "expected two reports of the same cells"
        )
    repeated = a.names[1:][a.names[1:] == a.names[:-1]]
    if len(repeated) and not np.array_equal(first.names, second.names):
        raise DataError(
            f"several cells are called {str(repeated[0])!r}, and the two reports list the cells in a different order, "
            "so the cells cannot be matched; expected the same order, or a unique name for each cell"
        )
    drawn = [report.bootstrap(seed=seed) for report in (a, b)]
    return Comparison(
        {name: getattr(a, name) - getattr(b, name) for name in NAMES},
        {name: interval(drawn[0][name] - drawn[1][name]) for name in NAMES},
        len(a.labels),
        a.patient_overlap.patients,
    )
