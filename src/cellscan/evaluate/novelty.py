"""What familiar images look like in feature space: a Gaussian, and the distance that 99 of 100 of them pass."""

from __future__ import annotations

import numpy as np

from cellscan.card import Novelty
from cellscan.errors import DataError
from cellscan.inference import Axes, distance

VALUES = 180_000
"""Numbers in the basis, at most: all axes of a small network, the widest 97 of ResNet-50; half a megabyte in a card."""

PASS = 0.99
"""Share of familiar cells that pass."""

_PARTS = 5


def learn(features: np.ndarray, patients: np.ndarray) -> Novelty:
    """Fit the Gaussian to features (N, D), and its threshold to patients left out a fifth at a time.

    Patients are (N,) of str; where one is unknown (""), cells take their place.

    Raises `DataError` for fewer cells than twice D.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.novelty import learn
    >>> learn(np.random.default_rng(0).standard_normal((5000, 3)), np.repeat(["a", "b", "c", "d", "e"], 1000))
    Novelty(threshold=3.3, cells=5000, patients=5, features=3)
    """
    count, width = features.shape
    if count < 2 * width:
        raise DataError(
            f"{count:,} cells are too few to learn what is novel: the network has {width:,} features of an image; "
            f"expected at least {2 * width:,} cells"
        )
    names, owner = np.unique(patients, return_inverse=True)
    known = "" not in names and len(names) >= _PARTS
    rng = np.random.default_rng(0)
    part = rng.permutation(np.arange(len(names)) % _PARTS)[owner] if known else rng.permutation(count) % _PARTS
    apart = np.empty(count)
    for number in range(_PARTS):
        apart[part == number] = distance(_fit(features[part != number]), features[part == number])
    axes = _fit(features)
    return Novelty(
        float(np.quantile(apart, PASS)),
        count,
        len(names) if "" not in names else 0,
        axes.mean,
        axes.scale,
        axes.basis,
        axes.variances,
        float(axes.rest),
    )


def _fit(features: np.ndarray) -> Axes:
    from scipy.linalg import eigh

    mean, scale = features.mean(0), features.std(0) + 1e-6
    far = (features - mean) / scale
    spread = far.T @ far / len(far)
    width = len(spread)
    kept = min(VALUES // width, width - 1)
    values, vectors = eigh(spread, subset_by_index=(width - kept, width - 1))
    return Axes(
        mean.astype(np.float32),
        scale.astype(np.float32),
        vectors[:, ::-1].astype(np.float16),
        np.maximum(values[::-1], 1e-4).astype(np.float32),
        np.float32(max((np.trace(spread) - values.sum()) / (width - kept), 1e-4)),
    )
