"""Fields and their boxes: four layouts, what is tidied, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.data.images import fitted, read_rgb
from cellscan.data.runs import find_runs

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
    rounded = cellscan.FieldDataset.from_arrays(
        [random_image(0, 40, 50)], [[[-0.00001, 2, 50.00003, 12]]], [[0]], class_names=("cell",)
    )
    assert rounded.boxes[0].tolist() == [[0, 2, 50, 12]]
    assert rounded.notes == ()
    two = cellscan.FieldDataset.from_arrays(
        [random_image(0, 40, 50)] * 2, [boxes, boxes[:1]], [np.zeros(5, int), [0]], class_names=("cell",)
    )
    assert two[[1, 0]].notes == two.notes
    assert two[1:].notes[0] == "of all 2 fields: 2 boxes clipped to the frame"
    assert two[1:][[]].notes == two[1:].notes
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
    assert np.asarray(fields.crops(min_size=5).images(8, progress=False)[0]).min() == 255
    x1, y1, x2, y2 = fields.targets((40, 40))[0, 0, :4].astype(int)
    small = fields.images((40, 40), progress=False)[0]
    assert small[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 200


def test_splits_keep_runs_together() -> None:
    fields = cellscan.synthetic_fields(40, seed=0, size=(96, 96))
    train, valid, test = fields.split(validation=0.2, test=0.3, seed=1)
    assert len(train) + len(valid) + len(test) == 40
    numbers = [{int(name[10:14]) for name in part.names} for part in (train, valid, test)]
    assert not numbers[0] & numbers[2]
    assert not numbers[0] & numbers[1]
    edges = sum(min(n, n + 1) in a and n + 1 in b for a in numbers for b in numbers if a is not b for n in range(39))
    assert edges <= 5  # where one run of twelve ends and the next begins
    assert fields.split(test=0.3, seed=1)[1].names.tolist() == fields.split(test=0.3, seed=1)[1].names.tolist()
    with pytest.raises(cellscan.DataError, match="runs cannot make"):
        fields.select([0, 1, 2]).split(test=0.5)


def bare(names: list[str]) -> cellscan.FieldDataset:
    count = len(names)
    images, boxes, labels = [np.zeros((24, 32, 3), np.uint8)] * count, [np.zeros((0, 4))] * count, [[]] * count
    return cellscan.FieldDataset.from_arrays(images, boxes, labels, class_names=["rbc"], names=names)


@pytest.mark.parametrize(
    ("pattern", "slides", "numbers"),
    [
        ("{s}/{n:03d}.png", "AB", range(1, 13)),  # a folder a slide
        ("{s}/slide_{n:03d}_100x.png", "AB", range(1, 13)),  # the objective behind the number
        ("{s}_{n}.png", [7, 8, 9], range(1, 13)),
        ("s{s:02d}_f{n:02d}.png", range(1, 21), range(1, 6)),  # more slides than fields
        ("field_{n:03d}_2019{s:04d}.png", [405, 722], range(1, 13)),  # the day behind the number
        ("{s}\\{n}.png", "AB", range(1, 13)),
        ("P{n}.JPG", [0], range(95, 105)),  # digits more
    ],
)
def test_runs_are_fields_of_one_slide(pattern, slides, numbers) -> None:
    names = [pattern.format(s=slide, n=number) for slide in slides for number in numbers]
    order = np.random.default_rng(0).permutation(len(names))
    fields = bare([names[i] for i in order])
    runs = [[str(fields.names[i]) for i in run] for run in find_runs(fields.names.tolist())]
    want = [[pattern.format(s=slide, n=number) for number in numbers] for slide in slides]
    assert sorted(runs) == sorted(want)
    if len(slides) > 1:
        train, test = fields.split(test=0.5, seed=0)
        for run in want:
            assert set(run) <= set(train.names.tolist()) or set(run) <= set(test.names.tolist())


def test_numbers_that_count_nothing_make_no_runs() -> None:
    fields = bare([f"slide_{k * 7}_100x.png" for k in range(12)])
    assert {len(run) for run in find_runs(fields.names.tolist())} == {1}


def test_crops_are_cells_with_the_field_as_patient() -> None:
    fields = cellscan.synthetic_fields(3, seed=0)
    crops = fields.crops(min_size=20, max_per_class=4)
    assert set(crops.patients) <= set(fields.names)
    assert (np.bincount(crops.labels, minlength=2)[0]) <= 12
    assert min(min(crops[i].image.shape[:2]) for i in range(len(crops))) >= 20


def test_synthetic_fields_are_the_same_for_a_seed_and_their_boxes_hold_cells() -> None:
    one, other = (cellscan.synthetic_fields(3, seed=4) for _ in range(2))
    assert one.hash() == other.hash()
    assert (one[1].image == other[1].image).all()
    assert (cellscan.synthetic_fields(2, seed=4)[1].image == one[1].image).all()
    field = one[0]
    ground = np.median(field.image.reshape(-1, 3), 0)
    for box in field.boxes.astype(int):
        middle = field.image[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
        assert np.abs(middle.astype(float) - ground).max() > 15


def test_fields_of_other_pixels_have_another_hash(tmp_path) -> None:
    fields = cellscan.synthetic_fields(3, seed=0, size=(96, 96))
    boxes, labels = fields.boxes, fields.labels

    def other(images) -> str:
        return cellscan.FieldDataset.from_arrays(
            images, boxes, labels, class_names=fields.class_names, names=fields.names.tolist()
        ).hash()

    images = [one.image for one in fields]
    changed = [*images[:2], images[2] ^ 1]
    found = [fields.hash(), other(images), other(changed), other([images[1], images[0], images[2]])]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert fields.select([0, 1]).hash() != fields.select([1, 0]).hash()
    path = write_coco(tmp_path)
    before = cellscan.load_fields(path).hash()
    Image.fromarray(random_image(9, 48, 64)).save(tmp_path / "a.png")
    assert cellscan.load_fields(path).hash() != before


def test_parts_and_verbs_of_fields() -> None:
    fields: Any = cellscan.synthetic_fields(4, seed=0, size=(96, 96))
    names = fields.names.tolist()
    for which, rows in (
        (slice(1, 3), [1, 2]), ([0, -1], [0, 3]), (fields.names == names[2], [2]), ([], []), (np.array([1, 1]), [1, 1])
    ):  # fmt: skip
        part = fields.select(which)
        assert part.names.tolist() == [names[row] for row in rows]
        assert [own.tolist() for own in part.boxes] == [fields.boxes[row].tolist() for row in rows]
        assert all((a.image == fields[row].image).all() for a, row in zip(part, rows, strict=True))
    for which in ([0.7], 0, None, [4], [True], "a"):
        with pytest.raises(cellscan.ArgumentError):
            fields.select(which)
    assert fields[-1].name == names[3]
    with pytest.raises(IndexError):
        fields[4]
    assert fields[0:2].names.tolist() == names[:2]
    assert [one.name for one in fields] == names
    assert fields.without([names[1], "elsewhere.png"]).names.tolist() == [names[0], *names[2:]]
    with pytest.raises(cellscan.DataError, match="none of the 1 names"):
        fields.without(["elsewhere.png"])
    assert sum(fields.per_class().values()) == sum(map(len, fields.boxes))
    assert "red blood cell" in fields._repr_html_()


def test_an_empty_set_of_fields() -> None:
    none = cellscan.synthetic_fields(2, seed=0, size=(96, 96)).select([])
    assert len(none) == 0
    assert none.describe() == str(none) == "0 fields, 0 boxes: red blood cell 0, infected 0"
    assert none.targets((64, 64)).shape == (0, 32, 5)
    for call in (none.plot, none.crops, lambda: none.images((64, 64)), lambda: none.split(test=0.5)):
        with pytest.raises(cellscan.DataError):
            call()


def test_fields_own_their_arrays() -> None:
    image, boxes, labels = random_image(0, 40, 50), np.array([[1.0, 1, 9, 9]], np.float32), np.array([0], np.int32)
    fields = cellscan.FieldDataset.from_arrays([image], [boxes], [labels], class_names=["a", "b"])
    kept = image.copy()
    image[:], boxes[:], labels[:] = 0, 0, 1
    assert (fields[0].image == kept).all()
    assert (fields.boxes[0].tolist(), fields.labels[0].tolist()) == ([[1, 1, 9, 9]], [0])
    for array in (fields.boxes[0], fields.labels[0], fields.names, fields.sizes, fields.rows):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_what_from_arrays_takes_and_refuses() -> None:
    image, box = random_image(0, 40, 50), np.array([[1, 1, 9, 9]])
    palette = Image.fromarray(image).quantize(64)

    def make(images=(image,), boxes=(box,), labels=([0],), class_names=("a", "b"), names=None):
        return cellscan.FieldDataset.from_arrays(images, boxes, labels, class_names=class_names, names=names)

    assert (make(images=[palette])[0].image == np.asarray(palette.convert("RGB"))).all()
    assert make(images=(one for one in [image]), labels=[["b"]]).labels[0].tolist() == [1]
    assert make(boxes=[[*box, [2, 2, 8, 8]]], labels=[["b", None]]).labels[0].tolist() == [1, -2]
    assert make(labels=[np.array([1.0])]).labels[0].tolist() == [1]
    assert make(boxes=[[1, 1, 9, 9]]).boxes[0].tolist() == [[1, 1, 9, 9]]
    bad = [
        ({"labels": [[0.7]]}, "is 0.7"), ({"labels": [[float("nan")]]}, "is nan"),
        ({"labels": [["c"]]}, "is 'c'"), ({"labels": [[2]]}, "labels from 2"), ({"labels": [[-1]]}, "labels from -1"),
        ({"labels": [[0, 0]]}, "1 boxes and 2 labels"),
        ({"boxes": [[[100, 100, 20, 20]]]}, "negative side"), ({"boxes": [[[1, 2, 3, 4, 5]]]}, "shape"),
        ({"boxes": [[["x"] * 4]]}, "not numbers"), ({"boxes": [[[0, 0, np.inf, 1]]]}, "not finite"),
        ({"boxes": []}, "as many of each"), ({"boxes": 3}, "boxes is 3"), ({"images": "a.png"}, "images is 'a.png'"),
        ({"images": [np.zeros((1, 4, 4, 3), np.uint8)]}, "image 0"), ({"names": ["a", "b"]}, "2 names"),
        ({"names": [None]}, "a name is empty"), ({"names": [""]}, "a name is empty"),
        ({"class_names": "ab"}, "class_names"), ({"class_names": ["a", "a"]}, "distinct"),
        ({"class_names": [None]}, "class names"),
    ]  # fmt: skip
    for changes, said in bad:
        with pytest.raises(cellscan.CellscanError, match=said):
            make(**changes)
    with pytest.raises(cellscan.DataError, match="several fields have this name"):
        make([image] * 2, [box] * 2, [[0]] * 2, names=["a", "a"])


def test_odd_arguments_of_fields() -> None:
    fields: Any = cellscan.synthetic_fields(4, seed=0, size=(96, 96))
    for call in (
        lambda: fields.split(test=float("nan")), lambda: fields.split(test="0.2"),
        lambda: fields.split(test=0.2, seed=-1), lambda: fields.split(validation=0.8), lambda: fields.images(64),
        lambda: fields.images((0, 64)), lambda: fields.images("ab"),
        lambda: fields.targets((64, 64), 0), lambda: fields.factors((64, 64.5)), lambda: fields.crops(min_size="a"),
        lambda: fields.crops(max_per_class=-1), lambda: fields.crops(seed=None), lambda: fields.plot(count=0),
    ):  # fmt: skip
        with pytest.raises(cellscan.ArgumentError, match="expected"):
            call()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda folder: (folder / "images" / "a.png").unlink(), "no image 'a.png'"),
        (lambda folder: (folder / "images" / "a.png").write_bytes(b"nothing"), "not an image"),
        (lambda folder: (folder / "annotations.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "annotations.json").write_text("{}"), "neither COCO"),
        (lambda folder: (folder / "annotations.json").write_text('[{"image_name": "a.png"}]'), "KeyError"),
        (lambda folder: (folder / "more.json").write_text("["), "more.json"),
        (lambda folder: write_voc(folder), "several formats, Pascal VOC and IML-Malaria"),
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
    assert "1 fields skipped" in fields.notes[0]
    (tmp_path / "set" / "images" / "b.png").unlink()
    with pytest.raises(cellscan.DataError, match="none of the 2 fields"):
        cellscan.load_fields(path, on_error="skip")


def write_image(path: Path, width: int = 640, height: int = 480) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


VOC = (
    "<annotation><filename>{file}</filename>{size}<object><name>{name}</name>{more}<bndbox><xmin>1</xmin><ymin>2</ymin>"
    "<xmax>9</xmax><ymax>10</ymax></bndbox></object></annotation>"
)


def voc_text(file: str = "a.jpg", *, size: str = "", name: str = "rbc", more: str = "") -> str:
    return VOC.format(file=file, size=size, name=name, more=more)


def coco_document(**changes) -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "rbc"}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 8]}],
        **changes,
    }


BOX = [[1, 2, 9, 10]]
LINE = f"0 {5 / 640} {6 / 480} {8 / 640} {8 / 480}\n"


def files_of(layout: str) -> dict[str, str]:
    """Return the files beside the images of one field, by the tool that writes them so."""
    coco, yaml = json.dumps(coco_document()), "names: [rbc]\nnc: 1\n"
    return {
        "labelImg, YOLO": {"a.jpg": "", "a.txt": LINE, "classes.txt": "rbc\n"},
        "labelImg, VOC": {"a.jpg": "", "a.xml": voc_text()},
        "Roboflow, YOLO": {"train/images/a.jpg": "", "train/labels/a.txt": LINE, "data.yaml": yaml},
        "Roboflow, VOC": {"train/a.jpg": "", "train/a.xml": voc_text(), "README.roboflow.txt": "boxes"},
        "Roboflow, COCO": {"train/a.jpg": "", "train/_annotations.coco.json": coco, "README.dataset.txt": "boxes"},
        "Ultralytics": {"images/train/a.jpg": "", "labels/train/a.txt": LINE, "data.yaml": "names:\n  0: rbc\n"},
        "Label Studio": {"images/a.jpg": "", "labels/a.txt": LINE, "classes.txt": "rbc", "notes.json": "{}"},
        "CVAT, YOLO": {"obj_train_data/a.jpg": "", "obj_train_data/a.txt": LINE, "obj.names": "rbc\n"},
        "lower case": {"images/a.jpg": "", "annotations/a.xml": voc_text()},
        "sub folders": {"JPEGImages/one/a.jpg": "", "Annotations/one/a.xml": voc_text()},
        "COCO": {"images/a.jpg": "", "annotations/instances.json": coco},
    }[layout]


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        if name.endswith(".jpg"):
            write_image(folder / name)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder


LAYOUTS = (
    "labelImg, YOLO", "labelImg, VOC", "Roboflow, YOLO", "Roboflow, VOC", "Roboflow, COCO", "Ultralytics",
    "Label Studio", "CVAT, YOLO", "lower case", "sub folders", "COCO",
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_annotations_are_read_where_tools_put_them(layout, tmp_path) -> None:
    fields = cellscan.load_fields(write_files(tmp_path / "set", files_of(layout)))
    assert fields.annotated
    assert fields.class_names == ("rbc",)
    assert np.allclose(fields.boxes[0], BOX, atol=1e-3)
    assert fields[0].image.shape == (480, 640, 3)
    assert not fields.notes


@pytest.mark.parametrize("layout", ["Roboflow, YOLO", "Roboflow, VOC", "Roboflow, COCO"])
def test_parts_of_a_set_are_joined(layout, tmp_path) -> None:
    files = files_of(layout)
    other = {name.replace("train", "valid"): text for name, text in files.items()}
    folder = write_files(tmp_path / "set", {**files, **other})
    fields = cellscan.load_fields(folder)
    assert len(set(fields.names.tolist())) == 2
    assert [own.tolist() for own in fields.boxes] == [fields.boxes[0].tolist()] * 2
    assert len(cellscan.load_fields(folder / "valid")) == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"_annotations.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\n"}, "_annotations.csv"),
        ({"boxes.mat": "1"}, "boxes.mat"),
        ({"deep/boxes.txt": "0 .5 .5 .1 .1"}, "deep/boxes.txt"),
        ({"annotations.xml": "<svg/>"}, "annotations.xml"),
        ({"a.json": json.dumps([{"image": "a.jpg", "annotations": []}])}, "neither COCO"),
        ({"_annotations.coco.json": "{}"}, "neither COCO"),
    ],
)
def test_files_that_are_not_read_are_no_folder_without_boxes(files, said, tmp_path) -> None:
    folder = write_files(tmp_path / "set", {"a.jpg": "", **files})
    with pytest.raises(cellscan.DataError, match=said):
        cellscan.load_fields(folder)
    plain = cellscan.load_fields(folder, boxes=False)
    assert (len(plain), plain.annotated) == (1, False)


def test_images_whose_boxes_lie_beside_their_folder(tmp_path) -> None:
    folder = write_files(tmp_path / "set", files_of("Label Studio"))
    with pytest.raises(cellscan.DataError, match=r"\.\./labels"):
        cellscan.load_fields(folder / "images")
    assert not cellscan.load_fields(folder / "images", boxes=False).annotated
    about = write_files(
        tmp_path / "plain", {"a.jpg": "", "README.txt": "", "LICENSE": "", "Thumbs.db": "", ".x.json": ""}
    )
    assert not cellscan.load_fields(about).annotated


def test_what_a_layout_leaves_out_is_told(tmp_path) -> None:
    folder = write_files(tmp_path / "coco", files_of("COCO"))
    write_image(folder / "images" / "more.jpg")
    (folder / "table.csv").write_text("a,b")
    (folder / "images" / "more.heic").write_bytes(b"")
    notes = " ".join(cellscan.load_fields(folder).notes)
    assert "1 images in the same folders are not annotated" in notes
    assert "2 files not read, such as images/more.heic" in notes
    plain = cellscan.load_fields(folder / "images", boxes=False)
    head = ["2 fields without boxes", "  format images: images only, no annotations"]
    assert str(plain).splitlines() == [*head, "  1 files not read, such as more.heic"]
    folder = write_files(tmp_path / "yolo", files_of("Label Studio"))
    write_image(folder / "images" / "more.jpg")
    write_image(folder / "previews" / "a.jpg")
    fields = cellscan.load_fields(folder)
    assert fields.names.tolist() == ["a.jpg", "more.jpg"]
    assert fields.notes == (
        "1 images without a label file: fields without boxes", "1 images in other folders, without labels, not read"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("1 0.15625 0.208333 0.3125 0.208333 0.3125 0.416667 0.15625 0.416667", [100, 100, 200, 200]),  # a polygon
        ("1 .25 .25 .5 .25 .25 .5", [160, 120, 320, 240]),
        ("1 0.5 0.5 0.5 0.5 0.87", [160, 120, 480, 360]),  # with a score
        ("1.0 0.5 0.5 1.0 1.001", [0, 0, 640, 480]),  # a small overrun
    ],
)
def test_yolo_columns_are_what_they_are(line, box, tmp_path) -> None:
    folder = write_files(
        tmp_path / "set", {**files_of("Label Studio"), "labels/a.txt": line, "classes.txt": "rbc\nsick"}
    )
    fields = cellscan.load_fields(folder)
    assert np.allclose(fields.boxes[0], [box], atol=0.1)
    assert fields.labels[0].tolist() == [1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 320 240 40 40", "pixels"),
        ("1 .5 .5 .1 .1 .1 .1 .1", "8 columns"),
        ("1 .5 .5 .1", "4 columns"),
        ("1 .5 .5 nan .1", "not a number"),
        ("1 .5 .5 -.04 .1", "negative side"),
        ("-1 .5 .5 .1 .1", "class number"),
        ("0.5 .5 .5 .1 .1", "class number"),
        ("rbc .5 .5 .1 .1", "could not convert"),
    ],
)
def test_yolo_lines_that_cannot_be_what_they_claim(line, said, tmp_path) -> None:
    folder = write_files(tmp_path / "set", {**files_of("Label Studio"), "classes.txt": "rbc\nsick"})
    (folder / "labels" / "a.txt").write_text(LINE + line)
    with pytest.raises(cellscan.DataError, match=rf"a\.txt, line 2: .*{said}"):
        cellscan.load_fields(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(encoding, tmp_path) -> None:
    folder = write_files(tmp_path / "yolo", files_of("Label Studio"))
    for name, text in (("classes.txt", "rbc\nérythrocyte\n"), ("labels/a.txt", LINE.replace("0 ", "1 ", 1))):
        (folder / name).write_text(text, encoding=encoding)
    fields = cellscan.load_fields(folder)
    assert fields.class_names == ("rbc", "érythrocyte")
    assert fields.labels[0].tolist() == [1]
    coco = write_image(tmp_path / "coco" / "a.jpg").with_name("x.json")
    coco.write_text(json.dumps(coco_document()), encoding=encoding)
    assert np.allclose(cellscan.load_fields(coco).boxes[0], BOX)


def test_lists_of_classes_that_do_not_hold_together(tmp_path) -> None:
    folder = write_files(tmp_path / "set", {**files_of("Label Studio"), "classes.txt": "rbc\n\nsick\n"})
    with pytest.raises(cellscan.DataError, match=r"classes\.txt, line 2"):
        cellscan.load_fields(folder)
    (folder / "classes.txt").write_text("rbc\n")
    (folder / "data.yaml").write_text("names: [sick]")
    with pytest.raises(cellscan.DataError, match="lists of classes differ"):
        cellscan.load_fields(folder)
    assert cellscan.load_fields(folder, classes=["one"]).class_names == ("one",)
    (folder / "classes.txt").write_bytes(b"\xe9rythrocyte")
    with pytest.raises(cellscan.DataError, match="UTF-8"):
        cellscan.load_fields(folder)


@pytest.mark.parametrize(
    ("changes", "box"),
    [
        ({"images": [{"id": 1, "file_name": "..\\..\\label-studio\\media\\upload\\1\\a.jpg"}]}, [1, 2, 9, 10]),
        ({"images": [{"id": 1, "file_name": "C:\\data\\a.jpg"}]}, [1, 2, 9, 10]),
        ({"images": [{"id": 1, "file_name": "./a.jpg"}]}, [1, 2, 9, 10]),
        ({"images": [{"id": 1, "file_name": "a"}]}, [1, 2, 9, 10]),
        ({"images": [{"id": 1, "file_name": "a.jpg", "width": 0, "height": 0}]}, [1, 2, 9, 10]),
        ({"images": [{"id": 1, "file_name": "a.jpg", "width": "640", "height": 480.0}]}, [1, 2, 9, 10]),
        (
            {
                "annotations": [
                    {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9], [3] * 6]}
                ]
            },
            [1, 1, 9, 9],
        ),
    ],
)
def test_coco_as_tools_write_it(changes, box, tmp_path) -> None:
    path = write_image(tmp_path / "a.jpg").with_name("x.json")
    path.write_text(json.dumps(coco_document(**changes)))
    fields = cellscan.load_fields(path)
    assert fields.names.tolist() == ["a.jpg"]
    assert fields.boxes[0].tolist() == [box]


def thing(**changes) -> dict:
    return {"annotations": [{**coco_document()["annotations"][0], **changes}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (thing(image_id=99), "annotation 7: there is no image 99"),
        (thing(category_id=9), "annotation 7: there is no category 9"),
        (thing(bbox=[1, 2, -3, 4]), "annotation 7: .* negative side"),
        (thing(bbox=[1, 2, 3]), "annotation 7: .*unpack"),
        (thing(bbox=[1, 2, 3, float("nan")]), "annotation 7: nan is not a number"),
        (thing(bbox=None), "annotation 7: it has neither a bbox nor polygons"),
        (thing(iscrowd="perhaps"), "annotation 7: iscrowd"),
        (thing(bbox=[700, 2, 10, 10]), "lies outside"),
        (thing(bbox=[0, 0, 1e300, 10]), "annotation 7: .* outside any image"),
        (thing(bbox=[0.1, 0.2, 0.3, 0.4]), "shares of the image"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]}, "two images have the id 1"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}]}, "annotated twice"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "width": -640, "height": 480}]}, "image 1: it has a size of -640"),
        ({"images": [{"id": 1, "file_name": None}]}, "None is not a name"),
        ({"images": 3}, "not as expected"),
    ],
)
def test_coco_that_cannot_be_what_it_claims(changes, said, tmp_path) -> None:
    path = write_image(tmp_path / "a.jpg").with_name("x.json")
    path.write_text(json.dumps(coco_document(**changes)))
    with pytest.raises(cellscan.DataError, match=rf"x\.json.*{said}"):
        cellscan.load_fields(path)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        (voc_text("C:\\data\\a.jpg"), "a.jpg"),
        (voc_text("a"), "a.png"),
        (voc_text("photo.jpg"), "a.png"),  # renamed since: the annotation's own name tells
        (voc_text(size="<size><width>640.0</width><height>480.0</height></size>"), "a.jpg"),
        (voc_text(size="<size><width/><height/></size>"), "a.jpg"),
        (voc_text(name="\n  rbc\n"), "a.jpg"),
        (voc_text(more="<difficult> 0\n</difficult>"), "a.jpg"),
    ],
)
def test_voc_as_tools_write_it(text, image, tmp_path) -> None:
    write_image(tmp_path / "JPEGImages" / image)
    write_files(tmp_path, {"Annotations/a.xml": text})
    fields = cellscan.load_fields(tmp_path)
    assert fields.class_names == ("rbc",)
    assert fields.names.tolist() == [image]
    assert (fields.boxes[0].tolist(), fields.labels[0].tolist()) == (BOX, [0])


def test_voc_says_its_encoding_and_doubts(tmp_path) -> None:
    write_image(tmp_path / "JPEGImages" / "a.jpg")
    xml = write_files(tmp_path, {"Annotations/a.xml": ""}) / "Annotations" / "a.xml"
    for encoding in ("ISO-8859-1", "UTF-16"):
        text = f'<?xml version="1.0" encoding="{encoding}"?>{voc_text(name="érythrocyte")}'
        xml.write_bytes(text.encode(encoding))
        assert cellscan.load_fields(tmp_path).class_names == ("érythrocyte",)
    xml.write_text(voc_text(more="<difficult>true</difficult>"))
    assert cellscan.load_fields(tmp_path).labels[0].tolist() == [-2]
    for spoilt, said in (
        (voc_text(more="<difficult>2</difficult>"), "object 1.*difficult"),
        (voc_text(name=""), "object 1.*no <name>"),
        (voc_text().replace("bndbox", "robndbox"), "object 1.*no <bndbox>"),
        (voc_text().replace("<xmax>9", "<xmax>0"), "object 1.*negative side"),
        (voc_text().replace("<xmax>9", "<xmax>nan"), "object 1.*not a number"),
        (voc_text(size="<size><width>64.5</width><height>48</height></size>"), "a size of"),
        (f'<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x []>{voc_text()}', "document type"),
    ):
        xml.write_bytes(spoilt.encode("utf-16" if "UTF-16" in spoilt else "utf-8"))
        with pytest.raises(cellscan.DataError, match=rf"a\.xml.*{said}"):
            cellscan.load_fields(tmp_path)


@pytest.mark.parametrize("broken", ["Annotations/b.xml", "labels/b.txt"])
def test_an_annotation_that_cannot_be_read_is_one_field(broken, tmp_path) -> None:
    files = {"images/a.jpg": "", "images/b.jpg": ""}
    good = {"Annotations/a.xml": voc_text()} if "xml" in broken else {"labels/a.txt": LINE, "classes.txt": "rbc"}
    folder = write_files(tmp_path / "set", {**files, **good, broken: "<x"})
    with pytest.raises(cellscan.DataError, match=broken):
        cellscan.load_fields(folder)
    fields = cellscan.load_fields(folder, on_error="skip")
    assert fields.names.tolist() == ["a.jpg"]
    assert "1 fields skipped" in fields.notes[0]
    assert broken in fields.notes[0]


def test_coco_passes_over_what_one_annotation_spoils(tmp_path) -> None:
    path = write_image(tmp_path / "a.jpg").with_name("x.json")
    write_image(tmp_path / "b.jpg")
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    kept = coco_document()["annotations"][0]
    path.write_text(json.dumps(coco_document(images=images, annotations=[kept, {"id": 8, "image_id": 2}])))
    fields = cellscan.load_fields(path, on_error="skip")
    assert fields.names.tolist() == ["a.jpg"]
    assert "annotation 8" in fields.notes[0]


def test_links_are_followed(tmp_path) -> None:
    folder, elsewhere = write_files(tmp_path / "set", files_of("Label Studio")), tmp_path / "elsewhere"
    (folder / "labels").rename(elsewhere)
    (folder / "labels").symlink_to(elsewhere)
    assert np.allclose(cellscan.load_fields(folder).boxes[0], BOX, atol=1e-3)


def test_a_label_file_that_two_images_claim(tmp_path) -> None:
    folder = write_files(tmp_path / "set", files_of("Label Studio"))
    Image.new("RGB", (640, 480)).save(folder / "images" / "a.png")
    with pytest.raises(cellscan.DataError, match=r"a\.txt: it fits several images, images/a\.jpg and images/a\.png"):
        cellscan.load_fields(folder)


def test_where_two_layouts_are_one_is_meant(tmp_path) -> None:
    folder = write_files(tmp_path / "set", {**files_of("Label Studio"), "Annotations/a.xml": voc_text(name="sick")})
    with pytest.raises(cellscan.DataError, match="several formats, Pascal VOC and YOLO; .* pass the path"):
        cellscan.load_fields(folder)
    assert cellscan.load_fields(folder / "Annotations").class_names == ("sick",)
    assert cellscan.load_fields(folder / "labels").class_names == ("rbc",)
    assert cellscan.load_fields(folder / "Annotations" / "a.xml").class_names == ("sick",)


def test_paths_of_fields_stay_true_after_chdir(tmp_path, monkeypatch) -> None:
    write_files(tmp_path / "set", files_of("COCO"))
    monkeypatch.chdir(tmp_path)
    fields = cellscan.load_fields("set")
    monkeypatch.chdir("/")
    assert fields[0].image.shape == (480, 640, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"path": 3},
        {"path": ""},
        {"images": 3},
        {"classes": "rbc"},
        {"classes": [1]},
        {"classes": 3},
        {"on_error": "no"},
        {"classes": []},
    ],
)
def test_odd_arguments_of_load_fields(options, tmp_path) -> None:
    folder = write_files(tmp_path / "set", files_of("COCO"))
    with pytest.raises(cellscan.ArgumentError):
        cellscan.load_fields(**{"path": folder, **options})
    with pytest.raises(cellscan.ArgumentError, match="boxes=False"):
        cellscan.load_fields(folder / "annotations" / "instances.json", boxes=False)
    with pytest.raises(cellscan.DataError, match="the folder of the images"):
        cellscan.load_fields(folder, images=folder / "images" / "a.jpg")


def test_unknown_classes_other_sizes_and_strange_xml(tmp_path) -> None:
    path = write_iml(tmp_path / "iml")
    with pytest.raises(cellscan.DataError, match="class 'ring'"):
        cellscan.load_fields(path, classes={"cell": "cell"})
    voc = write_voc(tmp_path / "voc")
    Image.fromarray(random_image(0, 30, 64)).save(voc / "JPEGImages" / "a.png")
    with pytest.raises(
        cellscan.DataError, match="64 x 30 pixels, but its annotation states 64 x 48; boxes .* misplaced$"
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
    with pytest.raises(cellscan.DataError, match=r"a\.xml: it cannot be read as XML.*line 1"):
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
