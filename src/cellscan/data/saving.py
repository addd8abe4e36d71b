"""Fields and detections -> a folder of images and annotations, whole or not at all."""

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
from cellscan.data.formats.table import FORMATS, SIDECAR, is_about
from cellscan.data.formats.yolo import NOT_LABELS
from cellscan.data.images import is_image_name
from cellscan.data.values import as_path
from cellscan.errors import ArgumentError, CellscanError, DataError, check_choice

WRITTEN = tuple(name for name, kind in FORMATS.items() if kind.write is not None)
"""Names of the formats that are written, too."""


def save_records(
    folder: str | os.PathLike[str],
    format: str,
    records: Sequence[Record],
    class_names: Sequence[str],
    notes: Sequence[str],
    *,
    images: bool,
) -> tuple[str, ...]:
    """Write a folder as `cellscan.FieldDataset.save` says; return what the format does not hold."""
    check_choice("format", format, WRITTEN)
    kind = FORMATS[format]
    assert kind.write is not None
    target = Path(os.path.abspath(as_path("folder", folder)))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArgumentError(f"{target}: this is there already; name a new folder, or an empty one")
    if not target.parent.is_dir():
        raise ArgumentError(f"{target}: there is no folder {target.parent}; make it first")
    strange = [name for name in class_names if name.strip() != name or len(name.splitlines()) != 1]
    if strange:
        raise DataError(f"the class {strange[0]!r} begins or ends with a space or has several lines; rename it")
    records = _named(records, one_each=kind.a_picture)
    texts, lost = kind.write(records, class_names)
    texts[SIDECAR] = _sidecar(records, class_names, notes)
    part = target.with_name(f".{target.name[:50]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        for name, text in texts.items():
            _place(part / name).write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        for record in records if images else ():
            _write_image(_place(part / kind.image_folder / record.name), record)
        if target.is_dir():
            target.rmdir()  # an empty one
        part.rename(target)
    except OSError as error:
        raise DataError(f"{target}: the folder cannot be written ({error}); nothing of it was") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return tuple(f"{count:,} {what}" for what, count in lost.items() if count)


def _named(records: Sequence[Record], *, one_each: bool) -> list[Record]:
    """Return the records under names of files, each of one image."""
    found: dict[str, Record] = {}
    for record in records:
        suffix = ".png" if record.path is None else os.path.splitext(record.path)[1]
        fits = record.name.lower().endswith(suffix.lower()) and is_image_name(record.name)
        name = record.name if fits else record.name + suffix
        parts = PurePosixPath(name).parts
        if "\\" in name or name != "/".join(parts) or any(part.startswith((".", "/", "__MACOSX")) for part in parts):
            raise DataError(f"{record.name!r} is no path of a file below the folder; rename the field")
        key = (os.path.splitext(name)[0] if one_each else name).casefold()
        stem = os.path.splitext(parts[-1])[0]
        if one_each and (is_about(stem) or f"{stem.lower()}.txt" in NOT_LABELS):
            raise DataError(f"{record.name!r}: a file {stem}.txt is taken to speak about the set; rename the field")
        if key in found:
            raise DataError(
                f"the fields {found[key].name!r} and {record.name!r} would share a file; rename one of them"
            )
        found[key] = record.under(name)
    return list(found.values())


def _sidecar(records: Sequence[Record], class_names: Sequence[str], notes: Sequence[str]) -> str:
    fields: dict[str, dict[str, Any]] = {}
    for record in records:
        kept: dict[str, Any] = {
            what: own for what, own in zip(("patient", "slide", "laboratory"), record.groups, strict=True) if own
        }
        if not all(record.complete):
            kept["complete"] = [name for name, full in zip(class_names, record.complete, strict=True) if full]
        fields[record.name] = kept
    return json.dumps({"class_names": list(class_names), "notes": list(notes), "fields": fields}, indent=1) + "\n"


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_image(path: Path, record: Record) -> None:
    try:
        if record.path is not None:
            shutil.copyfile(record.path, path)
            return
        whole = io.BytesIO()
        Image.fromarray(record.read()).save(whole, "PNG", compress_level=1)
        path.write_bytes(whole.getvalue())
    except CellscanError:
        raise
    except OSError as error:
        raise DataError(f"{record.name}: the image cannot be written ({error})") from error
