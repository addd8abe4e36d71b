"""What tables of fields and of results share: rows by index, and CSV files."""

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
    """Return the rows that an index means: one whole number, or (n,) int64 for what `choose` takes.

    Parameters
    ----------
    which : int, slice, (N,) bool, or sequence of int
        Negative numbers count from the end.
    count : int
        How many rows there are.
    what : str
        What the rows are, for errors.

    Raises
    ------
    ArgumentError
        Where it is another kind of index, a mask of another length, or a row that is not there (an IndexError too).

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
            raise ArgumentError(f"{which!r:.80} is no index of {count} {what}: {error}") from error
    if not -count <= row < count:
        raise OutOfRange(f"{row} is no row of {count} {what}")
    return row % count


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV in UTF-8, whole or not at all: what stood there stays until the new file is complete.

    Names of files that are no UTF-8 are written as the bytes that they are.

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
