"""RetinaNet: a backbone, a feature pyramid, and one head that all levels share. Lin et al. (2017)."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cellscan.errors import ArgumentError
from cellscan.models.blocks import he_normal
from cellscan.models.convolution import conv as quick
from cellscan.models.pretrained import Loaded
from cellscan.models.registry import build
from cellscan.models.small_cnn import Block, InstanceNorm, space_to_depth
from cellscan.preprocessing import Normalization
from cellscan.process import use_jax

PRIOR = 0.01
"""Score of every anchor with a new head."""


@dataclass(frozen=True)
class Plan:
    """Architecture of a detector.

    Attributes
    ----------
    name : str
        Name for `cellscan.Detector`.
    backbone : str
        Name of one of `cellscan.list_backbones()`, or ``"small"``.
    channels : tuple[int, int, int]
        Number of channels of the backbone at strides 8, 16 and 32.
    width : int
        Number of channels of the pyramid and of the head.
    convolutions : int
        Number of convolutions before the last one in each of the two branches of the head.
    levels : int
        Number of pyramid levels: 3 for P3 to P5, 5 for P3 to P7.
    norm : bool
        Use group normalisation in the head, for networks that are trained from scratch.

    Examples
    --------
    >>> from cellscan.models.retinanet import find
    >>> find("retinanet_small").strides
    (8, 16, 32)
    """

    name: str
    backbone: str
    channels: tuple[int, int, int]
    width: int = 256
    convolutions: int = 4
    levels: int = 5
    norm: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, in pixels."""
        return tuple(8 * 2**level for level in range(self.levels))


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("retinanet_small", "small", (96, 128, 192), width=96, convolutions=2, levels=3, norm=True),
        Plan("retinanet_resnet18", "resnet18", (128, 256, 512)),
        Plan("retinanet_resnet50", "resnet50", (512, 1024, 2048)),
    )
}


def find(name: str) -> Plan:
    """Return the plan of a name, or raise `ArgumentError` with similar names.

    Examples
    --------
    >>> from cellscan.models.retinanet import find
    >>> find("retinanet")
    Traceback (most recent call last):
    ...
    cellscan.errors.ArgumentError: there is no detector 'retinanet'; did you mean retinanet_small, retinanet_resnet50, \
retinanet_resnet18?
    """
    if name not in PLANS:
        near = difflib.get_close_matches(name, PLANS) or list(PLANS)
        raise ArgumentError(f"there is no detector {name!r}; did you mean {', '.join(near)}?")
    return PLANS[name]


def make(
    name: str, num_classes: int, per_place: int, *, weights: str | os.PathLike[str] | None = None, seed: int = 0
) -> tuple[RetinaNet, Loaded]:
    """Build a detector by name; `weights` are those of its backbone, as in `cellscan.models.create`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.retinanet import make
    >>> net, _ = make("retinanet_small", num_classes=2, per_place=9)
    >>> out = net(jnp.zeros((1, 64, 96, 3)))
    >>> out["boxes"].shape, out["classes"].shape
    ((1, 1134, 4), (1, 1134, 2))
    """
    use_jax()
    plan = find(name)
    rngs = nnx.Rngs(seed)
    loaded = Loaded(Normalization())
    if plan.backbone == "small":
        if weights is not None:
            raise ArgumentError(f"{name} has no published weights; leave out weights, or choose retinanet_resnet18")
        backbone: nnx.Module = SmallBackbone(plan.channels, rngs=rngs)
    else:
        backbone, loaded = build(plan.backbone, 1, weights=weights, seed=seed, pooled=True)
        delattr(backbone, "head")  # The detector uses the features only.
    net = RetinaNet(backbone, plan, num_classes, per_place, rngs=rngs)
    net.eval()
    return net, loaded


class SmallBackbone(nnx.Module):
    """A narrow residual network with instance norm, which reduces the influence of illumination and stain."""

    def __init__(self, channels: Sequence[int], *, rngs: nnx.Rngs) -> None:
        self.stem: nnx.Conv = nnx.Conv(
            48, 48, (3, 3), padding="SAME", use_bias=False, conv_general_dilated=quick, rngs=rngs
        )
        self.stem_norm: InstanceNorm = InstanceNorm(48, rngs=rngs)
        self.stage1: Block = Block(48, 48, stride=1, rngs=rngs)
        self.stage2: Block = Block(48, channels[0], stride=2, rngs=rngs)
        self.stage3: Block = Block(channels[0], channels[1], stride=2, rngs=rngs)
        self.stage4: Block = Block(channels[1], channels[2], stride=2, rngs=rngs)

    def features(self, x: Float[Array, "n h w 3"]) -> dict[str, Float[Array, "n _ _ _"]]:
        """Return the features at strides 8, 16 and 32."""
        _, height, width, _ = x.shape
        # Without the padding, space_to_depth would cut off incomplete blocks.
        x = jnp.pad(x, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
        x = jax.nn.relu(self.stem_norm(self.stem(space_to_depth(x, 4))))
        features = {"stride8": self.stage2(self.stage1(x))}
        features["stride16"] = self.stage3(features["stride8"])
        features["stride32"] = self.stage4(features["stride16"])
        return features


class Pyramid(nnx.Module):
    """A feature pyramid: features of all strides with the same width, with coarse features added to finer ones."""

    def __init__(self, channels: Sequence[int], width: int, levels: int, *, rngs: nnx.Rngs) -> None:
        self.lateral: nnx.List[nnx.Conv] = nnx.List(_conv(count, width, 1, rngs=rngs) for count in channels)
        self.output: nnx.List[nnx.Conv] = nnx.List(_conv(width, width, 3, rngs=rngs) for _ in channels)
        self.extra: nnx.List[nnx.Conv] = nnx.List(
            _conv(channels[-1] if number == 0 else width, width, 3, stride=2, rngs=rngs)
            for number in range(levels - len(channels))
        )

    def __call__(self, features: Sequence[Float[Array, "n _ _ _"]]) -> list[Float[Array, "n _ _ _"]]:
        """Return the levels P3, P4, ..."""
        merged: list[Array] = []
        for lateral, x in reversed(list(zip(self.lateral, features, strict=True))):
            y = lateral(x)
            if merged:
                y = y + merged[0].repeat(2, 1).repeat(2, 2)[:, : y.shape[1], : y.shape[2]]
            merged.insert(0, y)
        levels = [output(y) for output, y in zip(self.output, merged, strict=True)]
        x = features[-1]
        for number, extra in enumerate(self.extra):
            x = extra(jax.nn.relu(x) if number else x)
            levels.append(x)
        return levels


class Branch(nnx.Module):
    """A branch of the head: 3x3 convolutions, and a last one with outputs for every anchor of a position."""

    def __init__(self, width: int, depth: int, outputs: int, *, bias: float, norm: bool, rngs: nnx.Rngs) -> None:
        self.convs: nnx.List[nnx.Conv] = nnx.List(_conv(width, width, 3, rngs=rngs) for _ in range(depth))
        self.norms: nnx.List[nnx.GroupNorm] = nnx.List(
            nnx.GroupNorm(width, num_groups=width // 8, epsilon=1e-5, rngs=rngs) for _ in range(depth if norm else 0)
        )
        self.last: nnx.Conv = _conv(width, outputs, 3, rngs=rngs)
        self.last.kernel[...] = self.last.kernel[...] * (0.01 / (2 / (9 * outputs)) ** 0.5)
        if self.last.bias is not None:
            self.last.bias[...] = jnp.full(outputs, bias, jnp.float32)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        """Apply the branch."""
        for number, convolution in enumerate(self.convs):
            x = convolution(x)
            if self.norms:
                x = self.norms[number](x)
            x = jax.nn.relu(x)
        return self.last(x)


class Head(nnx.Module):
    """The head of the detector, which predicts classes and boxes of the anchors; all levels share it."""

    def __init__(self, plan: Plan, num_classes: int, per_place: int, *, rngs: nnx.Rngs) -> None:
        self.classes: Branch = Branch(
            plan.width, plan.convolutions, per_place * num_classes, bias=-math.log((1 - PRIOR) / PRIOR),
            norm=plan.norm, rngs=rngs,
        )  # fmt: skip
        self.boxes: Branch = Branch(plan.width, plan.convolutions, per_place * 4, bias=0.0, norm=plan.norm, rngs=rngs)
        self.num_classes: int = num_classes

    def __call__(self, levels: Sequence[Float[Array, "n _ _ _"]]) -> dict[str, Float[Array, "n a _"]]:
        """Return the logits and the codes of all anchors, ordered by level, row and column."""

        def joined(branch: Any, last: int) -> Array:
            return jnp.concatenate([branch(x).reshape(len(x), -1, last) for x in levels], 1)

        return {"classes": joined(self.classes, self.num_classes), "boxes": joined(self.boxes, 4)}


class RetinaNet(nnx.Module):
    """A network that maps normalised images to ``"classes"`` (N, A, K) logits and ``"boxes"`` (N, A, 4) codes.

    The input is (N, H, W, 3). A is the number of anchors of `cellscan.detection.anchors.Anchors` with the same number
    of anchors per position.

    Parameters
    ----------
    backbone : flax.nnx.Module
        Module whose ``features(x)`` contains ``"stride8"``, ``"stride16"`` and ``"stride32"``.
    plan : Plan
        Channels of the backbone, width, depth and levels.
    num_classes, per_place : int
        Number of classes K, and number of anchors per position.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.
    """

    def __init__(self, backbone: nnx.Module, plan: Plan, num_classes: int, per_place: int, *, rngs: nnx.Rngs) -> None:
        self.backbone: nnx.Module = backbone
        self.pyramid: Pyramid = Pyramid(plan.channels, plan.width, plan.levels, rngs=rngs)
        self.head: Head = Head(plan, num_classes, per_place, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w 3"]) -> dict[str, Float[Array, "n a _"]]:
        """Return the outputs of the head for all anchors."""
        backbone: Any = self.backbone
        features = backbone.features(x)
        return self.head(self.pyramid([features[f"stride{stride}"] for stride in (8, 16, 32)]))


def _conv(channels: int, width: int, kernel: int, *, stride: int = 1, rngs: nnx.Rngs) -> nnx.Conv:
    side = kernel // 2
    return nnx.Conv(
        channels,
        width,
        (kernel, kernel),
        strides=stride,
        padding=((side, side), (side, side)),
        kernel_init=he_normal,
        conv_general_dilated=quick,
        rngs=rngs,
    )
