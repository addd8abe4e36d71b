"""Detection of cells in whole fields: boxes, each with a class and a score."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.detection.anchors import decode
from cellscan.detection.suppression import select
from cellscan.detection.targets import detection_loss
from cellscan.models.network import Network, Weights
from cellscan.preprocessing import Normalization, prepare
from cellscan.tasks.augment import augment_fields
from cellscan.tasks.programs import Members, Metrics
from cellscan.tasks.recipe import Recipe

MIN_SCORE = 0.05
"""Score at and above which a box is kept for average precision."""

CANDIDATES = 10_000
"""Number of (anchor, class) pairs for suppression: a field has up to 300 cells, with about thirty anchors each."""


@dataclass(frozen=True)
class DetectionTask:
    """Detection in fields (N, H, W, 3) uint8 with targets (N, M, 5) float32: boxes and labels.

    The constants of the task are the anchors (A, 4).

    Attributes
    ----------
    network, recipe
        See `Task`.
    normalization : Normalization
    iou_threshold, max_detections
        Parameters of suppression; see `cellscan.DetectionConfig`.
    """

    network: Network
    recipe: Recipe = field(default_factory=Recipe)
    normalization: Normalization = field(default_factory=Normalization)
    iou_threshold: float = 0.5
    max_detections: int = 400

    def show(self, images: Any) -> jax.Array:
        """Return normalised fields."""
        return self.normalization(prepare(images, "keep"))

    def prepare(self, images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        """Return fields and targets, augmented according to the recipe."""
        assert isinstance(self.recipe.augment, str)
        x, targets = augment_fields(self.recipe.augment, keys[0], prepare(images, "keep"), labels)
        return self.normalization(x).astype(self.recipe.dtype), targets

    def measure(self, outputs: Any, targets: Any, constants: Any) -> tuple[jax.Array, Metrics]:
        """Return the loss of RetinaNet and its two parts."""
        return detection_loss(outputs, constants, targets)

    def predict(self, members: Members, settings: Any, images: jax.Array) -> jax.Array:
        """Return boxes, scores and classes (N, max_detections, 6), by decreasing score; boxes in pixels of the input.

        `settings` are the anchors.
        """
        (weights,) = members
        outputs: Any = self.network.logits(weights, self.show(images))
        scores = jax.nn.sigmoid(outputs["classes"].astype(jnp.float32))
        boxes = decode(outputs["boxes"].astype(jnp.float32), settings)
        height, width = images.shape[1:3]
        boxes = jnp.clip(boxes, 0, jnp.array([width, height, width, height], jnp.float32))
        chosen = functools.partial(
            select,
            score_threshold=MIN_SCORE,
            iou_threshold=self.iou_threshold,
            candidates=CANDIDATES,
            max_detections=self.max_detections,
        )
        return jax.vmap(chosen)(scores, boxes)

    def validate(self, weights: Weights, examples: Any, constants: Any) -> dict[str, float]:
        """Return the mean loss over fields."""
        each = [
            float(field_loss(self, weights, examples.pixels[row : row + 1], examples.labels[row : row + 1], constants))
            for row in range(len(examples))
        ]
        return {"validation_loss": float(np.mean(each))}


@functools.partial(jax.jit, static_argnums=0)
def field_loss(task: DetectionTask, weights: Weights, images: Any, targets: Any, anchors: Any) -> jax.Array:
    """Return the loss () of fields without augmentation."""
    outputs: Any = task.network.logits(weights, task.show(images))
    return detection_loss(outputs, anchors, targets)[0]
