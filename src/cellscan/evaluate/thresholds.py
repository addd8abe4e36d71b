"""Where to draw the line: between cells, and between patients."""

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
    """Return the line from which something is positive.

    With a sensitivity it is the highest line that at least this share of the positives reaches; with
    a specificity the lowest that at least this share of the negatives stays below.

    Parameters
    ----------
    positives, negatives : (P,), (Q,) float
        Scores in [0, 1].
    sensitivity, specificity : float or None
        In (0, 1]; exactly one of them.
    what : tuple of str
        What the positives and the negatives are called, for errors.

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
    name, wanted = ("sensitivity", sensitivity) if specificity is None else ("specificity", specificity)
    wanted = check_number(name, wanted, 0, 1, "(]")
    scores, kind = (positives, what[0]) if name == "sensitivity" else (negatives, what[1])
    if not len(scores):
        raise DataError(f"there are no {kind} to choose by; expected some, or choose by the other metric")
    ordered = np.sort(scores.astype(np.float64))
    needed = max(int(np.ceil(wanted * len(ordered) - 1e-9)), 1)
    line = ordered[len(ordered) - needed] if name == "sensitivity" else _above(ordered[needed - 1])
    if line > 1:
        raise DataError(f"{kind} reach the greatest score of all, so no line gives {name} {wanted}; ask for less")
    return float(max(line, np.finfo(np.float32).tiny))


def choose_rule(
    truth: np.ndarray,
    called: np.ndarray,
    patients: np.ndarray,
    sensitivity: float | None,
    specificity: float | None,
) -> float:
    """Return the share of positive cells from which a patient counts as infected.

    Parameters
    ----------
    truth, called : (N,) bool
        Whether a cell is labelled, and called, positive.
    patients : (N,) str
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
    return min(choose(share[sick], share[~sick], sensitivity=sensitivity, specificity=specificity, what=kinds), 1.0)


def _above(score: float) -> float:
    """Return a line that this score does not reach, by what a float32 can tell."""
    return float(np.nextafter(np.float32(score), np.float32(2)))
