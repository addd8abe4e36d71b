"""Cropping cells from a field by their boxes or along their polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cellscan.data.values import check_number


def in_pixels(boxes: np.ndarray, scale: float) -> np.ndarray:
    """Return the smallest boxes of whole pixels around boxes whose sides were scaled about their centres.

    Parameters
    ----------
    boxes : (n, 4) float
        xyxy.
    scale : float
        Factor in (0, 1].

    Returns
    -------
    (n, 4) int
        xyxy, right and bottom excluded.

    Raises
    ------
    ArgumentError
        If the factor is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.cutting import in_pixels
    >>> in_pixels(np.array([[5, 5, 25, 30]], np.float32), 0.8).tolist()
    [[7, 7, 23, 28]]
    """
    scale = check_number("scale", scale, 0, 1, "(]")
    inset = (1 - scale) / 2 * (boxes[:, 2:] - boxes[:, :2])
    return np.c_[np.floor(boxes[:, :2] + inset), np.ceil(boxes[:, 2:] - inset)].astype(int).reshape(-1, 4)


def cut(
    image: np.ndarray, box: Sequence[int], rings: Sequence[np.ndarray] = (), background: str = "keep"
) -> np.ndarray:
    """Return the pixels of a box, (h, w, 3) uint8, with a background outside the polygons.

    Parameters
    ----------
    image : (H, W, 3) uint8
    box : left, top, right, bottom
        Whole pixels, right and bottom excluded.
    rings : sequence of (k, 2) float
        Polygons in pixels of the image. A pixel on the outline counts as inside.
    background : {"keep", "black", "fill"}
        ``"keep"`` keeps all pixels of the box. Pixels outside the polygons become black with ``"black"``, and the
        mean colour of the pixels inside with ``"fill"``.

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
    crop = image[top:bottom, left:right]
    if background == "keep":
        return crop
    inside = mask_of(rings, (bottom - top, right - left), (left, top))
    colour = crop[inside].mean(0).round().astype(np.uint8) if background == "fill" and inside.any() else 0
    return np.where(inside[..., None], crop, np.asarray(colour, np.uint8))


def mask_of(rings: Sequence[np.ndarray], shape: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Return a mask (h, w) bool of the pixels that polygons cover; `corner` is x and y of its upper left pixel."""
    mask = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(mask)
    for ring in rings:
        draw.polygon([(float(x) - corner[0], float(y) - corner[1]) for x, y in ring], fill=1, outline=1)
    return np.asarray(mask, bool)
