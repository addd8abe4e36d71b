"""Join several sources to one, and find the file of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellscan.data.images import Size
from cellscan.data.sources import FileSource, Source


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
    >>> from cellscan.data.joined import path_of
    >>> from cellscan.data.sources import FileSource
    >>> path_of(FileSource(["/a.png"]), 0)
    '/a.png'
    """
    if isinstance(source, JoinedSource):
        number, row = source.where[row]
        return path_of(source.sources[number], row)
    return source.paths[row] if isinstance(source, FileSource) else None
