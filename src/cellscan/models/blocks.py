"""Layers that several families of networks share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float

from cellscan.models.convolution import conv as quick

Pair: TypeAlias = tuple[int, int]
Act: TypeAlias = Callable[[jax.Array], jax.Array]


class Staged(nnx.Module):
    """A network of consecutive stages, global average pooling, and a head.

    A subclass lists the names and the strides of its stages in `strides`, in order. It has an attribute for each stage,
    and an attribute ``head``.

    Examples
    --------
    >>> import cellscan, jax.numpy as jnp
    >>> net = cellscan.models.create("resnet18", num_classes=2)
    >>> features = net.features(jnp.zeros((1, 64, 64, 3)))
    >>> features["stage4"].shape, features["stride16"].shape, features["pre_logits"].shape
    ((1, 2, 2, 512), (1, 4, 4, 256), (1, 512))
    """

    strides: ClassVar[dict[str, int]] = {}
    remat: bool = False

    def features(self, x: Float[Array, "n h w 3"]) -> dict[str, Array]:
        """Return the output of every stage by name, the last of each stride as ``stride8`` etc., and ``pre_logits``.

        `x` is normalised. The output of a stage of stride s has about H / s rows. ``pre_logits`` is (N, D).
        """
        features: dict[str, jax.Array] = {}
        for name in self.strides:
            x = features[name] = self._stage(name, x)
        features |= {f"stride{stride}": features[name] for name, stride in self.strides.items()}
        features["pre_logits"] = self.pool(x)
        return features

    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n k"]:
        """Return the logits of normalised images."""
        for name in self.strides:
            x = self._stage(name, x)
        return self.classify(x)

    def pool(self, x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """Return the input of the head, computed from the output of the last stage."""
        return x.mean((1, 2))

    def classify(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        """Return the logits, computed from the output of the last stage."""
        return getattr(self, "head")(self.pool(x))  # noqa: B009 - subclasses define it

    def _stage(self, name: str, x: jax.Array) -> jax.Array:
        if self.remat and name != next(iter(self.strides)):
            return nnx.remat(lambda stage, x: stage(x))(getattr(self, name), x)
        return getattr(self, name)(x)


class BatchNorm(nnx.Module):
    """Batch normalisation as in PyTorch, computed in float32 for every dtype of `x`.

    In training, the running statistics are updated with a weight of 0.1 for each batch. The running variance is the
    unbiased one: n / (n - 1) times the variance that normalises the batch. PyTorch, the source of the weights, computes
    it in this way; flax does not.

    Parameters
    ----------
    channels : int
        Size of the last axis.
    epsilon : float
        Constant added to the variance.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.blocks import BatchNorm
    >>> norm = BatchNorm(1)
    >>> norm(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)).ravel().round(2).tolist(), norm.var[...].round(2).tolist()
    ([-1.0, 1.0], [1.100000023841858])
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5) -> None:
        self.scale: nnx.Param[jax.Array] = nnx.Param(jnp.ones(channels))
        self.bias: nnx.Param[jax.Array] = nnx.Param(jnp.zeros(channels))
        self.mean: nnx.BatchStat[jax.Array] = nnx.BatchStat(jnp.zeros(channels))
        self.var: nnx.BatchStat[jax.Array] = nnx.BatchStat(jnp.ones(channels))
        self.epsilon: float = epsilon
        self.use_running_average: bool = False

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Normalise every channel with the statistics of the batch (training) or the running ones (evaluation)."""
        values = x.astype(jnp.float32)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            count = x.size // x.shape[-1]
            # The running mean is close to the mean of the batch. Subtracting it reduces cancellation in the squares.
            near = self.mean[...]
            shift = (values - near).mean((0, 1, 2))
            mean = near + shift
            var = jnp.maximum(((values - near) ** 2).mean((0, 1, 2)) - shift * shift, 0)
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
            self.var[...] = 0.9 * self.var[...] + 0.1 * var * (count / max(count - 1, 1))
        factor = self.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + self.epsilon)
        return (values * factor + (self.bias[...].astype(jnp.float32) - mean * factor)).astype(x.dtype)


def relu(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Return max(x, 0). The function looks up `jax.nn.relu` at each call, because exporters replace it.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.blocks import relu
    >>> relu(jnp.array([-1.0, 2.0]).reshape(1, 1, 1, 2)).ravel().tolist()
    [0.0, 2.0]
    """
    return jax.nn.relu(x)


class ConvNorm(nnx.Module):
    """A convolution without bias, followed by batch normalisation and an activation.

    Parameters
    ----------
    channels, width : int
        Number of input and of output channels.
    kernel : int or (int, int)
        Size of the kernel.
    stride : int
        Stride along both axes.
    padding : {"torch", "SAME", "VALID"}
        ``"torch"`` pads every side by half of the kernel.
    depthwise : bool
        Use one filter per channel.
    act : callable or None
        Activation.
    epsilon : float
        Epsilon of the batch normalisation.
    rngs : flax.nnx.Rngs
        Random streams of the weight initialisation.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from cellscan.models.blocks import ConvNorm
    >>> ConvNorm(3, 8, 3, stride=2, rngs=nnx.Rngs(0))(jnp.zeros((1, 33, 33, 3))).shape
    (1, 17, 17, 8)
    """

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int | Pair,
        *,
        stride: int = 1,
        padding: str = "torch",
        depthwise: bool = False,
        act: Act | None = relu,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv: nnx.Conv = make_conv(
            channels, width, kernel, stride=stride, padding=padding, depthwise=depthwise, use_bias=False, rngs=rngs
        )
        self.norm: BatchNorm = BatchNorm(width, epsilon=epsilon)
        self.act: Act | None = act

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Apply convolution, normalisation and activation."""
        x = self.norm(self.conv(x))
        return x if self.act is None else self.act(x)


def make_conv(
    channels: int,
    width: int,
    kernel: int | Pair,
    *,
    stride: int = 1,
    padding: str = "torch",
    depthwise: bool = False,
    use_bias: bool = True,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Return a convolution with the library's fast gradient and He initialisation; parameters as in `ConvNorm`."""
    size: Pair = (kernel, kernel) if isinstance(kernel, int) else kernel
    # A tuple is needed, because networks are compared by hashes of their attributes, and a list has no hash.
    pads: Any = tuple((side // 2, side // 2) for side in size) if padding == "torch" else padding
    return nnx.Conv(
        channels,
        width,
        size,
        strides=stride,
        padding=pads,
        feature_group_count=channels if depthwise else 1,
        use_bias=use_bias,
        kernel_init=functools.partial(he_normal, groups=channels if depthwise else 1),
        conv_general_dilated=quick,
        rngs=rngs,
    )


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *_: Any, groups: int = 1) -> jax.Array:
    """Draw a kernel (H, W, in, out) with standard deviation sqrt(2 groups / (H W out)). He et al. (2015).

    NumPy draws the numbers. JAX would compile a program for every shape, which takes half a minute for Inception.

    Examples
    --------
    >>> import jax
    >>> from cellscan.models.blocks import he_normal
    >>> round(float(he_normal(jax.random.key(0), (3, 3, 8, 100)).std()), 3)
    0.047
    """
    scale = (2 * groups / (shape[0] * shape[1] * shape[3])) ** 0.5
    if isinstance(key, Tracer):
        return scale * jax.random.normal(key, shape, dtype)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return jnp.asarray(scale * rng.standard_normal(shape, np.float32), dtype)


def lecun_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *_: Any) -> jax.Array:
    """Draw a kernel (..., in, out) with standard deviation 1 / sqrt(fan in), truncated at two standard deviations.

    The values are those of the initialiser of flax and JAX. JAX compiles its generator for every shape, which takes a
    second each on a CPU; this function fills all shapes from arrays of a few sizes. Source: LeCun et al. (1998).

    Examples
    --------
    >>> import jax
    >>> from cellscan.models.blocks import lecun_normal
    >>> round(float(lecun_normal(jax.random.key(0), (100, 200)).std()), 2)
    0.1
    """
    if isinstance(key, Tracer) or dtype != jnp.float32 or not jax.config.jax_threefry_partitionable:
        return nnx.initializers.lecun_normal()(key, shape, dtype)
    count = int(np.prod(shape))
    size = next(size for size in (2**18, 2**22, 2**26, 2**30, count) if size >= count)
    drawn = np.asarray(jax.random.truncated_normal(key, -2, 2, (size,), jnp.float32))[:count].reshape(shape)
    fan_in = np.float32(count / shape[-1])
    truncated_std = np.float32(0.87962566103423978)  # of a normal distribution truncated at -2 and 2
    return jnp.asarray(drawn * (np.sqrt(1 / fan_in, dtype=np.float32) / truncated_std))


def make_linear(features: int, width: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return a dense layer with LeCun initialisation."""
    return nnx.Linear(features, width, kernel_init=lecun_normal, rngs=rngs)


def max_pool(x: Float[Array, "n h w c"], window: int, stride: int, padding: int = 0) -> Float[Array, "n h2 w2 c"]:
    """Return the maximum of every window, with a gradient that is fast on a CPU.

    The gradient of XLA's windowed maximum is very slow on a CPU. If a gradient is computed, the maximum is taken over
    shifted slices instead, with the same values. If several values of a window are the maximum, they share the
    gradient.

    Parameters
    ----------
    x : (N, H, W, C)
    window, stride, padding : int
        Size, stride and padding along both axes; padded values are never the maximum.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.blocks import max_pool
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2, 2).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    return _max_pool(window, stride, padding, x)


def _by_window(window: int, stride: int, padding: int, x: jax.Array) -> jax.Array:
    return nnx.max_pool(_padded(x, padding), window_shape=(window, window), strides=(stride, stride), padding="VALID")


def _by_slices(window: int, stride: int, padding: int, x: jax.Array) -> jax.Array:
    x = _padded(x, padding)
    n, _, _, c = x.shape
    height, width = ((side - window) // stride + 1 for side in x.shape[1:3])
    if window == stride:
        x = x[:, : height * stride, : width * stride]
        return x.reshape(n, height, stride, width, stride, c).max((2, 4))
    rows = [x[:, i : i + (height - 1) * stride + 1 : stride] for i in range(window)]
    tall = jnp.stack(rows).max(0)
    return jnp.stack([tall[:, :, i : i + (width - 1) * stride + 1 : stride] for i in range(window)]).max(0)


def _padded(x: jax.Array, padding: int) -> jax.Array:
    if not padding:
        return x
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-jnp.inf)


_max_pool = jax.custom_vjp(_by_window, nondiff_argnums=(0, 1, 2))


def _pool_forward(window: int, stride: int, padding: int, x: jax.Array) -> tuple[jax.Array, Any]:
    return jax.vjp(lambda x: _by_slices(window, stride, padding, x), x)


def _pool_backward(window: int, stride: int, padding: int, pull: Any, grad: jax.Array) -> tuple[jax.Array]:
    return pull(grad)


_max_pool.defvjp(_pool_forward, _pool_backward)
