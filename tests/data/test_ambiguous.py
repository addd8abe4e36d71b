"""Inputs with two meanings are refused; before, one of the meanings was taken without a message."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import write_cells
from PIL import Image

import cellscan
from cellscan.data.images import read_rgb
from cellscan.data.inputs import list_items
from cellscan.data.values import as_patient
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import make_report
from cellscan.predictions import Predictions

IMAGES = np.zeros((4, 16, 16, 3), np.uint8)
make = cellscan.CellDataset.from_arrays


def test_a_set_has_no_order() -> None:
    for names in ({"a", "b"}, frozenset(("a", "b"))):
        with pytest.raises(cellscan.ArgumentError, match="class_names is .* a set, whose order changes"):
            make(IMAGES, [0, 1, 0, 1], class_names=names)  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match="images is a set"):
        list_items({"a.png", "b.png"})
    cells = make(IMAGES, [0, 1, 0, 1])
    assert len(cells.without({"image_0", "image_1"})) == 2


@pytest.mark.parametrize(("names", "labels"), [([1, 0], [0, 1, 0, 1]), (["1", "2", "3"], [1, 2, 1, 2])])
def test_a_number_that_may_be_an_index_or_a_name(names, labels) -> None:
    with pytest.raises(cellscan.DataError, match="may be the class .* by its name, or the class .* by its index"):
        make(IMAGES, labels, class_names=names)
    cells = make(IMAGES, [str(label) for label in labels], class_names=names)
    assert [cells.class_names[label] for label in cells.labels] == [str(label) for label in labels]
    assert make(IMAGES, [0, 1, 0, 1], class_names=["0", "1"]).labels.tolist() == [0, 1, 0, 1]


def test_numbers_of_fields_that_may_be_an_index_or_a_name() -> None:
    boxes, points, from_arrays = [[[1, 1, 9, 9]]], [[[3, 3]]], cellscan.FieldDataset.from_arrays
    for number in ([1], np.array([1]), np.array([1], np.uint8)):
        with pytest.raises(cellscan.DataError, match="may be the class '1', by its name, or the class '2'"):
            from_arrays([IMAGES[0]], boxes, [number], class_names=["1", "2"])
        with pytest.raises(cellscan.DataError, match="may be the class '1', by its name, or the class '2'"):
            from_arrays([IMAGES[0]], boxes, [["2"]], points=points, point_labels=[number], class_names=["1", "2"])
    fields = from_arrays([IMAGES[0]], boxes, [np.array([-2])], class_names=["1", "2"])
    assert fields.labels[0].tolist() == [-2]


def test_numbers_as_class_names_of_tables_and_folders(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"1": ["a.png"], "2": ["b.png"]})
    cells = cellscan.load_folder(root)
    assert (cells.class_names, cells.labels.tolist()) == (("1", "2"), [0, 1])
    table = {"path": ["1/a.png", "2/b.png"], "label": [0, 1]}
    cells = cellscan.load_table(table, root, class_names=[1, 0])  # type: ignore[list-item]
    assert [cells.class_names[label] for label in cells.labels] == ["0", "1"]
    fields = cellscan.FieldDataset.from_arrays(
        [IMAGES[0]], [[[1, 1, 9, 9], [2, 2, 12, 12]]], [["1", "2"]], class_names=["1", "2"]
    )
    assert fields.crops(min_size=1).labels.tolist() == [0, 1]


def test_a_mask_of_numbers_is_no_list_of_indices() -> None:
    cells = make(IMAGES, [0, 1, 0, 1])
    with pytest.raises(cellscan.ArgumentError, match=r"4 numbers that are all 0 or 1.*astype\(bool\)"):
        cells.select([0, 1, 1, 0])
    assert cells.select([1, 0]).names.tolist() == ["image_1", "image_0"]


def test_predictions_compare_with_labels_of_any_type_and_refuse_others() -> None:
    labels = np.array([0, 1, 1, 0], np.int32)
    names = ("parasitized", "uninfected")
    p = np.eye(2, dtype=np.float32)[labels]
    preds = Predictions(labels, p, np.arange(4), tuple("abcd"), (), names, names[0])
    assert (preds == labels.astype(object)).all()
    assert (preds == pandas.Series([0, 1, 1, None], dtype=object)).tolist() == [True, True, True, False]
    for wrong in ([1, 2, 2, 1], -1, 0.5):
        with pytest.raises(cellscan.ArgumentError, match="is not a label; expected 0 to 1"):
            _ = preds == wrong
    with pytest.raises(cellscan.ArgumentError, match="only one of the two"):
        _ = preds == np.array([0, "uninfected", 1, 0], object)


def test_floats_divided_by_255_twice() -> None:
    image = np.random.default_rng(0).random((16, 16, 3), np.float32)
    assert read_rgb(image).max() > 200
    with pytest.raises(cellscan.ImageError, match="divided by 255 twice"):
        read_rgb(image / 255)
    assert read_rgb(np.zeros((16, 16, 3), np.float32)).max() == 0
    assert read_rgb(image / 100, reading=cellscan.Reading(window=(0, 1))).max() == 3


def test_exchanged_labels_are_reported() -> None:
    truth = np.tile([0, 1], 40)
    p = np.stack([0.1 + 0.8 * (truth == 1), 0.9 - 0.8 * (truth == 1)], 1).astype(np.float32)
    patients = np.array([f"p{row % 10}" for row in range(80)])

    def text(labels: np.ndarray) -> str:
        return str(
            make_report(
                labels, p.argmax(1), p, names=np.arange(80).astype(str), patients=patients,
                class_names=("parasitized", "uninfected"), positive=0, threshold=0.5, split="-",
                patient_overlap=PatientOverlap(10, 0, 0), background="fill", rule=None,
            )
        )  # fmt: skip

    assert "ROC AUC BELOW 0.5: are the labels exchanged? Label 0 is 'parasitized'" in text(truth)
    assert "BELOW" not in text(1 - truth)


def test_patients_that_look_alike() -> None:
    assert as_patient("p", "Jose\u0301") == as_patient("p", "José")
    assert [as_patient("p", text) for text in ("#N/A", "#REF!", "n/a")] == ["", "", ""]


def test_class_names_that_look_alike() -> None:
    for names in (["sick", "sick "], ["não", "na\u0303o"], ["red cell", "red  cell"]):
        with pytest.raises(cellscan.DataError, match="not distinct"):
            make(IMAGES, [0, 1, 0, 1], class_names=names)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("path\tlabel\r\na.png\tx\r\nb.png\ty\r\n", "utf-16"), ("sep=;\r\npath;label\r\na.png;x\r\nb.png;y\r\n", "utf-8")],
)
def test_tables_of_spreadsheets(tmp_path, text, encoding) -> None:
    root = write_cells(tmp_path / "d", {".": ["a.png", "b.png"]})
    (root / "t.csv").write_bytes(text.encode(encoding))
    assert cellscan.load_table(root / "t.csv").class_names == ("x", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,patient,label\na.png,Doe, Jane,x\nb.png,p2,y\n", "line 2 has more than the 3 columns"),
        ("path,label\na.png,não\nb.png,y\n", "is not UTF-8"),
        ("path,label,patient\na.png,x,Muñoz\nb.png,y,p2\n", "is not UTF-8"),
        ("path,label\na.png,x\nb.png,#N/A\n", "row 1 .* has no label"),
        ("path,label\na.png,x\nb.png,nan\n", "row 1 .* has no label"),
        ("path,label,label\na.png,x,y\nb.png,y,x\n", "several columns 'label'"),
    ],
)
def test_damaged_tables(tmp_path, text, message) -> None:
    root = write_cells(tmp_path / "d", {".": ["a.png", "b.png"]})
    (root / "t.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(cellscan.CellscanError, match=message):
        cellscan.load_table(root / "t.csv")


def test_repeated_columns_of_a_frame(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {".": ["a.png", "b.png"]})
    frame = pandas.DataFrame([["a.png", "x", "y"], ["b.png", "y", "x"]], columns=["path", "label", "label"])
    with pytest.raises(cellscan.ArgumentError, match="several columns 'label'"):
        cellscan.load_table(frame, root)


def test_a_copy_of_the_set_inside_it_is_no_class(tmp_path) -> None:
    classes = {"Parasitized": ["1.png"], "Uninfected": ["2.png"]}
    root = write_cells(tmp_path / "d", classes)
    write_cells(root / "cell_images", classes)
    with pytest.raises(cellscan.DataError, match="'Parasitized' is also a folder within 'cell_images'"):
        cellscan.load_folder(root)
    assert len(cellscan.load_folder(root / "cell_images")) == 2


def write_fields(folder: Path, **document: object) -> Path:
    folder.mkdir()
    Image.new("RGB", (640, 480)).save(folder / "a.png")
    raw = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "rbc"}], **document}
    (folder / "a.json").write_text(json.dumps(raw))
    return folder


def test_two_corners_instead_of_a_corner_and_a_size(tmp_path) -> None:
    corners = [(500, 100, 540, 140), (400, 300, 440, 340), (350, 60, 390, 100), (50, 60, 90, 100), (10, 20, 50, 60)]
    things = [{"id": row, "image_id": 1, "category_id": 1, "bbox": box} for row, box in enumerate(corners)]
    with pytest.raises(cellscan.DataError, match="3 others|2 others of 5 boxes extend far beyond their images"):
        cellscan.load_fields(write_fields(tmp_path / "d", annotations=things))
    # A few boxes beyond the frame are clipped, as before.
    assert len(cellscan.load_fields(write_fields(tmp_path / "e", annotations=[things[0], *things[3:]])).boxes[0]) == 3


def test_two_categories_with_one_id(tmp_path) -> None:
    kinds = [{"id": 1, "name": "rbc"}, {"id": 1, "name": "infected"}]
    things = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}]
    with pytest.raises(cellscan.DataError, match="two categories have the id 1"):
        cellscan.load_fields(write_fields(tmp_path / "d", annotations=things, categories=kinds))


def test_shares_of_the_image_in_arrays() -> None:
    with pytest.raises(cellscan.DataError, match="shares of the image; expected pixels"):
        cellscan.FieldDataset.from_arrays([IMAGES[0]], [[[0.1, 0.1, 0.5, 0.5]]], [[0]], class_names=["rbc"])
