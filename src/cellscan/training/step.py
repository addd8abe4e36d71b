"""The train step: one pure, jitted function over plain dictionaries of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.errors import check_choice
from cellscan.models.network import Arrays, Network, Weights
from cellscan.training.augment import Augment, make_augment, vary_surround
from cellscan.training.recipe import SURROUNDS, Recipe, cross_entropy, make_loss
from cellscan.views import VIEWS, Normalization, prepare

if TYPE_CHECKING:
    import optax
    from flax import nnx


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


Step: TypeAlias = Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def init_state(
    model: nnx.Module | Network,
    optimizer: optax.GradientTransformation,
    *,
    weights: Weights | None = None,
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
    weights : dict, optional
        Start from these instead of the module's.
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
    network = model if isinstance(model, Network) else Network(model, freeze=freeze)
    # A step donates its state, so the state must own its arrays.
    owned: Weights = jax.tree.map(jnp.array, network.weights() if weights is None else weights)
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
    model: nnx.Module | Network,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    augment: Augment | None = None,
    *,
    view: str | None = "filled",
    normalization: Normalization | None = None,
    surround: str = "view",
    mixup: float = 0.0,
    class_weight: np.ndarray | None = None,
    ema: float | None = None,
    dtype: str = "float32",
    freeze: str | Sequence[str] | None = None,
    remat: bool = False,
) -> Step:
    """Return a jitted ``step(state, images, labels, key) -> (state, metrics)``.

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
    view, normalization
        What the network is shown; see `cellscan.Classifier`. With the view None it is given what the step
        is given, features for instance, and nothing is prepared or augmented.
    surround : {"view", "random"}
        Of the black surround of training images; see `cellscan.Recipe`.
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
    >>> step = cellscan.training.make_train_step(model, optax.adam(1e-3))
    >>> state = cellscan.training.init_state(model, optax.adam(1e-3))
    >>> state, metrics = step(state, cells.images(32)[:8], cells.labels[:8], jax.random.key(0))
    >>> sorted(metrics), int(state.step)
    (['accuracy', 'finite', 'grad_norm', 'loss'], 1)
    """
    if view is not None:
        check_choice("view", view, VIEWS)
    check_choice("surround", surround, SURROUNDS)
    network = model if isinstance(model, Network) else Network(model, freeze=freeze, remat=remat)
    loss = loss or cross_entropy()
    varied = surround == "random" and view == "filled"
    normalize = normalization or Normalization()

    def prepared(images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        augment_key, _, surround_key, mixup_key = keys
        x = images
        if view is not None:
            x = prepare(images, "cell" if varied else view)
            if varied:
                x = vary_surround(surround_key, x)
            if augment is not None:
                x = augment(augment_key, x)
            x = normalize(x)
        x = x.astype(dtype)
        share = jax.random.beta(mixup_key, mixup, mixup, (len(x),)) if mixup else jnp.ones(())
        if mixup:  # batches come shuffled: turned round, one gives every image a random partner
            part = share.reshape(-1, *[1] * (x.ndim - 1)).astype(dtype)
            x = part * x + (1 - part) * x[::-1]
        return x, (labels, share)

    def weighted(logits: jax.Array, labels: jax.Array) -> jax.Array:
        losses = loss(logits, labels)
        return losses if class_weight is None else losses * jnp.asarray(class_weight)[labels]

    def measure(logits: Any, targets: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        labels, share = targets
        logits = logits.astype(jnp.float32)
        losses = weighted(logits, labels)
        if mixup:
            losses = share * losses + (1 - share) * weighted(logits, labels[::-1])
        return losses.mean(), {"accuracy": (logits.argmax(-1) == labels).mean()}

    return make_step(network, optimizer, prepared, measure, ema=ema, dtype=dtype)


def make_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    prepare: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]],
    measure: Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]],
    *,
    ema: float | None = None,
    dtype: str = "float32",
) -> Step:
    """Return the jitted step of any task; see `make_train_step` for what it does with a state.

    Parameters
    ----------
    network, optimizer, ema, dtype
        As in `make_train_step`.
    prepare : callable
        (images, labels, four keys, of which the second is the network's) -> (what the network is given, targets).
    measure : callable
        (outputs of the network, targets) -> (() loss, other () figures by name).
    """
    import optax

    def step(
        state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        keys = jax.random.split(key, 4)
        x, targets = prepare(images, labels, keys)

        def objective(params: Arrays) -> tuple[jax.Array, tuple[dict[str, jax.Array], Arrays]]:
            cast = {name: leaf.astype(dtype) for name, leaf in {**state.frozen, **params}.items()}
            outputs, stats = network.train(cast, state.stats, x, keys[1])
            value, figures = measure(outputs, targets)
            return value, (figures, stats)

        (value, (figures, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average = state.average
        if ema is not None:
            decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
            average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)
        grad_norm = optax.tree.norm(grads)
        finite = state.finite & jnp.isfinite(value + grad_norm + optax.tree.norm(updates))
        new = TrainState(params, state.frozen, stats, opt_state, average, state.step + 1, finite)
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)._replace(finite=finite)
        return new, {"loss": value, **figures, "grad_norm": grad_norm, "finite": finite}

    return jax.jit(step, donate_argnums=0)


def make_recipe_step(
    recipe: Recipe,
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    view: str | None,
    normalization: Normalization,
    class_weight: Any,
) -> Step:
    """Return the step of a recipe; what depends on the data and its length is given beside it."""
    return make_train_step(
        network,
        optimizer,
        make_loss(recipe),
        make_augment(recipe.augment),
        view=view,
        normalization=normalization,
        surround=recipe.surround,
        mixup=recipe.mixup,
        class_weight=class_weight,
        ema=recipe.ema,
        dtype=recipe.dtype,
    )


def trained_module(model: nnx.Module, state: TrainState) -> Any:
    """Return a copy of `model`, in evaluation mode, with the weights of `state` (the average, where kept).

    Examples
    --------
    >>> import cellscan, jax.numpy as jnp, optax
    >>> model = cellscan.models.create("small_cnn", num_classes=2)
    >>> state = cellscan.training.init_state(model, optax.adam(1e-3))
    >>> cellscan.training.trained_module(model, state)(jnp.zeros((1, 32, 32, 3))).shape
    (1, 2)
    """
    return Network(model).module(trained_weights(state))


def trained_weights(state: TrainState) -> Weights:
    """Return the weights of a state: the average where one is kept, what is frozen, the statistics."""
    return {"params": {**state.frozen, **(state.average or state.params)}, "stats": state.stats}
