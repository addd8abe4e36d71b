"""How often a probability comes true: the points of a reliability diagram."""

from __future__ import annotations

import numpy as np

from cellscan.evaluate.bootstrap import draw_weights, interval


def reliability(
    truth: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray | None,
    *,
    bins: int = 10,
    draws: int = 500,
    seed: int = 0,
) -> np.ndarray:
    """Return mean probability, share that came true, and the share's 95 % interval, of every bin that has cells.

    Parameters
    ----------
    truth : (N,) bool
        Whether each cell is of the class.
    scores : (N,) float
        Probability of the class, in [0, 1].
    groups : (N,) or None
        The patient of each cell, which are drawn with replacement; None draws cells.
    bins : int
        Bins of equal width.
    draws, seed : int
        Samples for the interval.

    Returns
    -------
    (B, 4) float64
        Mean probability, share, lower and upper end; both ends NaN where there are fewer than two groups.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.reliability import reliability
    >>> truth = np.array([False, True, True, True])
    >>> found = reliability(truth, np.array([0.2, 0.2, 0.9, 0.9]), np.array(["a", "b", "a", "b"]))
    >>> found[:, :2].tolist()
    [[0.2, 0.5], [0.9, 1.0]]
    """
    scores = scores.astype(np.float64)
    which = np.minimum((scores * bins).astype(int), bins - 1)
    numbers = np.unique(which)
    if groups is None:
        # Cells of one bin and truth are alike, so a draw is told by how many it takes of each kind: no draws x cells.
        kind, kinds = 2 * which + truth, 2 * bins
        cells = np.bincount(kind, minlength=kinds)
        taken = np.random.default_rng(seed).multinomial(len(truth), cells / len(truth), draws).reshape(draws, bins, 2)
        hits, sizes = taken[:, numbers, 1], taken[:, numbers].sum(2)
        many = len(truth) > 1
    else:
        weights, group = draw_weights(groups, draws, seed)
        many = weights.shape[1] > 1
        shape = weights.shape[1], bins
        size, hit = np.zeros(shape), np.zeros(shape)
        np.add.at(size, (group, which), 1)
        np.add.at(hit, (group, which), truth)
        hits, sizes = weights @ hit[:, numbers], weights @ size[:, numbers]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = hits / sizes
    nowhere = float("nan"), float("nan")
    rows = [
        (scores[which == number].mean(), truth[which == number].mean(), *(interval(column) if many else nowhere))
        for number, column in zip(numbers, shares.T, strict=True)
    ]
    return np.array(rows).reshape(-1, 4)
