"""A frozen backbone: what it gives is computed once, and the head alone is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from cellscan.inference import Forward, batches, make_embedding, make_probabilities, run_batch
from cellscan.models.network import Network, Weights
from cellscan.progress import Progress
from cellscan.training.checkpoint import hash_weights
from cellscan.training.devices import Examples
from cellscan.training.recipe import Recipe
from cellscan.views import Normalization, show


@dataclass(frozen=True)
class Probe:
    """The head of a network as a network of its own, and the way from images to what it takes."""

    network: Network
    forward: Forward
    whole: Weights
    embed: Forward

    def features(self, examples: Examples, name: str, progress: bool) -> Examples:
        """Run the backbone over all images, once."""
        rows = []
        with Progress(f"features, {name}", len(examples), show=progress) as bar:
            for images in batches(examples.pixels):
                rows.append(run_batch(self.embed, (self.whole,), 1.0, images))
                bar.advance(len(images))
        return Examples(np.concatenate(rows), examples.labels)

    def join(self, head: Weights) -> Weights:
        """Return the weights of the whole network with this head."""
        params = {**self.whole["params"], **{f"head.{name}": leaf for name, leaf in head["params"].items()}}
        return {**self.whole, "params": params}

    def digest(self) -> str:
        """Return a hash of the backbone, by which a checkpoint knows it again."""
        params = {name: leaf for name, leaf in self.whole["params"].items() if not name.startswith("head.")}
        return hash_weights({**self.whole, "params": params})


def make_probe(
    network: Network, weights: Weights, images: Any, recipe: Recipe, view: str, normalization: Normalization
) -> Probe | None:
    """Return the probe of a network, or None where what its head is given may change from step to step.

    That is asked of the network itself: its head must be a dense layer, all else frozen, and the logits of
    `images` in training must be the head's on ``features(x)["pre_logits"]``.
    """
    changes = recipe.augment != "none" or recipe.mixup or (view == "filled" and recipe.surround == "random")
    if changes or not network.head_alone:
        return None
    module = network.module(weights)
    if not isinstance(module.head, nnx.Linear) or not hasattr(module, "features"):
        return None
    probe = Network(module.head)
    embed = make_embedding(network, view, normalization)
    x = run_batch(embed, (weights,), 1.0, images)
    alone = probe.logits(probe.weights(), jax.numpy.asarray(x))
    logits, _ = jax.jit(network.train)(
        weights["params"], weights["stats"], show(jax.numpy.asarray(images), view, normalization), jax.random.key(0)
    )
    if not np.allclose(logits, alone, rtol=1e-3, atol=1e-3):
        return None
    return Probe(probe, make_probabilities(probe, None, normalization), weights, embed)
