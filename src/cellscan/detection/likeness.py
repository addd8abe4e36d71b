"""Comparison of the appearance of fields. Measured error rates are only valid for fields of similar appearance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellscan.detection.ground import Ground

FEATURES = ("colour of the background", "stain", "sharpness", "density", "cell size", "resolution")
"""Compared features. The first two have two numbers each: red and blue relative to green."""

_NAMES = (0, 0, 1, 1, 2, 3, 4, 5)
"""Index of the feature of each number of `describe_field`."""

_LEAST = (0.0,) * 7 + (math.log(1.15),)
"""Smallest extension of the range of each number. The resolution has one, because it is often the same in all fields,
and the estimate of the diameter has an error of this size."""


@dataclass(frozen=True)
class Likeness:
    """Appearance of the fields on which error rates were measured.

    Attributes
    ----------
    source : str
        Origin of the fields, such as ``"IML-Malaria"``.
    fields : int
        Number of fields.
    low, high : tuple[float, ...]
        Range of each number of `describe_field` over the fields, extended at both ends by half of its width, that of
        the resolution by at least 15 % of the diameter. In files written before the resolution was measured, it is
        missing, and is not compared.

    Examples
    --------
    >>> from cellscan.detection.likeness import Likeness
    >>> known = Likeness("here", 10, (0.0,) * 8, (1.0,) * 8)
    >>> known.differences([(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 0.5)])
    ('cell size',)
    """

    source: str
    fields: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def differences(self, described: Sequence[Sequence[float]]) -> tuple[str, ...]:
        """Return the names of the features in which most of the described fields differ; empty if they are similar.

        Parameters
        ----------
        described : sequence of sequence of float
            The numbers of `describe_field` for each field. Without fields, all features are returned.

        Examples
        --------
        >>> from cellscan.detection.likeness import Likeness
        >>> known = Likeness("here", 10, (0.0,) * 8, (1.0,) * 8)
        >>> known.differences([(0.5,) * 8, (0.4,) * 8])
        ()
        """
        rows = np.array(described, np.float64).reshape(-1, len(_NAMES))
        if not len(rows):
            return FEATURES
        known = len(self.low)
        outside = np.zeros(rows.shape, bool)
        with np.errstate(invalid="ignore"):
            outside[:, :known] = ~((rows[:, :known] >= np.array(self.low)) & (rows[:, :known] <= np.array(self.high)))
        differs = np.stack([outside[:, [n == k for n in _NAMES]].any(1) for k in range(len(FEATURES))], 1)
        names = [name for name, share in zip(FEATURES, differs.mean(0), strict=True) if share > _MANY]
        if not names and differs.any(1).mean() > _MANY:
            names = [name for name, share in zip(FEATURES, differs.mean(0), strict=True) if share > 0]
        return tuple(names)


_MANY = 0.5
"""Share of the fields above which a feature differs in most of them."""


def describe_field(ground: Ground, diameter: float | None, trained: float | None) -> tuple[float, ...]:
    """Return eight numbers that describe the appearance of a field.

    - Colour of the background: logarithms of the ratios of red to green and of blue to green.
    - Stain: absorption of the cells in red and in blue, relative to that in green.
    - Sharpness: 90th percentile of the gradient of green in the cells, relative to the contrast of the cells, times a
      tenth of the diameter.
    - Density: share of the field that is darker than the background.
    - Cell size: logarithm of the longer side of the image over the diameter.
    - Resolution: logarithm of the diameter over `trained`, that of the detector's training cells; at most 0, because
      the detector reduces larger cells to that size.

    A number is NaN if it cannot be measured. Diameters are in pixels.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.ground import find_ground
    >>> from cellscan.detection.likeness import describe_field
    >>> len(describe_field(find_ground(cellscan.synthetic_fields(1, seed=0)[0].image), 50.0, 45.0))
    8
    """
    nothing = float("nan")
    back = np.maximum(ground.colour.astype(np.float64), 1)
    absorbed = np.log(back / np.maximum(ground.cell_colour.astype(np.float64), 1))
    red, green, blue = np.log(back)
    depths = ground.depth[ground.cells]
    density = float(ground.cells.sum() / max(ground.lit.sum(), 1))
    if diameter is None or not depths.size or absorbed[1] < 0.02:
        return (red - green, blue - green, nothing, nothing, nothing, density, nothing, nothing)
    down, right = np.gradient(ground.depth)
    steep = np.hypot(right, down)[ground.cells]
    sharpness = float(np.percentile(steep, 90) / np.median(depths) * diameter * ground.factor / 10)
    cell_size = np.log(max(ground.depth.shape) / (diameter * ground.factor))
    resolution = nothing if trained is None else min(math.log(diameter / trained), 0.0)
    return (
        red - green, blue - green, absorbed[0] / absorbed[1], absorbed[2] / absorbed[1], sharpness, density,
        float(cell_size), resolution,
    )  # fmt: skip


def learn_likeness(described: Sequence[Sequence[float]], source: str) -> Likeness:
    """Return the appearance of fields, from the numbers of `describe_field` for each of them.

    Examples
    --------
    >>> from cellscan.detection.likeness import learn_likeness
    >>> learn_likeness([(0.0,) * 8, (1.0,) * 8], "here").high[0]
    1.5
    """
    rows = np.array(described, np.float64).reshape(-1, len(_NAMES))
    low, high = np.nanmin(rows, 0), np.nanmax(rows, 0)
    margin = np.maximum((high - low) / 2, _LEAST)
    low, high = np.nan_to_num(low - margin), np.nan_to_num(high + margin)
    return Likeness(source, len(rows), tuple(map(float, low)), tuple(map(float, high)))
