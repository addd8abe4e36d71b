"""A convolution whose kernel gradient is quick on a CPU; hand it to `flax.nnx.Conv` as ``conv_general_dilated``.

XLA's CPU backend computes the gradient of a kernel as one convolution whose window is the whole
feature map and whose sum runs over the whole batch, again and again past what its caches hold. Summed
over slices of the batch that fit there it takes about half as long. Elsewhere, and for the other
gradients, nothing changes. To be rid of this file, leave the argument out where networks are built.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax

SLICE = 2**18
"""Values of the incoming gradient in a slice: 1 MiB, what a core's second cache holds."""

MOST = 32
"""Slices at most, so that programs stay small."""


def conv(x: jax.Array, kernel: jax.Array, *args: Any, **options: Any) -> jax.Array:
    """Do what `jax.lax.conv_general_dilated` does, with the same arguments and results.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.convolution import conv
    >>> layout = ("NHWC", "HWIO", "NHWC")
    >>> conv(jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4)), (1, 1), "SAME", dimension_numbers=layout).shape
    (2, 8, 8, 4)
    """
    return _conv(functools.partial(_plain, args=args, options=options), x, kernel)


def _plain(x: jax.Array, kernel: jax.Array, args: tuple[Any, ...], options: dict[str, Any]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, *args, **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(function: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return function(x, kernel)


def _forward(function: Any, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return function(x, kernel), (x, kernel)


def _backward(function: Any, kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept

    def whole(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: function(x, kernel), kernel)[1](grad)[0]

    size = max(1, SLICE * len(x) // grad.size, -(-len(x) // MOST))

    def sliced(x: jax.Array, grad: jax.Array) -> jax.Array:
        parts = [whole(x[start : start + size], grad[start : start + size]) for start in range(0, len(x), size)]
        return functools.reduce(jax.numpy.add, parts)

    (to_x,) = jax.vjp(lambda x: function(x, kernel), x)[1](grad)
    if size >= len(x):
        return to_x, whole(x, grad)
    return to_x, lax.platform_dependent(x, grad, cpu=sliced, default=whole)


_conv.defvjp(_forward, _backward)
