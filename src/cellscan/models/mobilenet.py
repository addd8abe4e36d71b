"""MobileNet v2. Sandler et al. (2018)."""

from __future__ import annotations

from typing import ClassVar

from flax import nnx

from cellscan.models.blocks import MobileNet

PLAN = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (3, 32, 3, 2, 6),
    (4, 64, 3, 2, 6),
    (3, 96, 3, 1, 6),
    (3, 160, 3, 2, 6),
    (1, 320, 3, 1, 6),
)
"""Of each stage: blocks, width, kernel, stride, ratio."""


class MobileNetV2(MobileNet):
    """MobileNet v2 of full width.

    Parameters
    ----------
    num_classes : int
        Width of the last layer.
    rngs : flax.nnx.Rngs
        Source of the first weights.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.mobilenet import MobileNetV2
    >>> MobileNetV2(2, rngs=nnx.Rngs(0))(jnp.zeros((1, 32, 32, 3))).shape
    (1, 2)
    """

    strides: ClassVar[dict[str, int]] = {
        "stem": 2, "stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 16, "stage6": 32, "stage7": 32,
        "last": 32,
    }  # fmt: skip

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(PLAN, num_classes, padding="torch", epsilon=1e-5, rngs=rngs)


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> MobileNetV2:
    """Build a network of this family by name."""
    return MobileNetV2(num_classes, rngs=rngs)
