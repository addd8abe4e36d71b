"""SqueezeNet 1.1. Iandola et al. (2016)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cellscan.models.blocks import Staged, make_conv, make_linear, max_pool


class Fire(nnx.Module):
    """A fire block: a 1x1 convolution squeezes the channels, and parallel 1x1 and 3x3 convolutions expand them."""

    def __init__(self, channels: int, squeezed: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.squeeze1x1: nnx.Conv = make_conv(channels, squeezed, 1, rngs=rngs)
        self.expand1x1: nnx.Conv = make_conv(squeezed, width, 1, rngs=rngs)
        self.expand3x3: nnx.Conv = make_conv(squeezed, width, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        """Apply the block."""
        x = jax.nn.relu(self.squeeze1x1(x))
        return jax.nn.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], -1))


class Stage(nnx.Module):
    """A maximum over 3x3 with stride 2, followed by two or four fire blocks."""

    def __init__(self, channels: int, plan: tuple[tuple[int, int], ...], *, rngs: nnx.Rngs) -> None:
        inputs = [channels] + [2 * width for _, width in plan[:-1]]
        self.fires: nnx.List[Fire] = nnx.List([Fire(c, *each, rngs=rngs) for c, each in zip(inputs, plan, strict=True)])

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the stage."""
        x = max_pool(x, 3, 2)
        for fire in self.fires:
            x = fire(x)
        return x


class Stem(nnx.Module):
    """A 3x3 convolution with stride 2 and without padding, followed by ReLU."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv: nnx.Conv = make_conv(3, 64, 3, stride=2, padding="VALID", rngs=rngs)

    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 c"]:
        """Apply the convolution and ReLU."""
        return jax.nn.relu(self.conv(x))


class SqueezeNet(Staged):
    """SqueezeNet 1.1 with its convolutional head, or with a dense layer after global average pooling.

    Parameters
    ----------
    num_classes : int
        Width of the last layer.
    pooled : bool
        Use global average pooling and one dense layer instead of convolution, ReLU and average.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.squeezenet import SqueezeNet
    >>> SqueezeNet(2, pooled=False, rngs=nnx.Rngs(0))(jnp.zeros((1, 64, 64, 3))).shape
    (1, 2)
    """

    strides: ClassVar[dict[str, int]] = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16}

    def __init__(self, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> None:
        self.stem: Stem = Stem(rngs=rngs)
        self.stage1: Stage = Stage(64, ((16, 64), (16, 64)), rngs=rngs)
        self.stage2: Stage = Stage(128, ((32, 128), (32, 128)), rngs=rngs)
        self.stage3: Stage = Stage(256, ((48, 192), (48, 192), (64, 256), (64, 256)), rngs=rngs)
        self.pooled: bool = pooled
        self.head: nnx.Linear | nnx.Conv = (
            make_linear(512, num_classes, rngs=rngs) if pooled else make_conv(512, num_classes, 1, rngs=rngs)
        )

    def classify(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        """Return the logits, computed from the output of the last stage."""
        if self.pooled:
            return self.head(x.mean((1, 2)))
        return jax.nn.relu(self.head(x)).mean((1, 2))


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> SqueezeNet:
    """Build a network of this family by name."""
    return SqueezeNet(num_classes, pooled=pooled, rngs=rngs)
