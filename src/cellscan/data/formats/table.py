"""The formats that are read, and which of them the files of a folder have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cellscan.data.formats import (
    bbbc041,
    chula,
    coco,
    cvat,
    iml,
    kitti,
    label_studio,
    labelme,
    lists,
    nih,
    tables,
    via,
    voc,
    yolo,
)
from cellscan.data.formats.common import LABEL_FOLDERS, AnnotationFile, Format, Place
from cellscan.errors import DataError

FORMATS: dict[str, Format] = {
    one.FORMAT.name: one.FORMAT
    for one in (coco, voc, yolo, via, tables, labelme, cvat, label_studio, kitti, iml, bbbc041, nih, chula, lists)
}
"""Every format by name. Where a file could be of two, the first counts; YOLO, whose texts have no mark, goes last."""

SIDECAR = "cellscan.json"
"""What `FieldDataset.save` writes beside the annotations, for what their format has no room for."""

_ORDER = sorted(FORMATS.values(), key=lambda one: one.name == "yolo")

_USUAL = {".xml": "voc", ".json": "coco", ".txt": "yolo", ".csv": "csv", ".tsv": "csv"}
"""The format whose error is raised for a file that cannot be parsed, where nothing else tells."""

_SUFFIXES = {suffix for one in _ORDER for suffix in one.suffixes}

_ABOUT = re.compile(r"(readme|licen[cs]e|copying|notice|citation|changelog|requirements)", re.IGNORECASE)
"""How names begin of files that speak about a data set; they hold no boxes."""

_TABLES = frozenset(
    ".txt .xml .json .jsonl .ndjson .geojson .csv .tsv .yaml .yml .xls .xlsx .ods .mat .npy .npz .pkl .pickle .parquet "
    ".h5 .hdf5 .tfrecord .record .roi .names .data .lst .dat .db .sqlite".split()
)
"""Suffixes of files that may hold boxes."""


def recognise(place: Place, names: Iterable[str], wanted: str | None) -> tuple[Format, list[AnnotationFile]] | None:
    """Return the format of these files, and those of them that are of it; None where there is none.

    Parameters
    ----------
    place : Place
    names : iterable of str
        Below `place.root`.
    wanted : str or None
        The name of a format: files of others are passed over.

    Raises
    ------
    DataError
        Where files are of several formats, or JSON files of none.
    """
    kinds: dict[str, list[AnnotationFile]] = {}
    left: list[AnnotationFile] = []
    broken: list[AnnotationFile] = []
    for name in names:
        own, suffix = name.rpartition("/")[2].lower(), os.path.splitext(name)[1].lower()
        if suffix not in _SUFFIXES or _ABOUT.match(own) or own in (*yolo.NOT_LABELS, SIDECAR):
            continue
        file = AnnotationFile(place.root / name, name)
        ways = [one for one in _ORDER if suffix in one.suffixes]
        try:
            kind = next((one.name for one in ways if one.recognise(file, place)), None)
        except DataError:
            broken.append(file)
        else:
            (left if kind is None else kinds.setdefault(kind, [])).append(file)
    for file in broken:  # the format of its neighbours says what is wrong, or the most usual one
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
                f"found {', '.join(FORMATS[kind].title for kind in kinds) or 'none that is read'}"
            )
        return FORMATS[wanted], kinds[wanted]
    if len(kinds) > 1:
        titles = " and ".join(FORMATS[kind].title for kind in FORMATS if kind in kinds)
        raise DataError(
            f"{place.root}: holds {titles}; give the path of the one that is meant, its file or its folder, or "
            f"format={' or '.join(repr(kind) for kind in FORMATS if kind in kinds)}"
        )
    strange = [file for file in left if file.path.suffix.lower() == ".json"]
    if not kinds and strange:
        raise DataError(
            f"{strange[0]}: neither COCO (images, annotations, categories) nor another format that is read: "
            f"{', '.join(sorted(FORMATS))}. Export it as COCO, Pascal VOC or YOLO; for the images alone, without "
            "boxes, pass boxes=False"
        )
    return next(((FORMATS[kind], files) for kind, files in kinds.items()), None)


def _tidy(kinds: dict[str, list[AnnotationFile]], left: list[AnnotationFile], place: Place) -> None:
    """Give a stray file among those of one picture each to the format of its neighbours, which says what is wrong."""
    texts = [kind for kind in kinds if ".txt" in FORMATS[kind].suffixes and kind != "yolo"]
    if len(texts) == 1 and "yolo" in kinds and not any(file.first for file in kinds["yolo"]):
        kinds[texts[0]] += kinds.pop("yolo")  # empty files: pictures without a cell
    for kind in sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind == "yolo")):
        if kind not in kinds or not FORMATS[kind].a_picture:
            continue
        folders = {file.path.parent for file in kinds[kind]}
        suffixes = FORMATS[kind].suffixes
        # Texts have no mark: one whose first line is damaged may look like another kind of text.
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
    """Whether a file speaks about a data set."""
    return _ABOUT.match(name.rpartition("/")[2]) is not None or name.rpartition("/")[2] == SIDECAR


def may_hold_boxes(name: str) -> bool:
    """Whether a file may hold boxes, by its suffix."""
    return os.path.splitext(name)[1].lower() in _TABLES and not is_about(name)


def is_label_folder(folder: Path) -> bool:
    """Whether a folder is named as those that hold annotations."""
    return folder.name.casefold() in LABEL_FOLDERS
