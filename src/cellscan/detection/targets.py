"""What every anchor should say, and how far off it is. Lin et al., Focal Loss for Dense Object Detection (2017)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cellscan.data.shapes import IGNORED, NONE, NOT_ANNOTATED
from cellscan.detection.anchors import encode, intersections, overlaps

FOREGROUND, BACKGROUND = 0.5, 0.4
"""Overlap from which an anchor stands for a box, and below which for none; between the two it is not asked."""

ALPHA, GAMMA, BETA = 0.25, 2.0, 1 / 9
"""Of the focal loss, and where smooth L1 turns from square to straight."""


def match(
    anchors: Float[Array, "a 4"], boxes: Float[Array, "m 4"], labels: Int[Array, " m"]
) -> tuple[Int[Array, " a"], Int[Array, " a"]]:
    """Say which box each anchor stands for.

    An anchor stands for the box that it overlaps most, from `FOREGROUND` on; every box has at least the anchor
    that overlaps it most. Anchors that lie in an ignored box by more than a half are not asked.

    Parameters
    ----------
    anchors : (A, 4)
    boxes : (M, 4)
        Padded.
    labels : (M,) int
        Classes, or `NONE`, or `IGNORED`.

    Returns
    -------
    labels, rows : (A,) int, (A,) int
        The class, `NONE` for background, `IGNORED` for an anchor that is not asked; and the row of the box.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.targets import match
    >>> anchors = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 22], [50, 50, 60, 60]])
    >>> match(anchors, jnp.array([[0.0, 0, 10, 10], [0, 0, 0, 0]]), jnp.array([1, -1]))[0].tolist()
    [1, -2, -1]
    """
    real = labels >= 0
    found = jnp.where(real, overlaps(anchors, boxes), 0.0)
    rows, best = found.argmax(1), found.max(1)
    # The best anchor of every box; where two boxes want one, it stands for the one it overlaps more.
    first = found.argmax(0)
    wanted = real & (found.max(0) > 0)
    forced = jnp.zeros(len(anchors), bool).at[jnp.where(wanted, first, len(anchors))].set(True, mode="drop")
    claim = (
        jnp.full(found.shape[0], -1).at[jnp.where(wanted, first, len(anchors))].max(jnp.arange(len(boxes)), mode="drop")
    )
    rows = jnp.where(forced & (best < FOREGROUND), claim, rows)
    area = jnp.maximum((anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1]), 1e-9)
    doubtful = (jnp.where(labels == IGNORED, intersections(anchors, boxes), 0).max(1) / area) > 0.5
    stands = forced | (best >= FOREGROUND)
    said = jnp.where(stands, labels[rows], jnp.where((best >= BACKGROUND) | doubtful, IGNORED, NONE))
    return said, rows


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
    """Return the square near zero, the absolute value beyond 1/9. Girshick (2015).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.detection.targets import smooth_l1
    >>> (18 * smooth_l1(jnp.array([0.0, 1.0]))).round(2).tolist()
    [0.0, 17.0]
    """
    far = jnp.abs(difference)
    return jnp.where(far < BETA, 0.5 * far * far / BETA, far - 0.5 * BETA)


def detection_loss(
    outputs: dict[str, Float[Array, "n a _"]], anchors: Float[Array, "a 4"], targets: Float[Array, "n m 5"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the loss of a batch, and its two parts, each over the number of anchors that stand for a box.

    Parameters
    ----------
    outputs : dict
        ``"classes"`` (N, A, K) logits and ``"boxes"`` (N, A, 4) codes.
    anchors : (A, 4)
    targets : (N, M, 5)
        Padded: a box in xyxy, and its label; a label ``NOT_ANNOTATED - k`` says that background of this field may hold
        cells of class k, whose loss there is left out.
    """

    def one(
        classes: Float[Array, "a k"], codes: Float[Array, "a 4"], field: Float[Array, "m 5"]
    ) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
        said, rows = match(anchors, field[:, :4], field[:, 4].astype(jnp.int32))
        wanted = jax.nn.one_hot(said, classes.shape[-1])
        kinds = NOT_ANNOTATED - jnp.arange(classes.shape[-1])
        open_ = (field[:, 4].astype(jnp.int32)[:, None] == kinds).any(0)
        asked = (said >= 0)[:, None] | ((said == NONE)[:, None] & ~open_)
        losses = jnp.where(asked, focal_loss(classes.astype(jnp.float32), wanted), 0)
        stands = said >= 0
        off = smooth_l1(codes.astype(jnp.float32) - encode(field[rows, :4], anchors)).sum(-1)
        return losses.sum(), jnp.where(stands, off, 0).sum(), stands.sum()

    class_loss, box_loss, stand = jax.vmap(one)(outputs["classes"], outputs["boxes"], targets)
    count = jnp.maximum(stand.sum(), 1)
    parts = {"class_loss": class_loss.sum() / count, "box_loss": box_loss.sum() / count}
    return parts["class_loss"] + parts["box_loss"], parts
