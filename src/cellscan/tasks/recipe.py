"""`Recipe`: how to train, in one frozen record."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cellscan.errors import ArgumentError, check_choice
from cellscan.tasks.augment import AUGMENTS

if TYPE_CHECKING:
    import jax
    import numpy as np
    import optax

RATE, TUNING_RATE = 4e-3, 1e-3


_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("learning_rate", lambda value: 0 < value < math.inf, "a number above 0, or None"),
    ("layer_decay", lambda value: 0 < value <= 1, "a number in (0, 1], or None"),
    ("weight_decay", lambda value: 0 <= value < math.inf, "a number from 0"),
    ("clip_norm", lambda value: value > 0, "a number above 0, or None"),
    ("label_smoothing", lambda value: 0 <= value < 1, "a number in [0, 1)"),
    ("mixup", lambda value: 0 <= value < math.inf, "a number from 0"),
    ("ema", lambda value: 0 < value < 1, "a number in (0, 1), or None"),
    ("patience", lambda value: value >= 1, "a whole number from 1, or None"),
)
"""Options that are numbers, and which they may be."""


@dataclass(frozen=True)
class Recipe:
    """How to train. Every option has a default; the card of a saved file keeps all of them.

    Attributes
    ----------
    learning_rate : float or None
        Peak of the schedule. None is 4e-3 for weights that were drawn, and for a head alone; 1e-3 where
        parts of a network with published weights are trained too.
    schedule : {"one_cycle", "cosine", "constant"}
        ``"one_cycle"`` rises over the first quarter of the steps and falls to nearly nothing.
    weight_decay : float
        Of kernels; biases and norms are left alone. AdamW, Loshchilov and Hutter (2019).
    clip_norm : float or None
        Greatest global norm of a gradient.
    optimizer : optax.GradientTransformation or None
        Replaces AdamW and the four options above.
    loss : callable or None
        (logits (N, K), labels (N,)) -> (N,) losses; None is cross-entropy.
    label_smoothing : float
        In [0, 1), of the cross-entropy.
    class_weight : "balanced", mapping or None
        Weights of the classes in the loss, by name; "balanced" is inverse to their frequency.
    augment : {"none", "small", "strong"} or callable
        See `cellscan.training.make_augment`; or your own ``augment(key, images)`` over (N, S, S, 3) floats in [0, 1].
    background : "random" or None
        The background of training images, of a classifier with ``background="fill"``. None: the cell's mean
        colour, as in prediction. ``"random"``: in half of the images another colour, drawn each time, and in
        half of these a piece of another cell, so that the network learns nothing from the background; see
        `cellscan.training.random_background`.
    mixup : float
        From 0, which is off: every image is mixed with another of its batch, by a share drawn from
        Beta(mixup, mixup), and its loss likewise. Zhang et al. (2018).
    ema : float or None
        Decay of the exponential moving average of weights that the classifier keeps, in (0, 1).
        Early on it is shorter, so that short trainings gain too.
    freeze : str, sequence of str, or None
        Parts of the network that are not trained: ``"backbone"``, which is all but the head, or patterns of
        names, such as ``("stem", "stage[12]")``; `Classifier.summary` prints the names. They run as they do
        in prediction, have no optimiser state, and cost no backward pass. Where the backbone is
        frozen, `augment` is ``"none"``, `background` is None and there is no `mixup`, what the head is given never
        changes: it is computed once.
    layer_decay : float or None
        In (0, 1]: every part learns at this share of the rate of the part after it; the head at the full rate.
        Howard and Ruder (2018).
    dtype : {"float32", "bfloat16"}
        Of the computation; weights, loss and statistics stay float32.
    remat : bool
        Keep less for the backward pass and compute it again there: slower, for memory. Chen et al. (2016).
    patience : int or None
        Stop after this many epochs without a better `monitor` on the validation set, and go back
        to the best weights. None trains all epochs and keeps the last.
    monitor : {"loss", "accuracy", "roc_auc"}
        What `patience` watches.

    Raises
    ------
    ArgumentError
        For a value out of range.

    Examples
    --------
    >>> import cellscan
    >>> recipe = cellscan.Recipe(learning_rate=1e-3, augment="none")
    >>> recipe.augment, recipe.label_smoothing
    ('none', 0.05)
    """

    learning_rate: float | None = None
    schedule: str = "one_cycle"
    weight_decay: float = 0.02
    clip_norm: float | None = 1.0
    optimizer: optax.GradientTransformation | None = None
    loss: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    label_smoothing: float = 0.05
    class_weight: str | Mapping[str, float] | None = None
    augment: str | Callable[[jax.Array, jax.Array], jax.Array] = "small"
    background: str | None = "random"
    mixup: float = 0.0
    ema: float | None = 0.998
    freeze: str | Sequence[str] | None = None
    layer_decay: float | None = None
    dtype: str = "float32"
    remat: bool = False
    patience: int | None = None
    monitor: str = "loss"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ("one_cycle", "cosine", "constant"))
        if not callable(self.augment):
            check_choice("augment", self.augment, AUGMENTS)
        if self.background is not None and not (isinstance(self.background, str) and self.background == "random"):
            raise ArgumentError(f"background is {self.background!r:.80}; expected 'random' or None")
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_choice("monitor", self.monitor, ("loss", "accuracy", "roc_auc"))
        for name, fits, expected in _RANGES:
            value: Any = getattr(self, name)
            if value is None and expected.endswith("or None"):
                continue
            number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
            if not fits(number) or (name == "patience" and number != round(number)):
                raise ArgumentError(f"{name} is {value!r}; expected {expected}")
        if isinstance(self.class_weight, str):
            check_choice("class_weight", self.class_weight, ("balanced",))
        elif self.class_weight is not None and not isinstance(self.class_weight, Mapping):
            raise ArgumentError(
                f"class_weight is {self.class_weight!r}; expected a number above 0 for each class by its name, "
                'such as {"parasitized": 2, "uninfected": 1}, "balanced", or None'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values; functions become their names.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Recipe().to_dict()["schedule"]
        'one_cycle'
        """
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.optimizer is not None:
            plain["optimizer"] = "own"
        for name in ("loss", "augment"):
            own = plain[name]
            if callable(own):
                plain[name] = getattr(own, "__qualname__", repr(own))
        if isinstance(self.class_weight, Mapping):
            plain["class_weight"] = {name: float(weight) for name, weight in self.class_weight.items()}
        return plain


def as_recipe(recipe: object) -> Recipe:
    """Return a recipe that was given, the default one for None, or raise `ArgumentError`.

    Examples
    --------
    >>> from cellscan.tasks.recipe import as_recipe
    >>> as_recipe(None).schedule
    'one_cycle'
    """
    if not (recipe is None or isinstance(recipe, Recipe)):
        raise ArgumentError(f"recipe is {recipe!r:.80}; expected a Recipe, such as cellscan.Recipe(augment='strong')")
    return recipe or Recipe()


def program_options(recipe: Recipe) -> Recipe:
    """Return the recipe without what changes no program: two trainings that differ in that alone share theirs.

    The rate and the weights of the classes are numbers that a program is given; what is frozen and computed again is
    the network's; patience is the loop's.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.tasks.recipe import program_options
    >>> short, long = (cellscan.Recipe(schedule=name, patience=3) for name in ("cosine", "constant"))
    >>> program_options(short) == program_options(long)
    True
    """
    plain = Recipe()
    given = ("learning_rate", "schedule", "class_weight", "freeze", "remat", "patience", "monitor")
    return replace(recipe, **{name: getattr(plain, name) for name in given})


def make_optimizer(recipe: Recipe, rate: Any, parts: Sequence[str] = ()) -> optax.GradientTransformation:
    """Return the optimiser of a recipe at a learning rate, a number or a traced one; its state knows no rate.

    `parts` are those of the network, in order, for `layer_decay`.
    """
    import optax

    inner = recipe.optimizer or _adamw(recipe, rate)
    if recipe.layer_decay is None:
        return inner
    share = {part: recipe.layer_decay**depth for depth, part in enumerate(reversed(parts))}

    def slow(updates: Any, params: Any) -> Any:
        return {name: update * share[name.split(".")[0]] for name, update in updates.items()}

    return optax.chain(inner, optax.stateless(slow))


def make_rates(recipe: Recipe, steps: int) -> np.ndarray:
    """Return the learning rate (steps,) float32 of every step of a training.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.tasks.recipe import make_rates
    >>> rates = make_rates(cellscan.Recipe(learning_rate=0.1), 100)
    >>> round(float(rates.max()), 3), int(rates.argmax()), bool(rates[-1] < 1e-3)
    (0.1, 25, True)
    """
    import jax
    import numpy as np
    import optax

    peak = recipe.learning_rate or RATE
    if recipe.schedule == "one_cycle":
        # optax asks for at least one step on either side of the peak
        schedule = optax.cosine_onecycle_schedule(max(steps, 5), peak, pct_start=0.25, final_div_factor=1e3)
    elif recipe.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(peak, steps)
    else:
        return np.full(steps, peak, np.float32)
    # Padded, since JAX compiles for every length.
    room = 1 << max(steps - 1, 0).bit_length()
    return np.asarray(jax.vmap(schedule)(np.arange(room)), np.float32)[:steps]


def with_rate(recipe: Recipe, *, tuning: bool) -> Recipe:
    """Return the recipe with the learning rate that None stands for."""
    if recipe.learning_rate is not None:
        return recipe
    return replace(recipe, learning_rate=TUNING_RATE if tuning else RATE)


def _adamw(recipe: Recipe, rate: Any) -> optax.GradientTransformation:
    import jax
    import optax

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    adamw = optax.adamw(rate, weight_decay=recipe.weight_decay, mask=kernels)
    return adamw if recipe.clip_norm is None else optax.chain(optax.clip_by_global_norm(recipe.clip_norm), adamw)


def make_loss(recipe: Recipe) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the loss of a recipe: (logits, labels) -> a loss for every image."""
    return recipe.loss or cross_entropy(recipe.label_smoothing)


def cross_entropy(label_smoothing: float = 0.0) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return softmax cross-entropy with integer labels, an image each.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.tasks.recipe import cross_entropy
    >>> cross_entropy()(jnp.zeros((1, 2)), jnp.array([0])).round(4).tolist()
    [0.6930999755859375]
    """

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        import jax
        import optax

        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    return loss


def class_weights(recipe: Recipe, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray | None:
    """Return the weights (K,) float32 of the classes, scaled so that a training image weighs 1 on average."""
    import numpy as np

    if recipe.class_weight is None:
        return None
    counts = np.bincount(labels, minlength=len(class_names)).astype(np.float64)
    if isinstance(recipe.class_weight, str):
        weights = 1.0 / np.maximum(counts, 1)
    else:
        given = {name.casefold(): float(weight) for name, weight in recipe.class_weight.items()}
        missing = [name for name in class_names if name.casefold() not in given]
        if missing or len(given) > len(class_names) or min(given.values()) <= 0:
            raise ArgumentError(
                f"class_weight is {dict(recipe.class_weight)}; "
                f"expected a number above 0 for each of {tuple(class_names)}"
            )
        weights = np.array([given[name.casefold()] for name in class_names])
    return (weights * counts.sum() / (weights * counts).sum()).astype(np.float32)
