"""CVAT for images 1.1: one XML file with images and their shapes; docs.cvat.ai."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellscan.data.formats.common import (
    BAD,
    AnnotationFile,
    Entry,
    Format,
    Parsed,
    Place,
    around,
    counted,
    name_of,
    number,
    numbers,
    round_box,
    sorted_names,
    whole_size,
)
from cellscan.errors import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def _recognise(file: AnnotationFile, place: Place) -> bool:
    return file.xml.tag == "annotations"


def _read(files: Sequence[AnnotationFile], place: Place) -> Parsed:
    result = Parsed([], [], "corners in pixels as written; the first pixel spans 0 to 1")
    masks = 0
    for file in files:
        root = file.xml
        if root.find("track") is not None:
            raise DataError(
                f"{file}: it contains tracks of a video, which are not supported; export it as CVAT for images, COCO "
                "or Pascal VOC"
            )
        result.classes += [(label.text or "").strip() for label in root.iterfind("./meta//labels/label/name")]
        for row, image in enumerate(root.iterfind("image")):
            try:
                entry = Entry(name_of(image.get("name")), str(file))
            except ValueError as error:
                raise DataError(f"{file}, image number {row}: {error}") from error
            result.entries.append(entry)
            masks += _read_one(file, image, entry)
    named = sorted_names(result.entries)
    # Boxes may have labels that are no longer in the project, because a label was renamed.
    result.classes = list(dict.fromkeys([*filter(None, result.classes), *named])) if result.classes else named
    result.notes += counted(masks, "masks read as the box around them")
    return result


def _read_one(file: AnnotationFile, image: Element, entry: Entry) -> int:
    """Add the shapes of an image; return the number of masks."""
    where, masks = f"{file}, image {entry.file!r}", 0
    try:
        entry.size = whole_size(image.get("width"), image.get("height"))
        for row, thing in enumerate(image):
            where = f"{file}, image {entry.file!r}, shape {row} <{thing.tag}>"
            if thing.tag == "tag":  # A tag labels the whole image.
                continue
            name, turn = name_of(thing.get("label")), number(thing.get("rotation") or 0)
            if thing.tag == "box":
                left, top, right, bottom = (number(thing.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
                if turn:
                    ring = _turned(left, top, right, bottom, turn)
                    entry.add(around(ring), name, [ring])
                else:
                    entry.add([left, top, right, bottom], name)
            elif thing.tag == "polygon":
                entry.add_polygon([_points(thing)], name)
            elif thing.tag == "points":
                flat = _points(thing)
                for x, y in zip(flat[::2], flat[1::2], strict=True):
                    entry.add_point(x, y, name)
            elif thing.tag == "ellipse":
                x, y, x_radius, y_radius = (number(thing.get(key)) for key in ("cx", "cy", "rx", "ry"))
                entry.add(round_box(x, y, x_radius, y_radius, turn), name)
            elif thing.tag == "mask":
                left, top, width, height = (number(thing.get(key)) for key in ("left", "top", "width", "height"))
                entry.add([left, top, left + width, top + height], name)
                masks += 1
            else:
                raise ValueError(
                    "shapes of this kind are not supported; expected a box, polygon, ellipse, mask or points"
                )
    except BAD as error:
        entry.fail(where, error)
    return masks


def _points(thing: Element) -> list[float]:
    """Return the coordinates x, y, x, y, ... of a text such as 1,2;3,4."""
    pairs = [pair.split(",") for pair in (thing.get("points") or "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"points are {thing.get('points')!r:.80}; expected x,y;x,y")
    return numbers(side.strip() for pair in pairs for side in pair)


def _turned(left: float, top: float, right: float, bottom: float, degrees: float) -> list[float]:
    """Return the four corners of a box that is rotated about its centre, as x, y, x, y, ..."""
    import math

    if right < left or bottom < top:
        raise ValueError(f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has a negative side")
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (left + right) / 2, (top + bottom) / 2
    ring: list[float] = []
    for dx, dy in ((left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y)):
        ring += [x + dx * c - dy * s, y + dx * s + dy * c]
    return ring


FORMAT = Format("cvat", "CVAT for images", (".xml",), _recognise, _read)
