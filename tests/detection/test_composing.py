"""Fields composed of cells, and mosaics of fields."""

import pickle

import numpy as np
import pytest

import cellscan
from cellscan.data.shapes import IGNORED
from cellscan.detection.composing import Placed, _paste


@pytest.fixture(scope="module")
def cells() -> cellscan.CellDataset:
    return cellscan.synthetic_cells(200, seed=0, difficulty="easy")


@pytest.fixture(scope="module")
def composed(cells) -> cellscan.FieldDataset:
    return cellscan.compose_fields(cells, 12, size=(180, 240), seed=3)


def test_the_same_arguments_give_the_same_fields(cells, composed) -> None:
    again = cellscan.compose_fields(cells, 12, size=(180, 240), seed=3)
    assert again.hash() == composed.hash()
    assert again.source.fingerprint() == composed.source.fingerprint()
    assert (again[5].image == composed[5].image).all()
    assert (composed[5].image == composed[5].image).all()
    fewer = cellscan.compose_fields(cells, 6, size=(180, 240), seed=3)
    assert (fewer[5].image == composed[5].image).all()  # a field does not depend on how many there are
    other = cellscan.compose_fields(cells, 6, size=(180, 240), seed=4)
    assert other.source.fingerprint() != fewer.source.fingerprint()
    assert (other[5].image != composed[5].image).any()
    assert (pickle.loads(pickle.dumps(composed))[3].image == composed[3].image).all()


def test_boxes_lie_about_cells(composed) -> None:
    contrasts = []
    for field in composed:
        assert field.image.shape == (180, 240, 3)
        assert (field.boxes[:, :2] >= 0).all()
        assert (field.boxes[:, 2:] <= (240, 180)).all()
        green = field.image[..., 1].astype(float)
        covered = np.zeros(green.shape, bool)
        for left, top, right, bottom in field.boxes.astype(int).tolist():
            covered[top:bottom, left:right] = True
        for left, top, right, bottom in field.boxes.astype(int).tolist():
            high, wide = bottom - top, right - left
            inner = green[top + high // 4 : bottom - high // 4, left + wide // 4 : right - wide // 4]
            contrasts.append(np.median(green[~covered]) - np.median(inner))
    assert np.mean(np.array(contrasts) > 3) > 0.95


def test_cells_of_a_field_are_of_one_patient_and_of_its_classes(cells, composed) -> None:
    assert set(composed.patients.tolist()) <= set(cells.patients.tolist())
    plans = composed.source._plans  # type: ignore[attr-defined]
    for plan, owner, labels in zip(plans, composed.patients.tolist(), composed.labels, strict=True):
        rows = [placed.row for placed in plan.cells]
        assert set(cells.patients[rows].tolist()) == {owner}
        assert labels.tolist() == (cells.labels[rows] == 0).astype(int).tolist()
    assert 0 < composed.per_class()["infected"] < composed.per_class()["red blood cell"]


def test_where_the_cells_of_a_field_lie_and_how_many_are_infected(cells) -> None:
    fields = cellscan.compose_fields(cells, 60, size=(180, 240), seed=1)
    frame = np.array([240, 180])
    assert fields.sizes.tolist() == [[240, 180]] * 60
    visible, gaps, covered, sizes = [], [], [], []
    plans = fields.source._plans  # type: ignore[attr-defined]
    for plan in plans:
        boxes = np.array([placed.box for placed in plan.cells], float)
        sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
        seen = np.minimum(boxes[:, 2:], frame) - np.maximum(boxes[:, :2], 0)
        radii = np.sqrt(sides.prod(1)) / 2
        distances = np.hypot(*(middles[:, None] - middles).T) / (radii[:, None] + radii)
        gaps.append((distances + 9 * np.eye(len(boxes))).min(1))
        visible.append(seen / sides)
        covered.append(np.pi * (radii**2).sum() / frame.prod())
        sizes.append(2 * np.median(radii) / plan.diameter)
    assert 0.4 <= np.concatenate(visible).min() < 0.42  # two fifths of each side of a cell lie in the field
    closest = np.array([own.min() for own in gaps])
    assert 0.4 < closest.min() < 0.55
    apart = closest > 0.8  # cells of most fields overlap by less than a fifth; positions are whole pixels
    assert 0.5 < apart.mean() < 0.8
    assert 0.6 < np.mean(np.concatenate(gaps) < 1.02) < 0.85
    assert 0.1 < min(covered) < 0.15
    assert 0.55 < max(covered) < 0.61
    assert 0.9 < min(sizes) <= max(sizes) < 1.1
    assert 0.98 < np.mean(sizes) < 1.02
    assert {24 <= plan.diameter <= 40 for plan in plans} == {True}
    assert max(plan.diameter for plan in plans) > 36
    sick = cells.select(np.isin(cells.patients, cells.patients[cells.labels == 0]))
    means = []
    for share in (0.5, 0.12, 0.0):
        fields = cellscan.compose_fields(sick, 60, size=(180, 240), infected_share=share)
        means.append([labels.mean() for labels in fields.labels])
    assert 0.1 < np.mean(np.array(means[0]) == 0) < 0.35  # a fifth has none
    assert max(means[0]) < 0.75  # at most a half is drawn
    assert 0.15 < np.mean(means[0]) < 0.35
    assert 0.05 < np.mean(means[1]) < 0.15
    assert not any(means[2])


def test_a_transparent_cell_absorbs_what_it_absorbs_from_the_background() -> None:
    colour = np.array([100, 60, 80], np.float32)
    cell = np.full((16, 16, 4), (100, 60, 80, 255), np.uint8)
    cell[8:] = 0  # outside
    ground = np.array([200, 240, 220], np.float32)
    for transparency, twice in ((0.0, colour), (1.0, colour * colour / ground)):
        canvas = np.empty((3, 40, 40), np.float32)
        canvas[:] = ground[:, None, None]
        for left in (5, 11):
            _paste(canvas, cell, Placed(0, (left, 10, left + 16, 26), 0), ground, np.float32(transparency))
        expected = np.stack([ground, colour, twice, colour, ground])
        np.testing.assert_allclose(canvas[:, 14, [0, 7, 15, 24, 35]].T, expected, atol=1e-3)
        np.testing.assert_allclose(canvas[:, 22, 15], ground, atol=1e-3)


def test_composed_images_stay_the_same(composed) -> None:
    """Stored pixels are found by `identity` of the source. After a change of the images, raise the number in it."""
    found = [[*field.image.mean((0, 1)), *field.image.std((0, 1))] for field in composed.select([1, 3, 4])]
    expected = [
        [213.736, 166.546, 180.107, 17.707, 40.283, 19.457],
        [199.791, 187.159, 184.268, 23.345, 37.681, 31.741],
        [203.211, 169.186, 202.491, 30.073, 26.896, 18.817],
    ]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_diameter_is_what_was_asked_for(cells) -> None:
    fields = cellscan.compose_fields(cells, 6, cell_diameter=30, seed=0)
    sides = np.concatenate([np.sqrt((own[:, 2:] - own[:, :2]).prod(1)) for own in fields.boxes])
    assert 27 < np.median(sides) < 33


def test_a_style_gives_its_colours(cells) -> None:
    image = np.full((120, 160, 3), (120, 200, 150), np.uint8)
    y, x = np.mgrid[:120, :160]
    for left in (30, 80, 130):
        image[(x - left) ** 2 + (y - 60) ** 2 < 300] = (160, 60, 90)
    style = cellscan.FieldDataset.from_arrays([image], [[]], [[]], class_names=("red blood cell",))
    fields = cellscan.compose_fields(cells, 6, style=style, seed=0)
    grounds = []
    for field in fields:
        free = np.ones(field.image.shape[:2], bool)
        for left, top, right, bottom in field.boxes.astype(int).tolist():
            free[top:bottom, left:right] = False
        grounds.append(np.median(field.image[free], 0))
    red, green, blue = np.median(grounds, 0)
    assert green > blue > red


def test_what_cannot_be_composed_says_why(cells) -> None:
    for options, match in (
        ({"count": 0}, "count is 0"), ({"cell_diameter": 4}, "cell_diameter"), ({"cell_diameter": (40, 20)}, "minimum"),
        ({"size": (20, 20)}, "size"), ({"infected": "sick"}, "infected is 'sick'"), ({"style": 3}, "style is a int"),
        ({"seed": -1}, "seed"),
    ):  # fmt: skip
        with pytest.raises(cellscan.ArgumentError, match=match):
            cellscan.compose_fields(cells, **{"count": 1, **options})  # type: ignore[arg-type]
    unknown = cellscan.CellDataset.from_arrays(np.zeros((2, 16, 16, 3), np.uint8), [0, 1])
    with pytest.raises(cellscan.DataError, match="patients of these cells are unknown"):
        cellscan.compose_fields(unknown, 1)
    with pytest.raises(cellscan.DataError, match="only parasitized"):
        cellscan.compose_fields(cells.select(cells.labels == 0), 1)
    empty = cellscan.FieldDataset.from_arrays(
        [np.zeros((99, 99, 3), np.uint8)], [[]], [[]], class_names=("red blood cell",)
    )
    with pytest.raises(cellscan.DataError, match="no field in which cells are darker"):
        cellscan.compose_fields(cells, 1, style=empty)


def marked() -> cellscan.FieldDataset:
    """Return two laboratories: squares of 20 and of 60 pixels, each in its own colour."""
    images, boxes = [], []
    for side, colour in ((20, 200), (60, 90)):
        for _ in range(2):
            image = np.full((300, 300, 3), 240, np.uint8)
            own = [(x, y, x + side, y + side) for x in range(10, 220, 70) for y in range(10, 220, 70)]
            for x0, y0, x1, y1 in own:
                image[y0:y1, x0:x1] = colour
            images.append(image)
            boxes.append(own)
    fields = cellscan.FieldDataset.from_arrays(
        images, boxes, [[0] * len(own) for own in boxes], class_names=("red blood cell", "infected")
    )
    return fields.with_groups(laboratories=["small", "small", "large", "large"])


def test_a_mosaic_brings_cells_to_one_diameter() -> None:
    mosaics = cellscan.mosaic_fields(marked(), 8, size=(200, 200), cell_diameter=30, seed=0)
    whole = [own[said == 0] for own, said in zip(mosaics.boxes, mosaics.labels, strict=True)]
    sides = np.concatenate([own[:, 2:] - own[:, :2] for own in whole])
    assert np.mean(np.abs(sides.max(1) - 30) < 1.5) > 0.8
    seen = set()
    for field in mosaics:
        for box, label in zip(field.boxes, field.labels, strict=True):
            if label == 0:
                x, y = ((box[:2] + box[2:]) / 2).astype(int).tolist()
                value = int(field.image[y, x, 0])
                seen.add(min((200, 90), key=lambda colour: abs(colour - value)))
                assert min(abs(value - 200), abs(value - 90)) < 20  # the box lies on its cell
    assert seen == {200, 90}


def test_the_pieces_of_a_mosaic_by_their_plans() -> None:
    fields = marked()
    mosaics = cellscan.mosaic_fields(fields, 40, size=(300, 400), cell_diameter=(20, 40), margin=0.5, seed=1)
    assert mosaics.sizes.tolist() == [[400, 300]] * 40
    factors, rows, numbers = [], [], set()
    for plan in mosaics.source._plans:  # type: ignore[attr-defined]
        covered = np.zeros((300, 400), int)
        for piece in plan:
            (left, top, right, bottom), (x0, y0, x1, y1) = piece.window, piece.place
            covered[piece.part[1] : piece.part[3], piece.part[0] : piece.part[2]] += 1
            diameter = 20 if piece.row < 2 else 60
            assert min(left, top) >= 0.5 * diameter - 1e-6  # the margin
            assert max(right, bottom) <= 300 - 0.5 * diameter + 1e-6
            assert piece.part[0] <= x0 < x1 <= piece.part[2]
            assert piece.part[1] <= y0 < y1 <= piece.part[3]
            factors.append((x1 - x0) / (right - left) * diameter)
            assert np.isclose((y1 - y0) / (bottom - top) * diameter, factors[-1])
            rows.append(piece.row)
        assert (covered == 1).all()
        numbers.add((len({piece.part[0] for piece in plan}), len({piece.part[1] for piece in plan})))
    assert 20 <= min(factors) < 21
    assert 39 < max(factors) <= 40
    # Without their margins, fields are 14.5 or 4 diameters wide, typically 9.25 x 28.3 = 262 pixels.
    assert numbers == {(2, 1), (3, 1), (2, 2), (3, 2)}
    assert abs(np.mean(np.array(rows) < 2) - 0.5) < 0.1
    small = cellscan.mosaic_fields(fields.select([2, 3]), 2, size=(400, 400), cell_diameter=8)
    assert {len(plan) for plan in small.source._plans} == {36}  # type: ignore[attr-defined]
    owners = fields.with_groups(laboratories=["a", "b", "b", "b"])
    plans = cellscan.mosaic_fields(owners, 40).source._plans  # type: ignore[attr-defined]
    assert abs(np.mean([piece.row == 0 for plan in plans for piece in plan]) - 0.5) < 0.1


def test_cut_cells_of_a_mosaic_are_ignored_or_dropped() -> None:
    mosaics = cellscan.mosaic_fields(marked(), 100, size=(200, 200), cell_diameter=30)
    labels, boxes = np.concatenate(mosaics.labels), np.concatenate(mosaics.boxes)
    shares = (boxes[:, 2:] - boxes[:, :2]).prod(1) / 30**2
    assert set(labels.tolist()) == {0, IGNORED}
    assert 0.5 - 1e-4 <= shares[labels == 0].min() < 0.53
    assert 0.47 < shares[labels == IGNORED].max() < 0.5 + 1e-4
    assert 0.05 - 1e-4 <= shares[labels == IGNORED].min() < 0.07


def test_a_field_needs_sixteen_pixels_inside_its_margin() -> None:
    def tiny(side: int) -> cellscan.FieldDataset:
        image = np.full((200, side, 3), 240, np.uint8)
        return cellscan.FieldDataset.from_arrays([image], [[(5, 5, 15, 15)]], [[0]], class_names=("red blood cell",))

    assert len(cellscan.mosaic_fields(tiny(36), 1, margin=1.0)) == 1
    with pytest.raises(cellscan.DataError, match="inside its margin"):
        cellscan.mosaic_fields(tiny(35), 1, margin=1.0)


def test_images_of_mosaics_stay_the_same() -> None:
    """Stored pixels are found by `identity` of the source. After a change of the images, raise the number in it."""
    mosaics = cellscan.mosaic_fields(marked(), 2, size=(240, 240), cell_diameter=(20, 40), seed=2)
    found = [[field.image[..., 0].mean(), field.image[..., 0].std()] for field in mosaics]
    np.testing.assert_allclose(found, [[238.067, 8.471], [237.852, 8.854]], atol=0.02)


def test_a_mosaic_keeps_what_is_not_annotated() -> None:
    fields = marked()
    part = cellscan.FieldDataset.from_arrays(
        [field.image for field in fields], fields.boxes, fields.labels, class_names=fields.class_names,
        complete=[True, False],
    )  # fmt: skip
    assert cellscan.mosaic_fields(part, 3).complete.tolist() == [[True, False]] * 3
    again = cellscan.mosaic_fields(part, 3)
    assert again.hash() == cellscan.mosaic_fields(part, 3).hash()
    assert (pickle.loads(pickle.dumps(again))[1].image == again[1].image).all()


def test_a_margin_leaves_the_frame_out() -> None:
    image = np.full((200, 200, 3), 240, np.uint8)
    image[:15] = image[-15:] = 0
    image[:, :15] = image[:, -15:] = 0
    fields = cellscan.FieldDataset.from_arrays([image], [[(80, 80, 110, 110)]], [[0]], class_names=("red blood cell",))
    with_frame = cellscan.mosaic_fields(fields, 4, size=(240, 240), cell_diameter=30)
    without = cellscan.mosaic_fields(fields, 4, size=(240, 240), cell_diameter=30, margin=0.6)
    assert min(int(field.image.min()) for field in with_frame) < 30
    assert min(int(field.image.min()) for field in without) > 200


def test_what_makes_no_mosaic_says_why() -> None:
    fields = marked()
    for options, match in (
        ({"count": True}, "count"), ({"margin": -1}, "margin"), ({"cell_diameter": "auto"}, "cell_diameter"),
        ({"cell_diameter": (1, 2, 3)}, "cell_diameter"), ({"size": 300}, "size"),
        ({"cell_diameter": 101, "size": (200, 240)}, "cell_diameter"),
    ):  # fmt: skip
        with pytest.raises(cellscan.ArgumentError, match=match):
            cellscan.mosaic_fields(fields, **{"count": 1, **options})  # type: ignore[arg-type]
    assert len(cellscan.mosaic_fields(fields, 1, cell_diameter=100, size=(200, 240))) == 1
    with pytest.raises(cellscan.DataError, match="no field has a box"):
        cellscan.mosaic_fields(fields.rename_classes({"red blood cell": None}), 1)


def test_dropped_classes_are_background_and_added_ones_have_no_cell() -> None:
    fields = cellscan.FieldDataset.from_arrays(
        [np.zeros((50, 50, 3), np.uint8)], [[(1, 1, 9, 9), (20, 20, 30, 30)]], [[0, 1]],
        class_names=("RBC", "WBC"), points=[[(5, 5), (25, 25)]], point_labels=[[0, 1]], polygons=[[[], []]],
    )  # fmt: skip
    left = fields.drop_classes(["WBC"]).add_classes(["infected"])
    assert left.class_names == ("RBC", "infected")
    assert left.boxes[0].tolist() == [[1, 1, 9, 9]]
    assert left.points[0].tolist() == [[5, 5]]
    assert left.labels[0].tolist() == left.point_labels[0].tolist() == [0]
    assert len(left.polygons[0]) == 1
    assert left.complete.tolist() == [[True, True]]
    assert len(fields.boxes[0]) == 2
    with pytest.raises(cellscan.DataError, match="'WBC' is not among"):
        left.drop_classes(["WBC"])
    with pytest.raises(cellscan.DataError, match="'RBC' is there already"):
        left.add_classes(["RBC"])
    with pytest.raises(cellscan.ArgumentError):
        left.drop_classes("RBC")
