"""Read images from zip and tar archives in place.

All archives are treated alike. Windows' backslashes become slashes, and ``./`` is removed. Hidden files are ignored.
Files with the same name must be byte-identical. Names that lead out of the archive are refused. A link is read as the
file or folder of the archive that it points to; links to other targets are not read.

Members of a zip archive, and of an uncompressed tar, are read in place. A compressed tar can only be read from its
start, so its images are unpacked once, into one file of the cache folder, with the same checks as decoded pixels. No
file is ever written under a name from an archive.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias, cast

import numpy as np

from cellscan.data.cache import cache_folder, keep, open_kept
from cellscan.data.images import PIXEL_LIMIT, Size, is_image_name, is_litter, read_rgb, with_patience
from cellscan.data.reading import AS_STORED, Reading
from cellscan.data.sources import checksum, hash_lines, header_of, in_threads
from cellscan.errors import CellscanError, DataError, ImageError

MEMBER_LIMIT = 4 * PIXEL_LIMIT
"""Largest number of unpacked bytes of a member; larger members are refused before they are unpacked."""

_HEADER_LIMIT = 2**24
"""Largest number of bytes of the headers of one member of a tar; tarfile reads them into memory at once."""

_LINK_LIMIT = 4096
"""Largest number of bytes of the target of a link."""

_CHUNK = 2**24
"""Number of bytes that are read at once."""

_COMPRESSED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)

_lock = threading.Lock()
"""Lets one thread at a time unpack compressed tars, so that none is unpacked twice."""


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A thread that does not exist in the child process may have held the lock.
os.register_at_fork(after_in_child=_new_lock)


class TarMember(NamedTuple):
    """A file of a tar: its name, the offset of its bytes in the uncompressed tar, and their number."""

    filename: str
    offset: int
    size: int


Member: TypeAlias = "zipfile.ZipInfo | TarMember"


@dataclass(frozen=True)
class Archive:
    """The files of an archive.

    Attributes
    ----------
    path : Path
        The archive.
    members : dict[str, Member]
        The images, by path.
    others : tuple[str, ...]
        Files that are not read.
    tar : TarReader or None
        The reader of a tar; None for a zip.
    """

    path: Path
    members: dict[str, Member]
    others: tuple[str, ...]
    tar: TarReader | None

    def source(self, paths: Sequence[str], reading: Reading = AS_STORED) -> ZipSource | TarSource:
        """Return a source of these images, in this order."""
        members: list[Any] = [self.members[path] for path in paths]
        return ZipSource(self.path, members, reading) if self.tar is None else TarSource(self.tar, members, reading)


def list_archive(path: Path) -> Archive:
    """List the files of a zip, or of a tar that is compressed by gzip, bzip2, xz or not at all.

    The format is recognised by the first bytes and the name. A compressed tar is read once to its end. Raises
    `DataError` if the file is not such an archive, or is damaged.
    """
    path = path.absolute()
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{path}: the archive cannot be read ({error.strerror})") from error
    if start.startswith(b"PK") or path.suffix.casefold() == ".zip":
        return _list_zip(path)
    packed = any(start.startswith(magic) for magic, _ in _COMPRESSED)
    if packed or ".tar" in path.name.casefold() or tarfile.is_tarfile(path):
        return _list_tar(path, packed)
    raise DataError(
        f"{path}: this is not a folder, not a valid zip archive and not a tar; expected a folder, or zip, tar, "
        "tar.gz, tar.bz2, tar.xz"
    )


def _list_zip(path: Path) -> Archive:
    entries = _Entries(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(("/", "\\")):
                    continue
                if stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= _LINK_LIMIT:
                    entries.link(info.filename, os.fsdecode(archive.read(info)))
                else:
                    entries.file(info.filename, info)
    except CellscanError:
        raise
    except Exception as error:  # Damaged bytes raise many types of errors.
        raise DataError(f"{path}: this is not a valid zip archive ({error}). Was the download complete?") from error
    for name, members in entries.repeated():
        if len({(info.file_size, info.CRC) for info in cast("list[zipfile.ZipInfo]", members)}) > 1:
            raise _differ(path, name)
    return Archive(path, *entries.sorted(), None)


def _list_tar(path: Path, packed: bool) -> Archive:
    entries = _Entries(path)
    try:
        state = _state(os.stat(path))
        with _unpacked(path, packed) as file:
            # The mode "r:" does not seek backwards, which would read a compressed file again from its start.
            with tarfile.open(fileobj=cast("IO[bytes]", _Bounded(file)), mode="r:") as archive:
                for info in archive:
                    if info.issparse():
                        entries.other(info.name, "a sparse file: write the archive without --sparse")
                    elif info.isreg():
                        entries.file(info.name, TarMember(info.name, info.offset_data, info.size))
                    elif info.issym():
                        entries.link(info.name, info.linkname)
                    elif info.islnk():
                        entries.link(info.name, info.linkname, hard=True)
                    elif not info.isdir():
                        entries.other(info.name, "no file")
                end = archive.offset
            # tarfile stops without an error at a damaged header, and where the end of the archive is missing.
            file.seek(end)
            if file.read(512) != bytes(512):
                raise tarfile.ReadError("it breaks off, or its headers are damaged")
            while file.read(_CHUNK):  # Reading to the end verifies the checksum of a compressed file.
                pass
    except CellscanError:
        raise
    except Exception as error:  # Damaged bytes raise many types of errors.
        raise DataError(f"{path}: this is not a valid tar archive ({error}). Was the download complete?") from error
    images, others = entries.sorted()
    members = {*images.values(), *(member for _, copies in entries.repeated() for member in copies)}
    spans = {(member.offset, member.size) for member in cast("Iterable[TarMember]", members)}
    reader = TarReader(path, state, packed, tuple(sorted(span for span in spans if span[1] <= MEMBER_LIMIT)))
    for name, copies in entries.repeated():
        tars = cast("list[TarMember]", copies)
        if len({member.size for member in tars}) > 1 or len(set(reader.checksums(tars))) > 1:
            raise _differ(path, name)
    return Archive(path, images, others, reader)


def _differ(path: Path, name: str) -> DataError:
    return DataError(f"{path}: two members are named {name!r} and differ; write the archive again with one of them")


class _Entries:
    """Collects the files and links of an archive, with normalised names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, list[Member]] = {}
        self.links: dict[str, tuple[str, str]] = {}
        self.others: list[str] = []

    def file(self, name: str, member: Member) -> None:
        path = self._right(name)
        if path:
            self.files.setdefault(path, []).append(member)

    def link(self, name: str, target: str, *, hard: bool = False) -> None:
        """Add a link; the target of a hard link is relative to the archive, that of a symbolic link to its folder."""
        path = self._right(name)
        if path:
            target = target.replace("\\", "/")
            where = posixpath.normpath(target if hard else posixpath.join(posixpath.dirname(path), target))
            self.links[path] = (where, target)

    def other(self, name: str, why: str) -> None:
        path = self._right(name)
        if path:
            self.others.append(f"{path} ({why})")

    def _right(self, name: str) -> str:
        """Return a normalised name, or ``""`` for a hidden file; raise `DataError` if it leads out of the archive."""
        # Some programs write backslashes, or "./" before every name.
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts:
            raise DataError(
                f"{self.path}: the member {name!r} leads out of the archive; write the archive again from the folder "
                "of the images"
            )
        hidden = not parts or any(part.startswith((".", "__MACOSX")) for part in parts)
        return "" if hidden else "/".join(parts)

    def repeated(self) -> Iterator[tuple[str, list[Member]]]:
        """Yield the images that occur in the archive more than once."""
        for name, members in self.files.items():
            if len(members) > 1 and is_image_name(name):
                yield name, members

    def sorted(self) -> tuple[dict[str, Member], tuple[str, ...]]:
        """Return the images by name, and the names of the files that are not read."""
        by_name = {name: members[0] for name, members in self.files.items()}
        for name, (_, target) in self.links.items():
            if name in self.files:
                raise _differ(self.path, name)
            reached = self._follow(name)
            if reached in self.files:
                by_name[name] = self.files[reached][0]
                continue
            below = [path for path in self.files if path.startswith(f"{reached}/")] if reached else []
            if f"{name}/".startswith(f"{reached}/"):  # The link points to a folder that contains it.
                continue
            for path in below:
                by_name[f"{name}/{path[len(reached) + 1 :]}"] = self.files[path][0]
            if not below:
                self.others.append(f"{name} (a link to {target})")
        images = {name: member for name, member in by_name.items() if is_image_name(name)}
        others = [name for name in by_name if name not in images and not is_litter(name.rsplit("/", 1)[-1])]
        return images, tuple(sorted(others + self.others))

    def _follow(self, name: str) -> str:
        """Return the path that a link leads to, through links of files and folders; ``""`` for circular links."""
        for _ in range(40):
            parts = name.split("/")
            depth = next((end for end in range(1, len(parts) + 1) if "/".join(parts[:end]) in self.links), None)
            if depth is None:
                return name
            name = posixpath.normpath(posixpath.join(self.links["/".join(parts[:depth])][0], *parts[depth:]))
        return ""


class _Bounded:
    """A file for tarfile that limits the size of headers, so that a damaged or hostile one cannot fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {size:,} bytes; the limit is {_HEADER_LIMIT:,}")
        return self._read(size)


def _unpacked(path: Path, packed: bool) -> IO[bytes]:
    """Open a tar for reading its uncompressed bytes."""
    if not packed:
        return open(path, "rb")
    with open(path, "rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in _COMPRESSED if start.startswith(magic)), None)
    if opener is None:
        raise tarfile.ReadError("it is no longer compressed")
    return cast("IO[bytes]", opener(path, "rb"))


def _state(found: os.stat_result) -> str:
    """Return text that changes with a file: size, times and inode."""
    return f"{found.st_size}|{found.st_mtime_ns}|{found.st_ctime_ns}|{found.st_ino}"


class ZipSource:
    """Members of a zip archive, read in place. Each process opens the archive once, and never unpacks it."""

    def __init__(self, archive: Path, members: Sequence[zipfile.ZipInfo], reading: Reading = AS_STORED) -> None:
        self.reading: Reading = reading
        self.archive: Path = archive
        self.members: tuple[zipfile.ZipInfo, ...] = tuple(members)
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.members)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _zip(self) -> zipfile.ZipFile:
        # A forked process shares the file position with its parent; both would read from the wrong position.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.archive)
        return self._opened[1]

    def fingerprint(self) -> str:
        return hash_lines(f"{m.filename}|{m.file_size}|{m.CRC}{self.reading.mark}" for m in self.members)

    def checksums(self, rows: Sequence[int]) -> list[str]:
        members = (self.members[row] for row in rows)
        return [f"{member.file_size}-{member.CRC:08x}{self.reading.mark}" for member in members]

    def _bytes(self, row: int) -> bytes:
        member, where = self.members[row], self._where(row)
        _check_length(member.file_size, where)
        try:
            return with_patience(lambda: self._zip().read(member), where)
        except FileNotFoundError as error:
            raise ImageError(f"{where}: the archive no longer exists") from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError) as error:
            raise ImageError(f"{where}: the archive is damaged here ({error})") from error

    def _where(self, row: int) -> str:
        return f"{self.archive}:{self.members[row].filename}"

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self._bytes(row), size, where=self._where(row), reading=self.reading)

    def header(self, row: int) -> tuple[int, int, str]:
        return header_of(lambda: io.BytesIO(self._bytes(row)), self._where(row), self.reading)


@dataclass(eq=False)
class TarReader:
    """Reads members of a tar in any order. It keeps no file open, so that it can be pickled and forked.

    Attributes
    ----------
    archive : Path
        The tar.
    state : str
        Size, times and inode of the file when it was listed; if they change, reading a member raises `ImageError`.
    packed : bool
        Whether the tar is compressed. Reading the first image then unpacks all images.
    spans : tuple
        Offset and size of each image that is not too large, sorted by offset.
    """

    archive: Path
    state: str
    packed: bool
    spans: tuple[tuple[int, int], ...]
    _starts: dict[int, int] | None = field(default=None, repr=False)
    _map: np.ndarray | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_starts": None}

    def read(self, member: TarMember) -> bytes:
        """Return the bytes of a member, or raise `ImageError`."""
        where = f"{self.archive}:{member.filename}"
        _check_length(member.size, where)
        try:
            return with_patience(lambda: self._read(member, where), where)
        except FileNotFoundError as error:
            raise ImageError(f"{where}: the archive no longer exists") from error
        except OSError as error:
            raise ImageError(f"{where}: the archive cannot be read ({error.strerror or error})") from error

    def _read(self, member: TarMember, where: str) -> bytes:
        if self.packed:
            self._check(os.stat(self.archive))
            unpacked, start = self._open(member.offset)
            return unpacked[start : start + member.size].tobytes()
        with open(self.archive, "rb", buffering=0) as file:
            self._check(os.fstat(file.fileno()))
            data = bytearray()
            while len(data) < member.size:
                file.seek(member.offset + len(data))
                piece = file.read(member.size - len(data))
                if not piece:
                    raise ImageError(f"{where}: the archive breaks off here")
                data += piece
            return bytes(data)

    def checksums(self, members: Sequence[TarMember]) -> list[str]:
        """Return the length and the CRC-32 of each member."""
        return [checksum(self.read(member)) for member in members]

    def _check(self, found: os.stat_result) -> None:
        if _state(found) != self.state:
            raise ImageError(f"{self.archive}: the archive changed after it was listed; load it again")

    def _open(self, offset: int) -> tuple[np.ndarray, int]:
        """Return the bytes of all unpacked images, and the index in them of the image at `offset` of the tar."""
        with _lock:
            if self._map is None or self._starts is None:
                ends = np.cumsum([0, *(size for _, size in self.spans)]).tolist()
                self._starts = {offset: start for (offset, _), start in zip(self.spans, ends, strict=False)}
                self._map = self._unpack(int(ends[-1]))
            return self._map, self._starts[offset]

    def _unpack(self, total: int) -> np.ndarray:
        if not total:
            return np.zeros(0, np.uint8)
        lines = (str(self.archive), self.state, *(f"{offset}|{size}" for offset, size in self.spans))
        name = f"{hash_lines(lines)[:32]}-{total}.members"
        for _ in range(3):
            kept = open_kept(name, (total,))
            if kept is not None:
                return kept[0]
            keep(name, (total,), self._pieces(), [])
        raise DataError(f"{cache_folder() / name} vanished or changed while it was written; call again")

    def _pieces(self) -> Iterator[np.ndarray]:
        """Yield the bytes of all images, in one pass from the start of the archive to its end."""
        try:
            with _unpacked(self.archive, self.packed) as file:
                for offset, size in self.spans:
                    file.seek(offset)
                    while size:
                        piece = file.read(min(size, _CHUNK))
                        if not piece:
                            raise EOFError("it breaks off")
                        size -= len(piece)
                        yield np.frombuffer(piece, np.uint8)
                self._check(os.stat(self.archive))
        except CellscanError:
            raise
        except _DAMAGE as error:
            raise DataError(f"{self.archive}: the archive cannot be unpacked ({error}); load it again") from error


class TarSource:
    """Members of a tar archive, read with one `TarReader`."""

    def __init__(self, tar: TarReader, members: Sequence[TarMember], reading: Reading = AS_STORED) -> None:
        self.reading: Reading = reading
        self.tar: TarReader = tar
        self.members: tuple[TarMember, ...] = tuple(members)
        self._sums: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.members)

    def fingerprint(self) -> str:
        members = (f"{member.offset}|{member.size}" for member in self.members)
        return hash_lines([str(self.tar.archive), self.tar.state + self.reading.mark, *members])

    def checksums(self, rows: Sequence[int]) -> list[str]:
        def checksum_of(row: int) -> str:
            if row not in self._sums:
                self._sums[row] = checksum(self.tar.read(self.members[row])) + self.reading.mark
            return self._sums[row]

        return in_threads(checksum_of, rows)

    def _where(self, row: int) -> str:
        return f"{self.tar.archive}:{self.members[row].filename}"

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self.tar.read(self.members[row]), size, where=self._where(row), reading=self.reading)

    def header(self, row: int) -> tuple[int, int, str]:
        return header_of(lambda: io.BytesIO(self.tar.read(self.members[row])), self._where(row), self.reading)


def _check_length(length: int, where: str) -> None:
    if length > MEMBER_LIMIT:
        raise ImageError(f"{where}: the member has {length:,} bytes unpacked; the limit is {MEMBER_LIMIT:,}")
