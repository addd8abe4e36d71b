"""What tables of fields and of results share: rows by index, seeds, and CSV files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from cellscan.errors import ArgumentError
from cellscan.tensors import write_whole


class RowError(ArgumentError, IndexError):
    """A row that is not there; an IndexError too, by which Python knows where a sequence ends."""


def find_rows(which: Any, count: int, what: str) -> int | np.ndarray:
    """Return the rows that an index means: one whole number, or (n,) int64 for a slice, a mask or whole numbers.

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
    expected = f"expected a whole number, a slice, a mask of {count} bool, or a list of whole numbers"
    try:
        array = np.arange(count)[which] if isinstance(which, slice) else np.asarray(which)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{which!r} is no index of {what}; {expected}") from error
    if isinstance(which, slice):
        return array
    if array.ndim == 1 and array.dtype == bool:
        if len(array) != count:
            raise ArgumentError(f"a mask of {len(array)} values for {count} {what}; expected as many")
        return np.flatnonzero(array)
    if array.ndim > 1 or not (array.dtype.kind in "iu" or (array.ndim == 1 and not array.size)):
        raise ArgumentError(f"{which!r} is no index of {what}; {expected}")
    if array.size and not (-count <= int(array.min()) and int(array.max()) < count):
        raise RowError(f"{int(array.min() if int(array.min()) < -count else array.max())} is no row of {count} {what}")
    rows = array.astype(np.int64)
    rows = np.where(rows < 0, rows + count, rows)
    return rows if array.ndim else int(rows)


def find_many(which: Any, count: int, what: str) -> np.ndarray:
    """Return the rows (n,) int64 that an index means, as `find_rows`, where one alone is no answer.

    Examples
    --------
    >>> from cellscan.data.tables import find_many
    >>> find_many(slice(1, 3), 5, "fields").tolist()
    [1, 2]
    """
    rows = find_rows(which, count, what)
    if isinstance(rows, int):
        raise ArgumentError(f"select got {which!r}; expected a slice, a mask of {count} bool, or a list of rows")
    return rows


def check_whole(name: str, value: object, least: int) -> int:
    """Return a whole number, of Python or NumPy, that is not below the least one; else raise `ArgumentError`.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.tables import check_whole
    >>> check_whole("draws", np.int64(20), 1)
    20
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ArgumentError(f"{name} is {value!r}; expected a whole number from {least}")
    return int(value)


def make_rng(seed: object) -> np.random.Generator:
    """Return a generator of random numbers, or say what a seed is.

    Examples
    --------
    >>> from cellscan.data.tables import make_rng
    >>> int(make_rng(0).integers(10))
    8
    """
    return np.random.default_rng(check_whole("seed", seed, 0))


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
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"path is {path!r}; expected the path of a CSV file")
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_whole(Path(os.fsdecode(path)), text.getvalue().encode("utf-8", "surrogateescape"))
