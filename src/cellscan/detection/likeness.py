"""What fields look like, and whether others look like them: errors measured on the ones hold for the others alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellscan.detection.ground import Ground

FEATURES = ("colour of the background", "stain", "sharpness", "density", "cell size")
"""What is compared: the first two of two numbers each, red and blue beside green."""

_NAMES = (0, 0, 1, 1, 2, 3, 4)


@dataclass(frozen=True)
class Likeness:
    """What the fields of one measurement looked like.

    Attributes
    ----------
    source : str
        Where they are from, such as ``"IML-Malaria"``.
    fields : int
        How many they were.
    low, high : tuple[float, ...]
        Range of every feature of `describe_field` over them, half of it added at either end.

    Examples
    --------
    >>> from cellscan.detection.likeness import Likeness
    >>> known = Likeness("here", 10, (0.0,) * 7, (1.0,) * 7)
    >>> known.differences([(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 2.0)])
    ('cell size',)
    """

    source: str
    fields: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def differences(self, described: Sequence[Sequence[float]]) -> tuple[str, ...]:
        """Return in what most of the described fields differ from those known, by name; nothing where in nothing.

        Examples
        --------
        >>> from cellscan.detection.likeness import Likeness
        >>> known = Likeness("here", 10, (0.0,) * 7, (1.0,) * 7)
        >>> known.differences([(0.5,) * 7, (0.4,) * 7])
        ()
        """
        rows = np.array(described, np.float64).reshape(-1, len(_NAMES))
        if not len(rows):
            return FEATURES
        with np.errstate(invalid="ignore"):
            outside = ~((rows >= np.array(self.low)) & (rows <= np.array(self.high)))
        each = np.stack([outside[:, [n == k for n in _NAMES]].any(1) for k in range(len(FEATURES))], 1)
        found = [name for name, share in zip(FEATURES, each.mean(0), strict=True) if share > _MANY]
        if not found and each.any(1).mean() > _MANY:
            found = [name for name, share in zip(FEATURES, each.mean(0), strict=True) if share > 0]
        return tuple(found)


_MANY = 0.5


def describe_field(ground: Ground, diameter: float | None) -> tuple[float, ...]:
    """Return seven numbers that say what a field looks like.

    Colour of the background: logarithm of its red and of its blue over its green. Stain: what cells absorb of red and
    of blue over what they absorb of green. Sharpness: the steepest tenth of green at the outlines, over the contrast
    of the cells, times a tenth of a diameter. Density: share of the field that is darker than the background. Cell
    size: logarithm of the width of the image over the diameter. NaN where there is nothing to measure.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.ground import find_ground
    >>> from cellscan.detection.likeness import describe_field
    >>> len(describe_field(find_ground(cellscan.synthetic_fields(1, seed=0)[0].image), 50.0))
    7
    """
    nothing = float("nan")
    back = np.maximum(ground.colour.astype(np.float64), 1)
    absorbed = np.log(back / np.maximum(ground.cell_colour.astype(np.float64), 1))
    red, green, blue = np.log(back)
    seen = ground.depth[ground.cells]
    if diameter is None or not seen.size or absorbed[1] < 0.02:
        return (red - green, blue - green, nothing, nothing, nothing, float(ground.cells.mean()), nothing)
    down, right = np.gradient(ground.depth)
    steep = np.hypot(right, down)[ground.cells]
    sharp = float(np.percentile(steep, 90) / np.median(seen) * diameter * ground.factor / 10)
    across = np.log(max(ground.depth.shape) / (diameter * ground.factor))
    return (
        red - green, blue - green, absorbed[0] / absorbed[1], absorbed[2] / absorbed[1], sharp,
        float(ground.cells.sum() / max(ground.lit.sum(), 1)), float(across),
    )  # fmt: skip


def learn_likeness(described: Sequence[Sequence[float]], source: str) -> Likeness:
    """Return what fields looked like, of what `describe_field` says of each.

    Examples
    --------
    >>> from cellscan.detection.likeness import learn_likeness
    >>> learn_likeness([(0.0,) * 7, (1.0,) * 7], "here").high[0]
    1.5
    """
    rows = np.array(described, np.float64).reshape(-1, len(_NAMES))
    low, high = np.nanmin(rows, 0), np.nanmax(rows, 0)
    room = (high - low) / 2
    low, high = np.nan_to_num(low - room), np.nan_to_num(high + room)
    return Likeness(source, len(rows), tuple(map(float, low)), tuple(map(float, high)))
