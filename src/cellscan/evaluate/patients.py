"""Metrics of patients: how well a cell classifier and a patient rule classify patients."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cellscan.data.tables import Column, Table, csv_rows, find_rows, make_frame, write_csv
from cellscan.data.values import check_whole
from cellscan.errors import DataError
from cellscan.evaluate.metrics import from_confusion, group_confusions
from cellscan.notebook import TextInNotebook

if TYPE_CHECKING:
    from pandas import DataFrame

    from cellscan.pages.markup import Html

NOTE = (
    "The publisher selected these cells: a patient's share of positive cells is not the parasitemia, and half of the\n"
    "cells are parasitized, which is not a clinical prevalence."
)

_WORDS = {True: "infected", False: "healthy", None: "-"}


@dataclass(frozen=True)
class Patient:
    """Counts and results of one patient of a report.

    Attributes
    ----------
    patient : str
        Name of the patient.
    cells : int
        Number of cells.
    positive : int
        Number of cells that were predicted positive.
    share : float
        ``positive / cells``. This is not the parasitemia, because the cells were selected.
    called : bool or None
        Whether the patient rule classifies the patient as infected; None without a rule.
    truth : bool
        Whether at least one cell of the patient is labelled positive.
    accuracy : float
        Accuracy on the cells of the patient.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients[0].cells
    21
    """

    patient: str
    cells: int
    positive: int
    share: float
    called: bool | None
    truth: bool
    accuracy: float


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the exact 95 % interval of a proportion (Clopper and Pearson, 1934); NaN if there are no trials.

    Examples
    --------
    >>> from cellscan.evaluate.patients import binomial_interval
    >>> low, high = binomial_interval(42, 42)
    >>> round(low, 3), high
    (0.916, 1.0)
    """
    if not trials:
        return math.nan, math.nan
    from scipy.stats import binomtest

    ends = binomtest(successes, trials).proportion_ci(0.95, "exact")
    return float(ends.low), float(ends.high)


@dataclass(frozen=True, repr=False)
class Patients(TextInNotebook, Sequence[Patient]):
    """The patients of a report, one row each, and metrics over patients; prints as a table.

    An integer index returns one `Patient`. A slice, a mask or an index array returns `Patients`, with the metrics of
    the selected patients.

    The metrics follow Delahunt, Gachuhi and Horning (2024), Metrics to guide development of machine
    learning algorithms for malaria diagnosis (Frontiers in Malaria 2, 1250220).

    Attributes
    ----------
    rows : tuple[Patient, ...]
        The patients, sorted by name.
    rule : float or None
        Share of positive cells at and above which a patient counts as infected.
    sensitivity, specificity : float
        Share of the infected patients that the rule classifies as infected, and share of the healthy donors that it
        classifies as healthy. NaN without a rule, or without such patients.
    interval : dict[str, tuple[float, float]]
        Exact binomial 95 % intervals of sensitivity and specificity.
    false_per_thousand, false_spread : float
        Mean and standard deviation, over healthy donors, of the false-positive cells per 1,000 cells.
    detection_limit : float
        Limit of detection: the parasitemia, as a share of cells, at which the expected share of positive cells is two
        standard deviations above the mean share of false positives, ``2 SD / (cell sensitivity - mean)``. The cell
        sensitivity is averaged over infected patients. NaN with fewer than two healthy donors.
    cell_sensitivity : numpy.ndarray
        (P,) float, the sensitivity on the cells of each patient; NaN for healthy donors.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> patients = cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients
    >>> len(patients), patients.rule, sum(row.cells for row in patients)
    (4, None, 80)
    """

    rows: tuple[Patient, ...]
    rule: float | None
    sensitivity: float
    specificity: float
    interval: dict[str, tuple[float, float]]
    false_per_thousand: float
    false_spread: float
    detection_limit: float
    cell_sensitivity: np.ndarray = field(compare=False)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Patient: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Patients: ...
    def __getitem__(self, index: Any) -> Patient | Patients:
        rows = find_rows(index, len(self), "patients")
        if isinstance(rows, int):
            return self.rows[rows]
        return _with_metrics(tuple(self.rows[row] for row in rows), self.cell_sensitivity[rows], self.rule)

    def __len__(self) -> int:
        return len(self.rows)

    def worst(self, count: int = 5) -> tuple[Patient, ...]:
        """Return the `count` patients with the lowest accuracy, lowest first.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> worst = cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients.worst(2)
        >>> worst[0].accuracy <= worst[1].accuracy
        True
        """
        return tuple(sorted(self.rows, key=lambda row: row.accuracy)[: check_whole("count", count, 0)])

    def __repr__(self) -> str:
        return f"Patients({len(self)}, rule={self.rule})"

    def __str__(self) -> str:
        lines = [self.summary(), "", describe_rows(self.rows)]
        return "\n".join(lines)

    def summary(self) -> str:
        """Return the metrics over patients as text.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> text = cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients.summary()
        >>> text.splitlines()[0]
        'patients: 3 infected (a cell labelled positive), 1 healthy'
        """
        sick = sum(row.truth for row in self.rows)
        healthy = len(self) - sick
        lines = [f"patients: {sick} infected (a cell labelled positive), {healthy} healthy"]
        if self.rule is None:
            lines.append("no patient rule; choose_patient_rule sets the share of positive cells of an infected patient")
        else:
            lines.append(f"a patient with a share of at least {self.rule:.3g} positive cells counts as infected")
            for name, count in (("sensitivity", sick), ("specificity", healthy)):
                value, (low, high) = getattr(self, name), self.interval[name]
                text = "n/a" if math.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f}, exact, of {count})"
                lines.append(f"  {name} {text}")
        if healthy:
            spread = "" if math.isnan(self.false_spread) else f", SD {self.false_spread:.1f} over donors"
            lines.append(f"false-positive cells on healthy donors: {self.false_per_thousand:.1f} in 1,000{spread}")
        if self.detection_limit > 0:  # A limit of 0 means that healthy donors have no false positives.
            lines.append(
                f"limit of detection, two SD above the false positives: parasitemia {self.detection_limit:.2%}"
            )
        return "\n".join([*lines, NOTE])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line per patient.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "patients.csv"
        >>> cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients.to_csv(file)
        >>> file.read_text().splitlines()[0]
        'patient,cells,positive,share,called,truth,accuracy'
        """
        write_csv(path, csv_rows(self._table()))

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per patient and the columns of `to_csv`.

        Counts are int64, shares float64. ``called`` and ``truth`` are True for infected patients; without a patient
        rule, ``called`` is missing.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> frame = cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients.to_dataframe()
        >>> frame["patient"].tolist(), int(frame["cells"].sum()), int(frame["truth"].sum())
        (['S000', 'S001', 'S002', 'S003'], 80, 3)
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        kinds: dict[str, Any] = dict.fromkeys(Patient.__dataclass_fields__, "number")
        kinds |= {"patient": "text", "cells": "whole", "positive": "whole", "called": "flag", "truth": "flag"}
        return {name: Column([getattr(row, name) for row in self.rows], kind) for name, kind in kinds.items()}


def describe_rows(rows: Sequence[Patient]) -> str:
    """Return a table of patients as text.

    Examples
    --------
    >>> from cellscan.evaluate.patients import Patient, describe_rows
    >>> print(describe_rows([Patient("C1", 80, 20, 0.25, None, True, 0.95)]))
    patient    cells  positive  share  called    truth     accuracy
    C1            80        20  0.250  -         infected     0.950
    """
    lines = [f"{'patient':10} {'cells':>5}  {'positive':>8}  {'share':>5}  {'called':8}  {'truth':8}  {'accuracy':>8}"]
    for row in rows:
        lines.append(
            f"{row.patient:10} {row.cells:>5}  {row.positive:>8}  {row.share:.3f}  {_WORDS[row.called]:8}  "
            f"{_WORDS[row.truth]:8}  {row.accuracy:>8.3f}"
        )
    return "\n".join(lines)


def make_patient_parts(patients: Patients) -> list[Html]:
    """Return the metrics over patients and the table of patients as parts of an HTML page.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.evaluate.patients import make_patient_parts
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> len(make_patient_parts(cellscan.Classifier(image_size=32, seed=0).evaluate(cells).patients))
    2
    """
    from cellscan.pages.parts import make_list, make_table

    lines = [*patients.summary().removesuffix(NOTE).splitlines(), NOTE.replace("\n", " ")]
    header = ["patient", "cells", "positive", "share", "called", "truth", "accuracy"]
    rows = (
        (row.patient, row.cells, row.positive, (row.share, f"{row.share:.3f}"), _WORDS[row.called], _WORDS[row.truth],
         (row.accuracy, f"{row.accuracy:.3f}"))
        for row in patients
    )  # fmt: skip
    return [make_list(line.strip() for line in lines), make_table("Patients", header, rows)]


def shares(positive: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Compute the share (P,) of positive cells in each of `count` groups.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.patients import shares
    >>> shares(np.array([True, False, True]), np.array([0, 0, 1]), 2).tolist()
    [0.5, 1.0]
    """
    return np.bincount(group, positive, count) / np.bincount(group, minlength=count)


def make_patients(
    labels: np.ndarray,
    predicted: np.ndarray,
    patients: np.ndarray,
    positive: int,
    rule: float | np.ndarray | None,
) -> Patients:
    """Count the cells of every patient, and evaluate the patient rule.

    Parameters
    ----------
    labels, predicted : (N,) int
    patients : (N,) str
    positive : int
        Index of the positive class.
    rule : float, (N,) float, or None
        One rule for all patients; or, for each cell, the rule of its patient, if each rule was chosen without the
        patients it is applied to.

    Raises
    ------
    DataError
        If the patient of a cell is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.patients import make_patients
    >>> labels, ids = np.array([0, 1, 1, 1]), np.array(["a", "a", "b", "b"])
    >>> patients = make_patients(labels, labels, ids, 0, rule=0.5)
    >>> patients.sensitivity, patients.specificity
    (1.0, 1.0)
    """
    if "" in patients:
        raise DataError("the patients of these cells are unknown; expected cells that were loaded with their patients")
    names, group = np.unique(patients, return_inverse=True)
    count = len(names)
    cells = np.bincount(group, minlength=count)
    share = shares(predicted == positive, group, count)
    truth = shares(labels == positive, group, count) > 0
    accuracy = shares(predicted == labels, group, count)
    limits = None if rule is None else np.full(count, np.nan)
    if limits is not None:
        limits[group] = rule
    called = None if limits is None else share >= limits
    rows = tuple(
        Patient(str(names[i]), int(cells[i]), round(float(share[i] * cells[i])), float(share[i]),
                None if called is None else bool(called[i]), bool(truth[i]), float(accuracy[i]))
        for i in range(count)
    )  # fmt: skip
    sensitivity = np.full(count, math.nan)
    if truth.any():
        sensitivity[truth] = from_confusion(group_confusions(labels, predicted, group, count, 2)[truth], positive)[
            "sensitivity"
        ]
    return _with_metrics(rows, sensitivity, None if rule is None else float(np.mean(rule)))


def _with_metrics(rows: tuple[Patient, ...], cell_sensitivity: np.ndarray, rule: float | None) -> Patients:
    """Return the patients with their metrics; `cell_sensitivity` (P,) is the sensitivity on the cells of each."""
    truth = np.array([row.truth for row in rows], bool)
    called = None if rule is None else np.array([row.called for row in rows], bool)
    metrics = {"sensitivity": math.nan, "specificity": math.nan}
    interval = dict.fromkeys(metrics, (math.nan, math.nan))
    for name, chosen in (("sensitivity", truth), ("specificity", ~truth)):
        if called is not None and chosen.any():
            correct = int((called[chosen] == truth[chosen]).sum())
            metrics[name], interval[name] = correct / int(chosen.sum()), binomial_interval(correct, int(chosen.sum()))
    false_shares = np.array([row.share for row in rows if not row.truth])
    mean, spread = (float(false_shares.mean()) if len(false_shares) else math.nan), math.nan
    limit = math.nan
    if len(false_shares) > 1:
        spread = float(false_shares.std(ddof=1))
        hit_rate = float(cell_sensitivity[truth].mean()) if truth.any() else math.nan
        limit = 2 * spread / (hit_rate - mean) if hit_rate > mean else math.nan
    return Patients(
        rows=rows,
        rule=rule,
        interval=interval,
        false_per_thousand=1000 * mean,
        false_spread=1000 * spread,
        detection_limit=limit,
        cell_sensitivity=cell_sensitivity,
        **metrics,
    )
