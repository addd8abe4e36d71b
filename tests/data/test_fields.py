"""Fields and their boxes: four layouts, what is tidied, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.data.images import fitted, read_rgb

NAMES = ("a.png", "b.png")
BOXES = {"a.png": [("ring", [4, 5, 24, 30]), ("cell", [30, 2, 50, 20])], "b.png": [("cell", [1, 1, 20, 20])]}


def write_images(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(random_image(number, 48, 64)).save(folder / name)
    return folder


def write_iml(folder: Path) -> Path:
    write_images(folder / "images")
    entries = [
        {"image_name": name, "objects": [
            {"type": kind, "bbox": {"x": str(x), "y": str(y), "w": str(r - x), "h": str(b - y)}}
            for kind, (x, y, r, b) in BOXES[name]]}
        for name in NAMES
    ]  # fmt: skip
    path = folder / "annotations.json"
    path.write_text(json.dumps(entries))
    return path


def write_coco(folder: Path) -> Path:
    write_images(folder)
    things = [
        {"image_id": number, "category_id": {"cell": 3, "ring": 7}[kind], "bbox": [x, y, r - x, b - y], "iscrowd": 0}
        for number, name in enumerate(NAMES)
        for kind, (x, y, r, b) in BOXES[name]
    ]
    path = folder / "instances.json"
    images = [{"id": number, "file_name": name, "width": 64, "height": 48} for number, name in enumerate(NAMES)]
    kinds = [{"id": 3, "name": "cell"}, {"id": 7, "name": "ring"}]
    path.write_text(json.dumps({"images": images, "annotations": things, "categories": kinds}))
    return path


def write_voc(folder: Path, *, more: str = "") -> Path:
    write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("b\n")
    for name in NAMES:
        things = "".join(
            f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{r}</xmax><ymax>{b}</ymax></bndbox></object>"
            for kind, (x, y, r, b) in BOXES[name]
        )
        (folder / "Annotations" / f"{name[0]}.xml").write_text(
            f"<annotation><filename>{name}</filename><size><width>64</width><height>48</height></size>"
            f"{things}{more}</annotation>"
        )
    return folder


def write_yolo(folder: Path) -> Path:
    write_images(folder / "images")
    (folder / "labels").mkdir(parents=True)
    (folder / "classes.txt").write_text("cell\nring\n")
    for name in NAMES:
        lines = [
            f"{('cell', 'ring').index(kind)} {(x + r) / 128} {(y + b) / 96} {(r - x) / 64} {(b - y) / 48}"
            for kind, (x, y, r, b) in BOXES[name]
        ]
        (folder / "labels" / f"{name[0]}.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("write", [write_iml, write_coco, write_voc, write_yolo])
def test_every_layout_gives_the_same_fields(write, tmp_path) -> None:
    fields = cellscan.load_fields(write(tmp_path / "set"))
    assert fields.class_names == ("cell", "ring")
    assert fields.names.tolist() == list(NAMES)
    assert fields.sizes.tolist() == [[64, 48], [64, 48]]
    for index, name in enumerate(NAMES):
        assert np.allclose(fields.boxes[index], [box for _, box in BOXES[name]], atol=1e-3)
        assert fields.labels[index].tolist() == [("cell", "ring").index(kind) for kind, _ in BOXES[name]]
        assert (fields[index].image == random_image(index, 48, 64)).all()
    two = cellscan.load_fields(tmp_path / "set", classes={"cell": "red", "ring": None})
    assert two.class_names == ("red",)
    assert two.labels[0].tolist() == [-2, 0]


def test_lists_of_voc_difficult_ones_and_plain_folders(tmp_path) -> None:
    doubtful = (
        "<object><name>odd</name><difficult>1</difficult><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object>"
    )
    write_voc(tmp_path / "voc", more=doubtful)
    fields = cellscan.load_fields(tmp_path / "voc" / "ImageSets" / "Main" / "test.txt")
    assert fields.names.tolist() == ["b.png"]
    assert fields.labels[0].tolist() == [0, -2]
    plain = cellscan.load_fields(write_images(tmp_path / "plain"))
    assert len(plain) == 2
    assert not plain.annotated
    assert "without boxes" in str(plain)


def test_boxes_are_tidied_and_counted() -> None:
    boxes = np.array([[-5, 2, 10, 12], [3, 3, 3, 9], [5, 5, 20, 20], [5, 5, 20, 20], [90, 90, 99, 99]])
    fields = cellscan.FieldDataset.from_arrays(
        [random_image(0, 40, 50)], [boxes], [np.zeros(5, int)], class_names=("cell",)
    )
    assert fields.boxes[0].tolist() == [[0, 2, 10, 12], [5, 5, 20, 20]]
    assert fields.notes == ("1 box clipped to the frame", "2 boxes without area dropped", "1 box given twice dropped")
    empty = cellscan.FieldDataset.from_arrays(
        [random_image()], [np.zeros((0, 4))], [np.zeros(0)], class_names=("cell",)
    )
    assert empty.targets((32, 32))[0, :, 4].max() == -1


def test_targets_lie_where_pixels_do() -> None:
    image = np.zeros((60, 100, 3), np.uint8)
    image[20:40, 30:70] = 255
    fields = cellscan.FieldDataset.from_arrays(
        [image], [np.array([[30, 20, 70, 40]])], [np.array([0])], class_names=("c",)
    )
    pixels = fields.images((48, 50), progress=False)
    assert pixels.shape == (1, 48, 50, 3)
    assert (pixels[0][30:] == 0).all()  # fitted to 50 x 30; the rest is black
    left, top, right, bottom = fields.targets((48, 50))[0, 0, :4].astype(int)
    assert (left, top, right, bottom) == (15, 10, 35, 20)
    assert pixels[0][top:bottom, left:right].min() > 100
    assert fitted(100, 60, (48, 50)) == (50, 30)
    assert (read_rgb(image, (48, 50)) == pixels[0]).all()


def test_boxes_on_a_photograph_that_the_camera_turned(tmp_path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:20, 50:70] = 255
    shown = np.rot90(image, -1)  # as every viewer shows it, and a person annotates it
    rows, columns = np.flatnonzero(shown.any((1, 2))), np.flatnonzero(shown.any((0, 2)))
    left, top, wide, high = int(columns[0]), int(rows[0]), len(columns), len(rows)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    box = {"type": "ring", "bbox": {"x": left, "y": top, "w": wide, "h": high}}
    (tmp_path / "annotations.json").write_text(json.dumps([{"image_name": "a.png", "objects": [box]}]))
    fields = cellscan.load_fields(tmp_path / "annotations.json")
    assert fields.sizes.tolist() == [[40, 80]]
    assert not fields.notes
    assert np.asarray(fields.crops(least=5).images(8, progress=False)[0]).min() == 255
    x1, y1, x2, y2 = fields.targets((40, 40))[0, 0, :4].astype(int)
    small = fields.images((40, 40), progress=False)[0]
    assert small[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 200


def test_splits_keep_runs_together() -> None:
    fields = cellscan.synthetic_fields(40, seed=0, size=(96, 96))
    train, valid, test = fields.split(0.2, 0.3, seed=1)
    assert len(train) + len(valid) + len(test) == 40
    numbers = [{int(name[10:14]) for name in part.names} for part in (train, valid, test)]
    assert not numbers[0] & numbers[2]
    assert not numbers[0] & numbers[1]
    edges = sum(min(n, n + 1) in a and n + 1 in b for a in numbers for b in numbers if a is not b for n in range(39))
    assert edges <= 5  # where one run of twelve ends and the next begins
    assert fields.split(0.3, seed=1)[1].names.tolist() == fields.split(0.3, seed=1)[1].names.tolist()
    with pytest.raises(cellscan.DataError, match="runs cannot make"):
        fields.select([0, 1, 2]).split(0.5)


def test_crops_are_cells_with_the_field_as_patient() -> None:
    fields = cellscan.synthetic_fields(3, seed=0)
    crops = fields.crops(least=20, most=4)
    assert set(crops.patients) <= set(fields.names)
    assert (np.bincount(crops.labels, minlength=2)[0]) <= 12
    assert min(min(crops[i].image.shape[:2]) for i in range(len(crops))) >= 20


def test_painted_fields_are_the_same_for_a_seed_and_their_boxes_hold_cells() -> None:
    one, other = (cellscan.synthetic_fields(3, seed=4) for _ in range(2))
    assert one.hash() == other.hash()
    assert (one[1].image == other[1].image).all()
    assert (cellscan.synthetic_fields(2, seed=4)[1].image == one[1].image).all()
    field = one[0]
    ground = np.median(field.image.reshape(-1, 3), 0)
    for box in field.boxes.astype(int):
        middle = field.image[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
        assert np.abs(middle.astype(float) - ground).max() > 15


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda folder: (folder / "images" / "a.png").unlink(), "no image 'a.png'"),
        (lambda folder: (folder / "images" / "a.png").write_bytes(b"nothing"), "not an image"),
        (lambda folder: (folder / "annotations.json").write_text("{"), "no JSON file"),
        (lambda folder: (folder / "annotations.json").write_text("{}"), "neither COCO"),
        (lambda folder: (folder / "annotations.json").write_text('[{"image_name": "a.png"}]'), "KeyError"),
        (lambda folder: (folder / "more.json").write_text("[]"), "2 .json files"),
        (lambda folder: write_voc(folder), "holds Pascal VOC and an annotation file"),
    ],
)
def test_bad_sets_are_refused(spoil, error, tmp_path) -> None:
    write_iml(tmp_path / "set")
    spoil(tmp_path / "set")
    with pytest.raises(cellscan.DataError, match=error):
        cellscan.load_fields(tmp_path / "set")


def test_one_bad_field_is_passed_over_and_told(tmp_path) -> None:
    path = write_iml(tmp_path / "set")
    (tmp_path / "set" / "images" / "a.png").unlink()
    fields = cellscan.load_fields(path, on_error="skip")
    assert fields.names.tolist() == ["b.png"]
    assert "1 fields passed over" in fields.notes[0]
    (tmp_path / "set" / "images" / "b.png").unlink()
    with pytest.raises(cellscan.DataError, match="not one of 2 fields"):
        cellscan.load_fields(path, on_error="skip")


def test_unknown_classes_other_sizes_and_strange_xml(tmp_path) -> None:
    path = write_iml(tmp_path / "iml")
    with pytest.raises(cellscan.DataError, match="class 'ring'"):
        cellscan.load_fields(path, classes={"cell": "cell"})
    voc = write_voc(tmp_path / "voc")
    Image.fromarray(random_image(0, 30, 64)).save(voc / "JPEGImages" / "a.png")
    with pytest.raises(
        cellscan.DataError, match="64 x 30 pixels, its annotation speaks of 64 x 48; boxes .* elsewhere$"
    ):
        cellscan.load_fields(voc)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_image(0, 48, 64)).save(voc / "JPEGImages" / "a.png", exif=exif)
    with pytest.raises(cellscan.DataError, match="48 x 64 pixels.*EXIF orientation"):
        cellscan.load_fields(voc)
    xml = voc / "Annotations" / "a.xml"
    xml.write_text('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>')
    with pytest.raises(cellscan.DataError, match="document type"):
        cellscan.load_fields(voc)
    xml.write_text("<annotation>")
    with pytest.raises(cellscan.DataError, match="no Pascal VOC annotation"):
        cellscan.load_fields(voc)
    yolo = write_yolo(tmp_path / "yolo")
    (yolo / "labels" / "a.txt").write_text("9 0.5 0.5 0.1 0.1")
    with pytest.raises(cellscan.DataError, match="line 1"):
        cellscan.load_fields(yolo)
    (yolo / "classes.txt").unlink()
    with pytest.raises(cellscan.DataError, match="classes.txt"):
        cellscan.load_fields(yolo)
    shutil.rmtree(yolo / "labels")
    (tmp_path / "empty").mkdir()
    with pytest.raises(cellscan.DataError, match="neither annotations nor images"):
        cellscan.load_fields(tmp_path / "empty")
    with pytest.raises(cellscan.DataError, match="no such file"):
        cellscan.load_fields(tmp_path / "missing")
