"""Annotation formats: miniatures of every layout and set, a round trip through every format, and damaged files."""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import mutate
from helpers import random_image
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

import cellscan
from cellscan.data.formats.coco import box_of_mask
from cellscan.data.formats.registry import FORMATS

HERE = Path(__file__).parent / "formats"
CASES = sorted(path.name for path in HERE.iterdir() if path.is_dir())
WRITTEN = ("coco", "yolo", "voc", "csv")


def lay_out(case: str, folder: Path) -> dict[str, Any]:
    """Copy a miniature, draw its images, and return what is expected of it."""
    shutil.copytree(HERE / case, folder)
    expected = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").unlink()
    for number, name in enumerate(expected["images"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(number, 48, 64)).save(path)
    return expected


def boxes_of(fields: cellscan.FieldDataset, row: int) -> list[list[Any]]:
    names = [None if label < 0 else fields.class_names[label] for label in fields.labels[row].tolist()]
    return [[*box, name] for box, name in zip(fields.boxes[row].round(2).tolist(), names, strict=True)]


def points_of(fields: cellscan.FieldDataset, row: int) -> list[list[Any]]:
    names = [None if label < 0 else fields.class_names[label] for label in fields.point_labels[row].tolist()]
    return [[*point, name] for point, name in zip(fields.points[row].round(2).tolist(), names, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_miniatures_are_read_as_expected(case, tmp_path) -> None:
    expected = lay_out(case, tmp_path / "set")
    fields = cellscan.load_fields(tmp_path / "set" / expected.get("path", ""), **expected.get("call", {}))
    assert fields.format == expected["format"]
    assert f"  format {fields.format}: {FORMATS[fields.format].title}, " in str(fields)
    found = {str(name): boxes_of(fields, row) for row, name in enumerate(fields.names)}
    assert found == expected["boxes"]
    points = {str(name): points_of(fields, row) for row, name in enumerate(fields.names) if len(fields.points[row])}
    assert points == expected.get("points", {})
    drawn = [ring for own in fields.polygons for rings in own for ring in rings]
    assert len(drawn) == expected.get("polygons", 0)
    for own, boxes in zip(fields.polygons, fields.boxes, strict=True):
        for rings, box in zip(own, boxes.tolist(), strict=True):
            if rings:
                ring = np.concatenate(rings)
                assert np.allclose([*ring.min(0), *ring.max(0)], box, atol=1e-3)
    if "class_names" in expected:
        assert list(fields.class_names) == expected["class_names"]
    expected_notes = expected.get("notes", [])
    assert len([note for note in fields.notes if "files not read" not in note]) == len(expected_notes), fields.notes
    assert all(any(text in note for note in fields.notes) for text in expected_notes)
    assert fields.complete.all() == ("complete" not in expected.get("call", {}))


def test_every_format_has_a_miniature() -> None:
    formats = {json.loads((HERE / case / "expected.json").read_text())["format"] for case in CASES}
    assert formats == set(FORMATS)
    sizes = {path: path.stat().st_size for path in HERE.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 8192


def test_boxes_of_masks_are_those_of_pycocotools() -> None:
    from pycocotools import mask as oracle

    rng = np.random.default_rng(0)
    for _ in range(200):
        high, wide = rng.integers(1, 40, 2)
        mask = np.asfortranarray(rng.random((high, wide)) < rng.choice([0.02, 0.3, 0.9]))
        if not mask.any():
            continue
        packed: Any = oracle.encode(mask.astype(np.uint8))
        x, y, w, h = oracle.toBbox(packed).tolist()
        text = {"size": [int(high), int(wide)], "counts": packed["counts"].decode()}
        assert box_of_mask(text) == [x, y, x + w, y + h]
        flat = np.r_[0, mask.ravel("F").astype(int), 2]
        edges = np.flatnonzero(np.diff(flat[1:-1])) + 1
        runs = np.diff(np.r_[0, edges, high * wide]).tolist()
        assert box_of_mask({**text, "counts": ([0] if mask[0, 0] else []) + runs}) == [x, y, x + w, y + h]
    for bad in ("", "0", "~~~", "\x7f"):
        with pytest.raises(ValueError, match="."):
            box_of_mask({"size": [4, 5], "counts": bad})


NIH = "Polygon Set/202C2NThinF/GT/IMG_1.txt"
NAMES = st.text("abcxyz019_- ", min_size=1, max_size=8).map(str.strip).filter(bool)
SIDE = st.integers(0, 256)


@st.composite
def sets(draw: st.DrawFn) -> cellscan.FieldDataset:
    """Return a few fields of 64 x 64 pixels with boxes on quarters of pixels."""
    class_names = draw(st.lists(NAMES, min_size=1, max_size=3, unique_by=str.casefold))
    stems = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold))
    label = st.sampled_from([None, *class_names])
    boxes, labels, polygons, points, marks = [], [], [], [], []
    for _ in stems:
        corners = draw(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=5))
        good = sorted({(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners if a != c and b != d})
        boxes.append(np.array(good, float).reshape(-1, 4) / 4)
        labels.append([draw(label) for _ in good])
        polygons.append([
            [np.array([[left, top], [right, top], [left, bottom]]) / 4] if draw(st.booleans()) else []
            for left, top, right, bottom in good
        ])  # fmt: skip
        points.append(np.array(draw(st.lists(st.tuples(SIDE, SIDE), max_size=3)), float).reshape(-1, 2) / 4)
        marks.append([draw(label) for _ in points[-1]])
    corners = np.concatenate(boxes)
    assume(not len(corners) or corners.max() > 1)  # Boxes in the first pixel only are refused as shares.
    group = st.sampled_from(["", "p1", "p2"])
    fields = cellscan.FieldDataset.from_arrays(
        [np.full((64, 64, 3), row, np.uint8) for row in range(len(stems))],
        boxes, labels, class_names=class_names,
        names=[f"{draw(st.sampled_from(['', 's1/', 'images/', 'labels/']))}f{stem}.png" for stem in stems],
        polygons=polygons, points=points, point_labels=marks,
        patients=[draw(group) for _ in stems], slides=[draw(group) for _ in stems],
        laboratories=[draw(group) for _ in stems],
        complete=np.array([[draw(st.booleans()) for _ in class_names] for _ in stems]),
    )  # fmt: skip
    return fields


@pytest.mark.parametrize("format", WRITTEN)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=sets())
def test_what_is_written_is_read_back(format, tmp_path, fields) -> None:
    folder = tmp_path / "written"
    shutil.rmtree(folder, ignore_errors=True)
    lost = fields.save(folder, format=format)
    again = cellscan.load_fields(folder)
    assert again.format == format
    assert again.class_names == fields.class_names
    assert again.names.tolist() == fields.names.tolist()
    assert again.notes == fields.notes
    for name in ("patients", "slides", "laboratories", "complete", "sizes"):
        assert np.array_equal(getattr(again, name), getattr(fields, name)), name
    ignored = sum(int((said < 0).sum()) for said in fields.labels)
    drawn = sum(bool(rings) for own in fields.polygons for rings in own)
    marked = sum(map(len, fields.points))
    losses = " ".join(lost)
    for row in range(len(fields)):
        kept = fields.labels[row] >= (0 if format == "yolo" else -2)
        assert np.allclose(again.boxes[row], fields.boxes[row][kept], atol=1e-4)
        assert again.labels[row].tolist() == fields.labels[row][kept].tolist()
        assert (again[row].image == fields[row].image).all()
        if format in ("coco", "csv"):
            assert np.array_equal(again.points[row], fields.points[row])
            assert again.point_labels[row].tolist() == fields.point_labels[row].tolist()
            for one, other in zip(again.polygons[row], fields.polygons[row], strict=True):
                assert len(one) == len(other)
                assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    if format in ("coco", "csv"):
        assert not lost
    else:
        assert (f"{marked} points" in losses) == (f"{drawn} polygons" in losses) or (marked == 0) != (drawn == 0)
        assert ("points" in losses, "polygons" in losses) == (marked > 0, drawn > 0)
        assert ("ignored boxes" in losses) == (format == "yolo" and ignored > 0)


@pytest.mark.parametrize("case", CASES)
def test_damaged_files_are_read_or_named(case, tmp_path) -> None:
    expected = lay_out(case, tmp_path / "set")
    files = sorted(
        path for path in (tmp_path / "set").rglob("*") if path.is_file() and path.suffix not in (".png", ".jpg")
    )
    rng, outcomes = np.random.default_rng(len(case)), {"read": 0, "refused": 0}
    # Five hundred a format, shared by its miniatures.
    formats = [json.loads((HERE / other / "expected.json").read_text())["format"] for other in CASES]
    count = int(os.environ.get("CELLSCAN_MUTATIONS", "500")) // formats.count(expected["format"]) + 1
    whole = {path: path.read_bytes() for path in files}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(count):
            path = files[int(rng.integers(0, len(files)))]
            path.write_bytes(mutate(whole[path], rng))
            try:
                fields = cellscan.load_fields(tmp_path / "set", on_error=("raise", "skip")[number % 2])
            except cellscan.CellscanError as error:
                assert str(tmp_path / "set") in str(error)  # noqa: PT017 - either outcome is right
                outcomes["refused"] += 1
            else:
                for boxes, points, size in zip(fields.boxes, fields.points, fields.sizes, strict=True):
                    assert (boxes >= 0).all()
                    assert (boxes <= np.tile(size, 2)).all()
                    assert (points >= 0).all()
                    assert (points <= size).all()
                # A note reports what is left out; without a note, nothing is.
                assert fields.annotated
                assert len(fields) == len(expected["boxes"]) or fields.notes
                outcomes["read"] += 1
            path.write_bytes(whole[path])
    assert outcomes["refused"]


@pytest.mark.parametrize(
    ("case", "file", "old", "new", "said"),
    [
        ("kitti", "label_2/a.txt", "ring 0.00 0", "ring 0.00", r"a\.txt, line 1: .*14 columns"),
        ("chula", "Label/2.txt", "14 17 4", "14 17 99", r"2\.txt, line 2: .*class 99"),
        ("chula", "Label/2.txt", "27 42 0", "270 42 0", r"2\.txt: the point \(270, 42\) lies outside"),
        ("nih_polygons", "Polygon Set/202C2NThinF/GT/IMG_1.txt", "2,64,48", "3,64,48", r"IMG_1\.txt, line 1: 3 cells"),
        (
            "nih_polygons",
            "Polygon Set/202C2NThinF/GT/IMG_1.txt",
            "Polygon,4",
            "Polygon,5",
            r"IMG_1\.txt, line 2: .*points",
        ),
        ("csv_corners", "_annotations.csv", ",4,5,24,30", ",4,5,x,30", r"_annotations\.csv, line 2: .*'x'"),
        ("csv_corners", "_annotations.csv", ",30,2,50,20", ",30,2,50", r"_annotations\.csv, line 3: 7 columns"),
        ("csv_corners", "_annotations.csv", "ring", "", r"_annotations\.csv, line 2: a box without a class"),
        ("csv_corners", "_annotations.csv", "b.png,64", "b.png,63", r"states 63 x 48"),
        ("via_table", "via_region_data.csv", '{""type"": ""ring""}', "{", r"via_region_data\.csv, line 2"),
        ("via_project", "via_project.json", '"rect"', '"line"', r"region 0: a region of shape 'line'"),
        ("labelme", "a.json", '"rectangle"', '"line"', r"a\.json, shape 0: a 'line'"),
        ("cvat", "annotations.xml", "box label", "cuboid label", r"'a\.png', shape 0 <cuboid>|as XML"),
        ("cvat", "annotations.xml", "30.00,2.00;", "30.00;", r"'a\.png', shape 1 <polygon>: points are"),
        ("label_studio", "export.json", '"was_cancelled": false', '"was_cancelled": 1', "tasks without an annotation"),
        ("bbbc041", "test.json", '"c": 20', '"c": "x"', r"test\.json, image '/images/b\.png', object 0"),
        ("lists", "annotations.json", '"rbc",', "", r"field 'images/a\.png', box 1: the class 1"),
        ("coco_masks", "instances_default.json", '"size": [\n     48', '"size": [\n     47', "annotation 1: a mask of"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(case, file, old, new, said, tmp_path) -> None:
    lay_out(case, tmp_path / "set")
    path = tmp_path / "set" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        fields = cellscan.load_fields(tmp_path / "set")
    except cellscan.DataError as error:
        assert re.search(said, str(error)), error  # noqa: PT017 - or a note
    else:
        assert any(re.search(said, note) for note in fields.notes), fields.notes
