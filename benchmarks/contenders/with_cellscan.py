"""cellscan's side of `benchmarks/speed.py`."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import nnx
from shared import BATCH, SIZE, answer, batch, seconds

import cellscan
from cellscan.inference import make_probabilities
from cellscan.models.convolution import conv
from cellscan.models.network import Network, Weights
from cellscan.models.registry import build
from cellscan.training import init_state, make_train_step
from cellscan.training.devices import Examples, make_epoch
from cellscan.views import Normalization, prepare, show


class PlainNet(nnx.Module):
    """Four 3x3 convolutions of 32, 64, 128, 128; pooled after three; dense 8192-128-2."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        widths = (3, 32, 64, 128, 128)
        self.convs = nnx.List(
            nnx.Conv(a, b, (3, 3), conv_general_dilated=conv, rngs=rngs) for a, b in itertools.pairwise(widths)
        )
        self.hidden = nnx.Linear(8192, 128, rngs=rngs)
        self.head = nnx.Linear(128, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        for number, layer in enumerate(self.convs):
            x = jax.nn.relu(layer(x))
            if number < 3:  # max-pooling whose gradient is quick on a CPU
                n, h, w, c = x.shape
                x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        return self.head(jax.nn.relu(self.hidden(x.reshape(len(x), -1))))


def make(net: str) -> nnx.Module:
    """Return a network by name."""
    return PlainNet(rngs=nnx.Rngs(0)) if net == "plain" else cellscan.models.create("small_cnn", 2)


def training(model: nnx.Module, images: np.ndarray, labels: np.ndarray, dtype: str) -> Callable[[], None]:
    """Return a call that takes one training step."""
    optimizer, key = optax.adamw(1e-3), jax.random.key(0)
    x, y = jax.device_put((images, labels))
    step = make_train_step(model, optimizer, view="cell", dtype=dtype)
    state = init_state(model, optimizer)

    def once() -> None:
        nonlocal state
        state, metrics = step(state, x, y, key)
        metrics["loss"].block_until_ready()

    return once


def train(net: str, dtype: str = "float32", size: str = str(BATCH)) -> float:
    """Return training steps' images a second."""
    return int(size) / seconds(training(make(net), *batch(int(size)), dtype))


def epoch(net: str, dtype: str, size: str) -> float:
    """Return images a second of whole epochs of 20,480 images that lie on the device, an epoch a dispatch."""
    model, optimizer, count = make(net), optax.adamw(1e-3), 20_480
    images, labels = batch(count)
    cells = cellscan.CellDataset.from_arrays(images, labels)
    step = make_train_step(model, optimizer, view="cell", dtype=dtype)
    run = make_epoch(step, Examples(cells.images(SIZE), cells.labels), int(size), resident=True)
    state, key, order = init_state(model, optimizer), jax.random.key(0), np.random.default_rng(0).permutation(count)

    def once() -> None:
        nonlocal state
        state, _ = run(state, order, key, lambda images, loss: None)

    return count / seconds(once, times=5, warm=1)


def count(net: str, size: str) -> float:
    """Return the operations of a training step, as XLA counts them, in 10^9."""
    model, optimizer = make(net), optax.adamw(1e-3)
    step = make_train_step(model, optimizer, view="cell", dtype="bfloat16")
    compiled = step.lower(init_state(model, optimizer), *batch(int(size)), jax.random.key(0)).compile()  # type: ignore[attr-defined]
    return compiled.cost_analysis()["flops"] / 1e9


def rate() -> float:
    """Return 10^12 operations a second of a product of matrices."""
    a = jax.random.normal(jax.random.key(0), (8192, 8192), "bfloat16")
    product = jax.jit(lambda a: a @ a)
    return 2 * 8192**3 / seconds(lambda: product(a).block_until_ready()) / 1e12


def detect(count: str, boxes: str = "") -> float:
    """Return milliseconds of what `retinanet_small` says of a batch of fields, or of the boxes that are left of it."""
    from cellscan.detector import _make_forward

    det = cellscan.Detector("retinanet_small")
    weights, images = det._weights, np.random.default_rng(0).integers(0, 256, (int(count), 360, 480, 3), np.uint8)
    normalize = det.card.normalization
    raw = jax.jit(lambda w, x: det._network.logits(w, normalize(prepare(x, "cell"))))
    forward = _make_forward(det._network, det.card) if boxes else raw
    return 1e3 * seconds(lambda: jax.block_until_ready(forward(weights, images)))


def detect_step(count: str) -> float:
    """Return milliseconds of a whole training step on fields of 110 cells."""
    from cellscan.detector import _make_step

    det, optimizer, rng = cellscan.Detector("retinanet_small"), optax.adamw(1e-3), np.random.default_rng(0)
    detection = det.card.detection
    assert detection is not None
    anchors = jax.numpy.asarray(detection.anchors.boxes(360, 480))
    step = _make_step(cellscan.Recipe(ema=None), det._network, det.card, anchors, optimizer)
    images = rng.integers(0, 256, (int(count), 360, 480, 3), np.uint8)
    targets = np.full((int(count), 128, 5), -1, np.float32)
    corner = rng.uniform(0, 320, (int(count), 110, 2))
    targets[:, :110] = np.concatenate([corner, corner + 30, np.zeros((int(count), 110, 1))], -1)
    state = init_state(det._network, optimizer)

    def once() -> None:
        nonlocal state
        state, metrics = step(state, images, targets, jax.random.key(0))
        metrics["loss"].block_until_ready()

    return 1e3 * seconds(once, times=8, warm=2)


def suppression() -> float:
    """Return milliseconds of the suppression of 10,000 boxes."""
    from cellscan.detection.suppression import suppress

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 480, (10_000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(15, 40, (10_000, 2))], 1).astype(np.float32)
    scores = rng.random(10_000).astype(np.float32)
    run = jax.jit(lambda boxes, scores: suppress(boxes, scores, overlap=0.5, most=300))
    return 1e3 * seconds(lambda: run(boxes, scores).block_until_ready())


def one(net: str) -> float:
    """Return milliseconds of one array through `predict`."""
    clf = cellscan.Classifier(make(net), image_size=SIZE, view="cell")  # type: ignore[arg-type]
    image = batch(1)[0][0]
    return 1e3 * seconds(lambda: clf.predict(image), times=300, warm=30)


def bare(net: str) -> float:
    """Return milliseconds of the same, by the jitted function alone."""
    network = Network(make(net))
    forward, members = make_probabilities(network, "cell", Normalization()), (network.weights(),)
    image, temperature = batch(1)[0], np.float32(1)
    return 1e3 * seconds(lambda: np.asarray(forward(members, temperature, image)), times=300, warm=30)


def files(folder: str) -> float:
    """Return images a second from PNG files to probabilities."""
    clf = cellscan.Classifier("small_cnn", image_size=SIZE, view="cell")
    clf.predict(batch()[0])
    start = time.perf_counter()
    count = len(clf.predict(folder, progress=False))
    return count / (time.perf_counter() - start)


def backbone(net: str) -> nnx.Module:
    """Return a network with a dense head behind the average over the image, as a classifier has it."""
    return build(net, 2, weights=None, seed=0, pooled=True)[0]


def forward(net: str, size: str, count: str, dtype: str = "float32") -> float:
    """Return milliseconds of a backbone's probabilities of a batch of uint8 images."""
    network = Network(backbone(net))
    weights = network.weights()
    weights["params"] = {name: leaf.astype(dtype) for name, leaf in weights["params"].items()}

    @jax.jit
    def run(weights: Weights, images: jax.Array) -> jax.Array:
        x = show(images, "cell", Normalization()).astype(dtype)
        return jax.nn.softmax(network.logits(weights, x).astype("float32"))

    images = jax.device_put(batch(int(count), int(size))[0])
    return 1e3 * seconds(lambda: np.asarray(run(weights, images)))


def tune(net: str, size: str, count: str, dtype: str = "float32") -> float:
    """Return milliseconds of a fine-tuning step."""
    return 1e3 * seconds(training(backbone(net), *batch(int(count), int(size)), dtype), times=8, warm=2)


if __name__ == "__main__":
    versions = f"cellscan {cellscan.__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    tasks = {"train": train, "epoch": epoch, "one": one, "bare": bare, "files": files, "count": count,
             "rate": rate, "detect": detect, "detect_step": detect_step, "suppression": suppression}  # fmt: skip
    answer({**tasks, "forward": forward, "tune": tune}, versions)
