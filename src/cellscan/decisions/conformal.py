"""Sets of labels that hold the true one for a random cell of a new patient, as often as was asked.

Patients are exchangeable; the cells of one patient are not independent, and patients give different
numbers of them. So every patient of the calibration set weighs the same, its cells share that weight,
and the patient to come weighs as much as one more: the hierarchical conformal prediction of Lee, Barber and
Willett (2023), Distribution-free inference with hierarchical data (arXiv 2306.06342), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellscan.data.values import check_number, check_seed, check_whole
from cellscan.errors import DataError


@dataclass(frozen=True)
class Conformal:
    """How far a label may be off and still belong to the set of a cell.

    Attributes
    ----------
    alpha : float
        How often the set of a random cell of a new patient may lack the true label.
    quantile : float
        A label belongs to the set where 1 minus its probability is at most this.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Conformal(alpha=0.1, quantile=0.3).alpha
    0.1
    """

    alpha: float
    quantile: float


def scores_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how badly each label fits (N,): 1 minus its probability.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import scores_of
    >>> scores_of(np.array([[0.75, 0.25]]), np.array([1])).tolist()
    [0.75]
    """
    return 1.0 - probabilities[np.arange(len(labels)), labels].astype(np.float64)


def fit_quantile(scores: np.ndarray, patients: np.ndarray, alpha: float) -> float:
    """Return the score up to which a label belongs to the set.

    Parameters
    ----------
    scores : (N,) float
        Of the true labels; see `scores_of`.
    patients : (N,)
        The patient of each cell.
    alpha : float
        In (0, 1): how often the set of a random cell of a new patient may lack the true label.

    Raises
    ------
    DataError
        With fewer than ceil(1 / alpha) - 1 patients, which is too few for a finite answer.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import fit_quantile
    >>> fit_quantile(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 2, 3, 4]), alpha=0.4)
    0.3
    """
    alpha = check_number("alpha", alpha, 0, 1)
    _, group, size = np.unique(patients, return_inverse=True, return_counts=True)
    count, needed = len(size), math.ceil(1 / alpha - 1e-9) - 1
    if count < needed:
        raise DataError(
            f"{count} patients are too few for alpha {alpha:g}; expected at least {needed}. "
            "Bring more patients, or ask for a larger alpha"
        )
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / ((count + 1) * size[group[order]]))
    place = int(np.searchsorted(reached, 1 - alpha - 1e-9))
    return float(scores[order][min(place, len(scores) - 1)])


def label_sets(probabilities: np.ndarray, quantile: float) -> np.ndarray:
    """Return which labels belong to the set of each cell, (N, K) bool; a row may have several, or none.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.conformal import label_sets
    >>> label_sets(np.array([[0.95, 0.05], [0.6, 0.4]]), 0.2).tolist()
    [[True, False], [False, False]]
    """
    return 1.0 - probabilities.astype(np.float64) <= quantile


@dataclass(frozen=True)
class Coverage:
    """What conformal sets gave over many random halves of the patients.

    Attributes
    ----------
    alpha : float
        As asked.
    coverage : float
        Mean over splits of how often the set of a random cell of a random other patient held its label.
    spread : float
        Standard deviation over splits.
    several, none : float
        How often such a set held more than one label, and none: both say "ask an expert".
    splits : int
        How many.

    Examples
    --------
    >>> from cellscan.decisions.conformal import Coverage
    >>> print(Coverage(0.1, 0.905, 0.02, 0.01, 0.04, 200))
    asked 0.900, covered 0.905 (SD 0.020 over 200 splits by patient); abstained 0.050 (several labels 0.010, none 0.040)
    """

    alpha: float
    coverage: float
    spread: float
    several: float
    none: float
    splits: int

    def __str__(self) -> str:
        return (
            f"asked {1 - self.alpha:.3f}, covered {self.coverage:.3f} (SD {self.spread:.3f} over {self.splits} splits "
            f"by patient); abstained {self.several + self.none:.3f} (several labels {self.several:.3f}, "
            f"none {self.none:.3f})"
        )


def simulate(
    probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray, alpha: float, *, splits: int, seed: int
) -> Coverage:
    """Choose the quantile on half of the patients and count on the others, `splits` times.

    Parameters
    ----------
    probabilities : (N, K) float
        Of out-of-fold networks.
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
    counted = []
    for _ in range(splits):
        chosen = np.zeros(len(names), bool)
        chosen[rng.permutation(len(names))[: len(names) // 2]] = True
        here = chosen[group]
        quantile = fit_quantile(scores[here], group[here], alpha)
        held = label_sets(probabilities[~here], quantile).sum(1)
        weight = 1.0 / size[group[~here]]
        counted.append([np.average(hit, weights=weight) for hit in (scores[~here] <= quantile, held > 1, held == 0)])
    coverage, several, none = np.mean(counted, axis=0)
    spread = float(np.std([row[0] for row in counted]))
    return Coverage(alpha, float(coverage), spread, float(several), float(none), splits)
