"""The diameter of red cells, the lit part of a field, and tiles: without any network."""

from collections.abc import Sequence

import numpy as np
import pytest
from helpers import random_image
from PIL import Image
from scipy import ndimage

import cellscan
from cellscan.detection.diameter import find_discs
from cellscan.detection.ground import Ground, find_ground
from cellscan.detection.tiling import Tile, Tiling, as_trained, plan_tiles

EVERYWHERE = (-np.inf, -np.inf, np.inf, np.inf)


@pytest.fixture(scope="module")
def field() -> tuple[np.ndarray, float]:
    one = cellscan.synthetic_fields(1, seed=4, size=(480, 640))[0]
    inside = (one.boxes[:, :2] > 1).all(1) & (one.boxes[:, 2:] < (639, 479)).all(1)
    sides = one.boxes[inside, 2:] - one.boxes[inside, :2]
    return one.image, float(np.median(np.sqrt(sides.prod(1))))


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    width, height = (round(side * factor) for side in image.shape[1::-1])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("factor", [0.25, 0.5, 1, 2, 4])
def test_the_diameter_goes_with_the_scale(field, factor) -> None:
    image, truth = field
    median, spread = cellscan.estimate_cell_diameter(resized(image, factor))
    assert abs(median / factor / truth - 1) < 0.15
    assert 0 < spread < 0.3 * median


def test_cells_that_are_small_in_the_field_are_looked_at_closer() -> None:
    one = cellscan.synthetic_fields(1, seed=4, size=(1600, 2100))[0]
    shrunk = resized(one.image, 0.5)  # cells of 25 in 1050 pixels: 12 at working size
    assert 19 < cellscan.estimate_cell_diameter(shrunk)[0] < 31


@pytest.mark.parametrize("pixels", [8, 12, 16])
def test_very_small_cells_are_measured(pixels) -> None:
    one = cellscan.synthetic_fields(1, seed=2, size=(480, 640))[0]  # cells of 50 pixels
    image = np.tile(resized(one.image, pixels / 50), (16, 12, 1))[:1000, :1400]
    assert cellscan.estimate_cell_diameter(image)[0] == pytest.approx(pixels, rel=0.2)


@pytest.mark.parametrize(("coarse", "size"), [(1.5, (512, 512)), (2.5, (400, 512))])
def test_circles_in_the_outlines_of_many_specks_are_no_cells(coarse, size) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=size), coarse)
    image = np.where((noise > 0)[..., None], np.array([225, 225, 225]), np.array([190, 110, 130])).astype(np.uint8)
    with pytest.raises(cellscan.DataError, match="not darker than their surroundings; the cells may be too small"):
        cellscan.estimate_cell_diameter(image)


def test_cells_with_a_bright_centre_are_measured() -> None:
    y, x = np.mgrid[:300, :400].astype(float)
    image = np.full((300, 400, 3), 225, np.uint8)
    for cx, cy in np.ndindex(4, 3):
        image[np.abs(np.hypot(x - 50 - 100 * cx, y - 50 - 100 * cy) - 40) < 3] = (190, 110, 130)
    assert cellscan.estimate_cell_diameter(image)[0] == pytest.approx(2 * 43 / 0.9, rel=0.05)


def drawn(shape: tuple[int, int], ellipses: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Return dark ellipses on a bright background, each given by x and y of its middle and its two radii."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    image = np.full((*shape, 3), 230.0)
    for cx, cy, across, down in ellipses:
        inside = np.hypot((x - cx) / across, (y - cy) / down)
        cover = np.clip((1 - inside) * np.sqrt(across * down) + 0.5, 0, 1)[..., None]
        image += cover * (np.array([200.0, 120, 140]) - image)
    return np.clip(image, 0, 255).astype(np.uint8)


WHOLE = [
    (40, 50, 20, 20), (120, 50, 22, 22), (200, 60, 18, 18), (290, 60, 20, 20), (325, 60, 20, 20), (60, 150, 38, 19),
    (180, 160, 19, 36), (270, 160, 20, 20), (340, 170, 20, 20), (100, 250, 21, 21), (200, 270, 20, 20),
    (290, 250, 45, 18),
]  # fmt: skip
CUT = [(0, 230, 20, 20), (397, 120, 20, 20), (370, 299, 20, 40)]


def test_discs_lie_where_they_were_drawn() -> None:
    found = find_discs(find_ground(drawn((300, 400), WHOLE + CUT)))
    assert len(found.radii) == len(WHOLE + CUT)
    for x, y, across, down in WHOLE:  # among them a pair that touches, and ellipses
        distances = np.hypot(*(found.middles - (x, y)).T)
        nearest = distances.argmin()
        assert distances[nearest] < 2.5
        assert abs(found.radii[nearest] / np.sqrt(across * down) - 1) < 0.04
        assert found.complete[nearest] > 0.8


def test_discs_and_diameters_stay_the_same() -> None:
    """After a change of the analysis, run `benchmarks/other_laboratories.py --diameters`, then change these numbers."""
    field = cellscan.synthetic_fields(1, seed=4, size=(240, 400))[0].image
    for image, discs, diameter in (
        (drawn((300, 400), WHOLE + CUT), [3182.1411, 2314.5340, 311.8507, 14.2243], [44.7553, 8.2033]),
        (field, [3378.8201, 1807.9331, 412.0969, 12.5841], [53.5280, 4.3445]),
    ):
        found = find_discs(find_ground(image))
        sums = [*found.middles.sum(0), found.radii.sum(), found.complete.sum()]
        np.testing.assert_allclose(sums, discs, rtol=1e-4)
        np.testing.assert_allclose(cellscan.estimate_cell_diameter(image), diameter, rtol=1e-4)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((200, 300, 3), np.uint8), "the whole image is dark"),
        (np.full((200, 300, 3), 255, np.uint8), "round objects"),
        (np.full((200, 300, 3), 128, np.uint8), "round objects"),
        (np.zeros((1, 1, 3), np.uint8), "the whole image is dark"),
        (np.full((3, 700, 3), 200, np.uint8), "round objects"),
    ],
)
def test_without_red_cells_it_says_so(image, why) -> None:
    with pytest.raises(cellscan.DataError, match=why):
        cellscan.estimate_cell_diameter(image)


@pytest.mark.parametrize("size", [(480, 640), (1440, 1920)])
def test_round_objects_have_to_cover_two_percent_of_the_field(size) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    for cover, enough in ((0.025, True), (0.014, False)):
        image = np.full((*size, 3), 225, np.uint8)
        radius = np.sqrt(cover * size[0] * size[1] / 5 / np.pi)
        for number in range(5):
            inside = np.hypot(y - size[0] / 2, x - size[1] * (number + 0.5) / 5) < radius
            image[inside] = (190, 110, 130)
        if enough:
            assert cellscan.estimate_cell_diameter(image)[0] == pytest.approx(2 * radius / 0.865, rel=0.1)
        else:
            with pytest.raises(cellscan.DataError, match="round objects cover 1.[0-9]% of the field"):
                cellscan.estimate_cell_diameter(image)


def in_circle(image: np.ndarray) -> np.ndarray:
    """Return a 16:9 photograph through an eyepiece."""
    side = min(image.shape[:2])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    y, x = y - image.shape[0] / 2, x - image.shape[1] / 2
    seen = np.where((np.hypot(x, y) < side / 2)[..., None], image, 6).astype(np.uint8)
    across = round(image.shape[0] * 16 / 9) - image.shape[1]
    return np.pad(seen, ((0, 0), (across // 2, across // 2), (0, 0)), constant_values=6)


def test_a_dark_surround_is_left_out(field) -> None:
    image, truth = field
    framed = np.pad(image, ((60, 60), (0, 200), (0, 0)))
    ground = find_ground(framed)
    left, top, right, bottom = ground.box
    assert left == 0
    assert abs(top - 60) < 12
    assert abs(right - 640) < 12
    assert abs(bottom - 540) < 12
    assert abs(cellscan.estimate_cell_diameter(framed)[0] / truth - 1) < 0.15
    eyepiece = in_circle(image)
    assert abs(cellscan.estimate_cell_diameter(eyepiece)[0] / truth - 1) < 0.2
    ground = find_ground(eyepiece)
    assert abs(ground.lit.sum() / ground.factor**2 / (np.pi * 240**2) - 1) < 0.1
    (shown,) = plan_tiles(ground, (360, 480), None, None).show(eyepiece, ground)
    assert shown.min() > 20  # nothing black goes to the network
    assert find_ground(image).lit.all()


def test_room_has_the_colour_of_the_background(field) -> None:
    image, _ = field
    tall = image[:, :200]
    ground = find_ground(tall)
    tiling = plan_tiles(ground, (360, 480), 25.0, 25.0)
    shown = tiling.show(tall, ground)
    assert len(shown) == 2
    assert shown[0].shape == (360, 480, 3)
    assert np.array_equal(shown[0][0, -1], ground.colour)


@pytest.mark.parametrize("diameter", [45.0, 50.0, 65.0, 90.0])
def test_tiles_find_each_cell_once_where_it_is(field, diameter) -> None:
    image, _ = field
    one = cellscan.synthetic_fields(1, seed=4, size=(480, 640))[0]
    trained = 30.0
    tiling = plan_tiles(find_ground(image), (180, 240), diameter, trained)
    factor = np.array(tiling.inner) / image.shape[1::-1]
    rows = []
    for tile in tiling.tiles:  # a detector that finds in a tile all that lies in it, cut by its frame
        own = one.boxes * np.tile(factor, 2) - np.tile([tile.left, tile.top], 2)
        cut = np.clip(own, 0, [240, 180, 240, 180])
        good = ((cut[:, 2:] - cut[:, :2]).prod(1)) > 0.2 * (own[:, 2:] - own[:, :2]).prod(1)
        rows.append(np.c_[cut[good], np.full(good.sum(), 0.9), one.labels[good]].astype(np.float32))
    found = tiling.merge(rows, 0.5)
    near = np.abs(found[:, None, :4] - one.boxes[None]).max(2)
    assert len(found) == len(one.boxes)
    assert near.min(0).max() < 1.5


def test_merged_boxes_end_at_the_frame() -> None:
    for side in range(100, 400):
        whole = np.array([[0, 0, side, side, 0.9, 0]], np.float32)
        tiling = Tiling(
            (10, 20, 650, 500), (side, side), (side, side), (Tile(0, 0, (-np.inf, -np.inf, np.inf, np.inf)),)
        )
        left, top, right, bottom = tiling.merge([whole], 0.5)[0, :4].tolist()
        assert (left, top) == (10, 20)
        assert 649.99 < right <= 650
        assert 499.99 < bottom <= 500


def make_ground(box: tuple[int, int, int, int], colour: int = 200, lit: np.ndarray | None = None) -> Ground:
    """Return a background whose illuminated part has this box."""
    lit = np.ones((4, 4), bool) if lit is None else lit
    background, cell = np.full(3, colour, np.uint8), np.full(3, 90, np.uint8)
    return Ground(1.0, lit, box, background, cell, np.zeros(lit.shape, np.float32), np.zeros(lit.shape, bool), 1.0)


def test_a_field_is_rescaled_if_its_cells_differ_by_more_than_a_fifth() -> None:
    ground, size = make_ground((10, 20, 970, 740)), (360, 480)  # fitted by a factor of a half
    for diameter in (59.9, 50.0, 41.8):
        assert plan_tiles(ground, size, diameter, 25.0) == Tiling(
            ground.box, (480, 360), size, (Tile(0, 0, EVERYWHERE),)
        )
    assert plan_tiles(ground, size, 60.1, 25.0).inner == (399, 300)
    assert plan_tiles(ground, size, 41.6, 25.0).inner == (577, 433)
    assert len(plan_tiles(ground, size, 41.6, 25.0).tiles) == 4
    for unknown in ((None, 25.0), (25.0, None)):
        assert plan_tiles(ground, size, *unknown).inner == (480, 360)
    assert as_trained(np.zeros((720, 960, 3), np.uint8), size) == Tiling(
        (0, 0, 960, 720), (480, 360), size, (Tile(0, 0, EVERYWHERE),)
    )


def test_tiles_by_hand() -> None:
    """Tiles of 200 pixels overlap by at least 1.5 diameters of 20; each seam lies in the middle of an overlap."""
    tiling = plan_tiles(make_ground((0, 0, 1000, 400)), (200, 200), 20.0, 20.0)
    assert sorted({tile.left for tile in tiling.tiles}) == [0, 160, 320, 480, 640, 800]
    assert sorted({tile.top for tile in tiling.tiles}) == [0, 100, 200]
    assert tiling.tiles[7] == Tile(160, 100, (180.0, 150.0, 340.0, 250.0))
    assert tiling.tiles[0].core == (-np.inf, -np.inf, 180.0, 150.0)
    assert tiling.tiles[-1].core == (820.0, 250.0, np.inf, np.inf)
    exact = plan_tiles(make_ground((0, 0, 370, 200)), (200, 200), 20.0, 20.0)
    assert [tile.left for tile in exact.tiles] == [0, 170]
    one_more = plan_tiles(make_ground((0, 0, 371, 200)), (200, 200), 20.0, 20.0)
    assert [tile.left for tile in one_more.tiles] == [0, 86, 171]
    large = plan_tiles(make_ground((0, 0, 1000, 200)), (200, 200), 150.0, 150.0)  # overlap: half a tile, not 225
    assert [tile.left for tile in large.tiles] == list(range(0, 801, 100))
    assert len(plan_tiles(make_ground((0, 0, 6830, 4280)), (200, 200), 20.0, 20.0).tiles) == 1000
    with pytest.raises(cellscan.ArgumentError, match="1,025 tiles"):
        plan_tiles(make_ground((0, 0, 6831, 4280)), (200, 200), 20.0, 20.0)


def test_detections_of_tiles_are_merged_by_hand() -> None:
    """Two tiles with a seam at 15; pixels of the field are two pixels of the tiles wide and start at (100, 50)."""
    tiles = (Tile(0, 0, (-np.inf, -np.inf, 15.0, np.inf)), Tile(10, 0, (15.0, -np.inf, np.inf, np.inf)))
    tiling = Tiling((100, 50, 160, 90), (30, 20), (20, 20), tiles)
    left = [[2, 2, 6, 6, 0.5, 0], [10, 4, 19, 12, 0.6, 1], [16, 4, 20, 12, 0.99, 0], [0, 0, 1, 1, 0, 0]]
    right = [[1, 4, 10, 12, 0.7, 1], [2, 4, 11, 12, 0.4, 0], [12, 2, 28, 40, 0.8, 0]]
    found = tiling.merge([np.array(rows, np.float32) for rows in (left, right)], 0.5)
    expected = [  # The second box of the right tile is of another class.
        [144, 54, 160, 90, 0.8, 0], [122, 58, 140, 74, 0.7, 1], [104, 54, 112, 62, 0.5, 0], [124, 58, 142, 74, 0.4, 0],
    ]  # fmt: skip
    assert np.allclose(found, expected)
    kept = tiling.merge([np.array(rows, np.float32) for rows in (left, right)], 0.9)
    assert len(kept) == 5
    same_tile = tiling.merge([np.array([left[0], left[0]], np.float32), np.zeros((0, 6), np.float32)], 0.5)
    assert len(same_tile) == 2  # the network has suppressed the boxes of one tile
    half = [np.array([[10, 0, 15, 10, 0.9, 0]], np.float32), np.array([[0, 0, 10, 10, 0.8, 0]], np.float32)]
    assert len(tiling.merge(half, 0.5)) == 2  # an IoU of 0.5 is not above 0.5
    assert len(tiling.merge(half, 0.49)) == 1


def test_inputs_show_their_part_of_the_field() -> None:
    y, x = np.mgrid[:80, :120].astype(np.uint8)
    image = np.stack([x, y, np.full_like(x, 7)], -1)
    ground = make_ground((20, 10, 120, 80))
    tiles = (Tile(0, 0, EVERYWHERE), Tile(25, 10, EVERYWHERE))
    first, second = Tiling(ground.box, (50, 35), (30, 30), tiles).show(image, ground)
    assert first.shape == second.shape == (30, 30, 3)
    inside = np.s_[5:20, 5:20]
    assert np.abs(first[inside][..., 0].astype(int) - (20 + 2 * np.arange(5, 20) + 0.5)).max() <= 1
    assert np.abs(first[inside][..., 1].astype(int) - (10 + 2 * np.arange(5, 20)[:, None] + 0.5)).max() <= 1
    assert np.abs(second[inside][..., 0].astype(int) - (20 + 2 * (25 + np.arange(5, 20)) + 0.5)).max() <= 1
    assert np.abs(second[inside][..., 1].astype(int) - (10 + 2 * (10 + np.arange(5, 20)[:, None]) + 0.5)).max() <= 1
    assert (second[25:] == 200).all()  # 25 of 30 rows and columns lie in the field
    assert (second[:, 25:] == 200).all()
    assert (second[:25, :25, 2] == 7).all()
    without, _ = Tiling(ground.box, (50, 35), (40, 30), tiles).show(image, None)
    assert not without[35:].any()
    whole = as_trained(image, (80, 120))
    assert (whole.show(image, None)[0] == image).all()
    lit = np.ones((8, 12), bool)
    lit[:4, :3] = False
    (dark,) = whole.show(image, make_ground((0, 0, 120, 80), lit=lit))
    assert (dark[:40, :30] == 200).all()
    assert (dark[40:] == image[40:]).all()
    assert (dark[:, 30:] == image[:, 30:]).all()


def test_pictures_of_nothing_known_are_no_error() -> None:
    noise = random_image(0, 200, 300)
    try:
        median, _ = cellscan.estimate_cell_diameter(noise)
    except cellscan.DataError:
        return
    assert median > 0
