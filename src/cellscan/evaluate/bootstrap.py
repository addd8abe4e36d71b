"""Intervals by drawing patients, not cells: the cells of a patient stand or fall together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cellscan.data.values import check_seed
from cellscan.evaluate.metrics import AVERAGED, NAMES, weighted_metrics

DRAWS = 2000

_MANY = 10_000
"""Groups from which indices are drawn and counted: the same distribution as a multinomial, ten times as fast."""

_ROOM = 2_000_000
"""Weights of cells that are in memory at a time."""


def draw_weights(groups: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each draw takes each group (D, G), and the group (N,) of every cell.

    The same groups, draws and seed give the same weights, whatever is computed from them: so metrics of two
    classifiers on the same cells are paired. `draw_chunks` gives the same in bounded memory.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import draw_weights
    >>> weights, group = draw_weights(np.array(["a", "b", "a"]), 3, 0)
    >>> weights.sum(1).tolist(), group.tolist()
    ([2.0, 2.0, 2.0], [0, 1, 0])
    """
    _, group = np.unique(groups, return_inverse=True)
    return np.concatenate(list(draw_chunks(int(group.max()) + 1, draws, seed, draws))), group


def draw_chunks(count: int, draws: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """Return how often each draw takes each of `count` groups, `rows` draws at a time; they do not change the weights.

    Examples
    --------
    >>> from cellscan.evaluate.bootstrap import draw_chunks
    >>> [len(chunk) for chunk in draw_chunks(5, draws=7, seed=0, rows=3)]
    [3, 3, 1]
    """
    rng = np.random.default_rng(check_seed(seed))
    for start in range(0, draws, rows):
        here = min(rows, draws - start)
        if count < _MANY:
            drawn = rng.multinomial(count, np.full(count, 1 / count), here)
        else:
            drawn = np.stack(
                [np.bincount(rng.integers(0, count, count, np.uint32), minlength=count) for _ in range(here)]
            )
        yield drawn.astype(np.float64)


def bootstrap_metrics(
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    positive: int | None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return every metric of `draws` samples of groups, drawn with replacement (Efron, 1979).

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
        count every group once; NaN where a metric is undefined, and everywhere with one group
        alone, which says nothing about how far groups differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.bootstrap import bootstrap_metrics
    >>> labels = np.array([0, 1] * 20)
    >>> drawn = bootstrap_metrics(labels, labels, np.eye(2)[labels], np.arange(40) // 4, 0, draws=100)
    >>> float(drawn["accuracy"].min())
    1.0
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return dict.fromkeys([*NAMES, *(f"{name}_by_patient" for name in AVERAGED)], np.full(draws, np.nan))
    weights = draw_chunks(count, draws, seed, max(1, _ROOM // len(labels)))
    return weighted_metrics(labels, predicted, probabilities, group, positive, weights)


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
