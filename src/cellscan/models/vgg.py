"""VGG: 3x3 convolutions in five stages. Simonyan and Zisserman (2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cellscan.models.blocks import Staged, make_conv, make_linear, max_pool

DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Number of convolutions in each stage."""

WIDTHS = (64, 128, 256, 512, 512)


class VGG(Staged):
    """VGG with its fully-connected part of 7x7, or with a dense layer after global average pooling.

    Parameters
    ----------
    depths : five int
        Number of convolutions in each stage.
    num_classes : int
        Width of the last layer.
    pooled : bool
        Use global average pooling and one dense layer instead of the fully-connected part.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.vgg import VGG
    >>> net = VGG((1, 1, 1, 1, 1), 2, pooled=True, rngs=nnx.Rngs(0))
    >>> net(jnp.zeros((1, 32, 32, 3))).shape
    (1, 2)
    """

    strides: ClassVar[dict[str, int]] = {"stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 32}

    def __init__(self, depths: Sequence[int], num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> None:
        channels = 3
        for number, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), 1):
            setattr(self, f"stage{number}", Stage(depth, channels, width, rngs=rngs))
            channels = width
        self.top: Top | None = nnx.data(None if pooled else Top(channels, rngs=rngs))
        self.head: nnx.Linear = make_linear(channels if pooled else 4096, num_classes, rngs=rngs)

    def pool(self, x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """Return the input of the head, computed from the output of the last stage."""
        return x.mean((1, 2)) if self.top is None else self.top(x)


class Stage(nnx.Module):
    """Convolutions with ReLU, followed by a maximum over 2x2."""

    def __init__(self, depth: int, channels: int, width: int, *, rngs: nnx.Rngs) -> None:
        widths = [channels] + [width] * depth
        self.convs: nnx.List[nnx.Conv] = nnx.List([make_conv(widths[i], width, 3, rngs=rngs) for i in range(depth)])

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the stage."""
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return max_pool(x, 2, 2)


class Top(nnx.Module):
    """The fully-connected part as convolutions of 7x7 and 1x1, and an average over the remaining positions.

    A map of fewer than seven rows or columns is resized to seven by adaptive averages, as in timm.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.fc1: nnx.Conv = make_conv(channels, 4096, 7, padding="VALID", rngs=rngs)
        self.fc2: nnx.Conv = make_conv(4096, 4096, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 4096"]:
        """Apply the convolutions and the average."""
        rows, columns = (_stretch(side) for side in x.shape[1:3])
        x = jnp.einsum("nhwc,ih,jw->nijc", x, rows.astype(x.dtype), columns.astype(x.dtype))
        return jax.nn.relu(self.fc2(jax.nn.relu(self.fc1(x)))).mean((1, 2))


def _stretch(side: int) -> jax.Array:
    """Return a matrix that resizes `side` values to 7 by averages; the identity for 7 or more values."""
    out = max(side, 7)
    ranges = [(i * side // out, -(-(i + 1) * side // out)) for i in range(out)]
    return jnp.array([[(a <= j < b) / (b - a) for j in range(side)] for a, b in ranges])


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> VGG:
    """Build a network of this family by name."""
    return VGG(DEPTHS[name], num_classes, pooled=pooled, rngs=rngs)
