"""The functions that divide cells: exact results, which must stay the same in every release, and their errors."""

import hashlib
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

import cellscan
from cellscan.data.splits import (
    Split,
    assign,
    assign_cells,
    check_folds,
    part_fractions,
    read_folds,
    split_hash,
)
from cellscan.errors import ArgumentError, DataError

# 40 patients with 3 to 42 cells each; every fourth is healthy.
NUMBERS = np.repeat(np.arange(40), [3 + number * 7 % 40 for number in range(40)])
PATIENTS = np.array([f"p{number:02}" for number in NUMBERS])
LABELS = np.where(NUMBERS % 4 == 0, 1, np.arange(len(NUMBERS)) % 2)


def digest(parts: np.ndarray) -> str:
    return hashlib.sha256(parts.astype(np.int8).tobytes()).hexdigest()[:12]


def test_fractions_are_in_the_order_of_the_parts() -> None:
    assert part_fractions((), 0.25, None) == (0.75, 0.25)
    assert part_fractions((), 0.125, 0.25) == (0.625, 0.25, 0.125)
    with pytest.raises(ArgumentError, match=r"validation is 0\.25 and test is 0\.75, which leaves no cells"):
        part_fractions((), 0.75, 0.25)
    with pytest.raises(ArgumentError, match=r"split got 0\.2, 0\.1 without a keyword; expected keywords"):
        part_fractions((0.2, 0.1), None, None)
    for bad in (0, 1, -0.1):
        with pytest.raises(ArgumentError, match=rf"^test is {bad}; expected a number in \(0, 1\)"):
            part_fractions((), bad, None)
        with pytest.raises(ArgumentError, match=rf"^validation is {bad}; expected a number in \(0, 1\)"):
            part_fractions((), 0.2, bad)


@pytest.mark.parametrize(("fractions", "expected"), [((0.7, 0.1, 0.2), "9a0b0b4334b1"), ((0.25,) * 4, "13ab1c03b9e3")])
def test_an_assignment_is_balanced_and_stays_the_same(fractions, expected) -> None:
    parts = assign(LABELS, PATIENTS, fractions, 2, 0)
    assert digest(parts) == expected, "the same seed gives other parts than in earlier releases"
    assert digest(assign(LABELS, PATIENTS, fractions, 2, 1)) != expected
    for patient in np.unique(PATIENTS):
        assert len(set(parts[PATIENTS == patient].tolist())) == 1
    first = np.unique(PATIENTS, return_index=True)[1]
    for values in (parts[LABELS == 0], parts[LABELS == 1], parts[first]):
        shares = np.bincount(values, minlength=len(fractions)) / len(values)
        assert np.abs(shares - fractions).max() < 0.01


def test_an_assignment_fills_every_part() -> None:
    three = np.array(["a", "b", "c"])
    assert assign(np.array([0, 1, 0]), three, (0.4, 0.3, 0.3), 2, 0).tolist() == [1, 0, 2]
    with pytest.raises(DataError, match="3 patients cannot fill 4 parts"):
        assign(np.array([0, 1, 0]), three, (0.25,) * 4, 2, 0)
    with pytest.raises(DataError, match=r"3 patients do not fill 2 parts of fractions \(0\.99, 0\.01\)"):
        assign(np.array([0, 1, 0]), three, (0.99, 0.01), 2, 0)


def test_two_spellings_of_a_patient_give_a_warning() -> None:
    cells = cellscan.synthetic_cells(40, seed=0)
    names = np.array(["p1", "P01", "1.05", "1.5", "10"])[np.arange(40) % 5]
    cells = cellscan.CellDataset.from_arrays([cell.image for cell in cells], cells.labels, patients=names)
    with pytest.warns(UserWarning, match="the ids 'P01' and 'p1' differ only in leading zeros") as caught:
        train, test = cells.split(test=0.4, seed=0)
    assert caught[0].filename == __file__
    assert set(train.patients) | set(test.patients) == set(names)
    with pytest.warns(UserWarning, match="'A 001' and 'a-1'"):
        assign(np.array([0, 1, 0, 1]), np.array(["A 001", "a-1", "b", "c"]), (0.5, 0.5), 2, 0)


def test_cells_are_assigned_by_class() -> None:
    labels = np.array([0] * 10 + [2] * 21)
    parts = assign_cells(labels, (0.6, 0.2, 0.2), 0)
    assert np.bincount(parts[labels == 0]).tolist() == [6, 2, 2]
    assert np.bincount(parts[labels == 2]).tolist() == [13, 4, 4]
    assert digest(parts) == "fce46b3ec102", "the same seed gives other parts than in earlier releases"
    assert digest(assign_cells(labels, (0.6, 0.2, 0.2), 1)) != "fce46b3ec102"


def test_a_number_of_folds() -> None:
    assert check_folds(2) == 2
    assert type(check_folds(np.int64(3))) is int
    for bad in (1, 0, -3, True, 2.0, "3", None):
        with pytest.raises(ArgumentError, match="expected a number from 2, or a fold file"):
            check_folds(bad)


def test_a_fold_file(tmp_path) -> None:
    file, patients = tmp_path / "folds.csv", np.array(["a", "b", "a"])

    def read(*lines: str) -> list[int]:
        file.write_text("\n".join(["patient,fold", *lines]) + "\n")
        return read_folds(file, patients).tolist()

    assert read("b,5", "a,-1", "c,0") == [-1, 5, -1]
    with pytest.raises(DataError, match="expected a patient and a whole number in every line"):
        read("a,0", "b,1.5")
    with pytest.raises(DataError, match="some patients occur twice"):
        read("a,0", "b,1", "a,0")
    with pytest.raises(DataError, match="1 patients of the data set are not in it, such as 'b'"):
        read("a,0", "c,1")
    with pytest.raises(DataError, match="the fold file cannot be read"):
        read_folds(tmp_path / "absent.csv", patients)
    with pytest.raises(DataError, match="all patients of this data set are in one fold"):
        read("a,1", "b,1", "c,0")


def test_a_hash_depends_on_the_assignment_alone() -> None:
    names, labels, parts = np.array(["x", "y", "z"]), np.array([0, 1, 0]), np.array([0, 1, 1])
    found = split_hash(names, labels, parts)
    assert found == "3a5a81bc6857"
    assert split_hash(names[::-1], labels[::-1], parts[::-1]) == found
    for change in ((names[[1, 0, 2]], labels, parts), (names, 1 - labels, parts), (names, labels, 1 - parts)):
        assert split_hash(*change) != found
    assert len(split_hash(np.array(["bad \udcff"]), labels[:1], parts[:1])) == 12


def test_a_split_says_whether_patients_are_on_both_sides() -> None:
    split = Split("patient", "part 1 of 2", "abc")
    assert str(split) == "by patient, part 1 of 2, hash abc"
    with pytest.raises(FrozenInstanceError):
        split.by = "cell"  # type: ignore[misc]
    assert str(Split("cell", "part 1 of 2", "abc")).endswith(
        "hash abc; PATIENTS ARE ON BOTH SIDES: the metrics are optimistically biased"
    )
