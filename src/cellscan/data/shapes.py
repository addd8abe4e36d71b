"""Checking and clipping the boxes, polygons, points and labels that a caller gives for one field."""

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
"""Special labels in a padded array of boxes: padding without a box; an ignored box, such as a doubtful cell."""

NOT_ANNOTATED = -3
"""Label ``NOT_ANNOTATED - k`` in a padded array of boxes: not every cell of class k has a box in this field."""

_ROUNDING = 0.01
"""Pixels by which a box may lie outside the frame without being counted as clipped: files contain rounded numbers."""

_TIDIED = ("clipped to the frame", "without area dropped", "given twice dropped")


@dataclass(frozen=True)
class Shapes:
    """Read-only annotations of one field, and the numbers of boxes that were tidied, in the order of `_TIDIED`."""

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
    """Return copies of the annotations of a field. Boxes are clipped; empty and repeated boxes are dropped.

    Parameters
    ----------
    name : str
        Name of the field, for error messages.
    size : (2,) int
        Width and height in pixels.
    class_names : sequence of str
    boxes, labels, polygons, points, marks
        As in `FieldDataset.from_arrays`. `polygons` may be None; `marks` are the labels of the points.

    Raises
    ------
    DataError
        An annotation is not as described there.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.shapes import tidy
    >>> tidy("a", np.array([50, 40]), ["cell"], [[10, 10, 60, 30]], ["cell"], None, [], []).boxes.tolist()
    [[10.0, 10.0, 50.0, 30.0]]
    """
    boxes, labels = _check_boxes(name, boxes), _check_labels(name, labels, class_names)
    rings: list[tuple[np.ndarray, ...]] = [()] * len(boxes) if polygons is None else _check_polygons(name, polygons)
    if not len(boxes) == len(labels) == len(rings):
        more = "" if polygons is None else f", and polygons of {len(rings)} boxes"
        raise DataError(
            f"{name}: there are {len(boxes)} boxes and {len(labels)} labels{more}; expected as many of each"
        )
    points, point_labels = _check_points(name, points, size), _check_labels(name, marks, class_names)
    if len(points) != len(point_labels):
        raise DataError(
            f"{name}: there are {len(points)} points and {len(point_labels)} point labels; expected as many of each"
        )
    clipped = np.clip(boxes, 0, np.tile(size, 2).astype(np.float32))
    has_area = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    rows = np.flatnonzero(has_area)
    _, first = np.unique(np.c_[clipped, labels][rows], axis=0, return_index=True)
    counts = (
        int(((np.abs(clipped - boxes) > _ROUNDING).any(1) & has_area).sum()),
        int((~has_area).sum()),
        len(rows) - len(first),
    )
    rows = rows[np.sort(first)]
    kept_rings = tuple(rings[row] for row in rows.tolist())
    return Shapes(frozen(clipped[rows]), frozen(labels[rows]), kept_rings, frozen(points), frozen(point_labels), counts)


def told_of(rows: Sequence[Shapes]) -> list[str]:
    """Return notes with the numbers of tidied boxes in all fields."""
    sums = [sum(row.counts[kind] for row in rows) for kind in range(len(_TIDIED))]
    counts = zip(sums, _TIDIED, strict=True)
    return [f"{count:,} {'box' if count == 1 else 'boxes'} {what}" for count, what in counts if count]


def _check_boxes(name: str, boxes: Any) -> np.ndarray:
    """Return boxes (n, 4) float32, a copy."""
    try:
        array = np.array(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the boxes are not numbers; expected (n, 4), xyxy in pixels") from error
    if array.size and array.shape[-1:] != (4,):
        raise DataError(f"{name}: the boxes have the shape {array.shape}; expected (n, 4), xyxy in pixels")
    array = array.reshape(-1, 4)
    if not np.isfinite(array).all():
        raise DataError(f"{name}: a box has NaN or infinity, so it is not finite; expected pixels")
    bad = array[(array[:, 2:] < array[:, :2]).any(1)]
    if len(bad):
        raise DataError(f"{name}: the box {bad[0].tolist()} has a negative side; expected left, top, right, bottom")
    return array


def _check_polygons(name: str, polygons: Any) -> list[tuple[np.ndarray, ...]]:
    """Return the polygons of every box, (k, 2) float32 copies."""
    try:
        copies = [
            tuple(frozen(np.array(ring, np.float32)) for ring in rings) if len(rings) else () for rings in polygons
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the polygons are not numbers; expected (k, 2), x and y in pixels") from error
    for rings in copies:
        for ring in rings:
            if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
                raise DataError(
                    f"{name}: a polygon has the shape {ring.shape} or is not finite; expected (k, 2) finite numbers, "
                    "k at least 3"
                )
    return copies


def _check_points(name: str, points: Any, size: np.ndarray) -> np.ndarray:
    """Return points (m, 2) float32, a copy."""
    try:
        array = np.array(points, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the points are not numbers; expected (m, 2), x and y in pixels") from error
    if array.size and array.shape[-1:] != (2,):
        raise DataError(f"{name}: the points have the shape {array.shape}; expected (m, 2), x and y in pixels")
    array = array.reshape(-1, 2)
    bad = array[~((array >= 0) & (array <= size)).all(1)]
    if len(bad):
        raise DataError(f"{name}: the point {bad[0].tolist()} lies outside the image, {size[0]} x {size[1]} pixels")
    return array


def _check_labels(name: str, labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Return labels (n,) int32, a copy."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "i" and labels.ndim == 1:
        known = (labels == IGNORED) | ((labels >= 0) & (labels < len(class_names)))
        if known.all():
            return labels.astype(np.int32)
    given = np.array(labels, object).ravel().tolist()
    ignored = [label is None or (isinstance(label, Real) and label == IGNORED) for label in given]
    valid = ~np.array(ignored, bool)
    checked = np.full(len(given), IGNORED, np.int32)
    try:
        checked[valid] = as_labels([label for label, real in zip(given, valid, strict=True) if real], class_names)
    except DataError as error:
        raise DataError(f"{name}: {error}; use {IGNORED}, or None among names, to ignore a box") from error
    return checked
