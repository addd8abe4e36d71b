"""Files, archives and TFDS -> `CellDataset`."""

from __future__ import annotations

import importlib.util
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from cellscan.data.cells import CellDataset
from cellscan.data.groups import read_groups
from cellscan.data.images import warn_of_others
from cellscan.data.layouts import choose_splits, place
from cellscan.data.listing import list_images
from cellscan.data.malaria import read_malaria
from cellscan.data.reading import Reading, check_reading
from cellscan.data.sources import FileSource, Source
from cellscan.data.values import as_list, as_path, as_texts, read_rows
from cellscan.errors import ArgumentError, DataError

PathLike: TypeAlias = "str | os.PathLike[str]"
Patients: TypeAlias = "Mapping[str, Any] | Callable[[str], Any] | PathLike"
"""Whose a cell is: a mapping or a CSV file of names and patients, or a function from name to patient."""


def load_malaria(
    source: PathLike | None = None,
    *,
    patient_files: Sequence[PathLike] = (),
    data_dir: PathLike | None = None,
) -> CellDataset:
    """Load the NIH malaria cell images, with the patient of each cell.

    Parameters
    ----------
    source : path, optional
        The publisher's ``cell_images.zip``, its extracted folder, Kaggle's nested copy of either
        (whose second copy of every cell, the same to the byte, is passed over), or the folder of a set
        that TFDS prepared as array_record (``.../malaria/1.0.0``; TFDS kept no file names there, so
        patients stay unknown). Left out: the set goes through this package's own TFDS builder, which
        downloads it once (337 MiB) and keeps file names and patients.
    patient_files : sequence of paths
        The publisher's ``patientid_cellmapping_*.csv``; they are checked against the file names.
    data_dir : path, optional
        Where TFDS keeps its sets, if `source` is left out.

    Returns
    -------
    CellDataset
        Classes ``("parasitized", "uninfected")``; the full set has 27,558 cells of 200 patients.
        `names` are file names, with folders before them where two cells share one.

    Raises
    ------
    DataError
        Where the files do not have that form, or the download fails; it lists the manual steps.

    Warns
    -----
    UserWarning
        Where files lie among the images that are not read.

    Notes
    -----
    Source of the images: U.S. National Library of Medicine; Rajaraman et al. (2018), PeerJ 6:e4568.
    The classes are balanced by selection: half of the cells are parasitized, in no clinic are they.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.load_malaria("cell_images.zip")  # doctest: +SKIP
    >>> print(cells)  # doctest: +SKIP
    27,558 cells of 200 patients: parasitized 13,779, uninfected 13,779
    """
    root = None if source is None else as_path("source", source)
    if root is None or (root / "dataset_info.json").exists():
        if patient_files:
            raise DataError("patient_files go with an archive or a folder; TFDS sets carry their own patients")
        return _load_tfds(root, None if data_dir is None else as_path("data_dir", data_dir))
    return read_malaria(root, patient_files)


def load_folder(
    folder: PathLike,
    *,
    patient: Patients | None = None,
    layout: str | None = None,
    split: str | Sequence[str] | None = None,
    reading: Reading | None = None,
) -> CellDataset:
    """Load a folder, or an archive, whose sub-folders are the classes.

    Parameters
    ----------
    folder : path
        A folder, or an archive: zip, tar, tar.gz, tar.bz2 or tar.xz. Classes are sorted by name; links to files and
        folders are followed. Hidden files and ``__MACOSX`` are passed over.
    patient : callable, mapping or path, optional
        A function from the path below the class folder, such as ``"p1_a.png"`` or ``"p1/a.png"``, to the patient. Or a
        mapping, or a CSV file with the header ``name,patient``, whose names are `names` or their ends behind a slash,
        such as the bare file name, where those fit one cell only. Left out: patients are unknown unless the layout
        has them, and the set can be divided by cell only.
    layout : str, optional
        What each level of folders is: ``"class/image"``, ``"class/patient/image"``, ``"patient/class/image"``,
        ``"split/class/image"``, and others of the words ``class``, ``patient``, ``split`` and ``*``, a folder that
        means nothing. Folders below the last level are part of an image's name. Left out, it is recognised, and stands
        in `CellDataset.layout`: one level of folders is the classes; folders named train, test or val (or alike) above
        them are splits; one folder around everything means nothing. Where a tree can be read in two ways, such as with
        patients above or below the classes, that is an error that lists them; with `patient` given, the first level is
        the classes.
    split : str or sequence of str, optional
        Which splits to load, by the names of their folders. Must be given where there are several.
    reading : Reading, optional
        Page, channel and window of images that do not say them, such as ``cellscan.Reading(window=(0, 4095))``.

    Returns
    -------
    CellDataset
        `names` are paths with the class folder, such as ``"infected/p1_a.png"`` or ``"train/infected/p1_a.png"``,
        without a folder that is around everything.

    Raises
    ------
    DataError
        Where there is no such folder, images lie outside the class folders, the layout is unclear or another, there are
        several splits and none is asked for, an archive is damaged, or a patient is missing.
    ArgumentError
        Where `layout` is none, there is no such split, or patients are given by `patient` and by `layout`.

    Warns
    -----
    UserWarning
        Where files lie among the images that are not read.

    See Also
    --------
    load_table : Where a table says of which class an image is.

    Examples
    --------
    >>> import tempfile, pathlib, cellscan
    >>> from PIL import Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("infected/p1_a.png", "healthy/p1_b.png", "healthy/p2_c.png"):
    ...     (root / name).parent.mkdir(exist_ok=True)
    ...     Image.new("RGB", (40, 40), "pink").save(root / name)
    >>> cells = cellscan.load_folder(root, patient=lambda name: name.split("_")[0])
    >>> cells.class_names, cells.patients.tolist()
    (('healthy', 'infected'), ['p1', 'p2', 'p1'])

    Folders of patients:

    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("p1/infected/a.png", "p1/healthy/b.png", "p2/healthy/c.png"):
    ...     (root / name).parent.mkdir(exist_ok=True, parents=True)
    ...     Image.new("RGB", (40, 40), "pink").save(root / name)
    >>> print(cellscan.load_folder(root, layout="patient/class/image"))
    3 cells of 2 patients: healthy 2, infected 1 (read as patient/class/image)
    """
    listing, reading = list_images(as_path("folder", folder)), check_reading(reading)
    layout, placed = place(str(folder), listing.images, layout, patient_given=patient is not None)
    if patient is not None and "patient" in layout.split("/"):
        raise ArgumentError(f"patient is given, and layout={layout!r} has patients too; expected one of the two")
    placed = choose_splits(str(folder), placed, split, layout)
    class_names = sorted({one.class_name for one in placed})
    placed = sorted(placed, key=lambda one: (one.class_name, one.path))
    names = [one.name for one in placed]
    labels = [class_names.index(one.class_name) for one in placed]
    patients = [one.patient for one in placed]
    if patient is not None:
        patients = read_groups("patient", names, patient, below=[one.below for one in placed], what_is_named="cells")
    table = Path(patient).absolute() if isinstance(patient, (str, os.PathLike)) else None
    warn_of_others(listing.root, [path for path in listing.others if listing.root / path != table])
    cells = CellDataset.from_source(
        listing.source([one.path for one in placed], reading), labels, names, patients, class_names
    )
    return replace(cells, layout=layout)


def load_table(
    table: PathLike | Any,
    root: PathLike | None = None,
    *,
    path: str = "path",
    label: str = "label",
    patient: str | None = "patient",
    class_names: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> CellDataset:
    """Load images that a table lists, with a label each: a CSV file or a data frame.

    Parameters
    ----------
    table : path or data frame
        A CSV file, by comma, semicolon or tab, with a header; or a data frame of pandas or Polars, or a mapping of
        columns.
    root : path, optional
        The folder, or the archive, that the paths are relative to. Left out: the folder of the CSV file; of a
        frame, the working folder.
    path, label : str
        The columns of the paths and of the classes, in any case.
    patient : str or None
        The column of the patients. Where there is none named ``"patient"``, patients are unknown; None: the column is
        not read.
    class_names : sequence of str, optional
        The classes; labels are then names among them, or indices into them. Left out: the labels are the names, sorted.
    reading : Reading, optional
        As in `load_folder`.

    Returns
    -------
    CellDataset
        The images of the table, in its order; others that lie beside them are not read. `names` are the paths, with
        slashes; what absolute paths have in common is left out.

    Raises
    ------
    ArgumentError
        Where the table has no such column, or is no table.
    DataError
        Where an image is not there or stands in the table twice, a label or a path is missing or is no class, or some
        patients only are known.

    See Also
    --------
    load_folder : Where folders are the classes.

    Examples
    --------
    >>> import tempfile, pathlib, cellscan
    >>> from PIL import Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png"):
    ...     Image.new("RGB", (40, 40), "pink").save(root / name)
    >>> table = {"file": ["a.png", "b.png"], "class": ["infected", "healthy"], "patient": ["p1", "p2"]}
    >>> print(cellscan.load_table(table, root, path="file", label="class"))
    2 cells of 2 patients: healthy 1, infected 1
    """
    if isinstance(table, (str, os.PathLike)):
        where = os.fsdecode(table)
        header, rows = read_rows(as_path("table", table), "table of cells")
        columns: Any = {name: [row[name] or "" for row in rows] for name in header}
        beside = Path(where).parent
    elif hasattr(table, "__getitem__") and (hasattr(table, "columns") or isinstance(table, Mapping)):
        where, beside = "the table", Path()
        columns = {str(name): table[name] for name in getattr(table, "columns", table)}
        header = list(columns)
    else:
        raise ArgumentError(f"table is {table!r:.80}; expected a CSV file or a data frame")

    def column(argument: str, name: str) -> list[Any]:
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"{argument} is {name!r:.80}; expected the name of a column")
        fitting = [one for one in header if one == name]
        fitting = fitting or [one for one in header if one.strip().casefold() == name.strip().casefold()]
        if len(fitting) != 1:
            many = "several columns" if fitting else "no column"
            listed = ", ".join(map(repr, header[:12]))
            raise ArgumentError(f"{where} has {many} {name!r}; it has {listed}. Name the right one by {argument}=...")
        return as_list(argument, columns[fitting[0]])

    paths = [text.strip() for text in as_texts("path", column("path", path))]
    if "" in paths:
        raise DataError(f"{where}: row {paths.index('')} (from 0) has no path")
    owners = None
    if patient is not None and (patient != "patient" or "patient" in (name.strip().casefold() for name in header)):
        owners = column("patient", patient)
    labels, class_names = _labels(where, column("label", label), class_names)
    names, source = _listed(where, paths, beside if root is None else as_path("root", root), check_reading(reading))
    return CellDataset.from_source(source, labels, names, owners, class_names)


def _labels(where: str, values: list[Any], class_names: Sequence[str] | None) -> tuple[list[Any], Sequence[str]]:
    """Return labels and class names of a column."""
    texts = [text.strip() for text in as_texts("label", values)]
    if "" in texts:
        raise DataError(f"{where}: row {texts.index('')} (from 0) has no label")
    numbers = all(text.isdecimal() for text in texts)
    if class_names is None:
        return texts, sorted(set(texts), key=int if numbers else None)
    if numbers and not set(texts) <= set(class_names):  # a CSV file has no numbers, only texts
        return [int(text) for text in texts], class_names
    return texts, class_names


def _listed(where: str, paths: list[str], root: Path, reading: Reading) -> tuple[list[str], Source]:
    """Return names and a source of images at these paths, which lie in a folder or in an archive."""
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
        there = {image: image for image in listing.images}
        tops = {image.split("/")[0] for image in listing.images}
        if len(tops) == 1:  # one folder around everything, which a table need not name
            there = {image.split("/", 1)[-1]: image for image in listing.images} | there
        members = [there.get(posixpath.normpath(path)) for path in slashed]
        absent = [path for path, member in zip(paths, members, strict=True) if member is None]
        source = lambda: listing.source([member for member in members if member is not None], reading)  # noqa: E731
    if absent:
        such = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise DataError(
            f"{where}: {len(absent)} of {len(paths)} images are not in {root.absolute()}: {such}. "
            "Pass the folder that the paths are relative to as root=..."
        )
    names = [posixpath.normpath(path) for path in slashed]
    if names and all(os.path.isabs(name) for name in names):
        common = os.path.commonpath([os.path.dirname(name) for name in names])
        names = [os.path.relpath(name, common) for name in names]
    return names, source()


def _load_tfds(prepared: Path | None, data_dir: Path | None) -> CellDataset:
    missing = [name for name in ("tensorflow_datasets", "array_record") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"{' and '.join(missing)} cannot be imported here, so TFDS sets cannot be read "
            "(array_record has wheels for Linux only). Bring the publisher's archive and call "
            'load_malaria("cell_images.zip")'
        )
    from cellscan.data._malaria_builder import open_prepared, prepare

    return prepare(data_dir) if prepared is None else open_prepared(prepared)
