"""Composed fields: training data with exact boxes for a detector, from images of single cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from cellscan.data.cells import CellDataset
from cellscan.data.fields import FieldDataset
from cellscan.data.pixels import Pixels
from cellscan.data.rendered import RenderedSource
from cellscan.data.synthetic import check_field_size
from cellscan.data.values import as_range, check_number, check_seed, check_whole
from cellscan.detection.ground import find_ground
from cellscan.errors import ArgumentError, DataError
from cellscan.progress import Progress

CLASSES = ("red blood cell", "infected")

_BRIGHT = np.uint32(0xE0E0E0)
"""Bits of a pixel (red in the lowest byte) that are 0 in the background of a cut-out cell: all channels are at most 31.
They are above 0, because image compression blurs the edge."""

_COVER = (0.12, 0.6)
"""Range of the share of a field that cells cover."""

_HEALTHY = 0.2
"""Share of fields without an infected cell."""

_MOST_INFECTED = 0.5
"""Largest share of infected cells in a field."""

_CLUMPED = 0.35
"""Share of cells that are placed beside another cell."""

_CROWDED, _CLOSEST, _APART = 0.4, 0.45, 0.84
"""Share of fields in which cells overlap; range of the smallest distance of two cells there, and the smallest distance
in other fields, in sums of their radii."""

_TRANSPARENT = 0.7
"""Largest part of the light from below that a cell transmits."""

_INSIDE = 0.4
"""Smallest share of the width and of the height of a cell that lies in the field."""

_RECOLOURED = 0.6
"""Share of fields that get other colours if no style is given."""

_BLUR = 0.055
"""Largest standard deviation of the drawn blur, in cell diameters."""

_TRIES = 12
"""Largest number of positions that are tried for a cell."""


class Placed(NamedTuple):
    """A cell of a composed field.

    Attributes
    ----------
    row : int
        Row in the cell data set.
    box : tuple[int, int, int, int]
        Left, top, right, bottom in pixels; parts of it may lie outside the field.
    symmetry : int
        Three bits: swap the axes, mirror vertically, mirror horizontally.
    """

    row: int
    box: tuple[int, int, int, int]
    symmetry: int


@dataclass(frozen=True)
class Look:
    """Colours of a field to imitate: background and cells, (3,) float each, and the noise, in grey levels."""

    background: tuple[float, ...]
    cells: tuple[float, ...]
    noise: float


@dataclass(frozen=True)
class Plan:
    """Everything that determines a composed field: cells, diameter, colours and seed."""

    cells: tuple[Placed, ...]
    diameter: float
    look: Look | None
    seed: tuple[int, ...]


def compose_fields(
    cells: CellDataset,
    count: int,
    *,
    size: tuple[int, int] = (360, 480),
    cell_diameter: float | tuple[float, float] = (24.0, 40.0),
    infected: str = "parasitized",
    infected_share: float = 0.12,
    style: FieldDataset | None = None,
    seed: int = 0,
    progress: bool = True,
) -> FieldDataset:
    """Compose fields from images of single cells, with a box around every red cell.

    All cells of a field come from one patient. They are rotated, mirrored and placed on a background, alone or in
    clumps; in two fifths of the fields they also overlap. The image border cuts some of them. Synthetic white cells,
    platelets and specks of stain are drawn between the red cells. They count as background and have no boxes.
    Illumination, focus and noise vary. An image is computed when it is read.

    Parameters
    ----------
    cells : CellDataset
        Cut-out cells of two classes on a black background, with patients, such as those of `load_malaria`.
    count : int
        Number of fields, at least 1.
    size : (int, int)
        Height and width in pixels, each at least 96.
    cell_diameter : float or (float, float)
        Median diameter of the cells of a field, in pixels, or the range from which it is drawn; at least 8.
    infected : str
        Name of the class of infected cells in `cells`.
    infected_share : float
        Mean share of infected cells, in [0, 0.5]. The shares of fields are drawn from an exponential distribution with
        this mean, and limited to 0.5; a fifth of the fields has no infected cells at all.
    style : FieldDataset, optional
        Fields to imitate: each composed field takes the colours of background and cells, and the noise, of one of
        them. If omitted, the colour of the background is random, and 60 % of the fields are recoloured at random.
    seed : int
        The same seed, cells and arguments give the same fields.
    progress : bool
        Show a progress bar if the call takes longer than two seconds.

    Returns
    -------
    FieldDataset
        Fields with the classes ``("red blood cell", "infected")`` and the patient of each field.

    Raises
    ------
    ArgumentError
        If a number or a size is out of range, or the class is unknown.
    DataError
        If the patients are unknown, or there are no uninfected cells.
    ImageError
        If a cell or a field of `style` cannot be read.

    Notes
    -----
    The NIH set has no debris, and the outlines of its cells come from an automatic segmentation. Test a detector that
    is trained on composed fields only on photographs.

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.compose_fields(cellscan.synthetic_cells(200, seed=0), 4, seed=0)
    >>> fields.class_names, fields[0].image.shape
    (('red blood cell', 'infected'), (360, 480, 3))
    """
    if not isinstance(cells, CellDataset):
        raise ArgumentError(f"cells is a {type(cells).__name__}; expected a CellDataset, see cellscan.load_malaria")
    count, seed, size = check_whole("count", count, 1), check_seed(seed), check_field_size(size)
    low, high = as_range("cell_diameter", cell_diameter, 8, min(size) / 2)
    share = check_number("infected_share", infected_share, 0, _MOST_INFECTED, "[]")
    if infected not in cells.class_names:
        raise ArgumentError(f"infected is {infected!r:.80}; expected one of {', '.join(cells.class_names)}")
    if not (style is None or isinstance(style, FieldDataset)):
        raise ArgumentError(f"style is a {type(style).__name__}; expected a FieldDataset, see cellscan.load_fields")
    if not cells.has_patients:
        raise DataError(
            "the patients of these cells are unknown, but a composed field needs cells of one patient; load them with "
            "load_folder(dir, patient=...)"
        )
    side = 32 * math.ceil(high * 1.25 / 32)  # Rounded up, so that similar calls decode the cells once.
    pixels = cells.images(side, progress=progress)
    shapes = cells.sizes
    positive = cells.labels == cells.class_names.index(infected)
    by_patient = {
        patient: (np.flatnonzero(mask & ~positive), np.flatnonzero(mask & positive))
        for patient in sorted(set(cells.patients.tolist()))
        for mask in [cells.patients == patient]
    }
    by_patient = {patient: rows for patient, rows in by_patient.items() if len(rows[0])}
    if not by_patient:
        raise DataError(f"there are only {infected} cells; expected cells of both classes")
    names, looks = list(by_patient), _learn_looks(style, progress)
    plans, patients = [], []
    for number in range(count):
        rng = np.random.default_rng([seed, 4, number])
        patient = names[int(rng.integers(len(names)))]
        look = looks[int(rng.integers(len(looks)))] if looks else None
        diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        placed = _place(rng, by_patient[patient], shapes, diameter, share, size)
        plans.append(Plan(placed, diameter, look, (seed, 5, number)))
        patients.append(patient)
    source = ComposedSource(plans, pixels, size, cells.source_fingerprint())
    corner = np.tile(size[::-1], 2)
    boxes = [
        np.clip(np.array([placed.box for placed in plan.cells], np.float32).reshape(-1, 4), 0, corner) for plan in plans
    ]
    labels = [positive[[p.row for p in plan.cells]].astype(np.int32) for plan in plans]
    file_names = [f"composed_{number:05d}.png" for number in range(count)]
    fields = FieldDataset.from_source(source, boxes, labels, file_names, CLASSES)
    return fields.with_groups(patients=patients)


def _learn_looks(style: FieldDataset | None, progress: bool) -> list[Look]:
    """Return the colours of those fields in which the cells are darker than the background."""
    if style is None:
        return []
    looks = []
    with Progress("reading styles", len(style), show=progress) as bar:
        for field in style:
            ground = find_ground(field.image)
            if ground.cells.any() and (ground.colour.astype(float) > ground.cell_colour)[1]:
                background, cells = ground.colour.tolist(), ground.cell_colour.tolist()
                looks.append(Look(tuple(background), tuple(cells), ground.noise))
            bar.advance(1)
    if not looks:
        raise DataError("style has no field in which cells are darker than the background; expected thin films")
    return looks


def _place(
    rng: np.random.Generator,
    rows: tuple[np.ndarray, np.ndarray],
    shapes: np.ndarray,
    diameter: float,
    infected_share: float,
    size: tuple[int, int],
) -> tuple[Placed, ...]:
    """Choose cells of a patient and their positions; `rows` has those of uninfected and of infected cells."""
    height, width = size
    wanted = max(int(rng.uniform(*_COVER) * height * width / (math.pi / 4 * diameter**2)), 1)
    uninfected, infected = rows
    share = 0.0
    if len(infected) and infected_share and rng.random() >= _HEALTHY:
        share = min(_MOST_INFECTED, rng.exponential(infected_share) + 0.01)
    count = min(int(rng.binomial(wanted, share)), len(infected)) if share else 0
    chosen = np.concatenate([
        rng.choice(infected, count, replace=False) if count else infected[:0],
        rng.choice(uninfected, wanted - count, replace=len(uninfected) < wanted - count),
    ])  # fmt: skip
    chosen = rng.permutation(chosen)
    factor = diameter / float(np.median(np.sqrt(shapes[chosen].prod(1))))
    closest = rng.uniform(_CLOSEST, _APART) if rng.random() < _CROWDED else _APART
    middles, radii = np.zeros((wanted, 2)), np.zeros(wanted)
    placed: list[Placed] = []
    for row in chosen.tolist():
        symmetry = int(rng.integers(8))
        sides = np.maximum(np.rint(shapes[row] * factor * np.exp(rng.normal(0, 0.04))), 4).astype(int).tolist()
        cell_width, cell_height = sides[::-1] if symmetry & 1 else sides
        radius, done = math.sqrt(cell_width * cell_height) / 2, len(placed)
        for _ in range(_TRIES):
            if done and rng.random() < _CLUMPED:
                neighbour, angle = int(rng.integers(done)), rng.uniform(0, 2 * math.pi)
                distance = (radius + radii[neighbour]) * rng.uniform(closest + 0.02, 1.0)
                x, y = middles[neighbour] + distance * np.array([math.cos(angle), math.sin(angle)])
            else:
                x, y = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
            left, top = round(x - cell_width / 2), round(y - cell_height / 2)
            if (
                min(left + cell_width, width) - max(left, 0) < _INSIDE * cell_width
                or min(top + cell_height, height) - max(top, 0) < _INSIDE * cell_height
            ):
                continue
            distances = np.hypot(*(middles[:done] - (x, y)).T) / (radius + radii[:done])
            if done and distances.min() < closest:
                continue
            middles[done], radii[done] = (x, y), radius
            placed.append(Placed(row, (left, top, left + cell_width, top + cell_height), symmetry))
            break
    return tuple(placed)


class ComposedSource(RenderedSource):
    """Renders planned fields from cell images that are decoded once."""

    def __init__(self, plans: list[Plan], pixels: Pixels, size: tuple[int, int], cells: str) -> None:
        super().__init__(np.tile([size[1], size[0]], (len(plans), 1)))
        self._plans, self._pixels, self._size, self._cells = plans, pixels, size, cells

    def identity(self) -> str:
        return f"3|{self._cells}|{self._size}|{self._plans!r}"

    def render(self, row: int) -> np.ndarray:
        plan, (height, width) = self._plans[row], self._size
        rng = np.random.default_rng(list(plan.seed))
        cells = self._read_cells(plan)
        means = _mean_colours(cells)
        typical = np.median(means, 0) if len(means) else np.array([200.0, 150, 160])
        ground = 255 - (255 - typical) * rng.uniform(0.08, 0.55)
        ground = ground + (ground.mean() - ground) * rng.uniform(0, 0.7)
        gain, offset = _recolour(rng, plan.look, ground, typical)
        # One plane a colour: NumPy is several times as fast as with the three colours of a pixel side by side.
        canvas = np.empty((3, height, width), np.float32)
        canvas[:] = ground[:, None, None]
        _draw_others(rng, canvas, plan.diameter, typical, _WHITE_CELL)
        transparency, light = np.float32(rng.uniform(0, _TRANSPARENT)), ground.astype(np.float32)
        for cell, placed in zip(cells, plan.cells, strict=True):
            _paste(canvas, cell, placed, light, transparency)
        _draw_others(rng, canvas, plan.diameter, typical, _PLATELET)
        _draw_others(rng, canvas, plan.diameter, typical, _SPECK)
        canvas *= gain[:, None, None]
        canvas += offset[:, None, None]
        _light(rng, canvas)
        if rng.random() < 0.6:
            blur = ImageFilter.GaussianBlur(float(rng.uniform(0.2, _BLUR * plan.diameter)))
            for plane in np.clip(canvas, 0, 255, out=canvas):
                plane[:] = np.asarray(Image.fromarray(plane.astype(np.uint8)).filter(blur))
        noise = rng.uniform(0.3, 2.5) if plan.look is None else plan.look.noise * rng.uniform(0.3, 1.0)
        canvas += np.float32(noise) * rng.standard_normal((height, width), np.float32)
        pixels = np.empty((height, width, 3), np.uint8)
        for channel, plane in enumerate(np.clip(canvas, 0, 255, out=canvas)):
            pixels[..., channel] = plane
        return pixels

    def _read_cells(self, plan: Plan) -> np.ndarray:
        """Return the cells (n, side, side, 4) uint8: colours, 0 outside the cell, and alpha, 0 or 255."""
        pixels = self._pixels[[placed.row for placed in plan.cells]]
        cells = np.zeros((*pixels.shape[:3], 4), np.uint8)
        cells[..., :3] = pixels
        colours = cells.view("<u4")
        inside = (colours & _BRIGHT) != 0
        colours *= inside
        cells[..., 3:] = 255 * inside.astype(np.uint8)
        return cells


def _mean_colours(cells: np.ndarray) -> np.ndarray:
    """Return the mean colour (n, 3) of each cell, from a ninth of its pixels."""
    sums = cells[:, ::3, ::3].sum((1, 2), dtype=np.int64)
    return 255 * sums[:, :3] / np.maximum(sums[:, 3:], 1)


_COVERED = np.clip(np.arange(256) / 127.5 - 1, 0, 1).astype(np.float32)
"""Opacity for the alpha of a resized cell: its outermost half pixel is dark from the background and transparent."""

_WEIGHT = _COVERED * (255 / np.maximum(np.arange(256), 1)).astype(np.float32)
"""Factor of the resized colours for an alpha: they were mixed with black, so they are divided by alpha."""


def _paste(canvas: np.ndarray, cell: np.ndarray, placed: Placed, ground: np.ndarray, transparency: np.floating) -> None:
    """Resize a cell (side, side, 4), transform it and blend it into the canvas (3, height, width).

    An opaque cell hides other cells below it. A transparent one absorbs from their light what it absorbs from that of
    the background `ground`. On the background itself, both are the same.

    Resizing "RGBX" treats the four channels alike, and "RGBA" would multiply by alpha first, which is done already.
    """
    left, top, right, bottom = placed.box
    size = (bottom - top, right - left) if placed.symmetry & 1 else (right - left, bottom - top)
    picture = Image.frombuffer("RGBX", cell.shape[1::-1], cell, "raw", "RGBX", 0, 1)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    if placed.symmetry & 1:
        pixels = pixels.swapaxes(0, 1)
    if placed.symmetry & 2:
        pixels = pixels[::-1]
    if placed.symmetry & 4:
        pixels = pixels[:, ::-1]
    where, part = _overlap(canvas, placed.box)
    planes = np.ascontiguousarray(pixels[part].transpose(2, 0, 1))
    window, alpha = canvas[:, *where], planes[3]
    colours = planes[:3] * _WEIGHT.take(alpha)
    window *= 1 - _COVERED.take(alpha) + colours * (transparency / ground)[:, None, None]
    window += (1 - transparency) * colours


def _overlap(canvas: np.ndarray, box: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where the canvas and the box overlap, in coordinates of the canvas and of the box."""
    height, width = canvas.shape[1:]
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    where = np.s_[top : max(bottom, top), left : max(right, left)]
    return where, np.s_[top - box[1] : max(bottom, top) - box[1], left - box[0] : max(right, left) - box[0]]


def _blend(canvas: np.ndarray, colour: np.ndarray, opacity: np.ndarray, box: tuple[int, ...]) -> None:
    """Blend one colour (3,), or pixels (3, h, w), into the canvas with an opacity (h, w)."""
    where, part = _overlap(canvas, box)
    window = canvas[:, *where]
    window += opacity[part] * ((colour[:, *part] if colour.ndim == 3 else colour[:, None, None]) - window)


def _recolour(
    rng: np.random.Generator, look: Look | None, ground: np.ndarray, typical: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain and the offset, (3,) each, that change the colours of background and cells."""
    if look is not None:
        new_ground, new_cells = np.array(look.background), np.array(look.cells)
        new_ground, new_cells = new_ground + rng.normal(0, 4, 3), new_cells + rng.normal(0, 4, 3)
    elif rng.random() < _RECOLOURED:
        new_ground = np.clip(ground + rng.normal(0, 18) + rng.normal(0, 12, 3), 90, 255)
        new_cells = new_ground - np.maximum((ground - typical) * np.exp(rng.normal(0, 0.25, 3)), 4)
    else:
        return np.ones(3, np.float32), np.zeros(3, np.float32)
    gain = np.clip((new_ground - new_cells) / np.maximum(ground - typical, 4), 0.35, 2.5)
    return gain.astype(np.float32), (new_ground - gain * ground).astype(np.float32)


def _light(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Make the illumination uneven: a linear gradient, and a decrease towards the corners."""
    height, width = canvas.shape[1:]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    across, down = rng.normal(0, 0.1, 2).tolist()
    canvas *= 1 + across * x + down * y - float(rng.uniform(0, 0.35)) * (x * x + y * y)


class _Other(NamedTuple):
    """A kind of object between the red cells, such as white cells.

    Attributes
    ----------
    number : float
        Mean number of objects in a field of 100 squared cell diameters.
    most : int
        Largest number of objects in a field.
    size : (float, float)
        Range of the diameter, relative to that of red cells.
    lobes : int
        Largest number of lobes of the dark part.
    pale : bool
        Whether the dark part lies in a paler body.
    """

    number: float
    most: int
    size: tuple[float, float]
    lobes: int
    pale: bool


_WHITE_CELL = _Other(0.25, 3, (1.25, 2.0), 4, True)
_PLATELET = _Other(1.0, 12, (0.18, 0.45), 3, False)
_SPECK = _Other(1.5, 20, (0.05, 0.18), 1, False)


def _draw_others(
    rng: np.random.Generator, canvas: np.ndarray, diameter: float, typical: np.ndarray, kind: _Other
) -> None:
    """Draw white cells, platelets or specks of stain, in colours from purple to blue."""
    height, width = canvas.shape[1:]
    if rng.random() < 0.3:
        return
    mean = kind.number * height * width / (100 * diameter**2)
    for _ in range(min(int(rng.poisson(mean)), kind.most)):
        side = diameter * rng.uniform(*kind.size)
        half = max(math.ceil(0.62 * side), 2)
        x, y = int(rng.integers(width)), int(rng.integers(height))
        axis = np.arange(-half, half + 1, dtype=np.float32)
        across, down = axis[None], axis[:, None]
        stain = np.clip(np.array([95.0, 50, 125]) + rng.normal(0, 18, 3), 15, 200).astype(np.float32)
        box = (x - half, y - half, x + half + 1, y + half + 1)
        if kind.pale:
            body = (0.55 * typical + 0.45 * np.array([170.0, 150, 190]) + rng.normal(0, 8, 3)).astype(np.float32)
            _blend(canvas, body, rng.uniform(0.7, 1) * _soft(side / 2 - np.hypot(across, down)), box)
        dark = np.full(np.broadcast_shapes(across.shape, down.shape), -1e3, np.float32)
        for _ in range(int(rng.integers(1, kind.lobes + 1))):
            angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.22) * side
            radius = side * (rng.uniform(0.18, 0.3) if kind.pale else rng.uniform(0.3, 0.5))
            lobe = radius - np.hypot(
                across - distance * math.cos(angle), (down - distance * math.sin(angle)) * rng.uniform(0.7, 1.4)
            )
            dark = np.maximum(dark, lobe)
        grain = 1 + 0.12 * rng.standard_normal(dark.shape, np.float32)
        _blend(canvas, stain[:, None, None] * grain, rng.uniform(0.45, 0.95) * _soft(dark), box)


def _soft(distance: np.ndarray) -> np.ndarray:
    """Return the opacity (h, w) of a signed distance in pixels, positive inside."""
    return np.clip(distance / 2 + 0.5, 0, 1).astype(np.float32)
