"""The memory map: built once, shared, verified, and never trusted half-written."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import random_image, run_python, write_cells
from PIL import Image, ImageFile

import cellscan
from cellscan.data.cache import cache_folder
from cellscan.data.images import read_rgb


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CELLSCAN_CACHE", str(folder))
    return folder


def load(root):
    return cellscan.load_folder(root)


def test_images_equal_read_rgb_and_are_read_only(tmp_path, cache) -> None:
    cells = load(write_cells(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["3.png"]}))
    pixels = cells.images(32)
    assert pixels.shape == (3, 32, 32, 3)
    for i in range(3):
        assert np.array_equal(pixels[i], read_rgb(cells[i].image, 32))
    for part in (pixels[0], pixels[:2], np.asarray(pixels)):
        with pytest.raises(ValueError, match="read-only"):
            part[...] = 0


def test_indexing_agrees_with_numpy(cache) -> None:
    cells = cellscan.synthetic_cells(20, seed=0)
    both = cellscan.concat([cells, cellscan.synthetic_cells(12, seed=1)])
    for data in (cells, both, both.select([30, 2, 7, 7, 0])):
        pixels = data.images(16)
        whole = np.asarray(pixels)
        keys = (0, -1, slice(1, 4), slice(None, None, -2), [3, 1, 1], np.array([True, False] * len(data))[: len(data)])
        for key in (*keys, (slice(0, 3), slice(2, 5)), (1, 2, 3), (slice(None), 0, 0, 0)):
            assert np.array_equal(pixels[key], whole[key]), key
        assert np.array_equal(np.stack(list(pixels)), whole)
        assert np.asarray(pixels, np.float32).dtype == np.float32
    with pytest.raises(IndexError):
        cells.images(16)[99]


@pytest.fixture
def on_disk(monkeypatch):
    """Keep the pixels of small sets of arrays in the folder too."""
    monkeypatch.setattr("cellscan.data.pixels.SMALL", 0)


def maps(folder) -> list:
    return sorted(folder.glob("*.pixels"))


def test_small_sets_of_arrays_stay_in_memory(cache) -> None:
    for seed in range(3):
        cells = cellscan.synthetic_cells(8, seed=seed)
        pixels = cells.images(16)
        assert np.array_equal(pixels[0], read_rgb(cells[0].image, 16))
        with pytest.raises(ValueError, match="read-only"):
            pixels[0][...] = 0
        assert cells.select([1]).images(16)[0].base is pixels[1].base  # parts share them
    assert not cache.exists()


def test_splits_share_one_map(cache, on_disk) -> None:
    cells = cellscan.synthetic_cells(40, seed=0)
    train, test = cells.split(test=0.25, seed=0)
    whole = np.asarray(cells.images(16))
    for part in (train, test):
        rows = [cells.names.tolist().index(name) for name in part.names]
        assert np.array_equal(part.images(16)[:], whole[rows])
    assert len(maps(cache)) == 1


def test_a_changed_file_is_seen(tmp_path, cache) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png"], "b": ["2.png"]})
    before = load(root).images(16)[0].copy()
    Image.fromarray(random_image(99)).save(root / "a" / "1.png")
    assert not np.array_equal(load(root).images(16)[0], before)


def test_a_map_that_does_not_hold_what_was_written_is_made_anew(cache, on_disk) -> None:
    cells = cellscan.synthetic_cells(16, seed=0)
    want = np.asarray(cells.images(16)).copy()
    (path,) = maps(cache)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    tail = bytearray(whole)
    tail[-20] ^= 1
    for content in (
        whole[:-1],
        whole[: len(whole) // 2],
        b"",
        b"x" * 500,
        b"x" * len(whole),
        bytes(flipped),
        bytes(tail),
    ):
        path.unlink()
        path.write_bytes(content)
        assert np.array_equal(cells.images(16)[:], want)
        assert path.read_bytes() == whole
    with open(path, "r+b") as file:  # in place, as a disk does
        file.seek(1000)
        file.write(bytes([whole[1000] ^ 255]))
    assert np.array_equal(cells.images(16)[:], want)


def test_bad_images_are_named_and_can_be_left_out(tmp_path, cache) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["3.png"]})
    (root / "a" / "broken.png").write_bytes(b"not an image")
    cells = load(root)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(cellscan.ImageError, match="1 of 4 images cannot be read") as caught:
            cells.images(16)
        assert "broken.png" in str(caught.value)
        assert "cells.select(~np.isin(np.arange(len(cells)), [2]))" in str(caught.value)
    good = cells.select(~np.isin(np.arange(len(cells)), [2]))
    assert good.images(16).shape == (3, 16, 16, 3)
    assert cells.describe().unreadable == 1


def test_failures_are_not_kept(tmp_path, cache) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["3.png"]})
    image = random_image(7)
    Image.fromarray(image).save(root / "a" / "1.jpg", quality=95)
    whole = (root / "a" / "1.jpg").read_bytes()
    (root / "a" / "1.jpg").write_bytes(whole[:-300])
    cells = load(root)
    _, bad = cells.open_pixels(16)
    assert list(bad) == [0]
    before = {path.name: path.read_bytes() for path in maps(cache)}
    _, bad = cells.open_pixels(16)
    assert list(bad) == [0]
    assert {path.name: path.read_bytes() for path in maps(cache)} == before  # tried again, not written again
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        pixels, bad = cells.open_pixels(16)
        assert not bad
        assert np.array_equal(pixels[0], read_rgb(root / "a" / "1.jpg", 16))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    assert np.array_equal(pixels[1:], [read_rgb(cells[i].image, 16) for i in (1, 2, 3)])


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError()])
def test_a_hiccup_while_decoding_is_no_failure_of_an_image(tmp_path, cache, monkeypatch, error) -> None:
    from cellscan.data.sources import FileSource

    cells = load(write_cells(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["3.png"]}))
    read, left = FileSource.read, [1]

    def failing(self, row, size=None):
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return read(self, row, size)

    monkeypatch.setattr(FileSource, "read", failing)
    pixels = cells.images(16)
    assert all(np.array_equal(pixels[i], read_rgb(cells[i].image, 16)) for i in range(3))
    cellscan.clear_cache()
    left[0] = 100
    with pytest.raises(cellscan.DataError, match="the machine failed"):
        cells.open_pixels(16)
    assert not list(cache.iterdir())


def test_a_vanished_file_is_one_failure(tmp_path, cache) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png", "2.png"], "b": ["3.png"]})
    cells = load(root)
    (root / "a" / "1.png").unlink()
    pixels, bad = cells.open_pixels(16)
    assert list(bad) == [0]
    assert "no such file" in bad[0]
    assert np.array_equal(pixels[1], read_rgb(root / "a" / "2.png", 16))
    with pytest.raises(cellscan.ImageError, match="1 of 3"):
        cells.images(16)


def test_files_that_change_while_they_are_read_leave_no_map(tmp_path, cache, monkeypatch) -> None:
    from cellscan.data.sources import FileSource

    root = write_cells(tmp_path / "d", {"a": ["1.png"], "b": ["2.png"]})
    cells, read, seeds = load(root), FileSource.read, iter(range(10, 100))

    def changing(self, row, size=None):
        found = read(self, row, size)
        Image.fromarray(random_image(next(seeds))).save(self.paths[row])
        return found

    monkeypatch.setattr(FileSource, "read", changing)
    with pytest.raises(cellscan.DataError, match="changed three times while they were read"):
        cells.images(16)
    assert not maps(cache)


def test_equal_paths_sizes_and_times_are_not_equal_files(tmp_path, cache, monkeypatch) -> None:
    seen = []
    for project, grey in (("p1", 10), ("p2", 200)):
        for kind in "ab":
            path = tmp_path / project / "data" / kind / "1.bmp"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (64, 48), (grey,) * 3).save(path)
            os.utime(path, (1e9, 1e9))  # as unpacking restores
        monkeypatch.chdir(tmp_path / project)
        seen.append(int(load("data").images(16)[0].mean()))
    assert seen == [10, 200]
    path = tmp_path / "p2" / "data" / "a" / "1.bmp"
    Image.new("RGB", (64, 48), (90,) * 3).save(path)
    os.utime(path, (1e9, 1e9))
    cells = load("data")
    assert int(cells.images(16)[0].mean()) == 90
    monkeypatch.chdir(tmp_path)
    assert cells[0].image.mean() == 90  # found after the working folder changed


def test_a_killed_build_leaves_nothing_that_is_trusted(tmp_path, cache, on_disk) -> None:
    code = """
import numpy as np, os, signal, cellscan
from cellscan.data import pixels, sources
pixels.SMALL = 0
cells = cellscan.synthetic_cells(64, seed=0)
read, seen = sources.ArraySource.read, []
def slow(self, row, size=None):
    seen.append(row)
    if len(seen) == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, row, size)
sources.ArraySource.read = slow
cells.images(16)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "CELLSCAN_CACHE": str(cache)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(cache.glob("*.part"))) == 1
    assert not maps(cache)
    cells = cellscan.synthetic_cells(64, seed=0)
    assert np.array_equal(cells.images(16)[63], read_rgb(cells[63].image, 16))
    assert not list(cache.glob("*.part"))  # its writer is dead: removed at once


def test_only_what_nobody_writes_is_swept(cache, on_disk) -> None:
    cache.mkdir()
    left, written = (cache / f"{digit * 32}-16.pixels.1-ab.part" for digit in "ab")
    foreign = cache / "film.mkv.part", cache / "mine.npy", cache / "notes.txt"
    for path in (left, written, *foreign):
        path.write_bytes(b"x")
    with open(written, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cellscan.synthetic_cells(8, seed=0).images(16)
        assert not left.exists()
        assert written.exists()
        assert cellscan.clear_cache() > 8 * 16 * 16 * 3
        assert written.exists()
    assert not maps(cache)
    assert all(path.exists() for path in foreign)


def test_the_folder_has_a_limit_and_old_maps_go_first(cache, on_disk, monkeypatch) -> None:
    sets, paths = [cellscan.synthetic_cells(8, seed=seed) for seed in range(4)], []
    for number, cells in enumerate(sets[:3]):
        cells.images(16)
        (path,) = set(maps(cache)) - set(paths)
        os.utime(path, (1e9 + number, 1e9 + number))
        paths.append(path)
    used = sets[0].images(16)  # no longer the one that was not used for longest
    monkeypatch.setenv("CELLSCAN_CACHE_LIMIT", str(3.2 * 8 * 16 * 16 * 3 / 1e9))
    sets[3].images(16)
    assert [path.exists() for path in paths] == [True, False, True]
    monkeypatch.setenv("CELLSCAN_CACHE_LIMIT", "0")
    sets[1].images(16)  # one that is asked for is kept, whatever the limit
    assert len(maps(cache)) == 1
    assert np.array_equal(used[0], read_rgb(sets[0][0].image, 16))  # what is open stays
    monkeypatch.setenv("CELLSCAN_CACHE_LIMIT", "much")
    with pytest.raises(cellscan.ArgumentError, match="CELLSCAN_CACHE_LIMIT is 'much'"):
        sets[2].images(16)


def test_a_full_disk_is_an_error_before_anything_is_decoded(cache, on_disk, monkeypatch) -> None:
    cells = cellscan.synthetic_cells(8, seed=0)

    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    def touched(*args):
        raise AssertionError

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr("cellscan.data.pixels._read", touched)
    with pytest.raises(cellscan.DataError, match=r"No space left.*clear_cache"):
        cells.images(16)
    assert not list(cache.iterdir())


def test_a_disk_that_fills_up_while_it_is_written_is_an_error(tmp_path) -> None:
    code = """
import os, resource, signal, cellscan
from cellscan.data import pixels
pixels.SMALL = 0
if hasattr(os, "posix_fallocate"):
    def unknown(*args):
        raise OSError(95, "Operation not supported")
    os.posix_fallocate = unknown
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    cellscan.synthetic_cells(80, seed=0).images(64)
except cellscan.DataError as error:
    print("File too large" in str(error), os.listdir(os.environ["CELLSCAN_CACHE"]))
"""
    assert run_python(code, env={"CELLSCAN_CACHE": str(tmp_path / "c")}) == "True []"


def test_threads_and_processes_share_a_cache(tmp_path, cache) -> None:
    root = write_cells(tmp_path / "d", {kind: [f"{k}.png" for k in range(20)] for kind in "ab"})
    (root / "a" / "bad.png").write_bytes(b"no image")
    code = f"""
import threading, cellscan
cells, errors, gate = cellscan.load_folder({str(root)!r}), [], threading.Barrier(8)
def go():
    gate.wait()
    try:
        pixels, bad = cells.open_pixels(16)
        assert list(bad) == [20] and pixels[:].any()
    except Exception as error:
        errors.append(repr(error))
threads = [threading.Thread(target=go) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(errors)
"""
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in started] == ["[]"] * 3
    assert len(maps(cache)) == len(list(cache.iterdir())) == 1


def test_an_unwritable_cache_is_said(tmp_path, monkeypatch, on_disk) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CELLSCAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(cellscan.DataError, match="set CELLSCAN_CACHE"):
        cellscan.synthetic_cells(8, seed=0).images(16)


def test_default_cache_folder(monkeypatch) -> None:
    monkeypatch.delenv("CELLSCAN_CACHE")
    assert cache_folder().name == "cellscan"


def test_no_home_is_said(monkeypatch) -> None:
    import platformdirs

    def homeless(name):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("CELLSCAN_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_dir", homeless)
    with pytest.raises(cellscan.DataError, match="set the environment variable CELLSCAN_CACHE"):
        cache_folder()
    with pytest.raises(cellscan.DataError, match="CELLSCAN_CACHE"):
        cellscan.clear_cache()


def test_an_empty_cache_is_cleared(cache) -> None:
    assert cellscan.clear_cache() == 0


def test_odd_indices_of_pixels(cache) -> None:
    pixels = cellscan.synthetic_cells(8, seed=0).images(16)
    for index in (99, "a", 1.5, None, [99], np.zeros(3, bool), (0, 99), (), slice("a")):
        with pytest.raises(cellscan.ArgumentError, match="pixels"):
            pixels[index]  # type: ignore[index]


@pytest.mark.parametrize("size", [0, 7, -3, 64.0, "64", True])
def test_bad_sizes(size) -> None:
    with pytest.raises(cellscan.ArgumentError, match="size is"):
        cellscan.synthetic_cells(8, seed=0).images(size)
