"""`Report`: what a classifier is worth on given cells, and how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscan.data.cells import leave_out
from cellscan.data.values import check_seed, check_whole, choose
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import DRAWS, bootstrap_metrics, interval
from cellscan.evaluate.metrics import AVERAGED, NAMES, confusion_matrix, weighted_metrics
from cellscan.evaluate.patients import Patients, describe_rows, make_patients
from cellscan.evaluate.reliability import reliability
from cellscan.notebook import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PatientOverlap:
    """How many of the evaluated patients were used in training, validation or decisions; None where that is unknown.

    Attributes
    ----------
    patients : int
        How many are evaluated; 0 where they are unknown.
    train, validation, decision : int or None
        Those in training, in validation, and used to choose temperature, threshold or a rule.
    who : dict of frozenset, or None
        Which patients they are, by the names of the three; without it the counts of a part of the patients can be
        known only where all overlap, or none.

    Examples
    --------
    >>> from cellscan.evaluate.report import PatientOverlap
    >>> PatientOverlap(patients=34, train=0, validation=0).sentence()
    '34 patients, no overlap with training or validation'
    """

    patients: int
    train: int | None
    validation: int | None
    decision: int | None = 0
    who: Mapping[str, frozenset[str]] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def among(
        cls,
        patients: Iterable[str],
        *,
        train: Iterable[str] | None,
        validation: Iterable[str] | None,
        decision: Iterable[str] | None,
    ) -> PatientOverlap:
        """Count the overlap of the evaluated patients with each part, and keep who they are.

        Parameters
        ----------
        patients : iterable of str
            Of the evaluated cells; ``""`` where they are unknown.
        train, validation, decision : iterable of str, or None
            The patients of each part; None where they are unknown.

        Examples
        --------
        >>> from cellscan.evaluate.report import PatientOverlap
        >>> PatientOverlap.among(["a", "b", "b"], train=["a", "z"], validation=[], decision=[]).sentence()
        '2 patients, PATIENT OVERLAP: 1 in training, 0 in validation; the metrics are optimistically biased'
        """
        here = frozenset(patients)
        if "" in here:
            return cls(0, None, None, None)
        parts = {"train": train, "validation": validation, "decision": decision}
        who = {part: here & frozenset(ids) for part, ids in parts.items() if ids is not None}
        counts = {part: len(who[part]) if part in who else None for part in parts}
        return cls(len(here), counts["train"], counts["validation"], counts["decision"], who)

    def select(self, patients: Iterable[str]) -> PatientOverlap:
        """Return the overlap of some of the evaluated patients.

        Examples
        --------
        >>> from cellscan.evaluate.report import PatientOverlap
        >>> overlap = PatientOverlap.among(["a", "b"], train=["a"], validation=[], decision=[])
        >>> overlap.select(["b"]).train, overlap.select(["a"]).train, PatientOverlap(2, 1, 0).select(["b"]).train
        (0, 1, None)
        """
        here = frozenset(patients)
        if not self.patients or len(here) == self.patients:
            return self
        parts = ("train", "validation", "decision")
        if self.who is not None:
            return PatientOverlap.among(here, **{part: self.who.get(part) for part in parts})
        known = {0: 0, self.patients: len(here)}
        train, validation, decision = (known.get(getattr(self, part)) for part in parts)
        return PatientOverlap(len(here), train, validation, decision)

    def sentence(self) -> str:
        """Say it.

        Examples
        --------
        >>> from cellscan.evaluate.report import PatientOverlap
        >>> PatientOverlap(patients=34, train=34, validation=0).sentence()
        '34 patients, PATIENT OVERLAP: 34 in training, 0 in validation; the metrics are optimistically biased'
        """
        if not self.patients:
            return "patients unknown: patient overlap with training cannot be determined"
        if self.train is None or self.validation is None or self.decision is None:
            return f"{self.patients} patients; trained on unknown patients: patient overlap cannot be determined"
        if self.train or self.validation:
            return (
                f"{self.patients} patients, PATIENT OVERLAP: {self.train} in training, {self.validation} in validation"
                "; the metrics are optimistically biased"
            )
        if self.decision:
            return (
                f"{self.patients} patients, no overlap with training or validation, but {self.decision} USED TO CHOOSE "
                "temperature, threshold or rules: the metrics are optimistically biased"
            )
        return f"{self.patients} patients, no overlap with training or validation"


@dataclass(frozen=True)
class AtPrevalence:
    """What precision becomes where the positive class is rarer or commoner than in the test set.

    Attributes
    ----------
    prevalence : float
        Share of the positive class among cells.
    precision, negative_predictive_value : float
        How often a positive call, and a negative one, is right (Bayes' rule on sensitivity and specificity).
    interval : dict[str, tuple[float, float]]
        95 % intervals of both, over patients.

    Examples
    --------
    >>> from cellscan.evaluate.report import AtPrevalence
    >>> AtPrevalence(0.02, 0.4, 0.999, {}).precision
    0.4
    """

    prevalence: float
    precision: float
    negative_predictive_value: float
    interval: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        lines = [f"where {self.prevalence:.1%} of the cells are positive:"]
        for name in ("precision", "negative_predictive_value"):
            low, high = self.interval[name]
            lines.append(f"  {name.replace('_', ' ')} {getattr(self, name):.4f} ({low:.4f} to {high:.4f})")
        return "\n".join(lines)


def predictive_values(sensitivity: Any, specificity: Any, prevalence: float) -> tuple[Any, Any]:
    """Return precision and negative predictive value at a prevalence.

    Examples
    --------
    >>> from cellscan.evaluate.report import predictive_values
    >>> [round(float(value), 3) for value in predictive_values(0.97, 0.97, 0.02)]
    [0.398, 0.999]
    """
    sick, well = prevalence, 1 - prevalence
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.divide(sensitivity * sick, sensitivity * sick + (1 - specificity) * well)
        negative = np.divide(specificity * well, specificity * well + (1 - sensitivity) * sick)
    return precision, negative


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """Metrics of a classifier on a data set; prints as a table.

    Every cell counts once. With two classes, sensitivity, specificity, precision and F1 are those
    of the positive class; with more, see `cellscan.evaluate.metrics.weighted_metrics`. A metric
    without meaning, such as the sensitivity of a set without positives, is NaN.

    Attributes
    ----------
    accuracy, balanced_accuracy, sensitivity, specificity, precision, f1, mcc, roc_auc, average_precision : float
        In [0, 1], MCC in [-1, 1].
    brier, log_loss, calibration_error : float
        From 0, which is best. The calibration error is the expected one, over 15 bins of confidence.
    averaged : dict[str, float]
        Accuracy, sensitivity and specificity, averaged over the patients that have the class in question: there
        a patient with one such cell counts as much as one with six hundred. Empty where patients are unknown.
    confusion : numpy.ndarray
        (K, K) int64; rows are the truth, columns what was predicted, in the order of `class_names`.
    interval_over : {"patients", "cells"}
        Over cells, where patients are unknown, intervals are too narrow.
    prevalence : float
        Share of the positive class among these cells; NaN with more than two classes.
    threshold : float or None
        P(positive class) from which a cell was called positive.
    split : str
        How these cells were set apart.
    patient_overlap : PatientOverlap
        How many of the patients were used in training, validation or decisions.
    labels, predicted, probabilities, names, cell_patients : numpy.ndarray
        (N,) int32, (N,) int32, (N, K) float32, (N,) str, (N,) str: what the metrics were computed from.
    rule : float, array, or None
        The patient rule.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> report = cellscan.Classifier(image_size=32, seed=0).evaluate(cells)
    >>> report.confusion.sum(), report.interval_over
    (np.int64(80), 'patients')
    """

    accuracy: float
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    precision: float
    f1: float
    mcc: float
    roc_auc: float
    average_precision: float
    brier: float
    log_loss: float
    calibration_error: float
    confusion: np.ndarray
    averaged: dict[str, float]
    interval_over: str
    prevalence: float
    threshold: float | None
    class_names: tuple[str, ...]
    positive_class: str | None
    split: str
    patient_overlap: PatientOverlap
    background: str
    rule: float | np.ndarray | None
    labels: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    names: np.ndarray = field(repr=False)
    cell_patients: np.ndarray = field(repr=False)
    _drawn: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def interval(self) -> dict[str, tuple[float, float]]:
        """95 % interval of every metric, by bootstrap over `interval_over`.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> low, high = report.interval["accuracy"]
        >>> low <= report.accuracy <= high
        True
        """
        drawn = self.bootstrap()
        return {name: interval(drawn[name]) for name in NAMES}

    @cached_property
    def averaged_interval(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the metrics in `averaged`.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> sorted(report.averaged_interval)
        ['accuracy', 'sensitivity', 'specificity']
        """
        drawn = self.bootstrap()
        return {name: interval(drawn[f"{name}_by_patient"]) for name in self.averaged}

    @property
    def _positive(self) -> int | None:
        return None if self.positive_class is None else self.class_names.index(self.positive_class)

    def __str__(self) -> str:
        cells = len(self.labels)
        lines = [
            f"{cells:,} cells of {self.patient_overlap.sentence()}"
            if self.patient_overlap.patients
            else f"{cells:,} cells, {self.patient_overlap.sentence()}"
        ]
        lines.append(f"split: {self.split}")
        if self.background == "silhouette":
            lines.append('BASELINE: this network sees silhouettes only (background="silhouette")')
        if self.threshold is not None:
            lines.append(
                f"positive: {self.positive_class} from P >= {self.threshold:.3g}; prevalence here {self.prevalence:.3f}"
                " (no clinic's)"
            )
        over = "patients" if self.interval_over == "patients" else "CELLS (patients unknown): too narrow"
        lines.append(f"\n{'':18}{'':8}  95 % interval over {over}")
        lines += [_line(name, getattr(self, name), self.interval[name]) for name in NAMES]
        if self.averaged:
            lines.append("\naveraged over the patients that have the class in question")
            lines += [_line(name, self.averaged[name], self.averaged_interval[name]) for name in self.averaged]
        wide = max(12, *(len(name) for name in self.class_names)) + 1
        lines.append(f"\n{'truth / called':{wide}}" + "".join(f"{name:>{wide}}" for name in self.class_names))
        for name, row in zip(self.class_names, self.confusion, strict=True):
            lines.append(f"{name:{wide}}" + "".join(f"{count:>{wide},}" for count in row))
        if self.positive_class is not None and len(self.class_names) == 2 and self.patient_overlap.patients:
            lines += ["", self.patients.summary()]
            if len(self.patients) > 1:
                lines += ["", "the worst patients", describe_rows(self.patients.worst())]
        lines.append("\nResearch use only, not a medical device.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return as_text(str(self))

    def __repr__(self) -> str:
        return f"Report(cells={len(self.labels)}, accuracy={self.accuracy:.4f}, roc_auc={self.roc_auc:.4f})"

    def to_dict(self) -> dict[str, Any]:
        """Return metrics, intervals and circumstances as JSON values, without cells or patients.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.to_dict()["cells"]
        80
        """
        values = {name: (getattr(self, name), self.interval[name]) for name in NAMES}
        values |= {f"{name}_by_patient": (self.averaged[name], self.averaged_interval[name]) for name in self.averaged}
        found = {name: {"value": value, "interval": ends} for name, (value, ends) in values.items()}
        told = {
            "cells": len(self.labels),
            "patients": self.patient_overlap.patients,
            "patient_overlap": self.patient_overlap.sentence(),
            "split": self.split,
            "threshold": self.threshold,
            "prevalence": self.prevalence,
            "interval_over": self.interval_over,
            "metrics": found,
        }
        return as_json(told)

    @cached_property
    def patients(self) -> Patients:
        """One row a patient, and metrics of patients.

        Raises
        ------
        DataError
            Where patients are unknown, or no class is positive.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> [row.patient for row in report.patients]
        ['S000', 'S001', 'S002', 'S003']
        """
        if self._positive is None or len(self.class_names) != 2:
            raise DataError(
                f"with the classes {self.class_names} no patient is positive or negative; expected two, one of them "
                "positive: set clf.positive_class before clf.evaluate(...), or pass cross_validate(positive_class=...)"
            )
        return make_patients(self.labels, self.predicted, self.cell_patients, self._positive, self.rule)

    def bootstrap(self, *, draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
        """Return every metric of samples of patients, drawn with replacement; see `bootstrap_metrics`.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.bootstrap(draws=10)["accuracy"].shape
        (10,)
        """
        check_seed(seed)
        check_whole("draws", draws, 1)
        if (draws, seed) not in self._drawn:
            groups = self.cell_patients if self.interval_over == "patients" else np.arange(len(self.labels))
            self._drawn[draws, seed] = bootstrap_metrics(
                self.labels, self.predicted, self.probabilities, groups, self._positive, draws=draws, seed=seed
            )
        return self._drawn[draws, seed]

    def at_prevalence(self, prevalence: float) -> AtPrevalence:
        """Return what precision becomes where that share of the cells is positive.

        Parameters
        ----------
        prevalence : float
            In (0, 1). These cells were chosen, half and half; in a clinic's blood smears it is often below 0.02.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.at_prevalence(0.02).prevalence
        0.02
        """
        if not isinstance(prevalence, Real) or not 0 < prevalence < 1:
            raise ArgumentError(f"prevalence is {prevalence!r}; expected a number in (0, 1)")
        if math.isnan(self.sensitivity + self.specificity):
            raise DataError("sensitivity and specificity are unknown; expected two classes, and cells of both")
        drawn = self.bootstrap()
        names = ("precision", "negative_predictive_value")
        each = predictive_values(drawn["sensitivity"], drawn["specificity"], prevalence)
        precision, negative = predictive_values(self.sensitivity, self.specificity, prevalence)
        ends = {name: interval(values) for name, values in zip(names, each, strict=True)}
        return AtPrevalence(prevalence, float(precision), float(negative), ends)

    def select(self, mask_or_indices: slice | np.ndarray | Sequence[int]) -> Report:
        """Return the report of the chosen cells alone, such as those whose label nobody disputes.

        Parameters
        ----------
        mask_or_indices : slice, (N,) bool array, or index array

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> first = report.patients[0]
        >>> len(report.select(report.cell_patients == first.patient).labels) == first.cells
        True
        """
        rows = choose(mask_or_indices, len(self.labels))
        if not len(rows):
            raise DataError("no cell is left; expected at least one")
        patients = self.cell_patients[rows]
        return make_report(
            self.labels[rows],
            self.predicted[rows],
            self.probabilities[rows],
            names=self.names[rows],
            patients=patients,
            class_names=self.class_names,
            positive=self._positive,
            threshold=self.threshold,
            split=self.split if len(rows) == len(self.labels) else f"{self.split}; {len(rows):,} of its cells",
            patient_overlap=self.patient_overlap.select(patients.tolist()),
            background=self.background,
            rule=self.rule[rows] if isinstance(self.rule, np.ndarray) else self.rule,
        )

    def without(self, names: Iterable[str]) -> Report:
        """Return the report without the cells of these names.

        Parameters
        ----------
        names : sequence of str
            Those that are not here are passed over; where not one of them is here, that is an error.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> len(report.without(report.names[:10]).labels)
        70
        """
        return self.select(leave_out(self.names, names))

    def plot(self) -> Figure:
        """Draw confusion matrix, ROC and precision-recall curves, reliability diagram, and patients.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> len(report.plot().axes)
        5
        """
        from cellscan.plots import plot_report

        positive, count = self._positive, len(self.class_names)
        classes = range(count) if positive is None or count != 2 else [positive]
        patients = self.patients if len(classes) == 1 and self.patient_overlap.patients else None
        return plot_report(
            self.labels,
            self.probabilities,
            self.class_names,
            classes=classes,
            confusion=self.confusion,
            metrics={name: getattr(self, name) for name in (*NAMES, "prevalence")},
            intervals=self.interval,
            threshold=self.threshold,
            bins=reliability(
                self.labels == classes[0],
                self.probabilities[:, classes[0]],
                self.cell_patients if self.interval_over == "patients" else None,
            ),
            patients=None if patients is None else np.array([(row.truth, row.share) for row in patients]),
            rule=None if patients is None else patients.rule,
        )


def make_report(
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    *,
    names: np.ndarray,
    patients: np.ndarray,
    class_names: tuple[str, ...],
    positive: int | None,
    threshold: float | None,
    split: str,
    patient_overlap: PatientOverlap,
    background: str,
    rule: float | np.ndarray | None = None,
) -> Report:
    """Compute every metric."""
    if not len(labels):
        raise DataError("there are no cells to evaluate; expected at least one")
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities)).any(1).sum())
        raise DataError(
            f"the probabilities of {bad} of {len(labels)} cells are not finite; look at the network's weights"
        )
    two = positive is not None and len(class_names) == 2
    known = patient_overlap.patients > 0
    group = np.unique(patients, return_inverse=True)[1] if known else np.zeros(len(labels), int)
    once = [np.ones((1, int(group.max()) + 1))]
    found = weighted_metrics(labels, predicted, probabilities, group, positive, once)
    averaged = AVERAGED if two else AVERAGED[:1]
    return Report(
        **{name: float(found[name][0]) for name in NAMES},
        confusion=confusion_matrix(labels, predicted, len(class_names)),
        interval_over="patients" if known else "cells",
        averaged={name: float(found[f"{name}_by_patient"][0]) for name in averaged if known},
        prevalence=float((labels == positive).mean()) if two else math.nan,
        threshold=threshold,
        class_names=class_names,
        positive_class=None if positive is None else class_names[positive],
        split=split,
        patient_overlap=patient_overlap,
        background=background,
        rule=rule,
        labels=labels,
        predicted=predicted,
        probabilities=probabilities,
        names=names,
        cell_patients=patients,
    )


def metric_text(value: float) -> str:
    """Return a metric as tables show it."""
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def interval_text(ends: tuple[float, float]) -> str:
    """Return an interval as tables show it."""
    return "n/a" if math.isnan(ends[0]) else f"{ends[0]:.4f} to {ends[1]:.4f}"


def _line(name: str, value: float, ends: tuple[float, float]) -> str:
    return f"{name.replace('_', ' '):18}{metric_text(value):10}{interval_text(ends)}"


def as_json(value: Any) -> Any:
    """Return a value as strict JSON has it: null for what is not finite, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
