"""Synthetic cells."""

import numpy as np
import pytest

import cellscan


def test_same_seed_same_cells() -> None:
    a, b = cellscan.synthetic_cells(40, seed=3), cellscan.synthetic_cells(40, seed=3)
    assert all(np.array_equal(x.image, y.image) for x, y in zip(a, b, strict=True))
    assert a.hash() == b.hash()
    assert not np.array_equal(a.images(16)[:], cellscan.synthetic_cells(40, seed=4).images(16)[:])


def test_masks_are_where_the_parasites_are() -> None:
    cells = cellscan.synthetic_cells(120, seed=0)
    for cell, mask in zip(cells, cells.masks, strict=True):
        assert mask.shape == cell.image.shape[:2]
        assert mask.any() == (cell.label_name == "parasitized")
        assert not mask[cell.image.max(-1) == 0].any()  # inside the outline
    train, _ = cells.split(test=0.25, seed=0)
    assert len(train.masks) == len(train)


def test_healthy_patients_have_no_parasites_and_infected_ones_have_both() -> None:
    cells = cellscan.synthetic_cells(2000, seed=0)
    share = {p: (cells.labels[cells.patients == p] == 0).mean() for p in set(cells.patients)}
    healthy = [p for p, value in share.items() if value == 0]
    assert len(share) == 50
    assert 10 <= len(healthy) <= 15
    assert max(share.values()) < 1


def test_background_is_black_and_cells_are_not() -> None:
    cell = cellscan.synthetic_cells(40, seed=0)[0]
    light = cell.image.max(-1)
    assert (light == 0).mean() > 0.1
    assert light[light > 0].min() >= 28


def test_a_linear_model_stays_below_ninety() -> None:
    from sklearn.linear_model import LogisticRegression

    cells = cellscan.synthetic_cells(1000, seed=0)
    train, test = cells.split(test=0.25, seed=0)
    flat = [np.asarray(part.images(24)).reshape(len(part), -1) / 255 for part in (train, test)]
    model = LogisticRegression(C=0.01, max_iter=200).fit(flat[0], train.labels)
    assert 0.5 < model.score(flat[1], test.labels) < 0.9


@pytest.mark.parametrize("count", [7, 0, -1, 10.0, True])
def test_bad_counts(count) -> None:
    with pytest.raises(cellscan.ArgumentError, match="count is"):
        cellscan.synthetic_cells(count)
    with pytest.raises(cellscan.ArgumentError, match="'easy', 'normal', 'hard'"):
        cellscan.synthetic_cells(10, difficulty="impossible")


def test_numbers_of_numpy_count_and_others_are_refused() -> None:
    cells = cellscan.synthetic_cells(np.int32(8), seed=np.int64(3))  # type: ignore[arg-type]
    assert cells.hash() == cellscan.synthetic_cells(8, seed=3).hash()
    for bad in (-1, None, 0.5, "1", True):
        with pytest.raises(cellscan.ArgumentError, match="seed is"):
            cellscan.synthetic_cells(8, seed=bad)  # type: ignore[arg-type]
        with pytest.raises(cellscan.ArgumentError, match="seed is"):
            cellscan.synthetic_fields(1, seed=bad)  # type: ignore[arg-type]
    assert cellscan.synthetic_fields(1, size=np.array([96, 128])).sizes.tolist() == [[128, 96]]  # type: ignore[arg-type]
    for size in (96, (96,), (96, 95), (96.0, 128), None, "96", (96, 128, 3)):
        with pytest.raises(cellscan.ArgumentError, match="size is"):
            cellscan.synthetic_fields(1, size=size)  # type: ignore[arg-type]


def test_it_is_said_that_another_count_gives_other_cells() -> None:
    few, many = cellscan.synthetic_cells(40, seed=0), cellscan.synthetic_cells(400, seed=0)
    assert not np.array_equal(few[1].image, many[1].image)
    assert "Another count gives other cells" in " ".join(str(cellscan.synthetic_cells.__doc__).split())
