"""The training step for your own training loop, and its initial state."""

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
    """Return the initial state of a training, before the first step.

    Parameters
    ----------
    model : flax.nnx.Module
        The network. Its weights are copied; the module is unchanged.
    optimizer : optax.GradientTransformation
        The same optimiser as for `make_train_step`.
    average : bool
        Whether to keep a moving average of the parameters; required for `ema` in `make_train_step`.
    freeze : str or sequence of str, optional
        The same value as for `make_train_step`.

    Returns
    -------
    TrainState

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
    # A step donates its state, so the arrays are copied: nothing else may use them.
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
    """Return a compiled training step: ``step(state, images, labels, key) -> (state, metrics)``.

    Parameters
    ----------
    model : flax.nnx.Module
        The network: called with normalised images (N, S, S, 3) float32, it returns logits (N, K).
    optimizer : optax.GradientTransformation
        Any optax optimiser.
    loss : callable, optional
        Function (logits (N, K), labels (N,)) -> losses (N,). Default: cross-entropy.
    augment : callable, optional
        Function (key, images in [0, 1]) -> images; see `make_augment`. Default: no augmentation.
    background, normalization
        Preprocessing of the images; see `cellscan.Classifier`. Default normalisation: mean and standard deviation 0.5.
    random_background : bool
        Whether training images get a random background; see `cellscan.Recipe`.
    mixup : float
        Parameter of the Beta distribution of mixup, 0 or more; 0 disables mixup.
    class_weight : (K,) array, optional
        Weight of each class in the loss.
    ema : float, optional
        Decay of the moving average, in (0, 1); make the state with ``average=True``.
    dtype : {"float32", "bfloat16"}
        Number type of the computation.
    freeze, remat
        As in `cellscan.Recipe`.

    Returns
    -------
    callable
        The step. It takes ``images`` (N, S, S, 3) uint8 and ``labels`` (N,) int32; both may be sharded over devices.
        ``state`` is donated, so use the returned state only. ``metrics`` contains () arrays ``loss``, ``accuracy``,
        ``grad_norm`` and ``finite``. If the loss, the gradient or the update is not finite, this step and all later
        steps leave the state unchanged.

    Notes
    -----
    Steps share their compiled program if their networks and options are equal and they use the same `optimizer`,
    `loss` and `augment` objects.

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
    """Return a copy of `model` in evaluation mode with the weights of `state`.

    If the state has a moving average, the copy has the averaged parameters.

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
    """Return the weights of a state: averaged parameters if available, frozen parameters, and statistics."""
    return {"params": {**state.frozen, **(state.average or state.params)}, "stats": state.stats}
