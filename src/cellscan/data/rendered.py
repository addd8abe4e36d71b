"""A source that computes its images when they are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellscan.data.images import Size, read_rgb
from cellscan.data.sources import checksum, hash_lines, in_threads


class RenderedSource:
    """Base class of sources that compute their images. A subclass defines `render` and `identity`.

    Attributes
    ----------
    sizes : (N, 2) int
        Width and height of each image in pixels.
    """

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = sizes
        self._sums: dict[int, str] = {}

    def render(self, row: int) -> np.ndarray:
        """Return image `row`, (H, W, 3) uint8. Each call must return the same pixels."""
        raise NotImplementedError

    def identity(self) -> str:
        """Return a text that changes whenever an image may change."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.sizes)

    def fingerprint(self) -> str:
        return hash_lines([type(self).__name__, self.identity()])

    def checksums(self, rows: Sequence[int]) -> list[str]:
        def checksum_of(row: int) -> str:
            if row not in self._sums:
                self.read(row)
            return self._sums[row]

        return in_threads(checksum_of, rows)

    def read(self, row: int, size: Size | None = None) -> np.ndarray:
        image = self.render(row)
        if row not in self._sums:  # Rendering takes longer than the checksum: do not render again for it.
            self._sums[row] = checksum(image.tobytes())
        return image if size is None else read_rgb(image, size, where=f"image {row}")

    def header(self, row: int) -> tuple[int, int, str]:
        width, height = self.sizes[row].tolist()
        return width, height, "array"
