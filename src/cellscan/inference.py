"""Weights and images -> probabilities, features and novelty, in batches of few shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from cellscan.card import Card, Novelty
from cellscan.data.cells import CellDataset
from cellscan.data.inputs import Images, decode, list_items
from cellscan.errors import DataError, ImageError, check_choice
from cellscan.models.network import Network, Weights
from cellscan.predictions import Failure
from cellscan.progress import Progress
from cellscan.views import Normalization, show

BATCH_SIZES = (1, 8, 64)
"""The only batch sizes that are ever compiled; a batch is padded up to the next."""

Members: TypeAlias = tuple[Weights, ...]
Forward: TypeAlias = Callable[[Members, Any, Any], jax.Array]
"""(members, settings, images uint8) -> rows; settings are the temperature, and whatever else comes with the card."""


def make_probabilities(network: Network, view: str | None, normalization: Normalization) -> Forward:
    """Return a jitted (members, temperature, images uint8) -> probabilities (N, K), averaged over members."""

    @jax.jit
    def probabilities(members: Members, temperature: jax.Array, images: jax.Array) -> jax.Array:
        x = show(images, view, normalization)
        each = [jax.nn.softmax(network.logits(weights, x).astype(jnp.float32) / temperature) for weights in members]
        return functools.reduce(jnp.add, each) / len(each)

    return probabilities


def make_embedding(network: Network, view: str, normalization: Normalization) -> Forward:
    """Return a jitted (members, unused, images uint8) -> features (N, D of all members side by side)."""

    @jax.jit
    def embedding(members: Members, _: jax.Array, images: jax.Array) -> jax.Array:
        x = show(images, view, normalization)
        each = [network.embedding(weights, x).astype(jnp.float32) for weights in members]
        return jnp.concatenate([features.reshape(len(features), -1) for features in each], axis=-1)

    return embedding


def make_signature(network: Network, view: str, normalization: Normalization) -> Forward:
    """Return a jitted (members, unused, images uint8) -> what they are like to the first member, (N, D)."""

    @jax.jit
    def signature(members: Members, _: Any, images: jax.Array) -> jax.Array:
        return network.signature(members[0], show(images, view, normalization))

    return signature


def make_judgement(network: Network, view: str, normalization: Normalization) -> Forward:
    """Return a jitted (members, (temperature, axes), images uint8) -> (N, K + 1): probabilities, and novelty last."""
    probabilities = make_probabilities(network, view, normalization)
    signature = make_signature(network, view, normalization)

    @jax.jit
    def judgement(members: Members, settings: tuple[Any, Axes], images: jax.Array) -> jax.Array:
        temperature, axes = settings
        novelty = distance(axes, signature(members, temperature, images))
        return jnp.concatenate([probabilities(members, temperature, images), novelty[:, None]], axis=-1)

    return judgement


class Axes(NamedTuple):
    """A Gaussian of D features: k axes along which it is widest, and one variance for all others."""

    mean: Any
    scale: Any
    basis: Any
    variances: Any
    rest: Any


def axes_of(novelty: Novelty) -> Axes:
    """Return the arrays of a card's novelty."""
    return Axes(novelty.mean, novelty.scale, novelty.basis, novelty.variances, np.float32(novelty.rest))


def distance(axes: Axes, features: Any) -> jax.Array:
    """Return the Mahalanobis distance (N,) of features (N, D) to a Gaussian."""
    far = (features - axes.mean) / axes.scale
    along = far @ axes.basis.astype(jnp.float32)
    across = jnp.maximum((far**2).sum(-1) - (along**2).sum(-1), 0)
    return jnp.sqrt((along**2 / axes.variances).sum(-1) + across / axes.rest)


SYMMETRIES = range(8)
"""Of the square, for `apply_symmetry`; 0 leaves an image as it is."""


def apply_symmetry(images: Any, symmetry: int) -> Any:
    """Return images (N, S, S, 3) under one of the square's eight symmetries."""
    images = images.swapaxes(1, 2) if symmetry & 1 else images
    images = images[:, ::-1] if symmetry & 2 else images
    return images[:, :, ::-1] if symmetry & 4 else images


def average_symmetries(forward: Forward) -> Forward:
    """Return a forward that averages over the square's eight symmetries of every image."""

    def averaged(members: Members, settings: Any, images: Any) -> jax.Array:
        judged = [forward(members, settings, apply_symmetry(images, symmetry)) for symmetry in SYMMETRIES]
        return functools.reduce(jnp.add, judged) / len(judged)

    return averaged


def run_batch(forward: Forward, members: Members, settings: Any, images: np.ndarray) -> np.ndarray:
    """Run at most 64 images as one padded batch; return the rows of the real ones."""
    count = len(images)
    size = next(size for size in BATCH_SIZES if size >= count)
    return np.asarray(forward(members, settings, pad(images, size)))[:count]


def pad(images: np.ndarray, size: int) -> np.ndarray:
    """Fill a batch up to `size` with zeros."""
    missing = size - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images


def batches(images: Any) -> Iterator[np.ndarray]:
    """Cut an array-like, of images or of their indices, into batches of the largest size."""
    for start in range(0, len(images), BATCH_SIZES[-1]):
        yield images[start : start + BATCH_SIZES[-1]]


def run_all(forward: Forward, members: Members, settings: Any, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """Run batches one after another and join the rows."""
    rows: Sequence[np.ndarray] = [run_batch(forward, members, settings, chunk) for chunk in chunks]
    return np.concatenate(rows)


def run_images(
    forward: Forward,
    members: Members,
    settings: Any,
    images: Images,
    size: int,
    *,
    on_error: str,
    progress: bool,
    width: int,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[Failure, ...]]:
    """Run whatever holds images; return rows, positions in the input, names, and what could not be read."""
    check_choice("on_error", on_error, ("raise", "skip"))
    rows: list[np.ndarray] = []
    if isinstance(images, CellDataset):
        if not len(images):
            raise DataError("the data set is empty")
        bad: dict[int, str] = {}
        if on_error == "skip":
            pixels, bad = images.open_pixels(size, progress=progress)
        else:
            pixels = images.images(size, progress=progress)
        names = images.names.tolist()
        good = np.setdiff1d(np.arange(len(images)), list(bad))
        with Progress("predicting", len(good), show=progress) as bar:
            for chosen in batches(good):
                rows.append(run_batch(forward, members, settings, pixels[chosen]))
                bar.advance(len(chosen))
        return _gather(
            rows, width, good, [names[i] for i in good], [Failure(i, names[i], why) for i, why in bad.items()]
        )
    items, total = list_items(images)
    batch, kept, failed = [], [], []
    with Progress("predicting", total, show=progress) as bar:
        for item, image in decode(items, size):
            if isinstance(image, ImageError):
                if on_error == "raise":
                    raise image
                failed.append(Failure(item.index, item.name, str(image)))
                bar.advance(1)
                continue
            kept.append((item.index, item.name))
            batch.append(image)
            if len(batch) == BATCH_SIZES[-1]:
                rows.append(run_batch(forward, members, settings, np.stack(batch)))
                bar.advance(len(batch))
                batch = []
        if batch:
            rows.append(run_batch(forward, members, settings, np.stack(batch)))
    return _gather(rows, width, [i for i, _ in kept], [name for _, name in kept], failed)


def _gather(
    rows: list[np.ndarray], width: int, indices: Any, names: list[str], failed: list[Failure]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[Failure, ...]]:
    joined = np.concatenate(rows) if rows else np.zeros((0, width), np.float32)
    return joined, np.array(indices, np.int64), tuple(names), tuple(failed)


def decide(probabilities: np.ndarray, card: Card) -> np.ndarray:
    """Return labels (N,) int32: by threshold with two classes, else the likeliest."""
    if len(card.class_names) != 2 or card.positive_class is None:
        return probabilities.argmax(1).astype(np.int32)
    positive = card.class_names.index(card.positive_class)
    called = probabilities[:, positive] >= np.float32(card.decision.threshold)
    return np.where(called, positive, 1 - positive).astype(np.int32)
