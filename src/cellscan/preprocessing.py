"""What a network is shown of a cell: its background, and the normalisation. Pure, jitted with whatever calls it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

BACKGROUNDS = ("keep", "fill", "silhouette")

_DARK = 32 / 255
"""A background is black; in the NIH cells no pixel has its largest channel between 24 and 100."""


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation, a channel each, of images in [0, 1].

    Attributes
    ----------
    mean, std : tuple[float, float, float]
        A network is given ``(image - mean) / std``.

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
    """Find the black background: dark pixels that are connected to the dark at the frame.

    The mask is grown by one pixel, since resizing mixes the rim of a cell with the black beside it.
    Dark pixels inside a cell are not part of it.

    Parameters
    ----------
    images : (N, H, W, 3) float, in [0, 1]

    Returns
    -------
    (N, H, W) bool
        All False for an image without background.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.preprocessing import find_background
    >>> image = jnp.zeros((1, 8, 8, 3)).at[:, 2:6, 2:6].set(0.7)
    >>> int(find_background(image).sum()), int(find_background(jnp.full((1, 8, 8, 3), 0.7)).sum())
    (60, 0)
    """
    light = images.max(-1) > _DARK
    seen = jnp.zeros_like(light)
    for axis in (1, 2):  # what is seen from the frame along a row or a column: nearly all of it, at once
        length = light.shape[axis]
        place = jnp.arange(length).reshape((1, length, 1) if axis == 1 else (1, 1, length))
        first = jnp.where(light, place, length).min(axis, keepdims=True)
        last = jnp.where(light, place, -1).max(axis, keepdims=True)
        seen = seen | (place < first) | (place > last)
    # The rest lies round a corner, in a bite of the outline; it is followed for a quarter of the side.
    # The dark goes round with it, since exporters know no loop that looks at what stands outside.
    both = jnp.logical_not(light), seen
    _, seen = jax.lax.fori_loop(0, light.shape[1] // 4, lambda _, at: (at[0], at[0] & _grow(at[1])), both)
    return _grow(seen)


def _grow(mask: Bool[Array, "n h w"]) -> Bool[Array, "n h w"]:
    """Add the eight neighbours of every pixel of a mask."""
    for axis in (1, 2):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        wide = jnp.pad(mask, pad)
        length = mask.shape[axis]
        mask = mask | jax.lax.slice_in_dim(wide, 0, length, axis=axis)
        mask = mask | jax.lax.slice_in_dim(wide, 2, length + 2, axis=axis)
    return mask


def apply_background(images: Float[Array, "n h w 3"], background: str) -> Float[Array, "n h w 3"]:
    """Show images in [0, 1] on a background.

    Parameters
    ----------
    images : (N, H, W, 3) float, in [0, 1]
    background : {"keep", "fill", "silhouette"}
        ``"keep"``: as stored. ``"fill"``: the black background takes the cell's mean colour; an
        image without background stays as it is. ``"silhouette"``: the cell white, the rest black, a
        baseline that knows nothing but the silhouette.

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
    """uint8 images -> floats in [0, 1] on their background; the first step of every jitted program.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.preprocessing import prepare
    >>> float(prepare(jnp.full((1, 8, 8, 3), 255, jnp.uint8), "keep").max())
    1.0
    """
    return apply_background(images.astype(jnp.float32) / 255.0, background)
