"""Find the patients of the NIH cells from file names and the publisher's mapping files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cellscan.data.values import as_list
from cellscan.errors import ArgumentError, DataError

_NAME = re.compile(r"(C\d+)[^/]*?_IMG_\w+_cell_\w+(\.\w+)?$")
_MAPPED = re.compile(r"[A-Za-z0-9_]+\.png")


def malaria_patient(name: str) -> str:
    """Return the patient of a cell of the NIH malaria set, from its file name.

    Parameters
    ----------
    name : str
        File name, with or without folders: ``<slide>_IMG_<date>_<time>_cell_<number>.png``. The patient is the leading
        ``C`` and its digits. A patient may have several slides: ``C47`` has two, from two microscopes.

    Returns
    -------
    str
        The patient, such as ``"C100"``; ``""`` if the name does not have this form.

    Examples
    --------
    >>> from cellscan import malaria_patient
    >>> malaria_patient("C100P61ThinF_IMG_20150918_144104_cell_162.png")
    'C100'
    >>> malaria_patient("holiday.png")
    ''
    """
    if not isinstance(name, (str, os.PathLike)):
        raise ArgumentError(f"name is {name!r:.80}; expected a file name")
    match = _NAME.match(os.fspath(name).replace("\\", "/").rsplit("/", 1)[-1])
    return match[1] if match else ""


def read_mapping(file: str | os.PathLike[str]) -> dict[str, str]:
    """Return {file name: patient} from one of the publisher's mapping files.

    The files have no header, and their commas are not quoted. Each line contains the slide, up to the first comma, and
    then the names of its cells, ``*.png``. The patient is the leading ``C`` of the slide and its digits.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{file}: the mapping file cannot be read ({error})") from error
    mapping: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip(" ,"):
            continue
        slide, _, rest = line.partition(",")
        patient = re.match(r"C\d+", slide.strip())
        if patient is None:
            raise DataError(
                f"{file}, line {number}: the slide is {slide[:40]!r}; expected a name that begins with C and digits, "
                "such as C100P61ThinF"
            )
        mapping.update(dict.fromkeys(_MAPPED.findall(rest), patient[0]))
    return mapping


def patients_of(names: Sequence[str], mapping_files: Iterable[str | os.PathLike[str]] = ()) -> list[str]:
    """Return the patient of every cell; raise `DataError` if file names and mapping files disagree."""
    patients = [malaria_patient(name) for name in names]
    mapping: dict[str, str] = {}
    single = isinstance(mapping_files, (str, os.PathLike))
    for file in [mapping_files] if single else as_list("patient_files", mapping_files, ordered=False):
        mapping |= read_mapping(file)
    if not mapping:
        return patients
    for row, name in enumerate(names):
        mapped = mapping.get(name.rsplit("/", 1)[-1])
        if mapped is None:
            raise DataError(f"{name}: the mapping files do not contain this cell; pass both files, or none")
        if patients[row] and mapped != patients[row]:
            raise DataError(
                f"{name}: the patient is {mapped} in the mapping file, but {patients[row]} in the file name. "
                "Correct the one that was edited, or leave the mapping files out"
            )
        patients[row] = mapped
    return patients
