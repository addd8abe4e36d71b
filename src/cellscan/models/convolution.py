"""A convolution that is fast on a CPU, for `flax.nnx.Conv` as ``conv_general_dilated``.

XLA's CPU backend is slow for four operations that are frequent in networks. This module computes each in another way:

- The gradient of a kernel. XLA computes it as one convolution whose window is the whole feature map and which sums over
  the whole batch, so the data do not fit into the caches. Here, it is a sum over slices of the batch that fit, or, for
  many channels, one matrix product for every position of the kernel.
- A kernel of 1x1 is a matrix product.
- Feature maps of a few pixels are one matrix product of concatenated patches, or, for many channels, one product for
  every position of the kernel.
- Depthwise convolutions are in `models/depthwise.py`.

All other convolutions, and other devices, use XLA's own. The environment variable ``CELLSCAN_CONVOLUTIONS=xla`` selects
XLA's own for all, so that the two can be compared with the next release of XLA: `benchmarks/ratios.py` does so.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cellscan.errors import check_choice
from cellscan.models import depthwise
from cellscan.models.depthwise import Pads

SLICE = 2**18
"""Number of values of the incoming gradient in a slice: 1 MiB, the size of a core's second-level cache."""

MOST = 32
"""Largest number of slices; it limits the size of compiled programs."""

FEW = 16
"""Largest number of pixels of a feature map that is convolved with patches."""

MANY = 128
"""Smallest number of input and output channels at which the gradient of a kernel is computed as matrix products, on
maps of up to 16 `FEW` pixels. On maps of up to 4 `FEW` pixels, both gradients are computed in this way with at least
twice as many channels, and the convolution itself with at least four times as many."""

Two = tuple[int, int]


class Way(NamedTuple):
    """The functions that compute a convolution and its two gradients on a CPU."""

    forward: Callable[[jax.Array, jax.Array], jax.Array]
    backward: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def conv(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any) -> jax.Array:
    """Compute a convolution with the arguments and results of `jax.lax.conv_general_dilated`.

    Raises
    ------
    ArgumentError
        If the environment variable ``CELLSCAN_CONVOLUTIONS`` is neither ``"own"``, the default, nor ``"xla"``. It is
        read when a program is compiled, so set it before Python starts.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.convolution import conv
    >>> layout = ("NHWC", "HWIO", "NHWC")
    >>> conv(jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4)), (1, 1), "SAME", dimension_numbers=layout).shape
    (2, 8, 8, 4)
    """
    plain = functools.partial(_plain, strides=strides, padding=padding, options=options)
    groups = options.get("feature_group_count", 1)
    is_depthwise = 1 < groups == x.shape[-1] == kernel.shape[-1]
    dilated = any(set(options.get(side) or ()) - {1} for side in ("lhs_dilation", "rhs_dilation"))
    choice = os.environ.get("CELLSCAN_CONVOLUTIONS", "own")
    check_choice("CELLSCAN_CONVOLUTIONS", choice, ("own", "xla"))
    if choice == "xla" or x.ndim != 4 or dilated or (groups > 1 and not is_depthwise):
        return plain(x, kernel)
    size: Any = kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], size, strides, padding)
    strides, pads = tuple(strides), tuple(padding)
    rows, columns = depthwise.outcome(x, size, strides, pads)
    if is_depthwise:
        way = Way(
            functools.partial(depthwise.forward, strides, pads), functools.partial(depthwise.backward, strides, pads)
        )
    elif size == (1, 1) or rows * columns <= FEW:
        product = functools.partial(_patches, strides, pads, options.get("precision"))
        way = Way(product, functools.partial(_of, product))
    else:
        products = functools.partial(_products, strides, pads, options.get("precision"))
        channels, pixels = min(kernel.shape[2:]), rows * columns
        if channels >= 2 * MANY and pixels <= 4 * FEW:
            way = Way(products if channels >= 4 * MANY else plain, functools.partial(_of, products))
        else:
            by_products = channels >= MANY and pixels <= 16 * FEW
            way = Way(plain, functools.partial(_beside, plain, products if by_products else None))
    return _conv(plain, way, x, kernel)


def _plain(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, options: dict[str, Any]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(plain: Any, way: Way, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return (
        plain(x, kernel) if way.forward is plain else lax.platform_dependent(x, kernel, cpu=way.forward, default=plain)
    )


def _forward(plain: Any, way: Way, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(plain, way, x, kernel), (x, kernel)


def _backward(plain: Any, way: Way, kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(*kept, grad, cpu=way.backward, default=functools.partial(_of, plain))


_conv.defvjp(_forward, _backward)


def _of(function: Any, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both gradients of a function by automatic differentiation."""
    return jax.vjp(function, x, kernel)[1](grad)


def _beside(plain: Any, products: Any, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    to_x = jax.vjp(lambda x: plain(x, kernel), x)[1](grad)[0]
    if products is None:
        return to_x, _by_slices(plain, x, kernel, grad)
    return to_x, jax.vjp(lambda kernel: products(x, kernel), kernel)[1](grad)[0]


def _shifts(x: jax.Array, size: Two, strides: Two, pads: Pads) -> list[jax.Array]:
    """Return the values of `x` that each position of a kernel multiplies: (N, rows, columns, C) each."""
    height, width = size
    if (height, width) == strides == (1, 1) and pads == ((0, 0), (0, 0)):
        return [x]
    rows, columns = depthwise.outcome(x, size, strides, pads)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return [depthwise.shifted(x, i, j, rows, columns, strides) for i in range(height) for j in range(width)]


def _patches(strides: Two, pads: Pads, precision: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by one matrix product of the concatenated patches and the kernel."""
    height, width, _, out = kernel.shape
    shifts = _shifts(x, (height, width), strides, pads)
    joined = shifts[0] if len(shifts) == 1 else jnp.concatenate(shifts, -1)
    product = jnp.matmul(joined.reshape(-1, joined.shape[-1]), kernel.reshape(-1, out), precision=precision)
    return product.reshape(*joined.shape[:3], out)


def _products(strides: Two, pads: Pads, precision: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by a sum of matrix products, one for every position of the kernel."""
    height, width, channels, out = kernel.shape
    shifts = _shifts(x, (height, width), strides, pads)
    pairs = zip(shifts, kernel.reshape(-1, channels, out), strict=True)
    products = [jnp.matmul(part.reshape(-1, channels), matrix, precision=precision) for part, matrix in pairs]
    return functools.reduce(jnp.add, products).reshape(*shifts[0].shape[:3], out)


def _by_slices(plain: Any, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> jax.Array:
    """Return the gradient of a kernel as a sum over slices of the batch."""

    def whole(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](grad)[0]

    size = max(1, SLICE * len(x) // grad.size, -(-len(x) // MOST))
    parts = [whole(x[start : start + size], grad[start : start + size]) for start in range(0, len(x), size)]
    return functools.reduce(jnp.add, parts)
