"""Classification of images: by a whole network, or by its head on precomputed features."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.decisions.novelty import Axes, distance
from cellscan.models.network import Network, Weights
from cellscan.preprocessing import Normalization, prepare
from cellscan.tasks.augment import make_augment, random_background
from cellscan.tasks.batches import batches, run_all
from cellscan.tasks.programs import Members, Metrics, predict
from cellscan.tasks.recipe import Recipe, make_loss


class Settings(NamedTuple):
    """Numbers that the predictions of a classifier depend on, in addition to its weights.

    Attributes
    ----------
    temperature : () float32
        Divisor of the logits.
    axes : Axes or None
        The Gaussian of the novelty model; None without one.
    """

    temperature: Any = np.float32(1)
    axes: Axes | None = None


class PredictedArrays(NamedTuple):
    """Predictions for N images: probabilities (N, K), averaged over members, and novelty (N,) or None."""

    probabilities: Any
    novelty: Any


@dataclass(frozen=True)
class _Labelling:
    """The common part of the two tasks: logits (N, K), compared with labels (N,)."""

    network: Network
    recipe: Recipe = field(default_factory=Recipe)

    def show(self, images: Any) -> jax.Array:
        """Return the inputs of the network for images outside training."""
        raise NotImplementedError

    def measure(self, outputs: Any, targets: Any, constants: Any) -> tuple[jax.Array, Metrics]:
        """Return the mean loss and the accuracy; `constants` are the class weights (K,), or None."""
        labels, share = targets
        logits, loss = outputs.astype(jnp.float32), make_loss(self.recipe)

        def weighted(labels: jax.Array) -> jax.Array:
            losses = loss(logits, labels)
            return losses if constants is None else losses * constants[labels]

        losses = weighted(labels)
        if self.recipe.mixup:
            losses = share * losses + (1 - share) * weighted(labels[::-1])
        return losses.mean(), {"accuracy": (logits.argmax(-1) == labels).mean()}

    def predict(self, members: Members, settings: Settings, images: jax.Array) -> PredictedArrays:
        """Return the probabilities of images, and their novelty for the first member."""
        x = self.show(images)
        each = [
            jax.nn.softmax(self.network.logits(weights, x).astype(jnp.float32) / settings.temperature)
            for weights in members
        ]
        axes = settings.axes
        novelty = None if axes is None else distance(axes, self.network.feature_statistics(members[0], x))
        return PredictedArrays(functools.reduce(jnp.add, each) / len(each), novelty)

    def validate(self, weights: Weights, examples: Any, constants: Any) -> dict[str, float]:
        """Return loss, accuracy and, if the set has cells of both of two classes, ROC AUC."""
        forward = functools.partial(predict, self, (weights,), Settings())
        probabilities, labels = run_all(forward, batches(examples.pixels)).probabilities, examples.labels
        chosen = probabilities[np.arange(len(labels)), labels]
        record = {
            "validation_loss": float(-np.log(np.maximum(chosen, 1e-7)).mean()),
            "validation_accuracy": float((probabilities.argmax(1) == labels).mean()),
        }
        if probabilities.shape[1] == 2 and 0 < labels.sum() < len(labels):
            from sklearn.metrics import roc_auc_score

            record["validation_roc_auc"] = float(roc_auc_score(labels, probabilities[:, 1]))
        return record


@dataclass(frozen=True)
class ClassificationTask(_Labelling):
    """Classification of images (N, S, S, 3) uint8 with labels (N,) int32.

    Attributes
    ----------
    network, recipe
        See `Task`.
    background, normalization
        Preprocessing of the images; see `cellscan.Classifier`.
    """

    background: str = "fill"
    normalization: Normalization = field(default_factory=Normalization)

    def show(self, images: Any) -> jax.Array:
        """Return images with their background replaced, normalised."""
        return self.normalization(prepare(images, self.background))

    def prepare(self, images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        """Return the network's inputs in training, and the labels with the share of each in its mixed image."""
        augment_key, _, background_key, mixup_key = keys
        recipe = self.recipe
        varied = recipe.background == "random" and self.background == "fill"
        x = prepare(images, "keep" if varied else self.background)
        if varied:
            x = random_background(background_key, x)
        augment = make_augment(recipe.augment) if isinstance(recipe.augment, str) else recipe.augment
        if augment is not None:
            x = augment(augment_key, x)
        x = self.normalization(x).astype(recipe.dtype)
        share = jnp.ones(())
        if recipe.mixup:  # The batch is shuffled, so its reverse order gives every image a random partner.
            share = jax.random.beta(mixup_key, recipe.mixup, recipe.mixup, (len(x),))
            part = share.reshape(-1, 1, 1, 1).astype(recipe.dtype)
            x = part * x + (1 - part) * x[::-1]
        return x, (labels, share)


@dataclass(frozen=True)
class HeadTask(_Labelling):
    """Classification of features (N, D) float32 of a frozen backbone, with labels (N,) int32.

    The network is the head.
    """

    def show(self, images: Any) -> jax.Array:
        """Return the features unchanged."""
        return images

    def prepare(self, images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        """Return features and labels."""
        return images.astype(self.recipe.dtype), (labels, jnp.ones(()))


@functools.partial(jax.jit, static_argnums=0)
def embed(task: ClassificationTask, members: Members, images: Any) -> jax.Array:
    """Return the features before the head, concatenated over all members, (N, D)."""
    x = task.show(images)
    each = [task.network.embedding(weights, x).astype(jnp.float32) for weights in members]
    return jnp.concatenate([features.reshape(len(features), -1) for features in each], axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def feature_statistics(task: ClassificationTask, weights: Weights, images: Any) -> jax.Array:
    """Return the features of images for the novelty model, (N, D); see `Network.feature_statistics`."""
    return task.network.feature_statistics(weights, task.show(images))
