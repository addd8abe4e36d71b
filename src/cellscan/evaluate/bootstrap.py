"""Bootstrap intervals. Patients are resampled, not cells, because the cells of one patient are not independent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cellscan.data.values import check_seed
from cellscan.evaluate.metrics import AVERAGED, NAMES, weighted_metrics

DRAWS = 2000
"""Default number of bootstrap draws."""

_MANY = 10_000
"""From this number of groups on, `draw_chunks` draws indices and counts them.

The distribution is that of a multinomial draw, and this is ten times as fast.
"""

_MAX_WEIGHTS = 2_000_000
"""Largest number of cell weights in memory at a time."""


def draw_weights(groups: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw groups with replacement; return the counts of groups in each draw (D, G), and the group (N,) of each cell.

    The weights depend on the groups, the number of draws and the seed alone. Metrics of two classifiers on the same
    cells are therefore paired. `draw_chunks` returns the same weights in bounded memory.

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
    """Draw `count` groups with replacement; yield the count of each group in each draw, `rows` draws at a time.

    The chunk size `rows` does not change the weights.

    Examples
    --------
    >>> from cellscan.evaluate.bootstrap import draw_chunks
    >>> [len(chunk) for chunk in draw_chunks(5, draws=7, seed=0, rows=3)]
    [3, 3, 1]
    """
    rng = np.random.default_rng(check_seed(seed))
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        if count < _MANY:
            drawn = rng.multinomial(count, np.full(count, 1 / count), size)
        else:
            drawn = np.stack(
                [np.bincount(rng.integers(0, count, count, np.uint32), minlength=count) for _ in range(size)]
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
    """Compute every metric on `draws` bootstrap samples: groups drawn with replacement (Efron, 1979).

    Parameters
    ----------
    labels, predicted : (N,) int
    probabilities : (N, K) float
    groups : (N,)
        The patient of each cell. If patients are unknown, give each cell its own group.
    positive : int or None
        Index of the positive class.
    draws, seed : int
        Number of samples, and seed of the draws.

    Returns
    -------
    dict of (D,) float64
        Keys: the names in `metrics.NAMES`, and ``<name>_by_patient`` for those in `metrics.AVERAGED`, in
        which every group counts once. A value is NaN where the metric is undefined. With a single group
        every value is NaN, because one group does not show how far groups differ.

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
    weights = draw_chunks(count, draws, seed, max(1, _MAX_WEIGHTS // len(labels)))
    return weighted_metrics(labels, predicted, probabilities, group, positive, weights)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of the finite draws; NaN if there are none.

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
