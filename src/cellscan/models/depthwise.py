"""A depthwise convolution that is fast on a CPU.

XLA's CPU backend computes a depthwise convolution as a loop over channels, ten to fifty times slower than necessary
(https://github.com/jax-ml/jax/issues/23713).
This module computes it as a sum of shifted products, which the backend compiles to a few passes over memory, along the
channels. `models/convolution.py` uses it for depthwise convolutions.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

SLICES = 8
"""Number of parts of the batch for the gradient of a kernel. XLA's CPU backend adds whole arrays quickly, but sums over
the axes of an array slowly."""


def forward(strides: tuple[int, int], pads: Pads, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve every channel of `x` (N, H, W, C) with its filter in `kernel` (h, w, 1, C).

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
    """Return the numbers of rows and columns of the output of a convolution of `x`.

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
    """Return the values of a padded array that the position (i, j) of a kernel multiplies.

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
    if len(parts[-1][0]) < size:  # The last part has another shape, so it is summed separately.
        parts, rest = parts[:-1], parts[-1]
    else:
        rest = None

    def tap(i: int, j: int) -> jax.Array:
        terms = [shifted(part, i, j, rows, columns, strides) * part_grad for part, part_grad in parts]
        total = jax.lax.optimization_barrier(functools.reduce(jnp.add, terms)).sum((0, 1, 2))
        if rest is not None:
            total = total + (shifted(rest[0], i, j, rows, columns, strides) * rest[1]).sum((0, 1, 2))
        return total

    height, width = kernel.shape[:2]
    taps = [jnp.stack([tap(i, j) for j in range(width)]) for i in range(height)]
    return jnp.stack(taps)[:, :, None].astype(kernel.dtype)


def _to_x(x: jax.Array, kernel: jax.Array, grad: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    """Return the gradient of `x`, computed separately for each phase of the strides and then interleaved."""
    n, height, width, channels = x.shape
    (down, right), (rows, columns) = strides, grad.shape[1:3]
    n_rows, n_columns = -(-height // down), -(-width // right)  # the numbers of rows and columns of each phase
    above, left = kernel.shape[0], kernel.shape[1]  # larger than the largest shift
    padding = ((above, max(0, n_rows + above - rows)), (left, max(0, n_columns + left - columns)))
    padded = jnp.pad(grad, ((0, 0), *padding, (0, 0)))

    def phase(a: int, b: int) -> jax.Array:
        out: Any = jnp.zeros((n, n_rows, n_columns, channels), grad.dtype)
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                y, odd_y = divmod(a + pads[0][0] - i, down)
                z, odd_z = divmod(b + pads[1][0] - j, right)
                if not odd_y and not odd_z:
                    out = out + shifted(padded, above + y, left + z, n_rows, n_columns, (1, 1)) * kernel[i, j, 0]
        return out

    if strides == (1, 1):
        return phase(0, 0).astype(x.dtype)
    grid = [jnp.stack([phase(a, b) for b in range(right)], 3) for a in range(down)]
    whole = jnp.stack(grid, 2).reshape(n, n_rows * down, n_columns * right, channels)
    return whole[:, :height, :width].astype(x.dtype)
