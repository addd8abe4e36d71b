"""What familiar images look like in feature space: a Gaussian, and the distance that 99 of 100 of them pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import DataError

VALUES = 180_000
"""Numbers in the basis, at most: all axes of a small network, the widest 97 of ResNet-50; half a megabyte in a card."""

PASS = 0.99
"""Share of familiar cells that pass."""

_PARTS = 5

_LEAST_SPREAD = 0.3
"""Spread of a feature within a batch, in standard deviations of training, below which it is taken to be this."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """What familiar cells look like to a network, and how far from that an image is novel.

    A Gaussian of the roots of colours and of the mean of every stage but the last, with `basis` as its widest axes
    and one variance for all others (Tipping and Bishop, 1999); an image's novelty is its Mahalanobis distance (Lee et
    al., 2018).

    Attributes
    ----------
    threshold : float
        Distance above which an image is novel: 99 of 100 cells pass, of patients on whom the Gaussian was not fitted.
    cells, patients : int
        That it was learned from; 0 patients where they were unknown.
    mean, scale : numpy.ndarray
        (D,) float32, of the features.
    basis : numpy.ndarray
        (D, k) float16, its columns of length 1.
    variances : numpy.ndarray
        (k,) float32, along the columns.
    rest : float
        Variance across them.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(800, seed=0)
    >>> clf = cellscan.Classifier(image_size=16, seed=0)
    >>> threshold = clf.learn_novelty(cells)
    >>> clf.card.novelty  # doctest: +ELLIPSIS
    Novelty(threshold=..., cells=800, patients=20, features=230)
    """

    threshold: float
    cells: int
    patients: int
    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    variances: np.ndarray
    rest: float

    def __repr__(self) -> str:
        known = f"cells={self.cells}, patients={self.patients}, features={len(self.mean)}"
        return f"Novelty(threshold={self.threshold:.4g}, {known})"


def learn(features: np.ndarray, patients: np.ndarray) -> Novelty:
    """Fit the Gaussian to features (N, D), and its threshold to patients left out a fifth at a time.

    Patients are (N,) of str; where one is unknown (""), cells take their place.

    Raises `DataError` for fewer cells than twice D.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.novelty import learn
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


class Axes(NamedTuple):
    """A Gaussian of D features: k axes along which it is widest, and one variance for all others."""

    mean: Any
    scale: Any
    basis: Any
    variances: Any
    rest: Any


def axes_of(novelty: Novelty) -> Axes:
    """Return the arrays of a card's novelty."""
    return Axes(novelty.mean, novelty.scale, novelty.basis, novelty.variances, np.float32(novelty.rest))


def distance(axes: Axes, features: Any) -> jax.Array:
    """Return the Mahalanobis distance (N,) of features (N, D) to a Gaussian."""
    far = (features - axes.mean) / axes.scale
    along = far @ axes.basis.astype(jnp.float32)
    across = jnp.maximum((far**2).sum(-1) - (along**2).sum(-1), 0)
    return jnp.sqrt((along**2 / axes.variances).sum(-1) + across / axes.rest)


def distance_in_batch(axes: Axes, features: np.ndarray) -> np.ndarray:
    """Return the Mahalanobis distance (N,) of features (N, D) to their own median, in units of their own spread.

    Median and median absolute deviation of the batch replace the mean and the scale of training; the correlations stay
    those of training. A shift that all images of a batch share, such as another stain, then has no effect.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.novelty import axes_of, distance_in_batch, learn
    >>> rng = np.random.default_rng(0)
    >>> axes = axes_of(learn(rng.standard_normal((5000, 3)), np.repeat(list("abcde"), 1000)))
    >>> shifted = rng.standard_normal((100, 3)) + 50
    >>> shifted[7] += 9
    >>> int(distance_in_batch(axes, shifted).argmax())
    7
    """
    median = np.median(features, axis=0)
    spread = 1.4826 * np.median(np.abs(features - median), axis=0)  # the standard deviation of a normal distribution
    centred = (features - median) / np.maximum(spread, _LEAST_SPREAD * np.asarray(axes.scale))
    standardized = Axes(np.float32(0), np.float32(1), axes.basis, axes.variances, axes.rest)
    return np.asarray(distance(standardized, centred.astype(np.float32)))
