"""Inception v3. Szegedy et al. (2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cellscan.models.blocks import ConvNorm, Pair, Staged, make_linear, max_pool

Step: TypeAlias = tuple[int, int | Pair] | tuple[int, int | Pair, int]
"""Width, kernel and stride of a convolution; a convolution with a stride has no padding."""


def average(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Average over windows of 3x3; the zeros of the padding count in the average."""
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), pads) / 9


class Mixed(nnx.Module):
    """Parallel branches, each a sequence of convolutions, with concatenated outputs.

    Parameters
    ----------
    channels : int
        Number of input channels.
    branches : dict of name -> steps
        The convolutions of each branch. A branch whose name begins with ``pool`` starts with an average. The last step
        of a branch may be a list of parallel convolutions.
    maximum : bool
        Add a maximum over 3x3 with stride 2 as the last branch.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.
    """

    def __init__(
        self,
        channels: int,
        branches: Mapping[str, Sequence[Step | list[Step]]],
        *,
        maximum: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.names: tuple[str, ...] = tuple(branches)
        self.maximum: bool = maximum
        self.width: int = channels if maximum else 0
        for name, steps in branches.items():
            inside, made = channels, []
            for step in steps:
                parallel: list[Any] = step if isinstance(step, list) else [step]
                made.append(nnx.List([_conv(inside, *each, rngs=rngs) for each in parallel]))
                inside = sum(each[0] for each in parallel)
            setattr(self, name, nnx.List(made))
            self.width += inside

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply the branches and concatenate their outputs along the channels."""
        out = []
        for name in self.names:
            y = average(x) if name.startswith("pool") else x
            for parallel in getattr(self, name):
                y = jnp.concatenate([conv(y) for conv in parallel], -1)
            out.append(y)
        if self.maximum:
            out.append(max_pool(x, 3, 2))
        return jnp.concatenate(out, -1)


def _conv(channels: int, width: int, kernel: int | Pair, stride: int = 1, *, rngs: nnx.Rngs) -> ConvNorm:
    padding = "VALID" if stride > 1 else "torch"
    return ConvNorm(channels, width, kernel, stride=stride, padding=padding, epsilon=1e-3, rngs=rngs)


def _a(pool: int) -> dict[str, Any]:
    return {
        "b1x1": [(64, 1)],
        "b5x5": [(48, 1), (64, 5)],
        "b3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "pool": [(pool, 1)],
    }


def _c(narrow: int) -> dict[str, Any]:
    tall, wide = (7, 1), (1, 7)
    return {
        "b1x1": [(192, 1)],
        "b7x7": [(narrow, 1), (narrow, wide), (192, tall)],
        "b7x7dbl": [(narrow, 1), (narrow, tall), (narrow, wide), (narrow, tall), (192, wide)],
        "pool": [(192, 1)],
    }


_B: dict[str, Any] = {"b3x3": [(384, 3, 2)], "b3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]}
_D: dict[str, Any] = {
    "b3x3": [(192, 1), (320, 3, 2)],
    "b7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
}
_E: dict[str, Any] = {
    "b1x1": [(320, 1)],
    "b3x3": [(384, 1), [(384, (1, 3)), (384, (3, 1))]],
    "b3x3dbl": [(448, 1), (384, 3), [(384, (1, 3)), (384, (3, 1))]],
    "pool": [(192, 1)],
}

PLAN = ([_a(32), _a(64), _a(64)], [_B, _c(128), _c(160), _c(160), _c(192)], [_D, _E, _E])


class InceptionV3(Staged):
    """Inception v3 without the auxiliary head: five convolutions, then eleven blocks of parallel branches.

    The first convolutions have no padding, so the output of a stage is slightly smaller than its stride implies.

    Parameters
    ----------
    num_classes : int
        Width of the last layer.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Classifier("inception_v3", image_size=75).summary()  # doctest: +ELLIPSIS
    inception_v3: 21,789,666 parameters, input 75 x 75 px, background "fill", classes parasitized, uninfected
    part         shape                parameters
    stem         (35, 35, 64)             28,768
    ...
    """

    strides: ClassVar[dict[str, int]] = {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs) -> None:
        plain = partial(ConvNorm, padding="VALID", epsilon=1e-3, rngs=rngs)
        pad = partial(_conv, rngs=rngs)
        self.stem: nnx.Sequential = nnx.Sequential(plain(3, 32, 3, stride=2), plain(32, 32, 3), pad(32, 64, 3))
        self.stage1: nnx.Sequential = nnx.Sequential(Maximum(), plain(64, 80, 1), plain(80, 192, 3))
        channels = 192
        for number, group in enumerate(PLAN, 2):
            blocks: list[nnx.Module] = [Maximum()] if number == 2 else []
            for branches in group:
                blocks.append(Mixed(channels, branches, maximum=branches in (_B, _D), rngs=rngs))
                channels = getattr(blocks[-1], "width")  # noqa: B009 - an attribute of Mixed
            setattr(self, f"stage{number}", nnx.Sequential(*blocks))
        self.head: nnx.Linear = make_linear(channels, num_classes, rngs=rngs)


class Maximum(nnx.Module):
    """The maximum over windows of 3x3 with stride 2."""

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        """Apply the maximum."""
        return max_pool(x, 3, 2)


def make(name: str, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> InceptionV3:
    """Build a network of this family by name."""
    return InceptionV3(num_classes, rngs=rngs)
