"""The patient, slide and laboratory of each field or cell, from a function, a mapping or a CSV file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cellscan.data.values import as_path, as_patient, as_texts, read_table
from cellscan.errors import ArgumentError, CellscanError, DataError

Groups: TypeAlias = "str | os.PathLike[str] | Mapping[Any, Any] | Callable[[str], Any]"
"""Path of a CSV file of names and groups, a mapping from name to group, or a function from name to group."""


def read_groups(
    what: str,
    names: Sequence[str],
    given: Any,
    *,
    below: Sequence[str] | None = None,
    what_is_named: str = "fields",
) -> list[str]:
    """Return the patient, slide or laboratory of every field or cell.

    Parameters
    ----------
    what : {"patient", "slide", "laboratory"}
        The group to return.
    names : sequence of str
        Names of the fields or cells, with slashes between folders.
    given : callable, mapping or path
        As in `cellscan.load_fields`. For a laboratory, a text that does not end with ``.csv`` or ``.tsv`` is the name
        of the laboratory.
    below : sequence of str, optional
        Arguments for a function, one for each name. Default: the names.
    what_is_named : str
        ``"fields"`` or ``"cells"``, for error messages.

    Raises
    ------
    DataError
        A field or cell has no group, a name of the mapping fits several of them, or the file or function fails.
    ArgumentError
        `given` has the wrong type.

    Examples
    --------
    >>> from cellscan.data.groups import read_groups
    >>> read_groups("patient", ["p1/a.png", "p2/a.png"], lambda name: name.split("/")[0])
    ['p1', 'p2']
    >>> read_groups("slide", ["p1/a.png", "p2/b.png"], {"a.png": 7, "b.png": 8.0})
    ['7', '8']
    >>> read_groups("laboratory", ["a.png"], "Bangkok")
    ['Bangkok']
    """
    if what == "laboratory" and isinstance(given, str) and not given.lower().endswith((".csv", ".tsv")):
        if not as_patient(what, given):
            raise ArgumentError(f"laboratory is {given!r}; expected the name of the laboratory, which is not empty")
        return [as_patient(what, given)] * len(names)
    if isinstance(given, (str, os.PathLike)):
        given = _read_file(what, as_path(what, given))
    if hasattr(given, "items"):  # a mapping, or a pandas Series
        result = _look_up(what, names, dict(given.items()), what_is_named)
    elif callable(given):
        result = [_call(what, name, given, argument) for name, argument in zip(names, below or names, strict=True)]
    else:
        raise ArgumentError(
            f"{what} is {given!r:.80}; expected a function, a mapping, or a CSV file with the header name,{what}"
        )
    owners = [as_patient(name, owner) for name, owner in zip(names, result, strict=True)]
    for name, owner, value in zip(names, owners, result, strict=True):
        if not owner:
            raise DataError(f"{name}: `{what}` gives {value!r:.80}; expected the {what}'s id, which is not empty")
    return owners


def _read_file(what: str, path: Path) -> dict[str, str]:
    owners: dict[str, str] = {}
    for row in read_table(path, f"file of {what}s", ("name", what)):
        owner = as_patient(row["name"], row[what])
        if owners.setdefault(row["name"], owner) != owner:
            raise DataError(f"{path}: {row['name']!r} occurs twice, with different values of {what}; expected one")
    return owners


def _call(what: str, name: str, given: Callable[[str], Any], below: str) -> Any:
    try:
        return given(below)
    except CellscanError:
        raise
    except Exception as error:  # The caller's function may raise anything.
        raise DataError(f"{name}: `{what}` fails ({type(error).__name__}: {error})") from error


def _look_up(what: str, names: Sequence[str], given: dict[Any, Any], named: str) -> list[Any]:
    """Return the value of a mapping for each name, or None. A key is a whole name, or the end of exactly one name."""
    rows = {name: row for row, name in enumerate(names)}
    ends: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        parts = name.split("/")
        for start in range(1, len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(row)
    whole: dict[int, Any] = {}
    partly: dict[int, Any] = {}
    for key, owner in zip(as_texts(f"names of {what}", list(given)), given.values(), strict=True):
        key = key if key in rows else key.replace("\\", "/")
        fitting = ends.get(key, [])
        if key in rows:
            whole[rows[key]] = owner
        elif len(fitting) > 1:
            several = ", ".join(repr(names[row]) for row in fitting[:4])
            raise DataError(
                f"`{what}` has the key {key!r}, which fits {len(fitting)} {named}: {several}; use whole names"
            )
        elif fitting:
            partly[fitting[0]] = owner
    result = {**partly, **whole}
    return [result.get(row) for row in range(len(names))]
