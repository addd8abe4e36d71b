"""Rows by index, and CSV files that are written whole or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cellscan
from cellscan.data.tables import find_rows, write_csv


@given(st.integers(0, 8), st.slices(8) | st.lists(st.integers(-9, 9), max_size=4) | st.integers(-9, 9))
def test_rows_are_numpys(count, which) -> None:
    try:
        want = np.arange(count)[np.array(which, int) if isinstance(which, list) else which]
    except IndexError:
        with pytest.raises(IndexError if isinstance(which, int) else cellscan.ArgumentError) as caught:
            find_rows(which, count, "cells")
        assert isinstance(caught.value, cellscan.ArgumentError)
        return
    found = find_rows(which, count, "cells")
    assert np.array_equal(found, want)
    assert isinstance(found, int) == isinstance(which, int)


@pytest.mark.parametrize(
    "which",
    [0.7, [0.7], "a", ["a"], None, True, [True], [[0]], [None], {0: 1}, slice("a", None), np.zeros(3), [[0], [1, 2]]],
)
def test_what_is_no_index(which) -> None:
    with pytest.raises(cellscan.ArgumentError, match="is not an index of 2 cells"):
        find_rows(which, 2, "cells")


def test_masks_and_numbers_of_numpy() -> None:
    assert np.array_equal(find_rows(np.array([True, False, True]), 3, "cells"), [0, 2])
    assert find_rows(np.int64(-1), 3, "cells") == find_rows(np.array(2), 3, "cells") == 2
    assert np.array_equal(find_rows([], 3, "cells"), [])


def test_a_file_that_cannot_be_written_leaves_what_stood_there(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("yesterday")

    def rows():
        yield ["a"]
        raise MemoryError

    with pytest.raises(MemoryError):
        write_csv(path, rows())
    assert path.read_text() == "yesterday"
    with pytest.raises(cellscan.CellscanError, match="no folder"):
        write_csv(tmp_path / "no" / "a.csv", [["a"]])
    with pytest.raises(cellscan.ArgumentError, match="path"):
        write_csv(None, [["a"]])  # type: ignore[arg-type]
    write_csv(path, [["caf\udce9.png"], ["é", None, 0.5]])  # a name that is no UTF-8 stays the bytes that it is
    assert path.read_bytes() == b"caf\xe9.png\r\n\xc3\xa9,,0.5\r\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
