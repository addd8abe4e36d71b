"""The train step: pure, donated, compiled once, refusing what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import TinyNet, compilations, devices_of, run_python, tiny_cells

import cellscan
from cellscan.preprocessing import Normalization
from cellscan.training import init_state, make_augment, make_train_step, trained_module


def batch(count: int = 8, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(40, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count, dtype=np.int32) % 2


class Linear(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.zeros((3, 2)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.mean((1, 2)) @ self.w[...]


def test_one_step_of_sgd_by_hand() -> None:
    images, labels = batch()
    step = make_train_step(Linear(), optax.sgd(0.5), background="keep")
    state, metrics = step(init_state(Linear(), optax.sgd(0.5)), images, labels, jax.random.key(0))
    x = ((images / 255 - 0.5) / 0.5).mean((1, 2))
    gradient = x.T @ (0.5 - np.eye(2)[labels]) / len(labels)
    assert np.allclose(state.params["w"], -0.5 * gradient, atol=1e-6)
    assert np.isclose(metrics["loss"], np.log(2), atol=1e-6)
    assert np.isclose(metrics["grad_norm"], np.linalg.norm(gradient), atol=1e-6)


def test_state_is_donated_and_the_module_is_not_touched() -> None:
    images, labels = batch()
    model = cellscan.models.create("small_cnn", 2)
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    step = make_train_step(model, optax.adam(1e-3))
    state = init_state(model, optax.adam(1e-3))
    old = state.params["stem.kernel"]
    state, _ = step(state, images, labels, jax.random.key(0))
    assert old.is_deleted()
    after = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert trained_module(model, state)(jnp.zeros((1, 16, 16, 3))).shape == (1, 2)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_for_good(poison) -> None:
    images, labels = batch()

    def loss(logits, labels):
        good = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        bad = good * jnp.nan if poison == "loss" else jnp.sqrt(jnp.abs(logits[:, 0] - logits[:, 0])) + good
        return jnp.where(labels[0] == 1, bad, good)

    step = make_train_step(Linear(), optax.adam(0.1), loss, ema=0.9, background="keep")
    state = init_state(Linear(), optax.adam(0.1), average=True)
    state, _ = step(state, images, labels, jax.random.key(0))
    kept = jax.tree.map(np.asarray, state)
    state, metrics = step(state, images, 1 - labels, jax.random.key(1))
    assert not metrics["finite"]
    state, metrics = step(state, images, labels, jax.random.key(2))  # good again, and still refused
    assert not metrics["finite"]
    assert jax.tree.all(
        jax.tree.map(np.array_equal, kept._replace(finite=state.finite), jax.tree.map(np.asarray, state))
    )


def test_class_weight_ema_dtype_and_augment_do_what_they_say() -> None:
    images, labels = batch()
    state0 = lambda average=False: init_state(Linear(), optax.sgd(0.5), average=average)  # noqa: E731
    key = jax.random.key(0)
    plain, _ = make_train_step(Linear(), optax.sgd(0.5), background="keep")(state0(), images, labels, key)

    only = np.array([2.0, 0.0], np.float32)
    weighted, _ = make_train_step(Linear(), optax.sgd(0.5), background="keep", class_weight=only)(
        state0(), images, labels, key
    )
    x = ((images / 255 - 0.5) / 0.5).mean((1, 2))
    gradient = x[labels == 0].T @ (0.5 - np.eye(2)[labels[labels == 0]]) * 2 / len(labels)
    assert np.allclose(weighted.params["w"], -0.5 * gradient, atol=1e-6)

    step = make_train_step(Linear(), optax.sgd(0.5), background="keep", ema=0.9)
    averaged, _ = step(state0(True), images, labels, key)
    assert np.allclose(averaged.average["w"], 0.9 * np.asarray(averaged.params["w"]), atol=1e-6)  # decay 1/10 at first

    half, metrics = make_train_step(Linear(), optax.sgd(0.5), background="keep", dtype="bfloat16")(
        state0(), images, labels, key
    )
    assert half.params["w"].dtype == jnp.float32
    assert metrics["loss"].dtype == jnp.float32
    assert np.allclose(half.params["w"], plain.params["w"], atol=2e-2)
    assert not np.array_equal(half.params["w"], plain.params["w"])

    strong = make_augment("strong")
    turned, _ = make_train_step(Linear(), optax.sgd(0.5), background="keep", augment=strong)(
        state0(), images, labels, key
    )
    assert not np.allclose(turned.params["w"], plain.params["w"])


def test_mixup_mixes_images_and_losses_by_the_same_shares() -> None:
    images, labels = batch()
    key = jax.random.key(3)
    step = make_train_step(Linear(), optax.sgd(0.5), background="keep", mixup=0.7)
    mixed, metrics = step(init_state(Linear(), optax.sgd(0.5)), images, labels, key)
    share = np.asarray(jax.random.beta(jax.random.split(key, 4)[3], 0.7, 0.7, (8,)))[:, None]
    assert share.min() < 0.4 < 0.6 < share.max()
    x = ((images / 255 - 0.5) / 0.5).mean((1, 2))
    targets = share * np.eye(2)[labels] + (1 - share) * np.eye(2)[labels[::-1]]
    gradient = (share * x + (1 - share) * x[::-1]).T @ (0.5 - targets) / len(labels)
    assert np.allclose(mixed.params["w"], -0.5 * gradient, atol=1e-6)
    assert np.isclose(metrics["loss"], np.log(2), atol=1e-6)


def test_the_background_is_random_with_fill_alone() -> None:
    images, labels = batch()
    images[:, :4] = images[:, :, :4] = 0

    def weights(background: str, varied: bool) -> np.ndarray:
        step = make_train_step(Linear(), optax.sgd(0.5), background=background, random_background=varied)
        return np.asarray(step(init_state(Linear(), optax.sgd(0.5)), images, labels, jax.random.key(0))[0].params["w"])

    assert np.array_equal(weights("keep", True), weights("keep", False))
    assert not np.allclose(weights("fill", True), weights("fill", False))


def test_normalization_and_view_are_inside() -> None:
    seen = {}

    class Spy(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.zeros(()))

        def __call__(self, x: jax.Array) -> jax.Array:
            jax.debug.callback(lambda v: seen.setdefault("x", np.asarray(v)), x)
            return jnp.zeros((len(x), 2)) + self.w[...]

    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[:, 4:12, 4:12] = 204
    norm = Normalization((0.3, 0.3, 0.3), (0.25, 0.25, 0.25))
    step = make_train_step(Spy(), optax.sgd(0.1), normalization=norm)
    step(init_state(Spy(), optax.sgd(0.1)), images, np.zeros(2, np.int32), jax.random.key(0))
    jax.effects_barrier()
    assert np.allclose(seen["x"], (0.8 - 0.3) / 0.25, atol=1e-5)  # filled with the cell's colour, then normalised


def programs(names: list[str]) -> list[str]:
    """Return the programs of a network among what was compiled, which is also the small change of NumPy calls."""
    return sorted(name for name in names if name in ("step", "predict"))


def tiny(seed: int = 0, **options) -> cellscan.Classifier:
    return cellscan.Classifier(TinyNet(rngs=nnx.Rngs(seed)), image_size=20, seed=seed, **options)


def test_one_compilation_a_shape_for_all_classifiers_of_a_kind() -> None:
    fit = {"validation": tiny_cells(30), "batch_size": 16, "progress": False}
    with compilations() as names:
        tiny().fit(tiny_cells(50), epochs=3, **fit)  # 50 is no multiple of 16
    assert programs(names) == ["predict", "step"]
    with compilations() as names:
        other = tiny(seed=1)
        # another length, set, rate, schedule and weight of the classes: numbers, not programs
        recipe = cellscan.Recipe(learning_rate=1e-3, schedule="cosine", patience=3)
        other.fit(tiny_cells(70), epochs=5, recipe=recipe, **fit)
        other.fit(tiny_cells(40), epochs=1, **fit)
        other.predict(tiny_cells(64))
    assert programs(names) == []
    for changed in (cellscan.Recipe(augment="none"), cellscan.Recipe(mixup=0.1), cellscan.Recipe(freeze="conv")):
        with compilations() as names:
            tiny().fit(tiny_cells(32), epochs=1, recipe=changed, **fit)
        assert programs(names) == ["step"], changed
    with compilations() as names:
        tiny(background="keep").predict(tiny_cells(64))
    assert programs(names) == ["predict"]


def test_folds_of_unequal_size_share_a_program() -> None:
    cells = tiny_cells(130, 20, patients=13)
    assert len({len(train) for train, _ in cells.folds(5)}) > 1
    with compilations() as names:
        cellscan.cross_validate(TinyNet(rngs=nnx.Rngs(0)), cells, image_size=20, epochs=1, batch_size=8, progress=False)
    assert programs(names).count("step") == 1


def test_what_was_compiled_keeps_no_weights() -> None:
    import gc
    import weakref

    clf = tiny()
    clf.predict(tiny_cells(4))
    leaf = weakref.ref(clf._members[0]["params"]["head.kernel"])
    del clf
    gc.collect()
    assert leaf() is None


def test_a_stack_of_members_equals_members_alone() -> None:
    images, labels = batch()
    step = make_train_step(Linear(), optax.adam(0.1), background="keep")
    alone = [init_state(Linear(), optax.adam(0.1)) for _ in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    data = np.stack([images, images[::-1]]), np.stack([labels, labels[::-1]])
    keys = jax.random.split(jax.random.key(0), 2)
    stacked, _ = jax.vmap(step)(stacked, *data, keys)
    for member in range(2):
        single, _ = step(alone[member], data[0][member], data[1][member], keys[member])
        assert np.allclose(stacked.params["w"][member], single.params["w"], atol=1e-6)


def test_sharded_batches_give_the_losses_of_one_device() -> None:
    code = """
import jax, numpy as np, optax, cellscan
from cellscan.training import init_state, make_train_step
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
rng = np.random.default_rng(0)
images, labels = rng.integers(40, 256, (8, 16, 16, 3), dtype=np.uint8), np.arange(8, dtype=np.int32) % 2
model = cellscan.models.create("small_cnn", 2)
step = make_train_step(model, optax.sgd(0.1))
mesh = Mesh(np.array(jax.devices()), ("batch",))
put = lambda x: jax.device_put(x, NamedSharding(mesh, P("batch")))
losses = []
for place in (lambda x: x, put):
    state = init_state(model, optax.sgd(0.1))
    for number in range(3):
        state, metrics = step(state, place(images), place(labels), jax.random.key(number))
        losses.append(float(metrics["loss"]))
print(len(jax.devices()), np.abs(np.subtract(losses[:3], losses[3:])).max() < 1e-5)
"""
    assert run_python(code, env=devices_of(2)) == "2 True"
