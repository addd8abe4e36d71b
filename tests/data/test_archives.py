"""Zip and tar archives give the same cells, in any order, and nothing that is damaged or hostile is trusted."""

import io
import pickle
import stat
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import random_image, run_python, write_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cellscan
from cellscan.data import archives
from cellscan.data.archives import TarSource

ENDINGS = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz")
PACKED = ENDINGS[2:]


def png(seed: int = 1) -> bytes:
    whole = io.BytesIO()
    Image.fromarray(random_image(seed, 12, 10)).save(whole, "PNG")
    return whole.getvalue()


def mode_of(path: Path) -> str:
    ending = path.name.rsplit(".", 1)[-1]
    return {"tar": "w", "tgz": "w:gz", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}[ending]


def pack(path: Path, members: Sequence[tuple[str, bytes]], links: Sequence[tuple[str, str]] = ()) -> Path:
    """Write an archive of the kind that its name says, with symbolic links to what is named."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, data in members:
                info = zipfile.ZipInfo("x")
                info.filename = name
                opened.writestr(info, data)
            for name, target in links:
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                opened.writestr(info, target)
        return path
    with tarfile.open(path, mode_of(path)) as opened:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            opened.addfile(info)
    return path


TREE = [("A/1.png", png(1)), ("A/deep/2.png", png(2)), ("B/1.png", png(3)), ("B/4.png", png(4))]


def test_every_archive_is_the_folder(tmp_path) -> None:
    for name, data in TREE:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    want = cellscan.load_folder(tmp_path / "d")
    for ending in ENDINGS:
        cells = cellscan.load_folder(pack(tmp_path / f"c.{ending}", [*TREE, (".DS_Store", b"x"), ("A/Thumbs.db", b"")]))
        assert cells.names.tolist() == want.names.tolist()
        assert cells.labels.tolist() == want.labels.tolist()
        assert cells.fingerprint() == want.fingerprint()
        assert cells.hash() == want.hash()
        for row in (3, 0, 2, 1):
            assert np.array_equal(cells[row].image, want[row].image)
        assert np.array_equal(cells.images(16)[:], want.images(16)[:])
        assert cells.describe() == want.describe()


NAMES = st.lists(
    st.tuples(st.sampled_from(["A", "B", "c"]), st.sampled_from(["", "p1/", "p2/x/"]), st.integers(0, 9)),
    min_size=1, max_size=8, unique=True,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(names=NAMES, around=st.sampled_from(["", "./", "set/"]), ending=st.sampled_from(ENDINGS), slashes=st.booleans())
def test_any_tree_is_the_same_in_every_archive(tmp_path_factory, names, around, ending, slashes) -> None:
    folder = tmp_path_factory.mktemp("any")
    members = [(f"{around}{a}/{b}{number}.png", png(number)) for a, b, number in names]
    written = [(name.replace("/", "\\") if slashes else name, data) for name, data in members]
    (folder / "d").mkdir()
    for name, data in members:
        (folder / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "d" / name).write_bytes(data)

    def load(path: Path) -> cellscan.CellDataset | str:
        try:
            return cellscan.load_folder(path)
        except cellscan.DataError as error:
            return str(error).split(": ", 1)[1]

    want, got = load(folder / "d"), load(pack(folder / f"c.{ending}", written))
    if isinstance(want, str) or isinstance(got, str):
        assert want == got
        return
    assert got.names.tolist() == want.names.tolist()
    assert got.fingerprint() == want.fingerprint()


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_names_and_copies_are_treated_alike(tmp_path, ending) -> None:
    path = tmp_path / f"c.{ending}"
    windows = [("c\\A\\1.png", png(1)), ("c\\B\\1.png", png(2))]
    assert cellscan.load_folder(pack(path, windows)).names.tolist() == ["A/1.png", "B/1.png"]
    with pytest.raises(cellscan.DataError, match=r"'A/../../x.png' leads out of the archive"):
        cellscan.load_folder(pack(path, [*TREE, ("A/../../x.png", png())]))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of two members of one name
        again = pack(path, [*TREE, ("./A/1.png", png(1))])
        assert len(cellscan.load_folder(again)) == 4
        with pytest.raises(cellscan.DataError, match="two members are named 'A/1.png' and differ"):
            cellscan.load_folder(pack(path, [*TREE, ("./A/1.png", png(9))]))
        with pytest.raises(cellscan.DataError, match="two members are named 'A/1.png' and differ"):
            cellscan.load_folder(pack(path, TREE, [("A/1.png", "../B/1.png")]))
    with pytest.warns(UserWarning, match=r"1 file is not read: A/notes.txt"):
        cellscan.load_folder(pack(path, [*TREE, ("A/notes.txt", b"x")]))
    with pytest.raises(cellscan.DataError, match="there are no images"):
        cellscan.load_folder(pack(path, []))


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_links_lead_to_members_or_are_named(tmp_path, ending) -> None:
    path = tmp_path / f"c.{ending}"
    links = [("A/5.png", "../B/1.png"), ("A/6.png", "5.png"), ("C", "./B"), ("B/loop", "../B")]
    cells = cellscan.load_folder(pack(path, TREE, links))
    assert cells.names.tolist() == [
        "A/1.png", "A/5.png", "A/6.png", "A/deep/2.png", "B/1.png", "B/4.png", "C/1.png", "C/4.png",
    ]  # fmt: skip
    for row in (1, 2, 6):
        assert np.array_equal(cells[row].image, cells[4].image)
    for target in ("/etc/hostname", "../../1.png", "absent.png", "7.png"):
        with pytest.warns(UserWarning, match=r"A/7.png \(a link to"):
            assert len(cellscan.load_folder(pack(path, TREE, [("A/7.png", target)]))) == 4


def test_hard_links_devices_and_sparse_files(tmp_path) -> None:
    with tarfile.open(tmp_path / "c.tar", "w") as opened:
        for name, data in TREE:
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
        for name, kind, target in (("B/9.png", tarfile.LNKTYPE, "./A/1.png"), ("B/fifo.png", tarfile.FIFOTYPE, "")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            opened.addfile(info)
    with pytest.warns(UserWarning, match=r"1 file is not read: B/fifo.png \(no file\)"):
        cells = cellscan.load_folder(tmp_path / "c.tar")
    assert np.array_equal(cells[4].image, cells[0].image)
    assert cells.names[4] == "B/9.png"


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_that_breaks_off_is_refused(tmp_path, ending) -> None:
    whole = pack(tmp_path / f"c.{ending}", TREE).read_bytes()
    path = tmp_path / f"cut.{ending}"
    for length in (2000, 4096) if ending == "tar" else (len(whole) // 2, len(whole) - 12):  # zeros may follow a tar
        path.write_bytes(whole[:length])
        with pytest.raises(cellscan.DataError, match=r"not a valid (zip|tar) archive .*complete\?"):
            cellscan.load_folder(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(cellscan.DataError, match="not a valid (zip|tar)"):
        cellscan.load_folder(path)


def test_a_tar_whose_headers_are_damaged_loses_no_cells_in_silence(tmp_path) -> None:
    whole = bytearray(pack(tmp_path / "c.tar", TREE).read_bytes())
    with tarfile.open(tmp_path / "c.tar") as opened:
        header = opened.getmembers()[2].offset
    whole[header + 150] ^= 0xFF
    (tmp_path / "c.tar").write_bytes(whole)
    with pytest.raises(cellscan.DataError, match="breaks off, or its headers are damaged"):
        cellscan.load_folder(tmp_path / "c.tar")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ending=st.sampled_from(["tar", "tgz", "tar.xz", "zip"]))
def test_damaged_archives_give_the_cells_or_an_error(tmp_path_factory, data, ending) -> None:
    folder = tmp_path_factory.mktemp("damage")
    want = {name: random_image(seed, 12, 10) for seed, (name, _) in enumerate(TREE, 1)}
    path = pack(folder / f"c.{ending}", TREE)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cells = cellscan.load_folder(path)
            found = {cell.name: cell.image for cell in cells}
        except cellscan.CellscanError:
            return
    if ending != "tar":  # a tar has no checksum of its contents
        assert all(np.array_equal(image, want[name]) for name, image in found.items() if name in want)


def test_sizes_are_bounded_before_anything_is_unpacked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 2**16 - 1)
    for ending in ("tar", "tgz"):
        cells = cellscan.load_folder(pack(tmp_path / f"c.{ending}", [*TREE, ("B/big.png", bytes(2**16))]))
        with pytest.raises(cellscan.ImageError, match="65,536 bytes unpacked; the limit is 65,535"):
            _ = cells[4].image
        assert np.array_equal(cells[0].image, random_image(1, 12, 10))
    monkeypatch.setattr(archives, "_HEADER_LIMIT", 2**12)
    with tarfile.open(tmp_path / "h.tgz", "w:gz", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo("A/" + "x" * 2**14 + ".png")
        opened.addfile(info)
    with pytest.raises(cellscan.DataError, match=r"a header of 1\d,\d+ bytes; the limit is 4,096"):
        cellscan.load_folder(tmp_path / "h.tgz")


@pytest.mark.parametrize("ending", ["tar", "tgz"])
def test_an_archive_that_changes_is_not_read_by_old_offsets(tmp_path, ending) -> None:
    path = pack(tmp_path / f"c.{ending}", TREE)
    cells = cellscan.load_folder(path)
    assert cells[0].image.shape == (12, 10, 3)
    time.sleep(0.02)
    pack(path, TREE[::-1])
    with pytest.raises(cellscan.ImageError, match="changed after it was listed"):
        _ = cells[0].image
    path.unlink()
    with pytest.raises(cellscan.ImageError, match="no longer exists"):
        _ = cells[0].image


def test_a_compressed_tar_is_unpacked_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CELLSCAN_CACHE", str(tmp_path / "cache"))
    path, read = pack(tmp_path / "c.tgz", TREE), []
    pieces = archives.TarReader._pieces
    monkeypatch.setattr(archives.TarReader, "_pieces", lambda self: (read.append(1), pieces(self))[1])
    cells = cellscan.load_folder(path)
    assert not read
    assert not (tmp_path / "cache").exists()
    for other in (cells, cellscan.load_folder(path), pickle.loads(pickle.dumps(cells))):
        assert [cell.image.shape for cell in other] == [(12, 10, 3)] * 4
        assert other.fingerprint() == cells.fingerprint()
    assert len(read) == 1
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.suffix == ".members"
    damaged = bytearray(kept.read_bytes())
    damaged[5] ^= 1
    kept.write_bytes(damaged)  # as a disk may
    again = cellscan.load_folder(path)
    assert np.array_equal(again[0].image, random_image(1, 12, 10))
    assert len(read) == 2
    assert cellscan.clear_cache() > 0
    assert not list((tmp_path / "cache").iterdir())


def test_reading_in_any_order_is_not_quadratic(tmp_path) -> None:
    count = 400
    path = pack(tmp_path / "c.tar.gz", [(f"{'AB'[k % 2]}/{k}.png", png(k)) for k in range(count)])
    cells = cellscan.load_folder(path)
    opened = []
    real = archives._unpacked
    archives._unpacked = lambda *args: (opened.append(1), real(*args))[1]
    try:
        for row in np.random.default_rng(0).permutation(count):
            assert cells[int(row)].image.shape == (12, 10, 3)
    finally:
        archives._unpacked = real
    assert len(opened) <= 1
    source = cells._sources[0]
    assert isinstance(source, TarSource)


def test_tars_work_in_forked_processes_and_as_copies(tmp_path) -> None:
    root = write_cells(tmp_path / "d", {kind: [f"{k}.png" for k in range(30)] for kind in "ab"})
    for ending in ("tar", "tgz"):
        with tarfile.open(tmp_path / f"d.{ending}", mode_of(tmp_path / f"d.{ending}")) as opened:  # type: ignore[call-overload]
            opened.add(root, "d")
    code = f"""
import copy, multiprocessing as mp, pickle, threading, numpy as np, cellscan
folder = cellscan.load_folder({str(root)!r})
sets = [cellscan.load_folder({str(tmp_path / "d.")!r} + ending) for ending in ("tar", "tgz")]
want = [cell.image for cell in folder]
def work(job):
    number, i = job
    return bool((sets[number][i].image == want[i]).all())
if __name__ == "__main__":
    jobs = [(number, i) for number in (0, 1) for i in range(60)]
    with mp.get_context("fork").Pool(4) as pool:
        print(set(pool.map(work, jobs, chunksize=1)))
    for data in sets:
        for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
            assert other.fingerprint() == folder.fingerprint()
            assert (other[3].image == want[3]).all() and (other.images(16)[:] == folder.images(16)[:]).all()
"""
    assert run_python(code) == "{True}"


def test_the_malaria_set_in_a_tar(tmp_path) -> None:
    names = ("C1P11ThinF_IMG_20150918_144104_cell_1.png", "C2P12ThinF_IMG_20150918_144104_cell_2.png")
    members = [
        (f"cell_images/{copy}{kind}/{name}", png(k))
        for copy in ("", "cell_images/")
        for k, (kind, name) in enumerate(zip(("Parasitized", "Uninfected"), names, strict=True))
    ]
    cells = cellscan.load_malaria(pack(tmp_path / "cell_images.tar.gz", members))
    assert cells.patients.tolist() == ["C1", "C2"]
