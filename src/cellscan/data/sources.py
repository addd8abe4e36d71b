"""Sources of the images of a data set: files, arrays, TFDS records, and several sources joined to one.

A source is an immutable list of images that can be opened in any order from several threads. It can be pickled and
copied, without open files, and works in a forked process.

It identifies its images in two ways. The `fingerprint` changes if an image may have changed, and needs no reading of
files; it is the key of the pixel cache. The `checksums` identify the content of each image. They are the same on every
machine, and for a folder, an archive and TFDS records of the same files; `CellDataset.hash` contains them.
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
"""Checksum of an image that cannot be read; reading the image raises the reason."""


class Source(Protocol):
    """The interface of a source: a list of images that a data set can read."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a hash that changes if an image may have changed; images that are missing raise no error."""
        ...

    def checksums(self, rows: Sequence[int]) -> list[str]:
        """Return length and CRC-32 of the content of images `rows`."""
        ...

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        """Return image `row` as RGB uint8 (H, W, 3), at its stored size, or resized if `size` is given."""
        ...

    def header(self, row: int) -> tuple[int, int, str]:
        """Return width, height and format of image `row`, without decoding it."""
        ...


class FileSource:
    """Image files on disk. Paths are made absolute, so that they stay valid when the working folder changes."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], reading: Reading = AS_STORED) -> None:
        self.reading: Reading = reading
        self.paths: tuple[str, ...] = tuple(os.path.abspath(path) for path in paths)
        self._known: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def _state(self, row: int) -> str:
        """Return text that changes with a file; the inode and change time detect copies of the same size and time."""
        try:
            stat = os.stat(self.paths[row])
        except OSError:
            return GONE
        return f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"

    def fingerprint(self) -> str:
        return hash_lines(f"{path}|{self._state(row)}{self.reading.mark}" for row, path in enumerate(self.paths))

    def checksums(self, rows: Sequence[int]) -> list[str]:
        def checksum_of(row: int) -> str:
            state = self._state(row)
            known = self._known.get(row)
            if known is None or known[0] != state:
                known = self._known[row] = (state, checksum(self._bytes(row)) + self.reading.mark)
            return known[1]

        return in_threads(checksum_of, rows)

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
    """Images in memory: read-only RGB uint8 copies, with masks if they are synthetic.

    `images` may have any form that `read_rgb` accepts; `names` appear in its error messages.
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
        for array in (*self.images, *(self.masks or ())):  # A pickle does not store that an array is read-only.
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
    """Encoded images that a function returns as bytes, such as the records of a prepared TFDS set.

    `encoded` opens its files itself, and can be pickled.
    """

    def __init__(self, count: int, encoded: Callable[[int], bytes], identity: str) -> None:
        self._count, self._encoded, self._identity = count, encoded, identity
        self._sums: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def fingerprint(self) -> str:
        return hash_lines([self._identity])

    def checksums(self, rows: Sequence[int]) -> list[str]:
        def checksum_of(row: int) -> str:
            if row not in self._sums:
                self._sums[row] = checksum(self._bytes(row))
            return self._sums[row]

        return in_threads(checksum_of, rows)

    def _bytes(self, row: int) -> bytes:
        try:
            return with_patience(lambda: self._encoded(row), f"record {row}")
        except CellscanError:
            raise
        except Exception as error:  # Readers of records raise many types of errors.
            raise ImageError(f"record {row}: the record cannot be read ({error})") from error

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self._bytes(row), size, where=f"record {row}")

    def header(self, row: int) -> tuple[int, int, str]:
        return header_of(lambda: io.BytesIO(self._bytes(row)), f"record {row}")


class JoinedSource:
    """Rows of several sources, one after another.

    Parameters
    ----------
    sources : sequence of Source
    rows : sequence of (n,) int
        For each source, the rows of its images, in any order.
    """

    def __init__(self, sources: Sequence[Source], rows: Sequence[np.ndarray]) -> None:
        self.sources: tuple[Source, ...] = tuple(sources)
        self.where: tuple[tuple[int, int], ...] = tuple(
            (number, int(row)) for number, source_rows in enumerate(rows) for row in source_rows
        )

    def __len__(self) -> int:
        return len(self.where)

    def fingerprint(self) -> str:
        return f"{'|'.join(source.fingerprint() for source in self.sources)}|{self.where}"

    def checksums(self, rows: Sequence[int]) -> list[str]:
        checksums = [""] * len(rows)
        for number, source in enumerate(self.sources):
            positions = [position for position, row in enumerate(rows) if self.where[row][0] == number]
            source_checksums = source.checksums([self.where[rows[position]][1] for position in positions])
            for position, checksum in zip(positions, source_checksums, strict=True):
                checksums[position] = checksum
        return checksums

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        number, source_row = self.where[row]
        return self.sources[number].read(source_row, size)

    def header(self, row: int) -> tuple[int, int, str]:
        number, source_row = self.where[row]
        return self.sources[number].header(source_row)


def path_of(source: Source, row: int) -> str | None:
    """Return the path of the file of an image, or None if the image is not a file of its own.

    Examples
    --------
    >>> from cellscan.data.sources import FileSource, path_of
    >>> path_of(FileSource(["/a.png"]), 0)
    '/a.png'
    """
    if isinstance(source, JoinedSource):
        number, row = source.where[row]
        return path_of(source.sources[number], row)
    return source.paths[row] if isinstance(source, FileSource) else None


def checksum(data: bytes) -> str:
    """Return the length and the CRC-32 of some bytes; a zip archive stores the same numbers.

    Examples
    --------
    >>> from cellscan.data.sources import checksum
    >>> checksum(b"cell")
    '4-cb8787e2'
    """
    return f"{len(data)}-{zlib.crc32(data):08x}"


def hash_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of some lines, as hexadecimal digits."""
    # File names may contain bytes that are not UTF-8; Python keeps them as surrogates, which plain UTF-8 refuses.
    text = "".join(f"{line}\n" for line in lines)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def in_threads(checksum_of: Callable[[int], str], rows: Sequence[int]) -> list[str]:
    """Return the checksum of each row, computed on all cores; `GONE` for images that cannot be read."""

    def checksums_of(rows: Sequence[int]) -> list[str]:
        return [checksum_or_gone(row) for row in rows]

    def checksum_or_gone(row: int) -> str:
        try:
            return checksum_of(row)
        except ImageError:
            return GONE

    with ThreadPoolExecutor() as pool:
        chunks = pool.map(checksums_of, (rows[start : start + 256] for start in range(0, len(rows), 256)))
        return [text for chunk in chunks for text in chunk]


def _sealed(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def header_of(opened: Callable[[], Any], where: str, reading: Reading = AS_STORED) -> tuple[int, int, str]:
    """Return width, height and format of an image.

    Parameters
    ----------
    opened : callable
        Returns the path of the image, or a new open file of it.
    where : str
        Name of the image in error messages.
    reading : Reading
        The page to read, if not the first.

    Raises
    ------
    ImageError
        If the image cannot be read.
    """
    if reading.chooses:  # Pillow may not be able to open the chosen page.
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
    except Exception as error:  # Damaged bytes raise many types of errors.
        raise ImageError(f"{where}: this is not an image of a known format") from error
