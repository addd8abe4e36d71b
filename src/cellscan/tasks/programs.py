"""The programs that JAX compiles: functions of this module, jitted once.

A task defines the computation and is a static argument: equal tasks share their compiled program, also across
classifiers, folds and trainings. Weights, images and all numbers that differ between trainings of one kind are array
arguments.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import jax
import jax.numpy as jnp

from cellscan.models.network import Arrays, Network, Weights
from cellscan.tasks.recipe import Recipe, make_optimizer, program_options

Members: TypeAlias = tuple[Weights, ...]
Metrics: TypeAlias = dict[str, jax.Array]


class Task(Protocol):
    """Training and prediction of one kind of model; a frozen, hashable record."""

    @property
    def network(self) -> Network:
        """The network, with the options for training."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The recipe, reduced by `program_options`."""
        ...

    def prepare(self, images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        """Return the network's inputs in training and its targets.

        `keys` are four PRNG keys: augmentation, network, background, mixup. Do not use the second one here.
        """
        ...

    def measure(self, outputs: Any, targets: Any, constants: Any) -> tuple[jax.Array, Metrics]:
        """Return the loss () of the network's outputs in training, and other metrics () by name."""
        ...

    def predict(self, members: Members, settings: Any, images: jax.Array) -> Any:
        """Return the predictions for images: arrays with one row per image."""
        ...

    def validate(self, weights: Weights, examples: Any, constants: Any) -> dict[str, float]:
        """Return the metrics of these weights on a validation set, with names ``validation_...``."""
        ...


AnyTask = TypeVar("AnyTask", bound=Any)


def trained_by(task: AnyTask, recipe: Recipe) -> AnyTask:
    """Return the task for training with a recipe."""
    network = task.network.variant(freeze=recipe.freeze, remat=recipe.remat)
    return replace(task, network=network, recipe=program_options(recipe))


class TrainState(NamedTuple):
    """The state of a training, which a step updates; a pytree that can be vmapped over members, sharded and saved.

    Attributes
    ----------
    params : dict[str, jax.Array]
        Trained parameters, by dotted path.
    frozen : dict[str, jax.Array]
        Frozen parameters, by dotted path.
    stats : dict[str, jax.Array]
        Non-trainable statistics of the network, such as those of batch normalisation.
    opt_state : Any
        State of the optimiser.
    average : dict[str, jax.Array]
        Exponential moving average of `params`; empty if none is kept.
    step : jax.Array
        () int32, number of steps so far.
    finite : jax.Array
        () bool. If False, a loss, gradient or update was not finite: the weights are those before that step, and
        later steps do not change them.

    Examples
    --------
    >>> import cellscan, optax
    >>> state = cellscan.training.init_state(cellscan.models.create("small_cnn", 2), optax.sgd(0.1))
    >>> int(state.step), bool(state.finite)
    (0, True)
    """

    params: Arrays
    frozen: Arrays
    stats: Arrays
    opt_state: Any
    average: Arrays
    step: jax.Array
    finite: jax.Array


def step(
    task: Task, state: TrainState, images: Any, labels: Any, key: jax.Array, rate: Any, constants: Any
) -> tuple[TrainState, Metrics]:
    """Take one training step. `train_step` is the jitted version; programs of many steps or members call this one.

    Parameters
    ----------
    task : Task
    state : TrainState
    images, labels
        A batch, in the form that `Task.prepare` expects.
    key : PRNG key
        Key for all random numbers of this step.
    rate : () float32
        The learning rate; ignored if the recipe has an optimiser.
    constants
        Further arguments of `Task.measure`, the same in every step of a training.

    Returns
    -------
    state, metrics
        Metrics are () arrays: ``loss``, the task's metrics, ``grad_norm`` and ``finite``. If the loss, the gradient
        or the update is not finite, this step and all later steps leave the state unchanged.
    """
    import optax

    recipe, network = task.recipe, task.network
    optimizer = make_optimizer(recipe, rate, network.parts)
    keys = jax.random.split(key, 4)
    x, targets = task.prepare(images, labels, keys)

    def objective(params: Arrays) -> tuple[jax.Array, tuple[Metrics, Arrays]]:
        cast = {name: leaf.astype(recipe.dtype) for name, leaf in {**state.frozen, **params}.items()}
        outputs, stats = network.train(cast, state.stats, x, keys[1])
        value, metrics = task.measure(outputs, targets, constants)
        return value, (metrics, stats)

    (value, (metrics, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    average = state.average
    if recipe.ema is not None:
        decay = jnp.minimum(recipe.ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)
    grad_norm = optax.tree.norm(grads)
    finite = state.finite & jnp.isfinite(value + grad_norm + optax.tree.norm(updates))
    new = TrainState(params, state.frozen, stats, opt_state, average, state.step + 1, finite)
    new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)._replace(finite=finite)
    return new, {"loss": value, **metrics, "grad_norm": grad_norm, "finite": finite}


train_step: Any = jax.jit(step, static_argnums=0, donate_argnums=1)
"""`step`, compiled. The state is donated, so use the returned state only."""


@functools.partial(jax.jit, static_argnums=0)
def predict(task: Task, members: Members, settings: Any, images: Any) -> Any:
    """Return the predictions of a task for a batch of images; `settings` are the numbers and arrays of that task."""
    return task.predict(members, settings, images)
