"""Epochs over pixels. Where and how batches reach the device is decided here, once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import TrainingError
from cellscan.inference import Forward, batches, run_all
from cellscan.models.network import Network, Weights
from cellscan.progress import Progress
from cellscan.training.augment import make_augment
from cellscan.training.recipe import Recipe, class_weights, make_loss, make_optimizer
from cellscan.training.step import Step, TrainState, init_state, make_train_step
from cellscan.views import Normalization

if TYPE_CHECKING:
    from cellscan.data.pixels import Pixels


@dataclass(frozen=True)
class Examples:
    """Images and labels to train or validate on."""

    pixels: Pixels
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Epoch:
    """What an epoch left: its record, the weights a classifier should hold now, and an error that ends it all."""

    record: dict[str, float]
    weights: Weights
    error: TrainingError | None = None


def run(
    network: Network,
    weights: Weights,
    train: Examples,
    validation: Examples | None,
    *,
    recipe: Recipe,
    epochs: int,
    batch_size: int,
    class_names: Sequence[str],
    positive: int | None,
    view: str,
    normalization: Normalization,
    forward: Forward,
    seed: int,
    epochs_before: int,
    progress: bool,
) -> Iterator[Epoch]:
    """Train, and yield after every epoch. The last one yielded has the weights to keep."""
    steps = -(-len(train) // batch_size)
    optimizer = make_optimizer(recipe, steps * epochs)
    step = make_train_step(
        network,
        optimizer,
        make_loss(recipe),
        make_augment(recipe.augment),
        view=view,
        normalization=normalization,
        class_weight=class_weights(recipe, train.labels, class_names),
        ema=recipe.ema,
        dtype=recipe.dtype,
    )
    state = init_state(network, optimizer, weights=weights, average=recipe.ema is not None)
    best: tuple[float, int, Weights] | None = None
    with Progress("training", steps * epochs * batch_size, show=progress, delay=0.5) as bar:
        for number in range(epochs):
            epoch, start = epochs_before + number + 1, time.monotonic()
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            order = _order(len(train), steps * batch_size, seed, epoch)
            state, record, error = _epoch(step, state, train, order, batch_size, key, bar, f"epoch {epoch}")
            record = {"epoch": epoch, **record, "images_per_second": len(order) / (time.monotonic() - start)}
            kept = _kept(state)
            if error is not None:
                yield Epoch(record, kept, error)
                return
            if validation is not None:
                record |= _validate(forward, kept, validation, positive)
            record["seconds"] = time.monotonic() - start
            bar.line(describe(record, epochs_before + epochs))
            stop = False
            if recipe.patience is not None:
                score = record[f"validation_{recipe.monitor}"] * (-1 if recipe.monitor == "loss" else 1)
                if best is None or score > best[0]:
                    best = (score, number, kept)
                stop = number - best[1] >= recipe.patience
                kept = best[2] if stop or number == epochs - 1 else kept
            yield Epoch(record, kept)
            if best is not None and stop:
                bar.line(
                    f"no better {recipe.monitor} for {recipe.patience} epochs: "
                    f"back to epoch {epochs_before + best[1] + 1}"
                )
                return


def _order(count: int, total: int, seed: int, epoch: int) -> np.ndarray:
    """Return a fresh order of all images; the last batch is filled up from the front of the order."""
    return np.resize(np.random.default_rng([seed, epoch]).permutation(count), total)


def _epoch(
    step: Step,
    state: TrainState,
    train: Examples,
    order: np.ndarray,
    batch_size: int,
    key: jax.Array,
    bar: Progress,
    title: str,
) -> tuple[TrainState, dict[str, float], TrainingError | None]:
    collected: list[dict[str, jax.Array]] = []
    for number, start in enumerate(range(0, len(order), batch_size)):
        rows = order[start : start + batch_size]
        images, labels = train.pixels[rows], train.labels[rows]
        state, metrics = step(state, images, labels, jax.random.fold_in(key, number))
        collected.append(metrics)
        # The step before this one is done or nearly so: fetching it keeps the queue short.
        note = f"{title}, loss {float(collected[-2]['loss']):.4f}" if number else title
        bar.advance(len(rows), note)
    values = {name: np.array([float(m[name]) for m in collected]) for name in ("loss", "accuracy", "finite")}
    error = None
    if not values["finite"].all():
        first = int(values["finite"].argmin())
        error = TrainingError(
            f"the loss or a gradient is not finite at step {first + 1} of {title} (loss {values['loss'][first]}). "
            "The classifier keeps the weights of the step before. Try a lower learning_rate, or look at the loss "
            "and the images of that batch"
        )
    return state, {name: float(values[name].mean()) for name in ("loss", "accuracy")}, error


def _kept(state: TrainState) -> Weights:
    """Copy out the weights that a classifier should hold; the state itself is donated to the next step."""
    return jax.tree.map(jnp.array, {"params": state.average or state.params, "stats": state.stats})


def _validate(forward: Forward, weights: Weights, validation: Examples, positive: int | None) -> dict[str, float]:
    probabilities = run_all(forward, (weights,), 1.0, batches(validation.pixels))
    labels = validation.labels
    chosen = probabilities[np.arange(len(labels)), labels]
    record = {
        "validation_loss": float(-np.log(np.maximum(chosen, 1e-7)).mean()),
        "validation_accuracy": float((probabilities.argmax(1) == labels).mean()),
    }
    if positive is not None and 0 < (labels == positive).sum() < len(labels):
        from sklearn.metrics import roc_auc_score

        record["validation_roc_auc"] = float(roc_auc_score(labels == positive, probabilities[:, positive]))
    return record


def describe(record: dict[str, Any], last: int) -> str:
    """Return the line of one epoch."""
    text = f"epoch {record['epoch']:>3} of {last}: loss {record['loss']:.4f}, accuracy {record['accuracy']:.4f}"
    if "validation_accuracy" in record:
        text += f" | validation loss {record['validation_loss']:.4f}, accuracy {record['validation_accuracy']:.4f}"
    if "validation_roc_auc" in record:
        text += f", ROC AUC {record['validation_roc_auc']:.4f}"
    return f"{text} | {record['images_per_second']:,.0f} images/s"
