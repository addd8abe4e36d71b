"""Files, archives and TFDS -> `CellDataset`."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from cellscan.data.cells import CellDataset
from cellscan.data.images import image_files, is_image_name
from cellscan.data.patients import patients_of
from cellscan.data.sources import FileSource, Source, ZipSource
from cellscan.errors import DataError

CLASS_NAMES = ("parasitized", "uninfected")
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
        The publisher's ``cell_images.zip``, its extracted folder, Kaggle's nested copy of either
        (whose second copy of every cell is passed over), or the folder of a set that TFDS prepared
        as array_record (``.../malaria/1.0.0``; TFDS kept no file names there, so patients stay
        unknown). Left out: the set goes through this package's own TFDS builder, which downloads
        it once (337 MiB) and keeps file names and patients.
    patient_files : sequence of paths
        The publisher's ``patientid_cellmapping_*.csv``; they are checked against the file names.
    data_dir : path, optional
        Where TFDS keeps its sets, if `source` is left out.

    Returns
    -------
    CellDataset
        Classes ``("parasitized", "uninfected")``; the full set has 27,558 cells of 200 patients.

    Raises
    ------
    DataError
        Where the files do not have that form, or the download fails; it lists the manual steps.

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
    if source is None or (Path(source) / "dataset_info.json").exists():
        if patient_files:
            raise DataError("patient_files go with an archive or a folder; TFDS sets carry their own patients")
        return _load_tfds(source, data_dir)
    entries, make = _list(Path(source))
    labels, kept = [], {}
    for path in sorted(entries, key=lambda path: (path.count("/"), path)):  # a nested copy comes later
        label, name = path.split("/")[-2:] if "/" in path else ("", path)
        if label.casefold() in CLASS_NAMES:
            kept.setdefault((CLASS_NAMES.index(label.casefold()), name), path)
    labels = [label for label, _ in sorted(kept)]
    if len(set(labels)) < 2:
        raise DataError(
            f"{source}: expected images in two folders named Parasitized and Uninfected, found "
            f"{len(labels)} in {'one of them' if labels else 'neither'}. Other folders of classes: load_folder"
        )
    names = [name for _, name in sorted(kept)]
    patients = patients_of(names, patient_files)
    return CellDataset.from_source(make([kept[key] for key in sorted(kept)]), labels, names, patients, CLASS_NAMES)


def load_folder(folder: PathLike, *, patient: Mapping[str, str] | Callable[[str], str] | None = None) -> CellDataset:
    """Load a folder, or a zip archive, with one sub-folder a class.

    Parameters
    ----------
    folder : path
        Its sub-folders are the classes, sorted by name. Hidden files, ``__MACOSX`` and files that
        are no images by their suffix are passed over.
    patient : mapping or callable, optional
        From file name (for a mapping also the path below the class folder) to patient. Left out:
        patients are unknown, and the set can be divided by cell only.

    Returns
    -------
    CellDataset
        `names` are paths below the class folder.

    Raises
    ------
    DataError
        Where there is no such folder, images lie outside the class folders, or a patient is missing.

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
    entries, make = _list(Path(folder))
    below = {path: path for path in entries}
    if len({path.split("/")[0] for path in entries}) == 1 and all(path.count("/") > 1 for path in entries):
        below = {path: path.split("/", 1)[1] for path in entries}  # one folder around the classes
    stray = [path for path in entries if "/" not in below[path]]
    if stray or not entries:
        found = f"{len(stray)} images lie outside them, such as {stray[0]}" if stray else "there are no images"
        raise DataError(f"{folder}: expected one sub-folder a class, with images in each; {found}")
    class_of = {path: rest.split("/", 1)[0] for path, rest in below.items()}
    class_names = sorted(set(class_of.values()))
    paths = sorted(entries, key=lambda path: (class_of[path], path))
    names = [below[path].split("/", 1)[1] for path in paths]
    labels = [class_names.index(class_of[path]) for path in paths]
    patients = None if patient is None else [_patient(name, patient) for name in names]
    return CellDataset.from_source(make(paths), labels, names, patients, class_names)


def _patient(name: str, patient: Mapping[str, str] | Callable[[str], str]) -> str:
    base = name.rsplit("/", 1)[-1]
    found = patient.get(name, patient.get(base)) if isinstance(patient, Mapping) else patient(base)
    if not isinstance(found, str) or not found:
        raise DataError(f"{name}: `patient` gives {found!r}; expected the patient's id, a string that is not empty")
    return found


def _list(root: Path) -> tuple[list[str], Callable[[Sequence[str]], Source]]:
    """Return the images below a folder or in a zip archive, and what makes a source of some of them."""
    if root.is_dir():
        base = root.absolute()
        return image_files(root), lambda chosen: FileSource([os.path.join(base, path) for path in chosen])
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive")
    try:
        with zipfile.ZipFile(root) as archive:
            members = {m.filename: m for m in archive.infolist() if is_image_name(m.filename)}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{root}: this is no whole zip archive ({error}). Was the download complete?") from error
    return list(members), lambda chosen: ZipSource(root.absolute(), [members[path] for path in chosen])


def _load_tfds(prepared: PathLike | None, data_dir: PathLike | None) -> CellDataset:
    missing = [name for name in ("tensorflow_datasets", "array_record") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"{' and '.join(missing)} cannot be imported here, so TFDS sets cannot be read "
            "(array_record has wheels for Linux only). Bring the publisher's archive and call "
            'load_malaria("cell_images.zip")'
        )
    from cellscan.data._malaria_builder import open_prepared, prepare

    return prepare(data_dir) if prepared is None else open_prepared(Path(prepared))
