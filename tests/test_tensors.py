"""Tensor files are written completely or not at all."""

import os
import threading

import numpy as np
import pytest

import cellscan
from cellscan.tensors import check_digest, read_tensors, write_tensors, write_whole


def test_threads_that_write_one_file_do_not_meet(tmp_path) -> None:
    target, errors = tmp_path / "a.csv", []
    contents = [bytes([number]) * 200_000 for number in range(8)]
    gate = threading.Barrier(8)

    def go(content: bytes) -> None:
        gate.wait()
        try:
            for _ in range(10):
                write_whole(target, content)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=go, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert target.read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    target = tmp_path / "a.csv"
    write_whole(target, b"yesterday")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(cellscan.DataError, match="No space left"):
        write_whole(target, b"today", error=cellscan.DataError)
    assert target.read_bytes() == b"yesterday"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_where_no_file_can_be(tmp_path) -> None:
    with pytest.raises(cellscan.ModelFileError, match="this is a folder"):
        write_whole(tmp_path, b"x")
    with pytest.raises(cellscan.ModelFileError, match="there is no folder"):
        write_whole(tmp_path / "no" / "a", b"x")
    with pytest.raises(cellscan.ModelFileError, match="cannot be written"):
        write_whole(tmp_path / ("n" * 300), b"x")
    with pytest.raises(cellscan.ModelFileError, match="cannot be written"):
        write_whole(tmp_path / "a\0b", b"x")
    assert not list(tmp_path.iterdir())


def test_links_modes_and_long_names_are_kept(tmp_path) -> None:
    target, link = tmp_path / "a", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    longest = tmp_path / ("n" * 255)
    write_whole(longest, b"x")
    assert longest.read_bytes() == b"x"


def test_a_pipe_is_written_to(tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"line\n")
    reader.join()
    assert found == [b"line\n"]
    assert pipe.is_fifo()


def test_names_that_are_not_utf8_are_kept(tmp_path) -> None:
    target = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    write_tensors(target, {"x": np.arange(3)}, {"name": os.fsdecode(b"caf\xe9.png").encode("unicode_escape").decode()})
    metadata, tensors = read_tensors(target)
    check_digest(target, metadata, tensors)
    assert tensors["x"].tolist() == [0, 1, 2]
