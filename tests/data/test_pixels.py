"""The memory map: built once, shared, verified, and never trusted half-written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import random_image, write_cells
from PIL import Image

import cellscan
from cellscan.data.images import read_rgb
from cellscan.data.pixels import cache_folder


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


def test_splits_share_one_map(cache) -> None:
    cells = cellscan.synthetic_cells(40, seed=0)
    train, test = cells.split(0.25, seed=0)
    whole = np.asarray(cells.images(16))
    for part in (train, test):
        rows = [cells.names.tolist().index(name) for name in part.names]
        assert np.array_equal(part.images(16)[:], whole[rows])
    assert len(list(cache.glob("*.npy"))) == 1


def test_a_changed_file_is_seen(tmp_path, cache) -> None:
    root = write_cells(tmp_path / "d", {"a": ["1.png"], "b": ["2.png"]})
    before = load(root).images(16)[0].copy()
    Image.fromarray(random_image(99)).save(root / "a" / "1.png")
    assert not np.array_equal(load(root).images(16)[0], before)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_map_is_built_again(cache, damage) -> None:
    cells = cellscan.synthetic_cells(16, seed=0)
    want = np.asarray(cells.images(16)).copy()
    (path,) = cache.glob("*.npy")
    content = {"cut": path.read_bytes()[:-1], "empty": b"", "noise": b"x" * 500}[damage]
    path.unlink()
    path.write_bytes(content)
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


def test_a_killed_build_leaves_nothing_that_is_trusted(tmp_path, cache) -> None:
    code = """
import numpy as np, os, signal, cellscan
from cellscan.data import sources
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
    assert not list(cache.glob("*.npy"))
    cells = cellscan.synthetic_cells(64, seed=0)
    assert np.array_equal(cells.images(16)[63], read_rgb(cells[63].image, 16))


def test_stale_parts_are_swept(cache) -> None:
    cache.mkdir()
    old, young = cache / "old.npy.1.part", cache / "young.npy.2.part"
    for part in (old, young):
        part.write_bytes(b"x")
    long_ago = time.time() - 2 * 86_400
    os.utime(old, (long_ago, long_ago))
    cellscan.synthetic_cells(8, seed=0).images(16)
    assert not old.exists()
    assert young.exists()


def test_an_unwritable_cache_is_said(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CELLSCAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(cellscan.DataError, match="set CELLSCAN_CACHE"):
        cellscan.synthetic_cells(8, seed=0).images(16)


def test_default_cache_folder(monkeypatch) -> None:
    monkeypatch.delenv("CELLSCAN_CACHE")
    assert cache_folder().name == "cellscan"


@pytest.mark.parametrize("size", [0, 7, -3, 64.0, "64", True])
def test_bad_sizes(size) -> None:
    with pytest.raises(cellscan.ArgumentError, match="size is"):
        cellscan.synthetic_cells(8, seed=0).images(size)
