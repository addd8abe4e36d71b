"""Batches of few shapes: a program is compiled once a shape, so there are three of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np

from cellscan.process import use_jax

BATCH_SIZES = (1, 8, 64)
"""The only batch sizes that are ever compiled; a batch is padded up to the next."""

Forward: TypeAlias = Callable[[Any], Any]
"""Images (N, S, S, 3) uint8 -> arrays of N rows, one or several of them."""


def run_batch(forward: Forward, images: np.ndarray) -> Any:
    """Run at most 64 images as one padded batch; return the rows of the real ones."""
    use_jax()
    count = len(images)
    size = next(size for size in BATCH_SIZES if size >= count)
    return jax.tree.map(lambda rows: np.asarray(rows)[:count], forward(pad(images, size)))


def run_all(forward: Forward, chunks: Iterable[np.ndarray]) -> Any:
    """Run batches one after another and join the rows; there must be one batch at least."""
    return join_rows([run_batch(forward, chunk) for chunk in chunks])


def join_rows(parts: list[Any]) -> Any:
    """Join the rows of several batches."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def no_rows(forward: Forward, size: int) -> Any:
    """Return what `forward` gives of no images, without computing anything."""
    shapes = jax.eval_shape(forward, jax.ShapeDtypeStruct((1, size, size, 3), np.uint8))
    return jax.tree.map(lambda rows: np.zeros((0, *rows.shape[1:]), rows.dtype), shapes)


def pad(images: np.ndarray, size: int) -> np.ndarray:
    """Fill a batch up to `size` with zeros."""
    missing = size - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images


def batches(images: Any) -> Iterator[np.ndarray]:
    """Cut an array-like, of images or of their indices, into batches of the largest size."""
    for start in range(0, len(images), BATCH_SIZES[-1]):
        yield images[start : start + BATCH_SIZES[-1]]
