"""What callers give as boxes, polygons, points and labels of one field -> arrays inside its frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from cellscan.data.cells import frozen
from cellscan.data.values import as_labels
from cellscan.errors import DataError

NONE, IGNORED = -1, -2
"""Labels in a padded array of boxes: no box; a box that counts neither for nor against, such as a doubtful cell."""

NOT_ANNOTATED = -3
"""In a padded array of boxes ``NOT_ANNOTATED - k`` says that not every cell of class k has a box in this field."""

_TIDIED = ("clipped to the frame", "without area dropped", "given twice dropped")


@dataclass(frozen=True)
class Shapes:
    """What is annotated in one field, read-only, and how many boxes were clipped or dropped, as `_TIDIED` names it."""

    boxes: np.ndarray
    labels: np.ndarray
    polygons: tuple[tuple[np.ndarray, ...], ...]
    points: np.ndarray
    point_labels: np.ndarray
    counts: tuple[int, int, int]


def tidy(
    name: str,
    size: np.ndarray,
    class_names: Sequence[str],
    boxes: Any,
    labels: Any,
    polygons: Any,
    points: Any,
    marks: Any,
) -> Shapes:
    """Return copies of what is annotated in a field: boxes clipped, those without area or given twice dropped.

    Parameters
    ----------
    name : str
        Of the field, for errors.
    size : (2,) int
        Width and height.
    class_names : sequence of str
    boxes, labels, polygons, points, marks
        As of `FieldDataset.from_arrays`; no polygons if None; `marks` are the labels of points.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.shapes import tidy
    >>> tidy("a", np.array([50, 40]), ["cell"], [[10, 10, 60, 30]], ["cell"], None, [], []).boxes.tolist()
    [[10.0, 10.0, 50.0, 30.0]]
    """
    own, said = _check_boxes(name, boxes), _check_labels(name, labels, class_names)
    rings: list[tuple[np.ndarray, ...]] = [()] * len(own) if polygons is None else _check_polygons(name, polygons)
    if not len(own) == len(said) == len(rings):
        more = "" if polygons is None else f", and polygons of {len(rings)}"
        raise DataError(f"{name}: {len(own)} boxes and {len(said)} labels{more}; expected as many of each")
    spots, spots_said = _check_points(name, points, size), _check_labels(name, marks, class_names)
    if len(spots) != len(spots_said):
        raise DataError(f"{name}: {len(spots)} points and {len(spots_said)} of their labels; expected as many of each")
    inside = np.clip(own, 0, np.tile(size, 2).astype(np.float32))
    area = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    held = np.flatnonzero(area)
    _, first = np.unique(np.c_[inside, said][held], axis=0, return_index=True)
    counts = int(((inside != own).any(1) & area).sum()), int((~area).sum()), len(held) - len(first)
    held = held[np.sort(first)]
    drawn = tuple(rings[row] for row in held.tolist())
    return Shapes(frozen(inside[held]), frozen(said[held]), drawn, frozen(spots), frozen(spots_said), counts)


def told_of(rows: Sequence[Shapes]) -> list[str]:
    """Return notes on what was tidied in all fields together."""
    sums = [sum(row.counts[place] for row in rows) for place in range(len(_TIDIED))]
    counts = zip(sums, _TIDIED, strict=True)
    return [f"{count:,} {'box' if count == 1 else 'boxes'} {what}" for count, what in counts if count]


def _check_boxes(name: str, boxes: Any) -> np.ndarray:
    """Return boxes (n, 4) float32, a copy."""
    try:
        own = np.array(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the boxes are no numbers; expected (n, 4), xyxy in pixels") from error
    if own.size and own.shape[-1:] != (4,):
        raise DataError(f"{name}: boxes of shape {own.shape}; expected (n, 4), xyxy in pixels")
    own = own.reshape(-1, 4)
    if not np.isfinite(own).all():
        raise DataError(f"{name}: a box is not finite; expected numbers of pixels")
    bad = own[(own[:, 2:] < own[:, :2]).any(1)]
    if len(bad):
        raise DataError(f"{name}: the box {bad[0].tolist()} has a negative side; expected left, top, right, bottom")
    return own


def _check_polygons(name: str, polygons: Any) -> list[tuple[np.ndarray, ...]]:
    """Return the polygons of every box, (k, 2) float32 of their own memory."""
    try:
        found = [
            tuple(frozen(np.array(ring, np.float32)) for ring in rings) if len(rings) else () for rings in polygons
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the polygons are no numbers; expected (k, 2), x and y in pixels") from error
    for rings in found:
        for ring in rings:
            if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
                raise DataError(f"{name}: a polygon of shape {ring.shape}; expected (k, 2) finite, k from 3")
    return found


def _check_points(name: str, points: Any, size: np.ndarray) -> np.ndarray:
    """Return points (m, 2) float32, a copy."""
    try:
        own = np.array(points, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the points are no numbers; expected (m, 2), x and y in pixels") from error
    if own.size and own.shape[-1:] != (2,):
        raise DataError(f"{name}: points of shape {own.shape}; expected (m, 2), x and y in pixels")
    own = own.reshape(-1, 2)
    bad = own[~((own >= 0) & (own <= size)).all(1)]
    if len(bad):
        raise DataError(f"{name}: the point {bad[0].tolist()} lies outside the image, {size[0]} x {size[1]} pixels")
    return own


def _check_labels(name: str, labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Return labels (n,) int32, a copy."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "i" and labels.ndim == 1:
        known = (labels == IGNORED) | ((labels >= 0) & (labels < len(class_names)))
        if known.all():
            return labels.astype(np.int32)
    given = np.array(labels, object).ravel().tolist()
    ignored = [one is None or (isinstance(one, Real) and one == IGNORED) for one in given]
    counts = ~np.array(ignored, bool)
    said = np.full(len(given), IGNORED, np.int32)
    try:
        said[counts] = as_labels([one for one, real in zip(given, counts, strict=True) if real], class_names)
    except DataError as error:
        raise DataError(f"{name}: {error}; or {IGNORED}, or None among names, to ignore a box") from error
    return said
