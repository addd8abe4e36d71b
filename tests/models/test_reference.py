"""Every backbone beside its reference: the same weights, the same answers."""

import functools
import importlib.util
import json
from typing import Any

import jax
import numpy as np
import oracle
import pytest
from flax import nnx

from cellscan.models.network import Network, weights_of
from cellscan.models.pretrained import fill, published_name
from cellscan.models.registry import create, find

ANSWERS = json.loads(oracle.REFERENCE.read_text())
DEEP = ("resnet34", "resnet101", "vgg19")
"""Siblings of others, with the same code and tables, only longer."""
STATISTICS = 5e-4
"""Of statistics after a step: rounding grows where four images are divided by their own deviation a hundred times."""
TIMM = importlib.util.find_spec("timm") is not None and importlib.util.find_spec("torch") is not None


def published(net: nnx.Module, name: str) -> dict[str, np.ndarray]:
    """Return the drawn weights as a file of this backbone would hold them."""
    keys = find(name).keys()
    assert keys is not None
    tensors = {}
    for path, variable in nnx.to_flat_state(nnx.state(net, (nnx.Param, nnx.BatchStat))):
        theirs, shape = published_name(".".join(map(str, path)), keys), variable.shape
        if len(shape) == 4:  # drawn in torch's layout
            drawn = oracle.draw(theirs, (shape[3], shape[2], *shape[:2]))
            tensors[theirs] = drawn.transpose(2, 3, 1, 0) if keys.layout == "keras" else drawn
            if keys.bgr and shape[2] == 3:  # the reference takes the channels as they come
                tensors[theirs] = tensors[theirs][:, :, ::-1]
        else:
            tensors[theirs] = oracle.draw(theirs, shape[::-1])
    return tensors


@functools.lru_cache(maxsize=1)
def filled(name: str) -> Any:
    net = create(name, oracle.CLASSES)
    keys = find(name).keys()
    assert keys is not None
    fill(net, published(net, name), keys, path="drawn", num_classes=oracle.CLASSES, new_head=False)
    return net


def answer(name: str, size: int) -> dict[str, np.ndarray]:
    network = Network(filled(name))
    weights, x = weights_of(filled(name)), oracle.images(size)

    def every(weights, x):
        module = network.module(weights)
        return {"logits": module(x), **module.features(x)}

    return {stage: np.asarray(value) for stage, value in jax.jit(every)(weights, x).items()}


def statistics(name: str, size: int) -> dict[str, np.ndarray]:
    network = Network(filled(name))
    weights, keys = weights_of(filled(name)), find(name).keys()
    assert keys is not None
    _, after = jax.jit(network.train)(weights["params"], weights["stats"], oracle.images(size, 4), jax.random.key(0))
    return {published_name(path, keys): np.asarray(value) for path, value in after.items()}


def networks(*slow: str) -> Any:
    """Return a parametrisation under which pytest runs all tests of a network together, so that it is drawn once."""
    marked = [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in oracle.SIZES]
    return pytest.mark.parametrize("name", marked, scope="module")


@networks()
def test_logits_stages_and_statistics_are_those_of_the_reference(name) -> None:
    for size in oracle.SIZES[name]:
        ours, theirs = answer(name, size), ANSWERS[name][str(size)]
        assert set(filled(name).strides) | {"logits"} <= set(theirs) | {"pre_logits"}
        for stage, expected in theirs.items():
            assert oracle.differ(ours[stage], expected) < 1e-4, f"{stage} at {size} px"
    if "statistics" in ANSWERS[name]:
        found = statistics(name, oracle.SIZES[name][1])
        joined = np.concatenate([found[key] for key in sorted(found)])
        assert oracle.differ(joined, ANSWERS[name]["statistics"]) < STATISTICS


@networks(*DEEP)
def test_every_tensor_matters(name) -> None:
    """To the first order: what half as much again of a tensor adds to the logits, by one gradient for all of them."""
    net = filled(name)
    network = Network(net)
    weights, x = weights_of(net), oracle.images(oracle.SIZES[name][0], 1)
    mixed = np.random.default_rng(0).standard_normal(oracle.CLASSES).astype(np.float32)

    @jax.jit
    def slopes(weights, x):
        logits, pull = jax.vjp(lambda weights: network.logits(weights, x), weights)
        return logits, pull(jax.numpy.broadcast_to(mixed, logits.shape))[0]

    logits, found = slopes(weights, x)
    least = 1e-6 * np.abs(np.asarray(logits)).max()
    for kind, leaves in weights.items():
        for path, leaf in leaves.items():
            assert np.abs(0.5 * np.asarray(leaf) * np.asarray(found[kind][path])).max() > least, path


@pytest.mark.skipif(not TIMM, reason="timm and torch come with the dev extra on Python 3.11 only; see CONTRIBUTING.md")
@networks()
def test_every_value_is_that_of_timm(name) -> None:
    for size in oracle.SIZES[name]:
        compare(name, size)
    if not name.startswith(("vgg", "squeezenet")):
        theirs, ours = oracle.ask(name, oracle.SIZES[name][1], train=True), statistics(name, oracle.SIZES[name][1])
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert oracle.differ(ours[key], value) < STATISTICS, key


@pytest.mark.slow
@pytest.mark.skipif(not TIMM, reason="timm and torch come with the dev extra on Python 3.11 only; see CONTRIBUTING.md")
@pytest.mark.parametrize("name", oracle.SIZES)
def test_every_value_is_that_of_timm_at_the_native_size(name) -> None:
    compare(name, oracle.NATIVE.get(name, 224))


def compare(name: str, size: int) -> None:
    ours = answer(name, size)
    for stage, value in oracle.ask(name, size).items():
        assert oracle.differ(ours[stage], value) < 1e-4, f"{stage} at {size} px"
