"""The step for people's own loops, and the state before the first one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import check_choice
from cellscan.models.network import Arrays, Network, Weights, weights_of
from cellscan.preprocessing import BACKGROUNDS, Normalization
from cellscan.tasks.augment import Augment
from cellscan.tasks.classification import ClassificationTask
from cellscan.tasks.programs import Metrics, Task, TrainState, train_step, trained_by
from cellscan.tasks.recipe import Recipe, make_optimizer

if TYPE_CHECKING:
    import optax
    from flax import nnx

Step: TypeAlias = Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, Metrics]]


def init_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    *,
    average: bool = False,
    freeze: str | Sequence[str] | None = None,
) -> TrainState:
    """Return the state before the first step.

    Parameters
    ----------
    model : flax.nnx.Module
        Left unchanged; its weights are copied.
    optimizer : optax.GradientTransformation
        The one that `make_train_step` was given.
    average : bool
        Keep a moving average of the parameters.
    freeze : str or sequence of str, optional
        The same as `make_train_step` was given.

    Examples
    --------
    >>> import cellscan, optax
    >>> model = cellscan.models.create("small_cnn", num_classes=2)
    >>> state = cellscan.training.init_state(model, optax.adam(1e-3))
    >>> state.params["stem.kernel"].shape
    (3, 3, 12, 32)
    """
    return _state(Network(model, freeze=freeze), weights_of(model), optimizer, average)


def begin(task: Task, weights: Weights) -> TrainState:
    """Return the state of a task before the first step; the weights are copied."""
    recipe = task.recipe
    return _state(task.network, weights, make_optimizer(recipe, 0.0, task.network.parts), recipe.ema is not None)


def _state(network: Network, weights: Weights, optimizer: Any, average: bool) -> TrainState:
    # A step donates its state, so the state must own its arrays.
    owned: Weights = jax.tree.map(jnp.array, weights)
    params, frozen = network.divide(owned["params"])
    copy: Arrays = jax.tree.map(jnp.array, params) if average else {}
    return TrainState(
        params,
        frozen,
        owned["stats"],
        optimizer.init(params),
        copy,
        jnp.zeros((), jnp.int32),
        jnp.array(True),
    )


def make_train_step(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    augment: Augment | None = None,
    *,
    background: str = "fill",
    normalization: Normalization | None = None,
    random_background: bool = False,
    mixup: float = 0.0,
    class_weight: np.ndarray | None = None,
    ema: float | None = None,
    dtype: str = "float32",
    freeze: str | Sequence[str] | None = None,
    remat: bool = False,
) -> Step:
    """Return a compiled ``step(state, images, labels, key) -> (state, metrics)``.

    Steps of equal networks and options, and of one and the same optimizer, loss and augment, share what is compiled.

    Parameters
    ----------
    model : flax.nnx.Module
        Called with (N, S, S, 3) float32, normalised; returns (N, K) logits.
    optimizer : optax.GradientTransformation
        Any.
    loss : callable, optional
        (logits (N, K), labels (N,)) -> (N,) losses; cross-entropy if left out.
    augment : callable, optional
        (key, images in [0, 1]) -> images; see `make_augment`.
    background, normalization
        What the network is shown; see `cellscan.Classifier`.
    random_background : bool
        Whether training images get a random background; see `cellscan.Recipe`.
    mixup : float
        Alpha of the Beta distribution of mixup, from 0, which mixes nothing.
    class_weight : (K,) array, optional
        Weights of the classes in the loss.
    ema : float, optional
        Decay of the moving average; the state must have been made with ``average=True``.
    dtype : {"float32", "bfloat16"}
        Of the computation.
    freeze, remat
        See `cellscan.Recipe`.

    Returns
    -------
    callable
        ``state`` is donated: use the returned one. ``images`` is (N, S, S, 3) uint8, ``labels`` (N,)
        int32, both may be sharded over devices; ``metrics`` has () arrays ``loss``, ``accuracy``,
        ``grad_norm`` and ``finite``. A step whose loss, gradient or update is not finite changes
        nothing, and no later one does.

    Examples
    --------
    >>> import cellscan, jax, optax
    >>> cells = cellscan.synthetic_cells(40, seed=0)
    >>> model = cellscan.models.create("small_cnn", num_classes=2)
    >>> optimizer = optax.adam(1e-3)
    >>> step = cellscan.training.make_train_step(model, optimizer)
    >>> state = cellscan.training.init_state(model, optimizer)
    >>> state, metrics = step(state, cells.images(32)[:8], cells.labels[:8], jax.random.key(0))
    >>> sorted(metrics), int(state.step)
    (['accuracy', 'finite', 'grad_norm', 'loss'], 1)
    """
    check_choice("background", background, BACKGROUNDS)
    recipe = Recipe(
        optimizer=optimizer, loss=loss, label_smoothing=0.0, augment=augment or "none",
        background="random" if random_background else None, mixup=mixup, ema=ema, dtype=dtype,
        freeze=freeze, remat=remat,
    )  # fmt: skip
    task = trained_by(
        ClassificationTask(Network(model), background=background, normalization=normalization or Normalization()),
        recipe,
    )
    weights = None if class_weight is None else np.asarray(class_weight, np.float32)

    def step(state: TrainState, images: Any, labels: Any, key: jax.Array) -> tuple[TrainState, Metrics]:
        return train_step(task, state, images, labels, key, np.float32(0), weights)

    return step


def trained_module(model: nnx.Module, state: TrainState) -> Any:
    """Return a copy of `model`, in evaluation mode, with the weights of `state` (the average, where kept).

    Examples
    --------
    >>> import cellscan, jax.numpy as jnp, optax
    >>> model = cellscan.models.create("small_cnn", 2)
    >>> state = cellscan.training.init_state(model, optax.adam(1e-3))
    >>> cellscan.training.trained_module(model, state)(jnp.zeros((1, 32, 32, 3))).shape
    (1, 2)
    """
    return Network(model).module(trained_weights(state))


def trained_weights(state: TrainState) -> Weights:
    """Return the weights of a state: the average where one is kept, what is frozen, the statistics."""
    return {"params": {**state.frozen, **(state.average or state.params)}, "stats": state.stats}
