"""Metrics of classified cells, computed alike for a set of cells and for the weighted samples of a bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from cellscan.evaluate.calibration import bin_gaps

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
"""The metrics that are also averaged over the patients that have the class in question."""

LEAST = float(np.finfo(np.float32).eps)
"""Lower limit of a probability in the log loss; smaller probabilities are raised to it."""


def compute_metrics(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> dict[str, float]:
    """Compute every metric in `NAMES`; every cell counts once.

    This is `weighted_metrics` with a single row of ones.

    Parameters
    ----------
    labels, predicted : (N,) int
    probabilities : (N, K) float
        Rows sum to 1.
    positive : int or None
        Index of the positive class.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import compute_metrics
    >>> probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    >>> found = compute_metrics(np.array([0, 0, 1]), np.array([0, 1, 1]), probabilities, 0)
    >>> found["sensitivity"], found["roc_auc"], round(found["brier"], 3)
    (0.5, 1.0, 0.153)
    """
    group = np.zeros(len(labels), int)
    result = weighted_metrics(labels, predicted, probabilities, group, positive, [np.ones((1, 1))])
    return {name: float(result[name][0]) for name in NAMES}


def weighted_metrics(
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    group: np.ndarray,
    positive: int | None,
    weights: Iterable[np.ndarray],
) -> dict[str, np.ndarray]:
    """Compute every metric for each row of weights over groups of cells; a metric is NaN where it is undefined.

    With two classes, sensitivity, specificity, precision, F1, average precision and Brier score are those of the
    positive class. With more classes, sensitivity and specificity are NaN; precision, F1, ROC AUC and average
    precision are means over classes; and the Brier score is a sum over classes. In the means of precision and F1, a
    class that is never predicted counts as 0. ROC AUC and average precision are NaN unless every class has cells.

    Parameters
    ----------
    labels, predicted : (N,) int
    probabilities : (N, K) float
        Rows sum to 1.
    group : (N,) int
        The group of every cell, from 0 to G - 1.
    positive : int or None
        Index of the positive class.
    weights : iterable of (d, G) float
        How often each group counts, in chunks of d rows. One chunk of d x N numbers is in memory at a time.

    Returns
    -------
    dict of (D,) float64
        D is the number of rows in all chunks. Keys: the names in `NAMES`, and ``<name>_by_patient`` for those in
        `AVERAGED`. The latter are means over the groups that have the class in question; each group counts once.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import weighted_metrics
    >>> labels, called, group = np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1])
    >>> found = weighted_metrics(labels, called, np.eye(2)[called], group, 0, [np.array([[1.0, 1.0], [1.0, 0.0]])])
    >>> found["accuracy"].tolist(), found["accuracy_by_patient"].round(3).tolist()
    ([0.75, 1.0], [0.833, 1.0])
    """
    classes, count = probabilities.shape[1], int(group.max()) + 1
    two = classes == 2 and positive is not None
    correct = labels == predicted
    hits, truth, called = (
        np.bincount(group[rows] * classes + of[rows], minlength=count * classes).reshape(count, classes)
        for rows, of in ((correct, labels), (..., labels), (..., predicted))
    )
    label_probabilities = np.maximum(probabilities[np.arange(len(labels)), labels].astype(np.float64), LEAST)
    # Sums over the cells of each group are computed once, so that each row of weights costs one matrix product.
    sums = {
        "hits": hits,
        "truth": truth,
        "called": called,
        "log_loss": np.bincount(group, -np.log(label_probabilities), count)[:, None],
        "brier": np.bincount(group, brier(labels, probabilities, positive), count)[:, None],
        "calibration_error": bin_gaps(probabilities, labels, group, count),
    }
    each = _from_sums(hits, truth, called, positive)
    for name in AVERAGED:
        known = np.isfinite(each[name])
        sums[f"{name}_by_patient"] = np.stack([np.where(known, each[name], 0.0), known], 1)
    table = np.concatenate(list(sums.values()), 1, dtype=np.float64)
    ends = np.cumsum([values.shape[1] for values in sums.values()])[:-1]
    ranks = [make_ranking(labels == k, probabilities[:, k], group) for k in ([positive] if two else range(classes))]
    chunks = []
    for rows in weights:
        part = dict(zip(sums, np.split(rows @ table, ends, 1), strict=True))
        total = part["truth"].sum(1)
        result = _from_sums(part["hits"], part["truth"], part["called"], positive)
        for name in ("log_loss", "brier", "calibration_error"):
            result[name] = np.abs(part[name]).sum(1) / total
        for name in AVERAGED:
            value, known = part[f"{name}_by_patient"].T
            with np.errstate(invalid="ignore"):
                result[f"{name}_by_patient"] = value / known
        result["roc_auc"], result["average_precision"] = np.mean([[rank(row) for row in rows] for rank in ranks], 0).T
        chunks.append(result)
    return {name: np.concatenate([result[name] for result in chunks]) for name in chunks[0]}


def brier(labels: np.ndarray, probabilities: np.ndarray, positive: int | None) -> np.ndarray:
    """Compute the Brier score (N,) of every cell: the squared error of its probabilities (Brier, 1950).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import brier
    >>> brier(np.array([0]), np.array([[0.9, 0.1]]), 0).round(3).tolist()
    [0.01]
    """
    probabilities = probabilities.astype(np.float64)
    if probabilities.shape[1] == 2 and positive is not None:
        return (probabilities[:, positive] - (labels == positive)) ** 2
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the cells of each label and prediction, (K, K) int64: rows are labels, columns are predictions.

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
    """Compute the confusion matrix of each of `count` groups, (G, K, K) int64.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import group_confusions
    >>> group_confusions(np.array([0, 1]), np.array([0, 0]), np.array([0, 1]), 2, 2).tolist()
    [[[1, 0], [0, 0]], [[0, 0], [1, 0]]]
    """
    index = (group * classes + labels) * classes + predicted
    return np.bincount(index, minlength=count * classes**2).reshape(count, classes, classes)


def from_confusion(confusion: np.ndarray, positive: int | None) -> dict[str, np.ndarray]:
    """Compute the metrics of confusion matrices (..., K, K); a metric is NaN where it is undefined.

    With two classes, sensitivity, specificity, precision and F1 are those of the positive class. With more classes,
    precision and F1 are means over classes, and sensitivity and specificity are NaN. MCC with more than two classes
    is that of Gorodkin (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import from_confusion
    >>> metrics = from_confusion(np.array([[8, 2], [1, 9]]), positive=0)
    >>> round(float(metrics["accuracy"]), 3), round(float(metrics["sensitivity"]), 3)
    (0.85, 0.8)
    """
    c = np.asarray(confusion)
    return _from_sums(np.diagonal(c, axis1=-2, axis2=-1), c.sum(-1), c.sum(-2), positive)


def _from_sums(hits: np.ndarray, truth: np.ndarray, called: np.ndarray, positive: int | None) -> dict[str, np.ndarray]:
    """Compute the metrics of `from_confusion` from counts per class (..., K).

    `hits` counts the correct predictions of each class, `truth` its labels, `called` its predictions.
    """
    hits, truth, called = (np.asarray(values, np.float64) for values in (hits, truth, called))
    total, correct = truth.sum(-1), hits.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, precision = hits / truth, hits / called
        f1 = 2 * hits / (truth + called)
        spread = np.sqrt((total**2 - (called**2).sum(-1)) * (total**2 - (truth**2).sum(-1)))
        mcc = np.where(spread > 0, (correct * total - (truth * called).sum(-1)) / spread, 0.0)
        known = np.isfinite(recall)
        balanced = np.where(known, recall, 0.0).sum(-1) / known.sum(-1)
        metrics = {"accuracy": correct / total, "balanced_accuracy": balanced, "mcc": mcc}
    undefined = np.full(np.shape(total), np.nan)
    if hits.shape[-1] == 2 and positive is not None:
        metrics |= {
            "sensitivity": recall[..., positive],
            "specificity": recall[..., 1 - positive],
            "precision": precision[..., positive],
            "f1": f1[..., positive],
        }
    else:
        metrics |= {"sensitivity": undefined, "specificity": undefined}
        metrics |= {"precision": np.nan_to_num(precision).mean(-1), "f1": np.nan_to_num(f1).mean(-1)}
    return metrics


def make_ranking(
    truth: np.ndarray, scores: np.ndarray, group: np.ndarray
) -> Callable[[np.ndarray], tuple[float, float]]:
    """Sort the cells once, and return a function that computes ROC AUC and average precision from weights.

    ROC AUC is the probability that a positive cell scores above a negative cell; a tie counts as one half (Mann and
    Whitney, 1947). Average precision is the mean precision over recall, without interpolation.

    Parameters
    ----------
    truth : (N,) bool
    scores : (N,) float
    group : (N,) int
        The group of every cell, from 0 to G - 1.

    Returns
    -------
    callable
        Takes weights (G,) and returns two floats. They are NaN if only one class has a weight above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import make_ranking
    >>> rank = make_ranking(np.array([True, True, False]), np.array([0.9, 0.4, 0.5]), np.zeros(3, int))
    >>> auc, precision = rank(np.ones(1))
    >>> auc, round(precision, 3)
    (0.5, 0.833)
    """
    order = np.argsort(scores, kind="stable")[::-1]
    truth, scores, group = truth[order], scores[order], group[order]
    positive_groups, negative_groups = group[truth], group[~truth]
    # Both metrics are sums over the distinct scores of positives. For each such score, compute the index of its last
    # positive, the number of negatives with a higher score, and the number with an equal or higher score.
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    ends = np.r_[starts[1:], len(scores)]
    has_positives = np.add.reduceat(truth.astype(int), starts) > 0
    negatives = np.r_[0, np.cumsum(~truth)]
    above, not_below = negatives[starts[has_positives]], negatives[ends[has_positives]]
    last = np.cumsum(truth)[ends[has_positives] - 1] - 1

    def rank(weights: np.ndarray) -> tuple[float, float]:
        false = np.r_[0.0, np.cumsum(weights[negative_groups])]
        hits = np.cumsum(weights[positive_groups])[last]
        if not (len(hits) and hits[-1] and false[-1]):
            return math.nan, math.nan
        gained = np.diff(hits, prepend=0.0)
        higher, not_lower = false[above], false[not_below]
        # Mean weight of the negatives that score above a positive; a tie counts as one half.
        beating = (gained * (higher + not_lower)).sum() / (2 * hits[-1])
        precision = (gained * hits / np.maximum(hits + not_lower, np.finfo(float).tiny)).sum() / hits[-1]
        return float(1 - beating / false[-1]), float(precision)

    return rank
