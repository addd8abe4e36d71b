"""cellscan's side of `benchmarks/speed.py`."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from PIL import Image
from shared import BATCH, SIZE, answer, batch, seconds, since_start

import cellscan
from cellscan.models.convolution import conv
from cellscan.models.network import Network, Weights, weights_of
from cellscan.models.registry import build
from cellscan.tasks.classification import ClassificationTask, Settings
from cellscan.tasks.detection import DetectionTask
from cellscan.tasks.programs import predict, train_step, trained_by
from cellscan.training import init_state, make_train_step
from cellscan.training.devices import Examples, make_epoch
from cellscan.training.step import begin


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
    step = make_train_step(model, optimizer, background="keep", dtype=dtype)
    state = init_state(model, optimizer)

    def once() -> None:
        nonlocal state
        state, metrics = step(state, x, y, key)
        metrics["loss"].block_until_ready()

    return once


def train(net: str, dtype: str = "float32", size: str = str(BATCH)) -> float:
    """Return training steps' images a second."""
    return int(size) / seconds(training(make(net), *batch(int(size)), dtype))


def adamw(model: nnx.Module, dtype: str) -> ClassificationTask:
    """Return the task that the steps above have, of an optimiser that takes its rate from outside."""
    recipe = cellscan.Recipe(
        clip_norm=None, label_smoothing=0.0, augment="none", background=None, ema=None, dtype=dtype
    )  # fmt: skip
    return trained_by(ClassificationTask(Network(model), background="keep"), recipe)


def epoch(net: str, dtype: str, size: str) -> float:
    """Return images a second of whole epochs of 20,480 images that lie on the device, an epoch a dispatch."""
    model, count = make(net), 20_480
    images, labels = batch(count)
    cells = cellscan.CellDataset.from_arrays(images, labels)
    task = adamw(model, dtype)
    run = make_epoch(task, Examples(cells.images(SIZE), cells.labels), int(size), resident=True)
    state, key, order = begin(task, weights_of(model)), jax.random.key(0), np.random.default_rng(0).permutation(count)
    rates = np.full(count // int(size), 1e-3, np.float32)

    def once() -> None:
        nonlocal state
        state, _ = run(state, order, key, rates, lambda images, loss: None)

    return count / seconds(once, times=5, warm=1)


def count(net: str, size: str) -> float:
    """Return the operations of a training step, as XLA counts them, in 10^9."""
    model = make(net)
    task, (images, labels) = adamw(model, "bfloat16"), batch(int(size))
    state, key = begin(task, weights_of(model)), jax.random.key(0)
    cost: Any = train_step.lower(task, state, images, labels, key, np.float32(1e-3), None).compile().cost_analysis()
    return cost["flops"] / 1e9


def rate() -> float:
    """Return 10^12 operations a second of a product of matrices."""
    a = jax.random.normal(jax.random.key(0), (8192, 8192), "bfloat16")
    product = jax.jit(lambda a: a @ a)
    return 2 * 8192**3 / seconds(lambda: product(a).block_until_ready()) / 1e12


def detect(count: str, boxes: str = "") -> float:
    """Return milliseconds of what `retinanet_small` says of a batch of fields, or of the boxes that are left of it."""
    task, weights, anchors = detector()
    images = np.random.default_rng(0).integers(0, 256, (int(count), 360, 480, 3), np.uint8)
    raw = jax.jit(lambda weights, images: task.network.logits(weights, task.show(images)))

    def once() -> None:
        jax.block_until_ready(predict(task, (weights,), anchors, images) if boxes else raw(weights, images))

    return 1e3 * seconds(once)


def detector() -> tuple[DetectionTask, Weights, np.ndarray]:
    """Return the task of `retinanet_small`, its first weights and its anchors."""
    det = cellscan.Detector("retinanet_small")
    detection = det.card.detection
    assert detection is not None
    return DetectionTask(Network(det.model)), weights_of(det.model), detection.anchors.boxes(360, 480)


def detect_step(count: str) -> float:
    """Return milliseconds of a whole training step on fields of 110 cells."""
    plain, weights, anchors = detector()
    task, rng = trained_by(plain, cellscan.Recipe(ema=None)), np.random.default_rng(0)
    images = rng.integers(0, 256, (int(count), 360, 480, 3), np.uint8)
    targets = np.full((int(count), 128, 5), -1, np.float32)
    corner = rng.uniform(0, 320, (int(count), 110, 2))
    targets[:, :110] = np.concatenate([corner, corner + 30, np.zeros((int(count), 110, 1))], -1)
    state, key, rate = begin(task, weights), jax.random.key(0), np.float32(1e-3)

    def once() -> None:
        nonlocal state
        state, metrics = train_step(task, state, images, targets, key, rate, anchors)
        metrics["loss"].block_until_ready()

    return 1e3 * seconds(once, times=8, warm=2)


def suppression() -> float:
    """Return milliseconds of the suppression of 10,000 boxes."""
    from cellscan.detection.suppression import suppress

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 480, (10_000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(15, 40, (10_000, 2))], 1).astype(np.float32)
    scores = rng.random(10_000).astype(np.float32)
    run = jax.jit(lambda boxes, scores: suppress(boxes, scores, iou_threshold=0.5, max_detections=300))
    return 1e3 * seconds(lambda: run(boxes, scores).block_until_ready())


def one(net: str) -> float:
    """Return milliseconds of one array through `predict`."""
    clf = cellscan.Classifier(make(net), image_size=SIZE, background="keep")  # type: ignore[arg-type]
    image = batch(1)[0][0]
    return 1e3 * seconds(lambda: clf.predict(image), times=300, warm=30)


def bare(net: str) -> float:
    """Return milliseconds of the same, by the jitted function alone."""
    model = make(net)
    task, members, image = ClassificationTask(Network(model), background="keep"), (weights_of(model),), batch(1)[0]
    return 1e3 * seconds(
        lambda: np.asarray(predict(task, members, Settings(), image).probabilities), times=300, warm=30
    )


def first_answer() -> float:
    """Return seconds from the start of this process to the probabilities of one array."""
    cellscan.Classifier(make("plain"), image_size=SIZE, background="keep").predict(batch(1)[0][0])
    return since_start()


def nth_predict(which: str) -> float:
    """Return seconds of the first prediction of the first or second classifier of a kind."""
    image, spent = batch(1, 32)[0][0], 0.0
    for seed in range(int(which)):
        clf = cellscan.Classifier("small_cnn", image_size=32, seed=seed)
        start = time.perf_counter()
        clf.predict(image)
        spent = time.perf_counter() - start
    return spent


def nth_fit(which: str) -> float:
    """Return seconds of a short `fit` over those of its steps: of the first or second classifier, or of one again."""
    cells, spent = cellscan.synthetic_cells(200, seed=0), 0.0
    cells.images(32)
    clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
    for number in range(2 if which == "again" else int(which)):
        if which != "again":
            clf = cellscan.Classifier("small_cnn", image_size=32, seed=number)
        start = time.perf_counter()
        # Longer the second time, which is no other program.
        history = clf.fit(cells, epochs=2 + number, progress=False)
        # Of epochs that compile nothing, so that what is compiled in the first one counts.
        spent = time.perf_counter() - start - (2 + number) * history["seconds"][-1]
    return spent


def folds() -> float:
    """Return how many programs of a training step five folds of unequal size take."""
    heard: list[str] = []

    def listen(event: str, duration_secs: float, **details: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            heard.append(str(details.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    cells = cellscan.synthetic_cells(500, seed=0)
    cellscan.cross_validate("small_cnn", cells, folds=5, image_size=16, epochs=1, progress=False)
    return sum(name in ("step", "jit_step", "jit(step)") for name in heard)


def command(state: str) -> float:
    """Return seconds of the command line on one image: the first time, or the second."""
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(batch(1, 130)[0][0]).save(f"{folder}/one.png")
        env = {**os.environ, "CELLSCAN_CACHE": folder}
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        spent = 0.0
        for _ in range(1 if state == "cold" else 2):
            start = time.perf_counter()
            arguments = [sys.executable, "-m", "cellscan", "predict", f"{folder}/one.png"]
            subprocess.run(arguments, env=env, check=True, capture_output=True)
            spent = time.perf_counter() - start
    return spent


def files(folder: str) -> float:
    """Return images a second from PNG files to probabilities."""
    clf = cellscan.Classifier("small_cnn", image_size=SIZE, background="keep")
    clf.predict(batch()[0])
    start = time.perf_counter()
    count = len(clf.predict(folder, progress=False))
    return count / (time.perf_counter() - start)


def backbone(net: str) -> nnx.Module:
    """Return a network with a dense head behind the average over the image, as a classifier has it."""
    return build(net, 2, weights=None, seed=0, pooled=True)[0]


def forward(net: str, size: str, count: str, dtype: str = "float32") -> float:
    """Return milliseconds of a backbone's probabilities of a batch of uint8 images."""
    model = backbone(net)
    task, weights = ClassificationTask(Network(model), background="keep"), weights_of(model)
    weights["params"] = {name: leaf.astype(dtype) for name, leaf in weights["params"].items()}

    @jax.jit
    def run(weights: Weights, images: jax.Array) -> jax.Array:
        return jax.nn.softmax(task.network.logits(weights, task.show(images).astype(dtype)).astype("float32"))

    images = jax.device_put(batch(int(count), int(size))[0])
    return 1e3 * seconds(lambda: np.asarray(run(weights, images)))


def tune(net: str, size: str, count: str, dtype: str = "float32") -> float:
    """Return milliseconds of a fine-tuning step."""
    return 1e3 * seconds(training(backbone(net), *batch(int(count), int(size)), dtype), times=8, warm=2)


if __name__ == "__main__":
    versions = f"cellscan {cellscan.__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    tasks = {"train": train, "epoch": epoch, "one": one, "bare": bare, "files": files, "count": count,
             "rate": rate, "detect": detect, "detect_step": detect_step, "suppression": suppression}  # fmt: skip
    tasks |= {"first_answer": first_answer, "nth_predict": nth_predict, "nth_fit": nth_fit, "folds": folds}
    answer({**tasks, "command": command, "forward": forward, "tune": tune}, versions)
