"""Tiles of a field: inputs of one size with cells of the trained diameter, and the merging of their detections."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cellscan.data.images import fitted
from cellscan.detection.ground import Ground
from cellscan.errors import ArgumentError

NEAR = 1.2
"""Largest factor between the diameter and the trained one at which a field is fitted into one input, as in training."""

OVERLAP = 1.5
"""Overlap of tiles in trained diameters. It is large enough that each cell lies completely in the tile that counts
it."""

MOST = 1000
"""Largest number of tiles of a field."""


@dataclass(frozen=True)
class Tile:
    """Position of one input in a field, in pixels of the rescaled illuminated part, from its upper left corner.

    Attributes
    ----------
    left, top : int
        Upper left corner of the tile.
    core : tuple[float, float, float, float]
        Left, top, right, bottom of the core. A box counts in the tile whose core contains its centre.
    """

    left: int
    top: int
    core: tuple[float, float, float, float]


@dataclass(frozen=True)
class Tiling:
    """Division of a field into inputs of a detector.

    Attributes
    ----------
    box : tuple[int, int, int, int]
        Left, top, right, bottom of the part of the field that is used, in pixels of the image.
    inner : tuple[int, int]
        Width and height of this part after rescaling.
    size : tuple[int, int]
        Height and width of an input.
    tiles : tuple[Tile, ...]
        The tiles of the rescaled part.
    """

    box: tuple[int, int, int, int]
    inner: tuple[int, int]
    size: tuple[int, int]
    tiles: tuple[Tile, ...]

    def show(self, image: np.ndarray, ground: Ground | None) -> list[np.ndarray]:
        """Return the inputs (h, w, 3) uint8; padding and dark borders are filled with the background colour."""
        left, top, right, bottom = self.box
        part = image[top:bottom, left:right]
        colour = np.zeros(3, np.uint8)
        if ground is not None:
            colour = ground.colour
            if not ground.lit.all():
                lit = Image.fromarray(ground.lit).resize(image.shape[1::-1], Image.Resampling.NEAREST)
                part = np.where(np.asarray(lit)[top:bottom, left:right, None], part, colour)
        whole = Image.fromarray(np.ascontiguousarray(part))
        across, down = whole.width / self.inner[0], whole.height / self.inner[1]
        inputs = []
        for tile in self.tiles:
            height, width = min(self.size[0], self.inner[1] - tile.top), min(self.size[1], self.inner[0] - tile.left)
            window = (tile.left * across, tile.top * down, (tile.left + width) * across, (tile.top + height) * down)
            window = (*window[:2], min(window[2], whole.width), min(window[3], whole.height))
            same = whole.size == (width, height)
            resized = whole if same else whole.resize((width, height), Image.Resampling.BILINEAR, box=window)
            pixels = np.empty((*self.size, 3), np.uint8)
            pixels[:] = colour
            pixels[:height, :width] = np.asarray(resized)
            inputs.append(pixels)
        return inputs

    def merge(self, rows: list[np.ndarray], iou_threshold: float) -> np.ndarray:
        """Merge the detections of all tiles, (m, 6) each, into those of the field (n, 6), in pixels of the image.

        If boxes of one class from different tiles have an IoU above `iou_threshold`, only the one with the higher score
        is kept.
        """
        tile_rows, tile_numbers = [], []
        for number, (tile, boxes) in enumerate(zip(self.tiles, rows, strict=True)):
            boxes = boxes[boxes[:, 4] > 0].copy()
            boxes[:, :4] += np.tile(np.array([tile.left, tile.top], np.float32), 2)
            boxes[:, :4] = np.clip(boxes[:, :4], 0, np.tile(np.array(self.inner, np.float32), 2))
            x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            left, top, right, bottom = tile.core
            boxes = boxes[(x >= left) & (x < right) & (y >= top) & (y < bottom)]
            tile_rows.append(boxes)
            tile_numbers.append(np.full(len(boxes), number))
        merged, numbers = np.concatenate(tile_rows), np.concatenate(tile_numbers)
        order = np.argsort(-merged[:, 4], kind="stable")
        merged, numbers = merged[order], numbers[order]
        if len(self.tiles) > 1:
            merged = merged[_best(merged, numbers, iou_threshold)]
        left, top, right, bottom = self.box
        scale = np.array([(right - left) / self.inner[0], (bottom - top) / self.inner[1]], np.float32)
        merged[:, :4] = merged[:, :4] * np.tile(scale, 2) + np.tile(np.array([left, top], np.float32), 2)
        # Rounding may move a side beyond the frame again.
        np.clip(merged[:, :4], (left, top, left, top), (right, bottom, right, bottom), out=merged[:, :4])
        return merged


def as_trained(image: np.ndarray, size: tuple[int, int]) -> Tiling:
    """Return a tiling that fits the whole field into one input, as in training."""
    height, width = image.shape[:2]
    return Tiling((0, 0, width, height), fitted(width, height, size), size, (Tile(0, 0, _WHOLE),))


_WHOLE = (-math.inf, -math.inf, math.inf, math.inf)


def plan_tiles(ground: Ground, size: tuple[int, int], diameter: float | None, trained: float | None) -> Tiling:
    """Divide a field into tiles so that its cells have the diameter of the cells in training.

    If the cells of a field that is fitted into one input are within a factor of 1.2 of this diameter, the field is
    fitted into one input, as in training.

    Parameters
    ----------
    ground : Ground
        Background of the field.
    size : (int, int)
        Height and width of an input.
    diameter, trained : float or None
        Diameter of the cells in pixels of the image, and diameter in training in pixels of an input. If one of them is
        None, the field is fitted into one input.

    Returns
    -------
    Tiling

    Raises
    ------
    ArgumentError
        If there would be more than 1,000 tiles.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.detection.ground import find_ground
    >>> from cellscan.detection.tiling import plan_tiles
    >>> ground = find_ground(cellscan.synthetic_fields(1, seed=0)[0].image)
    >>> len(plan_tiles(ground, (96, 128), 50.0, 25.0).tiles), len(plan_tiles(ground, (360, 480), 50.0, 45.0).tiles)
    (9, 1)
    """
    left, top, right, bottom = ground.box
    width, height = right - left, bottom - top
    inner = fitted(width, height, size)
    if diameter is None or trained is None or 1 / NEAR <= diameter * inner[0] / width / trained <= NEAR:
        return Tiling(ground.box, inner, size, (Tile(0, 0, _WHOLE),))
    factor = trained / diameter
    inner = (max(round(width * factor), 1), max(round(height * factor), 1))
    across, down = (_cut(length, side, OVERLAP * trained) for length, side in zip(inner, size[::-1], strict=True))
    if len(across) * len(down) > MOST:
        raise ArgumentError(
            f"cells of {diameter:.3g} pixels in {width} x {height} would make {len(across) * len(down):,} tiles of "
            f"the detector's input; expected at most {MOST:,}. Give the diameter of a red cell, in pixels of the image"
        )
    tiles = tuple(Tile(x, y, (x0, y0, x1, y1)) for y, y0, y1 in down for x, x0, x1 in across)
    return Tiling(ground.box, inner, size, tiles)


def _cut(length: int, side: int, overlap: float) -> list[tuple[int, float, float]]:
    """Return the start of each tile along a length, and the start and the end of its core."""
    overlap = min(overlap, side / 2)
    count = 1 if length <= side else math.ceil((length - overlap) / (side - overlap))
    starts = [round(number * (length - side) / max(count - 1, 1)) for number in range(count)]
    seams = [(first + side + second) / 2 for first, second in itertools.pairwise(starts)]
    return list(zip(starts, [-math.inf, *seams], [*seams, math.inf], strict=True))


def _best(boxes: np.ndarray, numbers: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Return a mask of the boxes that no box of higher score, of the same class and from another tile, suppresses.

    The boxes (n, 6) are in descending order of score; `numbers` are the numbers of their tiles.
    """
    mask = np.ones(len(boxes), bool)
    area = (boxes[:, 2:4] - boxes[:, :2]).prod(1)
    for row in range(1, len(boxes)):
        rival = mask[:row] & (numbers[:row] != numbers[row]) & (boxes[:row, 5] == boxes[row, 5])
        if not rival.any():
            continue
        others = boxes[:row][rival]
        sides = np.minimum(boxes[row, 2:4], others[:, 2:4]) - np.maximum(boxes[row, :2], others[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        mask[row] = not (shared > iou_threshold * (area[row] + area[:row][rival] - shared)).any()
    return mask
