"""Decode and resize the images of a source once, into the cache folder, or into memory for small sets of arrays."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, overload

import numpy as np

from cellscan.data.cache import cache_folder, keep, open_kept
from cellscan.data.images import RESIZE, Size, with_patience
from cellscan.data.sources import ArraySource, Source
from cellscan.data.values import OutOfRange
from cellscan.errors import DataError, ImageError
from cellscan.progress import Progress

SMALL = 100_000_000
"""Largest number of bytes of a set of arrays that stays in memory, because such sets are often used once."""

_CHUNK = 32_000_000
"""Number of bytes that are decoded before they are written."""

_small: weakref.WeakKeyDictionary[ArraySource, dict[Size, np.ndarray]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
"""Lets one thread at a time decode, so that images are not decoded twice."""


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A thread that does not exist in the child process may have held the lock.
os.register_at_fork(after_in_child=_new_lock)


def open_map(source: Source, size: Size, *, progress: bool = True) -> tuple[np.ndarray, dict[int, str]]:
    """Return the read-only pixels (N, H, W, 3) of `source`, and the reasons for rows that cannot be read.

    Each call reads the rows that failed again, because a file may have been repaired, or its folder reconnected.
    """
    size = int(size) if isinstance(size, (int, np.integer)) else (int(size[0]), int(size[1]))
    shape = (len(source), *((size, size) if isinstance(size, int) else size), 3)
    try:
        with _lock:
            if isinstance(source, ArraySource) and math.prod(shape) <= SMALL:
                return _in_memory(source, size, shape, progress), {}
            return _unchanged(source, size, shape, progress)
    except MemoryError as error:
        raise DataError(
            f"there is not enough memory to decode {shape[0]:,} images; free some memory, or use a smaller size"
        ) from error


def _unchanged(source: Source, size: Size, shape: tuple[int, ...], progress: bool) -> tuple[np.ndarray, dict[int, str]]:
    for _ in range(3):
        fingerprint = source.fingerprint()
        key = hashlib.sha256(f"2|{fingerprint}|{size}|{sorted(RESIZE.items())}".encode()).hexdigest()[:32]
        name = f"{key}-{'x'.join(map(str, shape[1:3]))}.pixels"
        result = _on_disk(source, size, shape, name, progress)
        if source.fingerprint() == fingerprint:
            return result
        (cache_folder() / name).unlink(missing_ok=True)  # It may contain pixels from before and after the change.
    raise DataError(
        "the images changed three times while they were read; wait until no program writes to them, and call again"
    )


def _in_memory(source: ArraySource, size: Size, shape: tuple[int, ...], progress: bool) -> np.ndarray:
    sizes = _small.setdefault(source, {})
    if size not in sizes:
        pixels, unread = np.zeros(shape, np.uint8), []
        done = 0
        for chunk in _chunks(source, size, shape, None, unread, range(len(source)), progress):
            pixels[done : done + len(chunk)] = chunk
            done += len(chunk)
        pixels.flags.writeable = False
        if pixels.nbytes + sum(other.nbytes for other in sizes.values()) > SMALL:
            sizes.clear()
        sizes[size] = pixels
    return sizes[size]


def _on_disk(
    source: Source, size: Size, shape: tuple[int, ...], name: str, progress: bool
) -> tuple[np.ndarray, dict[int, str]]:
    for _ in range(3):
        before, todo = open_kept(name, shape) or (None, range(len(source)))
        if before is not None:
            with ThreadPoolExecutor(_workers()) as pool:
                again = dict(zip(todo, pool.map(lambda row: _read(source, row, size), todo), strict=True))
            failed = {row: result for row, result in again.items() if isinstance(result, str)}
            if len(failed) == len(again):
                return before, failed
        unread: list[int] = []
        keep(name, shape, _chunks(source, size, shape, before, unread, todo, progress), unread)
    raise DataError(f"{cache_folder() / name} vanished or changed while it was written; call again")


def _chunks(
    source: Source,
    size: Size,
    shape: tuple[int, ...],
    before: np.ndarray | None,
    unread: list[int],
    todo: Iterable[int],
    progress: bool,
) -> Iterator[np.ndarray]:
    """Yield all rows in order: those in `todo` are read, others copied from `before`.

    Rows that cannot be read are zeros, and are added to `unread`.
    """
    rows = set(todo)
    step = max(_CHUNK // math.prod(shape[1:]), _workers())
    side = size if isinstance(size, int) else f"{size[1]} x {size[0]}"
    # Threads suffice, because Pillow releases the GIL while it decodes and resizes; unlike processes, they need no
    # `if __name__ == "__main__"` in scripts.
    with (
        Progress(f"decoding to {side} px", len(rows), show=progress) as bar,
        ThreadPoolExecutor(_workers()) as pool,
    ):
        decoding: tuple[int, np.ndarray, dict[int, Future[np.ndarray | str]]] | None = None
        for start in (*range(0, shape[0], step), None):
            following = None
            if start is not None:  # The next chunk is decoded while the caller writes this one.
                stop = min(start + step, shape[0])
                chunk = np.zeros((stop - start, *shape[1:]), np.uint8) if before is None else before[start:stop].copy()
                in_chunk = [row for row in range(start, stop) if row in rows]
                following = start, chunk, {row: pool.submit(_read, source, row, size) for row in in_chunk}
            if decoding is not None:
                first, chunk, futures = decoding
                for row, future in futures.items():
                    image = future.result()
                    if isinstance(image, str):
                        unread.append(row)
                    else:
                        chunk[row - first] = image
                bar.advance(len(futures))
                yield chunk
            decoding = following


def _read(source: Source, row: int, size: Size) -> np.ndarray | str:
    """Return an image, or the reason why it cannot be read; raise `DataError` if the machine fails."""
    try:
        return with_patience(lambda: source.read(row, size), f"image {row}")
    except (ImageError, OSError) as error:
        return str(error)


def _workers() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS does not have it.
        return os.cpu_count() or 1


class Pixels:
    """A read-only array of images (N, H, W, 3) uint8 that reads images from disk only when they are used.

    Slices and index arrays return NumPy arrays of the selected images; `np.asarray` returns all images.

    Examples
    --------
    >>> import cellscan
    >>> pixels = cellscan.synthetic_cells(60, seed=0).images(32)
    >>> pixels.shape, pixels.dtype
    ((60, 32, 32, 3), dtype('uint8'))
    >>> pixels[[5, 3]].shape, pixels[:10].shape, pixels[-1].shape
    ((2, 32, 32, 3), (10, 32, 32, 3), (32, 32, 3))
    """

    ndim: int = 4
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)

    def __init__(self, maps: tuple[np.ndarray, ...], part: np.ndarray, row: np.ndarray) -> None:
        self._maps, self._part, self._row = maps, part, row

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (N, H, W, 3).

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(60, seed=0).images(32).shape
        (60, 32, 32, 3)
        """
        height, width = self._maps[0].shape[1:3]
        return len(self), height, width, 3

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | list[int] | list[bool] | np.ndarray | tuple[Any, ...]) -> np.ndarray: ...
    def __getitem__(self, index: Any) -> np.ndarray:
        try:
            return self._get(index)
        except (IndexError, TypeError, ValueError) as error:
            raise OutOfRange(f"pixels[{index!r:.80}] of {self.shape}: {error}") from error

    def _get(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            return self._get(index[0])[(slice(None), *index[1:]) if np.ndim(self._row[index[0]]) else index[1:]]
        part, row = self._part[index], self._row[index]
        if index is None or isinstance(index, (bool, np.bool_)) or np.ndim(row) > 1:
            raise TypeError("expected a whole number, a slice, a list of them or a mask")
        if np.ndim(row) == 0:
            return self._maps[int(part)][int(row)]
        if len(self._maps) == 1:
            out = self._maps[0][row]
        else:
            out = np.empty((len(row), *self.shape[1:]), np.uint8)
            for number, pixels in enumerate(self._maps):
                in_map = part == number
                out[in_map] = pixels[row[in_map]]
        out.flags.writeable = False
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None and not copy else np.array(whole, dtype=dtype)

    def __repr__(self) -> str:
        return f"Pixels(shape={self.shape}, dtype=uint8)"
