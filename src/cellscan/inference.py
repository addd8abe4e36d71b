"""Runs a model over images from any supported input, in batches of a few fixed sizes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.data.cells import CellDataset
from cellscan.data.inputs import Images, decode, list_items, reading_of
from cellscan.data.reading import Reading
from cellscan.errors import DataError, ImageError, check_choice
from cellscan.predictions import Failure
from cellscan.progress import Progress
from cellscan.tasks.batches import BATCH_SIZES, Forward, batches, join_rows, no_rows, run_batch

SYMMETRIES = range(8)
"""Symmetries of the square, for `apply_symmetry`; 0 is the identity."""


def apply_symmetry(images: Any, symmetry: int) -> Any:
    """Return images (N, S, S, 3) after one of the eight symmetries of the square."""
    images = images.swapaxes(1, 2) if symmetry & 1 else images
    images = images[:, ::-1] if symmetry & 2 else images
    return images[:, :, ::-1] if symmetry & 4 else images


def average_symmetries(forward: Forward) -> Forward:
    """Return a forward function that averages its output over the eight symmetries of every image."""

    def averaged(images: Any) -> Any:
        predicted = [forward(apply_symmetry(images, symmetry)) for symmetry in SYMMETRIES]
        return jax.tree.map(lambda *rows: functools.reduce(jnp.add, rows) / len(rows), *predicted)

    return averaged


class Ran(NamedTuple):
    """The output of `run_images`.

    Attributes
    ----------
    rows
        Arrays with one row per image, as the forward function returns them.
    indices : (N,) int64
        Positions in the input.
    names : tuple[str, ...]
        Names of the images.
    failed : tuple[Failure, ...]
        Images that could not be read.
    """

    rows: Any
    indices: np.ndarray
    names: tuple[str, ...]
    failed: tuple[Failure, ...]


def run_images(
    forward: Forward, images: Images, size: int, *, on_error: str, progress: bool, reading: Reading | None = None
) -> Ran:
    """Run a forward function over images from any supported input."""
    stated = reading_of(images, reading)
    check_choice("on_error", on_error, ("raise", "skip"))
    rows: list[Any] = []
    if isinstance(images, CellDataset):
        if not len(images):
            raise DataError("the data set is empty; expected at least one cell")
        bad: dict[int, str] = {}
        if on_error == "skip":
            pixels, bad = images.open_pixels(size, progress=progress)
        else:
            pixels = images.images(size, progress=progress)
        names = images.names.tolist()
        good = np.setdiff1d(np.arange(len(images)), list(bad))
        with Progress("predicting", len(good), show=progress) as bar:
            for chosen in batches(good):
                rows.append(run_batch(forward, pixels[chosen]))
                bar.advance(len(chosen))
        failed = tuple(Failure(index, names[index], why) for index, why in bad.items())
        return Ran(_join(rows, forward, size), good, tuple(names[index] for index in good), failed)
    items, total = list_items(images)
    batch, read, failures = [], [], []
    with Progress("predicting", total, show=progress) as bar:
        for item, image in decode(items, size, stated):
            if isinstance(image, ImageError):
                if on_error == "raise":
                    raise image
                failures.append(Failure(item.index, item.name, str(image)))
                bar.advance(1)
                continue
            read.append((item.index, item.name))
            batch.append(image)
            if len(batch) == BATCH_SIZES[-1]:
                rows.append(run_batch(forward, np.stack(batch)))
                bar.advance(len(batch))
                batch = []
        if batch:
            rows.append(run_batch(forward, np.stack(batch)))
    indices = np.array([index for index, _ in read], np.int64)
    return Ran(_join(rows, forward, size), indices, tuple(name for _, name in read), tuple(failures))


def _join(rows: list[Any], forward: Forward, size: int) -> Any:
    return join_rows(rows) if rows else no_rows(forward, size)
