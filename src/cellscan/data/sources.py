"""Where the pixels of a data set come from: files, members of an archive, arrays, TFDS records.

A source is an immutable list of images that can be opened in any order from several threads. It pickles and copies
as what it names, without open files, and works in a forked process.

It says two things of its images. The `fingerprint` changes whenever an image may have changed and costs no reading:
it is the key of the cache of pixels. The `checksums` are of the content, the same on every machine and for a
folder, an archive and TFDS records of the same files: they are what identifies a cell in a `CellDataset.hash`.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellscan.data.images import Size, read_header, read_rgb, with_patience
from cellscan.data.reading import AS_STORED, Reading
from cellscan.errors import CellscanError, ImageError

GONE = "gone"
"""Checksum of an image that cannot be read; it is one of its own, and reading it says what is wrong."""


class Source(Protocol):
    """What a data set asks of the place its images live in."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a hash of what tells cheaply whether an image has changed; never fails for an image that is gone."""
        ...

    def checksums(self, rows: Sequence[int]) -> list[str]:
        """Return length and CRC-32 of the content of images `rows`."""
        ...

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        """Return image `row` as RGB uint8, at its own size or by the resize rule."""
        ...

    def header(self, row: int) -> tuple[int, int, str]:
        """Return width, height and format of image `row`, without decoding it."""
        ...


class FileSource:
    """Image files on disk; paths are made absolute, so that they stay the same when the working folder changes."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], reading: Reading = AS_STORED) -> None:
        self.reading: Reading = reading
        self.paths: tuple[str, ...] = tuple(os.path.abspath(path) for path in paths)
        self._known: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def _state(self, row: int) -> str:
        """Return what changes with a file: a copy of the same size and time has another inode or change time."""
        try:
            stat = os.stat(self.paths[row])
        except OSError:
            return GONE
        return f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"

    def fingerprint(self) -> str:
        return hash_lines(f"{path}|{self._state(row)}{self.reading.mark}" for row, path in enumerate(self.paths))

    def checksums(self, rows: Sequence[int]) -> list[str]:
        def one(row: int) -> str:
            state = self._state(row)
            known = self._known.get(row)
            if known is None or known[0] != state:
                known = self._known[row] = (state, checksum(self._bytes(row)) + self.reading.mark)
            return known[1]

        return in_threads(one, rows)

    def _bytes(self, row: int) -> bytes:
        try:
            return with_patience(Path(self.paths[row]).read_bytes, self.paths[row])
        except OSError as error:
            raise ImageError(f"{self.paths[row]}: the file cannot be read ({error.strerror})") from error

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self.paths[row], size, reading=self.reading)

    def header(self, row: int) -> tuple[int, int, str]:
        return header_of(lambda: self.paths[row], self.paths[row], self.reading)


class ArraySource:
    """Images held in memory as RGB uint8, read-only and of their own, with masks where they are synthetic.

    `images` may come in any form that `read_rgb` takes; `names` name them in its errors.
    """

    def __init__(
        self,
        images: Iterable[Any],
        masks: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
        reading: Reading = AS_STORED,
    ) -> None:
        self.images: tuple[np.ndarray, ...] = tuple(
            _sealed(read_rgb(image, where=f"image {row}" if names is None else names[row], reading=reading))
            for row, image in enumerate(images)
        )
        self.masks: tuple[np.ndarray, ...] | None = (
            None if masks is None else tuple(_sealed(np.array(mask)) for mask in masks)
        )
        self._sums: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for array in (*self.images, *(self.masks or ())):  # pickles forget it
            _sealed(array)

    def fingerprint(self) -> str:
        return hash_lines(self.checksums(range(len(self))))

    def checksums(self, rows: Sequence[int]) -> list[str]:
        if self._sums is None:
            sums = (f"{image.shape[0]}x{image.shape[1]}-{zlib.crc32(image.tobytes()):08x}" for image in self.images)
            self._sums = tuple(sums)
        return [self._sums[row] for row in rows]

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return self.images[row] if size is None else read_rgb(self.images[row], size, where=f"image {row}")

    def header(self, row: int) -> tuple[int, int, str]:
        height, width = self.images[row].shape[:2]
        return width, height, "array"


class RecordSource:
    """Encoded images behind a function from row to bytes, such as the records of a prepared TFDS set.

    `encoded` opens what it reads itself, and pickles.
    """

    def __init__(self, count: int, encoded: Callable[[int], bytes], identity: str) -> None:
        self._count, self._encoded, self._identity = count, encoded, identity
        self._sums: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def fingerprint(self) -> str:
        return hash_lines([self._identity])

    def checksums(self, rows: Sequence[int]) -> list[str]:
        def one(row: int) -> str:
            if row not in self._sums:
                self._sums[row] = checksum(self._bytes(row))
            return self._sums[row]

        return in_threads(one, rows)

    def _bytes(self, row: int) -> bytes:
        try:
            return with_patience(lambda: self._encoded(row), f"record {row}")
        except CellscanError:
            raise
        except Exception as error:  # readers of records raise many kinds
            raise ImageError(f"record {row}: it cannot be read ({error})") from error

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self._bytes(row), size, where=f"record {row}")

    def header(self, row: int) -> tuple[int, int, str]:
        return header_of(lambda: io.BytesIO(self._bytes(row)), f"record {row}")


def checksum(data: bytes) -> str:
    """Return length and CRC-32 of some bytes, as an archive states them.

    Examples
    --------
    >>> from cellscan.data.sources import checksum
    >>> checksum(b"cell")
    '4-cb8787e2'
    """
    return f"{len(data)}-{zlib.crc32(data):08x}"


def hash_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of some lines."""
    # File names need not be UTF-8: what is not is kept as surrogates, which plain UTF-8 refuses.
    text = "".join(f"{line}\n" for line in lines)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def in_threads(checksum_of: Callable[[int], str], rows: Sequence[int]) -> list[str]:
    """Return the checksum of each row, on all cores; `GONE` of an image that cannot be read."""

    def some(rows: Sequence[int]) -> list[str]:
        return [one(row) for row in rows]

    def one(row: int) -> str:
        try:
            return checksum_of(row)
        except ImageError:
            return GONE

    with ThreadPoolExecutor() as pool:
        chunks = pool.map(some, (rows[start : start + 256] for start in range(0, len(rows), 256)))
        return [found for chunk in chunks for found in chunk]


def _sealed(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def header_of(opened: Callable[[], Any], where: str, reading: Reading = AS_STORED) -> tuple[int, int, str]:
    """Return width, height and format of a file, or of what an open file holds."""
    if reading.chooses:  # a page that Pillow need not know
        height, width = read_rgb(opened(), where=where, reading=reading).shape[:2]
        try:
            return width, height, header_of(opened, where)[2]
        except ImageError:
            return width, height, "TIFF"
    try:
        return with_patience(lambda: read_header(opened()), where)
    except CellscanError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{where}: there is no such file") from error
    except Exception as error:  # damaged bytes may raise anything
        raise ImageError(f"{where}: this is not an image of a known format") from error
