"""Comparison of the appearance of fields. Measured error rates are only valid for fields of similar appearance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cellscan.detection.ground import Ground, load_ndimage

FEATURES = ("colour of the background", "stain", "sharpness", "density", "cell size", "resolution")
"""Compared features. The first two have two numbers each: red and blue relative to green."""

_NAMES = (0, 0, 1, 1, 2, 3, 4, 5)
"""Index of the feature of each number of `describe_field`."""

_LEAST = (*(0.0,) * 7, math.log(1.15))
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
        the resolution by at least 15 % of the diameter. A file written before the resolution was measured lacks it, and
        it is not compared; the sharpness in such a file had another definition, so that fields differ in it, and no
        parasitemia is claimed until the error rates are measured anew.

    Examples
    --------
    >>> from cellscan.detection.likeness import Likeness
    >>> known = Likeness("here", 10, (0.0,) * 8, (1.0,) * 8)
    >>> known.differences([(*(0.5,) * 6, 2.0, 0.5)])
    ('cell size',)
    """

    source: str
    fields: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def differences(self, described: Sequence[Sequence[float]]) -> tuple[str, ...]:
        """Return the names of the features in which the described fields differ; empty if they are similar.

        Fields differ in a feature if most of them are outside the range. Five fields or more also differ if their
        median is outside the range before its extension, if this is the range of ten fields or more.

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
        low, high = np.array(self.low), np.array(self.high)
        outside = np.zeros(rows.shape, bool)
        with np.errstate(invalid="ignore"):
            outside[:, :known] = ~((rows[:, :known] >= low) & (rows[:, :known] <= high))
        shifted = np.zeros(rows.shape[1], bool)
        if len(rows) >= _FIELDS and self.fields >= _MEASURED:
            for number, margin in enumerate((high - low) / 4):
                measured = rows[np.isfinite(rows[:, number]), number]
                if measured.size:
                    shifted[number] = not low[number] + margin <= np.median(measured) <= high[number] - margin
        of = np.array(_NAMES)
        differs = np.stack([outside[:, of == k].any(1) for k in range(len(FEATURES))], 1)
        shares = differs.mean(0)
        names = [name for k, name in enumerate(FEATURES) if shares[k] > _MANY or shifted[of == k].any()]
        if not names and differs.any(1).mean() > _MANY:
            names = [name for name, share in zip(FEATURES, shares, strict=True) if share > 0]
        return tuple(names)


_MANY = 0.5
"""Share of the fields above which a feature differs in most of them."""

_FIELDS, _MEASURED = 5, 10
"""Numbers of fields, and of measured fields, from which the median is compared. The median of fields like the measured
ones is rarely outside the range of ten."""


def describe_field(
    image: np.ndarray, ground: Ground, diameter: float | None, trained: float | None
) -> tuple[float, ...]:
    """Return eight numbers that describe the appearance of a field, (h, w, 3) uint8.

    - Colour of the background: logarithms of the ratios of red to green and of blue to green.
    - Stain: absorption of the cells in red and in blue, relative to that in green.
    - Sharpness: logarithm of the ratio of fine to coarse detail in the cells (`_measure_sharpness`). A blur lowers it;
      noise and strong compression raise it. The gradient at the edges of the cells would not do: it hardly changes by a
      blur that hides most parasites.
    - Density: share of the field that is darker than the background.
    - Cell size: logarithm of the longer side of the image over the diameter.
    - Resolution: logarithm of the diameter over `trained`, that of the detector's training cells; at most 0, because
      the detector reduces larger cells to that size; 0 if `trained` is None, because it then reduces none.

    A number is NaN if it cannot be measured. Diameters are in pixels.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.ground import find_ground
    >>> from cellscan.detection.likeness import describe_field
    >>> image = cellscan.synthetic_fields(1, seed=0)[0].image
    >>> len(describe_field(image, find_ground(image), 50.0, 45.0))
    8
    """
    nothing = float("nan")
    back = np.maximum(ground.colour.astype(np.float64), 1)
    absorbed = np.log(back / np.maximum(ground.cell_colour.astype(np.float64), 1))
    red, green, blue = np.log(back)
    density = float(ground.cells.sum() / max(ground.lit.sum(), 1))
    if diameter is None or not ground.cells.any() or absorbed[1] < 0.02:
        return (red - green, blue - green, nothing, nothing, nothing, density, nothing, nothing)
    cell_size = np.log(max(ground.depth.shape) / (diameter * ground.factor))
    resolution = 0.0 if trained is None else min(math.log(diameter / trained), 0.0)
    return (
        red - green, blue - green, absorbed[0] / absorbed[1], absorbed[2] / absorbed[1],
        _measure_sharpness(image, ground, diameter), density, float(cell_size), resolution,
    )  # fmt: skip


def _measure_sharpness(image: np.ndarray, ground: Ground, diameter: float) -> float:
    """Return the logarithm of the ratio of fine to coarse detail of green in the cells; NaN if there is none.

    In the field at a size of 50 pixels a cell, fine detail is the 90th percentile of the absolute difference between
    Gaussian blurs of 0.5 and 1 pixel, coarse detail that between blurs of 1 and 2 pixels. The ratio does not depend on
    the contrast, and, because of the percentile, hardly on a scale bar or text in the field.
    """
    height, width = image.shape[:2]
    size = (max(round(width * 50 / diameter), 2), max(round(height * 50 / diameter), 2))
    green = np.asarray(Image.fromarray(image[..., 1]).resize(size, Image.Resampling.BILINEAR), np.float32)
    cells = np.asarray(Image.fromarray(ground.cells).resize(size, Image.Resampling.NEAREST))
    if not cells.any():
        return float("nan")
    fine, middle, coarse = (load_ndimage().gaussian_filter(green, sigma) for sigma in (0.5, 1.0, 2.0))
    details = [
        float(np.percentile(np.abs(one - other)[cells], 90)) for one, other in ((fine, middle), (middle, coarse))
    ]
    return math.log(details[0] / details[1]) if min(details) > 0 else float("nan")


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
