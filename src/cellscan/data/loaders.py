"""Files, archives and TFDS -> `CellDataset`."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from cellscan.data.cells import CellDataset
from cellscan.data.images import SUFFIXES, image_files
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
    for path in sorted(entries, key=lambda p: (len(p.parts), p)):
        label = path.parent.name.casefold()
        if label in CLASS_NAMES:
            kept.setdefault((CLASS_NAMES.index(label), path.name), path)
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
    tops = {path.parts[0] for path in entries}
    if len(tops) == 1 and entries and all(len(path.parts) > 2 for path in entries):
        below = {path: PurePosixPath(*path.parts[1:]) for path in entries}  # one folder around the classes
    else:
        below = {path: path for path in entries}
    stray = [path for path in entries if len(below[path].parts) < 2]
    if stray or not entries:
        found = f"{len(stray)} images lie outside them, such as {stray[0]}" if stray else "there are no images"
        raise DataError(f"{folder}: expected one sub-folder a class, with images in each; {found}")
    class_names = sorted({below[path].parts[0] for path in entries})
    paths = sorted(entries, key=lambda path: (class_names.index(below[path].parts[0]), path))
    names = ["/".join(below[path].parts[1:]) for path in paths]
    labels = [class_names.index(below[path].parts[0]) for path in paths]
    patients = None if patient is None else [_patient(name, patient) for name in names]
    return CellDataset.from_source(make(paths), labels, names, patients, class_names)


def _patient(name: str, patient: Mapping[str, str] | Callable[[str], str]) -> str:
    base = name.rsplit("/", 1)[-1]
    found = patient.get(name, patient.get(base)) if isinstance(patient, Mapping) else patient(base)
    if not isinstance(found, str) or not found:
        raise DataError(f"{name}: `patient` gives {found!r}; expected the patient's id, a string that is not empty")
    return found


def _list(root: Path) -> tuple[list[PurePosixPath], Callable[[Sequence[PurePosixPath]], Source]]:
    """Return the images below a folder or in a zip archive, and what makes a source of some of them."""
    if root.is_dir():
        files = [PurePosixPath(*file.relative_to(root).parts) for file in image_files(root)]
        return files, lambda chosen: FileSource([root.absolute() / path for path in chosen])
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive")
    try:
        with zipfile.ZipFile(root) as archive:
            members = {PurePosixPath(m.filename): m for m in archive.infolist() if _is_image(m)}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{root}: this is no whole zip archive ({error}). Was the download complete?") from error
    return list(members), lambda chosen: ZipSource(root.absolute(), [members[path] for path in chosen])


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not member.is_dir() and not hidden and path.suffix.lower() in SUFFIXES


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
