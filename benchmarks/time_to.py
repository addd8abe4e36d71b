"""Seconds to an accuracy of 0.96 on fold 0, compared with the tutorials' recipe: a frozen VGG16 and a dense head.

    python benchmarks/time_to.py DATA --folds folds.csv --vgg vgg16.safetensors

Images have 64 px. The frozen VGG16 (ImageNet weights with the tensor names of timm) computes the features of all cells
once; a head of 256 units is trained on these features with Adam. Accuracy is measured on the fold after every epoch; no
option is chosen by it. The time includes compilation, but not decoding. The last column is the median time of the
epochs after the first, without validation, times the number of epochs.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neural_network import MLPClassifier

import cellscan

GOAL = 0.96


def tutorial(train: cellscan.CellDataset, test: cellscan.CellDataset, path: Path, epochs: int) -> list[str]:
    """Return the row of the frozen VGG16."""
    clf = cellscan.Classifier("vgg16", weights=path, image_size=64)
    net, normalize = clf.model, clf.card.normalization
    run = jax.jit(lambda images: net.features(normalize(images.astype(jnp.float32) / 255))["stage5"].reshape(-1, 2048))

    def features(cells: cellscan.CellDataset) -> np.ndarray:
        pixels = cells.images(64)
        starts = range(0, len(cells), 64)
        return np.concatenate([np.asarray(run(jnp.asarray(pixels[start : start + 64]))) for start in starts])

    start = time.monotonic()
    train_features, test_features = features(train), features(test)
    once = (time.monotonic() - start) * len(train) / (len(train) + len(test))
    head: Any = MLPClassifier((256,), learning_rate_init=1e-3, random_state=0).set_params(batch_size=64)
    reached, start = "not reached", time.monotonic()
    scores: list[float] = []
    for epoch in range(1, epochs + 1):
        head.partial_fit(train_features, train.labels, classes=(0, 1))
        scores.append(float((head.predict(test_features) == test.labels).mean()))
        if scores[-1] >= GOAL and reached == "not reached":
            reached = f"{once + time.monotonic() - start:,.0f} s, epoch {epoch}"
    total = once + time.monotonic() - start
    return ["frozen VGG16, dense head", reached, f"{max(scores):.4f}", f"{total:,.1f} s, {epochs} epochs", ""]


def ours(train: cellscan.CellDataset, test: cellscan.CellDataset, args: argparse.Namespace, size: int) -> list[str]:
    """Return the row of `small_cnn`."""
    clf = cellscan.Classifier("small_cnn", image_size=64, seed=0)
    recipe = cellscan.Recipe(dtype=args.dtype)
    history = clf.fit(train, validation=test, epochs=args.epochs, batch_size=size, recipe=recipe)
    scores, spent = history["validation_accuracy"], np.cumsum(history["seconds"])
    shown = -(-len(train) // size) * size
    warm = float(np.median(shown / np.array(history["images_per_second"])[1:])) * args.epochs
    first = next((number for number, score in enumerate(scores) if score >= GOAL), None)
    reached = "not reached" if first is None else f"{spent[first]:,.0f} s, epoch {first + 1}"
    name = f"small_cnn, default recipe, {args.dtype}, batch {size}"
    return [name, reached, f"{max(scores):.4f}", f"{spent[-1]:,.1f} s, {args.epochs} epochs", f"{warm:,.1f} s"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--vgg", type=Path, help="safetensors; the row is left out without it")
    parser.add_argument("--epochs", type=int, default=4, help="of small_cnn; the schedule ends with them")
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    train, test = next(iter(cellscan.load_malaria(args.data).folds(args.folds)))
    for cells in (train, test):
        cells.images(64)  # Decode before the time measurement starts.
    rows = [ours(train, test, args, size) for size in args.batch]
    rows += [tutorial(train, test, args.vgg, 10)] if args.vgg else []
    print(f"| fold 0, 64 px | time to {GOAL} | best accuracy | all of it | training alone, compiled |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    print(f"\njax {jax.__version__}, {jax.devices()}, Python {platform.python_version()}, {platform.machine()}")


if __name__ == "__main__":
    main()
