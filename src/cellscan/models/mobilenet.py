"""MobileNet v2 (Sandler et al., 2018), and EfficientNet-Lite0 (Tan and Le, 2019), which has the same structure.

EfficientNet-Lite0 is the network that Google published: TensorFlow's padding, no squeeze-and-excitation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cellscan.models.blocks import ConvNorm, Staged, make_linear

Stages = tuple[tuple[int, int, int, int, int], ...]

PLANS: dict[str, tuple[Stages, str, float]] = {
    "mobilenetv2_100": (
        (
            (1, 16, 3, 1, 1),
            (2, 24, 3, 2, 6),
            (3, 32, 3, 2, 6),
            (4, 64, 3, 2, 6),
            (3, 96, 3, 1, 6),
            (3, 160, 3, 2, 6),
            (1, 320, 3, 1, 6),
        ),
        "torch",
        1e-5,
    ),
    "tf_efficientnet_lite0": (
        (
            (1, 16, 3, 1, 1),
            (2, 24, 3, 2, 6),
            (2, 40, 5, 2, 6),
            (3, 80, 3, 2, 6),
            (3, 112, 5, 1, 6),
            (4, 192, 5, 2, 6),
            (1, 320, 3, 1, 6),
        ),
        "SAME",
        1e-3,
    ),
}
"""For each stage, the number of blocks, the width, kernel, stride and expansion ratio; then padding and epsilon."""


def relu6(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Clip values to [0, 6].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.mobilenet import relu6
    >>> relu6(jnp.array([-1.0, 7.0])).tolist()
    [0.0, 6.0]
    """
    return jnp.clip(x, 0, 6)


class InvertedResidual(nnx.Module):
    """An inverted residual block. Sandler et al. (2018).

    A 1x1 convolution widens the input, a depthwise convolution filters each channel, and a 1x1 convolution narrows it.
    The input is added if it has the shape of the output. With a `ratio` of 1, there is no first convolution.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.mobilenet import InvertedResidual
    >>> block = InvertedResidual(8, 16, kernel=3, stride=2, ratio=6, rngs=nnx.Rngs(0))
    >>> block(jnp.zeros((1, 32, 32, 8))).shape
    (1, 16, 16, 16)
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kernel: int,
        stride: int,
        ratio: int,
        padding: str = "torch",
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ) -> None:
        inside = channels * ratio
        common: dict[str, Any] = {"padding": padding, "epsilon": epsilon, "rngs": rngs}
        self.widen: ConvNorm | None = nnx.data(
            ConvNorm(channels, inside, 1, act=relu6, **common) if ratio > 1 else None
        )
        self.filter: ConvNorm = ConvNorm(inside, inside, kernel, stride=stride, depthwise=True, act=relu6, **common)
        self.narrow: ConvNorm = ConvNorm(inside, width, 1, act=None, **common)
        self.residual: bool = stride == 1 and channels == width

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the block."""
        y = x if self.widen is None else self.widen(x)
        y = self.narrow(self.filter(y))
        return x + y if self.residual else y


class MobileNet(Staged):
    """A network of a stem, stages of inverted residual blocks, and a wide last convolution.

    Parameters
    ----------
    plan : sequence of (blocks, width, kernel, stride, ratio)
        Parameters of each stage, with the strides in `strides`.
    num_classes : int
        Width of the last layer.
    padding, epsilon
        Parameters of `ConvNorm`.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.mobilenet import make
    >>> make("mobilenetv2_100", 2, pooled=True, rngs=nnx.Rngs(0))(jnp.zeros((1, 32, 32, 3))).shape
    (1, 2)
    """

    strides: ClassVar[dict[str, int]] = {
        "stem": 2, "stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 16, "stage6": 32, "stage7": 32,
        "last": 32,
    }  # fmt: skip

    def __init__(
        self,
        plan: Sequence[tuple[int, int, int, int, int]],
        num_classes: int,
        *,
        padding: str,
        epsilon: float,
        rngs: nnx.Rngs,
    ) -> None:
        common: dict[str, Any] = {"padding": padding, "epsilon": epsilon, "rngs": rngs}
        self.stem: ConvNorm = ConvNorm(3, 32, 3, stride=2, act=relu6, **common)
        channels = 32
        for number, (count, width, kernel, stride, ratio) in enumerate(plan, 1):
            blocks = []
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, width, kernel=kernel, stride=step, ratio=ratio, **common))
                channels = width
            setattr(self, f"stage{number}", nnx.Sequential(*blocks))
        self.last: ConvNorm = ConvNorm(channels, 1280, 1, act=relu6, **common)
        self.head: nnx.Linear = make_linear(1280, num_classes, rngs=rngs)


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> MobileNet:
    """Build a network of this family by name."""
    plan, padding, epsilon = PLANS[name]
    return MobileNet(plan, num_classes, padding=padding, epsilon=epsilon, rngs=rngs)
