"""The diameter of red cells, the lit part of a field, and tiles: without any network."""

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.detection.ground import find_ground
from cellscan.detection.tiling import plan_tiles


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


def test_pictures_of_nothing_known_are_no_error() -> None:
    noise = random_image(0, 200, 300)
    try:
        median, _ = cellscan.estimate_cell_diameter(noise)
    except cellscan.DataError:
        return
    assert median > 0
