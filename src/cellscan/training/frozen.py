"""Cached features of a frozen backbone: they are computed once, and only the head is trained on them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from cellscan.models.network import Network, Weights, weights_of
from cellscan.progress import Progress
from cellscan.tasks.batches import batches, run_batch
from cellscan.tasks.classification import ClassificationTask, HeadTask, embed
from cellscan.training.checkpoint import hash_weights
from cellscan.training.devices import Examples


@dataclass(frozen=True)
class FrozenBackbone:
    """The head of a network as a separate task, and the frozen backbone that computes its features.

    Attributes
    ----------
    task, predict_task : HeadTask
        The head with the options for training, and for prediction.
    head : Weights
        The initial weights of the head.
    backbone : ClassificationTask
        The whole network, with the options for prediction.
    whole : Weights
        The weights of the whole network.
    """

    task: HeadTask
    predict_task: HeadTask
    head: Weights
    backbone: ClassificationTask
    whole: Weights

    def features(self, examples: Examples, name: str, progress: bool) -> Examples:
        """Compute the features of all images."""
        rows = []
        forward = functools.partial(embed, self.backbone, (self.whole,))
        with Progress(f"features, {name}", len(examples), show=progress) as bar:
            for images in batches(examples.pixels):
                rows.append(run_batch(forward, images))
                bar.advance(len(images))
        return Examples(np.concatenate(rows), examples.labels)

    def join(self, head: Weights) -> Weights:
        """Return the weights of the whole network with this head."""
        params = {**self.whole["params"], **{f"head.{name}": leaf for name, leaf in head["params"].items()}}
        return {**self.whole, "params": params}

    def digest(self) -> str:
        """Return a hash of the backbone, which a checkpoint stores to detect another backbone."""
        params = {name: leaf for name, leaf in self.whole["params"].items() if not name.startswith("head.")}
        return hash_weights({**self.whole, "params": params})


def make_frozen(
    task: ClassificationTask, predict_task: ClassificationTask, weights: Weights, images: Any
) -> FrozenBackbone | None:
    """Return the frozen backbone of a task, or None if the inputs of the head may change between steps.

    `predict_task` is the task with the options for prediction. The function tests the network: the head must be a
    dense layer, all other parts must be frozen, and the logits of `images` in training must equal those of the head
    on ``features(x)["pre_logits"]``.
    """
    network, recipe = task.network, task.recipe
    changes = recipe.augment != "none" or recipe.mixup or (task.background == "fill" and recipe.background == "random")
    if changes or not network.head_alone:
        return None
    module = network.module(weights)
    if not isinstance(module.head, nnx.Linear) or not hasattr(module, "features"):
        return None
    head = HeadTask(Network(module.head))
    head_weights = weights_of(module.head)
    x = run_batch(functools.partial(embed, predict_task, (weights,)), images)
    head_logits = head.network.logits(head_weights, jax.numpy.asarray(x))
    logits = _training_logits(task, weights, jax.numpy.asarray(images))
    if not np.allclose(logits, head_logits, rtol=1e-3, atol=1e-3):
        return None
    trained = replace(head, recipe=replace(recipe, layer_decay=None))
    return FrozenBackbone(trained, head, head_weights, predict_task, weights)


@functools.partial(jax.jit, static_argnums=0)
def _training_logits(task: ClassificationTask, weights: Weights, images: Any) -> jax.Array:
    return task.network.train(weights["params"], weights["stats"], task.show(images), jax.random.key(0))[0]
