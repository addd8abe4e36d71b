"""Load a `CellDataset` from files, archives, tables or TFDS."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from cellscan.data.cell_table import list_table
from cellscan.data.cells import CellDataset
from cellscan.data.groups import Groups, read_groups
from cellscan.data.images import warn_of_others
from cellscan.data.layouts import choose_splits, place
from cellscan.data.listing import list_images
from cellscan.data.malaria import read_malaria
from cellscan.data.reading import Reading, check_reading
from cellscan.data.values import as_path
from cellscan.errors import ArgumentError, DataError

PathLike: TypeAlias = "str | os.PathLike[str]"


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
        One of:

        - the publisher's ``cell_images.zip``, or its extracted folder;
        - Kaggle's nested copy of either, which contains every cell twice; the second, byte-identical copy is ignored;
        - the folder of a set that TFDS prepared as array_record, such as ``.../malaria/1.0.0``. TFDS does not store
          file names, so the patients are unknown.

        By default the TFDS builder of this package downloads the set once (337 MiB) and stores file names and patients.
    patient_files : sequence of paths
        The publisher's ``patientid_cellmapping_*.csv``. They are checked against the file names.
    data_dir : path, optional
        The folder in which TFDS stores its sets; used only without `source`.

    Returns
    -------
    CellDataset
        Classes ``("parasitized", "uninfected")``; the full set has 27,558 cells of 200 patients.
        `names` are file names, preceded by their folders where two cells have the same file name.

    Raises
    ------
    DataError
        If the files do not have one of these forms, or the download fails; the message then lists the manual steps.

    Warns
    -----
    UserWarning
        If there are files among the images that are not read.

    Notes
    -----
    Source of the images: U.S. National Library of Medicine; Rajaraman et al. (2018), PeerJ 6:e4568.
    The publisher balanced the classes: half of the cells are parasitized, which is not a clinical prevalence.

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
            raise DataError(
                "patient_files are given for a TFDS set; leave them out, or pass the archive or folder of the "
                "publisher as source"
            )
        return _load_tfds(root, None if data_dir is None else as_path("data_dir", data_dir))
    return read_malaria(root, patient_files)


def load_folder(
    folder: PathLike,
    *,
    patient: Groups | None = None,
    layout: str | None = None,
    split: str | Sequence[str] | None = None,
    reading: Reading | None = None,
) -> CellDataset:
    """Load a folder, or an archive, whose sub-folders are the classes.

    Parameters
    ----------
    folder : path
        A folder, or an archive: zip, tar, tar.gz, tar.bz2 or tar.xz. Classes are sorted by name. Links to files and
        folders are followed. Hidden files and ``__MACOSX`` are ignored.
    patient : callable, mapping or path, optional
        The patient of each cell, as one of:

        - a function from the path below the class folder, such as ``"p1_a.png"`` or ``"p1/a.png"``, to the patient;
        - a mapping from names to patients, or a CSV file with the header ``name,patient``. A name is one of `names`, or
          the last part of one, such as the bare file name, if it fits one cell only.

        By default the patients come from the layout; if it has none, they are unknown, and the set can be divided by
        cell only.
    layout : str, optional
        The meaning of each level of folders: ``"class/image"``, ``"class/patient/image"``, ``"patient/class/image"``,
        ``"split/class/image"``, or another sequence of ``class``, ``patient``, ``split`` and ``*``, which stands for a
        folder without a meaning. Folders below the last level are part of the name of an image.

        By default the layout is recognised, and `CellDataset.layout` contains it. One level of folders is the classes.
        Folders above them named train, test, val or similar are splits. A single folder that contains all others has
        no meaning. If several layouts are possible, such as patients above or below the classes, this is an error that
        lists them; if `patient` is given, the first level is the classes.
    split : str or sequence of str, optional
        The splits to load, by the names of their folders. Required if there are several.
    reading : Reading, optional
        Page, channel and window of the images, if the files do not define them, such as
        ``cellscan.Reading(window=(0, 4095))``.

    Returns
    -------
    CellDataset
        `names` are paths with the class folder, such as ``"infected/p1_a.png"`` or ``"train/infected/p1_a.png"``,
        without a single folder that contains all others. Images of any size become RGB uint8; they are decoded when
        they are first used, and one that cannot be read raises `ImageError` then.

    Raises
    ------
    DataError
        If there is no such folder, there are images outside the class folders, the layout is ambiguous or does not
        match the folders, there are several splits and `split` is not given, an archive is damaged, or a patient is
        missing.
    ArgumentError
        If `layout` is not a layout, there is no such split, or both `patient` and `layout` define patients.

    Warns
    -----
    UserWarning
        If there are files among the images that are not read.

    See Also
    --------
    load_table : Load images whose classes are in a table.

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
        raise ArgumentError(f"patient is given, and layout={layout!r} has patients too; expected only one of the two")
    placed = choose_splits(str(folder), placed, split, layout)
    class_names = sorted({image.class_name for image in placed})
    placed = sorted(placed, key=lambda image: (image.class_name, image.path))
    names = [image.name for image in placed]
    labels = [image.class_name for image in placed]
    patients = [image.patient for image in placed]
    if patient is not None:
        below = [image.below for image in placed]
        patients = read_groups("patient", names, patient, below=below, what_is_named="cells")
    table = Path(patient).absolute() if isinstance(patient, (str, os.PathLike)) else None
    warn_of_others(listing.root, [path for path in listing.others if listing.root / path != table])
    cells = CellDataset.from_source(
        listing.source([image.path for image in placed], reading), labels, names, patients, class_names
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
    """Load the images that a table lists with their labels: a CSV file or a data frame.

    Parameters
    ----------
    table : path or data frame
        A CSV file with a header, separated by comma, semicolon or tab, in UTF-8 or UTF-16; a data frame of pandas or
        Polars; or a mapping of columns.
    root : path, optional
        The folder, or the archive, that the paths are relative to. Default: the folder of the CSV file; for a data
        frame, the working folder.
    path, label : str
        The columns of the paths and of the classes, in upper or lower case.
    patient : str or None
        The column of the patients. If it is ``"patient"`` and there is no such column, the patients are unknown.
        With None, no column is read.
    class_names : sequence of str, optional
        The classes; the labels are then class names or indices. Default: the categories of a categorical column of a
        data frame, in their order; else the sorted labels.
    reading : Reading, optional
        As in `load_folder`.

    Returns
    -------
    CellDataset
        The images of the table, in its order; other images in the folder are not read. `names` are the paths, with
        slashes; for absolute paths, without their common folder.

    Raises
    ------
    ArgumentError
        If `table` is not a table, or has no such column.
    DataError
        If an image is missing or occurs twice in the table, a path or a label is missing, a label is not a class, or
        only some patients are known.

    See Also
    --------
    load_folder : Load images whose folders are the classes.

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
    return CellDataset.from_source(
        *list_table(
            table,
            root,
            path=path,
            label=label,
            patient=patient,
            class_names=class_names,
            reading=check_reading(reading),
        )
    )


def _load_tfds(prepared: Path | None, data_dir: Path | None) -> CellDataset:
    missing = [name for name in ("tensorflow_datasets", "array_record") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"{' and '.join(missing)} cannot be imported, so TFDS sets cannot be read "
            "(array_record has wheels for Linux only). Download the publisher's archive and call "
            'load_malaria("cell_images.zip")'
        )
    from cellscan.data._malaria_builder import open_prepared, prepare

    return prepare(data_dir) if prepared is None else open_prepared(prepared)
