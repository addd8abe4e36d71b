"""Frozen parts, rates that fall with depth, features computed once, memory for time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import TinyNet, tiny_cells

import cellscan
from cellscan.models.network import Network, weights_of
from cellscan.models.registry import build
from cellscan.tasks.classification import ClassificationTask
from cellscan.tasks.programs import train_step, trained_by
from cellscan.tasks.recipe import make_optimizer
from cellscan.training import devices, init_state, make_train_step
from cellscan.training.frozen import make_frozen
from cellscan.training.step import begin

PLAIN = cellscan.Recipe(freeze="backbone", augment="none", background=None)


def own() -> TinyNet:
    return TinyNet(rngs=nnx.Rngs(0, dropout=1))


class NoDrop(TinyNet):
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.features(x)["pre_logits"])


def batch(count: int = 8, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(40, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count, dtype=np.int32) % 2


def resnet() -> nnx.Module:
    from cellscan.models.resnet import Basic, ResNet

    return ResNet(Basic, (1, 1, 1, 1), 2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("backbone", {"stem", "stage1", "stage2", "stage3", "stage4"}),
        ("stage[12]", {"stage1", "stage2"}),
        (("stem", "stage1"), {"stem", "stage1"}),
    ],
)
def test_frozen_parts_do_not_change_and_have_no_optimiser_state(freeze, frozen) -> None:
    model, optimizer = resnet(), optax.adamw(0.01, weight_decay=0.5)
    step = make_train_step(model, optimizer, freeze=freeze, background="keep")
    state = init_state(model, optimizer, freeze=freeze, average=True)
    before = jax.tree.map(np.asarray, (state.params, state.frozen, state.stats))
    assert {name.split(".")[0] for name in state.frozen} == frozen
    for tree in (state.params, state.average, state.opt_state[0].mu):
        assert not {name.split(".")[0] for name in tree} & frozen
    for number in range(2):
        state, _ = step(state, *batch(), jax.random.key(number))
    params, held, stats = before
    assert all(np.array_equal(held[name], leaf) for name, leaf in state.frozen.items())
    assert all(not np.array_equal(params[name], leaf) for name, leaf in state.params.items())
    for name, leaf in state.stats.items():  # batch norm of frozen parts runs in evaluation mode
        assert np.array_equal(stats[name], leaf) == (name.split(".")[0] in frozen), name


def flops(compiled: Any) -> float:
    return compiled.cost_analysis()["flops"]


def test_a_frozen_backbone_costs_no_backward_pass() -> None:
    def cost(freeze: str | None) -> float:
        model, recipe = resnet(), cellscan.Recipe(optimizer=optax.sgd(0.1), augment="none", freeze=freeze)
        task = trained_by(ClassificationTask(Network(model), background="keep"), recipe)
        state = begin(task, weights_of(model))
        return flops(train_step.lower(task, state, *batch(), jax.random.key(0), np.float32(0), None).compile())

    network = Network(resnet())
    weights = weights_of(resnet())
    x = jnp.zeros((8, 32, 32, 3))
    forward = flops(jax.jit(network.logits).lower(weights, x).compile())
    assert cost("backbone") < 1.3 * forward
    assert cost(None) > 2 * forward


def test_freeze_patterns_that_name_nothing_or_everything() -> None:
    with pytest.raises(cellscan.ArgumentError, match=r"matches no part of ResNet; it has stem, stage1"):
        Network(resnet(), freeze="layer1")
    with pytest.raises(cellscan.ArgumentError, match="nothing is trained"):
        Network(resnet(), freeze="*")
    with pytest.raises(cellscan.ArgumentError, match="layer_decay"):
        cellscan.Recipe(layer_decay=0.0)
    clf = cellscan.Classifier(own(), image_size=16)
    with pytest.raises(cellscan.ArgumentError, match=r"freeze 'stagex' matches no part of TinyNet; it has conv, norm"):
        clf.fit(tiny_cells(16, 16), epochs=1, recipe=cellscan.Recipe(freeze="stagex"))


def test_rates_fall_with_depth() -> None:
    parts = ("stem", "stage1", "head")
    recipe = cellscan.Recipe(optimizer=optax.sgd(1.0), layer_decay=0.5)
    optimizer = make_optimizer(recipe, 0.0, parts)
    params = {f"{part}.kernel": jnp.ones(2) for part in parts}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    found = {name: float(-update[0]) for name, update in updates.items()}  # type: ignore[attr-defined]
    assert found == {"stem.kernel": 0.25, "stage1.kernel": 0.5, "head.kernel": 1.0}


@pytest.mark.parametrize("name", [backbone.name for backbone in cellscan.list_backbones()])
def test_parts_stand_in_order_also_after_loading_and_freezing(name) -> None:
    network = Network(build(name, 2, weights=None, seed=0, pooled=True)[0])
    order = network.variant(freeze="backbone", remat=False).parts
    assert order == network.parts
    assert order[-1] == "head"
    stages = [part for part in order if part.startswith("stage")]
    assert stages == sorted(stages)


def test_training_a_head_on_features_is_training_it_on_images(monkeypatch) -> None:
    cells = tiny_cells(40, 16)
    recipe = cellscan.Recipe(freeze="backbone", augment="none", background=None, optimizer=optax.sgd(0.1))
    found = []
    for features in (True, False):
        clf = cellscan.Classifier(NoDrop(rngs=nnx.Rngs(0, dropout=1)), image_size=16, seed=0)
        if not features:
            monkeypatch.setattr("cellscan.classifier.make_frozen", lambda *_: None)
        history = clf.fit(cells, validation=cells, epochs=3, batch_size=8, recipe=recipe, progress=False)
        found.append((history, clf.predict_proba(cells)))
    for name in ("loss", "accuracy", "validation_loss", "validation_roc_auc"):
        assert np.allclose(found[0][0][name], found[1][0][name], rtol=1e-4)
    assert np.allclose(found[0][1], found[1][1], atol=1e-5)


def test_features_are_computed_once_only_where_nothing_before_the_head_changes() -> None:
    images = batch(8, 16)[0]

    def frozen(net: nnx.Module, recipe: cellscan.Recipe, background: str = "fill"):
        predict_task = ClassificationTask(Network(net), background=background)
        return make_frozen(trained_by(predict_task, recipe), predict_task, weights_of(net), images)

    still = NoDrop(rngs=nnx.Rngs(0, dropout=1))
    assert frozen(still, PLAIN) is not None
    assert frozen(still, cellscan.Recipe(freeze="backbone", augment="none"), "keep") is not None
    for changes in (
        {"augment": "small"},
        {"background": "random"},
        {"mixup": 0.2},
        {"freeze": "conv"},
        {"freeze": None},
    ):
        options = {"freeze": "backbone", "augment": "none", "background": None, **changes}
        assert frozen(still, cellscan.Recipe(**options)) is None
    assert frozen(own(), PLAIN) is None  # dropout before the head


def test_features_pass_once_over_the_images(monkeypatch) -> None:
    seen = []
    real = devices.make_epoch
    watched = "cellscan.training.loop.make_epoch"
    monkeypatch.setattr(
        watched, lambda task, train, *rest, **options: seen.append(train) or real(task, train, *rest, **options)
    )
    cells = tiny_cells(24, 32)
    clf = cellscan.Classifier("squeezenet1_1", image_size=32, seed=0)
    clf.fit(cells, epochs=2, batch_size=8, recipe=PLAIN, progress=False)
    assert seen[0].pixels.shape == (24, 512)
    assert seen[0].pixels.dtype == np.float32
    assert clf.card.epochs == 2


def test_a_killed_training_on_features_goes_on(tmp_path) -> None:
    cells = tiny_cells(24, 16)

    def make(seed: int = 0) -> cellscan.Classifier:
        return cellscan.Classifier(NoDrop(rngs=nnx.Rngs(seed, dropout=1)), image_size=16, seed=0)

    def train(clf: cellscan.Classifier, folder: str) -> np.ndarray:
        clf.fit(cells, epochs=4, batch_size=8, recipe=PLAIN, checkpoint=tmp_path / folder, resume=True, progress=False)
        return clf.predict_proba(cells)

    expected = train(make(), "whole")

    class Stop(Exception):
        pass

    clf = make()
    epochs = 0
    with pytest.MonkeyPatch.context() as patch:
        from cellscan.training.checkpoint import Checkpoint

        save = Checkpoint.save

        def stop(self, at) -> None:
            nonlocal epochs
            save(self, at)
            epochs += 1
            if epochs == 2:
                raise Stop

        patch.setattr(Checkpoint, "save", stop)
        with pytest.raises(Stop):
            train(clf, "cut")
    assert np.array_equal(train(make(), "cut"), expected)
    with pytest.MonkeyPatch.context() as patch:  # a finished training returns at once
        patch.setattr("cellscan.training.frozen.FrozenBackbone.features", None)
        assert np.array_equal(train(make(), "whole"), expected)
    with pytest.raises(cellscan.ArgumentError, match="backbone was"):
        train(make(1), "cut")


def test_remat_computes_the_same() -> None:
    images, labels = batch()
    outcomes = []
    for remat in (False, True):
        optimizer = optax.sgd(0.1)
        step = make_train_step(resnet(), optimizer, remat=remat, background="keep")
        state, metrics = step(init_state(resnet(), optimizer), images, labels, jax.random.key(0))
        outcomes.append((state, float(metrics["loss"])))
    (one, loss), (other, again) = outcomes
    assert np.isclose(loss, again, rtol=1e-5)
    for kind in ("params", "stats"):
        for name, leaf in getattr(one, kind).items():
            assert np.allclose(leaf, getattr(other, kind)[name], atol=1e-4), name
    with pytest.raises(cellscan.ArgumentError, match="no stages"):
        make_train_step(own(), optax.sgd(0.1), remat=True)


def test_remat_keeps_less() -> None:
    def kept(remat: bool) -> int:
        network, weights = Network(resnet(), remat=remat), weights_of(resnet())

        def loss(params):
            return network.train(params, weights["stats"], jnp.zeros((64, 64, 64, 3)), jax.random.key(0))[0].sum()

        pull = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], weights["params"])
        return sum(leaf.size for leaf in jax.tree.leaves(pull)) - sum(leaf.size for leaf in weights["params"].values())

    assert kept(True) < 0.5 * kept(False)


def test_bfloat16_of_a_backbone_keeps_float32_weights_and_statistics() -> None:
    model, optimizer = resnet(), optax.sgd(0.1)
    step = make_train_step(model, optimizer, dtype="bfloat16", freeze=("stem",), background="keep")
    state, metrics = step(init_state(model, optimizer, freeze=("stem",)), *batch(), jax.random.key(0))
    assert bool(metrics["finite"])
    for tree in (state.params, state.frozen, state.stats):
        assert {leaf.dtype for leaf in tree.values()} == {jnp.dtype("float32")}


def test_published_weights_are_changed_gently_unless_a_rate_is_named() -> None:
    clf = cellscan.Classifier(own(), image_size=16)
    clf.fit(tiny_cells(16, 16), epochs=1, batch_size=8, progress=False)
    assert (clf.card.recipe or {})["learning_rate"] == 4e-3
    clf = cellscan.Classifier("squeezenet1_1", image_size=32)
    from dataclasses import replace

    clf._card = replace(clf.card, weights={"source": "elsewhere"})
    for freeze, rate in ((None, 1e-3), ("backbone", 4e-3)):
        recipe = cellscan.Recipe(freeze=freeze, augment="none", background=None)
        clf.fit(tiny_cells(16, 32), epochs=1, batch_size=8, recipe=recipe, progress=False)
        assert (clf.card.recipe or {})["learning_rate"] == rate
