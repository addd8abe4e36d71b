"""Folders, archives and TFDS sets."""

import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import nih_name, run_python, write_cells

import cellscan

NAMES = {
    "Parasitized": [nih_name(1, 1), nih_name(2, 2)],
    "Uninfected": [nih_name(1, 3), nih_name(2, 4), "C13NThinF_IMG_20150614_131314_cell_5.png"],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    root = write_cells(tmp_path / "cell_images", NAMES)
    for name in NAMES:
        (root / name / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (root / name / ".DS_Store").write_bytes(b"x")
    return root


def zipped(folder: Path, target: Path, prefix: str = "cell_images", copies: tuple[str, ...] = ("",)) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for copy in copies:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, f"{prefix}/{copy}{file.relative_to(folder).as_posix()}")
        archive.writestr("__MACOSX/cell_images/Parasitized/._x.png", b"resource fork")
    return target


def check(cells: cellscan.CellDataset) -> None:
    assert cells.class_names == ("parasitized", "uninfected")
    assert sorted(cells.names.tolist()) == sorted(NAMES["Parasitized"] + NAMES["Uninfected"])
    for name, label, patient in zip(cells.names, cells.labels, cells.patients, strict=True):
        assert (name in NAMES["Parasitized"]) == (label == 0)
        assert patient == {"C1P": "C1", "C2P": "C2", "C13": "C13"}[name[:3]]


def test_folder_archive_and_parent_agree(folder, tmp_path) -> None:
    archive = zipped(folder, tmp_path / "cell_images.zip")
    sets = [cellscan.load_malaria(source) for source in (folder, archive, str(archive), folder.parent / "cell_images")]
    for cells in sets:
        check(cells)
        assert np.array_equal(cells.images(16)[:], sets[0].images(16)[:])
        assert np.array_equal(cells[0].image, sets[0][0].image)
    assert sets[1].describe().formats == {"PNG": 5}


def test_kaggles_nested_copy_counts_once(folder, tmp_path) -> None:
    archive = zipped(folder, tmp_path / "kaggle.zip", copies=("", "cell_images/"))
    check(cellscan.load_malaria(archive))
    shutil.copytree(folder, folder / "cell_images")
    check(cellscan.load_malaria(folder))


def test_mapping_files(folder, tmp_path) -> None:
    file = tmp_path / "map.csv"
    rows = [*NAMES["Parasitized"], *NAMES["Uninfected"]]
    file.write_text("".join(f"{name.split('_IMG')[0]},['{name}'],,,\n" for name in rows))
    check(cellscan.load_malaria(folder, patient_files=[file]))


def test_what_is_no_malaria_set(tmp_path) -> None:
    root = write_cells(tmp_path / "x", {"dogs": ["1.png"], "Uninfected": ["2.png"]})
    with pytest.raises(cellscan.DataError, match="Parasitized and Uninfected"):
        cellscan.load_malaria(root)
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    with pytest.raises(cellscan.DataError, match="no whole zip"):
        cellscan.load_malaria(tmp_path / "bad.zip")
    with pytest.raises(cellscan.DataError, match="no such folder or archive"):
        cellscan.load_malaria(tmp_path / "absent.zip")


def test_a_damaged_member_is_one_bad_image(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CELLSCAN_CACHE", str(tmp_path / "cache"))  # the whole archive has the same CRCs
    archive = zipped(folder, tmp_path / "c.zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = next(m for m in opened.infolist() if m.filename.endswith(NAMES["Parasitized"][0]))
    content[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(cellscan.ImageError, match="1 of 5 images"):
        cellscan.load_malaria(archive).images(16)


def test_load_folder_forms_of_patient(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"b": ["p1_a.png", "deep/p2_b.png"], "a": ["p2_c.png"]})
    cells = cellscan.load_folder(root, patient=lambda name: name[:2])
    assert cells.class_names == ("a", "b")
    assert cells.names.tolist() == ["p2_c.png", "deep/p2_b.png", "p1_a.png"]
    assert cells.patients.tolist() == ["p2", "p2", "p1"]
    mapping = {"p2_c.png": "x", "deep/p2_b.png": "y", "p1_a.png": "z"}
    assert cellscan.load_folder(root, patient=mapping).patients.tolist() == ["x", "y", "z"]
    assert not cellscan.load_folder(root).has_patients
    with pytest.raises(cellscan.DataError, match="gives None"):
        cellscan.load_folder(root, patient={"p2_c.png": "x"})
    with pytest.raises(cellscan.DataError, match="gives ''"):
        cellscan.load_folder(root, patient=lambda name: "")


def test_load_folder_from_an_archive_with_one_folder_around(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"b": ["1.png"], "a": ["2.png"]})
    archive = zipped(root, tmp_path / "d.zip", prefix="set")
    assert cellscan.load_folder(archive).class_names == ("a", "b")


def test_bad_folders(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(cellscan.DataError, match="there are no images"):
        cellscan.load_folder(tmp_path / "empty")
    root = write_cells(tmp_path / "d", {"b": ["1.png"], ".": ["stray.png"]})
    with pytest.raises(cellscan.DataError, match="stray.png"):
        cellscan.load_folder(root)


TFDS = """
import sys, cellscan
cells = cellscan.load_malaria(data_dir=sys.argv[1] if len(sys.argv) > 1 else {data!r})
print(cells)
print(sorted(zip(cells.names.tolist(), cells.labels.tolist(), cells.patients.tolist())))
print(cells.images(16).shape, "tensorflow" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="array_record has wheels for Linux only")
def test_tfds_road_end_to_end(folder, tmp_path) -> None:
    data = tmp_path / "tfds"
    manual = data / "downloads" / "manual"
    manual.mkdir(parents=True)
    zipped(folder, manual / "cell_images.zip")
    first = "\n".join(run_python(TFDS.format(data=str(data))).splitlines()[-3:])  # above it TFDS speaks
    assert first.splitlines()[0] == "5 cells of 3 patients: parasitized 2, uninfected 3"
    assert first.splitlines()[2] == "(5, 16, 16, 3) False"
    assert all(name in first for names in NAMES.values() for name in names)
    (manual / "cell_images.zip").unlink()
    assert run_python(TFDS.format(data=str(data))) == first  # prepared once, read again without the archive
    prepared = data / "cellscan_malaria" / "1.0.0"
    direct = cellscan.load_malaria(prepared)
    assert sorted(set(direct.patients)) == ["C1", "C13", "C2"]
    want = cellscan.load_malaria(folder)
    row = direct.names.tolist().index(want.names[0])
    assert np.array_equal(direct[row].image, want[0].image)

    info = prepared / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(cellscan.DataError, match="array_record"):
        cellscan.load_malaria(prepared)


STOCK = """
import sys, numpy as np, tensorflow_datasets as tfds

class Malaria(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        features = {{"image": tfds.features.Image(shape=(None, None, 3)),
                     "label": tfds.features.ClassLabel(names=["parasitized", "uninfected"])}}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
    def _split_generators(self, dl_manager):
        return {{"train": self._generate_examples()}}
    def _generate_examples(self):
        import io
        from PIL import Image
        for i in range(4):
            out = io.BytesIO()
            Image.fromarray(np.full((9, 9, 3), 40 * i, np.uint8)).save(out, "PNG")
            out.seek(0)
            yield i, {{"image": out, "label": i % 2}}

Malaria(data_dir={data!r}, file_format="array_record").download_and_prepare()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="array_record has wheels for Linux only")
def test_a_stock_set_is_read_without_patients(tmp_path) -> None:
    run_python(STOCK.format(data=str(tmp_path)))
    cells = cellscan.load_malaria(tmp_path / "malaria" / "1.0.0")
    assert (len(cells), cells.has_patients) == (4, False)
    assert np.bincount(cells.labels).tolist() == [2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="array_record has wheels for Linux only")
def test_without_a_network_the_steps_are_listed(tmp_path, monkeypatch) -> None:
    from cellscan.data import _malaria_builder as malaria_builder

    def offline(self, url):
        raise OSError("no route to host")

    monkeypatch.setattr("tensorflow_datasets.core.download.DownloadManager.download", offline)
    with pytest.raises(cellscan.DataError) as caught:
        cellscan.load_malaria(data_dir=tmp_path)
    text = str(caught.value)
    for part in (malaria_builder.URL, malaria_builder.SHA256, "353,452,851 bytes", "1. ", "2. ", "3. "):
        assert part in text
    assert str(tmp_path / "downloads" / "manual" / "cell_images.zip") in text


def test_without_array_record_the_archive_road_is_named(monkeypatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "array_record" else found(name, *a)
    )
    with pytest.raises(cellscan.DataError, match=r'load_malaria\("cell_images.zip"\)'):
        cellscan.load_malaria()


def test_checksums_agree_with_the_steps() -> None:
    from cellscan.data import _malaria_builder as malaria_builder

    file = Path(malaria_builder.__file__).with_name("checksums.tsv").read_text().split()
    assert file == [malaria_builder.URL, str(malaria_builder.SIZE), malaria_builder.SHA256, "cell_images.zip"]
