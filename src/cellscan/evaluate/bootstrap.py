"""Intervals by drawing patients, not cells: the cells of a patient stand or fall together."""

from __future__ import annotations

import numpy as np

from cellscan.evaluate.calibration import bin_gaps
from cellscan.evaluate.metrics import AVERAGED, LEAST, NAMES, brier, from_confusion, group_confusions, macro_ranking

DRAWS = 2000


def draw_weights(groups: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each draw takes each group (D, G), and the group (N,) of every cell.

    The same groups, draws and seed give the same weights, whatever is computed from them: so figures of two
    classifiers on the same cells are paired.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import draw_weights
    >>> weights, group = draw_weights(np.array(["a", "b", "a"]), 3, 0)
    >>> weights.sum(1).tolist(), group.tolist()
    ([2.0, 2.0, 2.0], [0, 1, 0])
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64), group


def draw_figures(
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    positive: int | None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return every figure of `draws` samples of groups, drawn with replacement (Efron, 1979).

    Parameters
    ----------
    labels, predicted : (N,) int
    probabilities : (N, K) float
    groups : (N,)
        The patient of each cell; one group each where patients are unknown.
    positive : int or None
    draws, seed : int

    Returns
    -------
    dict of (D,) float64
        By the names of `metrics.NAMES`, and ``<name>_by_patient`` for those of `metrics.AVERAGED`, which
        count every group once; NaN where a figure has no meaning, and everywhere with one group
        alone, which says nothing about how far groups differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import draw_figures
    >>> labels = np.array([0, 1] * 20)
    >>> drawn = draw_figures(labels, labels, np.eye(2)[labels], np.arange(40) // 4, 0, draws=100)
    >>> float(drawn["accuracy"].min())
    1.0
    """
    weights, group = draw_weights(groups, draws, seed)
    count, classes = weights.shape[1], probabilities.shape[1]
    if count < 2:
        return dict.fromkeys([*NAMES, *(f"{name}_by_patient" for name in AVERAGED)], np.full(draws, np.nan))
    cells = group_confusions(labels, predicted, group, count, classes)
    size = np.bincount(group, minlength=count)
    drawn = from_confusion(np.tensordot(weights, cells, 1), positive)
    drawn |= {f"{name}_by_patient": values for name, values in average_groups(cells, positive, weights).items()}
    chosen = np.maximum(probabilities[np.arange(len(labels)), labels].astype(np.float64), LEAST)
    for name, losses in (("log_loss", -np.log(chosen)), ("brier", brier(labels, probabilities, positive))):
        drawn[name] = weights @ np.bincount(group, losses, count) / (weights @ size)
    gaps = bin_gaps(probabilities, labels, group, count)
    drawn["calibration_error"] = np.abs(weights @ gaps).sum(1) / (weights @ size)
    chunk = max(1, 4_000_000 // len(labels))
    parts = [macro_ranking(labels, probabilities, positive, part[:, group]) for part in _cut(weights, chunk)]
    drawn["roc_auc"], drawn["average_precision"] = np.concatenate(parts, axis=1)
    return drawn


def _cut(array: np.ndarray, size: int) -> list[np.ndarray]:
    return [array[start : start + size] for start in range(0, len(array), size)]


def average_groups(cells: np.ndarray, positive: int | None, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the means of the figures of `metrics.AVERAGED` over the groups that have the class in question.

    Parameters
    ----------
    cells : (G, K, K)
        A confusion matrix a group.
    positive : int or None
    weights : (D, G) float

    Returns
    -------
    dict of (D,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import average_groups
    >>> one, many = [[1, 0], [0, 9]], [[50, 50], [0, 0]]  # the second has no uninfected cells
    >>> found = average_groups(np.array([one, many]), 0, np.ones((1, 2)))
    >>> found["sensitivity"].tolist(), found["specificity"].tolist()
    ([0.75], [1.0])
    """
    found = {}
    for name, values in from_confusion(cells, positive).items():
        if name in AVERAGED:
            has = np.isfinite(values)
            with np.errstate(divide="ignore", invalid="ignore"):
                found[name] = weights @ np.where(has, values, 0.0) / (weights @ has)
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of draws; NaN where none has a meaning.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import interval
    >>> interval(np.arange(101.0))
    (2.5, 97.5)
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
