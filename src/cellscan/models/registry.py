"""Names of networks -> networks."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cellscan.errors import ArgumentError
from cellscan.views import Normalization

if TYPE_CHECKING:
    from flax import nnx


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes
    ----------
    make : callable
        (num_classes, seed) -> `flax.nnx.Module`.
    least_size : int
        The smallest image side it takes, in pixels.
    normalization : Normalization
        What it expects of its input.

    Examples
    --------
    >>> from cellscan.models.registry import find
    >>> find("small_cnn").least_size
    16
    """

    make: Callable[[int, int], nnx.Module]
    least_size: int
    normalization: Normalization = field(default_factory=Normalization)


def _small_cnn(num_classes: int, seed: int) -> nnx.Module:
    from flax import nnx

    from cellscan.models.small_cnn import SmallCNN

    return SmallCNN(num_classes, rngs=nnx.Rngs(seed))


_BACKBONES = {"small_cnn": Backbone(_small_cnn, least_size=16)}


def names() -> tuple[str, ...]:
    """Return the names that `create` and `Classifier` know.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.models.names()
    ('small_cnn',)
    """
    return tuple(_BACKBONES)


def find(name: str) -> Backbone:
    """Return the entry of a name, or raise `ArgumentError` with the near ones.

    Examples
    --------
    >>> from cellscan.models.registry import find
    >>> find("smal_cnn")
    Traceback (most recent call last):
    ...
    cellscan.errors.ArgumentError: there is no network 'smal_cnn'; did you mean small_cnn?
    """
    if name not in _BACKBONES:
        near = difflib.get_close_matches(name, _BACKBONES) or list(_BACKBONES)
        raise ArgumentError(f"there is no network {name!r}; did you mean {', '.join(near)}?")
    return _BACKBONES[name]


def create(name: str, num_classes: int, *, seed: int = 0) -> nnx.Module:
    """Make a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `names()`.
    num_classes : int
        Width of the last layer, at least 1.
    seed : int
        Of the first weights.

    Returns
    -------
    flax.nnx.Module
        In evaluation mode; called with (N, H, W, 3) float32, normalised, it gives (N, num_classes)
        logits.

    Raises
    ------
    ArgumentError
        For an unknown name, with the near ones, or a width below 1.

    Examples
    --------
    >>> import cellscan, jax.numpy as jnp
    >>> net = cellscan.models.create("small_cnn", num_classes=2)
    >>> net(jnp.zeros((1, 64, 64, 3))).shape
    (1, 2)
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ArgumentError(f"num_classes is {num_classes!r}; expected a whole number from 1")
    net = find(name).make(num_classes, seed)
    net.eval()
    return net
