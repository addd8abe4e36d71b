"""EfficientNet-Lite0 as Google published it: TensorFlow's padding, no squeeze-and-excitation. Tan and Le (2019)."""

from __future__ import annotations

from typing import ClassVar

from flax import nnx

from cellscan.models.blocks import MobileNet

PLAN = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
"""Of each stage: blocks, width, kernel, stride, ratio."""


class EfficientNetLite(MobileNet):
    """EfficientNet-Lite0.

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
    >>> from cellscan.models.efficientnet import EfficientNetLite
    >>> EfficientNetLite(2, rngs=nnx.Rngs(0))(jnp.zeros((1, 64, 64, 3))).shape
    (1, 2)
    """

    strides: ClassVar[dict[str, int]] = {
        "stem": 2, "stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 16, "stage6": 32, "stage7": 32,
        "last": 32,
    }  # fmt: skip

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(PLAN, num_classes, padding="SAME", epsilon=1e-3, rngs=rngs)


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> EfficientNetLite:
    """Build a network of this family by name."""
    return EfficientNetLite(num_classes, rngs=rngs)
