"""The table of cells, and dividing it."""

import copy
import pickle
from typing import Any

import numpy as np
import pandas
import pytest
from helpers import tiny_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cellscan
from cellscan.data.concat import match_labels
from cellscan.data.images import read_rgb
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
    with pytest.raises(cellscan.DataError, match="unknown, but other"):
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
        cells.split(test=0.2)
    train, test = cells.split(test=0.2, by="cell")
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
    train, valid, test = cells.split(validation=0.1, test=0.2, seed=0)
    assert [round(len(part) / 1200, 1) for part in (train, valid, test)] == [0.7, 0.1, 0.2]
    owners = [set(part.patients) for part in (train, valid, test)]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    again = cells.split(validation=0.1, test=0.2, seed=0)[2]
    assert np.array_equal(again.names, test.names)
    assert not np.array_equal(cells.split(validation=0.1, test=0.2, seed=1)[2].names, test.names)
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
    with pytest.raises(cellscan.ArgumentError, match="below 1"):
        cells.split(validation=0.6, test=0.4)
    with pytest.raises(cellscan.ArgumentError, match="test is -0.1; expected a number in"):
        cells.split(test=-0.1)
    with pytest.raises(cellscan.DataError, match="cannot fill"):
        cells.folds(7)
    with pytest.raises(cellscan.ArgumentError, match="from 2"):
        cells.folds(1)
    with pytest.raises(cellscan.ArgumentError, match="'patient', 'cell'"):
        cells.split(test=0.2, by="slide")  # type: ignore[call-overload]
    with pytest.raises(cellscan.DataError, match="cannot be read"):
        cells.folds("absent.csv")


def test_cell_split_is_stratified() -> None:
    cells = cellscan.synthetic_cells(400, seed=0)
    _, test = cells.split(test=0.25, by="cell", seed=0)
    assert np.bincount(test.labels).tolist() == [50, 50]


def test_plot_as_stored_and_resized() -> None:
    cells = tiny_cells()
    assert len(cells.plot(rows=2, columns=3).axes) == 12
    figure = cells.plot(rows=1, columns=2, size=16)
    assert figure.axes[0].images[0].get_array().shape == (16, 16, 3)  # type: ignore[union-attr]


def arrays(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_missing_patients_are_missing_however_a_table_writes_it() -> None:
    make = cellscan.CellDataset.from_arrays
    missing = [None, float("nan"), np.nan, pandas.NA, pandas.NaT, "", "nan", "None"]
    assert not make(arrays(), [0, 1] * 4, patients=missing).has_patients
    assert not make(arrays(2), [0, 1], patients=np.array(["p", None], object)[1:].repeat(2)).has_patients
    for one in missing:
        with pytest.raises(cellscan.DataError, match="image_1: the patient of this cell is unknown, but other"):
            make(arrays(2), [0, 1], patients=["p1", one])
    with pytest.raises(cellscan.DataError, match="unknown, but other"):
        make(arrays(2), [0, 1], patients=pandas.Series(["p1", None]))


def test_ids_that_are_equal_numbers_are_one_patient() -> None:
    forms = (
        [1, 2], np.array([1.0, 2.0]), ["1", "2.0"], np.array(["1", "2"], object), [np.float32(1), " 2 "],
        pandas.Series([1, 2], dtype="Int64"), (str(i) for i in (1, 2)),
    )  # fmt: skip
    for patients in forms:
        cells = cellscan.CellDataset.from_arrays(arrays(2), [0, 1], patients=patients)
        assert cells.patients.tolist() == ["1", "2"]
    cells = cellscan.CellDataset.from_arrays(arrays(2), [0, 1], patients=["01", "1.5"])
    assert cells.patients.tolist() == ["01", "1.5"]
    with pytest.raises(cellscan.DataError, match=r"patients\[1\] is \['p'\]"):
        cellscan.CellDataset.from_arrays(arrays(2), [0, 1], patients=["p", ["p"]])
    for bad in ("pq", 3, {"a": 1, "b": 2}):
        with pytest.raises(cellscan.ArgumentError, match="patients is"):
            cellscan.CellDataset.from_arrays(arrays(2), [0, 1], patients=bad)  # type: ignore[arg-type]


def test_patients_of_a_fold_file_are_read_alike(tmp_path) -> None:
    cells = cellscan.CellDataset.from_arrays(arrays(4), [0, 1] * 2, patients=[1.0, 2.0, 1.0, 2.0])
    (tmp_path / "folds.csv").write_text("patient;fold\n1.0;0.0\n2;1\n")
    assert cells.fold_numbers(tmp_path / "folds.csv").tolist() == [0, 1, 0, 1]


def test_forms_of_labels() -> None:
    want = [1, 0, 1, 0]
    forms = (
        want, np.array(want, np.int8),
        np.array(want, float), ["uninfected", "Parasitized", "UNINFECTED", "parasitized"],
        pandas.Series(["uninfected", "parasitized"] * 2, dtype="category"), pandas.Series(want, dtype="Int64"),
        (i for i in want), np.array(want)[:, None], np.array(["uninfected", "parasitized"] * 2),
    )  # fmt: skip
    for labels in forms:
        cells = cellscan.CellDataset.from_arrays(arrays(4), labels)  # type: ignore[arg-type]
        assert cells.labels.tolist() == want
        assert cells.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, np.nan], r"labels\[1\] is nan"), ([0, None], r"labels\[1\] is None"), ([0.7, 1.2], r"labels\[0\] is 0.7"),
        (np.eye(2), "argmax"), (["dog", "cat"], r"labels\[0\] is 'dog'.*class_names="), ([0, 2], "labels from 0 to 2"),
        ([0, -1], "labels from -1"), ([0, 2**40], "labels from 0 to 1099511627776"), ([True, False], "True and False"),
        ([0, np.inf], "labels"), ([0, "x"], "labels"), ([[0], [1, 2]], "different lengths"), ([0, pandas.NA], "labels"),
        ([0, 1j], "labels"), ("ab", "labels is 'ab'"), (3, "labels is 3"), (np.array(3), "shape"), ([0], "as many"),
        ([], "as many"),
    ],
)  # fmt: skip
def test_labels_that_are_none(labels, message) -> None:
    with pytest.raises(cellscan.CellscanError, match=message):
        cellscan.CellDataset.from_arrays(arrays(2), labels)


def test_images_of_any_form_are_read_as_by_predict(tmp_path) -> None:
    rgb = Image.fromarray(arrays(1)[0])
    rgb.save(tmp_path / "a.png")
    palette, cmyk = rgb.quantize(64), rgb.convert("CMYK")
    forms = [
        rgb,
        palette,
        cmyk,
        tmp_path / "a.png",
        (tmp_path / "a.png").read_bytes(),
        arrays(1)[0],
        arrays(1)[0] / 255,
    ]
    cells = cellscan.CellDataset.from_arrays(forms, [0] * len(forms))
    for cell, form in zip(cells, forms, strict=True):
        assert np.array_equal(cell.image, read_rgb(form))
    assert np.array_equal(cells[1].image, np.asarray(palette.convert("RGB")))
    assert len(cellscan.CellDataset.from_arrays((image for image in arrays(4)), [0, 1] * 2)) == 4
    with pytest.raises(cellscan.ImageError, match="c.png: "):
        cellscan.CellDataset.from_arrays([arrays(1)[0], np.zeros((2, 3))[0]], [0, 1], names=["b.png", "c.png"])
    for bad in (tmp_path / "a.png", "a.png", b"x", None, 3):
        with pytest.raises(cellscan.ArgumentError, match="images is"):
            cellscan.CellDataset.from_arrays(bad, [0])  # type: ignore[arg-type]


def test_a_data_set_owns_its_arrays() -> None:
    images, labels = np.full((6, 32, 32, 3), 200, np.uint8), np.array([0, 1] * 3, np.int32)
    patients, names = np.array(list("pqpqpq")), np.array(list("abcdef"))
    cells = cellscan.CellDataset.from_arrays(images, labels, patients=patients, names=names)
    before = cells.fingerprint()
    images[:], labels[:], patients[:], names[:] = 0, 0, "x", "y"
    assert cells.fingerprint() == before
    assert cells.per_class() == {"parasitized": 3, "uninfected": 3}
    assert cells[0].image.max() == 200
    synthetic = cellscan.synthetic_cells(40, seed=0)
    for array in (cells[0].image, synthetic[0].image, synthetic.masks[0], cells.labels, cells.select([0]).labels):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        base: np.ndarray = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert not base.flags.writeable


def test_names_that_mean_two_cells_are_refused() -> None:
    with pytest.raises(cellscan.DataError, match="the cells 0 and 2 are both named 'a.png'"):
        cellscan.CellDataset.from_arrays(arrays(3), [0, 1, 0], names=["a.png", "b.png", "a.png"])
    cells = cellscan.CellDataset.from_arrays(arrays(3), [0, 1, 0], names=[7, None, float("nan")])  # type: ignore[list-item]
    assert cells.names.tolist() == ["7", "image_1", "image_2"]


def test_joined_sets_keep_a_name_for_each_cell() -> None:
    a, b = cellscan.synthetic_cells(40, seed=0), cellscan.synthetic_cells(40, seed=1)
    both = cellscan.concat([a, b])
    assert len(set(both.names.tolist())) == 80
    shared = sorted(set(a.names.tolist()) & set(b.names.tolist()))[0]
    assert len(both.without([f"2/{shared}"])) == 79
    with pytest.raises(cellscan.DataError, match=f"'{shared}' fits 2 cells: '1/{shared}', '2/{shared}'"):
        both.without([shared])
    train, test = a.split(test=0.25, seed=0)
    assert sorted(cellscan.concat([train, test]).names.tolist()) == sorted(a.names.tolist())
    assert cellscan.concat([a, a.select([0])]).names.tolist() == [*a.names.tolist(), a.names[0]]  # one cell twice
    for bad in (a, [a, None], 3, None):
        with pytest.raises(cellscan.ArgumentError, match="concat got"):
            cellscan.concat(bad)  # type: ignore[arg-type]


def test_a_bare_file_name_that_fits_one_cell_is_enough() -> None:
    names = ["a/1.png", "a/2.png", "b/1.png", "b/c/3.png", "3.png"]
    cells = cellscan.CellDataset.from_arrays(arrays(5), [0] * 5, names=names)
    assert cells.without(["2.png"]).names.tolist() == ["a/1.png", "b/1.png", "b/c/3.png", "3.png"]
    assert cells.without(["c/3.png"]).names.tolist() == ["a/1.png", "a/2.png", "b/1.png", "3.png"]
    assert cells.without(["3.png"]).names.tolist() == names[:4]  # a whole name
    assert len(cells.without(["a\\1.png", None, "elsewhere"])) == 4  # type: ignore[list-item]
    assert len(cells.without(pandas.Series(["a/1.png", "b/1.png"]))) == 3
    with pytest.raises(cellscan.DataError, match="'1.png' fits 2 cells: 'a/1.png', 'b/1.png'"):
        cells.without(["1.png"])
    with pytest.raises(cellscan.DataError, match="none of the 1 names"):
        cells.without(["ng"])
    with pytest.raises(cellscan.DataError, match="none of the 1 names"):
        cells.select([]).without(["a/1.png"])
    with pytest.raises(cellscan.ArgumentError, match="names is 3"):
        cells.without(3)  # type: ignore[arg-type]


def test_other_pixels_are_other_cells() -> None:
    images = arrays(6)
    make = cellscan.CellDataset.from_arrays
    cells = make(images, [0, 1] * 3)
    other = images.copy()
    other[3, 0, 0, 0] ^= 1
    assert make(images, [0, 1] * 3).fingerprint() == cells.fingerprint()
    for changed in (make(other, [0, 1] * 3), make(images, [1, 0] * 3), make(images, [0, 1] * 3, names=list("abcdef"))):
        assert changed.hash() != cells.hash()
        assert changed.fingerprint() != cells.fingerprint()
    assert make(other, [0, 1] * 3).hash(pixels=False) == cells.hash(pixels=False)
    turned = cells.select(slice(None, None, -1))
    assert turned.hash() == cells.hash()
    assert turned.fingerprint() != cells.fingerprint()
    both = cellscan.concat([cells.select([0, 2]), make(other, [0, 1] * 3).select([3])])
    again = cellscan.concat([make(images, [0, 1] * 3).select([0, 2]), make(other, [0, 1] * 3).select([3])])
    assert both.fingerprint() == again.fingerprint()
    assert cells.select([]).hash() == cells.select([]).hash()


def test_slices_masks_and_lists_give_cells() -> None:
    cells = tiny_cells()
    for index in (slice(1, 4), [1, 2, 3], np.arange(1, 4), np.isin(np.arange(48), [1, 2, 3]), slice(-47, -44)):
        assert cells[index].names.tolist() == cells.names[1:4].tolist()
    assert cells[np.int64(-1)].name == cells.names[-1]
    for bad in (True, "a", None, 1.5, [0.5], np.zeros((2, 2), int), [True]):
        with pytest.raises(cellscan.ArgumentError):
            cells[bad]  # type: ignore[index]
    with pytest.raises(cellscan.ArgumentError, match="no row 48; there are 48 cells"):
        cells[48]
    assert len(list(reversed([cell.name for cell in cells]))) == 48


@pytest.mark.parametrize(
    "bad", [slice("a", None), slice(0.5), [[1], [1, 2]], "abc", {1}, 3, [None], [2**70], slice(None, None, 0)]
)
def test_odd_selections(bad) -> None:
    with pytest.raises(cellscan.ArgumentError, match="select got"):
        tiny_cells().select(bad)


def test_seeds_are_whole_numbers() -> None:
    cells = tiny_cells()
    assert np.array_equal(cells.split(test=0.3, seed=np.int64(1))[1].names, cells.split(test=0.3, seed=1)[1].names)  # type: ignore[call-overload]
    assert np.array_equal(cells.fold_numbers(np.int64(3), seed=np.uint8(1)), cells.fold_numbers(3, seed=1))  # type: ignore[arg-type]
    for bad in (-1, None, 0.5, "0", True, np.nan):
        calls = (
            lambda s: cells.split(test=0.3, seed=s), lambda s: cells.fold_numbers(3, seed=s),
            lambda s: cells.plot(seed=s), lambda s: cells.folds(3, seed=s),
            lambda s: cells.split(test=0.3, by="cell", seed=s),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(cellscan.ArgumentError, match="seed is"):
                call(bad)


@pytest.mark.parametrize("bad", [float("nan"), "0.2", None, True, float("inf"), 0, 1, [0.2], -0.1])
def test_odd_fractions(bad) -> None:
    for data in (tiny_cells(), cellscan.synthetic_fields(4, seed=0, size=(96, 96))):
        odd: Any = data
        with pytest.raises(cellscan.ArgumentError, match="test is .*; expected a number"):
            odd.split(test=bad)
        if bad is not None:
            with pytest.raises(cellscan.ArgumentError, match="validation is .*; expected a number"):
                odd.split(test=0.2, validation=bad)


def test_split_takes_keywords_and_both_kinds_of_sets_refuse_alike() -> None:
    for data in (tiny_cells(), cellscan.synthetic_fields(40, seed=0, size=(96, 96))):
        odd: Any = data
        for positional in ((0.2,), (0.1, 0.2), ("patient",)):
            with pytest.raises(cellscan.ArgumentError, match=r"expected keywords: split\(test=0.2, validation=0.1\)"):
                odd.split(*positional)
        with pytest.raises(cellscan.ArgumentError, match=r"validation is 0.5 and test is 0.5.*below 1"):
            data.split(test=0.5, validation=0.5)
        train, test = data.split()
        again = data.split(test=0.2, seed=0)
        assert [part.names.tolist() for part in (train, test)] == [part.names.tolist() for part in again]
        parts = data.split(test=0.25, validation=0.25)
        assert sorted(name for part in parts for name in part.names) == sorted(data.names)


def test_odd_arguments(tmp_path) -> None:
    cells = tiny_cells()
    make: Any = cellscan.CellDataset.from_arrays
    odd: Any = cells
    malaria_patient: Any = cellscan.malaria_patient
    calls = (
        lambda: odd.plot(rows=0), lambda: odd.plot(columns=1.5), lambda: odd.plot(size=0), lambda: odd[:0].plot(),
        lambda: odd.rename_classes(["a"]), lambda: odd.rename_classes({3: "a"}), lambda: odd.folds(None),
        lambda: odd.rename_classes({"parasitized": ""}), lambda: odd.rename_classes({"parasitized": "UNINFECTED"}),
        lambda: odd.folds(2.0), lambda: odd.write_folds(tmp_path, 3), lambda: odd.write_folds(tmp_path / "no" / "a", 3),
        lambda: odd.select([]).split(test=0.2), lambda: odd.select([]).fold_numbers(2),
        lambda: odd.split(test=0.2, by=None),
        lambda: malaria_patient(None), lambda: make(arrays(1), [0], class_names=[]),
        lambda: make(arrays(1), [0], class_names="ab"), lambda: make(arrays(1), [0], class_names=None),
    )  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises(cellscan.CellscanError):
            print(number, call())


def test_nothing_is_described_too() -> None:
    assert str(tiny_cells().select([]).describe()).startswith("0 cells\n  parasitized  0  (0 %)")


def test_a_fold_file_is_replaced_whole(tmp_path) -> None:
    file = tmp_path / "folds.csv"
    file.write_text("patient,fold\nyesterday,0\n")
    with pytest.raises(cellscan.DataError, match="cannot fill"):
        tiny_cells().write_folds(file, 9)
    assert "yesterday" in file.read_text()
    tiny_cells().write_folds(file, 3)
    assert sorted(file.read_text().split()[1:], key=lambda line: line[:2])[0].startswith("p0,")


def test_copies_are_as_they_were() -> None:
    cells = cellscan.synthetic_cells(40, seed=0).split(test=0.25, seed=0)[1]
    for other in (copy.deepcopy(cells), pickle.loads(pickle.dumps(cells))):
        assert other.fingerprint() == cells.fingerprint()
        assert other.split_info == cells.split_info
        for array in (other.labels, other.patients, other.names, other[0].image, other.masks[0]):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
