"""File names and the publisher's mapping files -> patients."""

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

    A name is ``<slide>_IMG_<date>_<time>_cell_<number>.png`` and the patient is the leading ``C``
    and its digits. The slide is not the patient: patient ``C47`` was photographed under two
    microscopes and has two.

    Parameters
    ----------
    name : str
        File name, with or without folders before it.

    Returns
    -------
    str
        Such as ``"C100"``; ``""`` where the name does not have that form.

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

    The files have no header and unquoted commas: a line is the slide up to the first comma, and
    every ``*.png`` behind it. Their first column is the slide; its leading ``C`` and digits are the
    patient.
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
                f"{file}, line {number}: the slide is {slide[:40]!r}; expected a name that begins with C and digits"
            )
        mapping.update(dict.fromkeys(_MAPPED.findall(rest), patient[0]))
    return mapping


def patients_of(names: Sequence[str], mapping_files: Iterable[str | os.PathLike[str]] = ()) -> list[str]:
    """Return the patient of every cell, and check that names and mapping files agree."""
    patients = [malaria_patient(name) for name in names]
    mapping: dict[str, str] = {}
    single = isinstance(mapping_files, (str, os.PathLike))
    for file in [mapping_files] if single else as_list("patient_files", mapping_files):
        mapping |= read_mapping(file)
    if not mapping:
        return patients
    for row, name in enumerate(names):
        mapped = mapping.get(name.rsplit("/", 1)[-1])
        if mapped is None:
            raise DataError(f"{name}: the mapping files do not name this cell; pass both of them, or none")
        if patients[row] and mapped != patients[row]:
            raise DataError(
                f"{name}: the mapping file says patient {mapped}, the file name says {patients[row]}; "
                "one of them has been edited. Correct it, or leave the mapping files out"
            )
        patients[row] = mapped
    return patients
