"""What timm answers to the weights that the tests draw: the reference of every backbone.

    PYTHON tests/models/oracle.py [NAME ...]            writes reference.json anew, or what it says of these
    PYTHON tests/models/oracle.py [NAME ...] --check    compares instead

PYTHON is an interpreter that has torch, timm and cellscan (`pip install -e '.[dev]'` on Python 3.11). The
tests compare with reference.json wherever they run, and with timm itself where it is installed.

Weights are drawn by name, so that both sides draw the same without exchanging them. SqueezeNet 1.1 is not in
timm; a plain one in torch stands for it.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).with_name("reference.json")
KEPT = 16
"""Values of an array that the reference keeps, besides its root mean square."""

# least size, an odd one; the native one is left to the comparison with timm itself
SIZES: dict[str, tuple[int, ...]] = {
    "vgg16": (32, 65),
    "vgg19": (32, 65),
    "resnet18": (32, 65),
    "resnet34": (32, 65),
    "resnet50": (32, 65),
    "resnet101": (32, 65),
    "inception_v3": (75, 97),
    "tf_efficientnet_lite0": (32, 65),
    "mobilenetv2_100": (32, 65),
    "squeezenet1_1": (32, 65),
}
NATIVE = {"inception_v3": 299, "squeezenet1_1": 227}
CLASSES = 1000


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw the tensor of a published name, in the layout of torch; all of them matter to the logits."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if len(shape) > 1:
        return (rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
    if leaf == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf == "weight":
        return rng.uniform(0.3, 0.9, shape).astype(np.float32)
    return (0.2 * rng.standard_normal(shape)).astype(np.float32)


def images(size: int, count: int = 2) -> np.ndarray:
    """Return (N, S, S, 3) float32, normalised as it were."""
    return np.random.default_rng(size).standard_normal((count, size, size, 3), np.float32)


def digest(array: np.ndarray) -> dict[str, Any]:
    """Return what the reference keeps of an array: shape, root mean square, and values here and there."""
    flat = np.asarray(array, np.float64).ravel()
    rng = np.random.default_rng(flat.size)
    chosen = flat[rng.integers(0, flat.size, KEPT)]
    return {
        "shape": list(array.shape),
        "rms": float(f"{np.sqrt((flat**2).mean()):.8g}"),
        "values": [float(f"{value:.8g}") for value in chosen],
    }


def differ(ours: np.ndarray, theirs: Mapping[str, Any] | np.ndarray) -> float:
    """Return the greatest difference between an array and a reference, as a share of the root mean square."""
    if isinstance(theirs, np.ndarray):
        assert ours.shape == theirs.shape
        return float(np.abs(ours - theirs).max() / np.sqrt((theirs.astype(np.float64) ** 2).mean()))
    found = digest(ours)
    assert found["shape"] == theirs["shape"]
    pairs = zip([*found["values"], found["rms"]], [*theirs["values"], theirs["rms"]], strict=True)
    return max(abs(one - other) for one, other in pairs) / theirs["rms"]


def install_timm() -> Any:
    """Import timm, also where torchvision is broken or missing: its networks do without."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # a torchvision that was built for another torch raises what it likes
        from unittest.mock import MagicMock

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for part in ("", ".datasets", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms",
                     ".transforms.functional", ".utils"):  # fmt: skip
            sys.modules[f"torchvision{part}"] = MagicMock()
    import timm

    return timm


def make_torch(name: str) -> tuple[Any, dict[str, str], Callable[[str], str]]:
    """Return the network in torch with drawn weights, its stages -> modules, and its names -> published ones."""
    import torch

    plain: Callable[[str], str] = lambda key: key  # noqa: E731
    if name == "squeezenet1_1":
        net, stages, plain = (
            _squeezenet(),
            {"stem": "relu", "stage1": "fire3", "stage2": "fire5", "stage3": "fire9"},
            _keras,
        )
    else:
        extra = {"aux_logits": False} if name == "inception_v3" else {}
        net = install_timm().create_model(name, pretrained=False, num_classes=CLASSES, **extra)
        stages = _stages(name, net)
    state = net.state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point():
            state[key] = torch.from_numpy(draw(plain(key), tuple(tensor.shape)))
    net.load_state_dict(state)
    return net.eval(), stages, plain


def _stages(name: str, net: Any) -> dict[str, str]:
    """Return our names of stages and timm's modules that give them."""
    if name.startswith("vgg"):
        pools = [key for key, module in net.features.named_children() if type(module).__name__ == "MaxPool2d"]
        return {f"stage{number}": f"features.{key}" for number, key in enumerate(pools, 1)}
    if name.startswith("resnet"):
        return {"stem": "act1"} | {f"stage{number}": f"layer{number}" for number in (1, 2, 3, 4)}
    if name == "inception_v3":
        modules = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
        return dict(zip(("stem", "stage1", "stage2", "stage3", "stage4"), modules, strict=True))
    return {"stem": "bn1", "last": "bn2"} | {f"stage{number}": f"blocks.{number - 1}" for number in range(1, 8)}


def _keras(key: str) -> str:
    return key.replace(".weight", ".kernel")


def _squeezenet() -> Any:
    """Return SqueezeNet 1.1 as published, plainly, under the names of its Keras port."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Fire(nn.Module):
        def __init__(self, net: nn.Module, number: int, channels: int, squeezed: int, width: int) -> None:
            super().__init__()
            parts = {"squeeze1x1": nn.Conv2d(channels, squeezed, 1), "expand1x1": nn.Conv2d(squeezed, width, 1),
                     "expand3x3": nn.Conv2d(squeezed, width, 3, padding=1)}  # fmt: skip
            for part, conv in parts.items():
                net.add_module(f"fire{number}_{part}", conv)
            self.parts = (list(parts.values()),)  # a tuple, so that they are not registered twice

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            squeeze, one, three = self.parts[0]
            x = F.relu(squeeze(x))
            return torch.cat([F.relu(one(x)), F.relu(three(x))], 1)

    class SqueezeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.relu = nn.Conv2d(3, 64, 3, 2), nn.ReLU()
            channels = 64
            plan = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
            for number, (squeezed, width) in enumerate(plan, 2):
                setattr(self, f"fire{number}", Fire(self, number, channels, squeezed, width))
                channels = 2 * width
            self.conv10 = nn.Conv2d(512, CLASSES, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.conv1(x))
            for number in range(2, 10):
                if number in (2, 4, 6):
                    x = F.max_pool2d(x, 3, 2)
                x = getattr(self, f"fire{number}")(x)
            return F.relu(self.conv10(x)).mean((2, 3))

    return SqueezeNet()


def ask(name: str, size: int, *, train: bool = False) -> dict[str, np.ndarray]:
    """Return logits and stages in our layout; after a step in training mode, the running statistics instead."""
    import torch

    net, stages, _ = make_torch(name)
    x = torch.from_numpy(images(size, 4 if train else 2)).permute(0, 3, 1, 2)
    found: dict[str, np.ndarray] = {}

    def keep(stage: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            found[stage] = output.detach().clone().permute(0, 2, 3, 1).numpy()

        return hook

    if train:
        with torch.no_grad():
            net.train()(x)
        return {key: value.numpy() for key, value in net.state_dict().items() if "running" in key}
    for stage, path in stages.items():
        net.get_submodule(path).register_forward_hook(keep(stage))
    with torch.no_grad():
        logits = net(x).numpy()
        if name != "squeezenet1_1":
            found["pre_logits"] = net.forward_head(net.forward_features(x), pre_logits=True).flatten(1).numpy()
    return {"logits": logits, **found}


def main() -> None:
    """Write or check the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    old = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    answers: dict[str, Any] = {}
    for name in args.names or SIZES:
        answers[name] = {str(size): {k: digest(v) for k, v in ask(name, size).items()} for size in SIZES[name]}
        if not name.startswith(("vgg", "squeezenet")):
            statistics = ask(name, SIZES[name][1], train=True)
            joined = np.concatenate([statistics[key] for key in sorted(statistics)])
            answers[name]["statistics"] = digest(joined)
        if args.check:
            assert old[name] == answers[name], f"timm gives other answers for {name} than reference.json"
        print(name, flush=True)
    if args.check:
        return
    import timm
    import torch

    answers = {**old, **answers, "made with": f"timm {timm.__version__}, torch {torch.__version__}"}
    REFERENCE.write_text(json.dumps(answers).replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    main()
