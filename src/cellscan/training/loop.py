"""The training loop: train an epoch, validate, stop early, write the checkpoint, and yield the metrics."""

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
from cellscan.training.history import describe
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
) -> Iterator[dict[str, float]]:
    """Train a model, and yield the metrics of every epoch, after those of the epochs in a checkpoint.

    Parameters
    ----------
    card, after : Card
        The card before training, and the card after it; each epoch adds its metrics to the second.
    predict_task : Task
        The task with the options for prediction; it computes the validation metrics.
    examples : tuple
        Training set, and validation set or None.
    keep : callable
        Function that stores the weights and the card in the model. It is called before an epoch is yielded.
    features : callable, optional
        Function from images to the inputs of the network, if these are not the images.
    plan : dict, optional
        Entries that must be equal in a checkpoint, in addition to the card's kind, seed, recipe and data.

    Raises
    ------
    TrainingError
        If the loss is not finite; the model has the last finite weights.
    """
    use_jax()
    (training, validation), epochs, seed = examples, call.epochs, card.seed
    steps = -(-len(training) // call.batch_size)
    checkpoint = call.open({**card.kind(), "seed": seed, "recipe": after.recipe, **after.data, **(plan or {})})
    at = Progressed(state=begin(task, weights), kept=weights, best={} if recipe.patience is None else weights)
    if checkpoint is not None:
        at = checkpoint.load(at)
    _check_processes(len(at.records))
    before = int(at.records[0]["epoch"]) - 1 if at.records else card.epochs
    if at.records:
        keep(at.kept, _card_of(at, after))
        yield from [dict(record) for record in at.records]
    if at.finished:
        return
    if features is not None:
        training = features(training, "train", call.progress)
        validation = None if validation is None else features(validation, "validation", call.progress)
    run_epoch, last = make_epoch(task, training, call.batch_size, constants=constants), before + epochs
    rates = make_rates(recipe, steps * epochs).reshape(epochs, steps)
    left = (epochs - len(at.records)) * steps * call.batch_size
    with Progress("training", left, show=call.progress and jax.process_index() == 0, delay=0.5) as bar:
        for number in range(len(at.records), epochs):
            epoch, start = before + number + 1, time.monotonic()

            def tick(images: int, loss: float | None, title: str = f"epoch {epoch}") -> None:
                bar.advance(images, title if loss is None else f"{title}, loss {loss:.4f}")

            order = order_of(len(training), steps * call.batch_size, seed, epoch)
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            at.state, metrics = run_epoch(at.state, order, key, rates[number], tick)
            at.kept = local(trained_weights(at.state))  # A copy, because the next step consumes the state.
            if not metrics["finite"].all():
                keep(at.kept, _card_of(at, after))
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
            keep(at.kept, _card_of(at, after))  # Immediately: after Ctrl-C, model and disk have the same epoch.
            bar.line(describe(record, last))
            if stop:
                bar.line(
                    f"no improvement of {recipe.monitor} for {recipe.patience} epochs: restored the weights of epoch "
                    f"{at.best_epoch}"
                )
            bar.pause()
            yield dict(record)  # A copy, because the checkpoint contains the record.
            if stop:
                return


def _card_of(at: Progressed, after: Card) -> Card:
    """Return the card after training, with the metrics of the last complete epoch if there is one."""
    if not at.records:
        return after
    last = {k: v for k, v in at.records[-1].items() if k not in ("seconds", "images_per_second")}
    return replace(after, epochs=int(last["epoch"]), metrics={"fit": last})


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
