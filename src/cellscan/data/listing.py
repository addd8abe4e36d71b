"""List the images of a folder or an archive, and make sources of them."""

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
    """The files in a folder or an archive: paths with slashes, relative to it.

    Attributes
    ----------
    root : Path
        The folder or the archive.
    images : tuple[str, ...]
        The images.
    others : tuple[str, ...]
        Files that are not read.
    archive : Archive or None
        The archive, or None for a folder.
    """

    root: Path
    images: tuple[str, ...]
    others: tuple[str, ...]
    archive: Archive | None

    def source(self, paths: Sequence[str], reading: Reading = AS_STORED) -> Source:
        """Return a source of these images, in this order."""
        if self.archive is None:
            return FileSource([os.path.join(self.root, path) for path in paths], reading)
        return self.archive.source(paths, reading)


def list_images(root: Path) -> Listing:
    """List the files in a folder or an archive; raise `DataError` if `root` is neither."""
    if root.is_dir():
        images, others = list_folder(root)
        return Listing(root.absolute(), tuple(images), tuple(others), None)
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive")
    archive = list_archive(root)
    return Listing(archive.path, tuple(archive.members), archive.others, archive)
