"""Augmentation: pure functions (key, images in [0, 1]) -> images in [0, 1], with a random draw for each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cellscan.data.shapes import IGNORED
from cellscan.errors import check_choice
from cellscan.preprocessing import find_background

Augment: TypeAlias = Callable[[PRNGKeyArray, Float[Array, "n h w 3"]], Float[Array, "n h w 3"]]
AUGMENTS = ("none", "small", "strong")


def make_augment(name: str) -> Augment | None:
    """Return an augmentation by its name.

    Parameters
    ----------
    name : {"none", "small", "strong"}
        ``"none"``: no augmentation. ``"small"``: one of the eight symmetries of the square, and changes of brightness
        and colour by up to 10 %. ``"strong"``: the same symmetries, changes of brightness and colour by up to 25 %,
        and changes of contrast, saturation and gamma.

    Returns
    -------
    callable or None
        ``augment(key, images)`` for images (N, S, S, 3), floats in [0, 1]; None for ``"none"``.

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


def augment_fields(
    name: str, key: PRNGKeyArray, images: Float[Array, "n h w 3"], targets: Float[Array, "n m 5"]
) -> tuple[Float[Array, "n h w 3"], Float[Array, "n m 5"]]:
    """Flip fields and their boxes at random in both directions, and change colours as in `make_augment`.

    ``"strong"`` also enlarges or shrinks each field by up to a third, at a random position. Parts outside the image
    are cut off, and boxes with less than half of their area inside are ignored.

    Parameters
    ----------
    name : {"none", "small", "strong"}
    key : PRNG key
    images : (N, H, W, 3) float, in [0, 1]
    targets : (N, M, 5) float
        Boxes, xyxy in pixels, and labels.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from cellscan.tasks.augment import augment_fields
    >>> field = jnp.zeros((1, 8, 8, 3)).at[:, 1:3, 1:4].set(1.0)
    >>> image, target = augment_fields("small", jax.random.key(3), field, jnp.array([[[1.0, 1, 4, 3, 0]]]))
    >>> left, top, right, bottom, _ = target[0, 0].astype(int).tolist()
    >>> bool((image[0, top:bottom, left:right] > 0.5).all()), int((image > 0.5).all(-1).sum())
    (True, 6)
    """
    if name == "none":
        return images, targets
    mirrored, coloured = jax.random.split(key)
    height, width = images.shape[1:3]
    across, down = jax.random.bernoulli(mirrored, 0.5, (2, len(images), 1, 1))
    left, top, right, bottom, label = jnp.split(targets, 5, -1)
    left, right = jnp.where(across, width - right, left), jnp.where(across, width - left, right)
    top, bottom = jnp.where(down, height - bottom, top), jnp.where(down, height - top, bottom)
    images = jnp.where(across[..., None], images[:, :, ::-1], images)
    images = jnp.where(down[..., None], images[:, ::-1], images)
    targets = jnp.concatenate([left, top, right, bottom, label], -1)
    if name == "small":
        return jnp.clip(_gain(coloured, images, 0.1), 0, 1), targets
    zoomed, *coloured = jax.random.split(coloured, 5)
    images, targets = zoom(zoomed, images, targets)
    return _recolour(coloured, images), targets


def zoom(
    key: PRNGKeyArray, images: Float[Array, "n h w 3"], targets: Float[Array, "n m 5"]
) -> tuple[Float[Array, "n h w 3"], Float[Array, "n m 5"]]:
    """Enlarge or shrink each field and its boxes by a factor from 3/4 to 4/3; the area around it is black.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from cellscan.tasks.augment import zoom
    >>> field, box = jnp.ones((1, 16, 16, 3)), jnp.array([[[4.0, 4, 8, 8, 0]]])
    >>> image, target = zoom(jax.random.key(0), field, box)
    >>> image.shape, bool((target[0, 0, 2] - target[0, 0, 0]) > 0)
    ((1, 16, 16, 3), True)
    """
    sized, placed = jax.random.split(key)
    count, height, width, _ = images.shape
    factor = jnp.exp(jax.random.uniform(sized, (count, 1), minval=-jnp.log(4 / 3), maxval=jnp.log(4 / 3)))
    frame = jnp.array([height, width], jnp.float32)
    shift = jax.random.uniform(placed, (count, 2)) * frame * (1 - factor)

    def rescale(image: Array, factor: Array, shift: Array) -> Array:
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), jnp.repeat(factor, 2), shift, "linear", antialias=False
        )

    move = jnp.tile(shift[:, ::-1], 2)[:, None]
    whole = targets[..., :4] * factor[:, None] + move
    inside = jnp.clip(whole, 0, jnp.tile(frame[::-1], 2))
    share = (inside[..., 2:] - inside[..., :2]).prod(-1) / jnp.maximum((whole[..., 2:] - whole[..., :2]).prod(-1), 1e-6)
    label = jnp.where((targets[..., 4] >= 0) & (share < 0.5), IGNORED, targets[..., 4])
    return jax.vmap(rescale)(images, factor, shift), jnp.concatenate([inside, label[..., None]], -1)


def _small(key: PRNGKeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    turned, coloured = jax.random.split(key)
    return jnp.clip(_gain(coloured, turn(turned, images), 0.1), 0, 1)


def _strong(key: PRNGKeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    turned, *others = jax.random.split(key, 5)
    return _recolour(others, turn(turned, images))


def _recolour(keys: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Change saturation, contrast, brightness, colour and gamma."""
    coloured, contrast, saturation, gamma = keys
    grey = images.mean(-1, keepdims=True)
    images = grey + (images - grey) * _factor(saturation, images, 0.4)
    middle = images.mean((1, 2, 3), keepdims=True)
    images = middle + (images - middle) * _factor(contrast, images, 0.3)
    images = jnp.clip(_gain(coloured, images, 0.25), 1e-4, 1)
    return images ** _factor(gamma, images, 0.3)


def turn(key: PRNGKeyArray, images: Float[Array, "n s s 3"]) -> Float[Array, "n s s 3"]:
    """Apply one of the eight symmetries of the square to each image, drawn uniformly.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from cellscan.tasks.augment import turn
    >>> images = jnp.arange(12.0).reshape(1, 2, 2, 3)
    >>> sorted(turn(jax.random.key(1), images).ravel().tolist()) == images.ravel().tolist()
    True
    """
    across, down, swap = jax.random.bernoulli(key, 0.5, (3, len(images), 1, 1, 1))
    images = jnp.where(across, images[:, :, ::-1], images)
    images = jnp.where(down, images[:, ::-1], images)
    return jnp.where(swap, images.swapaxes(1, 2), images)


def random_background(key: PRNGKeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Replace the black background of each image by a random background, such as a field of view has.

    In half of the images the background takes the cell's mean colour, as with ``background="fill"``. In the other
    half its colour is drawn between that colour and nearly white, and half of these images also contain a piece of
    another cell of the batch, in the same stain. Images without a black background are unchanged.

    The network then cannot learn from the background, and it trains on bright backgrounds and neighbouring cells,
    which cells cut out of whole fields have.

    Parameters
    ----------
    key : PRNG key
    images : (N, H, W, 3) float, in [0, 1], as stored

    Returns
    -------
    (N, H, W, 3) float

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from cellscan.tasks.augment import random_background
    >>> images = jnp.zeros((2, 16, 16, 3)).at[:, 4:12, 4:12].set(0.6)
    >>> varied = random_background(jax.random.key(0), images)
    >>> bool((varied[:, 5:11, 5:11] == images[:, 5:11, 5:11]).all()), bool(varied.min() > 0.5)
    (True, True)
    """
    keys = jax.random.split(key, 6)
    count, height, width, _ = images.shape
    outside = find_background(images)[..., None]
    inside = jnp.logical_not(outside)
    area = jnp.maximum(inside.sum((1, 2), keepdims=True), 1)
    mean = jnp.where(inside, images, 0).sum((1, 2), keepdims=True) / area
    bright = jax.random.uniform(keys[0], (count, 1, 1, 3), minval=0.75, maxval=1.0)
    share = jnp.maximum(jax.random.uniform(keys[1], (count, 1, 1, 1), minval=-1.0, maxval=1.0), 0)
    colour = mean + share * (bright - mean)
    # The batch is shuffled, so the next image is a random neighbour and one random shift serves the whole batch.
    down = jax.random.randint(keys[2], (), height // 3, height - height // 3)
    across = jax.random.randint(keys[3], (), width // 3, width - width // 3)
    side = jax.random.randint(keys[4], (), 0, 3)  # 0: at the corner, 1: beside the cell, 2: below it.
    shift: Any = (1, jnp.where(side == 1, 0, down), jnp.where(side == 2, 0, across))
    stained = jnp.clip(images * jnp.roll(mean, -1, 0) / jnp.maximum(mean, 0.05), 0, 1)
    near = jax.random.bernoulli(keys[5], 0.5, (count, 1, 1, 1)) & (share > 0) & jnp.roll(inside, shift, (0, 1, 2))
    around = jnp.where(near, jnp.roll(stained, shift, (0, 1, 2)), colour)
    return jnp.where(outside & inside.any((1, 2, 3), keepdims=True), around, images)


def _factor(key: PRNGKeyArray, images: Float[Array, "n h w 3"], by: float) -> Float[Array, "n 1 1 1"]:
    return jax.random.uniform(key, (len(images), 1, 1, 1), minval=1 - by, maxval=1 + by)


def _gain(key: PRNGKeyArray, images: Float[Array, "n h w 3"], by: float) -> Float[Array, "n h w 3"]:
    light, colour = jax.random.split(key)
    tint = jax.random.uniform(colour, (len(images), 1, 1, 3), minval=1 - by, maxval=1 + by)
    return images * tint * _factor(light, images, by)
