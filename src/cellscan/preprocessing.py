"""Preprocessing of cell images: background and normalisation, as pure functions that are compiled with their caller."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

BACKGROUNDS = ("keep", "fill", "silhouette")

_DARK = 32 / 255
"""Largest channel of a background pixel, at most. In the NIH cells, no pixel has its largest channel in 24 to 100."""


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, for the normalisation of images in [0, 1].

    Attributes
    ----------
    mean, std : tuple[float, float, float]
        The input of a network is ``(image - mean) / std``.

    Examples
    --------
    >>> from cellscan.preprocessing import Normalization
    >>> Normalization().mean
    (0.5, 0.5, 0.5)
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
        """Normalise images in [0, 1]."""
        return (images - jnp.asarray(self.mean, images.dtype)) / jnp.asarray(self.std, images.dtype)


def find_background(images: Float[Array, "n h w 3"]) -> Bool[Array, "n h w"]:
    """Find the black background: dark pixels connected to the image border.

    The mask is dilated by one pixel, because resizing mixes the edge of a cell with the black next to it. Dark pixels
    inside a cell do not belong to the background.

    Parameters
    ----------
    images : (N, H, W, 3) float, in [0, 1]

    Returns
    -------
    (N, H, W) bool
        True in the background; all False for an image without one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.preprocessing import find_background
    >>> image = jnp.zeros((1, 8, 8, 3)).at[:, 2:6, 2:6].set(0.7)
    >>> int(find_background(image).sum()), int(find_background(jnp.full((1, 8, 8, 3), 0.7)).sum())
    (60, 0)
    """
    light = images.max(-1) > _DARK
    result = jnp.zeros_like(light)
    # Dark pixels connected to the border along a row or a column are nearly all of the background.
    for axis in (1, 2):
        length = light.shape[axis]
        position = jnp.arange(length).reshape((1, length, 1) if axis == 1 else (1, 1, length))
        first = jnp.where(light, position, length).min(axis, keepdims=True)
        last = jnp.where(light, position, -1).max(axis, keepdims=True)
        result = result | (position < first) | (position > last)
    # The rest lies behind concave parts of the outline. The mask grows into it for a quarter of the side. The dark
    # pixels are part of the loop state, because exporters do not support loops that use arrays from outside.
    both = jnp.logical_not(light), result
    _, result = jax.lax.fori_loop(0, light.shape[1] // 4, lambda _, at: (at[0], at[0] & _grow(at[1])), both)
    return _grow(result)


def _grow(mask: Bool[Array, "n h w"]) -> Bool[Array, "n h w"]:
    """Add the eight neighbours of every pixel of a mask."""
    for axis in (1, 2):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(mask, pad)
        length = mask.shape[axis]
        mask = mask | jax.lax.slice_in_dim(padded, 0, length, axis=axis)
        mask = mask | jax.lax.slice_in_dim(padded, 2, length + 2, axis=axis)
    return mask


def apply_background(images: Float[Array, "n h w 3"], background: str) -> Float[Array, "n h w 3"]:
    """Replace the black background of images in [0, 1].

    Parameters
    ----------
    images : (N, H, W, 3) float, in [0, 1]
    background : {"keep", "fill", "silhouette"}
        ``"keep"`` leaves the images unchanged. ``"fill"`` replaces the black background by the mean colour of the cell,
        and leaves an image without background unchanged. ``"silhouette"`` makes the cell white and the rest black, for
        a baseline that uses the outline only.

    Returns
    -------
    (N, H, W, 3) float, in [0, 1]

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.preprocessing import apply_background
    >>> image = jnp.zeros((1, 8, 8, 3)).at[:, 1:7, 1:7].set(0.75)
    >>> float(apply_background(image, "fill").min())
    0.75
    """
    if background == "keep":
        return images
    outside = find_background(images)[..., None]
    if background == "silhouette":
        return jnp.where(outside, jnp.zeros_like(images), jnp.ones_like(images))
    inside = jnp.logical_not(outside)
    count = jnp.maximum(inside.sum((1, 2), keepdims=True), 1)
    mean = jnp.where(inside, images, 0).sum((1, 2), keepdims=True) / count
    return jnp.where(outside & (inside.any((1, 2, 3), keepdims=True)), mean, images)


def prepare(images: UInt8[Array, "n h w 3"], background: str) -> Float[Array, "n h w 3"]:
    """Convert uint8 images to floats in [0, 1] and apply the background; the first step of every compiled program.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.preprocessing import prepare
    >>> float(prepare(jnp.full((1, 8, 8, 3), 255, jnp.uint8), "keep").max())
    1.0
    """
    return apply_background(images.astype(jnp.float32) / 255.0, background)
