"""Mosaics: fields composed of pieces of other fields, with cells of similar size, to train on several laboratories."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from cellscan.data.fields import FieldDataset
from cellscan.data.rendered import RenderedSource
from cellscan.data.shapes import IGNORED
from cellscan.data.sources import Source
from cellscan.data.synthetic import check_field_size
from cellscan.data.values import as_range, check_number, check_seed, check_whole
from cellscan.detection.ground import find_ground
from cellscan.errors import ArgumentError, DataError

_MOST_PARTS = 6
"""Largest number of pieces along each side of a mosaic."""

_WHOLE, _SLIVER = 0.5, 0.05
"""Limits for the visible share of a box: boxes at or above the first count, those below the second are dropped, and
those in between are ignored."""

_LEAST = 16
"""Smallest shorter side of a field without its margin, in pixels of the image."""


class Piece(NamedTuple):
    """A window of a field and its position in a mosaic; all rectangles are left, top, right and bottom in pixels.

    Attributes
    ----------
    row : int
        Row of the field in the source.
    window : tuple[float, float, float, float]
        Rectangle in the field.
    place : tuple[int, int, int, int]
        Rectangle in the mosaic that the rescaled window fills.
    part : tuple[int, int, int, int]
        Rectangle in the mosaic that belongs to the piece. Outside `place`, it has the background colour of the field.
    """

    row: int
    window: tuple[float, float, float, float]
    place: tuple[int, int, int, int]
    part: tuple[int, int, int, int]


def mosaic_fields(
    fields: FieldDataset,
    count: int,
    *,
    size: tuple[int, int] = (360, 480),
    cell_diameter: float | tuple[float, float] = (24.0, 40.0),
    margin: float = 0.0,
    seed: int = 0,
) -> FieldDataset:
    """Compose mosaics from pieces of fields, rescaled so that all cells have a similar diameter.

    A field is rescaled by the median side of its boxes of the first class. Along each side, a mosaic has as many pieces
    as rescaled fields of typical size fit there, or one more. If the laboratories are known, the laboratory of a piece
    is drawn first and then the field, so that each laboratory contributes equally. The images are computed when they
    are read.

    Parameters
    ----------
    fields : FieldDataset
        Fields with boxes. Fields without a box of the first class are not used.
    count : int
        Number of mosaics, at least 1.
    size : (int, int)
        Height and width in pixels, each at least 96.
    cell_diameter : float or (float, float)
        Diameter of the red cells of a piece, in pixels, or the range from which it is drawn; at least 8.
    margin : float
        Width of the border of the fields that is not used, in cell diameters, in [0, 3]. Use it for sets in which cells
        at the image border have no boxes.
    seed : int
        The same seed, fields and arguments give the same mosaics.

    Returns
    -------
    FieldDataset
        Fields with the classes of `fields`. Boxes are ignored if less than half of them is visible. A class is complete
        in a mosaic if it is complete in all of its pieces. Points are dropped, and their classes are not complete.

    Raises
    ------
    ArgumentError
        If a number or a size is out of range.
    DataError
        If no field has a box of the first class.

    Examples
    --------
    >>> import cellscan
    >>> mosaics = cellscan.mosaic_fields(cellscan.synthetic_fields(4, seed=0), 2, seed=0)
    >>> mosaics[0].image.shape, mosaics.class_names
    ((360, 480, 3), ('red blood cell', 'infected'))
    """
    if not isinstance(fields, FieldDataset):
        raise ArgumentError(f"fields is a {type(fields).__name__}; expected a FieldDataset, see cellscan.load_fields")
    count, seed, size = check_whole("count", count, 1), check_seed(seed), check_field_size(size)
    low, high = as_range("cell_diameter", cell_diameter, 8, min(size) / 2)
    margin = check_number("margin", margin, 0, 3, "[]")
    diameters = np.array([_measure(*annotations) for annotations in zip(fields.boxes, fields.labels, strict=True)])
    trimmed = fields.sizes - 2 * margin * diameters[:, None]
    usable = np.flatnonzero(np.isfinite(diameters) & (np.nan_to_num(trimmed).min(1, initial=1e9) >= _LEAST))
    if not len(usable):
        raise DataError(f"no field has a box of {' or '.join(fields.class_names[:1]) or 'a class'} inside its margin")
    laboratories = fields.laboratories[usable]
    by_laboratory = [usable[laboratories == name] for name in np.unique(laboratories)]
    frame = np.array([*size[::-1]])
    typical = np.median(trimmed[usable] / diameters[usable, None], 0) * math.sqrt(low * high)
    parts = np.clip(np.rint(frame / typical), 1, _MOST_PARTS).astype(int)
    plans: list[tuple[Piece, ...]] = []
    boxes, labels = [], []
    boxed, complete = fields.boxed(), np.ones((count, len(fields.class_names)), bool)
    for number in range(count):
        rng = np.random.default_rng([seed, 6, number])
        pieces: list[Piece] = []
        piece_boxes, piece_labels = [np.zeros((0, 4))], [np.zeros(0, np.int32)]
        for part in _split(rng, frame, parts):
            rows = by_laboratory[int(rng.integers(len(by_laboratory)))]
            row = int(rows[rng.integers(len(rows))])
            factor = float(np.exp(rng.uniform(np.log(low), np.log(high)))) / diameters[row]
            piece = _choose(rng, fields.sizes[row], margin * diameters[row], factor, part, int(fields.rows[row]))
            moved_boxes, moved_labels = _move(fields.boxes[row], fields.labels[row], piece)
            pieces.append(piece)
            piece_boxes.append(moved_boxes)
            piece_labels.append(moved_labels)
            complete[number] &= boxed[row]
        plans.append(tuple(pieces))
        boxes.append(np.concatenate(piece_boxes).astype(np.float32))
        labels.append(np.concatenate(piece_labels))
    source = MosaicSource(plans, fields.source, size)
    names = [f"mosaic_{number:05d}.png" for number in range(count)]
    return FieldDataset.from_source(source, boxes, labels, names, fields.class_names, complete=complete)


def _measure(boxes: np.ndarray, labels: np.ndarray) -> float:
    """Return the median side of the boxes of the first class; NaN if there are none."""
    first = boxes[labels == 0]
    return float(np.median(np.sqrt((first[:, 2:] - first[:, :2]).prod(1)))) if len(first) else math.nan


def _split(rng: np.random.Generator, frame: np.ndarray, parts: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Divide a mosaic of size `frame` (width, height) into about `parts` columns and rows of random sizes."""
    columns, rows = np.minimum(parts + rng.integers(0, 2, 2), _MOST_PARTS).tolist()

    def cuts(length: int, parts: int) -> list[int]:
        inner = (np.arange(1, parts) + rng.uniform(-0.25, 0.25, parts - 1)) * length / parts
        return [0, *np.rint(inner).astype(int).tolist(), length]

    across, down = cuts(int(frame[0]), columns), cuts(int(frame[1]), rows)
    return [
        (across[i], down[j], across[i + 1], down[j + 1]) for j in range(rows) for i in range(columns)
    ]  # fmt: skip


def _choose(
    rng: np.random.Generator, size: np.ndarray, margin: float, factor: float, part: tuple[int, int, int, int], row: int
) -> Piece:
    """Choose the window of a field that fills a part, or the position of the field in the part if it is smaller."""
    window, place = np.zeros((2, 2)), np.zeros((2, 2), int)
    for axis in range(2):
        side = part[axis + 2] - part[axis]
        available = float(size[axis]) - 2 * margin
        length = min(side, max(math.floor(available * factor), 1))
        start = part[axis] + int(rng.integers(side - length + 1))
        first = margin + rng.uniform(0, max(available - length / factor, 0))
        window[:, axis] = first, min(first + length / factor, float(size[axis]))
        place[:, axis] = start, start + length
    left, top, right, bottom = window.ravel().tolist()
    x0, y0, x1, y1 = place.ravel().tolist()
    return Piece(row, (left, top, right, bottom), (x0, y0, x1, y1), part)


def _move(boxes: np.ndarray, labels: np.ndarray, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes and the labels of a piece, in pixels of the mosaic."""
    left, top, right, bottom = piece.window
    factor = np.array(
        [(piece.place[2] - piece.place[0]) / (right - left), (piece.place[3] - piece.place[1]) / (bottom - top)]
    )
    whole = (boxes - [left, top, left, top]) * np.tile(factor, 2) + np.tile(piece.place[:2], 2)
    inside = np.clip(whole, np.tile(piece.place[:2], 2), np.tile(piece.place[2:], 2))
    area = np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1e-9)
    visible = (inside[:, 2:] - inside[:, :2]).prod(1) / area
    new_labels = np.where((visible < _WHOLE) & (labels >= 0), IGNORED, labels)
    used = visible >= _SLIVER
    return inside[used], new_labels[used].astype(np.int32)


class MosaicSource(RenderedSource):
    """Renders planned mosaics from the fields of another source."""

    def __init__(self, plans: list[tuple[Piece, ...]], fields: Source, size: tuple[int, int]) -> None:
        super().__init__(np.tile([size[1], size[0]], (len(plans), 1)))
        self._plans, self._fields, self._size = plans, fields, size

    def identity(self) -> str:
        return f"1|{self._fields.fingerprint()}|{self._size}|{self._plans!r}"

    def render(self, row: int) -> np.ndarray:
        canvas = np.empty((*self._size, 3), np.uint8)
        for piece in self._plans[row]:
            image = self._fields.read(piece.row)
            x0, y0, x1, y1 = piece.place
            if piece.place != piece.part:
                canvas[piece.part[1] : piece.part[3], piece.part[0] : piece.part[2]] = find_ground(image).colour
            window = Image.fromarray(image).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=piece.window)
            canvas[y0:y1, x0:x1] = np.asarray(window)
        return canvas
