"""Annotation dialects: the text of one COCO, IML-Malaria, Pascal VOC or YOLO file -> entries with boxes.

What cannot be used is noted in its entry (`Entry.problem`), with file and place, so that one bad field need not stop
the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellscan.errors import DataError, MissingExtraError

_BAD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What a value of another kind than expected raises."""

_OVERRUN = 0.05
"""How far shares of the image may lie outside 0 to 1, as rounding and augmentation leave them."""

_FARTHEST = 1e7
"""Pixels: sides of boxes are float32, which hold whole numbers up to here."""

_FOREIGN = {
    "labelme": {"shapes", "imagePath"},
    "VGG Image Annotator": {"_via_img_metadata"},
    "CreateML": {"image", "annotations"},
    "Label Studio": {"data", "annotations"},
    "BBBC041": {"image", "objects"},
}
"""Other annotation files, by keys of the whole or of their first entry: to be named, not read."""


@dataclass
class Entry:
    """One annotated field, before it is compared with its image.

    Attributes
    ----------
    file : str
        Name of the image as the annotation says it.
    where : str
        Annotation file, for errors.
    boxes : list of [left, top, right, bottom]
    names : list of str or None
        Class of every box; None for one that is ignored.
    size : (int, int) or None
        Width and height of the image, as annotated.
    relative : bool
        Whether boxes are in shares of the image.
    stem : str
        Name without suffix under which the image may stand too.
    problem : str
        Why the field cannot be used; empty where it can.
    """

    file: str
    where: str
    boxes: list[list[float]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    size: tuple[int, int] | None = None
    relative: bool = False
    stem: str = ""
    problem: str = ""

    def add(self, box: list[float], name: str | None) -> None:
        """Add a box, or raise ValueError where no box has such sides."""
        left, top, right, bottom = box
        where = f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
        if right < left or bottom < top:
            raise ValueError(f"{where} has a negative side")
        if max(map(abs, box)) > _FARTHEST:
            raise ValueError(f"{where} lies outside any image")
        self.boxes.append(box)
        self.names.append(name)

    def fail(self, where: str, error: Exception | str) -> None:
        """Note why the field cannot be used; the first reason stays."""
        self.problem = self.problem or f"{where}: {_reason(error)}"


def read_text(path: Path) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with a byte order mark."""
    try:
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the file cannot be read ({error}); expected text in UTF-8") from error


def read_json(path: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries of a COCO or IML-Malaria file, and its classes."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON file that can be read ({error})") from error
    try:
        if isinstance(raw, dict) and {"images", "annotations", "categories"} <= set(raw):
            return _read_coco(raw, path)
        if isinstance(raw, list) and raw and all(isinstance(e, dict) and "image_name" in e for e in raw):
            return _read_iml(raw, path)
    except _BAD as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    first = raw[0] if isinstance(raw, list) and raw else raw
    keys = set(first) if isinstance(first, dict) else set()
    known = next((f", but what {tool} writes" for tool, wanted in _FOREIGN.items() if wanted <= keys), "")
    raise DataError(
        f"{path}: neither COCO (images, annotations, categories) nor IML-Malaria (a list of image_name and "
        f"objects){known}. Export it as COCO, Pascal VOC or YOLO"
    )


def _read_coco(raw: dict[str, Any], path: Path) -> tuple[list[Entry], list[str]]:
    kinds = {kind["id"]: _text(kind["name"]) for kind in raw["categories"]}
    entries: dict[Any, Entry] = {}
    for image in raw["images"]:
        if image["id"] in entries:
            raise ValueError(f"two images have the id {image['id']!r}")
        entry = entries[image["id"]] = Entry(_text(image["file_name"]), str(path))
        try:
            entry.size = _size(image.get("width"), image.get("height"))
        except _BAD as error:
            entry.fail(f"{path}, image {image['id']!r}", error)
    lost: list[Entry] = []
    for number, thing in enumerate(raw["annotations"]):
        where = f"{path}, annotation {thing.get('id', f'number {number}')!r}"
        entry = Entry("", str(path))
        try:
            if thing["image_id"] not in entries:
                lost.append(entry)
                raise ValueError(f"there is no image {thing['image_id']!r}")
            entry = entries[thing["image_id"]]
            if thing["category_id"] not in kinds:
                raise ValueError(f"there is no category {thing['category_id']!r}")
            crowd = thing.get("iscrowd") or 0
            if crowd not in (0, 1, "0", "1"):
                raise ValueError(f"iscrowd is {crowd!r}; expected 0 or 1")
            entry.add(_coco_box(thing), None if int(crowd) else kinds[thing["category_id"]])
        except _BAD as error:
            entry.fail(where, error)
    return [*entries.values(), *lost], list(kinds.values())


def _coco_box(thing: dict[str, Any]) -> list[float]:
    if thing.get("bbox"):
        x, y, w, h = map(_number, thing["bbox"])
        return [x, y, x + w, y + h]
    polygons = thing.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("it has neither a bbox nor polygons")
    return _around([value for polygon in polygons for value in polygon])


def _read_iml(raw: list[dict[str, Any]], path: Path) -> tuple[list[Entry], list[str]]:
    entries = []
    for item in raw:
        entry = Entry(_text(item["image_name"]), str(path))
        entries.append(entry)
        where = f"{path}, image {entry.file!r}"
        try:
            for number, thing in enumerate(item["objects"]):
                where = f"{path}, image {entry.file!r}, object {number}"
                x, y, w, h = (_number(thing["bbox"][key]) for key in ("x", "y", "w", "h"))
                entry.add([x, y, x + w, y + h], _text(thing["type"]))
        except _BAD as error:
            entry.fail(where, error)
    return entries, _sorted_names(entries)


def read_voc(files: Sequence[Path]) -> tuple[list[Entry], list[str]]:
    """Return the entries of Pascal VOC files, and their classes, sorted."""
    entries = []
    for file in files:
        entry = Entry(f"{file.stem}.jpg", str(file), stem=file.stem)
        entries.append(entry)
        try:
            _read_voc(file, entry)
        except DataError as error:
            entry.problem = str(error)
    return entries, _sorted_names(entries)


def _read_voc(file: Path, entry: Entry) -> None:
    from xml.etree import ElementTree

    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: the annotation cannot be read ({error})") from error
    plain = raw.replace(b"\0", b"")  # UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:  # the only way to entities, external or nested
        raise DataError(f"{file}: declares a document type; annotations need none, and it is not read")
    try:
        root = ElementTree.fromstring(raw)  # bytes: the encoding that it declares counts
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: this is no Pascal VOC annotation ({error})") from error
    if root.tag != "annotation":
        tool = " of CVAT" if root.tag == "annotations" else ""
        raise DataError(
            f"{file}: this is no Pascal VOC annotation but a file{tool} whose root is <{root.tag}>; "
            "export it as Pascal VOC, COCO or YOLO"
        )
    where = f"{file}"
    try:
        entry.file = (root.findtext("filename") or "").strip() or entry.file
        size = root.find("size")
        if size is not None:
            entry.size = _size(size.findtext("width"), size.findtext("height"))
        for number, thing in enumerate(root.findall("object"), 1):
            where = f"{file}, object {number}"
            box, name = thing.find("bndbox"), (thing.findtext("name") or "").strip()
            if box is None or not name:
                raise ValueError("it has no <bndbox>" if box is None else "it has no <name>")
            sides = [_number(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]
            said = (thing.findtext("difficult") or "0").strip().lower()
            if said not in _TRUE and said not in _FALSE:
                raise ValueError(f"<difficult> is {said!r}; expected 0 or 1")
            entry.add(sides, None if said in _TRUE else name)
    except _BAD as error:
        raise DataError(f"{where}: this is no Pascal VOC annotation ({_reason(error)})") from error


_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


def read_yolo(file: Path, entry: Entry, order: Sequence[str]) -> None:
    """Add the boxes of a YOLO label file to its entry."""
    entry.relative = True
    try:
        lines = read_text(file).splitlines()
    except DataError as error:
        entry.problem = str(error)
        return
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                entry.add(*_yolo_box(line.split(), order))
        except ValueError as error:
            entry.fail(f"{file}, line {number}", f"{line.strip()[:80]!r}: {error}")


def _yolo_box(columns: Sequence[str], order: Sequence[str]) -> tuple[list[float], str]:
    kind, *values = map(_number, columns)
    if kind != int(kind) or not 0 <= kind < len(order):
        raise ValueError(f"expected a class number from 0 to {len(order) - 1}")
    if not (len(values) in (4, 5) or (len(values) >= 6 and len(values) % 2 == 0)):
        raise ValueError(
            f"{len(columns)} columns; expected 5 (class, x, y, width, height), 6 with a score, or the class and x, y "
            "of each corner of a polygon"
        )
    if min(values) < -_OVERRUN or max(values) > 1 + _OVERRUN:
        raise ValueError("expected shares of the image from 0 to 1; are these pixels? Divide them by width and height")
    name = order[int(kind)]
    if len(values) > 5:
        return _around(values), name
    x, y, w, h = values[:4]
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2], name


def read_names(path: Path) -> list[str]:
    """Return the classes of a ``classes.txt``, a Darknet ``.names`` file or a ``data.yaml``, in their order."""
    if path.suffix.lower() in (".txt", ".names"):
        names = [line.strip() for line in read_text(path).rstrip().splitlines()]
        if not names or not all(names):
            raise DataError(
                f"{path}, line {names.index('') + 1 if names else 1}: it is empty; expected one class a line"
            )
        return names
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(f"{path}: reading it needs PyYAML; pass classes=[...] instead") from error
    try:
        names = yaml.safe_load(read_text(path))["names"]
        if isinstance(names, dict):
            names = [names[number] for number in range(len(names))]
        if not isinstance(names, list) or not names:
            raise ValueError("names is no list")
        return [str(name) for name in names]
    except (yaml.YAMLError, *_BAD) as error:
        raise DataError(f"{path}: expected the names of the classes under 'names'; pass classes=[...]") from error


def _around(values: Sequence[Any]) -> list[float]:
    """Return the box around a polygon: x and y of its corners in turn."""
    numbers = [_number(value) for value in values]
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"a polygon of {len(numbers)} numbers; expected x and y of three corners or more")
    return [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or not math.isfinite(float(value)):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return width and height; None where they are not said, or 0."""
    if width in (None, "") or height in (None, ""):
        return None
    sides = _number(width), _number(height)
    if min(sides) < 0 or any(side != int(side) for side in sides):
        raise ValueError(f"a size of {width!r} x {height!r}; expected whole numbers of pixels")
    return (int(sides[0]), int(sides[1])) if min(sides) else None


def _text(value: Any) -> str:
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"{value!r} is no name")
    return str(value).strip()


def _sorted_names(entries: Sequence[Entry]) -> list[str]:
    return sorted({name for entry in entries for name in entry.names if name is not None})


def _reason(error: Exception | str) -> str:
    if isinstance(error, (str, ValueError)):
        return str(error)
    return f"an entry is not as expected ({type(error).__name__}: {error})"
