"""The images of a folder or a zip archive, by path; and a source of some of them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellscan.data.images import is_image_name, is_litter, list_folder
from cellscan.data.sources import FileSource, ZipSource
from cellscan.errors import DataError


@dataclass(frozen=True)
class Listing:
    """What lies below a folder or in an archive: paths with slashes, relative to it."""

    root: Path
    images: tuple[str, ...]
    others: tuple[str, ...]  # files that are not read
    members: dict[str, zipfile.ZipInfo] | None  # of an archive

    def source(self, paths: Sequence[str]) -> FileSource | ZipSource:
        """Return a source of these images, in this order."""
        if self.members is None:
            return FileSource([os.path.join(self.root, path) for path in paths])
        return ZipSource(self.root, [self.members[path] for path in paths])


def list_images(root: Path) -> Listing:
    """List a folder or a zip archive, or raise `DataError` where it is neither."""
    if root.is_dir():
        images, others = list_folder(root)
        return Listing(root.absolute(), tuple(images), tuple(others), None)
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive")
    try:
        with zipfile.ZipFile(root) as archive:
            infos = archive.infolist()
    except Exception as error:  # damaged bytes may raise anything
        raise DataError(f"{root}: this is no whole zip archive ({error}). Was the download complete?") from error
    members: dict[str, zipfile.ZipInfo] = {}
    others = []
    for info in infos:
        # Some programs write Windows' slashes, or "./" before every name.
        parts = [part for part in info.filename.replace("\\", "/").split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if info.filename.endswith(("/", "\\")) or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if not is_image_name(name):
            others += [] if is_litter(parts[-1]) else [name]
            continue
        same = members.setdefault(name, info)
        if (same.file_size, same.CRC) != (info.file_size, info.CRC):
            raise DataError(
                f"{root}: two members are named {name!r} and differ; write the archive anew with one of them"
            )
    return Listing(root.absolute(), tuple(members), tuple(others), members)
