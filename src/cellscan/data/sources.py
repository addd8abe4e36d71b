"""Where the pixels of a data set come from: files, members of an archive, arrays, TFDS records.

A source is an immutable list of images that can be opened in any order from several threads, and a
fingerprint that changes when an image does.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellscan.data.images import Size, read_header, read_rgb
from cellscan.errors import ImageError


class Source(Protocol):
    """What a data set asks of the place its images live in."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a hash of what identifies every image: its name and size, and a CRC or a modification time."""
        ...

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        """Return image `row` as RGB uint8, at its own size or by the resize rule."""
        ...

    def header(self, row: int) -> tuple[int, int, str]:
        """Return width, height and format of image `row`, without decoding it."""
        ...


class FileSource:
    """Image files on disk."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths: tuple[str, ...] = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self.paths:
            try:
                stat = os.stat(path)
            except OSError as error:
                raise ImageError(f"{path}: there is no such file (any more)") from error
            digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self.paths[row], size)

    def header(self, row: int) -> tuple[int, int, str]:
        return _header(self.paths[row], self.paths[row])


class ZipSource:
    """Members of a zip archive, read in place: the archive is opened once and never unpacked."""

    def __init__(self, archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
        self.archive: Path = archive
        self.members: tuple[zipfile.ZipInfo, ...] = tuple(members)
        self._zip = zipfile.ZipFile(archive)

    def __len__(self) -> int:
        return len(self.members)

    def fingerprint(self) -> str:
        lines = (f"{m.filename}|{m.file_size}|{m.CRC}\n" for m in self.members)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _bytes(self, row: int) -> io.BytesIO:
        member = self.members[row]
        try:
            return io.BytesIO(self._zip.read(member))
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
            raise ImageError(f"{self._where(row)}: the archive is damaged here ({error})") from error

    def _where(self, row: int) -> str:
        return f"{self.archive}:{self.members[row].filename}"

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self._bytes(row), size, where=self._where(row))

    def header(self, row: int) -> tuple[int, int, str]:
        return _header(self._bytes(row), self._where(row))


class ArraySource:
    """Images held in memory, with masks where somebody painted them."""

    def __init__(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray] | None = None) -> None:
        self.images: tuple[np.ndarray, ...] = tuple(images)
        self.masks: tuple[np.ndarray, ...] | None = None if masks is None else tuple(masks)

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        lines = (f"{image.shape}|{zlib.crc32(image.tobytes())}\n" for image in self.images)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self.images[row], size, where=f"image {row}")

    def header(self, row: int) -> tuple[int, int, str]:
        height, width = self.images[row].shape[:2]
        return width, height, "array"


class RecordSource:
    """Encoded images behind a function from row to bytes, such as the records of a prepared TFDS set."""

    def __init__(self, count: int, encoded: Callable[[int], bytes], identity: str) -> None:
        self._count, self._encoded, self._identity = count, encoded, identity

    def __len__(self) -> int:
        return self._count

    def fingerprint(self) -> str:
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(io.BytesIO(self._encoded(row)), size, where=f"record {row}")

    def header(self, row: int) -> tuple[int, int, str]:
        return _header(io.BytesIO(self._encoded(row)), f"record {row}")


def _header(file: Any, where: str) -> tuple[int, int, str]:
    try:
        return read_header(file)
    except Exception as error:  # damaged bytes may raise anything
        raise ImageError(f"{where}: this is not an image of a known format") from error
