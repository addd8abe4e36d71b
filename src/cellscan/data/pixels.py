"""The memory map: every image of a source, decoded and resized once, kept as uint8 in the cache folder.

A map is written under a temporary name and renamed when whole, so that a killed process leaves
nothing that a later run trusts. Its name is a hash of the source's fingerprint, the resize rule and
the size. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import numpy as np

from cellscan.data.images import RESIZE, Size
from cellscan.data.sources import Source
from cellscan.errors import DataError, ImageError
from cellscan.progress import Progress


def cache_folder() -> Path:
    """Return the folder of decoded images: `CELLSCAN_CACHE`, else the user's cache folder.

    Examples
    --------
    >>> from cellscan.data.pixels import cache_folder
    >>> cache_folder().is_absolute()
    True
    """
    given = os.environ.get("CELLSCAN_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("cellscan"))


def open_map(source: Source, size: Size, *, progress: bool = True) -> tuple[np.ndarray, dict[int, str]]:
    """Return the read-only map (N, H, W, 3) of `source`, and the reasons of rows that failed."""
    folder = cache_folder()
    height, width = (size, size) if isinstance(size, int) else size
    key = hashlib.sha256(f"1|{source.fingerprint()}|{size}|{sorted(RESIZE.items())}".encode()).hexdigest()[:32]
    name = f"{key}-{size if isinstance(size, int) else f'{height}x{width}'}"
    path, failed_path = folder / f"{name}.npy", folder / f"{name}.failed.json"
    shape = (len(source), height, width, 3)
    pixels = _reopen(path, shape)
    if pixels is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder)
            _build(source, size, shape, path, failed_path, progress)
        except OSError as error:
            raise DataError(
                f"the pixel cache {folder} cannot be written ({error}); it takes {np.prod(shape) / 1e9:.2f} GB. "
                "Free some space, or set CELLSCAN_CACHE to another folder"
            ) from error
        pixels = _reopen(path, shape)
        if pixels is None:
            raise DataError(f"{path} vanished or changed while it was written; call again")
    failed: dict[str, str] = json.loads(failed_path.read_text()) if failed_path.exists() else {}
    return pixels, {int(row): reason for row, reason in failed.items()}


def _reopen(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _build(source: Source, size: Size, shape: tuple[int, ...], path: Path, failed_path: Path, progress: bool) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")
    failed: dict[int, str] = {}
    rows = range(shape[0])
    try:
        pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)

        def fill(row: int) -> None:
            try:
                pixels[row] = source.read(row, size)
            except ImageError as error:
                failed[row] = str(error)

        side = size if isinstance(size, int) else f"{size[1]} x {size[0]}"
        with Progress(f"decoding to {side} px", shape[0], show=progress) as bar:
            # Threads, not processes: Pillow decodes and resizes outside Python's lock, and a script
            # needs no `if __name__ == "__main__"` for them.
            with ThreadPoolExecutor(_workers()) as pool:
                for start in range(0, len(rows), 512):
                    chunk = rows[start : start + 512]
                    list(pool.map(fill, chunk))
                    bar.advance(len(chunk))
        pixels.flush()
        _write_failed(failed, failed_path)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_failed(failed: dict[int, str], path: Path) -> None:
    if not failed:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(failed))
    os.replace(part, path)


def _workers() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _remove_stale(folder: Path) -> None:
    """Delete half-written maps that a killed process left more than a day ago."""
    for part in folder.glob("*.part"):
        try:
            if time.time() - part.stat().st_mtime > 86_400:
                part.unlink()
        except OSError:
            continue


class Pixels:
    """Images (N, H, W, 3) uint8 on disk, read only when they are asked for; read-only.

    Slices and index arrays give NumPy arrays of just those images; `np.asarray` gives all of them.

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
        """(N, H, W, 3).

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
        if isinstance(index, tuple):
            return self[index[0]][(slice(None), *index[1:]) if np.ndim(self._row[index[0]]) else index[1:]]
        part, row = self._part[index], self._row[index]
        if np.ndim(row) == 0:
            return self._maps[int(part)][int(row)]
        if len(self._maps) == 1:
            out = self._maps[0][row]
        else:
            out = np.empty((len(row), *self.shape[1:]), np.uint8)
            for number, pixels in enumerate(self._maps):
                here = part == number
                out[here] = pixels[row[here]]
        out.flags.writeable = False
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None and not copy else np.array(whole, dtype=dtype)

    def __repr__(self) -> str:
        return f"Pixels(shape={self.shape}, dtype=uint8)"
