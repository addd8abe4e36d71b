"""`Report`: what a classifier is worth on given cells, and how far that can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscan.evaluate.bootstrap import DRAWS, intervals
from cellscan.evaluate.metrics import NAMES, confusion_matrix, from_confusion, macro_roc_auc

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Seen:
    """How many of the evaluated patients the classifier met before; None where that cannot be told.

    Examples
    --------
    >>> from cellscan.evaluate.report import Seen
    >>> Seen(patients=34, train=0, validation=0).sentence()
    '34 patients, none of them seen in training or as validation'
    """

    patients: int
    train: int | None
    validation: int | None

    def sentence(self) -> str:
        """Say it.

        Examples
        --------
        >>> from cellscan.evaluate.report import Seen
        >>> Seen(patients=34, train=34, validation=0).sentence()
        '34 patients, 34 SEEN IN TRAINING and 0 as validation: the figures flatter'
        """
        if not self.patients:
            return "patients unknown: whether they were seen in training cannot be told"
        if self.train is None or self.validation is None:
            return f"{self.patients} patients; trained on unknown patients, so whether these were seen cannot be told"
        if self.train or self.validation:
            return (
                f"{self.patients} patients, {self.train} SEEN IN TRAINING and {self.validation} as validation: "
                "the figures flatter"
            )
        return f"{self.patients} patients, none of them seen in training or as validation"


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """Figures of a classifier on a data set; prints as a table.

    Every cell counts once. With two classes, sensitivity, specificity, precision and F1 are those
    of the positive class; with more, see `cellscan.evaluate.metrics.from_confusion`. A figure
    without meaning, such as the sensitivity of a set without positives, is NaN.

    Attributes
    ----------
    accuracy, balanced_accuracy, sensitivity, specificity, precision, f1, mcc, roc_auc : float
        In [0, 1], MCC in [-1, 1].
    confusion : numpy.ndarray
        (K, K) int64; rows are the truth, columns what was predicted, in the order of `class_names`.
    interval : dict[str, tuple[float, float]]
        95 % interval of every figure, by bootstrap over `interval_over`.
    interval_over : {"patients", "cells"}
        Over cells, where patients are unknown, intervals are too narrow.
    prevalence : float
        Share of the positive class among these cells; NaN with more than two classes.
    threshold : float or None
        P(positive class) from which a cell was called positive.
    split : str
        How these cells were set apart.
    seen : Seen
        Whether the patients were met before.
    labels, probabilities, names, patients : numpy.ndarray
        (N,) int32, (N, K) float32, (N,) str, (N,) str: what the figures were computed from.

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
    confusion: np.ndarray
    interval: dict[str, tuple[float, float]]
    interval_over: str
    prevalence: float
    threshold: float | None
    class_names: tuple[str, ...]
    positive_class: str | None
    split: str
    seen: Seen
    view: str
    labels: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    names: np.ndarray = field(repr=False)
    patients: np.ndarray = field(repr=False)

    def __str__(self) -> str:
        cells = len(self.labels)
        lines = [
            f"{cells:,} cells of {self.seen.sentence()}"
            if self.seen.patients
            else f"{cells:,} cells, {self.seen.sentence()}"
        ]
        lines.append(f"split: {self.split}")
        if self.view == "outline":
            lines.append('BASELINE: this network sees silhouettes only (view="outline")')
        if self.threshold is not None:
            lines.append(
                f"positive: {self.positive_class} from P >= {self.threshold:.3g}; prevalence here {self.prevalence:.3f}"
                " (no clinic's)"
            )
        over = "patients" if self.interval_over == "patients" else "CELLS (patients unknown): too narrow"
        lines.append(f"\n{'':18}{'':8}  95 % interval over {over}")
        for name in NAMES:
            value, (low, high) = getattr(self, name), self.interval[name]
            text = "n/a" if math.isnan(value) else f"{value:.4f}"
            text = f"{text:10}" + ("n/a" if math.isnan(low) else f"{low:.4f} to {high:.4f}")
            lines.append(f"{name.replace('_', ' '):18}{text}")
        wide = max(12, *(len(name) for name in self.class_names)) + 1
        lines.append(f"\n{'truth / called':{wide}}" + "".join(f"{name:>{wide}}" for name in self.class_names))
        for name, row in zip(self.class_names, self.confusion, strict=True):
            lines.append(f"{name:{wide}}" + "".join(f"{count:>{wide},}" for count in row))
        lines.append("\nResearch use only, not a medical device.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Report(cells={len(self.labels)}, accuracy={self.accuracy:.4f}, roc_auc={self.roc_auc:.4f})"

    def to_dict(self) -> dict[str, Any]:
        """Return figures, intervals and circumstances as JSON values, without cells or patients.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> report.to_dict()["cells"]
        80
        """
        figures = {
            name: {
                "value": _json(getattr(self, name)),
                "interval": [_json(end) for end in self.interval[name]],
            }
            for name in NAMES
        }
        return {
            "cells": len(self.labels),
            "patients": self.seen.patients,
            "seen": self.seen.sentence(),
            "split": self.split,
            "threshold": self.threshold,
            "prevalence": _json(self.prevalence),
            "interval_over": self.interval_over,
            "figures": figures,
        }

    def plot(self) -> Figure:
        """Draw the confusion matrix and the ROC curve.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> len(report.plot().axes)
        2
        """
        from cellscan.plots import plot_report

        return plot_report(self)


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
    seen: Seen,
    view: str,
    draws: int = DRAWS,
) -> Report:
    """Compute every figure and its interval."""
    confusion = confusion_matrix(labels, predicted, len(class_names))
    figures = {name: float(value) for name, value in from_confusion(confusion, positive).items()}
    figures["roc_auc"] = float(macro_roc_auc(labels, probabilities, positive, np.ones((1, len(labels))))[0])
    known = seen.patients > 0
    groups = patients if known else np.arange(len(labels))
    two = positive is not None and len(class_names) == 2
    return Report(
        **figures,
        confusion=confusion,
        interval=intervals(labels, predicted, probabilities, groups, positive, draws=draws),
        interval_over="patients" if known else "cells",
        prevalence=float((labels == positive).mean()) if two else math.nan,
        threshold=threshold,
        class_names=class_names,
        positive_class=None if positive is None else class_names[positive],
        split=split,
        seen=seen,
        view=view,
        labels=labels,
        probabilities=probabilities,
        names=names,
        patients=patients,
    )


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value
