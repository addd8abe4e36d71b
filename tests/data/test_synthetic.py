"""Painted cells."""

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
    train, _ = cells.split(0.25, seed=0)
    assert len(train.masks) == len(train)


def test_healthy_patients_have_no_parasites_and_infected_ones_have_both() -> None:
    cells = cellscan.synthetic_cells(2000, seed=0)
    share = {p: (cells.labels[cells.patients == p] == 0).mean() for p in set(cells.patients)}
    healthy = [p for p, value in share.items() if value == 0]
    assert len(share) == 50
    assert 10 <= len(healthy) <= 15
    assert max(share.values()) < 1


def test_surround_is_black_and_cells_are_not() -> None:
    cell = cellscan.synthetic_cells(40, seed=0)[0]
    light = cell.image.max(-1)
    assert (light == 0).mean() > 0.1
    assert light[light > 0].min() >= 28


def test_a_linear_model_stays_below_ninety() -> None:
    from sklearn.linear_model import LogisticRegression

    cells = cellscan.synthetic_cells(1000, seed=0)
    train, test = cells.split(0.25, seed=0)
    flat = [np.asarray(part.images(24)).reshape(len(part), -1) / 255 for part in (train, test)]
    model = LogisticRegression(C=0.01, max_iter=200).fit(flat[0], train.labels)
    assert 0.5 < model.score(flat[1], test.labels) < 0.9


@pytest.mark.parametrize("count", [7, 0, -1, 10.0, True])
def test_bad_counts(count) -> None:
    with pytest.raises(cellscan.ArgumentError, match="count is"):
        cellscan.synthetic_cells(count)
    with pytest.raises(cellscan.ArgumentError, match="'easy', 'normal', 'hard'"):
        cellscan.synthetic_cells(10, difficulty="impossible")
