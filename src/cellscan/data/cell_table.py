"""Read the columns of a table that lists images: a CSV file, a data frame or a mapping of columns."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cellscan.data.listing import list_images
from cellscan.data.reading import Reading
from cellscan.data.sources import FileSource, Source
from cellscan.data.values import as_list, as_path, as_patient, as_texts, check_text, read_rows
from cellscan.errors import ArgumentError, DataError


class Listed(NamedTuple):
    """The arguments of `CellDataset.from_source`."""

    source: Source
    labels: list[Any]
    names: list[str]
    patients: list[str] | None
    class_names: Sequence[str]


def list_table(
    table: Any,
    root: str | os.PathLike[str] | None,
    *,
    path: str,
    label: str,
    patient: str | None,
    name: str | None = None,
    class_names: Sequence[str] | None,
    reading: Reading,
) -> Listed:
    """Return the images that a table lists, as described in `cellscan.load_table`.

    Parameters
    ----------
    table, root, path, label, patient, class_names, reading
        As in `cellscan.load_table`.
    name : str or None
        As in `cellscan.CellDataset.from_dataframe`. With None, the names are the paths.

    Examples
    --------
    >>> from cellscan.data.cell_table import list_table
    >>> from cellscan.data.reading import AS_STORED
    >>> table = {"path": ["a.png"], "label": ["infected"]}
    >>> options = {"path": "path", "label": "label", "patient": "patient", "class_names": None}
    >>> list_table(table, "no-such-folder", **options, reading=AS_STORED)
    Traceback (most recent call last):
    ...
    cellscan.errors.DataError: no-such-folder: there is no such folder or archive
    """
    if isinstance(table, (str, os.PathLike)):
        where = os.fsdecode(table)
        header, rows = read_rows(as_path("table", table), "table of cells")
        columns: Any = {title: [row[title] or "" for row in rows] for title in header}
        beside = Path(where).parent
    elif hasattr(table, "__getitem__") and (hasattr(table, "columns") or isinstance(table, Mapping)):
        where, beside = "the table", Path()
        header = [str(title) for title in getattr(table, "columns", table)]
        columns = {str(title): table[title] for title in getattr(table, "columns", table)}
    else:
        raise ArgumentError(f"table is {table!r:.80}; expected a CSV file or a data frame")

    def find(argument: str, wanted: str) -> str:
        if not isinstance(wanted, str) or not wanted:
            raise ArgumentError(f"{argument} is {wanted!r:.80}; expected the name of a column")
        fitting = [title for title in header if title == wanted]
        fitting = fitting or [title for title in header if _folded(title) == _folded(wanted)]
        if len(fitting) != 1:
            many = "several columns" if fitting else "no column"
            listed = ", ".join(map(repr, header[:12]))
            raise ArgumentError(
                f"{where} has {many} {wanted!r}; it has {listed}. Name the right one with {argument}=..."
            )
        return fitting[0]

    def find_optional(argument: str, wanted: str | None) -> str | None:
        """Return the column; None if it is not wanted, or has the default name, as its argument, and is not there."""
        if wanted is None or (wanted == argument and argument not in map(_folded, header)):
            return None
        return find(argument, wanted)

    def read(title: str, what: str) -> list[str]:
        texts = [text.strip() for text in as_texts(title, as_list(title, columns[title]))]
        if "" in texts:
            raise DataError(f"{where}: row {texts.index('')} (from 0) has no {what} in the column {title!r}")
        return texts if what == "path" else [check_text(where, text) for text in texts]

    path_title, label_title = find("path", path), find("label", label)
    patient_title, name_title = find_optional("patient", patient), find_optional("name", name)
    paths = read(path_title, "path")
    owners = None if patient_title is None else _patients(where, patient_title, columns[patient_title])
    labels, class_names = _labels(read(label_title, "label"), _categories(columns[label_title]), class_names)
    folder = beside if root is None else as_path("root", root)
    names, source = _images(where, path_title, paths, folder, reading)
    return Listed(source, labels, names if name_title is None else read(name_title, "name"), owners, class_names)


def _folded(title: str) -> str:
    return title.strip().casefold()


def _patients(where: str, title: str, column: Any) -> list[str]:
    """Return the patients of a column; all or none of them are known."""
    owners = [
        check_text(where, as_patient(f"{title}[{row}]", owner)) for row, owner in enumerate(as_list(title, column))
    ]
    if "" in owners and any(owners):
        raise DataError(
            f"{where}: row {owners.index('')} (from 0) has no patient in the column {title!r}: the patient of this "
            "cell is unknown, but other patients are known. Fill the column, or leave it out with patient=None"
        )
    return owners


def _categories(column: Any) -> list[str] | None:
    """Return the categories of a categorical column of pandas or an enumeration of Polars; None for other columns."""
    categories = getattr(getattr(column, "dtype", None), "categories", None)
    return as_texts("categories", categories) if isinstance(categories, Iterable) else None


def _labels(
    texts: list[str], categories: list[str] | None, class_names: Sequence[str] | None
) -> tuple[list[Any], Sequence[str]]:
    """Return labels and class names of a column."""
    numbers = all(text.isdecimal() for text in texts)
    if class_names is None and categories is not None:
        names = [text.strip() for text in categories]
        return [names.index(text) for text in texts], names
    if class_names is None:
        return texts, sorted(set(texts), key=int if numbers else None)
    if numbers and not set(texts) <= set(as_texts("class_names", class_names)):  # A CSV file stores numbers as texts.
        return [int(text) for text in texts], class_names
    return texts, class_names


def _images(where: str, title: str, paths: list[str], root: Path, reading: Reading) -> tuple[list[str], Source]:
    """Return the names and a source of the images at these paths in a folder or an archive."""
    slashed = [path.replace("\\", "/") for path in paths]
    if root.is_dir():
        files = [
            os.path.join(root, path if os.path.exists(os.path.join(root, path)) else other)
            for path, other in zip(paths, slashed, strict=True)
        ]
        absent = [path for path, file in zip(paths, files, strict=True) if not os.path.isfile(file)]
        source: Callable[[], Source] = lambda: FileSource(files, reading)  # noqa: E731
    else:
        listing = list_images(root)
        by_path = {image: image for image in listing.images}
        tops = {image.split("/")[0] for image in listing.images}
        if len(tops) == 1:  # The paths of a table may omit a single folder that contains all others.
            by_path = {image.split("/", 1)[-1]: image for image in listing.images} | by_path
        members = [by_path.get(posixpath.normpath(path)) for path in slashed]
        absent = [path for path, member in zip(paths, members, strict=True) if member is None]
        source = lambda: listing.source([member for member in members if member is not None], reading)  # noqa: E731
    if absent:
        listed = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise DataError(
            f"{where}: {len(absent)} of {len(paths)} images are not in {root.absolute()}: {listed}. The first is in "
            f"row {paths.index(absent[0])} (from 0) of the column {title!r}. Pass the folder that the paths are "
            "relative to as root=..."
        )
    names = [posixpath.normpath(path) for path in slashed]
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) != row:
            raise DataError(
                f"{where}: the rows {first[name]} and {row} (from 0) have the same image in the column {title!r}: "
                f"{name!r}; expected each image once"
            )
    if names and all(os.path.isabs(name) for name in names):
        common = os.path.commonpath([os.path.dirname(name) for name in names])
        names = [os.path.relpath(name, common) for name in names]
    return names, source()
