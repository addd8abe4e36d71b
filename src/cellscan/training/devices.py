"""How batches reach the devices: the one place where that is chosen.

- One CPU device: a step a batch, straight from the memory map. (XLA's CPU backend runs the body of a
  loop on one thread, so an epoch inside one program is many times slower there.)
- An accelerator whose memory takes the data set twice: put there once, and an epoch is one dispatch.
- Otherwise: a step a batch, with the next batch on its way while one is computed.
- One device where `jax.default_device` names it; else all there are.
- Several devices, of one machine or of all that `jax.distributed` joined: the same, every batch cut
  into equal parts over all of them.
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
    """Images, or what else a network takes, and labels to train or validate on."""

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
    """Return ``epoch(state, order, key, rates, tick) -> (state, metrics)`` for the devices that are there.

    `order` has the rows of an epoch, a whole number of batches, and `rates` the learning rate of each step; metrics
    come back as one array a name, a value a step. `tick` is called with images done and a loss, where that costs no
    waiting. `resident` says whether the data set is put on the device; left out, it is chosen.
    """
    use_jax()
    alone = jax.config.jax_default_device is not None  # somebody chose one
    devices = np.array(list(jnp.zeros(()).devices()) if alone else jax.devices())
    if batch_size % len(devices):
        raise ArgumentError(
            f"batch_size is {batch_size}; expected a multiple of {len(devices)}, the number of devices that share a "
            "batch. To use fewer, set CUDA_VISIBLE_DEVICES; to use one, jax.default_device(...)"
        )
    shared = len(devices) > 1
    mesh = Mesh(devices, ("batch",))
    whole, cut = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    if resident is None:
        resident = devices[0].platform != "cpu" and _has_room(devices[0], train)

    def replicate(state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: _put(leaf, whole), state)

    if not resident:
        one = _shared_step(mesh) if shared else train_step

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
                drawn = jax.random.fold_in(key, number)
                state, metrics = one(task, state, images, labels, drawn, rates[number], constants)
                collected.append(metrics)
                if number + 1 < len(rows):
                    images, labels = load(rows[number + 1])
                # The step before this one is done or nearly so: fetching its loss keeps the queue short.
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
        # Placed like what a dispatch returns: else the second epoch would be compiled anew.
        state, metrics = dispatch(
            task, replicate(state), pixels, labels, _padded(rows), key, _padded(rates), count, constants
        )
        fetched = {name: np.asarray(values)[:count] for name, values in metrics.items()}
        tick(len(order), float(fetched["loss"][-1]))
        return state, fetched

    return once


@functools.cache
def _shared_step(mesh: Mesh) -> Any:
    """Return `train_step` for batches that are cut over devices, and a state that each of them has."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, static_argnums=0, donate_argnums=1, out_shardings=(whole, whole))


@functools.cache
def _epoch(mesh: Mesh | None) -> Any:
    """Return the program of an epoch over images that lie on the device.

    Lengths are padded and the number of steps is a number that it is given, so that sets of nearly one size, such as
    the folds of a study, share it.
    """

    def epoch(
        task: Task, state: TrainState, pixels: Any, labels: Any, order: Any, key: Any, rates: Any, count: Any,
        constants: Any,
    ) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
        def advance(number: Any, state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
            rows = order[number]
            if mesh is not None:
                rows = jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, PartitionSpec("batch")))
            drawn = jax.random.fold_in(key, number)
            return step(task, state, pixels[rows], labels[rows], drawn, rates[number], constants)

        def body(number: Any, carried: Any) -> Any:
            state, written = carried
            state, metrics = advance(number, state)
            return state, {name: written[name].at[number].set(value) for name, value in metrics.items()}

        _, shapes = jax.eval_shape(advance, 0, state)
        written = {name: jnp.zeros(len(order), value.dtype) for name, value in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, written))

    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    placed = None if whole is None else (whole, whole)
    return jax.jit(epoch, static_argnums=0, donate_argnums=1, out_shardings=placed)


def _padded(array: np.ndarray) -> np.ndarray:
    """Repeat the last row up to one of four lengths an octave."""
    unit = 1 << max(len(array).bit_length() - 3, 0)
    missing = -len(array) % unit
    return np.concatenate([array, np.repeat(array[-1:], missing, 0)]) if missing else array


def local(tree: Any) -> Any:
    """Return copies of arrays that every device has, on the first device of this process."""
    return jax.tree.map(lambda leaf: jax.numpy.array(leaf.addressable_data(0)), tree)


def _gather(array: Any, rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Read rows from an array-like; each process reads only those of its own devices."""

    def part(index: Any) -> np.ndarray:
        return array[rows[index[0]]]

    return jax.make_array_from_callback((len(rows), *array.shape[1:]), sharding, part)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Place a whole array; of several processes each places its part."""
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(leaf, sharding)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _has_room(device: Any, train: Examples) -> bool:
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    return 2 * int(np.prod(train.pixels.shape)) * np.dtype(train.pixels.dtype).itemsize < free
