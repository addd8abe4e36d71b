"""What fields are besides boxes: whose they are, what is annotated, points and polygons, joining and saving."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.data.shapes import NOT_ANNOTATED


def make(count: int = 4, *, names: list[str] | None = None, class_names=("cell", "ring"), **more: Any):
    """Return fields of 40 x 50 pixels with one box of each class."""
    boxes = [[[1, 1, 21, 21], [25, 5, 49, 35]]] * count
    return cellscan.FieldDataset.from_arrays(
        [random_image(row, 40, 50) for row in range(count)],
        boxes,
        [[0, min(1, len(class_names) - 1)]] * count,
        class_names=class_names,
        names=names,
        **more,
    )


def write_labelled(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(number, 40, 50)).save(path)
        path.with_suffix(".txt").write_text("0 .5 .5 .5 .5\n")
    (folder / "classes.txt").write_text("cell\n")
    return folder


NAMES = ["p1/s1_1.png", "p1/s1_2.png", "p2/s2_1.png", "p2/s3_1.png"]


def test_groups_come_from_functions_mappings_and_files(tmp_path) -> None:
    folder = write_labelled(tmp_path / "set", NAMES)
    table = tmp_path / "slides.csv"
    table.write_text("name;slide\ns1_1.png;7\np1/s1_2.png;7\ns2_1.png;8\ns3_1.png;9\n")
    fields = cellscan.load_fields(folder, patient=lambda name: name.split("/")[0], slide=table, laboratory="Bangkok")
    assert fields.names.tolist() == NAMES
    assert fields.patients.tolist() == ["p1", "p1", "p2", "p2"]
    assert fields.slides.tolist() == ["7", "7", "8", "9"]
    assert set(fields.laboratories) == {"Bangkok"}
    assert "  2 patients, 3 slides, 1 laboratories" in str(fields)
    assert fields[3].slide == "9"
    mapped = cellscan.load_fields(folder, laboratory={name: name[:2] for name in NAMES})
    assert mapped.laboratories.tolist() == ["p1", "p1", "p2", "p2"]
    table.rename(folder / "slides.csv")  # among the images
    assert cellscan.load_fields(folder, slide=folder / "slides.csv").notes == ()
    plain = cellscan.load_fields(folder, boxes=False, patient=lambda name: name[:2])
    assert plain.patients.tolist() == ["p1", "p1", "p2", "p2"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"patient": lambda name: ""}, "p1/s1_1.png: `patient` gives ''"),
        ({"slide": lambda name: name.index("q")}, "`slide` fails"),
        ({"patient": {"s1_1.png": "a"}}, "p1/s1_2.png: `patient` gives None"),
        ({"patient": "no.csv"}, "no.csv"),
        ({"laboratory": 3}, "laboratory is 3"),
        ({"laboratory": " "}, "expected the name of the laboratory"),
        ({"complete": "cell"}, "complete"),
        ({"format": "word"}, "format"),
        ({"format": "voc"}, "no file of the format 'voc'"),
    ],
)
def test_odd_groups_are_refused(given, said, tmp_path) -> None:
    folder = write_labelled(tmp_path / "set", NAMES)
    with pytest.raises(cellscan.CellscanError, match=said):
        cellscan.load_fields(folder, **given)
    same = write_labelled(tmp_path / "same", ["a/1.png", "b/1.png"])
    with pytest.raises(cellscan.DataError, match="fits 2 fields"):
        cellscan.load_fields(same, patient={"1.png": "p"})


def test_splits_and_folds_keep_groups_whole() -> None:
    count = 24
    owners = [f"p{row // 3}" for row in range(count)]
    labs = [f"l{row // 12}" for row in range(count)]
    fields = make(count, patients=owners, laboratories=labs)
    for seed in range(3):
        for parts in (
            fields.split(validation=0.25, test=0.25, seed=seed),
            fields.split(validation=0.25, test=0.25, by="patient", seed=seed),
        ):
            own = [set(part.patients) for part in parts]
            assert sum(map(len, own)) == len(set().union(*own)) == 8
            assert sum(map(len, parts)) == count
    train, test = fields.split(test=0.5, by="laboratory")
    assert not set(train.laboratories) & set(test.laboratories)
    for by, groups in (("patient", 8), ("laboratory", 2)):
        pairs = list(fields.folds(min(groups, 4), by=by, seed=1))  # type: ignore[arg-type]
        assert sum(len(test) for _, test in pairs) == count
        for train, test in pairs:
            assert len(train) + len(test) == count
            assert not set(train.names) & set(test.names)
            assert not set(getattr(train, {"patient": "patients"}.get(by, "laboratories"))) & set(
                getattr(test, {"patient": "patients"}.get(by, "laboratories"))
            )
    assert [len(test) for _, test in make(26).folds(2)] == [14, 12]  # runs: twelve, twelve and two
    with pytest.raises(cellscan.DataError, match="its slide is not known"):
        fields.split(test=0.5, by="slide")
    with pytest.raises(cellscan.ArgumentError, match="by"):
        fields.split(test=0.5, by="day")  # type: ignore[arg-type]
    with pytest.raises(cellscan.DataError, match="cannot fill 3 folds"):
        fields.folds(3, by="laboratory")
    with pytest.raises(cellscan.DataError, match="in 2 laboratories cannot make 3"):
        fields.split(validation=0.2, test=0.2, by="laboratory")


def test_where_some_patients_are_known_runs_hold_the_others_together() -> None:
    names = [f"a_{row:02d}.png" for row in range(12)] + [f"b_{row * 7}.png" for row in range(6)]
    fields = make(18, names=names, patients=[""] * 12 + ["p", "p", "p", "q", "q", "q"])
    train, test = fields.split(test=0.4, seed=0)
    for own in (names[:12], names[12:15], names[15:]):
        assert set(own) <= set(train.names.tolist()) or set(own) <= set(test.names.tolist())


def test_sets_are_joined_with_what_each_annotates() -> None:
    both = make(2, laboratories=["A", "A"], names=["1.png", "2.png"], patients=["p1", "p2"])
    rings = make(2, laboratories=["B", "B"], names=["1.png", "3.png"]).rename_classes({"cell": None})
    other = make(1, class_names=["RING"], names=["4.png"])
    joined = cellscan.concat([both, rings, other])
    assert joined.class_names == ("cell", "ring")
    assert joined.names.tolist() == ["1/1.png", "1/2.png", "2/1.png", "2/3.png", "3/4.png"]
    assert joined.laboratories.tolist() == ["A", "A", "B", "B", ""]
    assert joined.complete.tolist() == [[True, True]] * 2 + [[False, True]] * 3
    assert [said.tolist() for said in joined.labels] == [[0, 1], [0, 1], [-2, 1], [-2, 1], [1, 1]]
    assert "not all annotated: cell (in 3 fields)" in str(joined)
    assert "2 laboratories (of 4 fields)" in str(joined)
    for row, (part, index) in enumerate([(both, 0), (both, 1), (rings, 0), (rings, 1), (other, 0)]):
        assert (joined[row].image == part[index].image).all()
    small = joined.select([3, 0])
    assert small.names.tolist() == ["2/3.png", "1/1.png"]
    assert small.images((40, 50), progress=False)[:].shape == (2, 40, 50, 3)
    assert cellscan.concat([both, rings]).hash() != cellscan.concat([rings, both]).hash()
    assert pickle.loads(pickle.dumps(joined)).hash() == joined.hash()
    for bad, error in (
        ([both, make().images], "concat got a"),
        ([both, cellscan.synthetic_cells(8)], "cells and fields"),
    ):
        with pytest.raises(cellscan.ArgumentError, match=error):
            cellscan.concat(bad)  # type: ignore[arg-type]


def test_what_is_not_complete_is_in_the_targets() -> None:
    fields = make(
        3, points=[[], [[3, 4]], []], point_labels=[[], [0], []], complete=[[True, True]] * 2 + [[True, False]]
    )
    assert fields.boxed().tolist() == [[True, True], [False, True], [True, False]]
    targets = fields.targets((40, 50))
    assert targets[0, 2:, 4].max() == -1
    assert targets[1, 2:, 4].tolist() == [NOT_ANNOTATED, *[-1] * 29]
    assert targets[2, 2:, 4].tolist() == [NOT_ANNOTATED - 1, *[-1] * 29]
    assert fields.hash() != make(3).hash()
    with pytest.raises(cellscan.DataError, match="more than capacity=2"):
        fields.targets((40, 50), 2)
    with pytest.raises(cellscan.ArgumentError, match="complete is"):
        make(3, complete=[True, False, True])


def test_classes_that_are_complete_are_told_when_read(tmp_path) -> None:
    folder = write_labelled(tmp_path / "set", NAMES)
    assert cellscan.load_fields(folder).complete.all()
    none = cellscan.load_fields(folder, complete=[])
    assert not none.complete.any()
    assert "not all annotated: cell" in str(none)
    healthy = cellscan.load_fields(folder, complete=["cell", "infected"])  # looked for, and not there
    assert healthy.class_names == ("cell", "infected")
    assert healthy.complete.all()


def test_cells_are_cut_along_their_polygons() -> None:
    image = np.full((40, 50, 3), 200, np.uint8)
    image[10:30, 10:30] = (100, 50, 40)
    square = np.array([[10, 10], [29, 10], [29, 29], [10, 29]])
    fields = cellscan.FieldDataset.from_arrays(
        [image], [[[5, 5, 35, 35]]], [[0]], class_names=["cell"], polygons=[[[square]]], patients=["p"]
    )
    field = fields.crops()[0].image
    black = fields.crops(background="black")[0]
    filled = fields.crops(background="fill")[0].image
    assert field.shape == black.image.shape == (30, 30, 3)
    assert field[0, 0].tolist() == [200] * 3
    assert (black.image[5:25, 5:25] == (100, 50, 40)).all()
    assert black.image.reshape(-1, 3).any(1).sum() == 400
    assert (filled == (100, 50, 40)).all()
    assert black.patient == "p"
    assert fields.crops(scale=0.5, min_size=16)[0].image.shape == (16, 16, 3)  # 12.5 to 27.5
    half = fields.crops(background="black", scale=0.5, min_size=16)[0].image
    assert (half == (100, 50, 40)).all()
    assert make(1).crops().patients.tolist() == ["field_0000"] * 2
    with pytest.raises(cellscan.DataError, match="box 0 has no polygon"):
        make(1).crops(background="black")
    with pytest.raises(cellscan.ArgumentError, match="background"):
        make(1).crops(background="white")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"points": [[[60, 3]]], "point_labels": [[0]]}, "lies outside the image"),
        ({"points": [[[6, 3]]], "point_labels": [[]]}, "1 points and 0"),
        ({"points": [[[6, float("nan")]]], "point_labels": [[0]]}, "outside"),
        ({"points": [[[6, 3, 4]]], "point_labels": [[0]]}, r"expected \(m, 2\)"),
        ({"polygons": [[[], [[[1, 2], [3, 4]]]]]}, "k at least 3"),
        ({"polygons": [[[]]]}, "polygons of 1"),
        ({"polygons": [[[], [["a"]]]]}, "not numbers"),
        ({"patients": ["a", "b"]}, "1 fields and 2 patients"),
    ],
)
def test_odd_points_and_polygons_are_refused(more, said) -> None:
    with pytest.raises(cellscan.DataError, match=said):
        make(1, **more)


def test_what_fields_hold_is_read_only() -> None:
    ring = np.array([[1.0, 1], [5, 1], [5, 5]], np.float32)
    fields = make(1, polygons=[[[ring], []]], points=[[[3, 4]]], point_labels=[[1]], patients=["p"])
    ring[:] = 0
    for one in (fields, pickle.loads(pickle.dumps(fields)), copy.deepcopy(fields), fields.select([0])):
        assert one.polygons[0][0][0].tolist() == [[1, 1], [5, 1], [5, 5]]
        for array in (
            one.polygons[0][0][0],
            one.points[0],
            one.point_labels[0],
            one.patients,
            one.complete,
            one.boxes[0],
        ):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0


def test_renaming_joins_and_ignores() -> None:
    fields = make(1, points=[[[3, 4]]], point_labels=[[1]], complete=[True, False])
    one = fields.rename_classes({"cell": "any", "ring": "any"})
    assert (one.class_names, one.labels[0].tolist(), one.point_labels[0].tolist()) == (("any",), [0, 0], [0])
    assert one.complete.tolist() == [[False]]
    assert fields.rename_classes({"ring": None}).labels[0].tolist() == [0, -2]
    with pytest.raises(cellscan.DataError, match="'rong' is not among"):
        fields.rename_classes({"rong": "a"})


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    fields = make(2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    (tmp_path / "empty").mkdir()
    assert fields.save(tmp_path / "empty") == ()
    for target, said in ((tmp_path / "full", "it already exists"), (tmp_path / "a" / "b", "there is no folder")):
        with pytest.raises(cellscan.ArgumentError, match=said):
            fields.save(target)
    with pytest.raises(cellscan.ArgumentError, match="format"):
        fields.save(tmp_path / "new", format="kitti")  # type: ignore[arg-type]
    for names, said in (
        (["../a", "b"], "not a valid relative file path"),
        (["a.png", "a"], "share a file"),
        ([".a", "b"], "not a valid relative file path"),
    ):
        with pytest.raises(cellscan.DataError, match=said):
            make(2, names=names).save(tmp_path / "new")
    for name in ("classes.png", "README.png"):
        with pytest.raises(cellscan.DataError, match="a description of the data set"):
            make(1, names=[name]).save(tmp_path / "new", format="yolo")
    monkeypatch.setattr("PIL.Image.Image.save", lambda *_, **__: (_ for _ in ()).throw(OSError("full disk")))
    with pytest.raises(cellscan.DataError, match="full disk"):
        fields.save(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


def test_files_are_copied_and_annotations_go_alone(tmp_path) -> None:
    folder = write_labelled(tmp_path / "set", NAMES)
    fields = cellscan.load_fields(folder)
    fields.save(tmp_path / "copy", format="voc")
    assert (tmp_path / "copy/JPEGImages/p1/s1_1.png").read_bytes() == (folder / "p1/s1_1.png").read_bytes()
    fields.save(tmp_path / "alone", format="coco", images=False)
    assert not list((tmp_path / "alone").rglob("*.png"))
    again = cellscan.load_fields(tmp_path / "alone", images=folder)
    assert again.hash() == fields.hash()
    both = cellscan.concat([fields, make(1)])
    both.save(tmp_path / "both", format="csv")
    assert cellscan.load_fields(tmp_path / "both").complete.tolist() == both.complete.tolist()


def test_masks_are_no_fields(tmp_path) -> None:
    for name in ("img/a.png", "gt/a.png"):
        path = tmp_path / name
        path.parent.mkdir()
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(cellscan.DataError, match="look like masks"):
        cellscan.load_fields(tmp_path)
    fields = cellscan.load_fields(tmp_path, boxes=False)
    assert fields.names.tolist() == ["a.png"]
    assert fields.notes == ("1 images in folders for masks, not read",)


def test_a_format_is_chosen_where_there_are_two(tmp_path) -> None:
    folder = write_labelled(tmp_path / "set", NAMES)
    lines = "".join(f"{name},rbc,1,1,9,9\n" for name in NAMES)
    (folder / "boxes.csv").write_text(f"image,label,xmin,ymin,xmax,ymax\n{lines}")
    with pytest.raises(cellscan.DataError, match="several formats, YOLO and CSV; .* format='yolo' or 'csv'"):
        cellscan.load_fields(folder)
    assert cellscan.load_fields(folder, format="csv").class_names == ("rbc",)
    assert cellscan.load_fields(folder, format="yolo").class_names == ("cell",)
    assert cellscan.load_fields(folder / "boxes.csv").class_names == ("rbc",)
    (folder / "more.csv").write_text(f"image,label,xmin,ymin,xmax,ymax\n{lines}")
    with pytest.raises(cellscan.DataError, match="2 tables of boxes in one folder"):
        cellscan.load_fields(folder, format="csv")
