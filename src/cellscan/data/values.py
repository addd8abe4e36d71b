"""Check and convert arguments: whole numbers, seeds, texts, patients, labels, selected rows, CSV files."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from cellscan.errors import ArgumentError, CellscanError, DataError

_MISSING = frozenset(
    ("", "nan", "NaN", "<NA>", "NaT", "#N/A", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!")
)
"""Texts that pandas and spreadsheets write for a missing value, and that mean nothing else."""

_NO_PATIENT = _MISSING | {"None", "NA", "N/A", "n/a", "null", "NULL"}
"""Texts that stand for an unknown patient in tables."""

_MAX_SEED = 2**63 - 1
"""Largest seed that JAX accepts."""


class OutOfRange(ArgumentError, IndexError):
    """An index beyond the end. It is also an `IndexError`, because loops and `reversed` end at one."""


def check_whole(name: str, value: object, least: int, unit: str = "") -> int:
    """Return a whole number of at least `least` as an int, or raise `ArgumentError`; NumPy integers pass, bool fails.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.values import check_whole
    >>> check_whole("count", np.int64(8), 1)
    8
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"{name} is {value!r}; expected a whole number{unit and f' of {unit}'} from {least}")
    return int(value)


def check_seed(seed: object) -> int:
    """Return a seed as an int, or raise `ArgumentError`.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.values import check_seed
    >>> check_seed(np.int64(1))
    1
    """
    number = check_whole("seed", seed, 0)
    if number > _MAX_SEED:
        raise ArgumentError(f"seed is {number}; expected a whole number from 0 to {_MAX_SEED}")
    return number


def check_number(name: str, value: object, low: float, high: float, ends: str = "()") -> float:
    """Return a number in a range as a float, or raise `ArgumentError`.

    Parameters
    ----------
    name : str
        Name of the argument in the message.
    value : object
        The number.
    low, high : float
        The range.
    ends : {"()", "(]", "[)", "[]"}
        Whether the range includes `low` and `high`: square brackets include the end, round brackets exclude it.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.values import check_number
    >>> check_number("share", np.float32(0.5), 0, 1, "(]")
    0.5
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else float("nan")
    except OverflowError:  # The whole number is larger than any float.
        number = float("inf")
    if low < number < high or (ends[0] == "[" and number == low) or (ends[1] == "]" and number == high):
        return number
    between = f"in {ends[0]}{low:g}, {high:g}{ends[1]}"
    if high == float("inf"):
        between = f"{'from' if ends[0] == '[' else 'above'} {low:g}"
    elif ends == "[)":
        between = f"from {low:g} and below {high:g}"
    raise ArgumentError(f"{name} is {value!r:.80}; expected a number {between}")


def as_range(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """Return a number, or a pair of numbers, as the pair (minimum, maximum), or raise `ArgumentError`.

    Examples
    --------
    >>> from cellscan.data.values import as_range
    >>> as_range("cell_diameter", 30, 8, 100), as_range("cell_diameter", (20, 40), 8, 100)
    ((30.0, 30.0), (20.0, 40.0))
    """
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ArgumentError(f"{name} is {value!r:.80}; expected a number, or a range: (minimum, maximum)")
    first, last = (check_number(name, side, low, high, "[]") for side in pair)
    if first > last:
        raise ArgumentError(f"{name} is {value!r:.80}; expected the minimum first: (minimum, maximum)")
    return first, last


def check_flag(name: str, value: object) -> bool:
    """Return a bool, or raise `ArgumentError`; NumPy bools pass.

    Examples
    --------
    >>> from cellscan.data.values import check_flag
    >>> check_flag("resume", False)
    False
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} is {value!r:.80}; expected True or False")
    return bool(value)


def as_path(name: str, value: Any) -> Path:
    """Return a path, or raise `ArgumentError`. Numbers are refused, because Python treats them as open files.

    Examples
    --------
    >>> from cellscan.data.values import as_path
    >>> as_path("folder", "cells").name
    'cells'
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ArgumentError(f"{name} is {value!r:.80}; expected a path")
    return Path(os.fsdecode(value))


def is_missing(value: object) -> bool:
    """Whether a value of a table is missing: None, NaN, NA and NaT of pandas, or a text that stands for one.

    Examples
    --------
    >>> from cellscan.data.values import is_missing
    >>> [is_missing(value) for value in (None, float("nan"), "", "#N/A", 0, "0")]
    [True, True, True, True, False, False]
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (str, bytes)):
        return not value or value in _MISSING
    return isinstance(value, (float, np.floating, np.datetime64)) and bool(value != value)


def as_texts(name: str, values: Any) -> list[str]:
    """Return values as texts: ``""`` for missing values, and the same text for equal whole numbers of any type.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.values import as_texts
    >>> as_texts("names", [1, 1.0, np.float32(1), "1", None, b"a"])
    ['1', '1', '1', '1', '', 'a']
    """
    return [_as_text(f"{name}[{row}]", value) for row, value in enumerate(as_list(name, values))]


def _as_text(where: str, value: Any) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, os.PathLike)):
        return os.fsdecode(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, (bool, int, float, np.generic)):
        return str(value)
    raise DataError(f"{where} is {value!r:.80}; expected a text or a number")


def as_patient(where: str, value: Any) -> str:
    """Return the id of a patient, or ``""`` for any of the ways in which tables mark missing values.

    Ids that are equal numbers give the same text, because a join of tables turns 1 into 1.0. So do ids that look alike
    but are stored as different characters: macOS writes an accent as a character of its own.

    Examples
    --------
    >>> from cellscan.data.values import as_patient
    >>> [as_patient("patient", value) for value in (7, "7.0", " p1 ", "nan", None)]
    ['7', '7', 'p1', '', '']
    """
    text = unicodedata.normalize("NFC", _as_text(where, value)).strip()
    if text in _NO_PATIENT:
        return ""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def as_list(name: str, values: Any, *, ordered: bool = True) -> list[Any]:
    """Return the entries of a sequence, an array, a pandas Series or a generator; raise `ArgumentError` for a text.

    Sets are refused if the order matters: the order of texts in a set differs from run to run.
    """
    if ordered and isinstance(values, (set, frozenset)):
        raise ArgumentError(
            f"{name} is {values!r:.80}, a set, whose order changes from run to run; expected a list, such as "
            f"sorted({name})"
        )
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise ArgumentError(f"{name} is {values!r:.80}; expected a sequence with one entry for each cell")
    try:
        return list(values)
    except CellscanError:
        raise
    except TypeError as error:  # Arrays without dimensions are not iterable.
        raise ArgumentError(f"{name} is {values!r:.80}; expected a sequence with one entry for each cell") from error


def as_class_names(class_names: Any) -> tuple[str, ...]:
    """Return class names as a tuple, or raise `DataError` if any are empty or differ in case or spaces only."""
    names = tuple(as_texts("class_names", class_names))
    if not names or "" in names:
        raise DataError(f"the class names are {names}; expected at least one, and none that is empty")
    if len({" ".join(unicodedata.normalize("NFC", name).split()).casefold() for name in names}) < len(names):
        raise DataError(
            f"the class names {names} are not distinct; expected names that differ by more than upper and lower case, "
            "spaces and the encoding of accents"
        )
    return names


def as_labels(labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Return labels as a new array (N,) int32, from indices into `class_names` or from class names in either case.

    Examples
    --------
    >>> from cellscan.data.values import as_labels
    >>> as_labels(["Healthy", "infected"], ("infected", "healthy")).tolist()
    [1, 0]
    """
    entries = labels if hasattr(labels, "__array__") else as_list("labels", labels) or np.zeros(0, int)
    try:
        array = np.asarray(entries)
    except ValueError as error:
        raise DataError(
            "labels are lists of different lengths; expected one index or class name for each cell"
        ) from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = ". If there is one column for each class, pass labels.argmax(1)" if array.ndim == 2 else ""
        raise DataError(f"labels have the shape {array.shape}; expected one label for each cell{hint}")
    if array.dtype.kind == "b":
        raise DataError(
            f"labels are True and False, which are not among the classes {tuple(class_names)}; "
            "expected indices, or names: np.where(labels, 'parasitized', 'uninfected')"
        )
    if array.dtype.kind in "iuf":
        whole = np.isfinite(array) & (array == np.rint(array))
        if not whole.all():
            row = int(np.flatnonzero(~whole)[0])
            raise DataError(f"labels[{row}] is {array[row]}; expected a whole number, an index into the class names")
        check_indices(array, class_names)
    else:
        position = {name.casefold(): index for index, name in enumerate(class_names)}
        array = np.array([_as_label(row, value, position) for row, value in enumerate(array.tolist())], np.int64)
    if array.size and not 0 <= array.min() <= array.max() < len(class_names):
        raise DataError(f"labels from {array.min()} to {array.max()}; expected 0 to {len(class_names) - 1}")
    return array.astype(np.int32)


def check_indices(array: np.ndarray, class_names: Sequence[str]) -> None:
    """Raise if a number may be an index or the name of another class, as with the classes "1" and "2".

    Raises
    ------
    DataError

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.values import check_indices
    >>> check_indices(np.array([0, 1]), ("red blood cell", "infected"))
    """
    position = {name: index for index, name in enumerate(class_names)}
    for number in np.unique(array).astype(np.int64).tolist():
        named = position.get(str(number))
        if named not in (None, number) and 0 <= number < len(class_names):
            raise DataError(
                f"the label {number} may be the class {str(number)!r}, by its name, or the class "
                f"{class_names[number]!r}, by its index; pass names as texts, such as labels.astype(str)"
            )


def _as_label(row: int, value: Any, position: dict[str, int]) -> int:
    text = _as_text(f"labels[{row}]", value)
    if isinstance(value, (str, bytes)) and text.casefold() in position:
        return position[text.casefold()]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and re.fullmatch(r"-?\d+", text):
        return int(np.clip(int(text), -(2**62), 2**62))
    raise DataError(
        f"labels[{row}] is {value!r:.80}; expected an index or one of the class names "
        f"{', '.join(map(repr, position))}. For other classes pass class_names=..."
    )


def choose(which: Any, count: int) -> np.ndarray:
    """Return the row numbers (n,) int64 that a mask, a list of indices or a slice selects from `count` rows.

    Examples
    --------
    >>> from cellscan.data.values import choose
    >>> choose([True, False, True], 3).tolist(), choose([-1], 3).tolist(), choose(slice(1, None), 3).tolist()
    ([0, 2], [2], [1, 2])
    """
    if isinstance(which, slice):
        try:
            return np.arange(count)[which]
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"select got {which}; expected whole numbers in the slice ({error})") from error
    try:
        chosen = np.asarray(which)
    except (TypeError, ValueError) as error:  # The rows of a nested list have different lengths.
        raise ArgumentError(
            f"select got {which!r:.80}; expected a ({count},) mask of bool or a list of indices"
        ) from error
    if chosen.ndim != 1 or not (chosen.dtype.kind in "biu" or chosen.size == 0):
        raise ArgumentError(
            f"select got an array of shape {chosen.shape} and dtype {chosen.dtype}; "
            f"expected a ({count},) mask of bool or a list of indices"
        )
    if chosen.dtype == bool:
        if len(chosen) != count:
            raise ArgumentError(f"select got a mask of {len(chosen)} values for {count} rows; expected as many of each")
        return np.flatnonzero(chosen)
    if chosen.size and not -count <= chosen.min() <= chosen.max() < count:
        raise ArgumentError(
            f"select got indices from {chosen.min()} to {chosen.max()}; there are {count} rows, counted from 0"
        )
    if len(chosen) == count > 2 and set(np.unique(chosen).tolist()) == {0, 1}:
        raise ArgumentError(
            f"select got {count} numbers that are all 0 or 1, for {count} rows; expected a mask of bool, such as "
            "mask.astype(bool), or indices"
        )
    return np.arange(count)[chosen.astype(np.int64)]


def read_rows(file: str | os.PathLike[str], what: str) -> tuple[list[str], list[dict[str, str]]]:
    """Return the header and the lines of a CSV file that is separated by comma, semicolon or tab.

    The text is UTF-8, or UTF-16 with a byte order mark, as spreadsheets write it. Bytes that are not UTF-8 are kept as
    surrogates, as in file names; `check_text` refuses them elsewhere.
    """
    rows: list[dict[str, str]] = []
    try:
        raw = Path(file).read_bytes()
        wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = raw.decode("utf-16") if wide else raw.decode("utf-8-sig", "surrogateescape")
        separator = re.match(r"sep=([,;\t])\r?\n", text)  # Spreadsheets write and read this line before the header.
        if separator:
            text = text[separator.end() :]
        header = text.split("\n", 1)[0]
        delimiter = separator[1] if separator else max(",;\t", key=header.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = [name or "" for name in reader.fieldnames or ()]
        for row in reader:
            if any(map(str.strip, row.pop(None, ()))):  # type: ignore[call-overload]
                raise ValueError(
                    f"line {reader.line_num} has more than the {len(names)} columns of the header; a value that "
                    f"contains {delimiter!r} needs quotation marks"
                )
            rows.append(row)
    except (OSError, csv.Error, TypeError, ValueError) as error:
        raise DataError(f"{file}: the {what} cannot be read ({error})") from error
    return names, rows


def check_text(where: str, text: str) -> str:
    """Return a text, or raise `DataError` if it comes from bytes that are not UTF-8.

    Examples
    --------
    >>> from cellscan.data.values import check_text
    >>> check_text("table.csv", "Muñoz")
    'Muñoz'
    """
    if re.search("[\ud800-\udfff]", text):
        raise DataError(
            f"{where}: {text.encode('utf-8', 'backslashreplace').decode()[:80]!r} is not UTF-8; save the table as "
            '"CSV UTF-8"'
        )
    return text


def read_table(file: str | os.PathLike[str], what: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return these columns of a CSV file that is separated by comma, semicolon or tab: one mapping for each line."""
    header, rows = read_rows(file, what)
    names = {name.strip().casefold(): name for name in header}
    if not set(columns) <= set(names):
        raise DataError(f"{file}: expected the header {','.join(columns)!r}, found {','.join(header)[:80]!r}")
    result = [{column: row[names[column]] or "" for column in columns} for row in rows]
    for row in result:
        for column in columns:
            if column != "name":  # The name of a file may be any bytes.
                check_text(os.fspath(file), row[column])
    return result
