"""Vectorized training: members with the same shapes, stacked and trained by one vmapped program.

Each member has its own weights, images, order, random numbers, learning rates and number of steps. A member that has
finished an epoch does not change until the others have. On an accelerator an epoch is one dispatch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import TrainingError
from cellscan.models.network import Weights
from cellscan.progress import Progress
from cellscan.tasks.programs import Metrics, Task, TrainState, step
from cellscan.tasks.recipe import Recipe, class_weights, make_rates
from cellscan.training.checkpoint import Checkpoint, Progressed
from cellscan.training.devices import Examples, local
from cellscan.training.loop import order_of
from cellscan.training.step import begin, trained_weights

SMALL = 5_000_000
"""Largest number of parameters of networks that are vectorized by default."""


def run_vectorized(
    task: Task,
    members: Sequence[Weights],
    train: Examples,
    rows: Sequence[np.ndarray],
    seeds: Sequence[int],
    *,
    recipe: Recipe,
    epochs: int,
    batch_size: int,
    class_names: Sequence[str],
    checkpoint: Checkpoint | None = None,
    scan: bool | None = None,
    progress: bool = False,
) -> Iterator[Progressed]:
    """Train all members, and yield the progress after every epoch, with the weights of all members stacked.

    Parameters
    ----------
    task : Task
    members : sequence of Weights
        The initial weights of each member.
    train : Examples
        The images of all members.
    rows : sequence of (n,) int
        For each member, the indices of its training images in `train`.
    seeds : sequence of int
        One seed per member.
    scan : bool, optional
        Whether an epoch is one dispatch. Default: True on an accelerator.

    Raises
    ------
    TrainingError
        If the loss of a member is not finite.
    """
    steps = np.array([-(-len(indices) // batch_size) for indices in rows])
    longest = int(steps.max())
    rates = np.zeros((epochs, longest, len(rows)), np.float32)
    for member, count in enumerate(steps.tolist()):
        rates[:, :count, member] = make_rates(recipe, count * epochs).reshape(epochs, count)
    weights = [class_weights(recipe, train.labels[indices], class_names) for indices in rows]
    constants = None if weights[0] is None else np.stack([np.asarray(w) for w in weights])
    if scan is None:
        scan = jax.default_backend() != "cpu"
    states = [begin(task, first) for first in members]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    at = Progressed(state, local(trained_weights(state)), {})
    if checkpoint is not None:
        at = checkpoint.load(at)
    if at.records:
        yield at
    if at.finished:
        return
    on = np.arange(longest)[:, None] < steps
    resident = (jnp.asarray(np.asarray(train.pixels)), jnp.asarray(train.labels)) if scan else ()
    with Progress("training", epochs * longest * batch_size * len(rows), show=progress, delay=0.5) as bar:
        for epoch in range(len(at.records) + 1, epochs + 1):
            order = np.zeros((longest, len(rows), batch_size), np.int32)
            for member, (indices, count, seed) in enumerate(zip(rows, steps, seeds, strict=True)):
                shuffled = order_of(len(indices), int(count) * batch_size, seed, epoch)
                order[:count, member] = indices[shuffled].reshape(int(count), batch_size)
            keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), epoch) for seed in seeds])
            if scan:
                at.state, fetched = _epoch(task, at.state, *resident, keys, order, rates[epoch - 1], constants, on)
                metrics = {name: np.asarray(values) for name, values in fetched.items()}
                bar.advance(order.size)
            else:
                collected = []
                for number in range(longest):
                    chosen = order[number].ravel()
                    shape = (len(rows), batch_size)
                    images = train.pixels[chosen].reshape(*shape, *train.pixels.shape[1:])
                    labels = train.labels[chosen].reshape(shape)
                    at.state, step_metrics = _step(
                        task, at.state, images, labels, keys, np.int32(number), rates[epoch - 1, number], constants,
                        on[number],
                    )  # fmt: skip
                    collected.append(step_metrics)
                    bar.advance(chosen.size)
                metrics = {name: np.stack([np.asarray(m[name]) for m in collected]) for name in collected[0]}
            bad = np.flatnonzero(~(metrics["finite"] | ~on).all(0))
            if len(bad):
                raise TrainingError(
                    f"the loss or a gradient of member {bad[0]} (seed {seeds[bad[0]]}) is not finite in epoch {epoch}; "
                    "try a lower learning_rate"
                )
            at.kept = local(trained_weights(at.state))  # A copy, because the next step consumes the state.
            record: dict[str, Any] = {"epoch": epoch}
            for name in ("loss", "accuracy"):
                record[name] = (np.where(on, metrics[name], 0).sum(0) / steps).tolist()
            at.records.append(record)
            at.finished = epoch == epochs
            if checkpoint is not None:
                checkpoint.save(at)
            yield at
            bar.line(f"epoch {epoch} of {epochs}: mean loss of {len(rows)} members {np.mean(record['loss']):.4f}")


def _advance(
    task: Task, state: TrainState, images: Any, labels: Any, keys: Any, number: Any, rates: Any, constants: Any, on: Any
) -> tuple[TrainState, Metrics]:
    """Take one step of every member that has not finished its epoch."""

    def advance_member(
        state: TrainState, images: Any, labels: Any, key: Any, rate: Any, constants: Any, on: Any
    ) -> Any:
        after, metrics = step(task, state, images, labels, jax.random.fold_in(key, number), rate, constants)
        return jax.tree.map(lambda new, old: jnp.where(on, new, old), after, state), metrics

    return jax.vmap(advance_member)(state, images, labels, keys, rates, constants, on)


_step = jax.jit(_advance, static_argnums=0, donate_argnums=1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _epoch(
    task: Task, state: TrainState, pixels: Any, labels: Any, keys: Any, order: Any, rates: Any, constants: Any, on: Any
) -> tuple[TrainState, Metrics]:
    def body(state: TrainState, numbered: Any) -> Any:
        number, chosen, rate, active = numbered
        return _advance(task, state, pixels[chosen], labels[chosen], keys, number, rate, constants, active)

    return jax.lax.scan(body, state, (jnp.arange(len(order)), order, rates, on))


def unstack(weights: Weights, member: int) -> Weights:
    """Return the weights of one member."""
    return jax.tree.map(lambda leaf: leaf[member], weights)
