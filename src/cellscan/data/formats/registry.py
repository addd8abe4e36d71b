"""The annotation formats by name, and the recognition of the format of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cellscan.data.formats import (
    bbbc041,
    chula,
    coco,
    csv_boxes,
    cvat,
    iml,
    kitti,
    label_studio,
    labelme,
    lists,
    nih,
    via,
    voc,
    yolo,
)
from cellscan.data.formats.common import LABEL_FOLDERS, AnnotationFile, Format, Place
from cellscan.errors import DataError

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (coco, voc, yolo, via, csv_boxes, labelme, cvat, label_studio, kitti, iml, bbbc041, nih, chula, lists)
}
"""All formats by name. A file that fits several has the first; YOLO is tried last, as any text file may be YOLO."""

SIDECAR = "cellscan.json"
"""The file in which `FieldDataset.save` stores what the annotation format cannot."""

_ORDER = sorted(FORMATS.values(), key=lambda kind: kind.name == "yolo")

_USUAL = {".xml": "voc", ".json": "coco", ".txt": "yolo", ".csv": "csv", ".tsv": "csv"}
"""The format that is assumed for a file that cannot be parsed, so that its reader raises the error."""

_SUFFIXES = {suffix for kind in _ORDER for suffix in kind.suffixes}

_ABOUT = re.compile(r"(readme|licen[cs]e|copying|notice|citation|changelog|requirements)", re.IGNORECASE)
"""Beginnings of the names of files that describe a data set and contain no boxes."""

_TABLES = frozenset(
    ".txt .xml .json .jsonl .ndjson .geojson .csv .tsv .yaml .yml .xls .xlsx .ods .mat .npy .npz .pkl .pickle .parquet "
    ".h5 .hdf5 .tfrecord .record .roi .names .data .lst .dat .db .sqlite".split()
)
"""Suffixes of files that may contain boxes."""


def recognise(place: Place, names: Iterable[str], wanted: str | None) -> tuple[Format, list[AnnotationFile]] | None:
    """Return the format of these files and the files that have it, or None if no file is an annotation.

    Parameters
    ----------
    place : Place
        The folder that is read.
    names : iterable of str
        Paths of the files relative to `place.root`.
    wanted : str or None
        Name of the format to read; files of other formats are skipped.

    Raises
    ------
    DataError
        Files have several formats, no file has the format `wanted`, or JSON files have an unknown format.
    """
    kinds: dict[str, list[AnnotationFile]] = {}
    left: list[AnnotationFile] = []
    broken: list[AnnotationFile] = []
    for name in names:
        base, suffix = name.rpartition("/")[2].lower(), os.path.splitext(name)[1].lower()
        if suffix not in _SUFFIXES or _ABOUT.match(base) or base in (*yolo.NOT_LABELS, SIDECAR):
            continue
        file = AnnotationFile(place.root / name, name)
        candidates = [form for form in _ORDER if suffix in form.suffixes]
        try:
            kind = next((form.name for form in candidates if form.recognise(file, place)), None)
        except DataError:
            broken.append(file)
        else:
            (left if kind is None else kinds.setdefault(kind, [])).append(file)
    # A file that cannot be parsed is given to the format of the other files, or to the usual one of its suffix. The
    # reader of that format then reports the error.
    for file in broken:
        suffix = file.path.suffix.lower()
        fitting = [kind for kind in (wanted, *kinds) if kind is not None and suffix in FORMATS[kind].suffixes]
        if fitting or suffix != ".txt" or place.may_be_label(file.name):
            kinds.setdefault(fitting[0] if fitting else _USUAL[suffix], []).append(file)
        else:
            left.append(file)
    _tidy(kinds, left, place)
    if wanted is not None:
        if wanted not in kinds:
            raise DataError(
                f"{place.root}: there is no file of the format {wanted!r} ({FORMATS[wanted].title}); "
                f"found {', '.join(FORMATS[kind].title for kind in kinds) or 'no file of a known format'}"
            )
        return FORMATS[wanted], kinds[wanted]
    if len(kinds) > 1:
        titles = " and ".join(FORMATS[kind].title for kind in FORMATS if kind in kinds)
        raise DataError(
            f"{place.root}: the folder has annotations in several formats, {titles}; choose one with "
            f"format={' or '.join(repr(kind) for kind in FORMATS if kind in kinds)}, or pass the path of its file or "
            "folder"
        )
    unknown = [file for file in left if file.path.suffix.lower() == ".json"]
    if not kinds and unknown:
        raise DataError(
            f"{unknown[0]}: the file is neither COCO (images, annotations, categories) nor another known format: "
            f"{', '.join(sorted(FORMATS))}. Export it as COCO, Pascal VOC or YOLO; to read only the images, pass "
            "boxes=False"
        )
    return next(((FORMATS[kind], files) for kind, files in kinds.items()), None)


def _tidy(kinds: dict[str, list[AnnotationFile]], left: list[AnnotationFile], place: Place) -> None:
    """Move unrecognised files to the format of the files around them, so that its reader reports what is wrong.

    This applies to formats with one annotation file for each image.
    """
    texts = [kind for kind in kinds if ".txt" in FORMATS[kind].suffixes and kind != "yolo"]
    if len(texts) == 1 and "yolo" in kinds and not any(file.first for file in kinds["yolo"]):
        kinds[texts[0]] += kinds.pop("yolo")  # Empty files belong to images without cells.
    for kind in sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind == "yolo")):
        if kind not in kinds or not FORMATS[kind].a_picture:
            continue
        folders = {file.path.parent for file in kinds[kind]}
        suffixes = FORMATS[kind].suffixes
        # Text formats have no signature, so a damaged first line may fit another text format.
        rivals = [other for other in kinds if other != kind and FORMATS[other].suffixes == suffixes == (".txt",)]
        for other in rivals:
            strays = [file for file in kinds[other] if file.path.parent in folders]
            if strays == kinds[other] and len(strays) <= len(kinds[kind]):
                kinds[kind] += kinds.pop(other)
        strays = [
            file
            for file in left
            if file.path.suffix.lower() in suffixes and file.path.parent in folders and file.stem in place.stems
        ]
        kinds[kind] += strays
        left[:] = [file for file in left if file not in strays]
        kinds[kind].sort(key=lambda file: file.name)


def is_about(name: str) -> bool:
    """Return True if a file describes a data set, such as a README, a licence or `SIDECAR`."""
    return _ABOUT.match(name.rpartition("/")[2]) is not None or name.rpartition("/")[2] == SIDECAR


def may_hold_boxes(name: str) -> bool:
    """Return True if the suffix of a file is that of an annotation file, and it does not describe a data set."""
    return os.path.splitext(name)[1].lower() in _TABLES and not is_about(name)


def is_label_folder(folder: Path) -> bool:
    """Return True if the name of a folder is one of those for annotations."""
    return folder.name.casefold() in LABEL_FOLDERS
