"""Epochs, one after another: train, validate, keep, stop early, write the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cellscan.errors import ArgumentError, TrainingError
from cellscan.inference import Forward, batches, run_all
from cellscan.models.network import Network, Weights
from cellscan.progress import Progress
from cellscan.training.checkpoint import Checkpoint, Progressed
from cellscan.training.devices import Examples, local, make_epoch
from cellscan.training.recipe import Recipe, make_optimizer
from cellscan.training.step import Step, init_state, trained_weights

if TYPE_CHECKING:
    import optax


def run(
    network: Network,
    weights: Weights,
    train: Examples,
    validation: Examples | None,
    *,
    recipe: Recipe,
    epochs: int,
    batch_size: int,
    make_step: Callable[[optax.GradientTransformation], Step],
    validate: Callable[[Weights, Examples], dict[str, float]],
    features: Callable[[Examples, str, bool], Examples] | None,
    seed: int,
    epochs_before: int,
    checkpoint: Checkpoint | None,
    progress: bool,
) -> Iterator[Progressed]:
    """Train, and yield how far it has come: after every epoch, and first where a checkpoint is gone on with.

    `make_step` gives the step of an optimiser, `validate` the figures of weights on a validation set, which are
    named ``validation_...``. `features` turns images into what the network takes, where that is not the images
    themselves. Where the loss is no longer finite, the last good weights are yielded, then `TrainingError` is raised.
    """
    steps = -(-len(train) // batch_size)
    optimizer = make_optimizer(recipe, steps * epochs, network.parts)
    step = make_step(optimizer)
    at = Progressed(
        state=init_state(network, optimizer, weights=weights, average=recipe.ema is not None),
        kept=weights,
        best={} if recipe.patience is None else weights,
    )
    if checkpoint is not None:
        at = checkpoint.load(at)
    _check_together(len(at.records))
    if at.records:
        epochs_before = int(at.records[0]["epoch"]) - 1
        yield at
    if at.finished:
        return
    if features is not None:
        train = features(train, "train", progress)
        validation = None if validation is None else features(validation, "validation", progress)
    run_epoch, last = make_epoch(step, train, batch_size), epochs_before + epochs
    left = (epochs - len(at.records)) * steps * batch_size
    with Progress("training", left, show=progress and jax.process_index() == 0, delay=0.5) as bar:
        for number in range(len(at.records), epochs):
            epoch, start = epochs_before + number + 1, time.monotonic()

            def tick(images: int, loss: float | None, title: str = f"epoch {epoch}") -> None:
                bar.advance(images, title if loss is None else f"{title}, loss {loss:.4f}")

            order = order_of(len(train), steps * batch_size, seed, epoch)
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            at.state, metrics = run_epoch(at.state, order, key, tick)
            at.kept = local(trained_weights(at.state))  # copies: the state itself is donated to the next step
            if not metrics["finite"].all():
                yield at
                raise _not_finite(metrics, epoch)
            shown = [name for name in metrics if name not in ("grad_norm", "finite")]
            record = {"epoch": epoch, **{name: float(metrics[name].mean()) for name in sorted(shown, reverse=True)}}
            record["images_per_second"] = len(order) / (time.monotonic() - start)
            if validation is not None:
                record |= _agreed(validate(at.kept, validation))
            record["seconds"] = time.monotonic() - start
            at.records.append(record)
            stop = recipe.patience is not None and _watch(at, record, recipe)
            at.finished = stop or number + 1 == epochs
            if at.finished and recipe.patience is not None:
                at.kept = at.best
            if checkpoint is not None:
                checkpoint.save(at)
            yield at  # at once, so that Ctrl-C finds the same epoch on disk and in the classifier
            bar.line(describe(record, last))
            if stop:
                bar.line(f"no better {recipe.monitor} for {recipe.patience} epochs: back to epoch {at.best_epoch}")
                return


def _watch(at: Progressed, record: dict[str, float], recipe: Recipe) -> bool:
    """Keep the best weights so far; return whether patience has run out."""
    score = record[f"validation_{recipe.monitor}"] * (-1 if recipe.monitor == "loss" else 1)
    if score > at.best_score:
        at.best_score, at.best_epoch, at.best = score, int(record["epoch"]), at.kept
    return record["epoch"] - at.best_epoch >= (recipe.patience or 0)


def _not_finite(metrics: dict[str, np.ndarray], epoch: int) -> TrainingError:
    first = int(metrics["finite"].argmin())
    return TrainingError(
        f"the loss or a gradient is not finite at step {first + 1} of epoch {epoch} (loss {metrics['loss'][first]}). "
        "The classifier keeps the weights of the step before. Try a lower learning_rate, or look at the loss "
        "and the images of that batch"
    )


def check_call(epochs: int, batch_size: int, checkpoint: Any, *, resume: bool) -> None:
    """Raise unless these arguments of a `fit` make sense."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ArgumentError(f"{name} is {value!r}; expected a whole number from 1")
    if resume and checkpoint is None:
        raise ArgumentError("resume=True goes on with a checkpoint; pass its folder: checkpoint=...")


def order_of(count: int, total: int, seed: int, epoch: int) -> np.ndarray:
    """Return a fresh order of all images; the last batch is filled up from the front of the order."""
    return np.resize(np.random.default_rng([seed, epoch]).permutation(count), total)


def _check_together(epochs: int) -> None:
    """Raise unless all processes of a training start from the same epoch."""
    if jax.process_count() == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    found = np.asarray(process_allgather(np.array(epochs))).tolist()
    if len(set(found)) > 1:
        raise ArgumentError(
            f"the processes found checkpoints of {found} epochs; "
            "put the checkpoint folder on a disk that all of them share"
        )


def _agreed(record: dict[str, float]) -> dict[str, float]:
    """Return the figures of the first process: machines may round differently, and must stop at the same epoch."""
    if jax.process_count() == 1:
        return record
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return dict(zip(record, np.asarray(broadcast_one_to_all(np.array(list(record.values())))).tolist(), strict=True))


def validate_labels(forward: Forward, weights: Weights, validation: Examples, positive: int | None) -> dict[str, float]:
    """Return loss, accuracy and, with two classes, ROC AUC of a classifier on a validation set."""
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
    names = {"roc_auc": "ROC AUC"}

    def listed(prefix: str) -> str:
        rest = {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}
        skipped = ("epoch", "seconds", "images_per_second")
        return ", ".join(
            f"{names.get(name, name.replace('_', ' '))} {value:.4f}"
            for name, value in rest.items()
            if name not in skipped and not name.startswith("validation_")
        )

    text = f"epoch {record['epoch']:>3} of {last}: {listed('')}"
    if any(name.startswith("validation_") for name in record):
        text += f" | validation {listed('validation_')}"
    return f"{text} | {record['images_per_second']:,.0f} images/s"
