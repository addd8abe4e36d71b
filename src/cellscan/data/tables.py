"""Index the rows of tables, write CSV files, and make data frames."""

from __future__ import annotations

import csv
import io
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from cellscan.data.values import OutOfRange, as_path, choose
from cellscan.errors import ArgumentError, DataError, import_extra
from cellscan.tensors import write_whole

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Column:
    """One column of the table of a result, from which `csv_rows` and `make_frame` make the same rows.

    Attributes
    ----------
    values : sequence
        One value per row; None if it is missing.
    kind : {"text", "whole", "number", "flag"} or tuple of str
        Type of the values: texts, whole numbers, numbers, bools; or the class names, for a column of class names.
    form : str or callable
        Format of a value in a CSV file: a format specification such as ``".4f"``, or a function that returns a text.
        ``""``: the value as it is.

    Examples
    --------
    >>> from cellscan.data.tables import Column, csv_rows
    >>> csv_rows({"name": Column(["a", "b"]), "score": Column([0.25, None], "number", ".3f")})
    [['name', 'score'], ['a', '0.250'], ['b', '']]
    """

    values: Sequence[Any] | np.ndarray
    kind: Literal["text", "whole", "number", "flag"] | tuple[str, ...] = "text"
    form: str | Callable[[Any], str] = ""


Table: TypeAlias = Mapping[str, Column]
"""The columns of a result, by name and in order; all have the same length."""


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


def csv_rows(table: Table) -> list[list[object]]:
    """Return a header and the rows of a table, with values as they are in a CSV file; ``""`` for missing values.

    Examples
    --------
    >>> from cellscan.data.tables import Column, csv_rows
    >>> csv_rows({"infected": Column([True, None], "flag", "d")})
    [['infected'], ['1'], ['']]
    """

    def write(column: Column) -> list[object]:
        form = column.form
        values = column.values.tolist() if isinstance(column.values, np.ndarray) else column.values
        return [
            "" if value is None else value if not form else form(value) if callable(form) else format(value, form)
            for value in values
        ]

    return [list(table), *map(list, zip(*map(write, table.values()), strict=True))]


def make_frame(table: Table) -> DataFrame:
    """Return a table as a data frame of pandas, with one type per column.

    Texts have pandas' type for texts. Class names are categorical, with all class names in their order. Whole numbers
    are int64, numbers float64, flags bool. A missing value is NaN. If values are missing, whole numbers are float64 and
    flags are pandas' ``boolean``, in which a missing value is ``<NA>``.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.

    Examples
    --------
    >>> from cellscan.data.tables import Column, make_frame
    >>> make_frame({"name": Column(["a", "b"]), "cells": Column([3, None], "whole")})
      name  cells
    0    a    3.0
    1    b    NaN
    """
    pandas = import_extra("pandas", "dataframe", "a data frame")

    def typed(column: Column) -> Any:
        values, kind = list(column.values), column.kind
        if isinstance(kind, tuple):
            return pandas.Categorical(values, categories=list(kind))
        missing = any(value is None for value in values)
        if kind == "flag":
            return pandas.array(values, dtype="boolean") if missing else np.array(values, bool)
        values = [np.nan if value is None else value for value in values]
        if kind == "text":
            return pandas.Series(values, dtype="str")
        return np.array(values, np.int64 if kind == "whole" and not missing else np.float64)

    return pandas.DataFrame({name: typed(column) for name, column in table.items()})
