"""Batches of three sizes only, because JAX compiles a program for every shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np

from cellscan.process import use_jax

BATCH_SIZES = (1, 8, 64)
"""The batch sizes for which programs are compiled; a batch is padded to the next size."""

Forward: TypeAlias = Callable[[Any], Any]
"""Images (N, S, S, 3) uint8 -> one or several arrays with N rows."""


def run_batch(forward: Forward, images: np.ndarray) -> Any:
    """Run at most 64 images as one padded batch; return the rows of these images, without the padding."""
    use_jax()
    count = len(images)
    size = next(size for size in BATCH_SIZES if size >= count)
    return jax.tree.map(lambda rows: np.asarray(rows)[:count], forward(pad(images, size)))


def run_all(forward: Forward, chunks: Iterable[np.ndarray]) -> Any:
    """Run batches one after another and join the rows; at least one batch is required."""
    return join_rows([run_batch(forward, chunk) for chunk in chunks])


def join_rows(parts: list[Any]) -> Any:
    """Join the rows of several batches."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def no_rows(forward: Forward, size: int) -> Any:
    """Return the result of `forward` for zero images, without running it."""
    shapes = jax.eval_shape(forward, jax.ShapeDtypeStruct((1, size, size, 3), np.uint8))
    return jax.tree.map(lambda rows: np.zeros((0, *rows.shape[1:]), rows.dtype), shapes)


def pad(images: np.ndarray, size: int) -> np.ndarray:
    """Pad a batch to `size` with zeros."""
    missing = size - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images


def batches(images: Any) -> Iterator[np.ndarray]:
    """Divide an array-like of images, or of their indices, into batches of the largest size."""
    for start in range(0, len(images), BATCH_SIZES[-1]):
        yield images[start : start + BATCH_SIZES[-1]]
