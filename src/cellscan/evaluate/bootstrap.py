"""Intervals by drawing patients, not cells: the cells of a patient stand or fall together."""

from __future__ import annotations

import numpy as np

from cellscan.evaluate.metrics import NAMES, from_confusion, macro_roc_auc

DRAWS = 1000


def intervals(
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    positive: int | None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals of every figure (Efron, 1979), by drawing groups with replacement.

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
    dict
        Name to (low, high); NaN where a figure has no meaning, and everywhere with one group alone,
        which says nothing about how far groups differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import intervals
    >>> labels = np.array([0, 1] * 20)
    >>> right = np.eye(2)[labels]
    >>> intervals(labels, labels, right, np.arange(40) // 4, 0)["accuracy"]
    (1.0, 1.0)
    """
    classes = probabilities.shape[1]
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return dict.fromkeys(NAMES, (float("nan"), float("nan")))
    cells = np.zeros((count, classes, classes))
    np.add.at(cells, (group, labels, predicted), 1)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    chunk = max(1, min(draws, 4_000_000 // len(labels)))
    for start in range(0, draws, chunk):
        weights = rng.multinomial(count, np.full(count, 1 / count), min(chunk, draws - start)).astype(np.float64)
        figures = from_confusion(np.tensordot(weights, cells, 1), positive)
        figures["roc_auc"] = macro_roc_auc(labels, probabilities, positive, weights[:, group])
        for name in NAMES:
            drawn[name].append(figures[name])
    return {name: _percentiles(np.concatenate(values)) for name, values in drawn.items()}


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
