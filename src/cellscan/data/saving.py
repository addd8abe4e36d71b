"""Writing fields and detections into a folder of images and annotations. A failure leaves no partial folder."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from cellscan.data.formats.common import Record
from cellscan.data.formats.registry import FORMATS, SIDECAR, is_about
from cellscan.data.formats.yolo import NOT_LABELS
from cellscan.data.images import is_image_name
from cellscan.data.values import as_path
from cellscan.errors import ArgumentError, CellscanError, DataError, check_choice

WRITTEN = tuple(name for name, kind in FORMATS.items() if kind.write is not None)
"""Names of the formats that can be written."""


def save_records(
    folder: str | os.PathLike[str],
    format: str,
    records: Sequence[Record],
    class_names: Sequence[str],
    notes: Sequence[str],
    *,
    images: bool,
) -> tuple[str, ...]:
    """Write a folder as described in `cellscan.FieldDataset.save`; return counts of what the format cannot store."""
    check_choice("format", format, WRITTEN)
    kind = FORMATS[format]
    assert kind.write is not None
    target = Path(os.path.abspath(as_path("folder", folder)))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArgumentError(f"{target}: it already exists; pass the path of a new or empty folder")
    if not target.parent.is_dir():
        raise ArgumentError(f"{target}: there is no folder {target.parent}; create it first")
    unsafe = [name for name in class_names if name.strip() != name or len(name.splitlines()) != 1]
    if unsafe:
        raise DataError(
            f"the class name {unsafe[0]!r} begins or ends with a space or has several lines; rename it with "
            "rename_classes"
        )
    records = _named(records, one_each=kind.a_picture)
    texts, lost = kind.write(records, class_names)
    texts[SIDECAR] = _sidecar(records, class_names, notes)
    part = target.with_name(f".{target.name[:50]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        for name, text in texts.items():
            _with_folder(part / name).write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        for record in records if images else ():
            _write_image(_with_folder(part / kind.image_folder / record.name), record)
        if target.is_dir():
            target.rmdir()  # It is empty, as checked above.
        part.rename(target)
    except OSError as error:
        raise DataError(f"{target}: the folder cannot be written ({error}); nothing was left there") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return tuple(f"{count:,} {what}" for what, count in lost.items() if count)


def _named(records: Sequence[Record], *, one_each: bool) -> list[Record]:
    """Return the records with the file names of their images; with `one_each` also their label files are distinct."""
    named: dict[str, Record] = {}
    for record in records:
        suffix = ".png" if record.path is None else os.path.splitext(record.path)[1]
        fits = record.name.lower().endswith(suffix.lower()) and is_image_name(record.name)
        name = record.name if fits else record.name + suffix
        parts = PurePosixPath(name).parts
        if "\\" in name or name != "/".join(parts) or any(part.startswith((".", "/", "__MACOSX")) for part in parts):
            raise DataError(
                f"the field name {record.name!r} is not a valid relative file path; rename the field, with / between "
                "folders and no part that begins with a dot"
            )
        key = (os.path.splitext(name)[0] if one_each else name).casefold()
        stem = os.path.splitext(parts[-1])[0]
        if one_each and (is_about(stem) or f"{stem.lower()}.txt" in NOT_LABELS):
            raise DataError(
                f"{record.name!r}: its label file {stem}.txt would be read as a description of the data set; rename "
                "the field"
            )
        if key in named:
            raise DataError(
                f"the fields {named[key].name!r} and {record.name!r} would share a file; rename one of them"
            )
        named[key] = record.under(name)
    return list(named.values())


def _sidecar(records: Sequence[Record], class_names: Sequence[str], notes: Sequence[str]) -> str:
    fields: dict[str, dict[str, Any]] = {}
    for record in records:
        kinds = ("patient", "slide", "laboratory")
        values: dict[str, Any] = {kind: group for kind, group in zip(kinds, record.groups, strict=True) if group}
        if not all(record.complete):
            values["complete"] = [name for name, full in zip(class_names, record.complete, strict=True) if full]
        fields[record.name] = values
    return json.dumps({"class_names": list(class_names), "notes": list(notes), "fields": fields}, indent=1) + "\n"


def _with_folder(path: Path) -> Path:
    """Create the folder of a file and return the path of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_image(path: Path, record: Record) -> None:
    try:
        if record.path is not None:
            shutil.copyfile(record.path, path)
            return
        encoded = io.BytesIO()
        Image.fromarray(record.read()).save(encoded, "PNG", compress_level=1)
        path.write_bytes(encoded.getvalue())
    except CellscanError:
        raise
    except OSError as error:
        raise DataError(f"{record.name}: the image cannot be written ({error})") from error
