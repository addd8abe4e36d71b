"""Non-maximum suppression with fixed array shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def suppress(
    boxes: Float[Array, "n 4"], scores: Float[Array, " n"], *, iou_threshold: float, max_detections: int
) -> Int[Array, " m"]:
    """Repeatedly keep the box with the highest score and drop all boxes whose IoU with it exceeds `iou_threshold`.

    The function searches for the highest score once per kept box. It sorts nothing and needs no matrix of pairs.

    Parameters
    ----------
    boxes : (N, 4)
        Boxes as xyxy.
    scores : (N,)
        Scores of the boxes. Boxes with a score of 0 or less are ignored.
    iou_threshold : float
        Intersection over union above which a box is dropped.
    max_detections : int
        Largest number of kept boxes.

    Returns
    -------
    (max_detections,) int
        Rows of the kept boxes in descending order of score, padded with -1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.suppression import suppress
    >>> boxes = jnp.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    >>> suppress(boxes, jnp.array([0.8, 0.9, 0.1]), iou_threshold=0.5, max_detections=3).tolist()
    [1, 2, -1]
    """
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)

    def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        number, scores, _ = carry
        return (number < max_detections) & (scores.max() > 0)

    def keep(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        number, scores, kept = carry
        best = scores.argmax()
        width = jnp.minimum(right, right[best]) - jnp.maximum(left, left[best])
        height = jnp.minimum(bottom, bottom[best]) - jnp.maximum(top, top[best])
        shared = jnp.maximum(width, 0) * jnp.maximum(height, 0)
        dropped = shared > iou_threshold * (area + area[best] - shared)
        return number + 1, jnp.where(dropped, 0.0, scores).at[best].set(0.0), kept.at[number].set(best)

    start = (jnp.zeros((), jnp.int32), scores, jnp.full(max_detections, -1, jnp.int32))
    return jax.lax.while_loop(unfinished, keep, start)[2]


def select(
    classes: Float[Array, "a k"],
    boxes: Float[Array, "a 4"],
    *,
    score_threshold: float,
    iou_threshold: float,
    candidates: int,
    max_detections: int,
) -> Float[Array, "m 6"]:
    """Turn the outputs of a network for one image into detections, with non-maximum suppression for each class.

    Parameters
    ----------
    classes : (A, K)
        Scores in [0, 1].
    boxes : (A, 4)
        Boxes as xyxy.
    score_threshold : float
        Scores below it are ignored.
    iou_threshold : float
        Intersection over union above which a box is dropped, see `suppress`.
    candidates, max_detections : int
        Number of pairs of box and class with the highest scores that are considered; and largest number of detections.

    Returns
    -------
    (max_detections, 6) float
        Box, score and class, in descending order of score. Rows with a score of 0 are padding.
    """
    count = min(candidates, classes.size)
    scores, pairs = jax.lax.top_k(classes.ravel(), count)
    rows, kinds = pairs // classes.shape[1], pairs % classes.shape[1]
    chosen = boxes[rows]
    # The boxes of each class are shifted by a different offset, so that boxes of different classes do not overlap.
    offsets = kinds[:, None] * (chosen.max() - jnp.minimum(chosen.min(), 0) + 1)
    kept = suppress(
        chosen + offsets,
        jnp.where(scores >= score_threshold, scores, 0.0),
        iou_threshold=iou_threshold,
        max_detections=max_detections,
    )
    detections = jnp.concatenate([chosen[kept], scores[kept, None], kinds[kept, None].astype(boxes.dtype)], 1)
    return jnp.where((kept >= 0)[:, None], detections, 0.0)
