"""Anchors, the reference boxes of a detector, and the encoding of boxes relative to them. Lin et al. (2017)."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cellscan.errors import ArgumentError

SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Factors of the anchor size of a level, within an octave."""

LIMIT = float(np.log(1000 / 16))
"""Largest logarithm of a side relative to the anchor. The limit prevents an overflow in untrained networks."""


@dataclass(frozen=True)
class Anchors:
    """Anchors of three scales and some aspect ratios at every position of every level of a feature pyramid.

    Attributes
    ----------
    strides : tuple[int, ...]
        Distance between neighbouring positions of each level, in pixels.
    size : float
        Square root of the area of the smallest anchor of the first level, in pixels. It doubles from level to level.
    ratios : tuple[float, ...]
        Aspect ratios, height over width.

    Examples
    --------
    >>> from cellscan.detection.anchors import Anchors
    >>> boxes = Anchors(strides=(8,), size=32.0, ratios=(1.0,)).boxes(16, 16)
    >>> boxes.shape, boxes[0].tolist()
    ((12, 4), [-12.0, -12.0, 20.0, 20.0])
    """

    strides: tuple[int, ...]
    size: float = 32.0
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_place(self) -> int:
        """Number of anchors at one position.

        Examples
        --------
        >>> from cellscan.detection.anchors import Anchors
        >>> Anchors(strides=(8, 16)).per_place
        9
        """
        return len(SCALES) * len(self.ratios)

    def boxes(self, height: int, width: int) -> np.ndarray:
        """Return all anchors of an image, (A, 4) float32 xyxy, ordered by level, row and column.

        A position lies in the middle of its stride x stride pixels. A level has ceil(side / stride) positions along a
        side.

        Examples
        --------
        >>> from cellscan.detection.anchors import Anchors
        >>> Anchors(strides=(8, 16, 32)).boxes(360, 480).shape
        (32130, 4)
        """
        levels = []
        for level, stride in enumerate(self.strides):
            sizes = [self.size * 2**level * scale for scale in SCALES]
            sides = np.array([(s / r**0.5, s * r**0.5) for s in sizes for r in self.ratios])  # width, height
            y, x = np.meshgrid(
                (np.arange(-(-height // stride)) + 0.5) * stride,
                (np.arange(-(-width // stride)) + 0.5) * stride,
                indexing="ij",
            )
            middle = np.stack([x, y], -1)[:, :, None]
            levels.append(np.concatenate([middle - sides / 2, middle + sides / 2], -1).reshape(-1, 4))
        return np.concatenate(levels).astype(np.float32)


def fit_anchors(boxes: np.ndarray, strides: tuple[int, ...]) -> Anchors:
    """Choose the size and the aspect ratios of anchors for boxes.

    The ratios are the 10th, 50th and 90th percentile of those of the boxes. The size maximises the mean over boxes of
    the IoU with the best anchor, if both have the same middle. The search covers an octave around four strides, the
    published size.

    Parameters
    ----------
    boxes : (n, 4) float
        Boxes as xyxy, in pixels of the network's input.
    strides : tuple of int
        Strides of the levels, in pixels.

    Returns
    -------
    Anchors

    Raises
    ------
    ArgumentError
        If there are no boxes.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.detection.anchors import fit_anchors
    >>> anchors = fit_anchors(np.array([[0, 0, 30, 30], [5, 5, 35, 36]]), (8, 16))
    >>> 20 <= anchors.size <= 40, len(anchors.ratios)
    (True, 3)
    """
    if not len(boxes):
        raise ArgumentError("there are no boxes to fit the anchors to; expected fields with at least one box")
    width, height = (np.asarray(boxes, np.float64)[:, 2:] - boxes[:, :2]).T
    ratios = np.exp(np.quantile(np.log(height / width), (0.1, 0.5, 0.9)))
    best, chosen = -1.0, 0.0
    for size in np.geomspace(strides[0] * 2.5, strides[0] * 5, 40):  # an octave: other sizes repeat levels
        sizes = np.array([size * 2**level * scale for level in range(len(strides)) for scale in SCALES])
        widths = (sizes[:, None] / ratios**0.5).ravel()
        heights = (sizes[:, None] * ratios**0.5).ravel()
        shared = np.minimum(width[:, None], widths) * np.minimum(height[:, None], heights)
        overlap = (shared / ((width * height)[:, None] + widths * heights - shared)).max(1).mean()
        if overlap > best:
            best, chosen = float(overlap), float(size)
    return Anchors(strides, round(chosen, 2), tuple(round(float(ratio), 3) for ratio in ratios))


def encode(boxes: Float[Array, "... 4"], anchors: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Encode boxes relative to anchors: shift of the middle in anchor sides, and logarithm of the relative sides.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.anchors import decode, encode
    >>> anchor, box = jnp.array([[0.0, 0.0, 10.0, 20.0]]), jnp.array([[1.0, 2.0, 11.0, 22.0]])
    >>> (10 * encode(box, anchor)).round(2).tolist(), decode(encode(box, anchor), anchor).round(2).tolist()
    ([[1.0, 1.0, 0.0, 0.0]], [[1.0, 2.0, 11.0, 22.0]])
    """
    side = anchors[..., 2:] - anchors[..., :2]
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
    shift = (boxes[..., 2:] + boxes[..., :2] - anchors[..., 2:] - anchors[..., :2]) / 2 / side
    return jnp.concatenate([shift, jnp.log(sides / side)], -1)


def decode(codes: Float[Array, "... 4"], anchors: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Return the boxes that `encode` encoded."""
    side = anchors[..., 2:] - anchors[..., :2]
    middle = (anchors[..., 2:] + anchors[..., :2]) / 2 + codes[..., :2] * side
    half = side * jnp.exp(jnp.minimum(codes[..., 2:], LIMIT)) / 2
    return jnp.concatenate([middle - half, middle + half], -1)


def overlaps(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Return the intersection over union of every pair of boxes; 0 if one of them has no area.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.anchors import overlaps
    >>> overlaps(jnp.array([[0.0, 0, 2, 2]]), jnp.array([[1.0, 0, 3, 2], [5.0, 5, 6, 6]])).round(3).tolist()
    [[0.3330000042915344, 0.0]]
    """
    shared = intersections(a, b)
    whole = _area(a)[:, None] + _area(b) - shared
    return jnp.where(whole > 0, shared / jnp.maximum(whole, 1e-9), 0)


def intersections(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Return the area of the intersection of every pair of boxes."""
    width = jnp.minimum(a[:, None, 2], b[:, 2]) - jnp.maximum(a[:, None, 0], b[:, 0])
    height = jnp.minimum(a[:, None, 3], b[:, 3]) - jnp.maximum(a[:, None, 1], b[:, 1])
    return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def _area(boxes: Float[Array, "n 4"]) -> Float[Array, " n"]:
    return jnp.maximum(boxes[:, 2] - boxes[:, 0], 0) * jnp.maximum(boxes[:, 3] - boxes[:, 1], 0)
