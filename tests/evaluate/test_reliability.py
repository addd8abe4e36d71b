"""The points of a reliability diagram."""

import numpy as np
import pytest

from cellscan.evaluate.reliability import reliability


def _cells(count: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.random.default_rng(0).uniform(size=count)
    return np.random.default_rng(1).uniform(size=count) < scores, scores


@pytest.mark.parametrize("patients", [True, False])
def test_points_and_intervals_are_those_of_drawing_again(patients: bool) -> None:
    truth, scores = _cells(600)
    groups = np.arange(600) // 20
    rng = np.random.default_rng(2)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, 600, 600)
        if patients:
            rows = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 30, 30)])
        bins = (scores[rows] * 10).astype(int)
        drawn.append([truth[rows][bins == k].mean() for k in range(10)])
    found = reliability(truth, scores, groups if patients else None, draws=1000)
    wanted = np.percentile(drawn, (2.5, 97.5), axis=0).T
    assert found.shape == (10, 4)
    np.testing.assert_allclose(found[:, 0], [scores[(scores * 10).astype(int) == k].mean() for k in range(10)])
    np.testing.assert_allclose(found[:, 1], [truth[(scores * 10).astype(int) == k].mean() for k in range(10)])
    np.testing.assert_allclose(found[:, 2:], wanted, atol=0.04)


def test_one_patient_has_no_interval_and_the_last_bin_holds_one() -> None:
    found = reliability(np.array([True, False]), np.array([1.0, 0.95]), np.array(["p", "p"]))
    np.testing.assert_array_equal(found, [[0.975, 0.5, np.nan, np.nan]])
    assert np.isnan(reliability(np.array([True]), np.array([0.3]), None)[0, 2:]).all()


@pytest.mark.parametrize("patients", [np.array(["p", "q", "q", "q"]), None])
def test_a_bin_of_one_patient_or_one_cell_has_no_interval(patients) -> None:
    truth, scores = np.array([True, False, True, True]), np.array([0.05, 0.05, 0.06, 0.95])
    found = reliability(truth, scores, patients)
    np.testing.assert_array_equal(found[:, 1], [2 / 3, 1.0])
    assert found[0, 2] < 2 / 3 < found[0, 3]
    assert np.isnan(found[1, 2:]).all()


@pytest.mark.parametrize("patients", [np.array(["p", "q"]), None])
def test_a_bin_of_two_cells_has_an_interval(patients) -> None:
    found = reliability(np.array([True, False]), np.array([0.05, 0.05]), patients)
    assert found[0, 2] < found[0, 1] == 1 / 2 < found[0, 3]


def test_half_a_million_cells_without_patients_need_no_draws_of_each() -> None:
    import tracemalloc

    truth, scores = _cells(500_000)
    tracemalloc.start()
    found = reliability(truth, scores, None)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert (np.abs(found[:, 1] - found[:, 0]) < 0.01).all()
