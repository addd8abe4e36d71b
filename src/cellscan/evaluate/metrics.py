"""Figures from confusion matrices and scores, all over leading axes, so that a bootstrap costs one call."""

from __future__ import annotations

import numpy as np

NAMES = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1", "mcc", "roc_auc")


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return (K, K) int64 counts: rows are the truth, columns what was predicted.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import confusion_matrix
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


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


def roc_auc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve for each row of weights.

    The probability that a positive scores above a negative, ties counting half (Mann and Whitney,
    1947), with weighted cells.

    Parameters
    ----------
    truth : (N,) bool
    scores : (N,) float
    weights : (D, N) float

    Returns
    -------
    (D,) float64
        NaN where a row has only one class.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import roc_auc
    >>> roc_auc(np.array([True, True, False]), np.array([0.9, 0.4, 0.5]), np.ones((1, 3))).tolist()
    [0.5]
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = weights[:, order]
    positive = np.add.reduceat(np.where(truth[order], weights, 0.0), starts, axis=1)
    negative = np.add.reduceat(np.where(truth[order], 0.0, weights), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(divide="ignore", invalid="ignore"):
        return (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))


def macro_roc_auc(
    labels: np.ndarray, probabilities: np.ndarray, positive: int | None, weights: np.ndarray
) -> np.ndarray:
    """Return the ROC AUC (D,) of the positive class; with more than two classes the mean of one against the rest.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.metrics import macro_roc_auc
    >>> macro_roc_auc(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), 0, np.ones((1, 2))).tolist()
    [1.0]
    """
    if probabilities.shape[1] == 2 and positive is not None:
        return roc_auc(labels == positive, probabilities[:, positive], weights)
    each = [roc_auc(labels == k, probabilities[:, k], weights) for k in range(probabilities.shape[1])]
    return np.mean(each, axis=0)
