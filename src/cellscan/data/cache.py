"""The cache folder of decoded images and unpacked archives: files with checksums, within a size limit.

A file contains the raw bytes of the pixels, or of the members of an archive; then a JSON object (shape, CRC-32 of the
pixels, rows that could not be read); then the length and the CRC-32 of that object. It is written under a temporary
name and flushed to the disk before it is renamed, so that an incomplete file, after a killed process or a power cut, is
never read. Only files of this form, whose names begin with 32 hexadecimal digits, are ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cellscan.data.images import with_patience
from cellscan.errors import ArgumentError, CellscanError, DataError

LIMIT = 20.0
"""Default size limit of the folder in gigabytes; `CELLSCAN_CACHE_LIMIT` overrides it."""

# The pattern includes files of earlier versions.
_OURS = re.compile(r"[0-9a-f]{32}-\d+(x\d+)?\.(pixels|members|npy|failed\.json)(\..*\.part)?")
_LOCKED = (errno.EAGAIN, errno.EACCES)
_TAIL = struct.Struct("<QI")
_BLOCK = 16 * 2**20

_known: dict[str, tuple[int, int, int]] = {}
"""Inode, size and modification time of the files whose checksums this process has verified."""


def cache_folder() -> Path:
    """Return the folder of decoded images: `CELLSCAN_CACHE`, or the cache folder of the user.

    Examples
    --------
    >>> from cellscan.data.cache import cache_folder
    >>> cache_folder().is_absolute()
    True
    """
    try:
        given = os.environ.get("CELLSCAN_CACHE")
        if given:
            return Path(given).expanduser().absolute()
        import platformdirs

        return Path(platformdirs.user_cache_dir("cellscan"))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"there is no folder for decoded images ({error}); set the environment variable CELLSCAN_CACHE to a folder"
        ) from error


def clear_cache() -> int:
    """Delete all decoded images and unpacked archives from the cache folder.

    Returns
    -------
    int
        Number of bytes that are freed.

    Raises
    ------
    DataError
        If the folder cannot be changed.

    Notes
    -----
    The library makes the files again when it needs them. Data sets in use keep the files that they have opened. The
    folder is ``CELLSCAN_CACHE``, or the cache folder of the user. Without this call, the least recently used files are
    removed when the folder exceeds 20 GB, or ``CELLSCAN_CACHE_LIMIT`` gigabytes.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.clear_cache() >= 0
    True
    """
    folder, freed = cache_folder(), 0
    try:
        for path in _files(folder):
            size = path.stat().st_size
            if not path.name.endswith(".part") or _is_left_behind(path):
                path.unlink(missing_ok=True)
                freed += size
    except OSError as error:
        raise DataError(f"{folder}: the cache cannot be cleared ({error})") from error
    return freed


def open_kept(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, list[int]] | None:
    """Return a read-only map of the file and its unreadable rows, or None if the file is missing or damaged."""
    path = cache_folder() / name
    try:
        return with_patience(lambda: _open(path, shape), str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CellscanError):
            raise
        return None


def _open(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, list[int]] | None:
    with open(path, "rb") as file:
        about = _about(file, shape)
        if about is None:
            return None
        stat = os.fstat(file.fileno())
        pixels = np.memmap(file, np.uint8, "r", shape=shape)
    state = stat.st_ino, stat.st_size, stat.st_mtime_ns
    if _known.get(str(path)) != state:
        if _checksum(pixels.reshape(-1)) != about["crc32"]:
            return None
        age = time.time() - stat.st_mtime
        if age > 3600:  # The new time marks the file as used. Other processes verify it again, so this is done rarely.
            with contextlib.suppress(OSError):  # The user may have read access only.
                os.utime(path)
        elif age > 1:  # Two changes within one tick of the clock leave the same time.
            _known[str(path)] = state
    return pixels, [int(row) for row in about["unread"]]


def _about(file: Any, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """Return the JSON object at the end of a file, or None if it is damaged or has another shape."""
    size, pixels = os.fstat(file.fileno()).st_size, math.prod(shape)
    if size < pixels + _TAIL.size:
        return None
    file.seek(size - _TAIL.size)
    length, crc = _TAIL.unpack(file.read(_TAIL.size))
    if size != pixels + length + _TAIL.size:
        return None
    file.seek(pixels)
    text = file.read(length)
    about = json.loads(text) if zlib.crc32(text) == crc else None
    return about if about and about["shape"] == list(shape) else None


def _checksum(pixels: np.ndarray) -> list[int]:
    """Return the CRC-32 of each block; threads compute the blocks in parallel."""
    with ThreadPoolExecutor() as pool:
        starts = range(0, len(pixels), _BLOCK)
        return list(pool.map(lambda start: zlib.crc32(pixels[start : start + _BLOCK]), starts))


def keep(name: str, shape: tuple[int, ...], chunks: Iterator[np.ndarray], unread: list[int]) -> None:
    """Write a map from chunks of rows.

    Parameters
    ----------
    name : str
        Name of the file in the cache folder.
    shape : tuple of int
        Shape of all rows together, uint8.
    chunks : iterator of numpy.ndarray
        The rows, in order.
    unread : list of int
        Rows that could not be read; `chunks` adds to it while it runs.

    Raises
    ------
    DataError
        If the folder cannot be written. A full disk raises before the first chunk is computed.
    """
    folder, size = cache_folder(), math.prod(shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder, size)
        part, fd = _open_part(folder, name)
        try:
            with os.fdopen(fd, "wb") as file:
                _reserve(fd, size)
                sums, crc, filled = [], 0, 0
                for chunk in chunks:
                    data = memoryview(np.ascontiguousarray(chunk)).cast("B")
                    file.write(data)  # Writing through a memory map would kill the process if the disk is full.
                    while len(data):
                        piece, data = data[: _BLOCK - filled], data[_BLOCK - filled :]
                        crc, filled = zlib.crc32(piece, crc), filled + len(piece)
                        if filled == _BLOCK:
                            sums.append(crc)
                            crc = filled = 0
                sums += [crc] if filled else []
                about = json.dumps({"shape": list(shape), "crc32": sums, "unread": unread}).encode()
                file.write(about + _TAIL.pack(len(about), zlib.crc32(about)))
                file.flush()
                os.fsync(fd)
                os.replace(part, folder / name)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"the pixel cache {folder} cannot be written ({error}); it takes {size / 1e9:.3g} GB. "
            "Free some space, call cellscan.clear_cache(), or set CELLSCAN_CACHE to another folder"
        ) from error


def _open_part(folder: Path, name: str) -> tuple[Path, int]:
    """Return a new file that stays locked while it is open; other processes then leave it alone."""
    while True:
        part = folder / f"{name}.{os.getpid()}-{secrets.token_hex(4)}.part"
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            free = error.errno not in _LOCKED  # Other errors come from file systems without locks.
        if free and os.fstat(fd).st_nlink:
            return part, fd
        os.close(fd)  # Another process removed the file as an abandoned one before it was locked.


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # macOS does not have it.
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            # These errors come from file systems that do not support the call.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _OURS.fullmatch(path.name)] if folder.is_dir() else []


def _is_left_behind(part: Path) -> bool:
    """Whether no process writes to a part any more; the lock of a process ends with the process."""
    fd = os.open(part, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return error.errno not in _LOCKED and time.time() - os.fstat(fd).st_mtime > 86_400
    finally:
        os.close(fd)


def _tidy(folder: Path, coming: int) -> None:
    """Remove parts of killed processes, and the least recently used maps until `coming` bytes fit into the limit."""
    maps = []
    for path in _files(folder):
        try:
            if path.name.endswith(".part"):
                if _is_left_behind(path):
                    path.unlink()
            else:
                stat = path.stat()
                maps.append((stat.st_mtime, stat.st_size, path))
        except OSError:  # Another process has removed the file.
            continue
    left = _limit() - coming - sum(size for _, size, _ in maps)
    for _, size, path in sorted(maps):
        if left >= 0:
            break
        try:
            path.unlink()  # Processes that have the file open can still read it.
            left += size
        except OSError:
            continue


def _limit() -> float:
    text = os.environ.get("CELLSCAN_CACHE_LIMIT", str(LIMIT))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ArgumentError(f"CELLSCAN_CACHE_LIMIT is {text!r}; expected a number of gigabytes from 0, such as 20")
    return limit * 1e9
