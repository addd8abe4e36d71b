"""Many trainings at once: members of one shape, stacked, as one vmapped program.

Each has its own weights, images, order and random numbers, its own schedule and its own number of steps;
one that is done with an epoch waits for the others. On an accelerator an epoch is one dispatch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import TrainingError
from cellscan.models.network import Network, Weights
from cellscan.progress import Progress
from cellscan.training.checkpoint import Checkpoint, Progressed
from cellscan.training.devices import Examples, local
from cellscan.training.loop import order_of
from cellscan.training.recipe import Recipe, class_weights, make_optimizer, make_schedule
from cellscan.training.step import TrainState, init_state, make_recipe_step, trained_weights
from cellscan.views import Normalization

SMALL = 5_000_000
"""Networks of up to so many parameters are trained together where nothing else is said."""


def run_together(
    network: Network,
    members: Sequence[Weights],
    train: Examples,
    rows: Sequence[np.ndarray],
    seeds: Sequence[int],
    *,
    recipe: Recipe,
    epochs: int,
    batch_size: int,
    class_names: Sequence[str],
    view: str,
    normalization: Normalization,
    checkpoint: Checkpoint | None = None,
    scan: bool | None = None,
    progress: bool = False,
) -> Iterator[Progressed]:
    """Train all members, and yield how far they have come after every epoch, their weights stacked.

    Parameters
    ----------
    network : Network
    members : sequence of Weights
        The first weights of each.
    train : Examples
        All images; `rows` says which of them a member is shown.
    rows : sequence of (n,) int
    seeds : sequence of int
    scan : bool, optional
        An epoch in one dispatch; left out, on an accelerator.

    Raises
    ------
    TrainingError
        Where a member's loss is no longer finite.
    """
    steps = np.array([-(-len(own) // batch_size) for own in rows])
    longest = int(steps.max())
    schedules = [make_schedule(recipe, int(count) * epochs) for count in steps]
    rates = np.zeros((len(rows), longest * epochs), np.float32)
    for place, (schedule, count) in enumerate(zip(schedules, steps, strict=True)):
        rates[place, : count * epochs] = np.asarray(jax.vmap(schedule)(jnp.arange(int(count) * epochs)))
    weigh = [class_weights(recipe, train.labels[own], class_names) for own in rows]
    classes = None if weigh[0] is None else jnp.asarray(np.stack([np.asarray(w) for w in weigh]))

    def advance(
        state: TrainState, images: Any, labels: Any, key: Any, rates: Any, classes: Any, on: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        optimizer = make_optimizer(recipe, 0, network.parts, schedule=lambda count: rates[count])
        step = make_recipe_step(
            recipe, network, optimizer, view=view, normalization=normalization, class_weight=classes
        )
        after, metrics = step(state, images, labels, key)
        return jax.tree.map(lambda new, old: jnp.where(on, new, old), after, state), metrics

    together = jax.vmap(advance, in_axes=(0, 0, 0, 0, 0, None if classes is None else 0, 0))
    keyed = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    if scan is None:
        scan = jax.default_backend() != "cpu"

    @functools.partial(jax.jit, donate_argnums=0)
    def one(state: TrainState, images: Any, labels: Any, keys: Any, number: Any, on: Any) -> Any:
        return together(state, images, labels, keyed(keys, number), rates, classes, on)

    @functools.partial(jax.jit, donate_argnums=0)
    def whole(state: TrainState, pixels: Any, labels: Any, keys: Any, order: Any, on: Any) -> Any:
        def body(state: TrainState, numbered: Any) -> Any:
            number, chosen, active = numbered
            return together(state, pixels[chosen], labels[chosen], keyed(keys, number), rates, classes, active)

        return jax.lax.scan(body, state, (jnp.arange(longest), order, on))

    optimizer = make_optimizer(recipe, int(steps[0]) * epochs, network.parts, schedule=schedules[0])
    states = [init_state(network, optimizer, weights=first, average=recipe.ema is not None) for first in members]
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
            for place, (own, count, seed) in enumerate(zip(rows, steps, seeds, strict=True)):
                shown = order_of(len(own), int(count) * batch_size, seed, epoch)
                order[:count, place] = own[shown].reshape(int(count), batch_size)
            keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), epoch) for seed in seeds])
            if scan:
                at.state, fetched = whole(at.state, *resident, keys, order, on)
                metrics = {name: np.asarray(values) for name, values in fetched.items()}
                bar.advance(order.size)
            else:
                collected = []
                for number in range(longest):
                    chosen = order[number].ravel()
                    shape = (len(rows), batch_size)
                    images = train.pixels[chosen].reshape(*shape, *train.pixels.shape[1:])
                    at.state, found = one(
                        at.state, images, train.labels[chosen].reshape(shape), keys, number, on[number]
                    )
                    collected.append(found)
                    bar.advance(chosen.size)
                metrics = {name: np.stack([np.asarray(m[name]) for m in collected]) for name in collected[0]}
            bad = np.flatnonzero(~(metrics["finite"] | ~on).all(0))
            if len(bad):
                raise TrainingError(
                    f"the loss or a gradient of member {bad[0]} (seed {seeds[bad[0]]}) is not finite in epoch {epoch}; "
                    "try a lower learning_rate"
                )
            at.kept = local(trained_weights(at.state))  # copies: the state itself is donated to the next step
            record: dict[str, Any] = {"epoch": epoch}
            for name in ("loss", "accuracy"):
                record[name] = (np.where(on, metrics[name], 0).sum(0) / steps).tolist()
            at.records.append(record)
            at.finished = epoch == epochs
            if checkpoint is not None:
                checkpoint.save(at)
            yield at
            bar.line(f"epoch {epoch} of {epochs}: mean loss of {len(rows)} members {np.mean(record['loss']):.4f}")


def unstack(weights: Weights, place: int) -> Weights:
    """Return the weights of one member."""
    return jax.tree.map(lambda leaf: leaf[place], weights)
