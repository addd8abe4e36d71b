"""PyTorch's side of `benchmarks/speed.py`: eager, channels_last."""

from __future__ import annotations

import itertools
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from shared import BATCH, SIZE, answer, batch, seconds, since_start
from torch import nn
from torch.nn import functional as F

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


class PlainNet(nn.Module):
    """Four 3x3 convolutions of 32, 64, 128, 128; pooled after three; dense 8192-128-2."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.hidden, self.head = nn.Linear(8192, 128), nn.Linear(128, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        for number, layer in enumerate(self.convs):
            x = F.relu(layer(x))
            x = F.max_pool2d(x, 2) if number < 3 else x
        return self.head(F.relu(self.hidden(x.flatten(1))))


class Block(nn.Module):
    """Two convolutions with instance norm, and a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.InstanceNorm2d(width, affine=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(width, affine=True)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class SmallCNN(nn.Sequential):
    """The architecture of cellscan's `small_cnn`."""

    def __init__(self) -> None:
        stem = (nn.PixelUnshuffle(2), nn.Conv2d(12, 32, 3, padding=1, bias=False))
        blocks = (Block(32, 32, 1), Block(32, 64, 2), Block(64, 96, 2), Block(96, 128, 1))
        norm = (nn.InstanceNorm2d(32, affine=True), nn.ReLU())
        super().__init__(*stem, *norm, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 2))


def make(net: str) -> nn.Module:
    """Return a network by name."""
    torch.manual_seed(0)
    model = PlainNet() if net == "plain" else SmallCNN()
    return model.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Return (N, H, W, 3) uint8 as normalised (N, 3, H, W), channels last."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def training(model: nn.Module, images: np.ndarray, labels: np.ndarray, dtype: str) -> Callable[[], None]:
    """Return a call that takes one training step; compiled on a GPU, eager on a CPU."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x, y = torch.from_numpy(images).to(DEVICE), torch.from_numpy(labels).to(DEVICE).long()
    run = torch.compile(model) if CUDA else model

    def once() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = F.cross_entropy(run(prepare(x)).float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return once


def train(net: str, dtype: str = "float32", size: str = str(BATCH)) -> float:
    """Return training steps' images a second."""
    return int(size) / seconds(training(make(net), *batch(int(size)), dtype))


def one(net: str) -> float:
    """Return milliseconds of one array through the network."""
    model, image = make(net).eval(), batch(1)[0]
    with torch.inference_mode():
        return 1e3 * seconds(
            lambda: model(prepare(torch.from_numpy(image).to(DEVICE))).softmax(-1).cpu().numpy(), times=300, warm=30
        )


def first_answer() -> float:
    """Return seconds from the start of this process to the probabilities of one array."""
    with torch.inference_mode():
        make("plain").eval()(prepare(torch.from_numpy(batch(1)[0]).to(DEVICE))).softmax(-1).cpu().numpy()
    return since_start()


class Folder(torch.utils.data.Dataset):
    """PNG files, decoded and resized."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).glob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one image."""
        image = Image.open(self.paths[index]).convert("RGB")
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def files(folder: str) -> float:
    """Return images a second from PNG files to probabilities, with two workers."""
    model = make("small_cnn").eval()
    start, count = time.perf_counter(), 0
    with torch.inference_mode():
        for images in torch.utils.data.DataLoader(Folder(folder), BATCH, num_workers=2):
            count += len(model(prepare(images.to(DEVICE))).softmax(-1).cpu().numpy())
    return count / (time.perf_counter() - start)


class Backbone(nn.Module):
    """A network of timm without its top, its average over the image, and a dense layer."""

    def __init__(self, net: str) -> None:
        super().__init__()
        sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "models"))
        from oracle import install_timm

        body = install_timm().create_model(net, num_classes=2)
        self.body = body.features if net.startswith("vgg") else body
        self.head = nn.Linear(512, 2) if net.startswith("vgg") else nn.Identity()
        self.pooled = net.startswith("vgg")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        y = self.body(x)
        return self.head(y.mean((2, 3))) if self.pooled else y


def forward(net: str, size: str, count: str, dtype: str = "float32") -> float:
    """Return milliseconds of a backbone's probabilities of a batch of uint8 images."""
    model = Backbone(net).to(DEVICE, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    run = torch.compile(model) if CUDA else model
    images = torch.from_numpy(batch(int(count), int(size))[0]).to(DEVICE)
    with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
        return 1e3 * seconds(lambda: run(prepare(images)).float().softmax(-1).cpu().numpy())


def tune(net: str, size: str, count: str, dtype: str = "float32") -> float:
    """Return milliseconds of a fine-tuning step."""
    model = Backbone(net).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return 1e3 * seconds(training(model, *batch(int(count), int(size)), dtype), times=8, warm=2)


def fields(count: str) -> tuple[dict[str, torch.Tensor], Callable[[], dict[str, torch.Tensor]]]:
    """Return weights of the plain `retinanet_small` of the tests, and a call of it on a batch of fields."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "detection"))
    import torch_retinanet as plain

    weights = {name: torch.from_numpy(plain.draw(name, shape)).to(DEVICE) for name, shape in plain.shapes().items()}
    x = torch.rand((int(count), 3, 360, 480), device=DEVICE).to(memory_format=torch.channels_last)
    levels, depth, norm = plain.PLANS["small"]
    return weights, lambda: plain.forward(weights, x, levels, depth, norm)


def detect(count: str) -> float:
    """Return milliseconds of what the plain network says of a batch of fields."""
    _, run = fields(count)
    with torch.inference_mode():
        return 1e3 * seconds(lambda: run()["boxes"].sum().item())


def detect_step(count: str) -> float:
    """Return milliseconds of a step of AdamW on the mean square of what the plain network says."""
    weights, run = fields(count)
    for tensor in weights.values():
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(weights.values(), 1e-3)

    def once() -> None:
        loss = sum(output.square().mean() for output in run().values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return 1e3 * seconds(once, times=8, warm=2)


if __name__ == "__main__":
    torch.set_num_threads(2)
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    tasks = {"train": train, "epoch": train, "first_answer": first_answer, "one": one, "files": files}
    answer({**tasks, "forward": forward, "tune": tune, "detect": detect, "detect_step": detect_step}, versions)
