"""Cutting cells out of a field: by their boxes, or along their polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw


def cut(
    image: np.ndarray, box: Sequence[int], rings: Sequence[np.ndarray] = (), background: str = "keep"
) -> np.ndarray:
    """Return the pixels of a box (h, w, 3) uint8; outside the polygons black, or the mean colour of what is inside.

    Parameters
    ----------
    image : (H, W, 3) uint8
    box : left, top, right, bottom
        Whole pixels, right and bottom excluded.
    rings : sequence of (k, 2) float
        Polygons in pixels of the image; a pixel that a side passes through is inside.
    background : {"keep", "black", "fill"}
        ``"keep"`` leaves all pixels of the box as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.cutting import cut
    >>> image = np.full((8, 8, 3), 200, np.uint8)
    >>> cell = cut(image, (0, 0, 6, 6), [np.array([[0, 0], [4, 0], [0, 4]])], "black")
    >>> cell[0, 0, 0], cell[5, 5, 0]
    (np.uint8(200), np.uint8(0))
    """
    left, top, right, bottom = box
    found = image[top:bottom, left:right]
    if background == "keep":
        return found
    inside = mask_of(rings, (bottom - top, right - left), (left, top))
    colour = found[inside].mean(0).round().astype(np.uint8) if background == "fill" and inside.any() else 0
    return np.where(inside[..., None], found, np.asarray(colour, np.uint8))


def mask_of(rings: Sequence[np.ndarray], shape: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Return a mask (h, w) bool of what polygons cover, in a frame that begins at `corner` (x, y)."""
    drawn = Image.new("1", (shape[1], shape[0]))
    pen = ImageDraw.Draw(drawn)
    for ring in rings:
        pen.polygon([(float(x) - corner[0], float(y) - corner[1]) for x, y in ring], fill=1, outline=1)
    return np.asarray(drawn, bool)
