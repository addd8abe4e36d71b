"""ResNet, with the stride in the 3x3 convolution as in PyTorch. He et al. (2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
from flax import nnx
from jaxtyping import Array, Float

from cellscan.models.blocks import ConvNorm, Staged, make_linear, max_pool


class Basic(nnx.Module):
    """A residual block of two 3x3 convolutions and a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, channels: int, width: int, *, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1: ConvNorm = ConvNorm(channels, width, 3, stride=stride, rngs=rngs)
        self.conv2: ConvNorm = ConvNorm(width, width, 3, act=None, rngs=rngs)
        self.shortcut: ConvNorm | None = _shortcut(channels, width, stride, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the block."""
        y = self.conv2(self.conv1(x))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """A residual block of a narrow 3x3 convolution between two 1x1 convolutions, and a shortcut."""

    expansion: ClassVar[int] = 4

    def __init__(self, channels: int, width: int, *, stride: int, rngs: nnx.Rngs) -> None:
        outputs = width * self.expansion
        self.conv1: ConvNorm = ConvNorm(channels, width, 1, rngs=rngs)
        self.conv2: ConvNorm = ConvNorm(width, width, 3, stride=stride, rngs=rngs)
        self.conv3: ConvNorm = ConvNorm(width, outputs, 1, act=None, rngs=rngs)
        self.shortcut: ConvNorm | None = _shortcut(channels, outputs, stride, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the block."""
        y = self.conv3(self.conv2(self.conv1(x)))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _shortcut(channels: int, outputs: int, stride: int, rngs: nnx.Rngs) -> Any:
    same = stride == 1 and channels == outputs
    return nnx.data(None) if same else ConvNorm(channels, outputs, 1, stride=stride, act=None, rngs=rngs)


class ResNet(Staged):
    """A network of a 7x7 stem and four stages of residual blocks; the first stage begins with a maximum over 3x3.

    Parameters
    ----------
    block : type
        `Basic` (18 and 34 layers) or `Bottleneck` (50 and 101).
    depths : four int
        Number of blocks in each stage.
    num_classes : int
        Width of the last layer.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.resnet import Basic, ResNet
    >>> net = ResNet(Basic, (1, 1, 1, 1), 2, rngs=nnx.Rngs(0))
    >>> net(jnp.zeros((1, 64, 64, 3))).shape
    (1, 2)
    """

    strides: ClassVar[dict[str, int]] = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}

    def __init__(
        self, block: type[Basic] | type[Bottleneck], depths: Sequence[int], num_classes: int, *, rngs: nnx.Rngs
    ) -> None:
        self.stem: ConvNorm = ConvNorm(3, 64, 7, stride=2, rngs=rngs)
        channels = 64
        for number, depth in enumerate(depths, 1):
            width, blocks = 32 * 2**number, []
            for index in range(depth):
                stride = 2 if index == 0 and number > 1 else 1
                blocks.append(block(channels, width, stride=stride, rngs=rngs))
                channels = width * block.expansion
            setattr(self, f"stage{number}", Stage(blocks, pooled=number == 1))
        self.head: nnx.Linear = make_linear(channels, num_classes, rngs=rngs)


class Stage(nnx.Module):
    """Consecutive blocks, after a maximum over 3x3 with stride 2 if `pooled`."""

    def __init__(self, blocks: Sequence[Basic | Bottleneck], *, pooled: bool) -> None:
        self.blocks: nnx.List[Basic | Bottleneck] = nnx.List(blocks)
        self.pooled: bool = pooled

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the stage."""
        if self.pooled:
            x = max_pool(x, 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return x


PLANS: dict[str, tuple[type[Basic] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (Basic, (2, 2, 2, 2)),
    "resnet34": (Basic, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
"""For each network, the kind of block and the number of blocks in each stage."""


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> ResNet:
    """Build a network of this family by name."""
    block, depths = PLANS[name]
    return ResNet(block, depths, num_classes, rngs=rngs)
