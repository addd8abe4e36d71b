"""The programs that JAX compiles: functions of this module, jitted once.

A task says what is done and is static: equal tasks share what was compiled, whatever classifier, fold or training they
are from. Weights, images and every number that differs between trainings of one kind come in as arrays.
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
    """What a network is trained and used for: a frozen record with a hash."""

    @property
    def network(self) -> Network:
        """The network, as it is trained."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How it is trained; see `program_options`."""
        ...

    def prepare(self, images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        """Return what the network is given in training, and its targets; of four keys the second is the network's."""
        ...

    def measure(self, outputs: Any, targets: Any, constants: Any) -> tuple[jax.Array, Metrics]:
        """Return the loss () of what the network says in training, and other metrics () by name."""
        ...

    def predict(self, members: Members, settings: Any, images: jax.Array) -> Any:
        """Return what is said of images: arrays of a row an image."""
        ...

    def validate(self, weights: Weights, examples: Any, constants: Any) -> dict[str, float]:
        """Return the metrics of weights on a validation set, named ``validation_...``."""
        ...


AnyTask = TypeVar("AnyTask", bound=Any)


def trained_by(task: AnyTask, recipe: Recipe) -> AnyTask:
    """Return the task as a recipe trains it."""
    network = task.network.variant(freeze=recipe.freeze, remat=recipe.remat)
    return replace(task, network=network, recipe=program_options(recipe))


class TrainState(NamedTuple):
    """Everything that a step changes; a pytree, so it can be vmapped over members, sharded and saved.

    Attributes
    ----------
    params : dict[str, jax.Array]
        Parameters that are trained, by dotted path.
    frozen : dict[str, jax.Array]
        Those that are not.
    stats : dict[str, jax.Array]
        Batch statistics and the like.
    opt_state : Any
        State of the optimiser.
    average : dict[str, jax.Array]
        Moving average of `params`; empty without one.
    step : jax.Array
        () int32, steps taken.
    finite : jax.Array
        () bool. Once False, steps change nothing any more: the weights are the last good ones.

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
    """Take one step; jitted as `train_step`, for programs of many steps or members as it is.

    Parameters
    ----------
    task : Task
    state : TrainState
    images, labels
        A batch, as the task prepares it.
    key : PRNG key
        Of all that is drawn in this step.
    rate : () float32
        The learning rate. An optimiser of one's own has its own.
    constants
        What else the task measures by, the same at every step of a training.

    Returns
    -------
    state, metrics
        Metrics are () arrays: ``loss``, the task's metrics, ``grad_norm`` and ``finite``. A step whose loss, gradient
        or update is not finite changes nothing, and no later one does.
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
"""`step`, compiled; the state is donated: use the returned one."""


@functools.partial(jax.jit, static_argnums=0)
def predict(task: Task, members: Members, settings: Any, images: Any) -> Any:
    """Return what a task says of a batch of images; settings are numbers and arrays, as the task takes them."""
    return task.predict(members, settings, images)
