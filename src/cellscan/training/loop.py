"""The training loop: train an epoch, validate, stop early, write the checkpoint, and return the weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import numpy as np

from cellscan.card import Card
from cellscan.data.values import as_path, check_flag, check_whole
from cellscan.errors import ArgumentError, TrainingError
from cellscan.models.network import Weights
from cellscan.process import use_jax
from cellscan.progress import Progress
from cellscan.tasks.programs import Task
from cellscan.tasks.recipe import Recipe, make_rates
from cellscan.training.checkpoint import Checkpoint, Progressed
from cellscan.training.devices import Examples, local, make_epoch
from cellscan.training.history import History, describe
from cellscan.training.step import begin, trained_weights

Features: TypeAlias = Callable[[Examples, str, bool], Examples]
"""(images, name of the set, show progress) -> inputs of the network."""


@dataclass(frozen=True)
class Call:
    """The arguments of a `fit`, except data and recipe.

    Attributes
    ----------
    epochs, batch_size : int
        At least 1.
    checkpoint : path or None
    resume, progress : bool

    Raises
    ------
    ArgumentError
        If a value is invalid, or `resume` is True without a checkpoint folder.
    """

    epochs: int
    batch_size: int
    checkpoint: str | os.PathLike[str] | None
    resume: bool
    progress: bool

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1))
        for name in ("resume", "progress"):
            check_flag(name, getattr(self, name))
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", as_path("checkpoint", self.checkpoint))
        if self.resume and self.checkpoint is None:
            raise ArgumentError("resume=True continues from a checkpoint; pass its folder: checkpoint=...")

    def options(self, recipe: Recipe) -> dict[str, Any]:
        """Return the training options that a card stores."""
        return {**recipe.to_dict(), "batch_size": self.batch_size}

    def open(self, plan: dict[str, Any]) -> Checkpoint | None:
        """Return the checkpoint for a plan, or None without a checkpoint folder."""
        if self.checkpoint is None:
            return None
        return Checkpoint(self.checkpoint, {**plan, "epochs": self.epochs}, resume=self.resume)


def train(
    call: Call,
    card: Card,
    after: Card,
    task: Task,
    predict_task: Task,
    weights: Weights,
    examples: tuple[Examples, Examples | None],
    *,
    recipe: Recipe,
    constants: Any,
    keep: Callable[[Weights, Card], None],
    features: Features | None = None,
    plan: dict[str, Any] | None = None,
) -> History:
    """Train a model, and call `keep` with its weights and card after every epoch.

    Parameters
    ----------
    card, after : Card
        The card before training, and the card after it; each epoch adds its metrics to the second.
    keep : callable
        Function that stores the weights and the card in the model.
    plan : dict, optional
        Entries that must be equal in a checkpoint, in addition to the card's kind, seed, recipe and data.
    """
    agreed = {**card.kind(), "seed": card.seed, "recipe": after.recipe, **after.data, **(plan or {})}
    history = History([])
    for at in run(
        task, predict_task, weights, *examples, recipe=recipe, epochs=call.epochs, batch_size=call.batch_size,
        constants=constants, features=features, seed=card.seed, epochs_before=card.epochs,
        checkpoint=call.open(agreed), progress=call.progress,
    ):  # fmt: skip
        current = after
        if at.records:
            history.records[:] = at.records
            last = {k: v for k, v in at.records[-1].items() if k not in ("seconds", "images_per_second")}
            current = replace(after, epochs=int(last["epoch"]), metrics={"fit": last})
        keep(at.kept, current)
    return history


def run(
    task: Task,
    predict_task: Task,
    weights: Weights,
    train: Examples,
    validation: Examples | None,
    *,
    recipe: Recipe,
    epochs: int,
    batch_size: int,
    constants: Any,
    features: Features | None = None,
    seed: int,
    epochs_before: int,
    checkpoint: Checkpoint | None,
    progress: bool,
) -> Iterator[Progressed]:
    """Train, and yield the progress after every epoch, and at the start if a checkpoint is resumed.

    `predict_task` is the task with the options for prediction; it computes the validation metrics. `features` maps
    images to the inputs of the network, if these are not the images. If the loss is not finite, the function yields
    the last finite weights and then raises `TrainingError`.
    """
    use_jax()
    steps = -(-len(train) // batch_size)
    at = Progressed(state=begin(task, weights), kept=weights, best={} if recipe.patience is None else weights)
    if checkpoint is not None:
        at = checkpoint.load(at)
    _check_processes(len(at.records))
    if at.records:
        epochs_before = int(at.records[0]["epoch"]) - 1
        yield at
    if at.finished:
        return
    if features is not None:
        train = features(train, "train", progress)
        validation = None if validation is None else features(validation, "validation", progress)
    run_epoch, last = make_epoch(task, train, batch_size, constants=constants), epochs_before + epochs
    rates = make_rates(recipe, steps * epochs).reshape(epochs, steps)
    left = (epochs - len(at.records)) * steps * batch_size
    with Progress("training", left, show=progress and jax.process_index() == 0, delay=0.5) as bar:
        for number in range(len(at.records), epochs):
            epoch, start = epochs_before + number + 1, time.monotonic()

            def tick(images: int, loss: float | None, title: str = f"epoch {epoch}") -> None:
                bar.advance(images, title if loss is None else f"{title}, loss {loss:.4f}")

            order = order_of(len(train), steps * batch_size, seed, epoch)
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            at.state, metrics = run_epoch(at.state, order, key, rates[number], tick)
            at.kept = local(trained_weights(at.state))  # A copy, because the next step consumes the state.
            if not metrics["finite"].all():
                yield at
                raise _not_finite(metrics, epoch)
            names = [name for name in metrics if name not in ("grad_norm", "finite")]
            record = {"epoch": epoch, **{name: float(metrics[name].mean()) for name in sorted(names, reverse=True)}}
            record["images_per_second"] = len(order) / (time.monotonic() - start)
            if validation is not None:
                record |= _of_first_process(predict_task.validate(at.kept, validation, constants))
            record["seconds"] = time.monotonic() - start
            at.records.append(record)
            stop = recipe.patience is not None and _update_best(at, record, recipe)
            at.finished = stop or number + 1 == epochs
            if at.finished and recipe.patience is not None:
                at.kept = at.best
            if checkpoint is not None:
                checkpoint.save(at)
            yield at  # Immediately, so that after Ctrl-C the disk and the classifier have the same epoch.
            bar.line(describe(record, last))
            if stop:
                bar.line(
                    f"no improvement of {recipe.monitor} for {recipe.patience} epochs: restored the weights of epoch "
                    f"{at.best_epoch}"
                )
                return


def _update_best(at: Progressed, record: dict[str, float], recipe: Recipe) -> bool:
    """Store the best weights so far; return whether to stop early."""
    score = record[f"validation_{recipe.monitor}"] * (-1 if recipe.monitor == "loss" else 1)
    if score > at.best_score:
        at.best_score, at.best_epoch, at.best = score, int(record["epoch"]), at.kept
    return record["epoch"] - at.best_epoch >= (recipe.patience or 0)


def _not_finite(metrics: dict[str, np.ndarray], epoch: int) -> TrainingError:
    first = int(metrics["finite"].argmin())
    return TrainingError(
        f"the loss or a gradient is not finite at step {first + 1} of epoch {epoch} (loss {metrics['loss'][first]}). "
        "The model keeps the weights of the previous step. Try a lower learning_rate, or check the loss function "
        "and the images of that batch"
    )


def order_of(count: int, total: int, seed: int, epoch: int) -> np.ndarray:
    """Return a random order of all images; the last batch is filled up from the start of the order."""
    return np.resize(np.random.default_rng([seed, epoch]).permutation(count), total)


def _check_processes(epochs: int) -> None:
    """Raise `ArgumentError` unless all processes of a training start from the same epoch."""
    if jax.process_count() == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    counts = np.asarray(process_allgather(np.array(epochs))).tolist()
    if len(set(counts)) > 1:
        raise ArgumentError(
            f"the processes read checkpoints of {counts} epochs; expected the same for all. "
            "Put the checkpoint folder on a disk that all processes share"
        )


def _of_first_process(record: dict[str, float]) -> dict[str, float]:
    """Return the metrics of the first process.

    Machines may round differently, but all processes must stop at the same epoch.
    """
    if jax.process_count() == 1:
        return record
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return dict(zip(record, np.asarray(broadcast_one_to_all(np.array(list(record.values())))).tolist(), strict=True))
