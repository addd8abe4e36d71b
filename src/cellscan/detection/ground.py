"""Image analysis of a field without a network: its illuminated part, its background, and the darker cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WORK = 512
"""Longer side of the working size of a field, in pixels."""

_DARK, _DARK_SHARE = 48, 0.35
"""Largest channel of a dark border, at most: in grey levels, and as a share of the brightness of the field."""

_EDGE = 0.02
"""Smallest share of the field of a dark border. Smaller dark regions at the image border are cells or pointers."""

_TILES = 4
"""Number of parts along each side for the fit of the background."""

_FLAT = 1e-3
"""Weight of the penalty on the slope and the curvature of the background."""

_GREEN = 1
"""Index of the green channel."""


class Ground(NamedTuple):
    """A field at working size, and its background.

    Attributes
    ----------
    factor : float
        Number of working pixels per pixel of the image.
    lit : (h, w) bool
        True in the illuminated part of the field, False in the dark border of an eyepiece or in a black frame.
    box : tuple[int, int, int, int]
        Left, top, right and bottom of the illuminated part, in pixels of the image.
    colour : (3,) uint8
        Median colour of the background.
    cell_colour : (3,) uint8
        Median colour of the cells; that of the background if there are no cells.
    depth : (h, w) float32
        Difference of the green channel to the brighter local background, in grey levels, at working size; 0 outside the
        illuminated part.
    cells : (h, w) bool
        True for pixels that are darker than halfway between background and cells.
    noise : float
        Median distance of background pixels from the smooth surface, in grey levels of green.
    """

    factor: float
    lit: np.ndarray
    box: tuple[int, int, int, int]
    colour: np.ndarray
    cell_colour: np.ndarray
    depth: np.ndarray
    cells: np.ndarray
    noise: float


def find_ground(image: np.ndarray, work: int = WORK) -> Ground:
    """Find the background and the cells of a field (H, W, 3) uint8.

    The background is a smooth surface through the brightest fifth of each of sixteen parts of the field. The threshold
    of Otsu (1979) separates the cells from it. The threshold is computed twice, so that a few very dark objects do not
    determine it.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.ground import find_ground
    >>> field = cellscan.synthetic_fields(1, seed=0)[0].image
    >>> ground = find_ground(field)
    >>> ground.box, bool(ground.lit.all()), 0.1 < float(ground.cells.mean()) < 0.9
    ((0, 0, 480, 360), True, True)
    """
    ndimage = load_ndimage()

    height, width = image.shape[:2]
    factor = work / max(height, width)
    size = (max(round(width * factor), 2), max(round(height * factor), 2))
    resampling = Image.Resampling.BILINEAR if factor < 1 else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(image).resize(size, resampling))
    lit = _find_lit(small)
    green = ndimage.gaussian_filter(small[..., _GREEN].astype(np.float32), 1.0)
    if not lit.any():
        nothing = np.zeros(lit.shape, bool)
        black = np.zeros(3, np.uint8)
        return Ground(factor, lit, (0, 0, width, height), black, black, np.zeros_like(green), nothing, 0.0)
    surface, noise = _fit_background(green, lit)
    depth = np.where(lit, surface - green, 0).astype(np.float32)
    depths = depth[::2, ::2][lit[::2, ::2]]
    if not depths.size:
        depths = depth[lit]
    threshold = _otsu(np.maximum(depths, -20))
    threshold = _otsu(np.clip(depths, -10, 2 * max(threshold, 1.0)))
    cells = depth > threshold
    bright = lit & (depth < threshold / 2)
    colour = np.median(small[bright if bright.any() else lit], axis=0)
    dark = np.median(small[cells], axis=0) if cells.any() else colour
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    box = (
        int(columns[0] / factor), int(rows[0] / factor),
        min(int(np.ceil((columns[-1] + 1) / factor)), width), min(int(np.ceil((rows[-1] + 1) / factor)), height),
    )  # fmt: skip
    return Ground(factor, lit, box, colour.round().astype(np.uint8), dark.round().astype(np.uint8), depth, cells, noise)


def measure_coverage(ground: Ground, boxes: np.ndarray) -> np.ndarray:
    """Return the share of each box, (n, 4) xyxy in pixels of the field, that is darker than the background.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.ground import find_ground, measure_coverage
    >>> fields = cellscan.synthetic_fields(1, seed=0)
    >>> bool((measure_coverage(find_ground(fields[0].image), fields.boxes[0]) > 0.3).all())
    True
    """
    height, width = ground.cells.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = ground.cells.cumsum(0).cumsum(1)
    low = np.clip(np.floor(boxes[:, :2] * ground.factor).astype(int), 0, (width - 1, height - 1))
    high = np.clip(np.ceil(boxes[:, 2:] * ground.factor).astype(int), low + 1, (width, height))
    (left, top), (right, bottom) = low.T, high.T
    dark = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return dark / (high - low).prod(1)


def load_ndimage() -> Any:
    """Return scipy.ndimage as Any: its import is slow, and its type annotations declare bool arrays as float."""
    from scipy import ndimage

    return ndimage


def _find_lit(small: np.ndarray) -> np.ndarray:
    """Return the illuminated part, (h, w) bool: all but large dark regions at the image border."""
    ndimage = load_ndimage()

    light = small.max(-1)
    limit = min(_DARK, _DARK_SHARE * float(np.percentile(light, 90)))
    dark = light <= limit
    if not dark.any():
        return ~dark
    pieces, count = ndimage.label(dark)
    edge = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    touching = np.unique(edge[edge > 0])
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    border = np.isin(pieces, touching[sizes[touching] >= _EDGE * dark.size])
    if not border.any():
        return ~border
    # Specks in the dark border and its soft edge belong to it, so only the largest illuminated region is used.
    lit = ndimage.binary_erosion(~border, iterations=3, border_value=1)
    pieces, count = ndimage.label(lit)
    if not count:
        return lit
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(pieces == sizes.argmax()) & ~border


def _fit_background(green: np.ndarray, lit: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a quadratic surface (h, w) fitted to the background, and the median distance of the background from it."""
    height, width = green.shape
    step = max(1, min(height, width) // 64)

    def terms(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        y, x = rows / height - 0.5, columns / width - 0.5
        return np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1)

    rows, columns = np.nonzero(lit[::step, ::step])
    if not len(rows):
        rows, columns, step = *np.nonzero(lit), 1
    rows, columns = rows * step, columns * step
    values, known = green[rows, columns].astype(np.float64), terms(rows, columns)
    tile = (rows * _TILES // height) * _TILES + columns * _TILES // width
    keep = np.zeros(len(values), bool)
    for number in range(_TILES**2):
        in_tile = tile == number
        if in_tile.any():
            keep |= in_tile & (values >= np.percentile(values[in_tile], 80))
    noise = 0.0
    weights = np.zeros(6)
    for _ in range(4):
        part = known[keep]
        # einsum is faster: for such a thin matrix, BLAS on all cores takes longer than the rest of this file. A small
        # penalty on slope and curvature keeps the surface flat if there are few points.
        square = np.einsum("ni,nj->ij", part, part) + len(part) * np.diag([1e-9, *[_FLAT] * 5])
        weights = np.linalg.solve(square, np.einsum("ni,n->i", part, values[keep]))
        off = values - np.einsum("ni,i->n", known, weights)
        noise = float(np.median(np.abs(off[keep])))
        keep = (off > -2.5 * max(1.48 * noise, 1.0)) & (off < 4 * max(1.48 * noise, 1.0))
        if keep.sum() < 12:
            break
    y, x = np.arange(height)[:, None] / height - 0.5, np.arange(width)[None] / width - 0.5
    a, b, c, d, e, f = weights
    return (a + b * x + c * y + d * x * y + e * x * x + f * y * y).astype(np.float32), noise


def _otsu(values: np.ndarray) -> float:
    """Return the threshold with the largest variance between the two classes (Otsu, 1979)."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return high
    counts, edges = np.histogram(values, 256, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * middles)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[int(np.nan_to_num(variance).argmax())])
