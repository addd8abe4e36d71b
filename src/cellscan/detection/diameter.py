"""Estimation of the diameter of the red cells of a field by image analysis, without a network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cellscan.data.images import ImageLike, read_rgb
from cellscan.detection.ground import WORK, Ground, find_ground, load_ndimage
from cellscan.errors import DataError

_LEAST, _STEP, _MOST = 3.5, 1.12, 0.36
"""Smallest radius at working size; factor from one radius to the next; largest radius over the shorter side."""

_ROUND = 0.38
"""Smallest share of the outline of a circle that is present."""

_LOOSE, _NEAR = 0.22, 0.75
"""Spread of the votes for one centre, and smallest distance from a more complete circle, both in radii."""

_WEIGHT = 1.25
"""Exponent of the radius in the weight of a circle in the median. A few large objects would determine the median with
an exponent of 2, and many specks with 0."""

_OVAL, _LONG = 0.97, 0.6
"""Smallest ratio of the area of an ellipse-shaped region to that of the ellipse with its moments; and largest ratio of
the short to the long axis of an ellipse that is treated as an elongated cell."""

_SMALL, _CLOSER = 7.0, 4
"""Radius at working size below which the analysis is repeated on an enlarged part of the field; how often at most."""

_BOX = 0.9
"""Ratio of the diameter of a circle to the side of the annotated box of the cell. It was chosen on fields of even
position, see `benchmarks/other_laboratories.py`."""

_CIRCLES, _COVER = 4, 0.02
"""Smallest number of circles, and smallest share of the field that they cover, in a field with red cells."""

_INSIDE, _OUTSIDE = (0.7, 0.8, 0.9), (1.1, 1.2, 1.3)
"""Radii, as parts of that of a circle, at which its inside is compared with its surroundings."""

_DARK, _CONTRAST, _REAL = 0.6, 0.2, 0.5
"""Smallest dark share of the inside of a cell, and smallest difference to that of its surroundings; and the smallest
share, by weight, of circles with both, in a field whose circles are cells. In 160 fields of four laboratories it is at
least 0.86. If the circles consist of the outlines of many smaller cells, it is at most 0.2 in nearly all fields."""


class Discs(NamedTuple):
    """Round objects that are darker than the background, in pixels of the image.

    Attributes
    ----------
    middles : (n, 2) float64
        x and y of the centres.
    radii : (n,) float64
        Radii of the outlines; annotated boxes are larger.
    complete : (n,) float64
        Share of each outline that is present.
    """

    middles: np.ndarray
    radii: np.ndarray
    complete: np.ndarray


def estimate_cell_diameter(image: ImageLike) -> tuple[float, float]:
    """Estimate the diameter of the red cells of one field of a thin film.

    The function finds circles of all sizes in the outlines of the dark regions with a Hough transform (after Ballard,
    1981, and Loy and Zelinsky, 2003), so cells may touch and overlap. The background may be uneven. The dark border of
    an eyepiece is ignored. The only assumption is that most round objects are red cells; stain, magnification and
    resolution are arbitrary.

    Parameters
    ----------
    image
        One field: a path, an encoded file, a Pillow image, or an array (H, W, 3) uint8.

    Returns
    -------
    median, spread : float
        In pixels of the given image. `median` is the median of the diameters, on the scale of the boxes of annotated
        sets. `spread` is half of the range of the diameters in the middle 68 % of the cell area; for a normal
        distribution, it is the standard deviation.

    Raises
    ------
    DataError
        If no red cells are visible; the message contains the reason.
    ImageError
        If the image cannot be read.

    Notes
    -----
    `benchmarks/other_laboratories.py --diameters` measures the errors on fields of four laboratories, at the original
    size and rescaled by factors from a quarter to four. The estimate is wrong if most round objects are not red cells,
    as in thick films.

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
    """Return the result of `estimate_cell_diameter` for an image (H, W, 3) uint8 and its background."""
    discs, reason = _examine(ground)
    part = image
    for _ in range(_CLOSER):  # If the cells are small in the field, an enlarged part of it is analysed.
        if reason is None and not _are_small(ground, discs):
            break
        height, width = (side // 2 for side in part.shape[:2])
        if max(height, width) <= WORK // 2:
            break
        part = part[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        closer = find_ground(part)
        again, why = _examine(closer)
        if why is None:
            ground, discs, reason = closer, again, None
        elif reason is None:
            break
    if reason is not None:
        raise DataError(f"no red cells are visible, so their diameter cannot be estimated: {reason}")
    low, middle, high = _quantiles(2 * discs.radii / _BOX, _weigh(discs), (0.16, 0.5, 0.84))
    return middle, (high - low) / 2


def _weigh(discs: Discs) -> np.ndarray:
    """Return the weight (n,) of each circle in the median."""
    return discs.complete * discs.radii**_WEIGHT


def _examine(ground: Ground) -> tuple[Discs, str | None]:
    """Return the circles that may be red cells, and the reason why the field has none that can be measured, if so."""
    discs = find_discs(ground)
    if not ground.lit.any():
        return discs, "the whole image is dark"
    if len(discs.radii) < _CIRCLES:
        return discs, f"{len(discs.radii)} round objects are darker than the background; expected at least {_CIRCLES}"
    # The centre of a cell may be as bright as the background, so its darkest ring counts.
    inside = _measure_darkness(ground, discs, _INSIDE).max(1)
    outside = _measure_darkness(ground, discs, _OUTSIDE).mean(1)
    real = (inside > _DARK) & (inside - outside > _CONTRAST)
    weights = _weigh(discs)
    share = float(weights[real].sum() / weights.sum())
    discs = Discs(*(values[real] for values in discs))
    if share < _REAL or len(discs.radii) < _CIRCLES:
        return discs, "the round objects are not darker than their surroundings; the cells may be too small"
    area = float((np.pi * (discs.radii * ground.factor) ** 2).sum() / ground.lit.sum())
    if area < _COVER:
        return discs, f"round objects cover {area:.1%} of the field; expected at least {_COVER:.0%}"
    return discs, None


def _measure_darkness(ground: Ground, discs: Discs, at: tuple[float, ...]) -> np.ndarray:
    """Return the dark shares (n, k) of the points at k parts of the radius of each circle; 0 if all are outside."""
    height, width = ground.cells.shape
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    reach = (discs.radii * ground.factor)[:, None, None] * np.array(at)[:, None]
    across, down = ((discs.middles * ground.factor)[:, axis, None, None] for axis in (0, 1))
    column = np.rint(across + reach * np.cos(angles)).astype(int)
    row = np.rint(down + reach * np.sin(angles)).astype(int)
    visible = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    dark = visible & ground.cells[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return dark.sum(2) / np.maximum(visible.sum(2), 1)


def _are_small(ground: Ground, discs: Discs) -> bool:
    return float(np.median(discs.radii)) * ground.factor < _SMALL


def find_discs(ground: Ground) -> Discs:
    """Find circles in the outlines of the regions that are darker than the background.

    For each radius, every point of an outline votes for the centre at this distance inside the region. If the centres
    of circles are closer than three quarters of a radius, only the most complete circle is used.

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
    # The edge of a cell at the image border is not an outline.
    outline &= ndimage.binary_erosion(ground.lit, iterations=3)
    y, x = np.nonzero(outline)
    if not len(y):
        return Discs(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    ny, nx = down[y, x] / steep[y, x], right[y, x] / steep[y, x]
    result: list[np.ndarray] = []
    radius = _LEAST
    while radius < _MOST * min(height, width):
        result.append(_vote(y, x, ny, nx, radius, dark.shape))
        radius *= _STEP
    circles = _apart(np.concatenate([*result, np.zeros((0, 4))]))
    radii = _refine(circles, y, x, ny, nx)
    circles[:, 1] = radii
    circles = _join_ovals(circles, ground)
    radii = circles[:, 1]
    middles = circles[:, [3, 2]] / ground.factor
    return Discs(middles, radii / ground.factor, circles[:, 0])


def _vote(
    y: np.ndarray, x: np.ndarray, ny: np.ndarray, nx: np.ndarray, radius: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the circles of one radius, (n, 4): completeness, radius, row and column."""
    ndimage = load_ndimage()

    step = max(1.0, 0.2 * radius)  # The votes for larger circles are more spread out.
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
    circles = np.empty((len(row), 4))
    circles[:, 0], circles[:, 1] = complete[row, column], radius
    circles[:, 2], circles[:, 3] = (row - pad + 0.5) * step, (column - pad + 0.5) * step
    return circles


def _apart(circles: np.ndarray) -> np.ndarray:
    """Return the circles without those too close to a more complete one, in descending order of completeness."""
    circles = circles[np.argsort(-circles[:, 0], kind="stable")]
    separate: list[np.ndarray] = []
    while len(circles):
        best = circles[0]
        separate.append(best)
        distances = np.hypot(circles[:, 2] - best[2], circles[:, 3] - best[3])
        circles = circles[distances > _NEAR * np.maximum(circles[:, 1], best[1])]
    return np.array(separate).reshape(-1, 4)


def _refine(circles: np.ndarray, y: np.ndarray, x: np.ndarray, ny: np.ndarray, nx: np.ndarray) -> np.ndarray:
    """Return the radii (n,): the median distance of the outline points whose normals point to the centre."""
    radii = circles[:, 1].copy()
    order = np.argsort(y, kind="stable")
    y, x, ny, nx = y[order], x[order], ny[order], nx[order]
    for number, (_, radius, row, column) in enumerate(circles):
        first, last = np.searchsorted(y, (row - 1.3 * radius, row + 1.3 * radius))
        dy, dx = row - y[first:last], column - x[first:last]
        distances = np.hypot(dy, dx)
        faces = dy * ny[first:last] + dx * nx[first:last] > 0.9 * distances
        near = distances[faces & (np.abs(distances - radius) < 0.3 * radius)]
        if len(near) > 5:
            radii[number] = float(np.median(near))
    return radii


def _join_ovals(circles: np.ndarray, ground: Ground) -> np.ndarray:
    """Replace the circles in each elliptical region inside the field by one circle of the area of the region.

    An elongated cell gives a circle at either end. A pair of cells is not elliptical, because it is narrower in the
    middle.
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
    yy, xx, xy = (np.bincount(piece, product, count + 1) / area for product in (dy * dy, dx * dx, dy * dx))
    ellipse = 4 * np.pi * np.sqrt(np.maximum(yy * xx - xy**2, 1e-9))  # area of the ellipse with these moments
    long = np.sqrt(np.maximum((yy + xx) / 2 + np.sqrt((yy - xx) ** 2 / 4 + xy**2), 1e-9)) * 2
    short = np.sqrt(area / np.pi) ** 2 / long
    oval = (area / ellipse > _OVAL) & (short > 0.33 * long) & (short < _LONG * long)
    inside_frame = np.ones(count + 1, bool)
    for line in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        inside_frame[line] = False
    row = np.clip(circles[:, 2].astype(int), 0, pieces.shape[0] - 1)
    column = np.clip(circles[:, 3].astype(int), 0, pieces.shape[1] - 1)
    owner = pieces[row, column]
    oval[0] = False
    n_circles = np.bincount(owner, minlength=count + 1)
    chosen = np.flatnonzero(oval & inside_frame & (n_circles >= 1))
    joined = np.stack([np.ones(len(chosen)), np.sqrt(area[chosen] / np.pi), my[chosen], mx[chosen]], 1)
    return np.concatenate([circles[~np.isin(owner, chosen)], joined])


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> tuple[float, ...]:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return tuple(float(values[order][np.searchsorted(below, share * below[-1])]) for share in shares)
