"""A plain RetinaNet in PyTorch, as functions over a dictionary of weights with our names.

    PYTHON tests/detection/torch_retinanet.py      writes reference.json anew

The tests compare with reference.json wherever they run, and with this where PyTorch is installed.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).with_name("reference.json")
PLANS = {"small": (3, 2, True), "five levels": (5, 4, False)}
"""Levels, convolutions of a branch, group normalisation; the backbone is the small one."""
SIZE, CLASSES, PLACE, WIDTH = (72, 104), 2, 9, 96


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a weight by its name, in our layout; kernels are (H, W, in, out)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        return (rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[:3])) ** 0.5).astype(np.float32)
    if name.endswith("scale"):
        return rng.uniform(0.5, 1.2, shape).astype(np.float32)
    return (0.2 * rng.standard_normal(shape)).astype(np.float32)


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the weights of the small plan, by name."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, channels: int, width: int, kernel: int = 3, *, bias: bool = True) -> None:
        found[f"{name}.kernel"] = (kernel, kernel, channels, width)
        if bias:
            found[f"{name}.bias"] = (width,)

    def norm(name: str, width: int) -> None:
        found[f"{name}.scale"] = found[f"{name}.bias"] = (width,)

    conv("backbone.stem", 48, 48, bias=False)
    norm("backbone.stem_norm", 48)
    channels = 48
    for number, width in enumerate((48, 96, 128, 192), 1):
        name = f"backbone.stage{number}"
        for which, before in ((1, channels), (2, width)):
            conv(f"{name}.conv{which}", before, width, bias=False)
            norm(f"{name}.norm{which}", width)
        if channels != width:
            conv(f"{name}.shortcut", channels, width, 1, bias=False)
        channels = width
    for number, width in enumerate((96, 128, 192)):
        conv(f"pyramid.lateral.{number}", width, WIDTH, 1)
        conv(f"pyramid.output.{number}", WIDTH, WIDTH)
    for branch, outputs in (("classes", CLASSES), ("boxes", 4)):
        for number in range(PLANS["small"][1]):
            conv(f"head.{branch}.convs.{number}", WIDTH, WIDTH)
            norm(f"head.{branch}.norms.{number}", WIDTH)
        conv(f"head.{branch}.last", WIDTH, PLACE * outputs)
    return found


def fields(count: int = 2) -> np.ndarray:
    """Return (N, H, W, 3) float32, normalised as it were."""
    return np.random.default_rng(7).standard_normal((count, *SIZE, 3), np.float32)


def forward(weights: dict[str, Any], x: Any, levels: int, depth: int, norm: bool) -> dict[str, Any]:
    """Return what the head says of every anchor, for (N, 3, H, W)."""
    import torch
    from torch.nn import functional as F

    def conv(x: Any, name: str, stride: int = 1, pad: tuple[int, int, int, int] | None = None) -> Any:
        kernel = weights[f"{name}.kernel"].permute(3, 2, 0, 1)
        side = kernel.shape[-1] // 2
        x = F.pad(x, pad or (side, side, side, side))
        return F.conv2d(x, kernel, weights.get(f"{name}.bias"), stride)

    def same(side: int) -> tuple[int, int]:  # "SAME" with stride 2
        total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
        return total // 2, total - total // 2

    def instance(x: Any, name: str) -> Any:
        return F.instance_norm(x, weight=weights[f"{name}.scale"], bias=weights[f"{name}.bias"], eps=1e-5)

    def block(x: Any, name: str, stride: int) -> Any:
        high, wide = x.shape[2:]
        pad = (*same(wide), *same(high)) if stride == 2 else None
        y = F.relu(instance(conv(x, f"{name}.conv1", stride, pad), f"{name}.norm1"))
        y = instance(conv(y, f"{name}.conv2"), f"{name}.norm2")
        if f"{name}.shortcut.kernel" in weights:
            x = conv(x, f"{name}.shortcut", stride, (0, 0, 0, 0))
        return F.relu(y + x)

    n, c, high, wide = x.shape
    x = x.reshape(n, c, high // 4, 4, wide // 4, 4).permute(0, 3, 5, 1, 2, 4).reshape(n, 16 * c, high // 4, wide // 4)
    x = F.relu(instance(conv(x, "backbone.stem"), "backbone.stem_norm"))
    x = block(x, "backbone.stage1", 1)
    found = []
    for number in (2, 3, 4):
        x = block(x, f"backbone.stage{number}", 2)
        found.append(x)
    merged: list[Any] = []
    for number in (2, 1, 0):
        y = conv(found[number], f"pyramid.lateral.{number}")
        if merged:
            y = y + F.interpolate(merged[0], size=y.shape[2:], mode="nearest")
        merged.insert(0, y)
    pyramid = [conv(y, f"pyramid.output.{number}") for number, y in enumerate(merged)]
    x = found[-1]
    for number in range(levels - 3):
        x = conv(F.relu(x) if number else x, f"pyramid.extra.{number}", 2)
        pyramid.append(x)
    outputs = {}
    for branch, last in (("classes", CLASSES), ("boxes", 4)):
        each = []
        for y in pyramid:
            for number in range(depth):
                y = conv(y, f"head.{branch}.convs.{number}")
                if norm:
                    name = f"head.{branch}.norms.{number}"
                    y = F.group_norm(y, WIDTH // 8, weights[f"{name}.scale"], weights[f"{name}.bias"], 1e-5)
                y = F.relu(y)
            y = conv(y, f"head.{branch}.last")
            each.append(y.permute(0, 2, 3, 1).reshape(n, -1, last))
        outputs[branch] = torch.cat(each, 1)
    return outputs


def ask(plan: str, weights: Mapping[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
    """Return PyTorch's answer."""
    import torch

    levels, depth, norm = PLANS[plan]
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    with torch.inference_mode():
        outputs = forward(tensors, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), levels, depth, norm)
    return {name: array.numpy() for name, array in outputs.items()}


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / "models"), str(Path(__file__).parent)]
    import oracle
    from test_retinanet import drawn

    answers = {
        plan: {name: oracle.digest(array) for name, array in ask(plan, drawn(plan)[1]["params"], fields()).items()}
        for plan in PLANS
    }
    REFERENCE.write_text(json.dumps(answers, indent=1) + "\n")
