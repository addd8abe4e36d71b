"""Synthetic cells and fields of synthetic patients, generated from a seed in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cellscan.data.cells import CellDataset
from cellscan.data.fields import FieldDataset
from cellscan.data.images import PIXEL_LIMIT
from cellscan.data.malaria import CLASS_NAMES
from cellscan.data.sources import ArraySource
from cellscan.data.values import check_seed, check_whole
from cellscan.errors import ArgumentError, check_choice
from cellscan.progress import Progress

MOST = 10_000_000
"""Largest number of cells or fields to generate. They are stored in memory."""


@dataclass(frozen=True)
class _Difficulty:
    strength: float  # opacity of parasites
    late: float  # share of late stages, which are larger than rings
    debris: float  # probability of each of three specks of stain
    spread: float  # variation of stain and lighting between patients


_DIFFICULTIES = {
    "easy": _Difficulty(strength=0.95, late=0.5, debris=0.0, spread=0.5),
    "normal": _Difficulty(strength=0.7, late=0.25, debris=0.4, spread=1.2),
    "hard": _Difficulty(strength=0.4, late=0.15, debris=0.5, spread=1.5),
}


@dataclass(frozen=True)
class _Patient:
    body: np.ndarray  # (3,) colour of the cells
    stain: np.ndarray  # (3,) colour of the parasites
    light: list[float]  # slope of the lighting in x and y
    diameter: float  # of the cells, in pixels
    pallor: float  # brightness added in the centre of a cell
    grain: float  # standard deviation of the pixel noise


def synthetic_cells(count: int, *, seed: int = 0, difficulty: str = "normal", progress: bool = True) -> CellDataset:
    """Generate single red blood cells, half of them with a malaria parasite.

    Outline, central pallor, stain and lighting vary between patients. Parasites are rings with a dot of chromatin, or
    late stages. Specks of stain and debris lie on cells of both classes. A quarter of the patients are healthy.

    The images are drawn, not photographed: a network trained on them does not work on real cells.

    Parameters
    ----------
    count : int
        Number of cells, at least 8. There are about 40 cells a patient, and at least four patients.
    seed : int
        At least 0. The same seed and count give the same cells with every version of JAX, because only NumPy draws
        random numbers. Another count gives other cells.
    difficulty : {"easy", "normal", "hard"}
        ``"easy"``: any convolutional network has an accuracy of about 0.99. ``"normal"``: a linear model on pixels
        stays below 0.9. ``"hard"``: rings are faint, and there is much debris.
    progress : bool
        Show a progress bar if generation takes longer than two seconds.

    Returns
    -------
    CellDataset
        Classes ``("parasitized", "uninfected")``; parasitized cells come first. `CellDataset.masks` contains the
        masks of the parasites.

    Raises
    ------
    ArgumentError
        `count` is out of range, or `difficulty` is unknown.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> print(cells)
    80 cells of 4 patients: parasitized 40, uninfected 40
    >>> bool((cells[0].image == cellscan.synthetic_cells(80, seed=0)[0].image).all())
    True
    """
    check_choice("difficulty", difficulty, tuple(_DIFFICULTIES))
    count, seed = check_whole("count", count, 8), check_seed(seed)
    if count > MOST:
        raise ArgumentError(f"count is {count}; expected at most {MOST:,}")
    level = _DIFFICULTIES[difficulty]
    rng = np.random.default_rng([seed, 0])
    patients = [_draw_patient(rng, level.spread) for _ in range(max(4, count // 40))]
    labels = (np.arange(count) >= count // 2).astype(np.int32)
    owner = _deal(rng, labels, len(patients))
    images, masks = [], []
    with Progress("generating", count, show=progress) as bar:
        for number in range(count):
            cell_rng = np.random.default_rng([seed, 1, number])
            image, mask = _draw_cell(cell_rng, patients[owner[number]], level, infected=labels[number] == 0)
            images.append(image)
            masks.append(mask)
            bar.advance(1)
    ids = [f"S{number:03d}" for number in owner]
    names = [f"{patient}_cell_{number:05d}.png" for number, patient in enumerate(ids)]
    return CellDataset.from_source(ArraySource(images, masks), labels, names, ids, CLASS_NAMES)


def _deal(rng: np.random.Generator, labels: np.ndarray, patients: int) -> np.ndarray:
    """Assign a patient to each cell, (N,) int64.

    Parasitized cells belong to the first three quarters of the patients; uninfected cells to all patients, such that
    the numbers of cells a patient are similar.
    """
    owner = np.empty(len(labels), np.int64)
    infected = np.arange(max(1, (3 * patients) // 4))
    burden = rng.uniform(0.4, 1.6, len(infected))
    sick = np.flatnonzero(labels == 0)
    owner[sick] = infected[np.searchsorted(np.cumsum(burden / burden.sum())[:-1], rng.random(len(sick)))]
    capacity = np.full(patients, len(labels) / patients)
    capacity = np.maximum(capacity - np.bincount(owner[sick], minlength=patients), 0.1 * capacity)
    well = np.flatnonzero(labels == 1)
    owner[well] = np.searchsorted(np.cumsum(capacity / capacity.sum())[:-1], rng.random(len(well)))
    owner[well[:patients]] = np.arange(patients)[: len(well)]  # Each patient has an uninfected cell.
    return owner


def _draw_patient(rng: np.random.Generator, spread: float) -> _Patient:
    tint = rng.normal(0, 0.05 * spread, 3)
    return _Patient(
        body=np.clip(np.array([0.80, 0.63, 0.68]) + tint + rng.normal(0, 0.05 * spread), 0.4, 0.95).astype(np.float32),
        stain=np.clip(np.array([0.42, 0.14, 0.48]) + rng.normal(0, 0.05 * spread, 3), 0.05, 0.7),
        light=rng.normal(0, 0.06 * spread, 2).tolist(),
        diameter=float(rng.uniform(58, 84)),
        pallor=float(rng.uniform(0.0, 0.12)),
        grain=float(rng.uniform(0.008, 0.02)),
    )


def _draw_cell(
    rng: np.random.Generator, patient: _Patient, level: _Difficulty, *, infected: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return one cell (H, W, 3) uint8, black outside its outline, and the mask (H, W) of its parasite."""
    radius = patient.diameter * rng.uniform(0.88, 1.12) / 2
    waves, turns = np.arange(2, 6), np.linspace(-np.pi, np.pi, 512)
    swing = rng.normal(0, 0.05, 4) / np.sqrt(waves - 1)
    phase = rng.uniform(0, 2 * np.pi, 4)
    outline = radius * (1 + (swing * np.cos(turns[:, None] * waves + phase)).sum(1)).astype(np.float32)
    half = int(np.ceil(outline.max())) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    border = outline[((np.arctan2(y, x) + np.pi) * (511 / (2 * np.pi))).astype(np.int32)]
    distance = np.sqrt(x * x + y * y)
    inside = distance < border

    depth = distance / border
    shade = 1 + patient.pallor * np.exp(-6 * depth**2) - 0.08 * depth**4
    shade += patient.light[0] / radius * x + patient.light[1] / radius * y
    cloud = rng.normal(0, 0.03, (5, 5)).astype(np.float32)
    at = np.linspace(0, 3.999, len(axis), dtype=np.float32)
    low, part = at.astype(int), at % 1
    rows = cloud[low] * (1 - part)[:, None] + cloud[low + 1] * part[:, None]
    shade += rows[:, low] * (1 - part) + rows[:, low + 1] * part
    image = patient.body * shade[..., None]

    mask = np.zeros(inside.shape, bool)
    for _ in range(3):
        if rng.random() < level.debris:
            image = _debris(rng, image, x, y, radius, patient.stain, level)
    if infected:
        image, mask = _parasite(rng, image, x, y, radius, patient.stain, level)
        mask &= inside
    image = image + patient.grain * rng.standard_normal((*inside.shape, 1), np.float32)
    image = np.where(inside[..., None], np.clip(image, 0.12, 1), 0)
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    return np.rint(image[window] * 255).astype(np.uint8), mask[window]


def _soft(field: np.ndarray) -> np.ndarray:
    """Return the opacity for a signed distance in pixels, positive inside: a ramp from 0 to 1 two pixels wide."""
    return np.clip(field / 2 + 0.5, 0, 1)


def _draw_point(rng: np.random.Generator, radius: float) -> tuple[float, float]:
    """Return x and y of a random point in a circle around 0, uniform over its area."""
    angle, distance = rng.uniform(0, 2 * math.pi), math.sqrt(rng.uniform(0, radius**2))
    return distance * math.cos(angle), distance * math.sin(angle)


def _turned(dx: np.ndarray, dy: np.ndarray, tilt: float, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates that are rotated by `tilt` and scaled by `stretch`, to draw elongated shapes."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    return (dx * cos + dy * sin) * stretch, (dy * cos - dx * sin) / stretch


def _blend(image: np.ndarray, opacity: np.ndarray, colour: np.ndarray) -> np.ndarray:
    opacity = opacity[..., None]
    return image + opacity * (colour.astype(np.float32) - image)


def _parasite(
    rng: np.random.Generator,
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    stain: np.ndarray,
    level: _Difficulty,
) -> tuple[np.ndarray, np.ndarray]:
    px, py = _draw_point(rng, 0.62 * radius)
    dx, dy = x - px, y - py
    strength = level.strength * rng.uniform(0.55, 1.0)
    if rng.random() < level.late:
        stretch, tilt = rng.uniform(0.7, 1.3), rng.uniform(0, np.pi)
        u, v = _turned(dx, dy, tilt, stretch)
        size = radius * rng.uniform(0.26, 0.38)
        lobes = 1 + 0.15 * np.cos(3 * np.arctan2(v, u) + rng.uniform(0, 6))
        opacity = strength * _soft(size * lobes - np.sqrt(u * u + v * v))
        image = _blend(image, 0.85 * opacity, stain)
        for _ in range(3):  # Late stages contain grains of pigment.
            gx, gy = _draw_point(rng, 0.6 * size)
            image = _blend(image, strength * _soft(1.6 - np.hypot(dx - gx, dy - gy)), np.array([0.25, 0.16, 0.10]))
        return image, opacity > 0.3
    size, thick = radius * rng.uniform(0.12, 0.22), radius * rng.uniform(0.035, 0.06)
    away = np.hypot(dx, dy * rng.uniform(0.85, 1.15))
    opacity = strength * _soft(thick - np.abs(away - size))
    turn = rng.uniform(0, 2 * np.pi)
    dot = _soft(radius * 0.085 - np.hypot(dx - size * math.cos(turn), dy - size * math.sin(turn)))
    image = _blend(image, opacity, stain)
    image = _blend(image, strength * dot, 0.7 * stain)
    return image, (away < size + thick) | (dot > 0.3)


def _debris(
    rng: np.random.Generator,
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    stain: np.ndarray,
    level: _Difficulty,
) -> np.ndarray:
    """Add a solid speck of stain, as dark as a parasite but without a ring, pigment or chromatin."""
    px, py = _draw_point(rng, 0.95 * radius)
    size = radius * rng.uniform(0.07, 0.2)
    stretch, tilt = rng.uniform(0.8, 1.25), rng.uniform(0, np.pi)
    u, v = _turned(x - px, y - py, tilt, stretch)
    opacity = level.strength * rng.uniform(0.6, 1.0) * _soft(size - np.hypot(u, v))
    return _blend(image, opacity, stain + rng.normal(0, 0.04, 3))


def synthetic_fields(
    count: int, *, seed: int = 0, size: tuple[int, int] = (360, 480), difficulty: str = "normal"
) -> FieldDataset:
    """Generate whole fields of red blood cells, some of them infected, with a box around each cell.

    Cells are drawn as by `synthetic_cells`, but smaller. They touch and overlap slightly, and some extend beyond the
    frame. The images are drawn, not photographed.

    Parameters
    ----------
    count : int
        Number of fields, at least 1. A field of the default size has about 30 cells; at most a fifth are infected.
    seed : int
        At least 0. The same seed gives the same fields.
    size : (int, int)
        Height and width in pixels, each at least 96.
    difficulty : {"easy", "normal", "hard"}
        As in `synthetic_cells`.

    Returns
    -------
    FieldDataset
        Classes ``("red blood cell", "infected")``.

    Raises
    ------
    ArgumentError
        `count` or `size` is out of range, or `difficulty` is unknown.

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.synthetic_fields(3, seed=0)
    >>> fields[0].image.shape
    (360, 480, 3)
    """
    check_choice("difficulty", difficulty, tuple(_DIFFICULTIES))
    count, seed = check_whole("count", count, 1), check_seed(seed)
    if count > MOST:
        raise ArgumentError(f"count is {count}; expected at most {MOST:,}")
    height, width = check_field_size(size)
    level = _DIFFICULTIES[difficulty]
    images, boxes, labels = [], [], []
    for number in range(count):
        rng = np.random.default_rng([seed, 2, number])
        patient = replace(_draw_patient(rng, level.spread), diameter=float(rng.uniform(44, 56)))
        share = rng.choice([0.0, rng.uniform(0.02, 0.2)], p=[0.2, 0.8])
        image, field_boxes, field_labels = _draw_field(rng, patient, level, height, width, share)
        images.append(image)
        boxes.append(field_boxes)
        labels.append(field_labels)
    names = [f"synthetic_{number:04d}.png" for number in range(count)]
    return FieldDataset.from_arrays(images, boxes, labels, class_names=("red blood cell", "infected"), names=names)


def check_field_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a generated field, or raise `ArgumentError`."""
    shape = size.shape if isinstance(size, np.ndarray) else (len(size),) if isinstance(size, (tuple, list)) else ()
    if shape != (2,):
        raise ArgumentError(f"size is {size!r}; expected a height and a width of at least 96 pixels")
    height, width = (check_whole("size", side, 96, "pixels") for side in size)
    if height * width > PIXEL_LIMIT:
        raise ArgumentError(f"size is {size!r}; expected at most {PIXEL_LIMIT:,} pixels in a field")
    return height, width


def _draw_field(
    rng: np.random.Generator, patient: _Patient, level: _Difficulty, height: int, width: int, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one field (H, W, 3) uint8, its boxes and its labels."""
    ground = np.clip(np.array([0.93, 0.90, 0.89]) + rng.normal(0, 0.02, 3), 0.7, 1)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    light = 1 + patient.light[0] * x + patient.light[1] * y
    canvas = ground * light[..., None] + patient.grain * rng.standard_normal((height, width, 1))
    canvas = np.rint(np.clip(canvas, 0.12, 1) * 255).astype(np.uint8)
    wanted = int(height * width / patient.diameter**2 * rng.uniform(0.3, 0.55))
    middles: list[tuple[float, float]] = []
    boxes, labels = [], []
    for _ in range(20 * wanted):
        if len(middles) == wanted:
            break
        at = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        if any(math.dist(at, other) < 0.92 * patient.diameter for other in middles):
            continue
        infected = bool(rng.random() < share)
        cell, _ = _draw_cell(rng, patient, level, infected=infected)
        left, top = round(at[0] - cell.shape[1] / 2), round(at[1] - cell.shape[0] / 2)
        box = (max(left, 0), max(top, 0), min(left + cell.shape[1], width), min(top + cell.shape[0], height))
        if min(box[2] - box[0], box[3] - box[1]) < patient.diameter / 3:
            continue
        part = cell[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
        inside = part.any(-1, keepdims=True)
        window = canvas[box[1] : box[3], box[0] : box[2]]
        window[:] = np.where(inside, part, window)
        middles.append(at)
        boxes.append(box)
        labels.append(int(infected))
    return canvas, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32)
