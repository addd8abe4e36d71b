"""Points of a reliability diagram: predicted probability against the observed share of positives."""

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
    """Compute mean probability, share of positives and its 95 % interval, for every bin that contains cells.

    Parameters
    ----------
    truth : (N,) bool
        Whether each cell is of the class.
    scores : (N,) float
        Probability of the class, in [0, 1].
    groups : (N,) or None
        The patient of each cell; the bootstrap draws patients with replacement. With None, it draws cells.
    bins : int
        Number of bins of equal width.
    draws, seed : int
        Number of bootstrap samples, and their seed.

    Returns
    -------
    (B, 4) float64
        Mean probability, share of positives, and lower and upper end of its interval. Both ends are NaN for a bin with
        cells of fewer than two groups, whose draws do not differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.reliability import reliability
    >>> truth = np.array([False, True, True, True])
    >>> points = reliability(truth, np.array([0.2, 0.2, 0.9, 0.9]), np.array(["a", "b", "a", "b"]))
    >>> points[:, :2].tolist()
    [[0.2, 0.5], [0.9, 1.0]]
    """
    scores = scores.astype(np.float64)
    bin_index = np.minimum((scores * bins).astype(int), bins - 1)
    occupied = np.unique(bin_index)
    if groups is None:
        # Cells with the same bin and the same truth are interchangeable. Drawing the count of each such kind needs
        # less memory than drawing cells.
        kind, kinds = 2 * bin_index + truth, 2 * bins
        cells = np.bincount(kind, minlength=kinds)
        counts = np.random.default_rng(seed).multinomial(len(truth), cells / len(truth), draws).reshape(draws, bins, 2)
        hits, sizes = counts[:, occupied, 1], counts[:, occupied].sum(2)
        several = cells.reshape(bins, 2).sum(1)[occupied] > 1
    else:
        weights, group = draw_weights(groups, draws, seed)
        shape = weights.shape[1], bins
        size, hit = np.zeros(shape), np.zeros(shape)
        np.add.at(size, (group, bin_index), 1)
        np.add.at(hit, (group, bin_index), truth)
        several = (size[:, occupied] > 0).sum(0) > 1
        hits, sizes = weights @ hit[:, occupied], weights @ size[:, occupied]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = hits / sizes
    undefined = float("nan"), float("nan")
    rows = [
        (
            scores[bin_index == number].mean(),
            truth[bin_index == number].mean(),
            *(interval(column) if varies else undefined),
        )
        for number, column, varies in zip(occupied, shares.T, several, strict=True)
    ]
    return np.array(rows).reshape(-1, 4)
