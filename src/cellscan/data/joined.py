"""Several sources as one, and where a source has its images as files."""

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
        Of each source, which of its images; they may be given in any order.
    """

    def __init__(self, sources: Sequence[Source], rows: Sequence[np.ndarray]) -> None:
        self.sources: tuple[Source, ...] = tuple(sources)
        self.where: tuple[tuple[int, int], ...] = tuple(
            (number, int(row)) for number, own in enumerate(rows) for row in own
        )

    def __len__(self) -> int:
        return len(self.where)

    def fingerprint(self) -> str:
        return f"{'|'.join(source.fingerprint() for source in self.sources)}|{self.where}"

    def checksums(self, rows: Sequence[int]) -> list[str]:
        found = [""] * len(rows)
        for number, source in enumerate(self.sources):
            own = [place for place, row in enumerate(rows) if self.where[row][0] == number]
            sums = source.checksums([self.where[rows[place]][1] for place in own])
            for place, one in zip(own, sums, strict=True):
                found[place] = one
        return found

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        number, own = self.where[row]
        return self.sources[number].read(own, size)

    def header(self, row: int) -> tuple[int, int, str]:
        number, own = self.where[row]
        return self.sources[number].header(own)


def path_of(source: Source, row: int) -> str | None:
    """Return the file of an image, or None where it is none on its own.

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
