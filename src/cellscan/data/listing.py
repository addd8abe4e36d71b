"""The images of a folder or of an archive, by path; and a source of some of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellscan.data.archives import Archive, list_archive
from cellscan.data.images import list_folder
from cellscan.data.reading import AS_STORED, Reading
from cellscan.data.sources import FileSource, Source
from cellscan.errors import DataError


@dataclass(frozen=True)
class Listing:
    """What lies below a folder or in an archive: paths with slashes, relative to it."""

    root: Path
    images: tuple[str, ...]
    others: tuple[str, ...]  # files that are not read
    archive: Archive | None

    def source(self, paths: Sequence[str], reading: Reading = AS_STORED) -> Source:
        """Return a source of these images, in this order."""
        if self.archive is None:
            return FileSource([os.path.join(self.root, path) for path in paths], reading)
        return self.archive.source(paths, reading)


def list_images(root: Path) -> Listing:
    """List a folder or an archive, or raise `DataError` where it is neither."""
    if root.is_dir():
        images, others = list_folder(root)
        return Listing(root.absolute(), tuple(images), tuple(others), None)
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive")
    archive = list_archive(root)
    return Listing(archive.path, tuple(archive.members), archive.others, archive)
