"""The whole network beside a plain one in PyTorch: the same weights, the same answers."""

import importlib.util
import json
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import oracle
import pytest
import torch_retinanet as torched
from flax import nnx
from helpers import normal

import cellscan
from cellscan.detection.anchors import Anchors
from cellscan.models.network import Network, Weights, weights_of
from cellscan.models.retinanet import PLANS, RetinaNet, SmallBackbone, make


def drawn(plan: str) -> tuple[Network, Weights]:
    levels, depth, norm = torched.PLANS[plan]
    like = replace(PLANS["retinanet_small"], levels=levels, convolutions=depth, norm=norm)
    rngs = nnx.Rngs(0)
    net = RetinaNet(SmallBackbone(like.channels, rngs=rngs), like, torched.CLASSES, torched.PLACE, rngs=rngs)
    network = Network(net)
    weights: Any = weights_of(net)
    for leaves in weights.values():
        for name, leaf in leaves.items():
            leaves[name] = torched.draw(name, leaf.shape)
    return network, weights


def answer(plan: str) -> dict[str, np.ndarray]:
    network, weights = drawn(plan)
    outputs: Any = jax.jit(network.logits)(weights, torched.fields())
    return {name: np.asarray(array) for name, array in outputs.items()}


def test_the_plain_one_knows_the_shapes() -> None:
    found = {name: leaf.shape for name, leaf in drawn("small")[1]["params"].items()}
    assert torched.shapes() == found


@pytest.mark.parametrize("plan", torched.PLANS)
def test_outputs_are_those_of_the_reference(plan) -> None:
    answers = json.loads(torched.REFERENCE.read_text())
    for name, ours in answer(plan).items():
        assert oracle.differ(ours, answers[plan][name]) < 1e-4, name


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch comes with the dev extra on Python 3.11")
@pytest.mark.parametrize("plan", torched.PLANS)
def test_every_value_is_that_of_torch(plan) -> None:
    ours, theirs = answer(plan), torched.ask(plan, dict(drawn(plan)[1]["params"]), torched.fields())
    for name, value in theirs.items():
        assert oracle.differ(ours[name], value) < 1e-4, name


@pytest.mark.parametrize("name", PLANS)
def test_there_is_one_output_an_anchor(name) -> None:
    net, _ = make(name, 3, 9)
    anchors = Anchors(PLANS[name].strides)
    for height, width in ((64, 96), (70, 129)):
        out = jax.eval_shape(net, jax.ShapeDtypeStruct((1, height, width, 3), np.float32))
        assert out["classes"].shape == (1, len(anchors.boxes(height, width)), 3)
        assert out["boxes"].shape == (1, len(anchors.boxes(height, width)), 4)


def test_the_small_one_is_small_and_starts_from_the_prior() -> None:
    net, _ = make("retinanet_small", 2, 9)
    weights = weights_of(net)
    assert sum(leaf.size for leaf in weights["params"].values()) <= 5_000_000
    outputs = net(normal(0, (1, 64, 64, 3)))
    assert abs(float(jax.nn.sigmoid(outputs["classes"]).mean()) - 0.01) < 0.003


def test_unknown_names_and_weights() -> None:
    with pytest.raises(cellscan.ArgumentError, match="did you mean retinanet_small"):
        cellscan.Detector("retinanet_smal")
    with pytest.raises(cellscan.ArgumentError, match="no published weights"):
        cellscan.Detector("retinanet_small", weights="imagenet")
