"""A field of any size and magnification -> inputs of one size that show cells as a detector knows them, and back."""

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
"""Factor of the trained diameter within which a field that fits its input is left as it is trained."""

OVERLAP = 1.5
"""Of tiles, in trained diameters: a cell whose middle is this side of the middle of it is whole in its tile."""

MOST = 1000
"""Tiles of a field at most."""


@dataclass(frozen=True)
class Tile:
    """One input, and what of the field it shows; all in pixels of the rescaled lit part, from its corner.

    Attributes
    ----------
    left, top : int
        Of the tile.
    core : tuple[float, float, float, float]
        Left, top, right, bottom: a box counts in the tile whose core has its middle.
    """

    left: int
    top: int
    core: tuple[float, float, float, float]


@dataclass(frozen=True)
class Tiling:
    """How a field is shown to a detector.

    Attributes
    ----------
    box : tuple[int, int, int, int]
        Left, top, right, bottom of what is shown, in pixels of the image.
    inner : tuple[int, int]
        Its width and height once it is rescaled.
    size : tuple[int, int]
        Height and width of an input.
    tiles : tuple[Tile, ...]
    """

    box: tuple[int, int, int, int]
    inner: tuple[int, int]
    size: tuple[int, int]
    tiles: tuple[Tile, ...]

    def show(self, image: np.ndarray, ground: Ground | None) -> list[np.ndarray]:
        """Return the inputs (h, w, 3) uint8; room, and what is not lit, has the colour of the background."""
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
        shown = []
        for tile in self.tiles:
            high, wide = min(self.size[0], self.inner[1] - tile.top), min(self.size[1], self.inner[0] - tile.left)
            window = (tile.left * across, tile.top * down, (tile.left + wide) * across, (tile.top + high) * down)
            window = (*window[:2], min(window[2], whole.width), min(window[3], whole.height))
            same = whole.size == (wide, high)
            one = whole if same else whole.resize((wide, high), Image.Resampling.BILINEAR, box=window)
            pixels = np.empty((*self.size, 3), np.uint8)
            pixels[:] = colour
            pixels[:high, :wide] = np.asarray(one)
            shown.append(pixels)
        return shown

    def merge(self, rows: list[np.ndarray], iou_threshold: float) -> np.ndarray:
        """Return what was found (n, 6), in pixels of the image, of what was found in each tile (m, 6).

        Of boxes of one class that overlap by more than `iou_threshold`, and come of two tiles, the better stays.
        """
        found, owners = [], []
        for number, (tile, own) in enumerate(zip(self.tiles, rows, strict=True)):
            own = own[own[:, 4] > 0].copy()
            own[:, :4] += np.tile(np.array([tile.left, tile.top], np.float32), 2)
            own[:, :4] = np.clip(own[:, :4], 0, np.tile(np.array(self.inner, np.float32), 2))
            x, y = (own[:, 0] + own[:, 2]) / 2, (own[:, 1] + own[:, 3]) / 2
            left, top, right, bottom = tile.core
            own = own[(x >= left) & (x < right) & (y >= top) & (y < bottom)]
            found.append(own)
            owners.append(np.full(len(own), number))
        all_found, owner = np.concatenate(found), np.concatenate(owners)
        order = np.argsort(-all_found[:, 4], kind="stable")
        all_found, owner = all_found[order], owner[order]
        if len(self.tiles) > 1:
            all_found = all_found[_best(all_found, owner, iou_threshold)]
        left, top, right, bottom = self.box
        back = np.array([(right - left) / self.inner[0], (bottom - top) / self.inner[1]], np.float32)
        all_found[:, :4] = all_found[:, :4] * np.tile(back, 2) + np.tile(np.array([left, top], np.float32), 2)
        return all_found


def as_trained(image: np.ndarray, size: tuple[int, int]) -> Tiling:
    """Return the field fitted into one input, whatever it shows."""
    height, width = image.shape[:2]
    return Tiling((0, 0, width, height), fitted(width, height, size), size, (Tile(0, 0, _WHOLE),))


_WHOLE = (-math.inf, -math.inf, math.inf, math.inf)


def plan_tiles(ground: Ground, size: tuple[int, int], diameter: float | None, trained: float | None) -> Tiling:
    """Plan how a field is shown so that its cells have the diameter that a detector was trained at.

    A field that fits into one input with cells within a fifth of that diameter is fitted: it is shown as in training.

    Parameters
    ----------
    ground : Ground
    size : (int, int)
        Height and width of an input.
    diameter, trained : float or None
        Of the cells, in pixels of the image; and in training, in pixels of an input. Where one is None, fitted.

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
    """Return start, and start and end of the core, of tiles that cover a length."""
    overlap = min(overlap, side / 2)
    count = 1 if length <= side else math.ceil((length - overlap) / (side - overlap))
    starts = [round(number * (length - side) / max(count - 1, 1)) for number in range(count)]
    seams = [(first + side + second) / 2 for first, second in itertools.pairwise(starts)]
    return list(zip(starts, [-math.inf, *seams], [*seams, math.inf], strict=True))


def _best(found: np.ndarray, owner: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Return a mask of the boxes, the best first, that no better one of another tile and the same class covers."""
    kept = np.ones(len(found), bool)
    area = (found[:, 2:4] - found[:, :2]).prod(1)
    for row in range(1, len(found)):
        rival = kept[:row] & (owner[:row] != owner[row]) & (found[:row, 5] == found[row, 5])
        if not rival.any():
            continue
        others = found[:row][rival]
        sides = np.minimum(found[row, 2:4], others[:, 2:4]) - np.maximum(found[row, :2], others[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        kept[row] = not (shared > iou_threshold * (area[row] + area[:row][rival] - shared)).any()
    return kept
