"""Targets of the anchors and the detection loss. Lin et al., Focal Loss for Dense Object Detection (2017)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cellscan.data.shapes import IGNORED, NONE, NOT_ANNOTATED
from cellscan.detection.anchors import encode, intersections, overlaps

FOREGROUND, BACKGROUND = 0.5, 0.4
"""IoU thresholds: anchors at or above the first are positive, below the second negative; those in between are
ignored."""

ALPHA, GAMMA, BETA = 0.25, 2.0, 1 / 9
"""Parameters of the focal loss (alpha, gamma), and the difference at which smooth L1 becomes linear (beta)."""


def match(
    anchors: Float[Array, "a 4"], boxes: Float[Array, "m 4"], labels: Int[Array, " m"]
) -> tuple[Int[Array, " a"], Int[Array, " a"]]:
    """Assign a box, or the background, to each anchor.

    A positive anchor, with an IoU of at least `FOREGROUND`, is assigned to the box with the highest IoU. Each box is
    also assigned to its best anchor, whatever their IoU. Anchors are ignored if more than half of their area lies in an
    ignored box.

    Parameters
    ----------
    anchors : (A, 4)
        Anchors as xyxy.
    boxes : (M, 4)
        Boxes as xyxy, padded.
    labels : (M,) int
        Classes, `NONE` for padding, or `IGNORED`.

    Returns
    -------
    labels, rows : (A,) int, (A,) int
        Class of each anchor, `NONE` for background or `IGNORED`; and the row of its box.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.targets import match
    >>> anchors = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 22], [50, 50, 60, 60]])
    >>> match(anchors, jnp.array([[0.0, 0, 10, 10], [0, 0, 0, 0]]), jnp.array([1, -1]))[0].tolist()
    [1, -2, -1]
    """
    real = labels >= 0
    iou = jnp.where(real, overlaps(anchors, boxes), 0.0)
    rows, best = iou.argmax(1), iou.max(1)
    # Every box gets its best anchor. An anchor below `FOREGROUND` that is best for several boxes gets the last of them.
    best_anchor = jnp.where(real & (iou.max(0) > 0), iou.argmax(0), len(anchors))
    forced = jnp.zeros(len(anchors), bool).at[best_anchor].set(True, mode="drop")
    forced_rows = jnp.full(len(anchors), -1).at[best_anchor].max(jnp.arange(len(boxes)), mode="drop")
    rows = jnp.where(forced & (best < FOREGROUND), forced_rows, rows)
    area = jnp.maximum((anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1]), 1e-9)
    ignored = (jnp.where(labels == IGNORED, intersections(anchors, boxes), 0).max(1) / area) > 0.5
    positive = forced | (best >= FOREGROUND)
    targets = jnp.where(positive, labels[rows], jnp.where((best >= BACKGROUND) | ignored, IGNORED, NONE))
    return targets, rows


def focal_loss(logits: Float[Array, "... k"], targets: Float[Array, "... k"]) -> Float[Array, "... k"]:
    """Return the sigmoid focal loss, with alpha 0.25 and gamma 2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.targets import focal_loss
    >>> focal_loss(jnp.zeros((1, 1)), jnp.ones((1, 1))).round(4).tolist()
    [[0.043299999088048935]]
    """
    p = jax.nn.sigmoid(logits)
    entropy = jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    right = p * targets + (1 - p) * (1 - targets)
    return (ALPHA * targets + (1 - ALPHA) * (1 - targets)) * (1 - right) ** GAMMA * entropy


def smooth_l1(difference: Float[Array, ...]) -> Float[Array, ...]:
    """Return the smooth L1 loss: quadratic below a difference of 1/9, linear above. Girshick (2015).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.targets import smooth_l1
    >>> (18 * smooth_l1(jnp.array([0.0, 1.0]))).round(2).tolist()
    [0.0, 17.0]
    """
    distance = jnp.abs(difference)
    return jnp.where(distance < BETA, 0.5 * distance * distance / BETA, distance - 0.5 * BETA)


def detection_loss(
    outputs: dict[str, Float[Array, "n a _"]], anchors: Float[Array, "a 4"], targets: Float[Array, "n m 5"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the loss of a batch and its two parts, each divided by the number of positive anchors.

    Parameters
    ----------
    outputs : dict
        ``"classes"`` (N, A, K) logits and ``"boxes"`` (N, A, 4) codes.
    anchors : (A, 4)
        Anchors as xyxy.
    targets : (N, M, 5)
        Boxes as xyxy and their labels, padded. A label ``NOT_ANNOTATED - k`` means that the background of this field
        may contain cells of class k; the loss of this class is then not computed for background anchors.
    """

    def field_loss(
        classes: Float[Array, "a k"], codes: Float[Array, "a 4"], field: Float[Array, "m 5"]
    ) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
        labels, rows = match(anchors, field[:, :4], field[:, 4].astype(jnp.int32))
        positive = labels >= 0
        not_annotated = NOT_ANNOTATED - jnp.arange(classes.shape[-1])
        incomplete = (field[:, 4].astype(jnp.int32)[:, None] == not_annotated).any(0)
        used = positive[:, None] | ((labels == NONE)[:, None] & ~incomplete)
        truth = jax.nn.one_hot(labels, classes.shape[-1])
        class_losses = jnp.where(used, focal_loss(classes.astype(jnp.float32), truth), 0)
        box_losses = smooth_l1(codes.astype(jnp.float32) - encode(field[rows, :4], anchors)).sum(-1)
        return class_losses.sum(), jnp.where(positive, box_losses, 0).sum(), positive.sum()

    class_loss, box_loss, n_positive = jax.vmap(field_loss)(outputs["classes"], outputs["boxes"], targets)
    count = jnp.maximum(n_positive.sum(), 1)
    parts = {"class_loss": class_loss.sum() / count, "box_loss": box_loss.sum() / count}
    return parts["class_loss"] + parts["box_loss"], parts
