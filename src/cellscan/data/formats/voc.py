"""Pascal VOC: one XML file for each image. Everingham et al., The Pascal Visual Object Classes Challenge (2010)."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    Record,
    lost_shapes,
    number,
    numbers,
    plain,
    reason,
    sorted_names,
    whole_size,
)
from cellscan.errors import DataError

_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return file.xml.tag == "annotation"


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    entries = []
    for file in files:
        entry = Entry(f"{file.path.stem}.jpg", str(file), stem=file.path.stem)
        entries.append(entry)
        try:
            _read_one(file, entry)
        except DataError as error:
            entry.fail(str(file), error)
    used = {name for name in place.others if "ImageSets" in name.split("/")} if len(files) > 1 else set()
    notes = []
    if _counts_from_one(entries):
        notes.append(
            "the smallest left or top coordinate is 1, and some boxes end at the right or lower edge: this set may "
            "count pixels from 1; corners are kept as written"
        )
    coordinates = "corners in pixels as written; the first pixel spans 0 to 1"
    return Parsed(entries, sorted_names(entries), coordinates, notes, used)


def _counts_from_one(entries: Sequence[Entry]) -> bool:
    """Return True if coordinates seem to count pixels from 1: none is smaller, and some equal the image size."""
    near = [side for entry in entries for box in entry.boxes for side in box[:2]]
    far = [
        side == end
        for entry in entries if entry.size is not None
        for box in entry.boxes for side, end in zip(box[2:], entry.size, strict=True)
    ]  # fmt: skip
    return bool(near) and min(near) == 1 and any(far)


def _read_one(file: AnnotationFile, entry: Entry) -> None:
    root = file.xml
    if root.tag != "annotation":
        raise DataError(f"{file}: this is not a Pascal VOC annotation: its root is <{root.tag}>; expected <annotation>")
    where = f"{file}"
    try:
        entry.file = (root.findtext("filename") or "").strip() or entry.file
        size = root.find("size")
        if size is not None:
            entry.size = whole_size(size.findtext("width"), size.findtext("height"))
        for row, thing in enumerate(root.findall("object"), 1):
            where = f"{file}, object {row}"
            box, name = thing.find("bndbox"), (thing.findtext("name") or "").strip()
            if box is None or not name:
                raise ValueError("it has no <bndbox>" if box is None else "it has no <name>")
            sides = [number(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]
            difficult = (thing.findtext("difficult") or "0").strip().lower()
            if difficult not in _TRUE and difficult not in _FALSE:
                raise ValueError(f"<difficult> is {difficult!r}; expected 0 or 1")
            polygon = thing.find("polygon")  # Roboflow and LabelMe export polygons as x1, y1, x2, y2, ...
            ring = [] if polygon is None else numbers(side.text for side in polygon)
            rings = [ring] if len(ring) >= 6 and not len(ring) % 2 else None
            entry.add(sides, None if difficult in _TRUE else name, rings)
    except BAD as error:
        raise DataError(f"{where}: this is not a valid Pascal VOC annotation ({reason(error)})") from error


def _write(records: Sequence[Record], class_names: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    texts = {}
    for record in records:
        width, height = record.size
        lines = ["<annotation>", f"  <filename>{escape(record.name)}</filename>"]
        lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
        for box, label in zip(record.boxes, record.labels.tolist(), strict=True):
            sides = "".join(
                f"<{key}>{plain(side)}</{key}>" for key, side in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            name = escape(str(class_names[label])) if label >= 0 else "ignored"
            lines.append(
                f"  <object><name>{name}</name><difficult>{int(label < 0)}</difficult><bndbox>{sides}</bndbox></object>"
            )
        texts[f"Annotations/{record.stem}.xml"] = "\n".join([*lines, "</annotation>", ""])
    return texts, lost_shapes(records)


FORMAT = Format(
    "voc", "Pascal VOC", (".xml",), _recognise, _read, a_picture=True, write=_write, image_folder="JPEGImages"
)
