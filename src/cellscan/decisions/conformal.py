"""Conformal label sets with guaranteed coverage for a random cell of a new patient.

Patients are exchangeable, but the cells of one patient are not independent, and patients have different numbers of
cells. Every patient of the calibration set therefore has the same weight, divided equally among its cells, and the
new patient has the weight of one more patient. This is the hierarchical conformal prediction of Lee, Barber and
Willett (2023), Distribution-free inference with hierarchical data (arXiv 2306.06342), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellscan.data.values import check_number, check_seed, check_whole
from cellscan.errors import DataError
from cellscan.notebook import TextInNotebook


@dataclass(frozen=True)
class Conformal:
    """The rule that decides which labels are in the conformal set of a cell.

    Attributes
    ----------
    alpha : float
        Largest probability that the set of a random cell of a new patient lacks the true label, in (0, 1).
    quantile : float
        The set contains each label for which 1 minus its probability is at most this value.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Conformal(alpha=0.1, quantile=0.3).alpha
    0.1
    """

    alpha: float
    quantile: float


def scores_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the nonconformity score of each label, (N,): 1 minus its probability.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import scores_of
    >>> scores_of(np.array([[0.75, 0.25]]), np.array([1])).tolist()
    [0.75]
    """
    return 1.0 - probabilities[np.arange(len(labels)), labels].astype(np.float64)


def fit_quantile(scores: np.ndarray, patients: np.ndarray, alpha: float) -> float:
    """Return the largest score with which a label belongs to the set.

    Parameters
    ----------
    scores : (N,) float
        Scores of the true labels; see `scores_of`.
    patients : (N,)
        The patient of each cell.
    alpha : float
        Largest probability that the set of a random cell of a new patient lacks the true label, in (0, 1).

    Raises
    ------
    DataError
        If there are fewer than ceil(1 / alpha) - 1 patients; the quantile would then be infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import fit_quantile
    >>> fit_quantile(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 2, 3, 4]), alpha=0.4)
    0.3
    """
    alpha = check_number("alpha", alpha, 0, 1)
    _, group, size = np.unique(patients, return_inverse=True, return_counts=True)
    count, needed = len(size), math.ceil(min(1 / alpha, 1e15) - 1e-9) - 1  # 1 / alpha may be infinite
    if count < needed:
        raise DataError(
            f"{count} patients are too few for alpha {alpha:g}; expected at least {needed}. "
            "Use cells of more patients, or a larger alpha"
        )
    order = np.argsort(scores, kind="stable")
    cumulative = np.cumsum(1.0 / ((count + 1) * size[group[order]]))
    rank = int(np.searchsorted(cumulative, 1 - alpha - 1e-9))
    return float(scores[order][min(rank, len(scores) - 1)])


def label_sets(probabilities: np.ndarray, quantile: float) -> np.ndarray:
    """Return which labels are in the set of each cell, (N, K) bool; a set may have several labels, or none.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import label_sets
    >>> label_sets(np.array([[0.95, 0.05], [0.6, 0.4]]), 0.2).tolist()
    [[True, False], [False, False]]
    """
    return 1.0 - probabilities.astype(np.float64) <= quantile


@dataclass(frozen=True)
class Coverage(TextInNotebook):
    """Coverage of conformal sets, measured over many random splits of the patients in halves.

    Attributes
    ----------
    alpha : float
        Target: the largest probability that a set lacks the true label.
    coverage : float
        Probability that the set of a random cell of a random held-out patient contains its label; mean over splits.
    spread : float
        Standard deviation of the coverage over splits.
    several, none : float
        Share of the sets with more than one label, and with none. In both cases an expert should decide.
    splits : int
        Number of splits.

    Examples
    --------
    >>> from cellscan.decisions.conformal import Coverage
    >>> print(Coverage(0.1, 0.905, 0.02, 0.01, 0.04, 200))
    target 0.900, coverage 0.905 (SD 0.020, 200 splits by patient); abstained 0.050 (several labels 0.010, none 0.040)
    """

    alpha: float
    coverage: float
    spread: float
    several: float
    none: float
    splits: int

    def __str__(self) -> str:
        return (
            f"target {1 - self.alpha:.3f}, coverage {self.coverage:.3f} (SD {self.spread:.3f}, {self.splits} "
            f"splits by patient); abstained {self.several + self.none:.3f} (several labels {self.several:.3f}, "
            f"none {self.none:.3f})"
        )


def simulate(
    probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray, alpha: float, *, splits: int, seed: int
) -> Coverage:
    """Measure coverage: `splits` times, choose the quantile on half of the patients and evaluate it on the others.

    Parameters
    ----------
    probabilities : (N, K) float
        Out-of-fold probabilities.
    labels, patients : (N,)
    alpha : float
    splits, seed : int

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import simulate
    >>> rng = np.random.default_rng(0)
    >>> p = rng.random(4000)
    >>> labels = (rng.random(4000) > p).astype(int)
    >>> found = simulate(np.stack([p, 1 - p], 1), labels, np.arange(4000) // 40, 0.2, splits=50, seed=0)
    >>> abs(found.coverage - 0.8) < 0.02
    True
    """
    names, group = np.unique(patients, return_inverse=True)
    splits = check_whole("splits", splits, 1)
    scores, rng = scores_of(probabilities, labels), np.random.default_rng(check_seed(seed))
    size = np.bincount(group)
    rates = []
    for _ in range(splits):
        chosen = np.zeros(len(names), bool)
        chosen[rng.permutation(len(names))[: len(names) // 2]] = True
        calibration = chosen[group]
        test = ~calibration
        quantile = fit_quantile(scores[calibration], group[calibration], alpha)
        counts = label_sets(probabilities[test], quantile).sum(1)
        weight = 1.0 / size[group[test]]
        rates.append([np.average(hit, weights=weight) for hit in (scores[test] <= quantile, counts > 1, counts == 0)])
    coverage, several, none = np.mean(rates, axis=0)
    spread = float(np.std([row[0] for row in rates]))
    return Coverage(alpha, float(coverage), spread, float(several), float(none), splits)
