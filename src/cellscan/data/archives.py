"""Zip and tar archives: which images are in one, under which names, and sources that read them in place.

Names mean the same in every archive: slashes of Windows and ``./`` are put right, hidden files are passed over, two
files of one name must be the same to the byte, and a name that leads out of the archive is refused. A link counts as
the file or folder of the archive that it points to; one that points elsewhere is not read.

Members of a zip, and of a tar that is not compressed, are read where they lie. A compressed tar can only be read from
its start, so its images are unpacked once, into one file of the cache folder, which is kept and checked as decoded
pixels are. Nothing is ever written under a name that an archive gives.
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
"""Bytes of a member of an archive, unpacked, beyond which it is refused before it is unpacked."""

_HEADER_LIMIT = 2**24
"""Bytes that the headers of one member of a tar may take; tarfile reads them into memory at once."""

_LINK_LIMIT = 4096
"""Bytes of the target of a link."""

_CHUNK = 2**24

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
"""Of threads that want members of a compressed tar, one unpacks it."""


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)  # a thread that is not in the child may have held it


class TarMember(NamedTuple):
    """A file of a tar: its name, where its bytes begin in the tar (unpacked, where it is compressed), and how many."""

    filename: str
    offset: int
    size: int


Member: TypeAlias = "zipfile.ZipInfo | TarMember"


@dataclass(frozen=True)
class Archive:
    """The images of an archive by path, the files that are not read, and how its members are reached."""

    path: Path
    members: dict[str, Member]
    others: tuple[str, ...]
    tar: TarReader | None  # None: a zip

    def source(self, paths: Sequence[str], reading: Reading = AS_STORED) -> ZipSource | TarSource:
        """Return a source of these images, in this order."""
        members: list[Any] = [self.members[path] for path in paths]
        return ZipSource(self.path, members, reading) if self.tar is None else TarSource(self.tar, members, reading)


def list_archive(path: Path) -> Archive:
    """List a zip or a tar, compressed by gzip, bzip2, xz or not at all, or raise `DataError`.

    What it is is told by its first bytes, not by its name. A compressed tar is read through once.
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
        f"{path}: this is no folder, no whole zip archive and no tar; what is read: zip, tar, tar.gz, tar.bz2, tar.xz"
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
    except Exception as error:  # damaged bytes may raise anything
        raise DataError(f"{path}: this is no whole zip archive ({error}). Was the download complete?") from error
    for name, members in entries.repeated():
        if len({(info.file_size, info.CRC) for info in cast("list[zipfile.ZipInfo]", members)}) > 1:
            raise _differ(path, name)
    return Archive(path, *entries.sorted(), None)


def _list_tar(path: Path, packed: bool) -> Archive:
    entries = _Entries(path)
    try:
        state = _state(os.stat(path))
        with _unpacked(path, packed) as file:
            # Without a mode that seeks backwards: of a compressed file that would read it again from its start.
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
            # tarfile takes a header that it does not understand for the end, and a missing end for one.
            file.seek(end)
            if file.read(512) != bytes(512):
                raise tarfile.ReadError("it breaks off, or its headers are damaged")
            while file.read(_CHUNK):  # a compressed file has its checksum behind its end
                pass
    except CellscanError:
        raise
    except Exception as error:  # damaged bytes may raise anything
        raise DataError(f"{path}: this is no whole tar archive ({error}). Was the download complete?") from error
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
    return DataError(f"{path}: two members are named {name!r} and differ; write the archive anew with one of them")


class _Entries:
    """The files and links of an archive, under names put right, as they are met."""

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
        """Note a link; a hard one gives its target from the root of the archive, a symbolic one from its own folder."""
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
        """Return a name with slashes, ``""`` where it is hidden; one that leads out of the archive is an error."""
        # Some programs write Windows' slashes, or "./" before every name.
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts:
            raise DataError(
                f"{self.path}: the member {name!r} leads out of the archive; write the archive anew from its own folder"
            )
        hidden = not parts or any(part.startswith((".", "__MACOSX")) for part in parts)
        return "" if hidden else "/".join(parts)

    def repeated(self) -> Iterator[tuple[str, list[Member]]]:
        """Yield the images that stand in the archive more than once."""
        for name, members in self.files.items():
            if len(members) > 1 and is_image_name(name):
                yield name, members

    def sorted(self) -> tuple[dict[str, Member], tuple[str, ...]]:
        """Return images by name, and what is not read."""
        found = {name: members[0] for name, members in self.files.items()}
        for name, (_, target) in self.links.items():
            if name in self.files:
                raise _differ(self.path, name)
            reached = self._follow(name)
            if reached in self.files:
                found[name] = self.files[reached][0]
                continue
            below = [path for path in self.files if path.startswith(f"{reached}/")] if reached else []
            if f"{name}/".startswith(f"{reached}/"):  # a folder that the link is in: a loop
                continue
            for path in below:
                found[f"{name}/{path[len(reached) + 1 :]}"] = self.files[path][0]
            if not below:
                self.others.append(f"{name} (a link to {target})")
        images = {name: member for name, member in found.items() if is_image_name(name)}
        others = [name for name in found if name not in images and not is_litter(name.rsplit("/", 1)[-1])]
        return images, tuple(sorted(others + self.others))

    def _follow(self, name: str) -> str:
        """Return the path that a link leads to, through links of files and of folders; ``""`` for a circle."""
        for _ in range(40):
            parts = name.split("/")
            at = next((end for end in range(1, len(parts) + 1) if "/".join(parts[:end]) in self.links), None)
            if at is None:
                return name
            name = posixpath.normpath(posixpath.join(self.links["/".join(parts[:at])][0], *parts[at:]))
        return ""


class _Bounded:
    """What tarfile reads headers through: a damaged or hostile one cannot ask for all memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {size:,} bytes; the limit is {_HEADER_LIMIT:,}")
        return self._read(size)


def _unpacked(path: Path, packed: bool) -> IO[bytes]:
    """Open a tar as it is without compression."""
    if not packed:
        return open(path, "rb")
    with open(path, "rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in _COMPRESSED if start.startswith(magic)), None)
    if opener is None:
        raise tarfile.ReadError("it is not compressed any more")
    return cast("IO[bytes]", opener(path, "rb"))


def _state(found: os.stat_result) -> str:
    """Return what changes with a file."""
    return f"{found.st_size}|{found.st_mtime_ns}|{found.st_ctime_ns}|{found.st_ino}"


class ZipSource:
    """Members of a zip archive, read in place: the archive is opened once a process and never unpacked."""

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
        # A forked child shares the position in the file with its parent, so that both would read at the wrong place.
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
            raise ImageError(f"{where}: there is no such archive (any more)") from error
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
    """Reads members of a tar in any order; keeps no file open, so that it pickles and works in a forked process.

    Attributes
    ----------
    archive : Path
    state : str
        Of the file when it was listed; members of another file are never read by its offsets.
    packed : bool
        Whether it is compressed; its images are then unpacked when the first is asked for.
    spans : tuple
        Offset and size of each of its images that is not too large, by offset.
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
            raise ImageError(f"{where}: there is no such archive (any more)") from error
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
        """Return length and CRC-32 of members."""
        return [checksum(self.read(member)) for member in members]

    def _check(self, found: os.stat_result) -> None:
        if _state(found) != self.state:
            raise ImageError(f"{self.archive}: the archive changed after it was listed; load it again")

    def _open(self, offset: int) -> tuple[np.ndarray, int]:
        """Return the unpacked images, one behind the other, and where in them the one at `offset` of the tar begins."""
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
        """Yield the bytes of all images, in one walk from the start of the archive to its end."""
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
    """Members of a tar archive, read by one `TarReader`."""

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
        def one(row: int) -> str:
            if row not in self._sums:
                self._sums[row] = checksum(self.tar.read(self.members[row])) + self.reading.mark
            return self._sums[row]

        return in_threads(one, rows)

    def _where(self, row: int) -> str:
        return f"{self.tar.archive}:{self.members[row].filename}"

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        return read_rgb(self.tar.read(self.members[row]), size, where=self._where(row), reading=self.reading)

    def header(self, row: int) -> tuple[int, int, str]:
        return header_of(lambda: io.BytesIO(self.tar.read(self.members[row])), self._where(row), self.reading)


def _check_length(length: int, where: str) -> None:
    if length > MEMBER_LIMIT:
        raise ImageError(f"{where}: {length:,} bytes unpacked; the limit is {MEMBER_LIMIT:,}")
