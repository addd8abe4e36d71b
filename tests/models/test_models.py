"""Networks by name, and modules taken apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import TinyNet, compilations, normal

import cellscan
from cellscan.models import convolution
from cellscan.models.blocks import BatchNorm, lecun_normal, max_pool
from cellscan.models.convolution import conv
from cellscan.models.network import Network, weights_of
from cellscan.models.registry import build, find
from cellscan.models.small_cnn import InstanceNorm, space_to_depth


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(backbone.name, marks=pytest.mark.slow) if backbone.name == "resnet101" else backbone.name
        for backbone in cellscan.list_backbones()
    ],
)
def test_every_backbone_keeps_the_contract(name) -> None:
    entry = find(name)
    net, _ = build(name, 3, weights=None, seed=1, pooled=True)  # as a classifier has it
    network = Network(net)
    weights = weights_of(net)
    assert network.parts[-1] == "head"
    size = entry.least_size
    shapes = network.stages(weights, size)
    assert list(shapes)[-1] == "pre_logits"
    assert len(shapes["pre_logits"]) == 2
    if hasattr(net, "strides"):
        found = jax.eval_shape(net.features, jnp.zeros((1, 224, 224, 3)))
        for stride in (8, 16):
            assert abs(found[f"stride{stride}"].shape[1] - 224 / stride) <= 3
    x = normal(0, (4, size + 1, size + 1, 3))

    @jax.jit
    @jax.grad
    def loss(params):
        return (network.train(params, weights["stats"], x, jax.random.key(1))[0] ** 2).sum()

    for path, gradient in loss(weights["params"]).items():
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0, f"{path} has no gradient"
    same = weights_of(build(name, 3, weights=None, seed=1, pooled=True)[0])["params"]
    assert all(np.array_equal(same[k], v) for k, v in weights["params"].items())


def test_small_cnn_is_small() -> None:
    params = weights_of(cellscan.models.create("small_cnn", 2))["params"]
    assert sum(leaf.size for leaf in params.values()) <= 500_000


def test_the_batch_plays_no_part_in_small_cnn() -> None:
    net = cellscan.models.create("small_cnn", 2)
    x = normal(0, (4, 32, 32, 3))
    assert np.allclose(net(x)[1], net(x[1:2])[0], atol=1e-5)  # type: ignore[operator]


def test_space_to_depth_by_hand() -> None:
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert space_to_depth(x)[0, 0, 1].tolist() == [2, 3, 6, 7]


def test_bad_names_and_widths() -> None:
    with pytest.raises(cellscan.ArgumentError, match="did you mean small_cnn"):
        cellscan.models.create("smallcnn", 2)
    for width in (0, -1, 2.0, True):
        with pytest.raises(cellscan.ArgumentError, match="num_classes"):
            cellscan.models.create("small_cnn", width)  # type: ignore[arg-type]


def test_taking_apart_and_putting_together_changes_nothing() -> None:
    net = TinyNet(rngs=nnx.Rngs(0, dropout=1))
    x = normal(0, (4, 16, 16, 3))
    network = Network(net)
    weights = weights_of(net)
    net.eval()
    assert np.allclose(network.logits(weights, x), net(x), atol=1e-6)
    again = network.logits(weights, x)
    assert np.array_equal(network.logits(weights, x), again)  # evaluation changes nothing


def test_training_mode_updates_statistics_and_draws_from_the_key_alone() -> None:
    network = Network(TinyNet(rngs=nnx.Rngs(0, dropout=1)))
    weights = weights_of(TinyNet(rngs=nnx.Rngs(0, dropout=1)))
    x = normal(0, (4, 16, 16, 3))
    out = [network.train(weights["params"], weights["stats"], x, jax.random.key(k)) for k in (1, 1, 2)]
    assert np.array_equal(out[0][0], out[1][0])
    assert not np.array_equal(out[0][0], out[2][0])
    assert not np.array_equal(out[0][1]["norm.mean"], weights["stats"]["norm.mean"])
    assert np.allclose(out[0][1]["norm.mean"], out[2][1]["norm.mean"])


def test_own_networks_are_checked() -> None:
    class Wrong(nnx.Module):
        def __call__(self, x):
            return x.mean((1, 2))

    class Broken(nnx.Module):
        def __call__(self, x):
            raise RuntimeError("boom")

    with pytest.raises(cellscan.ArgumentError, match=r"expected logits of shape \(1, 2\)"):
        cellscan.Classifier(Wrong())
    with pytest.raises(cellscan.ArgumentError, match="RuntimeError: boom"):
        cellscan.Classifier(Broken())
    with pytest.raises(cellscan.ArgumentError, match=r"flax\.nnx\.Module, got int"):
        cellscan.Classifier(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [2**18, 1000, 1])  # one slice, a few of unequal length, as many as there may be
@pytest.mark.parametrize("stride", [1, 2])
def test_the_quick_convolution_is_the_plain_one(monkeypatch, values, stride) -> None:
    monkeypatch.setattr(convolution, "SLICE", values)
    count = 50
    x, kernel = normal(0, (count, 6, 6, 3)), normal(1, (3, 3, 3, 4))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def loss(function, x, kernel):
        return (function(x, kernel, (stride, stride), "SAME", **options) ** 3).sum()

    plain = jax.jit(jax.grad(lambda *a: loss(jax.lax.conv_general_dilated, *a), (0, 1)))(x, kernel)
    quick = jax.jit(jax.grad(lambda *a: loss(conv, *a), (0, 1)))(x, kernel)
    for one, other in zip(plain, quick, strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(one).max()))
    stacked = jax.vmap(jax.grad(lambda k: loss(conv, x, k)))(jnp.stack([kernel, 2 * kernel]))
    assert np.allclose(stacked[0], quick[1], rtol=1e-4, atol=1e-4 * float(jnp.abs(quick[1]).max()))


# what stands before the name says which way it takes on a CPU: (batch, side, channels, width, kernel, groups)
WAYS = {
    "patches, 1x1": (6, 9, 8, 5, (1, 1), 1),
    "patches, few pixels": (6, 4, 8, 5, (3, 3), 1),
    "patches, one row": (6, 3, 8, 5, (1, 3), 1),
    "products, one gradient": (6, 12, 128, 129, (3, 3), 1),
    "products, both gradients": (2, 7, 256, 257, (3, 3), 1),
    "products": (2, 7, 512, 513, (3, 3), 1),
    "slices": (50, 9, 3, 4, (3, 2), 1),
    "depthwise": (19, 9, 8, 8, (5, 5), 8),
    "depthwise, one image": (1, 6, 4, 4, (3, 3), 4),
    "none: groups": (3, 9, 8, 8, (3, 3), 2),
}


@pytest.mark.parametrize(
    ("strides", "padding"), [((1, 1), "SAME"), ((2, 2), "SAME"), ((2, 2), ((1, 1), (2, 0))), ((1, 2), "VALID")]
)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_a_convolution_is_the_plain_one(way, strides, padding) -> None:
    count, side, channels, width, size, groups = WAYS[way]
    x = normal(0, (count, side, side + 1, channels))
    kernel = normal(1, (*size, channels // groups, width))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}

    def run(function, x, kernel):
        out, pull = jax.vjp(lambda x, kernel: function(x, kernel, strides, padding, **options), x, kernel)
        return out, *pull(jnp.cos(out))

    plain = jax.jit(lambda x, kernel: run(jax.lax.conv_general_dilated, x, kernel))(x, kernel)
    quick = jax.jit(lambda x, kernel: run(conv, x, kernel))(x, kernel)
    for one, other in zip(plain, quick, strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.abs(one).max()))


def test_a_variable_selects_the_convolutions_of_xla(monkeypatch) -> None:
    x, kernel = jnp.zeros((2, 9, 9, 8)), jnp.zeros((3, 3, 1, 8))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 8}

    def program() -> str:
        return str(jax.make_jaxpr(lambda x, kernel: conv(x, kernel, (1, 1), "SAME", **options))(x, kernel))

    assert "custom_vjp" in program()
    monkeypatch.setenv("CELLSCAN_CONVOLUTIONS", "own")
    assert "custom_vjp" in program()
    monkeypatch.setenv("CELLSCAN_CONVOLUTIONS", "xla")
    assert "custom_vjp" not in program()
    assert "conv_general_dilated" in program()
    monkeypatch.setenv("CELLSCAN_CONVOLUTIONS", "XLA")
    with pytest.raises(cellscan.ArgumentError, match="CELLSCAN_CONVOLUTIONS is 'XLA'; expected one of 'own', 'xla'"):
        program()


def test_max_pool_is_that_of_flax_and_ties_share_the_gradient() -> None:
    x = normal(0, (2, 9, 10, 3))
    for window, stride, padding in ((2, 2, 0), (3, 2, 0), (3, 2, 1)):
        pads = ((padding, padding), (padding, padding))

        def theirs(x, window=window, stride=stride, pads=pads):
            return nnx.max_pool(x, (window, window), strides=(stride, stride), padding=pads)

        def ours(x, window=window, stride=stride, padding=padding):
            return max_pool(x, window, stride, padding)

        assert np.array_equal(ours(x), theirs(x))
        gradients = [jax.grad(lambda x, f=f: jnp.sin(f(x)).sum())(x) for f in (ours, theirs)]
        assert np.allclose(*gradients, atol=1e-6)
    assert jax.grad(lambda x: max_pool(x, 2, 2).sum())(jnp.zeros((1, 2, 2, 1))).ravel().tolist() == [0.25] * 4


def test_batch_norm_keeps_precision_where_mean_squares_cancel() -> None:
    norm = BatchNorm(1)
    x = 1000 + normal(0, (64, 8, 8, 1))
    for _ in range(60):
        norm(x)
    assert np.isclose(norm(x).std(), 1, atol=0.01)
    norm.eval()
    before = np.asarray(norm.var[...])
    assert np.isclose(norm(x).std(), 1, atol=0.1)
    assert np.array_equal(norm.var[...], before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_instance_norm_is_that_of_flax(dtype) -> None:
    x = (3 + 2 * normal(0, (4, 9, 7, 5))).astype(dtype)
    ours, theirs = InstanceNorm(5, rngs=nnx.Rngs(0)), nnx.InstanceNorm(5, epsilon=1e-5, rngs=nnx.Rngs(0), dtype=dtype)
    for norm in (ours, theirs):
        norm.scale[...] = jnp.arange(5.0)  # type: ignore[index]
        norm.bias[...] = jnp.ones(5)  # type: ignore[index]
    assert ours(x).dtype == x.dtype
    assert np.allclose(ours(x), theirs(x), atol=1e-5 if dtype == "float32" else 0.1)


@pytest.mark.parametrize("shape", [(3, 3, 12, 32), (128, 2), (3, 3, 96, 1000)])
def test_first_weights_are_those_of_flax_without_a_program_a_shape(shape) -> None:
    key = jax.random.key(5)
    lecun_normal(key, (1, 1))
    with compilations() as names:
        found = lecun_normal(key, shape)
    assert set(names) <= {"stage"} or np.prod(shape) > 2**18  # what brings an array to the device
    assert np.array_equal(found, nnx.initializers.lecun_normal()(key, shape, np.float32))
