"""Saliency maps of a classifier: Grad-CAM, integrated gradients and occlusion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cellscan.data.cells import CellDataset
from cellscan.data.images import read_rgb
from cellscan.data.inputs import Images, Item, decode, list_items, reading_of
from cellscan.data.reading import Reading
from cellscan.errors import ArgumentError, ImageError
from cellscan.models.network import Network, Weights
from cellscan.process import use_jax
from cellscan.progress import Progress
from cellscan.tasks.batches import pad
from cellscan.tasks.classification import ClassificationTask
from cellscan.tasks.programs import Members

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("gradcam", "integrated_gradients", "occlusion")

STEPS = 128
"""Number of points on the path from the baseline to the image, for integrated gradients."""

_BATCH = 32
"""Number of images in one forward pass: points of the path, or positions of the occluding window."""


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """A saliency map of one image: the evidence of each pixel for a label.

    Attributes
    ----------
    map : numpy.ndarray
        (H, W) float32 in [0, 1], at the size of the original image: evidence for the label, 1 where it is strongest.
        The map is 0 everywhere if no pixel has evidence for the label.
    values : numpy.ndarray
        (S, S) float32 at `image_size`, signed, in units of the logit. The values of ``"integrated_gradients"`` add up
        to `output` - `baseline`. A value of ``"occlusion"`` is the decrease of the logit if the pixel is hidden.
        ``"gradcam"`` has no negative values.
    label : int
        Index of the explained label.
    label_name : str
        Name of the class.
    output, baseline : float
        Logit of the label, mean over members: for the image, and for a uniform image of its mean colour.
    image : numpy.ndarray
        (H, W, 3) uint8, the original image.
    name : str
        File name or other name of the image.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(8, seed=0)
    >>> why = cellscan.Classifier(image_size=32, seed=0).explain(cells, method="gradcam")
    >>> why[0].map.shape == cells[0].image.shape[:2], why[0].values.shape
    (True, (32, 32))
    """

    map: np.ndarray
    values: np.ndarray
    label: int
    label_name: str
    output: float
    baseline: float
    image: np.ndarray
    name: str

    def __repr__(self) -> str:
        return f"Explanation({self.name!r}, label_name={self.label_name!r}, output={self.output:.3f})"

    def plot(self) -> Figure:
        """Draw the image, the map, and the map over the image.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> figure = clf.explain(cellscan.synthetic_cells(8, seed=0))[0].plot()
        >>> len(figure.axes)
        3
        """
        from cellscan.plots import plot_explanations

        return plot_explanations([(self.name, self.image, self.map, self.label_name)])


@dataclass(frozen=True, repr=False, eq=False)
class Explanations(Sequence[Explanation]):
    """The explanations of several images, in the order of the images.

    Attributes
    ----------
    method : str
        Method of the maps: ``"gradcam"``, ``"integrated_gradients"`` or ``"occlusion"``.
    items : tuple[Explanation, ...]
        The explanation of each image.

    Examples
    --------
    >>> import cellscan
    >>> clf = cellscan.Classifier(image_size=32, seed=0)
    >>> clf.explain(cellscan.synthetic_cells(8, seed=0), method="occlusion")
    8 explanations by occlusion
    """

    method: str
    items: tuple[Explanation, ...]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> Explanations: ...
    def __getitem__(self, index: int | slice) -> Explanation | Explanations:
        if isinstance(index, slice):
            return Explanations(self.method, self.items[index])
        return self.items[index]

    def __repr__(self) -> str:
        return f"{len(self):,} explanations by {self.method}"

    def plot(self, count: int = 6) -> Figure:
        """Draw the first explanations, one per row: the image, the map, and the map over the image.

        Parameters
        ----------
        count : int
            Largest number of rows.

        Raises
        ------
        ArgumentError
            If there are no explanations.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> len(clf.explain(cellscan.synthetic_cells(8, seed=0)).plot(2).axes)
        6
        """
        from cellscan.plots import plot_explanations

        if not self.items:
            raise ArgumentError("there are no explanations to draw; expected at least one")
        return plot_explanations([(why.name, why.image, why.map, why.label_name) for why in self.items[:count]])


def explain(
    task: ClassificationTask,
    members: Members,
    images: Images,
    size: int,
    *,
    method: str,
    label: int | None,
    decide: Callable[[np.ndarray], np.ndarray],
    class_names: Sequence[str],
    progress: bool,
    reading: Reading | None = None,
) -> Explanations:
    """Explain images from any supported input.

    If `label` is None, each image is explained for the label that `decide` returns for images (N, S, S, 3).
    """
    use_jax()
    explanations = []
    stated = reading_of(images, reading)
    items, total = _items(images)
    with Progress("explaining", total, show=progress) as bar:
        for item, image in decode(items, None, stated):
            if isinstance(image, ImageError):
                raise image
            small = read_rgb(image, size)
            chosen = int(decide(small[None])[0]) if label is None else label
            values, output, baseline = explain_one(task, members, small, chosen, method)
            heat = _to_pixels(values, image.shape[:2])
            name = class_names[chosen]
            explanations.append(Explanation(heat, values, chosen, name, output, baseline, image, item.name))
            bar.advance(1)
    return Explanations(method, tuple(explanations))


def _items(images: Images) -> tuple[Any, int | None]:
    if not isinstance(images, CellDataset):
        return list_items(images)

    def cells() -> Iterator[Item]:
        for index in range(len(images)):
            yield Item(index, str(images.names[index]), images[index].image)

    return cells(), len(images)


def _to_pixels(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the positive values (S, S), scaled to at most 1 and resized to the original image (H, W)."""
    positive = np.maximum(values, 0).astype(np.float32)
    positive /= max(float(positive.max()), 1e-12)
    resized = Image.fromarray(positive).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0, 1)


Map: TypeAlias = Callable[[Network, Weights, Any, Any, int], Any]
"""(network, weights, x (S, S, 3), ground (S, S, 3), label) -> values (S, S)."""


def explain_one(
    task: ClassificationTask, members: Members, image: np.ndarray, label: int, method: str
) -> tuple[np.ndarray, float, float]:
    """Return values (S, S), output and baseline of an image (S, S, 3) uint8, as means over the members.

    The computations on the device are compiled and use batches of one size. The loops are in Python, because XLA's CPU
    backend runs convolutions inside a compiled loop twenty times slower.
    """
    find: Map = {"gradcam": gradcam, "integrated_gradients": integrated_gradients, "occlusion": occlusion}[method]
    x = jnp.asarray(_shown(task, image[None]))[0]
    ground = jnp.broadcast_to(x.mean((0, 1)), x.shape)
    both = jnp.stack([x, ground])
    maps, ends = [], []
    for weights in members:
        maps.append(np.asarray(find(task.network, weights, x, ground, label)))
        ends.append(np.asarray(logit(task.network, weights, both, label)))
    output, baseline = np.mean(ends, axis=0)
    return np.mean(maps, axis=0, dtype=np.float32), float(output), float(baseline)


@functools.partial(jax.jit, static_argnums=0)
def _shown(task: ClassificationTask, images: Any) -> jax.Array:
    return task.show(images)


@functools.partial(jax.jit, static_argnums=0)
def logit(network: Network, weights: Weights, x: Any, label: int) -> jax.Array:
    """Return the logit of a label, (N,) float32, for normalised images."""
    return network.logits(weights, x)[:, label].astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def gradient(network: Network, weights: Weights, x: Any, label: int) -> jax.Array:
    """Return the gradient (N, S, S, 3) of a label's logit with respect to the images."""
    return jax.grad(lambda x: network.logits(weights, x)[:, label].astype(jnp.float32).sum())(x)


@functools.partial(jax.jit, static_argnums=0)
def cam(network: Network, weights: Weights, x: Any, label: int) -> jax.Array:
    """Return the Grad-CAM maps (N, S, S) of a label."""
    maps = network.last_map(weights, x)
    slope = jax.grad(lambda maps: network.classify(weights, maps)[:, label].sum())(maps)
    weighted = jax.nn.relu((slope.mean((1, 2), keepdims=True) * maps).sum(-1)).astype(jnp.float32)
    return jax.image.resize(weighted, x.shape[:3], "linear")


def gradcam(network: Network, weights: Weights, x: jax.Array, ground: jax.Array, label: int) -> jax.Array:
    """Return the Grad-CAM map (S, S) of an image.

    The map is the positive part of the sum of the last feature maps, each weighted by the mean gradient of the logit.
    `x` is the image and `ground` the baseline, both (S, S, 3). Source: Selvaraju et al. (2017).
    """
    return cam(network, weights, x[None], label)[0]


def integrated_gradients(network: Network, weights: Weights, x: jax.Array, ground: jax.Array, label: int) -> jax.Array:
    """Return the integrated gradients (S, S) of an image.

    The values are the difference of `x` and `ground`, times the mean gradient on the straight path between them, summed
    over the colours. The mean is a Gauss-Legendre quadrature with `STEPS` points. The shapes are those of `gradcam`.
    Source: Sundararajan et al. (2017).
    """
    points, shares = np.polynomial.legendre.leggauss(STEPS)
    points, shares = ((points + 1) / 2).astype(np.float32), (shares / 2).astype(np.float32)
    total = jnp.zeros_like(x)
    for start in range(0, STEPS, _BATCH):
        batch = slice(start, start + _BATCH)
        along = ground + points[batch, None, None, None] * (x - ground)
        total += jnp.tensordot(shares[batch], gradient(network, weights, along, label), 1)
    return ((x - ground) * total).sum(-1)


def occlusion(network: Network, weights: Weights, x: jax.Array, ground: jax.Array, label: int) -> np.ndarray:
    """Return the decrease of the logit (S, S) if a window of the image is replaced by `ground`.

    The window is an eighth of the side wide and moves by half of its width. The value of a pixel is the mean over the
    windows that hide it. The shapes are those of `gradcam`. Source: Zeiler and Fergus (2014).
    """
    side = x.shape[0]
    window = max(side // 8, 2)
    starts = np.minimum(np.arange(0, side - window // 2, window // 2), side - window)
    covers = np.zeros((len(starts), side), bool)
    for row, start in zip(covers, starts, strict=True):
        row[start : start + window] = True
    nothing = np.zeros((1, side), bool)
    rows = np.concatenate([np.repeat(covers, len(starts), 0), nothing])
    columns = np.concatenate([np.tile(covers, (len(starts), 1)), nothing])
    logits = []
    for start in range(0, len(rows), _BATCH):
        hidden_rows, hidden_columns = (pad(lines[start : start + _BATCH], _BATCH) for lines in (rows, columns))
        hidden = (hidden_rows[:, :, None] & hidden_columns[:, None])[..., None]
        logits.append(np.asarray(logit(network, weights, jnp.where(hidden, ground, x), label)))
    outputs = np.concatenate(logits)[: len(rows)]
    lost = (outputs[-1] - outputs[:-1]).reshape(len(starts), len(starts))
    shares = covers / covers.sum(0)
    return np.einsum("ij,ih,jw->hw", lost, shares, shares).astype(np.float32)
