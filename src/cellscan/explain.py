"""Where a network looks: Grad-CAM, integrated gradients and occlusion, as maps over the image."""

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
"""Points of the path from the baseline to the image, for integrated gradients."""

_BATCH = 32
"""Images in one pass, points of a path or places of a window."""


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """What speaks for a label, pixel by pixel.

    Attributes
    ----------
    map : numpy.ndarray
        (H, W) float32 in [0, 1], in the image's own pixels: what speaks for the label, 1 where it does most; all 0
        where nothing does.
    values : numpy.ndarray
        (S, S) float32 at `image_size`, signed, in units of the logit. Of ``"integrated_gradients"`` they add up
        to `output` - `baseline`; of ``"occlusion"`` each is what the logit loses where the pixel is hidden;
        ``"gradcam"`` has no negative ones.
    label : int
        Index of the label that is explained.
    label_name : str
        The class.
    output, baseline : float
        The label's logit, mean over members: of the image, and of one that is everywhere of its mean colour.
    image : numpy.ndarray
        (H, W, 3) uint8, as it came.
    name : str
        File name, or what else names the image.

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
        """Draw the image, the map, and one over the other.

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
    """Explanations in the order of the images.

    Attributes
    ----------
    method : str
        How the maps were made.

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
        """Draw the first ones: a row each of the image, the map, and one over the other.

        Parameters
        ----------
        count : int
            Rows at most.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> len(clf.explain(cellscan.synthetic_cells(8, seed=0)).plot(2).axes)
        6
        """
        from cellscan.plots import plot_explanations

        if not self.items:
            raise ArgumentError("there are no explanations to draw")
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
    """Explain whatever holds images; without a label, that which `decide` gives images (N, S, S, 3)."""
    use_jax()
    done = []
    stated = reading_of(images, reading)
    items, total = _items(images)
    with Progress("explaining", total, show=progress) as bar:
        for item, image in decode(items, None, stated):
            if isinstance(image, ImageError):
                raise image
            small = read_rgb(image, size)
            chosen = int(decide(small[None])[0]) if label is None else label
            values, output, baseline = explain_one(task, members, small, chosen, method)
            own = _to_pixels(values, image.shape[:2])
            done.append(Explanation(own, values, chosen, class_names[chosen], output, baseline, image, item.name))
            bar.advance(1)
    return Explanations(method, tuple(done))


def _items(images: Images) -> tuple[Any, int | None]:
    if not isinstance(images, CellDataset):
        return list_items(images)

    def cells() -> Iterator[Item]:
        for index in range(len(images)):
            yield Item(index, str(images.names[index]), images[index].image)

    return cells(), len(images)


def _to_pixels(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return positive values (S, S), scaled to at most 1, at the image's own size (H, W)."""
    positive = np.maximum(values, 0).astype(np.float32)
    positive /= max(float(positive.max()), 1e-12)
    wide = Image.fromarray(positive).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(wide), 0, 1)


Map: TypeAlias = Callable[[Network, Weights, Any, Any, int], Any]
"""(network, weights, x (S, S, 3), ground (S, S, 3), label) -> values (S, S)."""


def explain_one(
    task: ClassificationTask, members: Members, image: np.ndarray, label: int, method: str
) -> tuple[np.ndarray, float, float]:
    """Return values (S, S), output and baseline of an image (S, S, 3) uint8; means over members.

    What runs on the device is compiled and takes batches of one size. XLA's CPU backend runs convolutions inside a
    loop of its own twenty times slower, so the loops stand here.
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
    """Return the logit (N,) of a label."""
    return network.logits(weights, x)[:, label].astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def gradient(network: Network, weights: Weights, x: Any, label: int) -> jax.Array:
    """Return the gradient (N, S, S, 3) of a label's logit."""
    return jax.grad(lambda x: network.logits(weights, x)[:, label].astype(jnp.float32).sum())(x)


@functools.partial(jax.jit, static_argnums=0)
def cam(network: Network, weights: Weights, x: Any, label: int) -> jax.Array:
    """Return Grad-CAM (N, S, S) of a label."""
    maps = network.last_map(weights, x)
    slope = jax.grad(lambda maps: network.classify(weights, maps)[:, label].sum())(maps)
    found = jax.nn.relu((slope.mean((1, 2), keepdims=True) * maps).sum(-1)).astype(jnp.float32)
    return jax.image.resize(found, x.shape[:3], "linear")


def gradcam(network: Network, weights: Weights, x: jax.Array, ground: jax.Array, label: int) -> jax.Array:
    """Return the last feature maps, each weighted by the mean of the logit's gradient, where positive.

    Selvaraju et al. (2017). `x` and `ground` are (S, S, 3), what is returned is (S, S).
    """
    return cam(network, weights, x[None], label)[0]


def integrated_gradients(network: Network, weights: Weights, x: jax.Array, ground: jax.Array, label: int) -> jax.Array:
    """Return the way from `ground` to `x` times the mean gradient along it, summed over colours.

    Sundararajan et al. (2017); the mean is taken at the `STEPS` points of Gauss and Legendre. Shapes as of `gradcam`.
    """
    points, shares = np.polynomial.legendre.leggauss(STEPS)
    points, shares = ((points + 1) / 2).astype(np.float32), (shares / 2).astype(np.float32)
    total = jnp.zeros_like(x)
    for start in range(0, STEPS, _BATCH):
        here = slice(start, start + _BATCH)
        along = ground + points[here, None, None, None] * (x - ground)
        total += jnp.tensordot(shares[here], gradient(network, weights, along, label), 1)
    return ((x - ground) * total).sum(-1)


def occlusion(network: Network, weights: Weights, x: jax.Array, ground: jax.Array, label: int) -> np.ndarray:
    """Return what the logit loses where a window takes the colour of `ground`; shapes as of `gradcam`.

    Zeiler and Fergus (2014). The window is an eighth of the side wide and moves by half of that; every pixel
    has the mean over the windows that hide it.
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
    left = []
    for start in range(0, len(rows), _BATCH):
        high, wide = (pad(lines[start : start + _BATCH], _BATCH) for lines in (rows, columns))
        hidden = (high[:, :, None] & wide[:, None])[..., None]
        left.append(np.asarray(logit(network, weights, jnp.where(hidden, ground, x), label)))
    outputs = np.concatenate(left)[: len(rows)]
    lost = (outputs[-1] - outputs[:-1]).reshape(len(starts), len(starts))
    shares = covers / covers.sum(0)
    return np.einsum("ij,ih,jw->hw", lost, shares, shares).astype(np.float32)
