"""A depthwise convolution that is quick on a CPU.

XLA's CPU backend computes one as a loop over channels, ten to fifty times slower than the work asks for. As a
sum of shifted products it is what that backend is good at: few passes over memory, along the channels.
`models/convolution.py` sends depthwise convolutions here. To be rid of this file, leave that out.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

SLICES = 8
"""Into how many parts the batch is cut for the gradient of a kernel: that backend adds whole arrays quickly, and
sums over one slowly."""


def forward(strides: tuple[int, int], pads: Pads, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Filter every channel of `x` (N, H, W, C) by its own filter of `kernel` (h, w, 1, C).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.depthwise import forward
    >>> forward((1, 1), ((1, 1), (1, 1)), jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 2)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = outcome(x, kernel.shape[:2], strides, pads)
    out: Any = 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out = out + shifted(padded, i, j, rows, columns, strides) * kernel[i, j, 0]
    return out


def backward(
    strides: tuple[int, int], pads: Pads, x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of `x` and `kernel`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.depthwise import backward
    >>> ones = jnp.ones((1, 3, 3, 2))
    >>> backward((1, 1), ((1, 1), (1, 1)), ones, jnp.ones((3, 3, 1, 2)), ones)[1][:, :, 0, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    return _to_x(x, kernel, grad, strides, pads), _to_kernel(x, kernel, grad, strides, pads)


def outcome(x: jax.Array, size: tuple[int, ...], strides: tuple[int, int], pads: Pads) -> tuple[int, int]:
    """Return how many rows and columns a convolution of `x` gives.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.depthwise import outcome
    >>> outcome(jnp.zeros((1, 7, 9, 3)), (3, 3), (2, 2), ((0, 0), (0, 0)))
    (3, 4)
    """
    rows, columns = ((x.shape[axis + 1] + sum(pads[axis]) - size[axis]) // strides[axis] + 1 for axis in (0, 1))
    return rows, columns


def shifted(x: jax.Array, i: int, j: int, rows: int, columns: int, strides: tuple[int, int]) -> jax.Array:
    """Return what the place (i, j) of a kernel sees of an array that is padded already.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from cellscan.models.depthwise import shifted
    >>> shifted(jnp.arange(16).reshape(1, 4, 4, 1), 1, 0, 2, 2, (2, 2)).ravel().tolist()
    [4, 6, 12, 14]
    """
    down, right = strides
    return x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]


def _to_kernel(x: jax.Array, kernel: jax.Array, grad: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = grad.shape[1:3]
    size = -(-len(x) // SLICES)
    parts = [(padded[start : start + size], grad[start : start + size]) for start in range(0, len(x), size)]
    if len(parts[-1][0]) < size:  # the last part has another shape, so it is summed alone
        parts, rest = parts[:-1], parts[-1]
    else:
        rest = None

    def tap(i: int, j: int) -> jax.Array:
        terms = [shifted(one, i, j, rows, columns, strides) * g for one, g in parts]
        total = jax.lax.optimization_barrier(functools.reduce(jnp.add, terms)).sum((0, 1, 2))
        if rest is not None:
            total = total + (shifted(rest[0], i, j, rows, columns, strides) * rest[1]).sum((0, 1, 2))
        return total

    height, width = kernel.shape[:2]
    taps = [jnp.stack([tap(i, j) for j in range(width)]) for i in range(height)]
    return jnp.stack(taps)[:, :, None].astype(kernel.dtype)


def _to_x(x: jax.Array, kernel: jax.Array, grad: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    """Return the gradient of `x`: rows and columns of each remainder by the stride apart, then interleaved."""
    n, height, width, channels = x.shape
    (down, right), (rows, columns) = strides, grad.shape[1:3]
    tall, wide = -(-height // down), -(-width // right)  # rows and columns of each remainder
    above, left = kernel.shape[0], kernel.shape[1]  # more than any tap reaches
    room = ((above, max(0, tall + above - rows)), (left, max(0, wide + left - columns)))
    padded = jnp.pad(grad, ((0, 0), *room, (0, 0)))

    def phase(a: int, b: int) -> jax.Array:
        out: Any = jnp.zeros((n, tall, wide, channels), grad.dtype)
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                y, odd_y = divmod(a + pads[0][0] - i, down)
                z, odd_z = divmod(b + pads[1][0] - j, right)
                if not odd_y and not odd_z:
                    out = out + shifted(padded, above + y, left + z, tall, wide, (1, 1)) * kernel[i, j, 0]
        return out

    if strides == (1, 1):
        return phase(0, 0).astype(x.dtype)
    grid = [jnp.stack([phase(a, b) for b in range(right)], 3) for a in range(down)]
    whole = jnp.stack(grid, 2).reshape(n, tall * down, wide * right, channels)
    return whole[:, :height, :width].astype(x.dtype)
