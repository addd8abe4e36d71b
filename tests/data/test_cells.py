"""The table of cells, and dividing it."""

import numpy as np
import pytest
from helpers import tiny_cells
from hypothesis import given, settings
from hypothesis import strategies as st

import cellscan
from cellscan.data.joining import match_labels
from cellscan.data.splits import assign


def unknown_patients() -> cellscan.CellDataset:
    return cellscan.CellDataset.from_arrays(np.zeros((20, 16, 16, 3), np.uint8), np.arange(20) % 2)


def test_table_is_immutable_and_typed() -> None:
    cells = tiny_cells()
    assert cells.labels.dtype == np.int32
    for array in (cells.labels, cells.patients, cells.names):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    with pytest.raises(AttributeError):
        cells.labels = cells.labels  # type: ignore[misc]


def test_a_cell_knows_what_it_is() -> None:
    cells = cellscan.synthetic_cells(40, seed=0)
    cell = cells[-1]
    assert (cell.label, cell.label_name) == (1, "uninfected")
    assert cell.patient == cells.patients[-1]
    assert cell.name == cells.names[-1]
    assert len(list(cells)) == 40
    with pytest.raises(IndexError):
        cells[40]


def test_select_rename_concat() -> None:
    cells = tiny_cells()
    chosen = cells.select(cells.labels == 1)
    assert set(chosen.labels.tolist()) == {1}
    assert np.array_equal(cells.select([3, 0]).labels, cells.labels[[3, 0]])
    assert len(cells.select(slice(0, 5))) == 5
    assert len(cells.select([])) == 0
    other = cells.rename_classes({"uninfected": "Parasitized_", "parasitized": "UNINFECTED"})
    other = other.rename_classes({"Parasitized_": "Parasitized"})
    both = cellscan.concat([cells, other])
    assert both.class_names == cells.class_names
    assert np.array_equal(both.labels[len(cells) :], 1 - cells.labels)  # by name, case-folded, not by index
    merged = cells.rename_classes({"parasitized": "cell", "uninfected": "cell"})
    assert merged.class_names == ("cell",)
    assert not merged.labels.any()


def test_match_labels_names_what_is_unknown() -> None:
    cells = tiny_cells().rename_classes({"parasitized": "Infected"})
    with pytest.raises(cellscan.DataError, match="rename_classes") as caught:
        match_labels(cells, ("parasitized", "uninfected"))
    assert "Infected" in str(caught.value)


def test_cells_left_out_by_name() -> None:
    cells = tiny_cells()
    kept = cells.without([*cells.names[[1, 4]], "elsewhere.png"])
    assert kept.names.tolist() == np.delete(cells.names, [1, 4]).tolist()
    assert np.array_equal(kept.labels, np.delete(cells.labels, [1, 4]))
    assert len(cells.without(str(cells.names[0]))) == len(cells) - 1
    assert len(cells.without([])) == len(cells)
    with pytest.raises(cellscan.DataError, match="none of the 1 names to leave out is among these cells"):
        cells.without(["elsewhere.png"])


@pytest.mark.parametrize("bad", [np.zeros(3, bool), [99], [0.5], np.zeros((2, 2), int), ["a"]])
def test_bad_selections(bad) -> None:
    with pytest.raises(cellscan.ArgumentError, match="select got"):
        tiny_cells().select(bad)


def test_bad_tables() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    make = cellscan.CellDataset.from_arrays
    with pytest.raises(cellscan.DataError, match="as many"):
        make(images, [0])
    with pytest.raises(cellscan.DataError, match="labels from"):
        make(images, [0, 2])
    with pytest.raises(cellscan.DataError, match="not distinct"):
        make(images, [0, 1], class_names=("a", "A"))
    with pytest.raises(cellscan.DataError, match="unknown while others"):
        make(images, [0, 1], patients=["p", ""])
    with pytest.raises(cellscan.DataError, match="no images"):
        make(images[:0], [])
    with pytest.raises(cellscan.DataError, match="known in some"):
        cellscan.concat([tiny_cells(), unknown_patients()])
    with pytest.raises(cellscan.DataError, match="at least one"):
        cellscan.concat([])
    with pytest.raises(cellscan.DataError, match="no masks"):
        _ = tiny_cells().masks


def test_describe_and_print_say_when_patients_are_unknown() -> None:
    cells = unknown_patients()
    assert "patients unknown" in str(cells)
    assert "patients unknown" in str(cells.describe())
    assert cells.describe().patients == 0
    with pytest.raises(cellscan.DataError, match="patient="):
        cells.split(0.2)
    train, test = cells.split(0.2, by="cell")
    assert len(test) == 4
    assert "PATIENTS ARE ON BOTH SIDES" in str(test.split_info)
    assert len(cellscan.concat([train, test])) == 20


def test_describe_counts() -> None:
    found = cellscan.synthetic_cells(200, seed=0).describe()
    assert (found.cells, found.patients) == (200, 5)
    assert found.per_class == {"parasitized": 100, "uninfected": 100}
    assert found.sides[0] <= found.sides[1] <= found.sides[2]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.08, 0.45), st.integers(20, 60))
def test_patient_splits_hold(seed, fraction, patients) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 120, patients)
    groups = np.repeat(np.arange(patients), sizes)
    labels = (rng.random(len(groups)) < np.repeat(rng.uniform(0, 1, patients), sizes)).astype(int)
    part = assign(labels, groups, (1 - fraction, fraction), 2, seed)
    for group in range(patients):
        assert len(set(part[groups == group])) == 1
    assert abs((part == 1).mean() - fraction) < 0.03
    # A part of two patients can only be so even: in 1,500 draws 0.11 off, with three 0.065, with five 0.034.
    owners = len(set(groups[part == 1].tolist()))
    assert abs(labels[part == 1].mean() - labels.mean()) < 0.02 + 0.25 / owners


def test_split_order_fractions_and_seeds() -> None:
    cells = cellscan.synthetic_cells(1200, seed=0)
    train, valid, test = cells.split(0.1, 0.2, seed=0)
    assert [round(len(part) / 1200, 1) for part in (train, valid, test)] == [0.7, 0.1, 0.2]
    owners = [set(part.patients) for part in (train, valid, test)]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    again = cells.split(0.1, 0.2, seed=0)[2]
    assert np.array_equal(again.names, test.names)
    assert not np.array_equal(cells.split(0.1, 0.2, seed=1)[2].names, test.names)
    assert test.split_info is not None
    assert train.split_info is not None
    assert test.split_info.hash == train.split_info.hash


def test_folds_by_number_partition_patients() -> None:
    cells = cellscan.synthetic_cells(800, seed=0)
    tests = [test for _, test in cells.folds(4, seed=0)]
    assert sorted(name for test in tests for name in test.names) == sorted(cells.names)
    owners = [set(test.patients) for test in tests]
    assert sum(map(len, owners)) == len(set.union(*owners))
    for train, test in cells.folds(4, seed=0):
        assert not set(train.patients) & set(test.patients)
        assert abs(len(test) / 800 - 0.25) < 0.03


def test_folds_from_a_file(tmp_path) -> None:
    cells = tiny_cells()
    file = tmp_path / "folds.csv"
    file.write_text("patient,fold\n" + "".join(f"p{i},{i % 3}\n" for i in range(6)))
    folds = list(cells.folds(file))
    assert [sorted(set(test.patients)) for _, test in folds] == [["p0", "p3"], ["p1", "p4"], ["p2", "p5"]]
    assert "fold 0 of folds.csv" in str(folds[0][1].split_info)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,fold\np0,0\n", "5 patients of the data set are not in it"),
        ("patient,fold\n" + "".join(f"p{i},0\n" for i in range(6)), "one fold"),
        ("patient,fold\n" + "".join(f"p{i},x\n" for i in range(6)), "whole number"),
        ("who,where\np0,1\n", "header"),
        ("patient,fold\np0,1\np0,2\n", "twice"),
    ],
)
def test_bad_fold_files(tmp_path, text, message) -> None:
    file = tmp_path / "folds.csv"
    file.write_text(text)
    with pytest.raises(cellscan.DataError, match=message):
        tiny_cells().folds(file)


def test_bad_divisions() -> None:
    cells = tiny_cells()
    with pytest.raises(cellscan.DataError, match="below 1"):
        cells.split(0.6, 0.4)
    with pytest.raises(cellscan.DataError, match="below 1"):
        cells.split(-0.1)
    with pytest.raises(cellscan.DataError, match="cannot fill"):
        cells.folds(7)
    with pytest.raises(cellscan.ArgumentError, match="from 2"):
        cells.folds(1)
    with pytest.raises(cellscan.ArgumentError, match="'patient', 'cell'"):
        cells.split(0.2, by="slide")  # type: ignore[call-overload]
    with pytest.raises(cellscan.DataError, match="cannot be read"):
        cells.folds("absent.csv")


def test_cell_split_is_stratified() -> None:
    cells = cellscan.synthetic_cells(400, seed=0)
    _, test = cells.split(0.25, by="cell", seed=0)
    assert np.bincount(test.labels).tolist() == [50, 50]


def test_plot_as_stored_and_resized() -> None:
    cells = tiny_cells()
    assert len(cells.plot(rows=2, columns=3).axes) == 12
    figure = cells.plot(rows=1, columns=2, size=16)
    assert figure.axes[0].images[0].get_array().shape == (16, 16, 3)  # type: ignore[union-attr]
