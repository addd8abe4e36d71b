"""What folders mean is stated, or recognised where there is one reading, and never guessed."""

from pathlib import Path

import pytest
from helpers import write_cells
from hypothesis import given, settings
from hypothesis import strategies as st

import cellscan
from cellscan.data.layouts import choose_splits, place

CLASS_PATIENT = {"sick": ["p1/1.png", "p2/1.png"], "well": ["p1/2.png", "p3/1.png"]}
PATIENT_CLASS = {"p1": ["sick/1.png", "well/2.png"], "p2": ["sick/1.png"], "p3": ["well/1.png"]}
SPLITS = {"train": ["sick/1.png", "well/1.png"], "Test": ["sick/1.png", "well/2.png"]}


@pytest.mark.parametrize(
    ("tree", "layout"), [(CLASS_PATIENT, "class/patient/image"), (PATIENT_CLASS, "patient/class/image")]
)
def test_patients_above_and_below_the_classes(tmp_path, tree, layout) -> None:
    root = write_cells(tmp_path / "d", tree)
    cells = cellscan.load_folder(root, layout=layout)
    assert cells.class_names == ("sick", "well")
    assert sorted(cells.patients.tolist()) == ["p1", "p1", "p2", "p3"]
    assert cells.per_class() == {"sick": 2, "well": 2}
    assert cells.layout == layout
    assert str(cells).endswith(f"(read as {layout})")
    assert cells.select([0, 1]).layout == layout
    with pytest.raises(cellscan.DataError, match="more than one way") as caught:
        cellscan.load_folder(root)
    for option in ("class/patient/image", "patient/class/image", "class/*/image"):
        assert f"layout='{option}'" in str(caught.value)
    unknown = cellscan.load_folder(root, layout="class/*/image" if tree is CLASS_PATIENT else "*/class/image")
    assert not unknown.has_patients
    assert unknown.class_names == ("sick", "well")
    with pytest.raises(cellscan.ArgumentError, match="expected only one of the two"):
        cellscan.load_folder(root, layout=layout, patient=lambda name: "p")
    around = cellscan.load_folder(tmp_path, layout=f"*/{layout}")
    assert around.fingerprint() == cells.fingerprint()


def test_splits_are_asked_for_and_joined_only_when_told(tmp_path) -> None:
    root = write_cells(tmp_path / "d", SPLITS)
    with pytest.raises(cellscan.DataError, match=r"split/class/image, with the splits 'Test', 'train'.*split='Test'"):
        cellscan.load_folder(root)
    train, test = cellscan.load_folder(root, split="train"), cellscan.load_folder(root, split="test")
    assert train.names.tolist() == ["train/sick/1.png", "train/well/1.png"]
    assert test.names.tolist() == ["Test/sick/1.png", "Test/well/2.png"]
    assert train.class_names == test.class_names == ("sick", "well")
    both = cellscan.load_folder(root, split=["train", "test"])
    assert sorted(both.names.tolist()) == sorted([*train.names.tolist(), *test.names.tolist()])
    assert len(cellscan.concat([train, test])) == 4
    for split, message in (
        ("valid", "no split 'valid'; it has 'Test', 'train'"),
        (3, "name of a folder"),
        ([], "name"),
    ):
        with pytest.raises(cellscan.ArgumentError, match=message):
            cellscan.load_folder(root, split=split)  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match=r"it has none \(read as class/image\)"):
        cellscan.load_folder(root / "train", split="train")
    one = write_cells(tmp_path / "one", {"train": SPLITS["train"]})
    assert cellscan.load_folder(one).layout == "split/class/image"
    deep = write_cells(tmp_path / "deep", {"train": ["sick/p1/1.png"], "test": ["sick/p2/1.png"]})
    with pytest.raises(cellscan.DataError, match=r"layout='split/patient/class/image'"):
        cellscan.load_folder(deep)
    cells = cellscan.load_folder(deep, layout="split/class/patient/image", split=("train", "test"))
    assert cells.patients.tolist() == ["p2", "p1"]
    by_path = cellscan.load_folder(deep, split=("train", "test"), patient=lambda name: name.split("/")[0])
    assert by_path.patients.tolist() == ["p2", "p1"]


def test_splits_without_classes_and_classes_that_look_like_splits(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"train": ["1.png"], "test": ["2.png"]})
    with pytest.raises(cellscan.DataError, match=r"'test', 'train' look like splits.*layout='class/image'"):
        cellscan.load_folder(root)
    assert cellscan.load_folder(root, layout="class/image").class_names == ("test", "train")
    root = write_cells(tmp_path / "e", {"test": ["1.png"], "control": ["2.png"]})
    assert cellscan.load_folder(root).class_names == ("control", "test")
    root = write_cells(tmp_path / "f", {"sick": ["train/1.png", "test/1.png"], "well": ["train/1.png"]})
    with pytest.raises(cellscan.DataError, match="layout='class/split/image'"):
        cellscan.load_folder(root)
    assert len(cellscan.load_folder(root, layout="class/split/image", split="train")) == 2


@pytest.mark.parametrize(
    "layout",
    ["", "class", "image", "patient/image", "class/class/image", "class/x/image", 3, "class/image/", "*/image"],
)
def test_what_is_no_layout(tmp_path, layout) -> None:
    root = write_cells(tmp_path / "d", CLASS_PATIENT)
    with pytest.raises(cellscan.ArgumentError, match="expected levels of folders"):
        cellscan.load_folder(root, layout=layout)


def test_a_stated_layout_must_fit(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"set/sick": ["p1/1.png"], "set/well": ["p1/2.png"]})
    with pytest.raises(cellscan.DataError, match=r"every image lies in 'set'.*layout='\*/class/patient/image'"):
        cellscan.load_folder(root, layout="class/patient/image")
    with pytest.raises(cellscan.DataError, match="set/sick/p1/1.png has 3 levels of folders"):
        cellscan.load_folder(root, layout="*/split/class/patient/image")
    cells = cellscan.load_folder(root, layout="*/class/patient/image")
    assert cells.names.tolist() == ["sick/p1/1.png", "well/p1/2.png"]
    whole = cellscan.load_folder(root, layout="class/*/*/image")
    assert whole.class_names == ("set",)
    assert cellscan.load_folder(root, patient=lambda name: name.split("/")[0]).layout == "*/class/image"


TREES = st.lists(
    st.lists(st.sampled_from(["a", "b", "p1", "train", "test", "x"]), min_size=0, max_size=4).map(tuple),
    min_size=1, max_size=7,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(tree=TREES, layout=st.sampled_from([None, "class/image", "class/patient/image", "patient/class/image",
                                           "split/class/image", "*/class/image"]))  # fmt: skip
def test_any_tree_is_read_as_it_lies_or_refused(tree, layout) -> None:
    paths = sorted("/".join((*above, f"{number}.png")) for number, above in enumerate(tree))
    try:
        found, placed = place("d", paths, layout, patient_given=False)
        chosen = choose_splits("d", placed, None, found)
    except cellscan.DataError:
        return
    assert layout in (None, found)
    assert sorted(one.path for one in placed) == paths
    assert len({one.name for one in placed}) == len(paths)
    levels = found.split("/")[:-1]
    for one in placed:
        parts = one.path.split("/")
        assert one.class_name == parts[levels.index("class")]
        assert one.patient == (parts[levels.index("patient")] if "patient" in levels else "")
        assert one.path.endswith(one.name)
        assert one.name.endswith(f"{one.class_name}/{one.below}")
    assert len({one.split for one in chosen}) == 1
    if layout is None:  # nothing that could be a patient is taken for part of a name, unless images lie beside it
        deep = {len(one.below.split("/")) for one in placed}
        assert min(deep) == 1


def test_a_loaded_folder_is_read_once_and_says_so(tmp_path) -> None:
    root: Path = write_cells(tmp_path / "d", {"set/b": ["1.png"], "set/a": ["deep/2.png", "3.png"]})
    cells = cellscan.load_folder(root)
    assert cells.layout == "*/class/image"
    assert cells.names.tolist() == ["a/3.png", "a/deep/2.png", "b/1.png"]
