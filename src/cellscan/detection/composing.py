"""Fields composed of single cells: training data for a detector from cells that have no field, with exact boxes."""

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
from cellscan.data.values import as_range, check_seed, check_whole
from cellscan.detection.ground import find_ground
from cellscan.errors import ArgumentError, DataError
from cellscan.progress import Progress

CLASSES = ("red blood cell", "infected")

_BLACK = 31
"""Brightest channel of the background of a cell that was cut out; the compression of the image blurs its edge."""

_COVER = (0.12, 0.6)
"""Share of the field that cells cover."""

_HEALTHY, _SHARE = 0.2, 0.12
"""Fields without an infected cell; mean share of infected cells in the others."""

_CLUMPED = 0.35
"""Share of cells that are placed beside another one, touching it or overlapping it a little."""

_INSIDE = 0.4
"""Share of the width and the height of a cell that has to lie in the field."""

_RECOLOURED = 0.6
"""Share of fields that get other colours where no style is given."""

_TRIES = 12


class Placed(NamedTuple):
    """A cell of a composed field.

    Attributes
    ----------
    row : int
        Of the cell data set.
    box : tuple[int, int, int, int]
        Left, top, right, bottom in pixels; it may overrun the field.
    symmetry : int
        Bits: swap axes, mirror vertically, mirror horizontally.
    """

    row: int
    box: tuple[int, int, int, int]
    symmetry: int


@dataclass(frozen=True)
class Look:
    """The colours of a field to imitate: background and cells, (3,) float each, and noise, in grey levels."""

    background: tuple[float, ...]
    cells: tuple[float, ...]
    noise: float


@dataclass(frozen=True)
class Plan:
    """All that a composed field is made of."""

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
    style: FieldDataset | None = None,
    seed: int = 0,
    progress: bool = True,
) -> FieldDataset:
    """Compose whole fields of single cells, with a box around every red cell.

    The cells of a field are of one patient. They are turned, mirrored, placed on a background singly and in clumps,
    and cut by the frame. Drawn white cells, platelets and specks of stain lie between them without a box: they are
    background. Illumination, focus and noise vary. Images are computed when they are read, about 20 ms each.

    Parameters
    ----------
    cells : CellDataset
        Cut-out cells on black, as of `load_malaria`, with patients, of two classes.
    count : int
        Number of fields, at least 1.
    size : (int, int)
        Height and width in pixels, each at least 96.
    cell_diameter : float or (float, float)
        Median diameter of the cells of a field, in pixels, or the range from which it is drawn; at least 8.
    infected : str
        The class of `cells` that is infected.
    style : FieldDataset, optional
        Fields whose colours of background and cells, and whose noise, are imitated, one field each. Left out, the
        background is drawn, and six of ten fields get other colours.
    seed : int
        The same seed, cells and arguments give the same fields.
    progress : bool
        Show a bar if it takes longer than two seconds.

    Returns
    -------
    FieldDataset
        Classes ``("red blood cell", "infected")``, and the patient of each field. A fifth of the fields have no
        infected cell; in the others 13 % of the cells are infected on average.

    Raises
    ------
    ArgumentError
        For a number or a size out of range, or an unknown class.
    DataError
        Where patients are unknown, or there are no uninfected cells.
    ImageError
        Where a cell or a field of `style` cannot be read.

    Notes
    -----
    Cells of the NIH set come without debris, and their outline is that of an automatic segmentation. A detector that is
    trained on composed fields alone has to be tested on photographs.

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
    if infected not in cells.class_names:
        raise ArgumentError(f"infected is {infected!r:.80}; expected one of {', '.join(cells.class_names)}")
    if not (style is None or isinstance(style, FieldDataset)):
        raise ArgumentError(f"style is a {type(style).__name__}; expected a FieldDataset, see cellscan.load_fields")
    if not cells.has_patients:
        raise DataError(
            "the patients of these cells are unknown, and a composed field has cells of one patient; load them with "
            "load_folder(dir, patient=...)"
        )
    side = 2 ** math.ceil(math.log2(max(high * 1.25, 16)))
    pixels = cells.images(side, progress=progress)
    shapes = cells.sizes
    positive = cells.labels == cells.class_names.index(infected)
    by_patient = {
        patient: (np.flatnonzero(own & ~positive), np.flatnonzero(own & positive))
        for patient in sorted(set(cells.patients.tolist()))
        for own in [cells.patients == patient]
    }
    by_patient = {patient: rows for patient, rows in by_patient.items() if len(rows[0])}
    if not by_patient:
        raise DataError(f"there are only {infected} cells; expected cells of both classes")
    names, looks = list(by_patient), _learn_looks(style, progress)
    plans, owners = [], []
    for number in range(count):
        rng = np.random.default_rng([seed, 4, number])
        owner = names[int(rng.integers(len(names)))]
        look = looks[int(rng.integers(len(looks)))] if looks else None
        diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        placed = _place(rng, by_patient[owner], shapes, diameter, size)
        plans.append(Plan(placed, diameter, look, (seed, 5, number)))
        owners.append(owner)
    source = ComposedSource(plans, pixels, size, cells.fingerprint())
    frame = np.array([0, 0, size[1], size[0]])
    boxes = [
        np.array([(*np.maximum(p.box[:2], 0), *np.minimum(p.box[2:], frame[2:])) for p in plan.cells], np.float32)
        for plan in plans
    ]
    labels = [positive[[p.row for p in plan.cells]].astype(np.int32) for plan in plans]
    named = [f"composed_{number:05d}.png" for number in range(count)]
    found = FieldDataset.from_source(source, boxes, labels, named, CLASSES)
    return found.with_groups(patients=owners)


def _learn_looks(style: FieldDataset | None, progress: bool) -> list[Look]:
    """Return the looks of fields in which cells are darker than the background."""
    if style is None:
        return []
    looks = []
    with Progress("reading styles", len(style), show=progress) as bar:
        for field in style:
            ground = find_ground(field.image)
            if ground.cells.any() and (ground.colour.astype(float) > ground.cell_colour)[1]:
                own = (ground.colour.tolist(), ground.cell_colour.tolist())
                looks.append(Look(tuple(own[0]), tuple(own[1]), ground.noise))
            bar.advance(1)
    if not looks:
        raise DataError("style has no field in which cells are darker than the background; expected thin films")
    return looks


def _place(
    rng: np.random.Generator,
    rows: tuple[np.ndarray, np.ndarray],
    shapes: np.ndarray,
    diameter: float,
    size: tuple[int, int],
) -> tuple[Placed, ...]:
    """Choose cells of a patient and places for them."""
    height, width = size
    wanted = max(int(rng.uniform(*_COVER) * height * width / (math.pi / 4 * diameter**2)), 1)
    healthy, sick = rows
    share = 0.0 if not len(sick) or rng.random() < _HEALTHY else min(0.5, rng.exponential(_SHARE) + 0.01)
    few = min(int(rng.binomial(wanted, share)), len(sick)) if share else 0
    chosen = np.concatenate([
        rng.choice(sick, few, replace=False) if few else sick[:0],
        rng.choice(healthy, wanted - few, replace=len(healthy) < wanted - few),
    ])  # fmt: skip
    chosen = rng.permutation(chosen)
    factor = diameter / float(np.median(np.sqrt(shapes[chosen].prod(1))))
    middles, radii = np.zeros((wanted, 2)), np.zeros(wanted)
    placed: list[Placed] = []
    for row in chosen.tolist():
        symmetry = int(rng.integers(8))
        wide, high = np.maximum(np.rint(shapes[row] * factor * np.exp(rng.normal(0, 0.04))), 4).astype(int).tolist()
        if symmetry & 1:
            wide, high = high, wide
        radius, done = math.sqrt(wide * high) / 2, len(placed)
        for _ in range(_TRIES):
            if done and rng.random() < _CLUMPED:
                beside, turn = int(rng.integers(done)), rng.uniform(0, 2 * math.pi)
                away = (radius + radii[beside]) * rng.uniform(0.86, 1.0)
                x, y = middles[beside] + away * np.array([math.cos(turn), math.sin(turn)])
            else:
                x, y = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
            left, top = round(x - wide / 2), round(y - high / 2)
            if (
                min(left + wide, width) - max(left, 0) < _INSIDE * wide
                or min(top + high, height) - max(top, 0) < _INSIDE * high
            ):
                continue
            apart = np.hypot(*(middles[:done] - (x, y)).T) / (radius + radii[:done])
            if done and apart.min() < 0.84:
                continue
            middles[done], radii[done] = (x, y), radius
            placed.append(Placed(row, (left, top, left + wide, top + high), symmetry))
            break
    return tuple(placed)


class ComposedSource(RenderedSource):
    """Renders planned fields; cells come from a map of pixels that is decoded once."""

    def __init__(self, plans: list[Plan], pixels: Pixels, size: tuple[int, int], cells: str) -> None:
        super().__init__(np.tile([size[1], size[0]], (len(plans), 1)))
        self._plans, self._pixels, self._size, self._cells = plans, pixels, size, cells

    def identity(self) -> str:
        return f"1|{self._cells}|{self._size}|{self._plans!r}"

    def render(self, row: int) -> np.ndarray:
        plan, (height, width) = self._plans[row], self._size
        rng = np.random.default_rng(list(plan.seed))
        cells = np.empty((len(plan.cells), *self._pixels.shape[1:3], 4), np.uint8)
        cells[..., :3] = self._pixels[[placed.row for placed in plan.cells]]
        cells[..., 3] = 255 * ((cells[..., 0] | cells[..., 1] | cells[..., 2]) > _BLACK)  # any channel: 31 is 0b11111
        cut = [_cut_out(one, placed) for one, placed in zip(cells, plan.cells, strict=True)]
        means = np.array([colour for _, _, colour in cut]).reshape(-1, 3)
        typical = np.median(means, 0) if len(means) else np.array([200.0, 150, 160])
        ground = 255 - (255 - typical) * rng.uniform(0.08, 0.55)
        ground = ground + (ground.mean() - ground) * rng.uniform(0, 0.7)
        gain, offset = _recolour(rng, plan.look, ground, typical)
        canvas = np.empty((height, width, 3), np.float32)
        canvas[:] = ground
        _draw_others(rng, canvas, plan.diameter, typical, _WHITE_CELL)
        for placed, (pixels, opacity, _) in zip(plan.cells, cut, strict=True):
            _blend(canvas, pixels, opacity, placed.box)
        _draw_others(rng, canvas, plan.diameter, typical, _PLATELET)
        _draw_others(rng, canvas, plan.diameter, typical, _SPECK)
        canvas *= gain
        canvas += offset
        _light(rng, canvas)
        if rng.random() < 0.6:
            image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
            image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.055 * plan.diameter))))
            canvas = np.asarray(image).astype(np.float32)
        noise = rng.uniform(0.3, 2.5) if plan.look is None else plan.look.noise * rng.uniform(0.3, 1.0)
        canvas += np.float32(noise) * rng.standard_normal((height, width, 1), np.float32)
        return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _cut_out(pixels: np.ndarray, placed: Placed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a cell at its size (h, w, 3) float32, its opacity (h, w, 1), and its mean colour (3,), of RGBA pixels."""
    if placed.symmetry & 1:
        pixels = pixels.swapaxes(0, 1)
    if placed.symmetry & 2:
        pixels = pixels[::-1]
    if placed.symmetry & 4:
        pixels = pixels[:, ::-1]
    size = (placed.box[2] - placed.box[0], placed.box[3] - placed.box[1])
    # Pillow weights colours by opacity, so that no black of the background gets into the edge of the cell.
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR))
    shown = shown.astype(np.float32)
    opacity = np.clip(shown[..., 3:] / 127.5 - 1, 0, 1)  # the outermost half pixel is dark of the background
    total = float(opacity.sum())
    colour = np.einsum("ijc,ij->c", shown[..., :3], opacity[..., 0]) / total if total else np.zeros(3)
    return shown[..., :3], opacity, colour


def _blend(canvas: np.ndarray, pixels: np.ndarray, opacity: np.ndarray, box: tuple[int, ...]) -> None:
    """Lay pixels (h, w, 3), or one colour (3,), over the canvas where they are opaque."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if left >= right or top >= bottom:
        return
    part = np.s_[top - box[1] : bottom - box[1], left - box[0] : right - box[0]]
    window, over = canvas[top:bottom, left:right], opacity[part]
    window += over * ((pixels[part] if pixels.ndim == 3 else pixels) - window)


def _recolour(
    rng: np.random.Generator, look: Look | None, ground: np.ndarray, typical: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return gain and offset (3,) that bring background and cells to other colours."""
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
    """Make the illumination uneven: a slope, and a fall towards the corners."""
    height, width = canvas.shape[:2]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    across, down = rng.normal(0, 0.1, 2).tolist()
    canvas *= (1 + across * x + down * y - float(rng.uniform(0, 0.35)) * (x * x + y * y))[..., None]


class _Other(NamedTuple):
    """A kind of thing between the red cells.

    Attributes
    ----------
    number : float
        Mean number, in a field of 100 cell areas.
    most : int
    size : (float, float)
        Range of its diameter over that of red cells.
    lobes : int
        Of its dark part, at most.
    pale : bool
        Whether its dark part lies in a paler body.
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
    """Draw white cells, platelets or specks of stain, purple to blue."""
    height, width = canvas.shape[:2]
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
            turn, far = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.22) * side
            radius = side * (rng.uniform(0.18, 0.3) if kind.pale else rng.uniform(0.3, 0.5))
            lobe = radius - np.hypot(
                across - far * math.cos(turn), (down - far * math.sin(turn)) * rng.uniform(0.7, 1.4)
            )
            dark = np.maximum(dark, lobe)
        grain = 1 + 0.12 * rng.standard_normal((*dark.shape, 1), np.float32)
        _blend(canvas, stain * grain, rng.uniform(0.45, 0.95) * _soft(dark), box)


def _soft(distance: np.ndarray) -> np.ndarray:
    """Return the opacity (h, w, 1) of a signed distance in pixels, positive inside."""
    return np.clip(distance / 2 + 0.5, 0, 1)[..., None].astype(np.float32)
