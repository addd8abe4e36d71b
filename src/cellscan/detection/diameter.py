"""How large the red cells of a field are, by plain image analysis: no network takes part in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cellscan.data.images import ImageLike, read_rgb
from cellscan.detection.ground import WORK, Ground, find_ground, load_ndimage
from cellscan.errors import DataError

_LEAST, _STEP, _MOST = 3.5, 1.12, 0.36
"""Smallest radius that is looked for, at working size; the factor to the next; the largest, of the shorter side."""

_ROUND = 0.38
"""Share of a circle's outline that has to be there."""

_LOOSE, _NEAR = 0.22, 0.75
"""How far, in radii, votes for one middle may lie apart; and how near to a more complete circle none is kept."""

_WEIGHT = 1.25
"""Power of its radius by which a circle counts in the median: of 2, few large things set it; of 0, many specks."""

_OVAL, _LONG = 0.97, 0.6
"""Area of a piece over that of the ellipse of its moments, from which it is one; and short over long axis, up to which
such an ellipse is one cell rather than one circle."""

_SMALL = 7.0
"""Radius at that size below which a field is looked at again, a part of it enlarged."""

_BOX = 0.9
"""Diameter of a circle over the side of the box that people draw about the cell: chosen on fields of even position, see
`benchmarks/other_laboratories.py`."""

_CIRCLES, _COVER = 4, 0.02
"""Circles, and their share of the field, below which it has no red cells."""


class Discs(NamedTuple):
    """Round things darker than what is around them, in pixels of the image.

    Attributes
    ----------
    middles : (n, 2) float64
        x and y.
    radii : (n,) float64
        Of the outline, not of the boxes that people draw about it.
    complete : (n,) float64
        Share of the outline that is there.
    """

    middles: np.ndarray
    radii: np.ndarray
    complete: np.ndarray


def estimate_cell_diameter(image: ImageLike) -> tuple[float, float]:
    """Estimate the diameter of the red cells of one field of a thin film.

    Outlines of what is darker than the background vote for middles of circles, at all sizes (after Ballard, 1981,
    and Loy and Zelinsky, 2003), so that cells may touch and overlap. The background may be uneven; the dark surround
    of an eyepiece is left out. No stain, magnification or number of pixels is assumed: only that most round things
    are red cells.

    Parameters
    ----------
    image
        One field: a path, an encoded file, a Pillow image, or an array (H, W, 3) uint8.

    Returns
    -------
    median, spread : float
        In pixels of the image as it is. The median of the diameters, as the boxes of annotated sets have it; and
        half of the range that the middle 68 % of the cell area has, which for a normal distribution is its standard
        deviation.

    Raises
    ------
    DataError
        Where there are no red cells to be seen, with the reason.
    ImageError
        Where the image cannot be read.

    Notes
    -----
    On fields of four laboratories, as they are and redrawn at a quarter to four times, it is measured by
    `benchmarks/other_laboratories.py --diameters`.
    It is wrong where most of what is round is no red cell, as in thick films.

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.synthetic_fields(1, seed=0)  # cells of 44 to 56 pixels
    >>> median, spread = cellscan.estimate_cell_diameter(fields[0].image)
    >>> 40 < median < 60, spread < 10
    (True, True)
    """
    image = read_rgb(image)
    return measure_diameter(image, find_ground(image))


def measure_diameter(image: np.ndarray, ground: Ground) -> tuple[float, float]:
    """Return what `estimate_cell_diameter` does of an image (H, W, 3) uint8 that has been looked at."""
    reason = _why_none(ground, discs := find_discs(ground))
    part = image
    for _ in range(2):  # cells that are small in the field: a part of it, enlarged
        if reason is None and not _are_small(ground, discs):
            break
        height, width = (side // 2 for side in part.shape[:2])
        if max(height, width) <= WORK // 2:
            break
        part = part[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        closer = find_ground(part)
        again = find_discs(closer)
        if _why_none(closer, again) is None:
            ground, discs, reason = closer, again, None
        elif reason is None:
            break
    if reason is not None:
        raise DataError(f"no red cells are to be seen, so they have no diameter: {reason}")
    sizes, weights = 2 * discs.radii / _BOX, discs.complete * discs.radii**_WEIGHT
    low, middle, high = _quantiles(sizes, weights, (0.16, 0.5, 0.84))
    return middle, (high - low) / 2


def _why_none(ground: Ground, discs: Discs) -> str | None:
    """Return why a field has no red cells to measure; None where it has."""
    if not ground.lit.any():
        return "the image is dark throughout"
    if len(discs.radii) < _CIRCLES:
        return f"{len(discs.radii)} round things darker than the background; expected at least {_CIRCLES}"
    area = float((np.pi * (discs.radii * ground.factor) ** 2).sum() / ground.lit.sum())
    if area < _COVER:
        return f"round things cover {area:.1%} of the field; expected at least {_COVER:.0%}"
    return None


def _are_small(ground: Ground, discs: Discs) -> bool:
    return float(np.median(discs.radii)) * ground.factor < _SMALL


def find_discs(ground: Ground) -> Discs:
    """Find circles in the outlines of what is darker than the background.

    Every point of an outline votes, for each radius, for the middle that lies so far inside. Of circles whose middles
    lie closer than three quarters of a radius, the most complete stays.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.diameter import find_discs
    >>> from cellscan.detection.ground import find_ground
    >>> len(find_discs(find_ground(cellscan.synthetic_fields(1, seed=0)[0].image)).radii) > 20
    True
    """
    ndimage = load_ndimage()

    dark = ground.cells.astype(np.float32)
    height, width = dark.shape
    soft = ndimage.gaussian_filter(dark, 1.2)
    down, right = np.gradient(soft)
    steep = np.hypot(right, down)
    outline = ground.cells & (ndimage.minimum_filter(dark, 3) < 1) & (steep > 1e-3)
    outline &= ndimage.binary_erosion(ground.lit, iterations=3)  # where the frame cuts a cell is no outline
    y, x = np.nonzero(outline)
    if not len(y):
        return Discs(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    ny, nx = down[y, x] / steep[y, x], right[y, x] / steep[y, x]
    found: list[np.ndarray] = []
    radius = _LEAST
    while radius < _MOST * min(height, width):
        found.append(_vote(y, x, ny, nx, radius, dark.shape))
        radius *= _STEP
    circles = _apart(np.concatenate([*found, np.zeros((0, 4))]))
    radii = _refine(circles, y, x, ny, nx)
    circles[:, 1] = radii
    circles = _join_ovals(circles, ground)
    radii = circles[:, 1]
    middles = circles[:, [3, 2]] / ground.factor
    return Discs(middles, radii / ground.factor, circles[:, 0])


def _vote(
    y: np.ndarray, x: np.ndarray, ny: np.ndarray, nx: np.ndarray, radius: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the circles of one radius (n, 4): completeness, radius, row, column."""
    ndimage = load_ndimage()

    step = max(1.0, 0.2 * radius)  # votes of larger circles lie farther apart
    pad = 2
    rows, columns = int(shape[0] / step) + 2 * pad + 1, int(shape[1] / step) + 2 * pad + 1
    row = np.floor((y + ny * radius) / step).astype(np.int64) + pad
    column = np.floor((x + nx * radius) / step).astype(np.int64) + pad
    inside = (row >= 0) & (column >= 0) & (row < rows) & (column < columns)
    votes = np.bincount(row[inside] * columns + column[inside], minlength=rows * columns).astype(np.float32)
    sigma = max(1.0, _LOOSE * radius / step)
    votes = ndimage.gaussian_filter(votes.reshape(rows, columns), sigma, truncate=3) * (2 * np.pi * sigma**2)
    complete = votes / (2 * np.pi * radius)
    peak = (complete > _ROUND) & (complete == ndimage.maximum_filter(complete, 3))
    row, column = np.nonzero(peak)
    found = np.empty((len(row), 4))
    found[:, 0], found[:, 1] = complete[row, column], radius
    found[:, 2], found[:, 3] = (row - pad + 0.5) * step, (column - pad + 0.5) * step
    return found


def _apart(circles: np.ndarray) -> np.ndarray:
    """Return the circles that no more complete one is too close to, the most complete first."""
    circles = circles[np.argsort(-circles[:, 0], kind="stable")]
    kept: list[np.ndarray] = []
    while len(circles):
        best = circles[0]
        kept.append(best)
        far = np.hypot(circles[:, 2] - best[2], circles[:, 3] - best[3])
        circles = circles[far > _NEAR * np.maximum(circles[:, 1], best[1])]
    return np.array(kept).reshape(-1, 4)


def _refine(circles: np.ndarray, y: np.ndarray, x: np.ndarray, ny: np.ndarray, nx: np.ndarray) -> np.ndarray:
    """Return the radii (n,), each the median distance of the points of the outline that face the middle."""
    radii = circles[:, 1].copy()
    order = np.argsort(y, kind="stable")
    y, x, ny, nx = y[order], x[order], ny[order], nx[order]
    for number, (_, radius, row, column) in enumerate(circles):
        first, last = np.searchsorted(y, (row - 1.3 * radius, row + 1.3 * radius))
        dy, dx = row - y[first:last], column - x[first:last]
        far = np.hypot(dy, dx)
        faces = dy * ny[first:last] + dx * nx[first:last] > 0.9 * far
        near = far[faces & (np.abs(far - radius) < 0.3 * radius)]
        if len(near) > 5:
            radii[number] = float(np.median(near))
    return radii


def _join_ovals(circles: np.ndarray, ground: Ground) -> np.ndarray:
    """Return the circles, but one alone, of its area, for each piece off the frame that is an ellipse.

    An elongated cell has a circle at either end; a pair of cells is no ellipse, for it has a waist.
    """
    ndimage = load_ndimage()

    solid = ndimage.binary_fill_holes(ground.cells)
    pieces, count = ndimage.label(solid)
    if not count or not len(circles):
        return circles
    y, x = np.nonzero(pieces)
    piece = pieces[y, x]
    area = np.bincount(piece, minlength=count + 1).astype(np.float64)
    area[0] = 1
    my, mx = (np.bincount(piece, at, count + 1) / area for at in (y, x))
    dy, dx = y - my[piece], x - mx[piece]
    yy, xx, xy = (np.bincount(piece, one, count + 1) / area for one in (dy * dy, dx * dx, dy * dx))
    drawn = 4 * np.pi * np.sqrt(np.maximum(yy * xx - xy**2, 1e-9))  # area of the ellipse with these moments
    long = np.sqrt(np.maximum((yy + xx) / 2 + np.sqrt((yy - xx) ** 2 / 4 + xy**2), 1e-9)) * 2
    short = np.sqrt(area / np.pi) ** 2 / long
    oval = (area / drawn > _OVAL) & (short > 0.33 * long) & (short < _LONG * long)
    inside_frame = np.ones(count + 1, bool)
    for line in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        inside_frame[line] = False
    row = np.clip(circles[:, 2].astype(int), 0, pieces.shape[0] - 1)
    column = np.clip(circles[:, 3].astype(int), 0, pieces.shape[1] - 1)
    owner = pieces[row, column]
    oval[0] = False
    own = np.bincount(owner, minlength=count + 1)
    chosen = np.flatnonzero(oval & inside_frame & (own >= 1))
    joined = np.stack([np.ones(len(chosen)), np.sqrt(area[chosen] / np.pi), my[chosen], mx[chosen]], 1)
    return np.concatenate([circles[~np.isin(owner, chosen)], joined])


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> tuple[float, ...]:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return tuple(float(values[order][np.searchsorted(below, share * below[-1])]) for share in shares)
