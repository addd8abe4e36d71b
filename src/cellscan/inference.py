"""Weights and images -> probabilities and features, in batches of few shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.models.network import Network, Weights
from cellscan.views import Normalization, prepare

BATCH_SIZES = (1, 8, 64)
"""The only batch sizes that are ever compiled; a batch is padded up to the next."""

Members: TypeAlias = tuple[Weights, ...]
Forward: TypeAlias = Callable[[Members, Any, Any], jax.Array]


def make_probabilities(network: Network, view: str, normalization: Normalization) -> Forward:
    """Return a jitted (members, temperature, images uint8) -> probabilities (N, K), averaged over members."""

    @jax.jit
    def probabilities(members: Members, temperature: jax.Array, images: jax.Array) -> jax.Array:
        x = normalization(prepare(images, view))
        each = [jax.nn.softmax(network.logits(weights, x).astype(jnp.float32) / temperature) for weights in members]
        return functools.reduce(jnp.add, each) / len(each)

    return probabilities


def make_embedding(network: Network, view: str, normalization: Normalization) -> Forward:
    """Return a jitted (members, unused, images uint8) -> features (N, D of all members side by side)."""

    @jax.jit
    def embedding(members: Members, _: jax.Array, images: jax.Array) -> jax.Array:
        x = normalization(prepare(images, view))
        each = [network.embedding(weights, x).astype(jnp.float32) for weights in members]
        return jnp.concatenate([features.reshape(len(features), -1) for features in each], axis=-1)

    return embedding


def run_batch(forward: Forward, members: Members, temperature: float, images: np.ndarray) -> np.ndarray:
    """Run at most 64 images as one padded batch; return the rows of the real ones."""
    count = len(images)
    size = next(size for size in BATCH_SIZES if size >= count)
    if size > count:
        images = np.concatenate([images, np.zeros((size - count, *images.shape[1:]), images.dtype)])
    return np.asarray(forward(members, np.float32(temperature), images))[:count]


def batches(images: Any) -> Iterator[np.ndarray]:
    """Cut an array-like of images into batches of the largest size."""
    for start in range(0, len(images), BATCH_SIZES[-1]):
        yield images[start : start + BATCH_SIZES[-1]]


def run_all(forward: Forward, members: Members, temperature: float, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """Run batches one after another and join the rows."""
    rows: Sequence[np.ndarray] = [run_batch(forward, members, temperature, chunk) for chunk in chunks]
    return np.concatenate(rows)
