"""Thresholds between negative and positive, of cells and of patients."""

from __future__ import annotations

import numpy as np

from cellscan.data.values import check_number
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.patients import shares


def choose(
    positives: np.ndarray,
    negatives: np.ndarray,
    *,
    sensitivity: float | None,
    specificity: float | None,
    what: tuple[str, str],
) -> float:
    """Choose the threshold at and above which a score is positive.

    With `sensitivity`, the result is the highest threshold that at least this share of the positives reaches. With
    `specificity`, it is the lowest threshold that at least this share of the negatives stays below.

    Parameters
    ----------
    positives, negatives : (P,), (Q,) float
        Scores in [0, 1].
    sensitivity, specificity : float or None
        Target in (0, 1]; give exactly one of them.
    what : tuple of str
        Names of the positives and of the negatives in error messages.

    Raises
    ------
    ArgumentError
        If not exactly one of `sensitivity` and `specificity` is given.
    DataError
        If there are no such scores, or if no threshold reaches the specificity.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.thresholds import choose
    >>> scores = np.array([0.2, 0.6, 0.8, 0.9]), np.array([0.1, 0.3])
    >>> choose(*scores, sensitivity=0.75, specificity=None, what=("sick", "healthy"))
    0.6
    >>> choose(*scores, sensitivity=None, specificity=1.0, what=("sick", "healthy")) > 0.3
    True
    """
    if (sensitivity is None) == (specificity is None):
        raise ArgumentError(
            f"sensitivity is {sensitivity!r} and specificity is {specificity!r}; expected exactly one of them"
        )
    name, target = ("sensitivity", sensitivity) if specificity is None else ("specificity", specificity)
    target = check_number(name, target, 0, 1, "(]")
    scores, kind = (positives, what[0]) if name == "sensitivity" else (negatives, what[1])
    if not len(scores):
        raise DataError(f"there are no {kind} to choose the threshold by; expected some, or the other metric")
    ordered = np.sort(scores.astype(np.float64))
    needed = max(int(np.ceil(target * len(ordered) - 1e-9)), 1)
    threshold = ordered[len(ordered) - needed] if name == "sensitivity" else _above(ordered[needed - 1])
    if threshold > 1:
        raise DataError(f"{kind} have the greatest score, 1, so no threshold gives {name} {target}; pass a lower one")
    return float(max(threshold, np.finfo(np.float32).tiny))


def choose_rule(
    truth: np.ndarray,
    called: np.ndarray,
    patients: np.ndarray,
    sensitivity: float | None,
    specificity: float | None,
) -> float:
    """Choose the share of positive cells at and above which a patient counts as infected.

    Parameters
    ----------
    truth, called : (N,) bool
        Whether a cell is labelled positive, and whether it is predicted positive.
    patients : (N,) str
        The patient of each cell.
    sensitivity, specificity
        As in `choose`, over patients.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.thresholds import choose_rule
    >>> ids = np.repeat(["sick", "well"], 4)
    >>> called = np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    >>> choose_rule(np.arange(8) < 2, called, ids, sensitivity=1.0, specificity=None)
    0.5
    """
    _, group = np.unique(patients, return_inverse=True)
    count = int(group.max()) + 1
    share, sick = shares(called, group, count), shares(truth, group, count) > 0
    kinds = ("infected patients", "healthy patients")
    return choose(share[sick], share[~sick], sensitivity=sensitivity, specificity=specificity, what=kinds)


def _above(score: float) -> float:
    """Return the next float32 above the score, so that the score stays below the threshold."""
    return float(np.nextafter(np.float32(score), np.float32(2)))
