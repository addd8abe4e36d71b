"""The novelty model: a Gaussian in feature space, and the distance within which 99 % of its cells lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import DataError

VALUES = 180_000
"""Maximum size of the basis, about half a megabyte in a file: all axes of a small network, 97 axes of ResNet-50."""

PASS = 0.99
"""Share of the cells whose distance is at most the threshold."""

_PARTS = 5
"""Number of parts, of which each is left out of the fit in turn."""

_LEAST_SPREAD = 0.3
"""Spread of a feature within a batch, in standard deviations of training, below which it is taken to be this."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """The novelty model of a classifier: a Gaussian of image features, and a threshold on the distance to it.

    The features are the signed square roots of the image's colours and of the channel means of every stage of the
    network except the last. The covariance has `basis` as its principal axes and one variance for all other
    directions (Tipping and Bishop, 1999). The novelty of an image is its Mahalanobis distance (Lee et al., 2018).

    Attributes
    ----------
    threshold : float
        Distance above which an image is novel. It is chosen on patients left out of the fit; 99 % of their cells are
        below it.
    cells, patients : int
        Number of cells and patients in the fit; 0 patients if they were unknown.
    mean, scale : numpy.ndarray
        (D,) float32, mean and standard deviation of the features.
    basis : numpy.ndarray
        (D, k) float16, the principal axes: columns of length 1.
    variances : numpy.ndarray
        (k,) float32, variance along each principal axis.
    rest : float
        Variance along every other direction.

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
    """Fit the Gaussian to features (N, D), and choose its threshold by five-fold cross-validation over patients.

    `patients` is (N,) of str. If a patient is unknown (""), or there are fewer than five patients, the folds are
    made of cells. With fewer than 2 D cells, `DataError` is raised.

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
            f"{count:,} cells are too few to learn novelty: the network has {width:,} features per image; "
            f"expected at least {2 * width:,} cells"
        )
    names, owner = np.unique(patients, return_inverse=True)
    known = "" not in names and len(names) >= _PARTS
    rng = np.random.default_rng(0)
    part = rng.permutation(np.arange(len(names)) % _PARTS)[owner] if known else rng.permutation(count) % _PARTS
    distances = np.empty(count)
    for number in range(_PARTS):
        distances[part == number] = distance(_fit(features[part != number]), features[part == number])
    axes = _fit(features)
    return Novelty(
        float(np.quantile(distances, PASS)),
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
    standardized = (features - mean) / scale
    covariance = standardized.T @ standardized / len(standardized)
    width = len(covariance)
    n_axes = min(VALUES // width, width - 1)
    values, vectors = eigh(covariance, subset_by_index=(width - n_axes, width - 1))
    return Axes(
        mean.astype(np.float32),
        scale.astype(np.float32),
        vectors[:, ::-1].astype(np.float16),
        np.maximum(values[::-1], 1e-4).astype(np.float32),
        np.float32(max((np.trace(covariance) - values.sum()) / (width - n_axes), 1e-4)),
    )


class Axes(NamedTuple):
    """A Gaussian of D features: k principal axes with their variances, and one variance for all other directions."""

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
    standardized = (features - axes.mean) / axes.scale
    along = standardized @ axes.basis.astype(jnp.float32)
    across = jnp.maximum((standardized**2).sum(-1) - (along**2).sum(-1), 0)
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
