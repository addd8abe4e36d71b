"""The transfer of batches to the devices.

This module alone chooses how batches reach the devices:

- On one CPU device, each batch is one step, read directly from the memory map. (XLA's CPU backend runs the body of
  a loop on one thread, so an epoch inside one program would be many times slower.)
- On an accelerator with memory for twice the data set, the data set is transferred once, and an epoch is one dispatch.
- Otherwise each batch is one step, and the next batch is transferred while the current one is computed.
- If `jax.default_device` is set, only that device is used; otherwise all devices.
- With several devices, of one machine or of all machines that `jax.distributed` joined, every batch is divided into
  equal parts over the devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cellscan.errors import ArgumentError
from cellscan.process import use_jax
from cellscan.tasks.programs import Task, TrainState, step, train_step

if TYPE_CHECKING:
    from cellscan.data.pixels import Pixels


@dataclass(frozen=True)
class Examples:
    """A training or validation set: labels, and images or other inputs of a network."""

    pixels: Pixels | np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


Metrics: TypeAlias = dict[str, np.ndarray]
Tick: TypeAlias = Callable[[int, float | None], None]
RunEpoch: TypeAlias = Callable[[TrainState, np.ndarray, jax.Array, np.ndarray, Tick], tuple[TrainState, Metrics]]


def make_epoch(
    task: Task, train: Examples, batch_size: int, *, constants: Any = None, resident: bool | None = None
) -> RunEpoch:
    """Return ``epoch(state, order, key, rates, tick) -> (state, metrics)`` for the available devices.

    `order` contains the row indices of an epoch, a whole number of batches, and `rates` the learning rate of each
    step. `metrics` has one array per name, with one value per step. `tick` is called with the number of images done,
    and with a loss if one is available without waiting. `resident` determines whether the data set is transferred to
    the device as a whole; by default, that depends on the free memory.
    """
    use_jax()
    chosen = jax.config.jax_default_device is not None  # The user selected one device.
    devices = np.array(list(jnp.zeros(()).devices()) if chosen else jax.devices())
    if batch_size % len(devices):
        raise ArgumentError(
            f"batch_size is {batch_size}; expected a multiple of {len(devices)}, the number of devices that share a "
            "batch. To use fewer devices, set CUDA_VISIBLE_DEVICES; to use one, jax.default_device(...)"
        )
    shared = len(devices) > 1
    mesh = Mesh(devices, ("batch",))
    whole, cut = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    if resident is None:
        resident = devices[0].platform != "cpu" and _fits_in_memory(devices[0], train)

    def replicate(state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: _put(leaf, whole), state)

    if not resident:
        take_step = _shared_step(mesh) if shared else train_step

        def load(rows: np.ndarray) -> tuple[Any, Any]:
            if shared:
                return _gather(train.pixels, rows, cut), _gather(train.labels, rows, cut)
            images, labels = train.pixels[rows], train.labels[rows]
            return (images, labels) if devices[0].platform == "cpu" else jax.device_put((images, labels))

        def stream(
            state: TrainState, order: np.ndarray, key: jax.Array, rates: np.ndarray, tick: Tick
        ) -> tuple[TrainState, Metrics]:
            state, rows = replicate(state) if shared else state, order.reshape(-1, batch_size)
            collected: list[dict[str, jax.Array]] = []
            images, labels = load(rows[0])
            for number in range(len(rows)):
                step_key = jax.random.fold_in(key, number)
                state, metrics = take_step(task, state, images, labels, step_key, rates[number], constants)
                collected.append(metrics)
                if number + 1 < len(rows):
                    images, labels = load(rows[number + 1])
                # The previous step is finished or nearly so. Waiting for its loss keeps the queue of steps short.
                tick(batch_size, float(collected[-2]["loss"]) if number else None)
            return state, {name: np.array([float(m[name]) for m in collected]) for name in collected[0]}

        return stream

    pixels, labels = (_put(_padded(np.asarray(array)), whole) for array in (train.pixels, train.labels))
    dispatch = _epoch(mesh if shared else None)

    def once(
        state: TrainState, order: np.ndarray, key: jax.Array, rates: np.ndarray, tick: Tick
    ) -> tuple[TrainState, Metrics]:
        rows = order.reshape(-1, batch_size).astype(np.int32)
        count = np.int32(len(rows))
        # The first state gets the sharding that a dispatch returns; otherwise the second epoch would be recompiled.
        state, metrics = dispatch(
            task, replicate(state), pixels, labels, _padded(rows), key, _padded(rates), count, constants
        )
        fetched = {name: np.asarray(values)[:count] for name, values in metrics.items()}
        tick(len(order), float(fetched["loss"][-1]))
        return state, fetched

    return once


@functools.cache
def _shared_step(mesh: Mesh) -> Any:
    """Return `train_step` for batches divided over devices, with the state replicated on every device."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, static_argnums=0, donate_argnums=1, out_shardings=(whole, whole))


@functools.cache
def _epoch(mesh: Mesh | None) -> Any:
    """Return the program of an epoch over images that are on the device.

    Lengths are padded and the number of steps is an argument, so that data sets of similar size, such as the folds of
    a study, share one program.
    """

    def epoch(
        task: Task, state: TrainState, pixels: Any, labels: Any, order: Any, key: Any, rates: Any, count: Any,
        constants: Any,
    ) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
        def advance(number: Any, state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
            rows = order[number]
            if mesh is not None:
                rows = jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, PartitionSpec("batch")))
            step_key = jax.random.fold_in(key, number)
            return step(task, state, pixels[rows], labels[rows], step_key, rates[number], constants)

        def body(number: Any, carried: Any) -> Any:
            state, written = carried
            state, metrics = advance(number, state)
            return state, {name: written[name].at[number].set(value) for name, value in metrics.items()}

        _, shapes = jax.eval_shape(advance, 0, state)
        written = {name: jnp.zeros(len(order), value.dtype) for name, value in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, written))

    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    shardings = None if whole is None else (whole, whole)
    return jax.jit(epoch, static_argnums=0, donate_argnums=1, out_shardings=shardings)


def _padded(array: np.ndarray) -> np.ndarray:
    """Repeat the last row until the length is one of four between two powers of two, so that few lengths occur."""
    unit = 1 << max(len(array).bit_length() - 3, 0)
    missing = -len(array) % unit
    return np.concatenate([array, np.repeat(array[-1:], missing, 0)]) if missing else array


def local(tree: Any) -> Any:
    """Return copies of replicated arrays on the first device of this process."""
    return jax.tree.map(lambda leaf: jax.numpy.array(leaf.addressable_data(0)), tree)


def _gather(array: Any, rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Read rows from an array-like; each process reads only the rows of its devices."""

    def part(index: Any) -> np.ndarray:
        return array[rows[index[0]]]

    return jax.make_array_from_callback((len(rows), *array.shape[1:]), sharding, part)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Transfer a whole array to the devices; with several processes, each transfers its part."""
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(leaf, sharding)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _fits_in_memory(device: Any, train: Examples) -> bool:
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    return 2 * int(np.prod(train.pixels.shape)) * np.dtype(train.pixels.dtype).itemsize < free
