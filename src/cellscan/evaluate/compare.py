"""Two classifiers on the same cells: a paired bootstrap over patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import interval
from cellscan.evaluate.metrics import NAMES
from cellscan.evaluate.report import Report


@dataclass(frozen=True, repr=False)
class Comparison:
    """Differences of metrics, first report minus second; prints as a table.

    Attributes
    ----------
    difference : dict[str, float]
        Of every metric.
    interval : dict[str, tuple[float, float]]
        95 % interval, by drawing the same patients for both. One that holds 0 tells no difference.

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
                told = "" if low <= 0 <= high or math.isnan(low) else "  *"
                lines.append(f"{name.replace('_', ' '):18}{value:+.4f}     {low:+.4f} to {high:+.4f}{told}")
        lines.append("* the interval does not hold 0")
        return "\n".join(lines)


def compare(first: Report, second: Report, *, seed: int = 0) -> Comparison:
    """Compare two reports on the same cells, by paired bootstrap over patients (2,000 draws).

    Parameters
    ----------
    first, second : Report
        Of the same cells, in any order.
    seed : int
        Of the draws.

    Raises
    ------
    DataError
        Where cells, labels or patients differ, or cells that share a name stand in another order.

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
            raise ArgumentError(f"{report!r} is no report; expected what Classifier.evaluate returns, twice")
    if (first.class_names, first.positive_class) != (second.class_names, second.positive_class):
        raise DataError(f"the reports have the classes {first.class_names} and {second.class_names}; expected the same")
    a, b = (report.select(np.argsort(report.names, kind="stable")) for report in (first, second))
    if not all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("names", "labels", "cell_patients")):
        raise DataError(
            f"the reports are of {len(a.labels)} and {len(b.labels)} cells, and names, labels or patients differ; "
            "expected two reports of the same cells"
        )
    alike = a.names[1:][a.names[1:] == a.names[:-1]]
    if len(alike) and not np.array_equal(first.names, second.names):
        raise DataError(
            f"several cells are called {str(alike[0])!r}, and the reports have the cells in another order, so that it "
            "cannot be told which is which; expected the same order, or a name for each cell"
        )
    drawn = [report.bootstrap(seed=seed) for report in (a, b)]
    return Comparison(
        {name: getattr(a, name) - getattr(b, name) for name in NAMES},
        {name: interval(drawn[0][name] - drawn[1][name]) for name in NAMES},
        len(a.labels),
        a.patient_overlap.patients,
    )
