"""Data frames: the rows of the CSV files with typed columns, and data sets from data frames."""

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, random_image, write_cells
from pages import run_blocks, without_numbers

import cellscan
from cellscan import CellDataset, DataError, Failure, FieldCount, Predictions
from cellscan.data.tables import Column, csv_rows, make_frame
from cellscan.evaluate.confident import LabelIssues
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.patients import make_patients
from cellscan.evaluate.report import make_report

CLASSES = ("sick", "well", "unseen")
FILES = ["x/1.png", "x/2.png", "y/1.png"]
PATIENTS = ["001", "2", "2"]


def predictions() -> Predictions:
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.75, 0.05]], np.float32)
    failed = (Failure(1, "b.png", "b.png: there is no such file"),)
    sets, novelty = p > 0.5, np.array([1.25, 3.5], np.float32)
    return Predictions(
        p.argmax(1).astype(np.int32), p, np.array([0, 2]), ("a.png", "c.png"), failed, CLASSES, None, sets, novelty,
        novelty > 2,
    )  # fmt: skip


def cells() -> CellDataset:
    images = [random_image(seed, 20, 24) for seed in range(6)]
    return CellDataset.from_arrays(images, [0, 1, 0, 1, 0, 1], class_names=CLASSES[:2], patients=list("aabbcc"))


def report() -> cellscan.Report:
    labels, p = np.array([0, 0, 1, 1], np.int32), np.array([0.9, 0.3, 0.2, 0.1], np.float32)
    return make_report(
        labels, (p < 0.5).astype(np.int32), np.stack([p, 1 - p], 1), names=np.array(list("wxyz")),
        patients=np.array(list("aabb")), class_names=CLASSES[:2], positive=0, threshold=0.5, split="a test",
        patient_overlap=PatientOverlap(2, 0, 0), background="fill",
    )  # fmt: skip


def study() -> cellscan.Study:
    member: Any = SimpleNamespace(card=SimpleNamespace(positive=0, background="fill"))
    p = np.tile(np.array([0.9, 0.2], np.float32), 3)
    fold = np.array([0, 0, 0, 0, 1, 1])
    probabilities = np.stack([p, 1 - p], 1)[None]
    return cellscan.Study(cells(), fold, (0,), (member, member), probabilities, "two folds", {"tta": False})


def detections(count: int) -> cellscan.Detections:
    boxes = np.array([[1, 2, 11.25, 12], [3, 4, 13, 14]], np.float32)[:count]
    labels, scores = np.array([1, 0], np.int32)[:count], np.array([0.875, 0.5], np.float32)[:count]
    return cellscan.Detections(f"{count}.png", (40, 30), boxes, labels, scores, CLASSES, None)


def smears() -> cellscan.SmearTable:
    count = FieldCount("1.png", 90, 3)
    smear = cellscan.SmearReport(
        90, 3, 3 / 90, 0.03125, (0.01, 0.05), 0.001, True, False, 5000, None, (count,), (), ("few cells",), ()
    )
    return cellscan.SmearTable(("s1", "s2"), (smear, None), {"s2": "no cell was found"})


def laboratories() -> cellscan.LaboratoryStudy:
    rules: Any = None
    one = cellscan.DetectionReport(
        0.5, 0.6, 0.4, 0.7, (0.6, float("nan")), (0.5, 0.25), (0.75, 1.0), (0.6, 0.4), float("nan"),
        np.array([3, 4]), np.array([3, 5]), 8, CLASSES[:2], rules,
    )  # fmt: skip
    return cellscan.LaboratoryStudy(("A", "B"), (one, one), ())


def issues() -> LabelIssues:
    p = np.array([0.9, 0.8, 0.1, 0.2, 0.7, 0.3], np.float32)
    return LabelIssues(np.array([1, 2]), p, np.stack([p, 1 - p], 1), cells())


def patients(rule: float | None) -> cellscan.Patients:
    one = report()
    return make_patients(one.labels, one.predicted, one.cell_patients, 0, rule)


def detected() -> cellscan.FieldDetections:
    failed = (Failure(1, "b.png", "b.png: there is no such file"),)
    return cellscan.FieldDetections((detections(2), detections(0), detections(1)), failed, CLASSES)


TABLES: dict[str, Any] = {
    "predictions": predictions, "patients": lambda: patients(0.5), "patients without a rule": lambda: patients(None),
    "label issues": issues, "detections": lambda: detections(2), "no detections": lambda: detections(0),
    "fields": detected, "smear": lambda: smears()[0], "smears": smears, "laboratories": laboratories,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_frame_has_the_rows_of_the_file(name, tmp_path) -> None:
    result = TABLES[name]()
    frame = result.to_dataframe()
    result.to_csv(tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert list(frame) == list(read)
    assert len(frame) == len(read)
    for column in frame:
        missing = frame[column].isna()
        assert missing.tolist() == read[column].isna().tolist()
        if pd.api.types.is_numeric_dtype(frame[column]):
            both = [np.asarray(one[column][~missing], float) for one in (frame, read)]
            assert np.allclose(*both, rtol=1e-3, atol=0.05), column
        else:
            assert frame[column][~missing].astype(str).tolist() == read[column][~missing].astype(str).tolist()


def test_columns_have_types() -> None:
    frame = predictions().to_dataframe()
    assert frame["label"].cat.categories.tolist() == list(CLASSES)
    assert frame["label"].isna().tolist() == [False, True, False]
    assert [str(frame[name].dtype) for name in ("index", "p_sick", "novelty", "novel")] == [
        "int64", "float64", "float64", "boolean",
    ]  # fmt: skip
    assert frame["p_sick"].tolist()[0] == np.float32(0.7)  # all digits
    assert frame["label_set"].tolist()[::2] == ["sick", "well"]
    assert str(patients(0.5).to_dataframe()["called"].dtype) == "bool"
    assert all(patients(None).to_dataframe()["called"].isna())
    assert issues().to_dataframe()["patient"].tolist() == ["a", "b"]
    assert issues().to_dataframe()["suggested"].tolist() == ["sick", "well"]
    assert smears().to_dataframe()["parasitemia"].tolist()[0] == 0.03125
    boxes = detected().to_dataframe()
    assert boxes["field"].tolist() == ["2.png", "2.png", "1.png", "b.png"]
    assert boxes["error"].isna().tolist() == boxes["class"].notna().tolist() == [True, True, True, False]
    empty = detections(0).to_dataframe()
    assert [str(empty[name].dtype) for name in ("left", "class", "score")] == ["float64", "category", "float64"]


def test_report_by_metric_and_by_cell() -> None:
    one = report()
    metrics = one.to_dataframe().set_index("metric")
    assert metrics["value"].to_dict()["accuracy"] == 0.75
    assert metrics["value"].to_dict()["sensitivity_by_patient"] == 0.5
    assert (metrics["low"]["accuracy"], metrics["high"]["accuracy"]) == one.interval["accuracy"]
    assert set(metrics.index) == set(one.to_dict()["metrics"])
    frame = one.to_dataframe(by="cell")
    assert list(frame) == ["name", "patient", "label", "predicted", "p_sick", "p_well"]
    assert (frame["label"] == frame["predicted"]).tolist() == [True, False, True, True]
    assert frame["patient"].tolist() == list("aabb")
    with pytest.raises(cellscan.ArgumentError, match="by is 'patient'; expected one of 'metric', 'cell'"):
        one.to_dataframe(by="patient")  # type: ignore[arg-type]


def test_study_has_one_row_per_member(tmp_path) -> None:
    one = study()
    frame = one.to_dataframe()
    one.to_csv(tmp_path / "s.csv")
    read = pd.read_csv(tmp_path / "s.csv")
    assert list(frame) == list(read)
    assert read["fold"].tolist() == ["0", "1", "mean", "sd", "pooled", "pooled_low", "pooled_high"]
    assert frame["fold"].tolist() == [0, 1]
    assert frame["cells"].tolist() == [4, 2]
    assert np.array_equal(frame["accuracy"], read["accuracy"][:2])


def test_history_has_one_row_per_epoch() -> None:
    records = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "validation_loss": 0.75}]
    frame = cellscan.History(records).to_dataframe()
    assert frame["epoch"].tolist() == [1, 2]
    assert str(frame["epoch"].dtype) == "int64"
    assert frame["validation_loss"].isna().tolist() == [True, False]


def test_without_pandas_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(cellscan.MissingExtraError, match=r"pandas: pip install 'cellscan\[dataframe\]'"):
        cells().to_dataframe()


def test_missing_values_of_every_kind() -> None:
    table = {
        "text": Column(["a", None]), "class": Column([None, "y"], ("x", "y")), "whole": Column([None, 2], "whole"),
        "number": Column([0.5, None], "number", ".3f"), "flag": Column([True, None], "flag", "d"),
    }  # fmt: skip
    assert csv_rows(table) == [list(table), ["a", "", "", "0.500", "1"], ["", "y", 2, "", ""]]
    frame = make_frame(table)
    assert frame.isna().to_numpy().tolist() == [[False, True, True, False, False], [True, False, False, True, True]]


@pytest.fixture
def root(tmp_path) -> Path:
    return write_cells(tmp_path / "d", {".": FILES})


def frame_of(**columns: list) -> pd.DataFrame:
    return pd.DataFrame({"file": FILES, "class": ["sick", "well", "sick"], "patient": PATIENTS, **columns})


def test_cells_and_frames_are_inverse(root) -> None:
    loaded = CellDataset.from_dataframe(frame_of(), root=root).add_classes(["unseen"])
    assert loaded.names.tolist() == FILES
    assert loaded.patients.tolist() == PATIENTS
    frame = loaded.to_dataframe()
    assert list(frame) == ["name", "class", "patient", "file"]
    assert frame["file"].tolist() == [str(root / name) for name in FILES]
    again = CellDataset.from_dataframe(frame)
    assert again.class_names == ("sick", "well", "unseen")
    assert again.fingerprint() == loaded.fingerprint()
    some = frame.sort_values("name", ascending=False).query("patient == '2'")
    assert CellDataset.from_dataframe(some).fingerprint() == loaded.select([2, 1]).fingerprint()
    assert all(cells().to_dataframe()["file"].isna())
    with pytest.raises(DataError, match=r"row 0 \(from 0\) has no path in the column 'file'"):
        CellDataset.from_dataframe(cells().to_dataframe())


def test_names_and_classes_of_a_frame(root) -> None:
    named = CellDataset.from_dataframe(frame_of(name=list("abc")), root=root)
    assert named.names.tolist() == ["a", "b", "c"]
    assert CellDataset.from_dataframe(frame_of(name=list("abc")), root=root, name=None).names.tolist() == FILES
    table = frame_of().rename(columns={"file": "path", "class": "label"})
    table["label"] = pd.Categorical(table["label"], ["well", "sick"])
    assert cellscan.load_table(table, root).class_names == ("well", "sick")
    assert cellscan.load_table(table, root, class_names=("sick", "well")).class_names == ("sick", "well")
    indices = frame_of(**{"class": [1, 0, 1]})
    assert CellDataset.from_dataframe(indices, root=root, class_names=("well", "sick")).labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("patients", "expected"),
    [([1, 2, 2], ["1", "2", "2"]), ([1.0, 2.0, 2.0], ["1", "2", "2"]), (PATIENTS, PATIENTS), ([np.nan] * 3, [""] * 3)],
)
def test_patients_of_a_frame(root, patients, expected) -> None:
    assert CellDataset.from_dataframe(frame_of(patient=patients), root=root).patients.tolist() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patient": ["1", None, "2"]}, r"row 1 \(from 0\) has no patient in the column 'patient'"),
        ({"patient": [1.0, np.nan, 2.0]}, r"row 1 \(from 0\) has no patient in the column 'patient'"),
        ({"class": ["sick", None, "well"]}, r"row 1 \(from 0\) has no label in the column 'class'"),
        ({"file": ["x/1.png", "x/2.png", "x/9.png"]}, r"x/9.png. .* row 2 \(from 0\) of the column 'file'"),
        ({"file": ["x/1.png", "x/2.png", "x/./1.png"]}, r"rows 0 and 2 .* same image in the column 'file': 'x/1.png'"),
        ({"name": ["a", "b", "a"]}, "cells 0 and 2 are both named 'a'"),
        ({"name": ["a", None, "b"]}, r"row 1 \(from 0\) has no name in the column 'name'"),
        ({"class": [["sick"], "well", "well"]}, r"class\[0\] is \['sick'\]; expected a text or a number"),
    ],
)
def test_errors_name_row_and_column(root, change, message) -> None:
    with pytest.raises(DataError, match=message):
        CellDataset.from_dataframe(frame_of(**change), root=root)


def test_what_is_no_frame(root) -> None:
    with pytest.raises(cellscan.ArgumentError, match="load_table reads CSV files"):
        CellDataset.from_dataframe("cells.csv")
    with pytest.raises(cellscan.ArgumentError, match="no column 'file'; it has 'path', 'class', 'patient'"):
        CellDataset.from_dataframe(frame_of().rename(columns={"file": "path"}), root=root)


def test_frames_of_polars(root) -> None:
    polars = pytest.importorskip("polars")
    columns = {"file": FILES, "class": ["sick", "well", "sick"], "patient": PATIENTS}
    expected = CellDataset.from_dataframe(frame_of(), root=root)
    assert CellDataset.from_dataframe(polars.DataFrame(columns), root=root).fingerprint() == expected.fingerprint()
    for kind, names in ((polars.Enum(CLASSES), CLASSES), (polars.Categorical, CLASSES[:2])):
        typed = polars.DataFrame(columns).with_columns(polars.col("class").cast(kind))
        assert CellDataset.from_dataframe(typed, root=root).class_names == names


def test_fields_have_one_row_per_box(tmp_path) -> None:
    images = [random_image(seed, 30, 40) for seed in range(2)]
    triangle = [[1, 2, 9, 2, 9, 8]]
    fields = cellscan.FieldDataset.from_arrays(
        images, [[[1, 2, 9.5, 8], [3, 3, 20, 20]], np.zeros((0, 4))], [[1, -2], []], class_names=CLASSES[:2],
        names=["1.png", "2.png"], polygons=[[[np.reshape(triangle, (3, 2))], []], []], patients=["p1", None],
    )  # fmt: skip
    frame = fields.to_dataframe()
    fields.save(tmp_path / "set", format="csv")
    read = pd.read_csv(next((tmp_path / "set").rglob("*.csv")))
    assert list(frame) == [*read, "patient", "slide", "laboratory"]
    assert frame["field"].tolist() == ["1.png", "1.png", "2.png"]
    assert frame["right"].tolist()[:2] == [9.5, 20]
    assert frame["class"].tolist()[0] == "well"
    assert frame["class"].isna().tolist() == [False, True, True]
    assert frame["ignored"].tolist()[:2] == [False, True]
    assert frame["polygon"].tolist()[0] == str([[float(side) for side in triangle[0]]])
    assert frame["patient"].isna().tolist() == [False, False, True]
    numbers = ["left", "top", "right", "bottom"]
    assert np.array_equal(frame[numbers], read[numbers], equal_nan=True)


def test_the_page_prints_what_it_says(tmp_path) -> None:
    with contextlib.chdir(tmp_path):
        outputs = run_blocks(REPOSITORY / "docs" / "dataframes.md")
    assert len(outputs) == 5
    for said, printed in outputs:
        assert without_numbers(printed) == without_numbers(said)
