"""Non-maximum suppression with fixed shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def suppress(
    boxes: Float[Array, "n 4"], scores: Float[Array, " n"], *, iou_threshold: float, max_detections: int
) -> Int[Array, " m"]:
    """Keep the best box, drop what overlaps it by more than `iou_threshold`, and so on.

    The best that is left is looked for once a kept box, so nothing is sorted and no matrix of pairs is made.

    Parameters
    ----------
    boxes : (N, 4)
    scores : (N,)
        Boxes with a score of 0 or less are not there.
    iou_threshold : float
        Intersection over union.
    max_detections : int
        How many are kept at most.

    Returns
    -------
    (max_detections,) int
        Rows of the kept boxes, the best first; -1 where there are no more.

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
        gone = shared > iou_threshold * (area + area[best] - shared)
        return number + 1, jnp.where(gone, 0.0, scores).at[best].set(0.0), kept.at[number].set(best)

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
    """Turn what a network says of one image into its detections, suppressed class by class.

    Parameters
    ----------
    classes : (A, K)
        Scores in [0, 1].
    boxes : (A, 4)
        xyxy.
    score_threshold : float
        Scores below are passed over.
    iou_threshold : float
        Of `suppress`.
    candidates, max_detections : int
        How many pairs of box and class are looked at, and how many are kept.

    Returns
    -------
    (max_detections, 6) float
        Box, score, class; the best first. Rows with a score of 0 are not there.
    """
    count = min(candidates, classes.size)
    scores, pairs = jax.lax.top_k(classes.ravel(), count)
    rows, kinds = pairs // classes.shape[1], pairs % classes.shape[1]
    chosen = boxes[rows]
    # Boxes of another class stand elsewhere, where they overlap none of this one.
    far = kinds[:, None] * (chosen.max() - jnp.minimum(chosen.min(), 0) + 1)
    kept = suppress(
        chosen + far,
        jnp.where(scores >= score_threshold, scores, 0.0),
        iou_threshold=iou_threshold,
        max_detections=max_detections,
    )
    found = jnp.concatenate([chosen[kept], scores[kept, None], kinds[kept, None].astype(boxes.dtype)], 1)
    return jnp.where((kept >= 0)[:, None], found, 0.0)
