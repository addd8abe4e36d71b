"""The appearance of fields: its numbers by hand, and the features in which fields differ."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

import cellscan
from cellscan.detection.diameter import measure_diameter
from cellscan.detection.ground import Ground, find_ground
from cellscan.detection.likeness import FEATURES, Likeness, describe_field, learn_likeness

KNOWN = Likeness("here", 10, (0.0,) * 8, (1.0,) * 8)


IMAGE = np.zeros((80, 120, 3), np.uint8)
IMAGE[..., 1] = 100 + np.random.default_rng(0).integers(0, 100, (80, 120))


def make_ground(cell_green: int = 90) -> Ground:
    """Return a field with one region of cells, whose depth has a gradient of 5 grey levels per working pixel."""
    y, x = np.mgrid[:40, :60]
    lit, cells = x < 50, (x >= 10) & (x < 30) & (y >= 10) & (y < 20)
    colour, cell_colour = (np.array(c, np.uint8) for c in ((200, 180, 160), (150, cell_green, 120)))
    return Ground(0.5, lit, (0, 0, 100, 80), colour, cell_colour, (3.0 * x + 4 * y).astype(np.float32), cells, 1.0)


def test_the_numbers_of_a_field_by_hand() -> None:
    sharpness = describe_field(IMAGE, make_ground(), 20.0, 45.0)[4]  # see the next tests
    expected = (
        np.log(200 / 180), np.log(160 / 180), np.log(200 / 150) / np.log(2), np.log(160 / 120) / np.log(2),
        sharpness, 200 / 2000, np.log(60 / 10), np.log(20 / 45),
    )  # fmt: skip
    assert describe_field(IMAGE, make_ground(), 20.0, 45.0) == pytest.approx(expected, rel=1e-5)
    nothing = (*expected[:2], np.nan, np.nan, np.nan, 200 / 2000, np.nan, np.nan)
    assert describe_field(IMAGE, make_ground(), None, 45.0) == pytest.approx(nothing, rel=1e-5, nan_ok=True)
    assert describe_field(IMAGE, make_ground(cell_green=177), 20.0, 45.0) == pytest.approx(
        nothing, rel=1e-5, nan_ok=True
    )
    assert np.isfinite(describe_field(IMAGE, make_ground(cell_green=176), 20.0, 45.0)).all()  # an absorption of 0.0225
    empty = make_ground()._replace(cells=np.zeros((40, 60), bool), lit=np.zeros((40, 60), bool))
    assert describe_field(IMAGE, make_ground(), 60.0, 45.0)[7] == 0  # the detector reduces larger cells
    assert describe_field(IMAGE, make_ground(), 20.0, None)[7] == 0  # a detector without a diameter
    assert describe_field(IMAGE, empty, 20.0, 45.0)[5] == 0


def waves(period: float, contrast: float = 40.0) -> float:
    """Return the sharpness of a field of waves, at 50 pixels a cell, of a period in pixels."""
    image = np.zeros((400, 600, 3), np.uint8)
    image[..., 1] = np.round(120 + contrast * np.sin(2 * np.pi * np.arange(600) / period))
    cells = np.zeros((40, 60), bool)
    cells[10:30, 10:50] = True
    ground = make_ground()._replace(cells=cells, lit=np.ones((40, 60), bool), factor=0.1)
    return describe_field(image, ground, 50.0, 45.0)[4]


@pytest.mark.parametrize("period", [6, 8, 12])
def test_the_sharpness_of_waves(period: float) -> None:
    steps = np.arange(-8, 9)
    left = []  # of a wave after each blur
    for sigma in (0.5, 1, 2):
        weights = np.exp(-((steps / sigma) ** 2) / 2)
        left.append((weights * np.cos(2 * np.pi * steps / period)).sum() / weights.sum())
    fine, middle, coarse = left
    expected = np.log((fine - middle) / (middle - coarse))
    assert waves(period) == pytest.approx(expected, abs=0.05)
    assert waves(period, contrast=80) == pytest.approx(expected, abs=0.05)


def test_damaged_fields_have_other_detail() -> None:
    image = cellscan.synthetic_fields(1, seed=0)[0].image
    ground = find_ground(image)
    diameter = measure_diameter(image, ground)[0]
    sharp = describe_field(image, ground, diameter, 45.0)[4]
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(diameter / 40)))
    assert describe_field(blurred, ground, diameter, 45.0)[4] < sharp - 0.2
    small = np.asarray(Image.fromarray(image).reduce(4))
    assert describe_field(small, ground, diameter / 4, 45.0)[4] < sharp - 0.2
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    noisy = (blurred + noise).clip(0, 255).astype(np.uint8)
    soft = describe_field(blurred, ground, diameter, 45.0)[4]
    assert describe_field(noisy, ground, diameter, 45.0)[4] > soft + 0.2
    text = blurred.copy()
    text[-12:, 200:240:2] = 0
    assert describe_field(text, find_ground(text), diameter, 45.0)[4] == pytest.approx(soft, abs=0.1)
    assert np.isnan(describe_field(np.full_like(image, 128), ground, diameter, 45.0)[4])


def test_fields_differ_if_most_of_them_do() -> None:
    def changed(**values: float) -> list[float]:
        row = [0.5] * 8
        for name, value in values.items():
            row[int(name[1:])] = value
        return row

    same = changed()
    assert KNOWN.differences([changed(n0=0.0, n6=1.0)]) == ()  # the ends belong to the range
    for number, feature in enumerate((0, 0, 1, 1, 2, 3, 4, 5)):
        for value in (-0.01, 1.01, np.nan):
            different = changed(**{f"n{number}": value})
            assert KNOWN.differences([different]) == (FEATURES[feature],)
            assert KNOWN.differences([different, same]) == ()  # half of the fields are not most of them
            assert KNOWN.differences([different, different, same]) == (FEATURES[feature],)
    each = [changed(n0=2.0), changed(n4=2.0), changed(n6=2.0)]
    assert KNOWN.differences(each) == (FEATURES[0], FEATURES[2], FEATURES[4])  # every field differs in some feature
    assert KNOWN.differences([*each[:2], same, same]) == ()
    assert KNOWN.differences([each[0], each[0], changed(n0=2.0, n6=2.0)]) == (FEATURES[0],)
    assert KNOWN.differences([]) == FEATURES


def test_a_file_without_a_resolution_does_not_compare_it() -> None:
    before = Likeness("here", 10, (0.0,) * 7, (1.0,) * 7)
    assert before.differences([(0.5,) * 7 + (-2.0,)]) == ()
    assert before.differences([(0.5,) * 6 + (2.0, -2.0)]) == ("cell size",)


def test_a_median_outside_the_measured_range_differs() -> None:
    rows = [(0.2,) + (0.5,) * 7] * 5  # the range before its extension is 0.25 to 0.75
    assert KNOWN.differences(rows) == (FEATURES[0],)
    assert KNOWN.differences(rows[:4]) == ()  # too few fields for a median
    assert Likeness("here", 9, KNOWN.low, KNOWN.high).differences(rows) == ()  # too few measured fields
    half = [*rows[:2], *[(0.25,) + (0.5,) * 7] * 3]
    assert KNOWN.differences(half) == ()
    missing = [(0.5,) * 7 + (np.nan,)] * 2
    assert KNOWN.differences([*missing, *[(0.5,) * 7 + (0.8,)] * 3]) == (FEATURES[5],)
    assert KNOWN.differences([*missing, *[(0.5,) * 8] * 3]) == ()
    assert KNOWN.differences(missing * 3) == (FEATURES[5],)


def test_the_range_is_extended_by_half_of_its_width() -> None:
    rows = np.array([[0.0, 1, 2, 3, 4, 5, 6, 0], [2.0, 1, 4, 3, 4, 5, np.nan, 0], [1.0, 1, 3, 3, 4, 5, 7, 0]])
    found = learn_likeness(rows.tolist(), "here")
    assert (found.source, found.fields) == ("here", 3)
    assert found.low == (-1, 1, 1, 3, 4, 5, 5.5, -np.log(1.15))
    assert found.high == (3, 1, 5, 3, 4, 5, 7.5, np.log(1.15))
    rows[0, 7] = -1
    assert learn_likeness(rows.tolist(), "here").low[7] == -1.5
