"""Classes and helpers that all annotation formats share: entries, files, records, and the parsing of values."""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscan.data.images import list_folder
from cellscan.errors import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

BAD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""Errors that a value of an unexpected type or range raises."""

LABEL_FOLDERS = ("labels", "label", "label_2", "annotations", "annotation", "annots", "gt", "xmls", "obj_train_data")
"""Names (lower case) of folders that contain one annotation file for each image."""

OVERRUN = 0.05
"""How far shares of the image may be outside 0 to 1. Rounding and augmentation cause small excesses."""

_BREAK = re.compile(r"\r\n|\n|\r")

_FARTHEST = 1e7
"""Largest coordinate in pixels. Boxes are float32, which represents whole numbers exactly up to about this value."""


@dataclass
class Entry:
    """One annotated field, as read from the annotation file, before its image is opened.

    Attributes
    ----------
    file : str
        Name or path of the image, as in the annotation.
    where : str
        Path of the annotation file, for error messages.
    boxes : list of [left, top, right, bottom]
    names : list of str or None
        Class of each box; None for an ignored box.
    rings : list of list of [x, y, x, y, ...]
        Polygons of each box; an empty list for a box without polygons.
    points : list of [x, y]
    point_names : list of str or None
        Class of each point; None for an ignored point.
    size : (int, int) or None
        Width and height of the image, as annotated.
    either_way : bool
        True if the format does not define whether width or height comes first.
    relative : bool
        True if coordinates are shares of the image, False if they are pixels.
    stem : str
        Another name of the image, without suffix.
    folder : Path or None
        Folder of the image if the format defines it. None: the image is searched for.
    problem : str
        Error message of a field that cannot be used; empty if it can.
    """

    file: str
    where: str
    boxes: list[list[float]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    rings: list[list[list[float]]] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    point_names: list[str | None] = field(default_factory=list)
    size: tuple[int, int] | None = None
    either_way: bool = False
    relative: bool = False
    stem: str = ""
    folder: Path | None = None
    problem: str = ""

    def add(self, box: list[float], name: str | None, rings: list[list[float]] | None = None) -> None:
        """Add a box, or raise ValueError if it has a negative side or extreme coordinates."""
        left, top, right, bottom = box
        if right < left or bottom < top:
            raise ValueError(f"{_text(box)} has a negative side")
        if not (-_FARTHEST <= left and -_FARTHEST <= top and right <= _FARTHEST and bottom <= _FARTHEST):
            raise ValueError(f"{_text(box)} lies outside any image; expected at most {_FARTHEST:,.0f} pixels")
        self.boxes.append(box)
        self.names.append(name)
        self.rings.append(rings or [])

    def add_polygon(self, rings: list[list[float]], name: str | None) -> None:
        """Add a cell by its polygon, which may have several parts, together with the box around it."""
        self.add(around([value for ring in rings for value in ring]), name, rings)

    def add_point(self, x: float, y: float, name: str | None) -> None:
        """Add a point, or raise ValueError if its coordinates are extreme."""
        if max(abs(x), abs(y)) > _FARTHEST:
            raise ValueError(f"the point ({x:g}, {y:g}) lies outside any image")
        self.points.append([x, y])
        self.point_names.append(name)

    def fail(self, where: str, error: Exception | str) -> None:
        """Store why the field cannot be used. Only the first reason is stored."""
        self.problem = self.problem or (str(error) if isinstance(error, DataError) else f"{where}: {reason(error)}")


@dataclass
class Parsed:
    """The content of annotation files.

    Attributes
    ----------
    entries : list of Entry
    classes : list of str
        In the order of the file, or sorted if the file has no order.
    coordinates : str
        A description of the coordinates: which corners or sides, in which unit.
    notes : list of str
        Counts of what was left out.
    used : set of str
        Other files that were read, such as a list of classes; paths relative to the folder, with slashes.
    whole : bool
        True if images without an entry are to be counted in a note.
    """

    entries: list[Entry]
    classes: list[str]
    coordinates: str = ""
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    whole: bool = True


class AnnotationFile:
    """An annotation file. It is read and parsed once, at the first access to its content.

    Attributes
    ----------
    path : Path
    name : str
        Path relative to the folder that is read, with slashes.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path: Path = path
        self.name: str = name
        self._text = str(path)

    def __str__(self) -> str:
        return self._text  # Stored, because the location of each object contains it.

    @functools.cached_property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0].rpartition("/")[2]

    @functools.cached_property
    def text(self) -> str:
        return read_text(self.path)

    @functools.cached_property
    def lines(self) -> list[str]:
        return _BREAK.split(self.text)

    @functools.cached_property
    def first(self) -> str:
        """The first line that is not empty, or an empty string."""
        return next((line.strip() for line in self.lines if line.strip()), "")

    @functools.cached_property
    def json(self) -> Any:
        try:
            return json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: it cannot be read as JSON ({error})") from error

    @functools.cached_property
    def xml(self) -> Element:
        from xml.etree import ElementTree

        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: the annotation cannot be read ({error})") from error
        without_nulls = raw.replace(b"\0", b"")  # Text in UTF-16 has a null byte for each ASCII letter.
        # Entities, external or nested, can only be declared here. They could read other files or fill the memory.
        if b"<!DOCTYPE" in without_nulls or b"<!ENTITY" in without_nulls:
            raise DataError(
                f"{self.path}: it declares a document type, which is not allowed in annotations; remove <!DOCTYPE ...>"
            )
        try:
            return ElementTree.fromstring(raw)  # Bytes, so that the declared encoding is used.
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise DataError(f"{self.path}: it cannot be read as XML ({error})") from error


class Place:
    """The folder that is read, with the options of the caller.

    Attributes
    ----------
    root : Path
    given : list of str or None
        Names of the classes in the order of their numbers, if the caller gave them.
    images : Path or None
        Folder of the images, if the caller gave it.
    aside : set of str
        Absolute paths of files that are not annotations, such as tables of patients.
    """

    def __init__(
        self,
        root: Path,
        given: list[str] | None = None,
        images: Path | None = None,
        aside: frozenset[str] = frozenset(),
    ) -> None:
        self.root: Path = root
        self.given: list[str] | None = given
        self.images: Path | None = images
        self.aside: frozenset[str] = aside

    @functools.cached_property
    def _listed(self) -> tuple[list[str], list[str]]:
        return list_folder(self.root)

    @property
    def pictures(self) -> list[str]:
        """Image files in the folder and its subfolders, as relative paths with slashes."""
        return self._listed[0]

    @functools.cached_property
    def others(self) -> list[str]:
        """All other files, except those in `aside`."""
        return [name for name in self._listed[1] if os.path.abspath(self.root / name) not in self.aside]

    @functools.cached_property
    def stems(self) -> frozenset[str]:
        """Names without folder and suffix of the images in `root` and `images`."""
        elsewhere = [] if self.images is None else list_folder(self.images)[0]
        return frozenset(os.path.splitext(name)[0].rpartition("/")[2] for name in (*self.pictures, *elsewhere))

    def may_be_label(self, name: str) -> bool:
        """Return True if a file may be the annotation of one image: by its folder, or because an image has its name."""
        folder, _, file = name.rpartition("/")
        inside = any(part in LABEL_FOLDERS for part in folder.casefold().split("/"))
        return inside or os.path.splitext(file)[0] in self.stems or (not self.pictures and self.images is None)


@dataclass(frozen=True)
class Record:
    """One field to be written.

    Attributes
    ----------
    name : str
        Name of the field, with slashes. `Format.write` receives the relative path of the image.
    size : (int, int)
        Width and height in pixels.
    path : str or None
        Path of the image file; None if the image is not a file.
    read : callable
        Function that returns the pixels.
    boxes, labels, polygons, points, point_labels
        As in `Field`.
    scores : (n,) float or None
        Scores of detections; None for annotations.
    groups : (str, str, str)
        Patient, slide and laboratory.
    complete : sequence of bool
        One entry for each class, as in `FieldDataset.complete`.
    """

    name: str
    size: tuple[int, int]
    path: str | None
    read: Callable[[], np.ndarray]
    boxes: np.ndarray
    labels: np.ndarray
    polygons: Sequence[Sequence[np.ndarray]]
    points: np.ndarray
    point_labels: np.ndarray
    scores: np.ndarray | None = None
    groups: tuple[str, str, str] = ("", "", "")
    complete: Sequence[bool] = ()

    def under(self, name: str) -> Record:
        """Return a copy with another name."""
        return replace(self, name=name)

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return os.path.splitext(self.name)[0]


@dataclass(frozen=True)
class Format:
    """One annotation format: functions that recognise, read and write it.

    Attributes
    ----------
    name : str
        Name for ``load_fields(format=...)``.
    title : str
        Usual name of the format, for messages.
    suffixes : tuple of str
        Suffixes of its annotation files.
    recognise : callable
        Returns True if the content of a file has this format. Raises `DataError` if the file cannot be parsed.
    read : callable
        Reads the files of a folder into `Parsed`. A `DataError` ends the reading; `Entry.fail` marks one field only.
    a_picture : bool
        True if there is one annotation file for each image.
    write : callable or None
        Takes records and class names. Returns the text of each file by relative path, and counts of what the format
        cannot store. None if the format is only read.
    image_folder : str
        Folder for the images beside the written annotations.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    recognise: Callable[[AnnotationFile, Place], bool]
    read: Callable[[Sequence[AnnotationFile], Place], Parsed]
    a_picture: bool = False
    write: Callable[[Sequence[Record], Sequence[str]], tuple[dict[str, str], dict[str, int]]] | None = None
    image_folder: str = "images"


def read_lines(file: AnnotationFile, entry: Entry, add: Callable[[str], Any], skip: int = 0) -> None:
    """Call `add` with each non-empty line after the first `skip` lines. Store failures with their line numbers."""
    try:
        lines = file.lines
    except DataError as error:
        entry.fail(str(file), error)
        return
    for row, line in enumerate(lines, 1):
        if row > skip and line.strip():
            try:
                add(line)
            except BAD as error:
                entry.fail(f"{file}, line {row}", f"{line.strip()[:80]!r}: {reason(error)}")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark."""
    try:
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the file cannot be read ({error}); expected text in UTF-8") from error


def around(values: Sequence[float]) -> list[float]:
    """Return the box around a polygon that is given as x, y, x, y, ..."""
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"a polygon has {len(values)} numbers; expected x and y of at least three corners")
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]


def numbers(values: Iterable[Any]) -> list[float]:
    """Return values as finite numbers, or raise ValueError."""
    return [number(value) for value in values]


def number(value: Any) -> float:
    """Return a number, or a text with a number, as a finite float, or raise ValueError."""
    kind = value.__class__  # Faster than isinstance; this function is called for each side of each box.
    if kind is str or kind is float or kind is int:
        result = float(value)
        if result - result == 0:  # False for NaN and infinity.
            return result
    raise ValueError(f"{value!r:.80} is not a number")


def corners(values: Sequence[float]) -> list[float]:
    """Return the box of two opposite corners, in any order."""
    x1, y1, x2, y2 = values
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


def round_box(x: float, y: float, x_radius: float, y_radius: float, degrees: float = 0.0) -> list[float]:
    """Return the box around an ellipse with this centre and these radii, rotated about the centre."""
    if x_radius < 0 or y_radius < 0:
        raise ValueError(f"an ellipse with the radii {x_radius:g} and {y_radius:g} has a negative side")
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dx, dy = math.hypot(x_radius * c, y_radius * s), math.hypot(x_radius * s, y_radius * c)
    return [x - dx, y - dy, x + dx, y + dy]


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return width and height, or None if they are missing or 0."""
    if width in (None, "") or height in (None, ""):
        return None
    sides = number(width), number(height)
    if min(sides) < 0 or any(side != int(side) for side in sides):
        raise ValueError(f"it has a size of {width!r} x {height!r}; expected whole numbers of pixels")
    return (int(sides[0]), int(sides[1])) if min(sides) else None


def name_of(value: Any) -> str:
    """Return the name of a class or a file as a text, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"{value!r:.80} is not a name")
    return str(value).strip()


def sorted_names(entries: Iterable[Entry]) -> list[str]:
    """Return the sorted names of the classes of all boxes and points."""
    return sorted({name for e in entries for name in (*e.names, *e.point_names) if name is not None})


def reason(error: Exception | str) -> str:
    """Return the message of an error; for errors with a short message also their type."""
    if isinstance(error, (str, ValueError)):
        return str(error)
    return f"an entry is not as expected ({type(error).__name__}: {error})"


def plain(value: float) -> str:
    """Return the shortest text that represents a float32 number exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.formats.common import plain
    >>> plain(np.float32(10.1)), plain(np.float32(3))
    ('10.1', '3')
    """
    return str(np.float32(value)).removesuffix(".0")


def lost_shapes(records: Sequence[Record]) -> dict[str, int]:
    """Return the numbers of polygons, points and scores, for formats that store none of them."""
    return {
        "polygons not written, only their boxes": sum(bool(len(rings)) for rec in records for rings in rec.polygons),
        "points not written": sum(len(record.points) for record in records),
        "scores not written": sum(len(record.scores) for record in records if record.scores is not None),
    }


def is_tag(text: str) -> bool:
    """Return True for the prefix that Label Studio adds to file names: eight hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{8}", text) is not None


def counted(count: int, what: str) -> list[str]:
    """Return a list with the note "<count> <what>", or an empty list if the count is 0."""
    return [f"{count:,} {what}"] if count else []


def _text(box: Sequence[float]) -> str:
    left, top, right, bottom = box
    return f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
