"""Figures of cells: by scikit-learn for one set of cells, and over leading axes for a bootstrap's many draws."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from cellscan.evaluate.calibration import expected_calibration_error

NAMES = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "mcc",
    "roc_auc",
    "average_precision",
    "brier",
    "log_loss",
    "calibration_error",
)
AVERAGED = ("accuracy", "sensitivity", "specificity")
"""The figures that are also averaged over the patients that have the class in question."""

LEAST = float(np.finfo(np.float32).eps)
"""A probability below it counts as it in the logarithmic loss."""


def figures(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> dict[str, float]:
    """Return every figure of `NAMES`, computed by scikit-learn; NaN where one has no meaning.

    With two classes, sensitivity, specificity, precision, F1, average precision and Brier score are
    those of the positive class. With more, the first two are NaN, precision, F1, ROC AUC and average precision are
    means over classes, and the Brier score sums over them.

    Parameters
    ----------
    labels, predicted : (N,) int
    probabilities : (N, K) float
        Rows sum to 1.
    positive : int or None

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import figures
    >>> found = figures(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]), 0)
    >>> found["sensitivity"], found["roc_auc"], round(found["brier"], 3)
    (0.5, 1.0, 0.153)
    """
    from sklearn import metrics as sk

    classes = list(range(probabilities.shape[1]))
    nothing = math.nan
    ranks = [k for k in classes if 0 < (labels == k).sum() < len(labels)]
    if len(classes) == 2 and positive is not None:
        one: dict[str, Any] = {"pos_label": positive, "zero_division": np.nan}
        ranks = [k for k in ranks if k == positive]
    else:
        one = {"average": "macro", "labels": classes, "zero_division": 0.0}
        ranks = ranks if len(ranks) == len(classes) else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are missing
        found = {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "sensitivity": nothing,
            "specificity": nothing,
            "precision": sk.precision_score(labels, predicted, **one),
            "f1": sk.f1_score(labels, predicted, **one),
            "mcc": sk.matthews_corrcoef(labels, predicted),
        }
        for name, score in (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
            each = [score(labels == k, probabilities[:, k]) for k in ranks]
            found[name] = float(np.mean(each)) if each else nothing
        found["brier"] = float(brier(labels, probabilities, positive).mean())
        found["log_loss"] = sk.log_loss(labels, np.maximum(probabilities, LEAST), labels=classes)
        if len(classes) == 2 and positive is not None:
            found["brier"] = sk.brier_score_loss(labels == positive, probabilities[:, positive], pos_label=True)
            for name, label in (("sensitivity", positive), ("specificity", 1 - positive)):
                found[name] = sk.recall_score(labels, predicted, **{**one, "pos_label": label})
    found["calibration_error"] = expected_calibration_error(probabilities, labels)
    return {name: float(found[name]) for name in NAMES}


def brier(labels: np.ndarray, probabilities: np.ndarray, positive: int | None) -> np.ndarray:
    """Return the squared error (N,) of every cell's probabilities: Brier (1950).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import brier
    >>> brier(np.array([0]), np.array([[0.9, 0.1]]), 0).round(3).tolist()
    [0.01]
    """
    if probabilities.shape[1] == 2 and positive is not None:
        return (probabilities[:, positive] - (labels == positive)) ** 2
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return (K, K) int64 counts: rows are the truth, columns what was predicted.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import confusion_matrix
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return group_confusions(labels, predicted, np.zeros(len(labels), int), 1, classes)[0]


def group_confusions(
    labels: np.ndarray, predicted: np.ndarray, group: np.ndarray, count: int, classes: int
) -> np.ndarray:
    """Return a confusion matrix for each of `count` groups, (G, K, K) int64.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import group_confusions
    >>> group_confusions(np.array([0, 1]), np.array([0, 0]), np.array([0, 1]), 2, 2).tolist()
    [[[1, 0], [0, 0]], [[0, 0], [1, 0]]]
    """
    place = (group * classes + labels) * classes + predicted
    return np.bincount(place, minlength=count * classes**2).reshape(count, classes, classes)


def from_confusion(confusion: np.ndarray, positive: int | None) -> dict[str, np.ndarray]:
    """Return the figures of confusion matrices (..., K, K); NaN where one has no meaning.

    With two classes, sensitivity, specificity, precision and F1 are those of the positive class;
    with more, precision and F1 are averages over classes and the first two are NaN. MCC with more
    than two classes is Gorodkin's (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import from_confusion
    >>> figures = from_confusion(np.array([[8, 2], [1, 9]]), positive=0)
    >>> round(float(figures["accuracy"]), 3), round(float(figures["sensitivity"]), 3)
    (0.85, 0.8)
    """
    c = np.asarray(confusion, np.float64)
    total, right = c.sum((-2, -1)), np.trace(c, axis1=-2, axis2=-1)
    truth, called = c.sum(-1), c.sum(-2)
    hits = np.diagonal(c, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, precision = hits / truth, hits / called
        f1 = 2 * hits / (truth + called)
        spread = np.sqrt((total**2 - (called**2).sum(-1)) * (total**2 - (truth**2).sum(-1)))
        mcc = np.where(spread > 0, (right * total - (truth * called).sum(-1)) / spread, 0.0)
        figures = {"accuracy": right / total, "balanced_accuracy": np.nanmean(recall, axis=-1), "mcc": mcc}
    nothing = np.full(np.shape(total), np.nan)
    if c.shape[-1] == 2 and positive is not None:
        figures |= {
            "sensitivity": recall[..., positive],
            "specificity": recall[..., 1 - positive],
            "precision": precision[..., positive],
            "f1": f1[..., positive],
        }
    else:
        figures |= {"sensitivity": nothing, "specificity": nothing}
        figures |= {"precision": np.nan_to_num(precision).mean(-1), "f1": np.nan_to_num(f1).mean(-1)}
    return figures


def ranking(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC AUC and average precision for each row of weights.

    The first is the probability that a positive scores above a negative, ties counting half (Mann and
    Whitney, 1947); the second the mean precision over recall, without interpolation.

    Parameters
    ----------
    truth : (N,) bool
    scores : (N,) float
    weights : (D, N) float

    Returns
    -------
    tuple of (D,) float64
        NaN where a row has only one class.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import ranking
    >>> auc, precision = ranking(np.array([True, True, False]), np.array([0.9, 0.4, 0.5]), np.ones((1, 3)))
    >>> auc.tolist(), precision.round(3).tolist()
    ([0.5], [0.833])
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = weights[:, order]
    positive = np.add.reduceat(np.where(truth[order], weights, 0.0), starts, axis=1)
    negative = np.add.reduceat(np.where(truth[order], 0.0, weights), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    positives, negatives = positive.sum(1), negative.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        auc = (positive * (below + negative / 2)).sum(1) / (positives * negatives)
        hits = positives[:, None] - (np.cumsum(positive, axis=1) - positive)  # positives from this score on
        precision = hits / (hits + negatives[:, None] - below)
        average = np.where(positive > 0, positive * precision, 0.0).sum(1) / positives
    return auc, np.where(negatives > 0, average, np.nan)


def macro_ranking(
    labels: np.ndarray, probabilities: np.ndarray, positive: int | None, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `ranking` of the positive class; with more than two classes the mean of one against the rest.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import macro_ranking
    >>> auc, _ = macro_ranking(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), 0, np.ones((1, 2)))
    >>> auc.tolist()
    [1.0]
    """
    two = probabilities.shape[1] == 2 and positive is not None
    chosen = [positive] if two else range(probabilities.shape[1])
    each = [ranking(labels == k, probabilities[:, k], weights) for k in chosen]
    auc, average = np.mean(each, axis=0)
    return auc, average
