"""`Recipe`: the options of a training."""

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
    ("weight_decay", lambda value: 0 <= value < math.inf, "a number of 0 or more"),
    ("clip_norm", lambda value: value > 0, "a number above 0, or None"),
    ("label_smoothing", lambda value: 0 <= value < 1, "a number in [0, 1)"),
    ("mixup", lambda value: 0 <= value < math.inf, "a number of 0 or more"),
    ("ema", lambda value: 0 < value < 1, "a number in (0, 1), or None"),
    ("patience", lambda value: value >= 1, "a whole number of 1 or more, or None"),
)
"""Options that are numbers: the name, the test of a value, and the range in words."""


@dataclass(frozen=True)
class Recipe:
    """The options of a training. Every option has a default; the card of a saved file contains all of them.

    Attributes
    ----------
    learning_rate : float or None
        Peak learning rate of the schedule. None means 1e-3 to fine-tune layers with published weights, and 4e-3
        otherwise: for random weights, or if only the head is trained.
    schedule : {"one_cycle", "cosine", "constant"}
        Learning rate schedule. ``"one_cycle"`` rises during the first quarter of the steps and then falls to
        nearly 0.
    weight_decay : float
        Weight decay of AdamW (Loshchilov and Hutter, 2019), 0 or more. It applies to kernels, not to biases and
        normalisation parameters.
    clip_norm : float or None
        Maximum global norm of the gradient, above 0; None disables clipping.
    optimizer : optax.GradientTransformation or None
        Replaces AdamW. The four options above are then ignored.
    loss : callable or None
        Function (logits (N, K), labels (N,)) -> losses (N,). None means cross-entropy.
    label_smoothing : float
        Label smoothing of the cross-entropy, in [0, 1).
    class_weight : "balanced", mapping or None
        Weight of each class in the loss, by class name. ``"balanced"`` uses the inverse of the class frequency.
    augment : {"none", "small", "strong"} or callable
        Augmentation, see `cellscan.training.make_augment`; or your own ``augment(key, images)`` for images
        (N, S, S, 3), floats in [0, 1].
    background : "random" or None
        Background of training images, for a classifier with ``background="fill"``. None: the cell's mean colour, as
        in prediction. ``"random"``: in half of the images a random colour instead, and in half of these also a piece
        of another cell, so that the network cannot learn from the background; see
        `cellscan.training.random_background`.
    mixup : float
        Parameter of mixup (Zhang et al., 2018), 0 or more; 0 disables it. Every image is mixed with another image of
        its batch, with a share drawn from Beta(mixup, mixup); the losses are mixed with the same share.
    ema : float or None
        Decay of the exponential moving average of the weights, in (0, 1); the classifier keeps this average. None
        disables it. The decay is smaller during the first steps, so that short trainings benefit too.
    freeze : str, sequence of str, or None
        Parts of the network that do not change in training: ``"backbone"``, all layers but the head; or patterns of
        part names, such as ``("stem", "stage[12]")``. `Classifier.summary` prints the names. Frozen parts run in
        evaluation mode, have no optimiser state, and need no backward pass. If the backbone is frozen, `augment` is
        ``"none"``, `background` is None and `mixup` is 0, then the features are computed once and only the head is
        trained on them.
    layer_decay : float or None
        Layer-wise decay of the learning rate (Howard and Ruder, 2018), in (0, 1]: the rate of each part is this
        factor times the rate of the next part; the head has the full rate. None means one rate for all parts.
    dtype : {"float32", "bfloat16"}
        Number type of the computation. Weights, loss and statistics stay float32.
    remat : bool
        Rematerialisation (Chen et al., 2016): recompute activations in the backward pass instead of storing them.
        This needs less memory and more time.
    patience : int or None
        Early stopping: stop after this many epochs without improvement of `monitor` on the validation set, and
        restore the best weights. None trains all epochs and keeps the last weights.
    monitor : {"loss", "accuracy", "roc_auc"}
        Validation metric for `patience`.

    Raises
    ------
    ArgumentError
        If a value is out of range.

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
                f"class_weight is {self.class_weight!r}; expected a mapping from each class name to a number above 0, "
                'such as {"parasitized": 2, "uninfected": 1}, or "balanced", or None'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values; functions are replaced by their names.

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
            option = plain[name]
            if callable(option):
                plain[name] = getattr(option, "__qualname__", repr(option))
        if isinstance(self.class_weight, Mapping):
            plain["class_weight"] = {name: float(weight) for name, weight in self.class_weight.items()}
        return plain


def as_recipe(recipe: object) -> Recipe:
    """Return the recipe, or the default one for None; raise `ArgumentError` for anything else.

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
    """Return the recipe with defaults for the options that do not affect the compiled programs.

    Trainings whose recipes differ only in these options share their programs. Learning rates and class weights are
    arguments of a program, the network contains `freeze` and `remat`, and the training loop handles `patience`.

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
    """Return the optimiser of a recipe for one learning rate, which may be traced.

    The optimiser state does not depend on the rate. `parts` are the parts of the network in order, for `layer_decay`.
    """
    import optax

    inner = recipe.optimizer or _adamw(recipe, rate)
    if recipe.layer_decay is None:
        return inner
    factors = {part: recipe.layer_decay**depth for depth, part in enumerate(reversed(parts))}

    def scale(updates: Any, params: Any) -> Any:
        return {name: update * factors[name.split(".")[0]] for name, update in updates.items()}

    return optax.chain(inner, optax.stateless(scale))


def make_rates(recipe: Recipe, steps: int) -> np.ndarray:
    """Return the learning rate of every step of a training, (steps,) float32.

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
        # optax needs at least one step before and one after the peak.
        schedule = optax.cosine_onecycle_schedule(max(steps, 5), peak, pct_start=0.25, final_div_factor=1e3)
    elif recipe.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(peak, steps)
    else:
        return np.full(steps, peak, np.float32)
    # JAX compiles for every length, so the length is padded to a power of two.
    padded = 1 << max(steps - 1, 0).bit_length()
    return np.asarray(jax.vmap(schedule)(np.arange(padded)), np.float32)[:steps]


def with_rate(recipe: Recipe, *, tuning: bool) -> Recipe:
    """Return the recipe with the default learning rate filled in for None."""
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
    """Return the loss of a recipe: (logits, labels) -> one loss per image."""
    return recipe.loss or cross_entropy(recipe.label_smoothing)


def cross_entropy(label_smoothing: float = 0.0) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the softmax cross-entropy with integer labels, one value per image.

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
    """Return the class weights (K,) float32, scaled so that the mean weight of the training images is 1."""
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
