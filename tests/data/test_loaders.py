"""Folders, archives and TFDS sets."""

import io
import os
import pickle
import shutil
import sys
import threading
import urllib.error
import urllib.request
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import nih_name, random_image, run_python, write_cells
from PIL import Image

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
    with pytest.raises(cellscan.DataError, match="not a valid zip"):
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
    cells = cellscan.load_folder(root, patient=lambda name: name.rsplit("/", 1)[-1][:2])
    assert cells.class_names == ("a", "b")
    assert cells.names.tolist() == ["a/p2_c.png", "b/deep/p2_b.png", "b/p1_a.png"]
    assert cells.patients.tolist() == ["p2", "p2", "p1"]
    mapping = {"p2_c.png": "x", "deep/p2_b.png": "y", "b/p1_a.png": "z", "elsewhere.png": "w"}
    want = ["x", "y", "z"]
    assert cellscan.load_folder(root, patient=mapping).patients.tolist() == want
    assert cellscan.load_folder(root, patient=pandas.Series(mapping)).patients.tolist() == want  # type: ignore[arg-type]
    for delimiter, encoding in ((",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")):
        rows = [("Patient", "name"), *((patient, name.replace("/", "\\")) for name, patient in mapping.items())]
        (tmp_path / "p.csv").write_text("\r\n".join(map(delimiter.join, rows)), encoding=encoding)
        for table in (tmp_path / "p.csv", str(tmp_path / "p.csv")):
            assert cellscan.load_folder(root, patient=table).patients.tolist() == want
    assert not cellscan.load_folder(root).has_patients
    numbers = dict.fromkeys(mapping, 3.0) | {"p2_c.png": 3}
    assert set(cellscan.load_folder(root, patient=numbers).patients.tolist()) == {"3"}
    with pytest.raises(cellscan.DataError, match="gives None"):
        cellscan.load_folder(root, patient={"p2_c.png": "x"})
    for missing in ("", None, float("nan"), pandas.NA):
        with pytest.raises(cellscan.DataError, match=r"a/p2_c.png: `patient` gives"):
            cellscan.load_folder(root, patient=lambda name, missing=missing: missing)
    with pytest.raises(cellscan.DataError, match=r"a/p2_c.png: `patient` fails \(IndexError"):
        cellscan.load_folder(root, patient=lambda name: name.split("-")[1])
    with pytest.raises(cellscan.ArgumentError, match="patient is 3"):
        cellscan.load_folder(root, patient=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient\n", "gives None"), ("", "expected the header"),
        ("file,patient\na/1.png,p\n", "expected the header 'name,patient'"),
        ("name,patient\na/1.png,p\na/1.png,q\n", "twice"), ("name,patient\na/1.png,\nb/1.png,q\n", "gives ''"),
        ("name,patient\n1.png,p\n", "'1.png', which fits 2 cells: 'a/1.png', 'b/1.png'"),
    ],
)  # fmt: skip
def test_bad_files_of_patients(tmp_path, text, message) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png"], "b": ["1.png"]})
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(cellscan.DataError, match=message):
        cellscan.load_folder(root, patient=tmp_path / "p.csv")
    with pytest.raises(cellscan.DataError, match="cannot be read"):
        cellscan.load_folder(root, patient=tmp_path / "absent.csv")


def test_folders_of_patients(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"A": ["p1/1.png", "p1/2.png", "p2/1.png"], "B": ["p1/3.png"]})
    cells = cellscan.load_folder(root, patient=lambda name: name.split("/")[0])
    assert cells.patients.tolist() == ["p1", "p1", "p2", "p1"]


def test_a_name_means_one_cell(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {kind: ["0.png", "1.png"] for kind in ("Parasitized", "Uninfected")})
    for cells in (cellscan.load_folder(root), cellscan.load_malaria(root)):
        assert cells.names.tolist() == [
            "Parasitized/0.png",
            "Parasitized/1.png",
            "Uninfected/0.png",
            "Uninfected/1.png",
        ]
        assert len(cells.without(cells.names[:1])) == 3
        with pytest.raises(cellscan.DataError, match="'0.png' fits 2 cells: 'Parasitized/0.png', 'Uninfected/0.png'"):
            cells.without(["0.png"])


def test_files_that_are_not_read_are_named(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {"Parasitized": ["1.png"], "Uninfected": ["2.png"]})
    (root / "Uninfected" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (root / "patients.csv").write_text("name,patient\n1.png,a\n2.png,b\n")
    for load in (cellscan.load_folder, cellscan.load_malaria):
        with pytest.warns(UserWarning, match="2 files are not read: Uninfected/IMG_1.HEIC, patients.csv"):
            load(root)
    with pytest.warns(UserWarning, match="1 file is not read: Uninfected/IMG_1.HEIC"):
        cellscan.load_folder(root, patient=root / "patients.csv")
    archive = zipped(root, tmp_path / "d.zip", prefix="set")
    with pytest.warns(UserWarning, match=r"HEIC.*patients.csv"):
        cellscan.load_folder(archive)
    write_cells(root, {"Unsure": ["3.png"]})
    with pytest.warns(UserWarning, match=r"3 files are not read: Unsure/3.png"):
        cellscan.load_malaria(root)


def test_copies_are_told_by_their_content(tmp_path) -> None:
    root = tmp_path / "mtt"
    for part in ("train", "test"):
        write_cells(root / part, {"Parasitized": ["0.png", "1.png"], "Uninfected": ["0.png", "2.png"]})
    Image.fromarray(random_image(50)).save(root / "test" / "Parasitized" / "0.png")  # the rest are copies
    cells = cellscan.load_malaria(root)
    assert cells.names.tolist() == [
        "test/Parasitized/0.png", "train/Parasitized/0.png", "test/Parasitized/1.png", "test/Uninfected/0.png",
        "test/Uninfected/2.png",
    ]  # fmt: skip
    archive = zipped(root, tmp_path / "mtt.zip")
    assert cellscan.load_malaria(archive).hash() == cells.hash()


def test_archives_in_other_forms(tmp_path) -> None:
    whole = io.BytesIO()
    Image.fromarray(random_image(1)).save(whole, "PNG")

    def make(name: str, members: dict[str, bytes], more: dict[str, bytes] | None = None) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in [*members.items(), *(more or {}).items()]:
                info = zipfile.ZipInfo("x")
                info.filename = path
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, data)
        return tmp_path / name

    data = whole.getvalue()
    windows = {"c\\": b"", "c\\Parasitized\\1.png": data, "c\\Uninfected\\1.png": data}
    for cells in (cellscan.load_folder(make("w.zip", windows)), cellscan.load_malaria(make("w.zip", windows))):
        assert cells.names.tolist() == ["Parasitized/1.png", "Uninfected/1.png"]
        assert np.array_equal(cells[1].image, random_image(1))
    assert len(cellscan.load_folder(make("dot.zip", {"./A/1.png": data, "./B/1.png": data}))) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of two members of one name
        twice = make("same.zip", {"A/1.png": data, "B/1.png": data}, {"A/1.png": data})
        other = make("other.zip", {"A/1.png": data, "B/1.png": data}, {"A/1.png": data + b"x"})
    assert len(cellscan.load_folder(twice)) == 2
    with pytest.raises(cellscan.DataError, match="two members are named 'A/1.png'"):
        cellscan.load_folder(other)


def test_a_member_that_unpacks_to_too_much_is_never_unpacked(tmp_path, monkeypatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A/1.png", bytes(2**20))
        archive.writestr("B/1.png", b"x")
    monkeypatch.setattr("cellscan.data.archives.MEMBER_LIMIT", 2**20 - 1)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: b"")
    cells = cellscan.load_folder(tmp_path / "bomb.zip")
    with pytest.raises(cellscan.ImageError, match="1,048,576 bytes unpacked; the limit is"):
        _ = cells[0].image
    with pytest.raises(cellscan.ImageError, match="0 bytes"):
        _ = cells[1].image


def test_the_same_files_have_one_hash_wherever_they_lie(folder, tmp_path) -> None:
    cells = cellscan.load_malaria(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    again, archived = cellscan.load_malaria(copy), cellscan.load_malaria(zipped(folder, tmp_path / "c.zip"))
    assert cells.hash() == again.hash() == archived.hash()
    assert cells.fingerprint() == again.fingerprint() == archived.fingerprint()
    Image.fromarray(random_image(77)).save(copy / "Parasitized" / NAMES["Parasitized"][0])
    assert again.hash() != cells.hash()  # seen although it was hashed before
    assert again.hash(pixels=False) == cells.hash(pixels=False)
    (copy / "Parasitized" / NAMES["Parasitized"][0]).unlink()
    assert again.hash() != cells.hash()


def test_linked_class_folders_are_classes(tmp_path) -> None:
    elsewhere = write_cells(tmp_path / "elsewhere", {"x": ["0.png"]})
    root = write_cells(tmp_path / "d", {"Uninfected": ["0.png"], "Other": ["0.png"]})
    (root / "Parasitized").symlink_to(elsewhere / "x")
    assert cellscan.load_folder(root).class_names == ("Other", "Parasitized", "Uninfected")


@pytest.mark.skipif(sys.platform != "linux", reason="file names of other bytes")
def test_names_that_are_not_utf8(tmp_path) -> None:
    for kind in (b"A", b"B"):
        folder = os.path.join(os.fsencode(tmp_path), b"wn", kind)
        os.makedirs(folder)
        for number in (b"1", b"2"):
            with open(os.path.join(folder, b"caf\xe9" + number + b".png"), "wb") as file:
                Image.fromarray(random_image()).save(file, "PNG")
    cells = cellscan.load_folder(tmp_path / "wn", patient=lambda name: name[:5])
    assert cells.images(32).shape == (4, 32, 32, 3)
    assert len(cells.hash()) == 12
    assert len(cells.fingerprint()) == 64
    train, test = cells.split(test=0.5, by="cell")
    assert len(train) == len(test) == 2
    assert len(cells.without(cells.names[:1])) == 3
    names = [os.fsencode(name) for name in cells.names.tolist()]
    rows = b"".join(b"%b,p%d\n" % (name, number) for number, name in enumerate(names))
    (tmp_path / "p.csv").write_bytes(b"name,patient\n" + rows)
    other = cellscan.load_folder(tmp_path / "wn", patient=tmp_path / "p.csv")
    assert other.patients.tolist() == ["p0", "p1", "p2", "p3"]
    other.write_folds(tmp_path / "folds.csv", 2)
    assert set(other.fold_numbers(tmp_path / "folds.csv")) == {0, 1}


def test_sources_work_in_forked_processes_and_as_copies(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {kind: [f"{k}.png" for k in range(30)] for kind in "ab"})
    archive = zipped(root, tmp_path / "d.zip")
    code = f"""
import copy, multiprocessing as mp, pickle, numpy as np, cellscan
folder, cells = cellscan.load_folder({str(root)!r}), cellscan.load_folder({str(archive)!r})
want = [cell.image for cell in cells]
def work(i):
    try:
        return bool((cells[i].image == want[i]).all())
    except Exception as error:
        return repr(error)
if __name__ == "__main__":
    with mp.get_context("fork").Pool(4) as pool:
        print(set(pool.map(work, list(range(60)) * 5, chunksize=1)))
    for data in (folder, cells, cellscan.CellDataset.from_arrays(want, cells.labels)):
        for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
            assert other.fingerprint() == data.fingerprint()
            assert (other[3].image == want[3]).all() and (other.images(16)[:] == data.images(16)[:]).all()
            assert not (other.labels.flags.writeable or other.names.flags.writeable or other[3].image.flags.writeable)
"""
    assert run_python(code) == "{True}"


@pytest.mark.parametrize("odd", [3, None, "", b"x", [], {}, 1.5])
def test_odd_paths(odd) -> None:
    with pytest.raises(cellscan.CellscanError):
        cellscan.load_folder(odd)
    if odd is not None:
        with pytest.raises(cellscan.CellscanError):
            cellscan.load_malaria(odd)


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
    assert direct.hash() == want.hash()
    other = pickle.loads(pickle.dumps(direct))
    assert np.array_equal(other[row].image, want[0].image)

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


def check_steps(error: cellscan.DataError, folder: Path) -> None:
    from cellscan.data import _malaria_builder as malaria_builder

    text = str(error)
    for part in (malaria_builder.URL, malaria_builder.SHA256, "353,452,851 bytes", "1. ", "2. ", "3. "):
        assert part in text
    assert str(folder / "downloads" / "manual" / "cell_images.zip") in text


@pytest.mark.skipif(sys.platform != "linux", reason="array_record has wheels for Linux only")
def test_where_the_download_fails_the_steps_are_listed(tmp_path, monkeypatch) -> None:
    def offline(self, url):
        raise OSError("no route to host")

    monkeypatch.setattr("cellscan.data._malaria_builder._is_reachable", lambda url: True)
    monkeypatch.setattr("tensorflow_datasets.core.download.DownloadManager.download", offline)
    with pytest.raises(cellscan.DataError, match="no route to host") as caught:
        cellscan.load_malaria(data_dir=tmp_path)
    check_steps(caught.value, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="array_record has wheels for Linux only")
def test_without_a_network_nothing_is_tried_twice(tmp_path, monkeypatch, capfd) -> None:
    asked = []

    def unknown(request, timeout):
        asked.append(request.full_url)
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    def tried(self, url):
        raise AssertionError

    monkeypatch.setattr("urllib.request.urlopen", unknown)
    monkeypatch.setattr("tensorflow_datasets.core.download.DownloadManager.download", tried)
    with pytest.raises(cellscan.DataError, match="cannot be reached") as caught:
        cellscan.load_malaria(data_dir=tmp_path)
    check_steps(caught.value, tmp_path)
    assert len(asked) == 1
    assert "Retrying" not in "".join(capfd.readouterr())


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch) -> None:
    from cellscan.data import _malaria_builder as malaria_builder

    gate = threading.Event()

    def silent(request, timeout):
        gate.wait(60)
        raise TimeoutError

    monkeypatch.setattr("urllib.request.urlopen", silent)
    assert not malaria_builder._is_reachable(malaria_builder.URL, seconds=0.1)
    gate.set()

    def refuses(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 405, "Method Not Allowed", None, None)  # type: ignore[arg-type]

    monkeypatch.setattr("urllib.request.urlopen", refuses)
    assert malaria_builder._is_reachable(malaria_builder.URL)  # it answers


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
