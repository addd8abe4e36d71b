"""Augmentation: pure functions (key, images in [0, 1]) -> images in [0, 1], a draw for every image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cellscan.errors import check_choice

Augment: TypeAlias = Callable[[PRNGKeyArray, Float[Array, "n h w 3"]], Float[Array, "n h w 3"]]
AUGMENTS = ("none", "small", "strong")


def make_augment(name: str) -> Augment | None:
    """Return the augmentation of a name.

    Parameters
    ----------
    name : {"none", "small", "strong"}
        ``"small"``: the square's eight symmetries, brightness and colour by up to 10 %. ``"strong"``:
        the same symmetries, brightness and colour by up to 25 %, contrast, saturation and gamma.

    Returns
    -------
    callable or None
        ``augment(key, images)`` over (N, S, S, 3) floats in [0, 1].

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from cellscan.training import make_augment
    >>> make_augment("small")(jax.random.key(0), jnp.full((2, 8, 8, 3), 0.5)).shape
    (2, 8, 8, 3)
    """
    check_choice("augment", name, AUGMENTS)
    if name == "none":
        return None
    return _small if name == "small" else _strong


def _small(key: PRNGKeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    turned, painted = jax.random.split(key)
    return jnp.clip(_gain(painted, turn(turned, images), 0.1), 0, 1)


def _strong(key: PRNGKeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    turned, painted, contrast, saturation, gamma = jax.random.split(key, 5)
    images = turn(turned, images)
    grey = images.mean(-1, keepdims=True)
    images = grey + (images - grey) * _factor(saturation, images, 0.4)
    middle = images.mean((1, 2, 3), keepdims=True)
    images = middle + (images - middle) * _factor(contrast, images, 0.3)
    images = jnp.clip(_gain(painted, images, 0.25), 1e-4, 1)
    return images ** _factor(gamma, images, 0.3)


def turn(key: PRNGKeyArray, images: Float[Array, "n s s 3"]) -> Float[Array, "n s s 3"]:
    """Apply one of the square's eight symmetries to each image, drawn evenly.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from cellscan.training.augment import turn
    >>> images = jnp.arange(12.0).reshape(1, 2, 2, 3)
    >>> sorted(turn(jax.random.key(1), images).ravel().tolist()) == images.ravel().tolist()
    True
    """
    across, down, swap = jax.random.bernoulli(key, 0.5, (3, len(images), 1, 1, 1))
    images = jnp.where(across, images[:, :, ::-1], images)
    images = jnp.where(down, images[:, ::-1], images)
    return jnp.where(swap, images.swapaxes(1, 2), images)


def _factor(key: PRNGKeyArray, images: Float[Array, "n h w 3"], by: float) -> Float[Array, "n 1 1 1"]:
    return jax.random.uniform(key, (len(images), 1, 1, 1), minval=1 - by, maxval=1 + by)


def _gain(key: PRNGKeyArray, images: Float[Array, "n h w 3"], by: float) -> Float[Array, "n h w 3"]:
    light, colour = jax.random.split(key)
    tint = jax.random.uniform(colour, (len(images), 1, 1, 3), minval=1 - by, maxval=1 + by)
    return images * tint * _factor(light, images, by)
