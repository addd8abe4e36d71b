"""`Report`: the metrics of a classifier on a set of cells, with their intervals."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellscan.data.cells import leave_out
from cellscan.data.tables import Column, Table, make_frame
from cellscan.data.values import check_number, check_seed, check_whole, choose
from cellscan.errors import ArgumentError, DataError, check_choice
from cellscan.evaluate.bootstrap import DRAWS, bootstrap_metrics, interval
from cellscan.evaluate.formatting import as_json, interval_text, metric_text
from cellscan.evaluate.metrics import AVERAGED, NAMES, confusion_matrix, weighted_metrics
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.patients import Patients, describe_rows, make_patient_parts, make_patients
from cellscan.evaluate.reliability import reliability
from cellscan.notebook import TextInNotebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from cellscan.data.cells import CellDataset
    from cellscan.explain import Explanations
    from cellscan.pages.markup import Html


@dataclass(frozen=True)
class AtPrevalence:
    """Precision and negative predictive value at another prevalence than that of the test set.

    Attributes
    ----------
    prevalence : float
        Share of positive cells.
    precision, negative_predictive_value : float
        Share of correct predictions among the cells that are predicted positive, and among those that are predicted
        negative. Computed from sensitivity and specificity by Bayes' rule.
    interval : dict[str, tuple[float, float]]
        95 % intervals of both, by bootstrap over patients.

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
        lines = [f"at a prevalence of {self.prevalence:.2%} of the cells:"]
        for name in ("precision", "negative_predictive_value"):
            low, high = self.interval[name]
            lines.append(f"  {name.replace('_', ' ')} {getattr(self, name):.4f} ({low:.4f} to {high:.4f})")
        return "\n".join(lines)


def predictive_values(sensitivity: Any, specificity: Any, prevalence: float) -> tuple[Any, Any]:
    """Compute precision and negative predictive value at a prevalence.

    Examples
    --------
    >>> from cellscan.evaluate.report import predictive_values
    >>> [round(float(value), 3) for value in predictive_values(0.97, 0.97, 0.02)]
    [0.398, 0.999]
    """
    infected, healthy = prevalence, 1 - prevalence
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.divide(sensitivity * infected, sensitivity * infected + (1 - specificity) * healthy)
        negative = np.divide(specificity * healthy, specificity * healthy + (1 - sensitivity) * infected)
    return precision, negative


@dataclass(frozen=True, repr=False, eq=False)
class Report(TextInNotebook):
    """Metrics of a classifier on a data set; prints as a table.

    `Classifier.evaluate` returns it. Every cell counts once. With two classes, sensitivity, specificity, precision, F1,
    average precision and Brier score are those of the positive class. With more classes, sensitivity and specificity
    are NaN; precision, F1, ROC AUC and average precision are means over classes; and the Brier score is a sum over
    classes. An undefined metric, such as the sensitivity on a set without positive cells, is NaN.

    Attributes
    ----------
    accuracy, balanced_accuracy, sensitivity, specificity, precision, f1, mcc, roc_auc, average_precision : float
        In [0, 1]; MCC in [-1, 1]. Higher is better.
    brier, log_loss, calibration_error : float
        At least 0; 0 is best. `calibration_error` is the expected calibration error over 15 bins of confidence.
    averaged : dict[str, float]
        Accuracy, sensitivity and specificity, averaged over the patients that have the class in question. A patient
        with one such cell counts as much as a patient with six hundred. Empty if patients are unknown.
    confusion : numpy.ndarray
        (K, K) int64; rows are labels, columns are predictions, in the order of `class_names`.
    interval_over : {"patients", "cells"}
        Unit of the bootstrap. It is ``"cells"`` if patients are unknown; the intervals are then too narrow.
    prevalence : float
        Share of positive cells in this set; NaN with more than two classes.
    threshold : float or None
        Probability of the positive class at and above which a cell is predicted positive.
    class_names : tuple[str, ...]
        Names of the classes, in the order of the labels.
    positive_class : str or None
        Name of the positive class.
    split : str
        How these cells were separated from those of training.
    patient_overlap : PatientOverlap
        Number of patients that were also used in training, validation or decisions.
    background : str
        Background of the cells as the network receives them: ``"keep"``, ``"fill"`` or ``"silhouette"``.
    labels, predicted, probabilities, names, cell_patients : numpy.ndarray
        (N,) int32, (N,) int32, (N, K) float32, (N,) str, (N,) str: the data from which the metrics are computed.
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
        """95 % interval of every metric, by bootstrap over patients or cells (see `interval_over`).

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

    @property
    def _has_patients(self) -> bool:
        return self.positive_class is not None and len(self.class_names) == 2 and self.patient_overlap.patients > 0

    def _describe(self) -> list[str]:
        """Return sentences on the cells, the split and the threshold."""
        cells = len(self.labels)
        lines = [
            f"{cells:,} cells of {self.patient_overlap.sentence()}"
            if self.patient_overlap.patients
            else f"{cells:,} cells, {self.patient_overlap.sentence()}"
        ]
        lines.append(f"split: {self.split}")
        if self.background == "silhouette":
            lines.append('BASELINE: the network is trained on silhouettes only (background="silhouette")')
        if self.threshold is not None:
            lines.append(
                f"positive: {self.positive_class} from P >= {self.threshold:.3g}; prevalence in this set "
                f"{self.prevalence:.3f} (not a clinical prevalence)"
            )
        if len(self.class_names) == 2 and self.interval["roc_auc"][1] < 0.5:
            lines.append(
                f"ROC AUC BELOW 0.5: are the labels exchanged? Label 0 is {self.class_names[0]!r}, label 1 is "
                f"{self.class_names[1]!r}"
            )
        return lines

    def __str__(self) -> str:
        lines = self._describe()
        over = "patients" if self.interval_over == "patients" else "CELLS (patients unknown): too narrow"
        lines.append(f"\n{'':18}{'':8}  95 % interval over {over}")
        lines += [_line(name, getattr(self, name), self.interval[name]) for name in NAMES]
        if self.averaged:
            lines.append("\naveraged over the patients that have the class in question")
            lines += [_line(name, self.averaged[name], self.averaged_interval[name]) for name in self.averaged]
        width = max(12, *(len(name) for name in self.class_names)) + 1
        lines.append(f"\n{'truth / called':{width}}" + "".join(f"{name:>{width}}" for name in self.class_names))
        for name, row in zip(self.class_names, self.confusion, strict=True):
            lines.append(f"{name:{width}}" + "".join(f"{count:>{width},}" for count in row))
        if self._has_patients:
            lines += ["", self.patients.summary()]
            if len(self.patients) > 1:
                lines += ["", "the patients with the lowest accuracy", describe_rows(self.patients.worst())]
        lines.append("\nResearch use only, not a medical device.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Report(cells={len(self.labels)}, accuracy={self.accuracy:.4f}, roc_auc={self.roc_auc:.4f})"

    def to_dict(self) -> dict[str, Any]:
        """Return metrics, intervals, split and patient overlap as JSON values, without cells or names of patients.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.to_dict()["cells"]
        80
        """
        metrics = {name: {"value": value, "interval": ends} for name, (value, ends) in self._metrics().items()}
        document = {
            "cells": len(self.labels),
            "patients": self.patient_overlap.patients,
            "patient_overlap": self.patient_overlap.sentence(),
            "split": self.split,
            "threshold": self.threshold,
            "prevalence": self.prevalence,
            "interval_over": self.interval_over,
            "metrics": metrics,
        }
        return as_json(document)

    def to_dataframe(self, by: Literal["metric", "cell"] = "metric") -> DataFrame:
        """Return a data frame of pandas with one row per metric, or with one row per cell.

        One row per patient: ``report.patients.to_dataframe()``.

        Parameters
        ----------
        by : {"metric", "cell"}
            ``"metric"``: columns ``metric``, ``value``, and ``low`` and ``high``, the ends of the 95 % interval. The
            metrics are those of `to_dict`; undefined ones are NaN. ``"cell"``: columns ``name``, ``patient``,
            ``label`` and ``predicted``, which are categorical, and the probability of every class, such as
            ``p_parasitized``.

        Raises
        ------
        ArgumentError
            If `by` is neither of the two.
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.to_dataframe().columns.tolist()
        ['metric', 'value', 'low', 'high']
        >>> frame = report.to_dataframe(by="cell")
        >>> float((frame.label == frame.predicted).mean()) == report.accuracy
        True
        """
        check_choice("by", by, ("metric", "cell"))
        return make_frame(self._metric_table() if by == "metric" else self._cell_table())

    def _metric_table(self) -> Table:
        metrics = self._metrics()
        return {
            "metric": Column(list(metrics)),
            "value": Column([value for value, _ in metrics.values()], "number"),
            "low": Column([low for _, (low, _) in metrics.values()], "number"),
            "high": Column([high for _, (_, high) in metrics.values()], "number"),
        }

    def _cell_table(self) -> Table:
        names = self.class_names
        return {
            "name": Column(self.names.tolist()),
            "patient": Column([patient or None for patient in self.cell_patients.tolist()]),
            "label": Column([names[label] for label in self.labels], names),
            "predicted": Column([names[label] for label in self.predicted], names),
            **{f"p_{name}": Column(self.probabilities[:, k], "number") for k, name in enumerate(names)},
        }

    def _metrics(self) -> dict[str, tuple[float, tuple[float, float]]]:
        """Return value and interval of every metric, also of those that are averaged over patients."""
        metrics = {name: (getattr(self, name), self.interval[name]) for name in NAMES}
        averages = {f"{name}_by_patient": (self.averaged[name], self.averaged_interval[name]) for name in self.averaged}
        return {**metrics, **averages}

    @cached_property
    def patients(self) -> Patients:
        """One row per patient, and the metrics over patients.

        Raises
        ------
        DataError
            If patients are unknown, if there are not two classes, or if no class is positive.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> [row.patient for row in report.patients]
        ['S000', 'S001', 'S002', 'S003']
        """
        if self._positive is None or len(self.class_names) != 2:
            raise DataError(
                f"the classes are {self.class_names} and the positive class is {self.positive_class!r}; metrics over "
                "patients need two classes, one of them positive: set clf.positive_class before clf.evaluate(...), or "
                "pass cross_validate(positive_class=...)"
            )
        return make_patients(self.labels, self.predicted, self.cell_patients, self._positive, self.rule)

    def bootstrap(self, *, draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
        """Compute every metric on `draws` samples of patients, drawn with replacement; see `bootstrap_metrics`.

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
        """Compute precision and negative predictive value at another prevalence.

        Parameters
        ----------
        prevalence : float
            Share of positive cells, in (0, 1). About half of the cells of the NIH set are positive, because they
            were selected; in clinical smears the share is often below 0.02.

        Raises
        ------
        ArgumentError
            If the prevalence is outside (0, 1).
        DataError
            If sensitivity or specificity is undefined.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.at_prevalence(0.02).prevalence
        0.02
        """
        prevalence = check_number("prevalence", prevalence, 0, 1)
        if math.isnan(self.sensitivity + self.specificity):
            raise DataError(
                "sensitivity or specificity is undefined; expected two classes, one of them positive, and cells of both"
            )
        drawn = self.bootstrap()
        names = ("precision", "negative_predictive_value")
        drawn_values = predictive_values(drawn["sensitivity"], drawn["specificity"], prevalence)
        precision, negative = predictive_values(self.sensitivity, self.specificity, prevalence)
        ends = {name: interval(values) for name, values in zip(names, drawn_values, strict=True)}
        return AtPrevalence(prevalence, float(precision), float(negative), ends)

    def select(self, mask_or_indices: slice | np.ndarray | Sequence[int]) -> Report:
        """Return a report on some of the cells, such as the undisputed cells.

        Parameters
        ----------
        mask_or_indices : slice, (N,) bool array, or index array
            The cells to select.

        Raises
        ------
        DataError
            If no cell is selected.

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
            raise DataError("no cell is left in the report; expected at least one")
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
        """Return the report without the cells that have these names.

        Parameters
        ----------
        names : sequence of str
            Names of the cells to leave out. Names that are not in the report are ignored.

        Raises
        ------
        DataError
            If none of the names is in the report.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> len(report.without(report.names[:10]).labels)
        70
        """
        return self.select(leave_out(self.names, names))

    def plot(self) -> Figure:
        """Plot confusion matrix, ROC and precision-recall curves, reliability diagram, and patients.

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
        patients = self.patients if self._has_patients else None
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

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        cells: CellDataset | None = None,
        explain: Callable[[CellDataset], Explanations] | None = None,
        count: int = 48,
    ) -> None:
        """Write the report as one HTML file that needs no other file and no network.

        The page has the metrics with their intervals, the confusion matrix, the figure of `plot`, the patients, and
        the cells whose label the classifier found least probable.

        Parameters
        ----------
        path : path
            The file. An existing file is replaced once the new one is complete.
        cells : CellDataset, optional
            The evaluated cells, for their pictures. A report keeps no pictures: without them the page shows none.
        explain : callable, optional
            Returns the attribution maps of cells, such as ``clf.explain``. Default: no maps.
        count : int
            Largest number of pictures, at least 1.

        Raises
        ------
        ArgumentError
            If an argument is invalid, or if `explain` is given without `cells`.
        DataError
            If `cells` lacks a cell of the report, or if the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "report.html"
        >>> clf.evaluate(cells).to_html(file, cells=cells, count=4)
        >>> file.read_text().count("data:image/jpeg")
        4
        """
        from cellscan.pages.markup import tag
        from cellscan.pages.page import write_page

        count = check_whole("count", count, 1)
        if explain is not None and cells is None:
            raise ArgumentError("explain needs the pictures of the cells; pass cells=... too, the evaluated cells")
        if cells is None:
            worst = [tag("p", "A report keeps no pictures of cells; pass to_html(cells=...) to show them here.")]
        else:
            worst = _make_worst(self, cells, explain, count)
        sections = [("Metrics", make_metric_parts(self)), ("Cells with the least probable labels", worst)]
        if self._has_patients:
            sections.insert(1, ("Patients", make_patient_parts(self.patients)))
        write_page(path, "Report on a classifier", self._describe(), sections)


def make_metric_parts(report: Report) -> list[Html]:
    """Return the metrics, the confusion matrix and the figure of a report as parts of an HTML page.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.evaluate.report import make_metric_parts
    >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
    >>> len(make_metric_parts(report))
    4
    """
    from cellscan.pages.parts import make_figure, make_table

    over = "patients" if report.interval_over == "patients" else "cells (patients unknown): too narrow"
    header = ["metric", "value", "95 % interval"]
    rows = [_row(name, getattr(report, name), report.interval[name]) for name in NAMES]
    parts = [make_table(f"Metrics, with intervals over {over}", header, rows)]
    if report.averaged:
        rows = [_row(name, report.averaged[name], report.averaged_interval[name]) for name in report.averaged]
        parts.append(make_table("Averaged over the patients that have the class in question", header, rows))
    counts = [[name, *row.tolist()] for name, row in zip(report.class_names, report.confusion, strict=True)]
    parts.append(make_table("Cells by annotated and predicted class", ["annotated as", *report.class_names], counts))
    alt = (
        f"Confusion matrix; ROC curve, area {metric_text(report.roc_auc)}; precision-recall curve, average precision "
        f"{metric_text(report.average_precision)}; reliability diagram, calibration error "
        f"{metric_text(report.calibration_error)}; share of positive cells of each patient"
    )
    caption = "Confusion matrix, ROC and precision-recall curves, reliability diagram, and patients"
    return [*parts, make_figure(report.plot, alt, caption)]


def _make_worst(
    report: Report, cells: CellDataset, explain: Callable[[CellDataset], Explanations] | None, count: int
) -> list[Html]:
    """Return a gallery of the cells whose label is least probable."""
    from cellscan.pages.markup import tag
    from cellscan.pages.parts import Shown, make_gallery
    from cellscan.pages.pictures import read_or_reason

    row_of = {str(name): row for row, name in enumerate(cells.names)}
    probability = report.probabilities[np.arange(len(report.labels)), report.labels]
    worst = np.argsort(probability, kind="stable")[:count].tolist()
    names = [str(report.names[row]) for row in worst]
    missing = [name for name in names if name not in row_of]
    if missing:
        raise DataError(f"cells has no {missing[0]!r}; expected the cells that were evaluated")
    maps = None if explain is None else explain(cells.select([row_of[name] for name in names]))
    shown = []
    for number, (row, name) in enumerate(zip(worst, names, strict=True)):
        label, called = (report.class_names[labels[row]] for labels in (report.labels, report.predicted))
        values = (name, str(report.cell_patients[row]), label, called, f"{probability[row]:.4f}")
        lines = (f"labelled {label}, called {called}", f"P(label) {values[4]}", f"patient {values[1] or 'unknown'}")
        heat = None
        if maps is not None:
            heat, lines = maps[number].map, (*lines, f"map: evidence for {maps[number].label_name}")
        image = read_or_reason(lambda name=name: cells[row_of[name]].image)
        shown.append(Shown(image, values, lines, heat))
    filters = ["label", "called", *(["patient"] if report.interval_over == "patients" else [])]
    wrong = int((report.labels != report.predicted).sum())
    text = f"The {len(shown):,} cells whose label is least probable; {wrong:,} cells of the report are called wrongly."
    gallery = make_gallery(shown, ["name", "patient", "label", "called", "probability"], filters)
    return [tag("p", text), gallery]


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
    """Compute every metric of the predictions and return them as a report."""
    if not len(labels):
        raise DataError("there are no cells to evaluate; expected at least one cell")
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities)).any(1).sum())
        raise DataError(
            f"the probabilities of {bad} of {len(labels)} cells are not finite; check the network's weights"
        )
    binary = positive is not None and len(class_names) == 2
    known = patient_overlap.patients > 0
    group = np.unique(patients, return_inverse=True)[1] if known else np.zeros(len(labels), int)
    ones = [np.ones((1, int(group.max()) + 1))]
    metrics = weighted_metrics(labels, predicted, probabilities, group, positive, ones)
    averaged = AVERAGED if binary else AVERAGED[:1]
    return Report(
        **{name: float(metrics[name][0]) for name in NAMES},
        confusion=confusion_matrix(labels, predicted, len(class_names)),
        interval_over="patients" if known else "cells",
        averaged={name: float(metrics[f"{name}_by_patient"][0]) for name in averaged if known},
        prevalence=float((labels == positive).mean()) if binary else math.nan,
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


def _row(name: str, value: float, ends: tuple[float, float]) -> tuple[object, ...]:
    return name.replace("_", " "), (value, metric_text(value)), interval_text(ends)


def _line(name: str, value: float, ends: tuple[float, float]) -> str:
    return f"{name.replace('_', ' '):18}{metric_text(value):10}{interval_text(ends)}"
