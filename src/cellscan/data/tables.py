"""Index the rows of tables, and write CSV files."""

from __future__ import annotations

import csv
import io
import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cellscan.data.values import OutOfRange, as_path, choose
from cellscan.errors import ArgumentError, DataError
from cellscan.tensors import write_whole


def find_rows(which: Any, count: int, what: str) -> int | np.ndarray:
    """Return the rows that an index selects: an int for a single row, or (n,) int64.

    Parameters
    ----------
    which : int, slice, (N,) bool, or sequence of int
        The index; negative numbers count from the end.
    count : int
        Number of rows.
    what : str
        Word for the rows in error messages, such as ``"cells"``.

    Raises
    ------
    ArgumentError
        If the index has another type, a mask has another length, or a row does not exist (then also an IndexError).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.tables import find_rows
    >>> find_rows(-1, 5, "fields"), find_rows([0, -1], 5, "fields").tolist()
    (4, [0, 4])
    >>> find_rows(np.arange(5) > 2, 5, "fields").tolist()
    [3, 4]
    """
    try:
        row = None if isinstance(which, (bool, np.bool_)) else operator.index(which)
    except TypeError:
        row = None
    if row is None:
        try:
            return choose(which, count)
        except ArgumentError as error:
            raise ArgumentError(f"{which!r:.80} is not an index of {count} {what}: {error}") from error
    if not -count <= row < count:
        raise OutOfRange(f"there is no row {row}; there are {count} {what}, counted from 0")
    return row % count


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV in UTF-8. An existing file is replaced only once the new one is complete.

    File names that are not valid UTF-8 are written as their original bytes.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cellscan.data.tables import write_csv
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.csv"
    >>> write_csv(file, [["name", "label"], ["a.png", 1]])
    >>> file.read_text().splitlines()
    ['name,label', 'a.png,1']
    """
    target = as_path("path", path)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_whole(target, text.getvalue().encode("utf-8", "surrogateescape"), error=DataError)
