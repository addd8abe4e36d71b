"""Files, archives and TFDS -> `CellDataset`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cellscan.data.cells import CellDataset
from cellscan.data.images import warn_of_others
from cellscan.data.listing import list_images
from cellscan.data.malaria import read_malaria
from cellscan.data.values import as_path, as_patient, as_texts, read_table
from cellscan.errors import ArgumentError, CellscanError, DataError

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


def load_folder(folder: PathLike, *, patient: Patients | None = None) -> CellDataset:
    """Load a folder, or a zip archive, with one sub-folder a class.

    Parameters
    ----------
    folder : path
        Its sub-folders are the classes, sorted by name; linked folders are followed. Hidden files and ``__MACOSX`` are
        passed over.
    patient : callable, mapping or path, optional
        A function from the path below the class folder, such as ``"p1_a.png"`` or ``"p1/a.png"``, to the patient. Or a
        mapping, or a CSV file with the header ``name,patient``, whose names are `names` or their ends behind a slash,
        such as the bare file name, where those fit one cell only. Left out: patients are unknown, and the set can be
        divided by cell only.

    Returns
    -------
    CellDataset
        `names` are paths with the class folder, such as ``"infected/p1_a.png"``.

    Raises
    ------
    DataError
        Where there is no such folder, images lie outside the class folders, or a patient is missing.

    Warns
    -----
    UserWarning
        Where files lie among the images that are not read.

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
    """
    listing = list_images(as_path("folder", folder))
    entries = listing.images
    below = {path: path for path in entries}
    if len({path.split("/")[0] for path in entries}) == 1 and all(path.count("/") > 1 for path in entries):
        below = {path: path.split("/", 1)[1] for path in entries}  # one folder around the classes
    stray = [path for path in entries if "/" not in below[path]]
    if stray or not entries:
        found = f"{len(stray)} images lie outside them, such as {stray[0]}" if stray else "there are no images"
        raise DataError(f"{folder}: expected one sub-folder a class, with images in each; {found}")
    class_of = {path: below[path].split("/", 1)[0] for path in entries}
    class_names = sorted(set(class_of.values()))
    paths = sorted(entries, key=lambda path: (class_of[path], path))
    names = [below[path] for path in paths]
    labels = [class_names.index(class_of[path]) for path in paths]
    patients = None if patient is None else _patients(names, patient)
    table = Path(patient).absolute() if isinstance(patient, (str, os.PathLike)) else None
    warn_of_others(listing.root, [path for path in listing.others if listing.root / path != table])
    return CellDataset.from_source(listing.source(paths), labels, names, patients, class_names)


def _patients(names: Sequence[str], patient: Any) -> list[str]:
    """Return the patient of each cell, from whatever tells it."""
    if isinstance(patient, (str, os.PathLike)):
        rows = read_table(as_path("patient", patient), "file of patients", ("name", "patient"))
        pairs = {(row["name"], as_patient(row["name"], row["patient"])) for row in rows}
        if len({name for name, _ in pairs}) < len(pairs):
            twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
            raise DataError(f"{patient}: {twice!r} stands in it twice, with different patients; expected one")
        patient = dict(pairs)
    if hasattr(patient, "items"):  # a mapping, or a pandas Series
        found = _look_up(names, dict(patient.items()))
    elif callable(patient):
        found = [_call(patient, name) for name in names]
    else:
        raise ArgumentError(
            f"patient is {patient!r:.80}; expected a function, a mapping, or a CSV file of name,patient"
        )
    owners = [as_patient(name, owner) for name, owner in zip(names, found, strict=True)]
    for name, owner, given in zip(names, owners, found, strict=True):
        if not owner:
            raise DataError(f"{name}: `patient` gives {given!r}; expected the patient's id, which is not empty")
    return owners


def _call(patient: Callable[[str], Any], name: str) -> Any:
    try:
        return patient(name.split("/", 1)[1])
    except CellscanError:
        raise
    except Exception as error:  # somebody else's function
        raise DataError(f"{name}: `patient` fails ({type(error).__name__}: {error})") from error


def _look_up(names: Sequence[str], patient: dict[Any, Any]) -> list[Any]:
    """Return what a mapping gives for each name; a key is a whole name, or an end of one that fits no other."""
    rows = {name: row for row, name in enumerate(names)}
    ends: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        parts = name.split("/")
        for start in range(1, len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(row)
    found: dict[int, Any] = {}
    whole: dict[int, Any] = {}
    for key, owner in zip(as_texts("names of patient", list(patient)), patient.values(), strict=True):
        key = key if key in rows else key.replace("\\", "/")
        fitting = ends.get(key, [])
        if key in rows:
            whole[rows[key]] = owner
        elif len(fitting) > 1:
            cells = ", ".join(repr(names[row]) for row in fitting[:4])
            raise DataError(
                f"`patient` names {key!r}, which fits {len(fitting)} cells: {cells}; give their whole names"
            )
        elif fitting:
            found[fitting[0]] = owner
    found |= whole
    return [found.get(row) for row in range(len(names))]


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
