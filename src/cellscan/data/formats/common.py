"""What every annotation format is read into, and the values that annotation files are made of."""

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
"""What a value of another kind than expected raises."""

LABEL_FOLDERS = ("labels", "label", "label_2", "annotations", "annotation", "annots", "gt", "xmls", "obj_train_data")
"""Names, in any case, of folders that hold one annotation file a picture."""

OVERRUN = 0.05
"""How far shares of the image may lie outside 0 to 1, as rounding and augmentation leave them."""

_BREAK = re.compile(r"\r\n|\n|\r")

_FARTHEST = 1e7
"""Pixels: sides of boxes are float32, which hold whole numbers up to here."""


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
    rings : list of list of [x, y, x, y, ...]
        The polygons of every box, none where there is a box alone.
    points : list of [x, y]
    point_names : list of str or None
        Class of every point.
    size : (int, int) or None
        Width and height of the image, as annotated.
    either_way : bool
        Whether the format leaves open which of the two comes first.
    relative : bool
        Whether coordinates are shares of the image.
    stem : str
        Name without suffix under which the image may stand too.
    folder : Path or None
        Where the image lies, where the format knows; else it is sought.
    problem : str
        Why the field cannot be used; empty where it can.
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
        """Add a box, or raise ValueError where no box has such sides."""
        left, top, right, bottom = box
        if right < left or bottom < top:
            raise ValueError(f"{_told(box)} has a negative side")
        if not (-_FARTHEST <= left and -_FARTHEST <= top and right <= _FARTHEST and bottom <= _FARTHEST):
            raise ValueError(f"{_told(box)} lies outside any image")
        self.boxes.append(box)
        self.names.append(name)
        self.rings.append(rings or [])

    def add_polygon(self, rings: list[list[float]], name: str | None) -> None:
        """Add a polygon of one part or several, with the box around it."""
        self.add(around([value for ring in rings for value in ring]), name, rings)

    def add_point(self, x: float, y: float, name: str | None) -> None:
        """Add a point, or raise ValueError where it lies outside any image."""
        if max(abs(x), abs(y)) > _FARTHEST:
            raise ValueError(f"the point ({x:g}, {y:g}) lies outside any image")
        self.points.append([x, y])
        self.point_names.append(name)

    def fail(self, where: str, error: Exception | str) -> None:
        """Note why the field cannot be used; the first reason stays."""
        self.problem = self.problem or (str(error) if isinstance(error, DataError) else f"{where}: {reason(error)}")


@dataclass
class Parsed:
    """What was read of annotation files.

    Attributes
    ----------
    entries : list of Entry
    classes : list of str
        In the order of the file, or sorted where it has none.
    told : str
        What was understood, in words: which corner, which unit.
    notes : list of str
        What was left out, counted.
    used : set of str
        Other files that were read, such as a list of classes; below the folder, with slashes.
    whole : bool
        Whether images that lie there and have no entry are worth a note.
    """

    entries: list[Entry]
    classes: list[str]
    told: str = ""
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    whole: bool = True


class AnnotationFile:
    """One file, read and parsed once, when somebody asks.

    Attributes
    ----------
    path : Path
    name : str
        Below the folder that is read, with slashes.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path: Path = path
        self.name: str = name
        self._text = str(path)

    def __str__(self) -> str:
        return self._text  # kept: every object of every file is named by it

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
        """The first line that is not empty, or an empty text."""
        return next((line.strip() for line in self.lines if line.strip()), "")

    @functools.cached_property
    def json(self) -> Any:
        try:
            return json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: this is no JSON file that can be read ({error})") from error

    @functools.cached_property
    def xml(self) -> Element:
        from xml.etree import ElementTree

        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: the annotation cannot be read ({error})") from error
        plain = raw.replace(b"\0", b"")  # UTF-16 too
        if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:  # the only way to entities, external or nested
            raise DataError(f"{self.path}: declares a document type; annotations need none, and it is not read")
        try:
            return ElementTree.fromstring(raw)  # bytes: the encoding that it declares counts
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise DataError(f"{self.path}: this is no XML file that can be read ({error})") from error


class Place:
    """The folder that is read.

    Attributes
    ----------
    root : Path
    given : list of str or None
        Names of the classes in the order of their numbers, where the caller gave them.
    images : Path or None
        Where the caller said that images are.
    aside : set of str
        Absolute paths of files that are known to be something else.
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
        """Image files below the folder, with slashes."""
        return self._listed[0]

    @functools.cached_property
    def others(self) -> list[str]:
        """All other files."""
        return [name for name in self._listed[1] if os.path.abspath(self.root / name) not in self.aside]

    @functools.cached_property
    def stems(self) -> frozenset[str]:
        """Names of the images without folder and suffix, also below `images`."""
        elsewhere = [] if self.images is None else list_folder(self.images)[0]
        return frozenset(os.path.splitext(name)[0].rpartition("/")[2] for name in (*self.pictures, *elsewhere))

    def may_be_label(self, name: str) -> bool:
        """Whether a file lies where the annotation of one picture does: in such a folder, or named as an image is."""
        folder, _, own = name.rpartition("/")
        inside = any(part in LABEL_FOLDERS for part in folder.casefold().split("/"))
        return inside or os.path.splitext(own)[0] in self.stems or (not self.pictures and self.images is None)


@dataclass(frozen=True)
class Record:
    """One field to be written.

    Attributes
    ----------
    name : str
        With slashes; of a `Format`'s writer the path of the image.
    size : (int, int)
        Width and height.
    path : str or None
        The file of the image, where it is one.
    read : callable
        Returns its pixels.
    boxes, labels, polygons, points, point_labels
        As of a `Field`.
    scores : (n,) float or None
        Of detections.
    groups : (str, str, str)
        Patient, slide and laboratory.
    complete : sequence of bool
        For each class.
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
        """Return it under another name."""
        return replace(self, name=name)

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return os.path.splitext(self.name)[0]


@dataclass(frozen=True)
class Format:
    """One annotation format: how it is recognised, and how it is read.

    Attributes
    ----------
    name : str
        As ``load_fields(format=...)`` takes it.
    title : str
        As people call it.
    suffixes : tuple of str
        Of its annotation files.
    recognise : callable
        Whether a file is one of this format, by its content; a `DataError` where it cannot be parsed.
    read : callable
        The files of a folder -> `Parsed`. A `DataError` stops all; `Entry.fail` one field.
    a_picture : bool
        Whether a file speaks of one picture.
    write : callable or None
        Records and names of classes -> text of every file below the folder, and how much the format does not hold, by
        what it is.
    image_folder : str
        Where images stand beside what is written.
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
    """Call `add` with every line that is not empty, behind the first `skip`; a failure is noted with its line."""
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
    """Return the text of a file: UTF-8, or UTF-16 with a byte order mark."""
    try:
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the file cannot be read ({error}); expected text in UTF-8") from error


def around(values: Sequence[float]) -> list[float]:
    """Return the box around a polygon: x and y of its corners in turn."""
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"a polygon of {len(values)} numbers; expected x and y of three corners or more")
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]


def numbers(values: Iterable[Any]) -> list[float]:
    """Return finite numbers, or raise ValueError."""
    return [number(value) for value in values]


def number(value: Any) -> float:
    """Return a finite number, which may be written as a text, or raise ValueError."""
    kind = value.__class__  # exact kinds first: this is called for every side of every box
    if kind is str or kind is float or kind is int:
        found = float(value)
        if found - found == 0:  # finite
            return found
    raise ValueError(f"{value!r:.80} is no number")


def corners(values: Sequence[float]) -> list[float]:
    """Return the box between two corners in any order."""
    x1, y1, x2, y2 = values
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


def round_box(x: float, y: float, wide: float, high: float, degrees: float = 0.0) -> list[float]:
    """Return the box around an ellipse of these radii, which is turned about its middle."""
    if wide < 0 or high < 0:
        raise ValueError(f"an ellipse with the radii {wide:g} and {high:g} has a negative side")
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dx, dy = math.hypot(wide * c, high * s), math.hypot(wide * s, high * c)
    return [x - dx, y - dy, x + dx, y + dy]


def whole_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return width and height; None where they are not said, or 0."""
    if width in (None, "") or height in (None, ""):
        return None
    sides = number(width), number(height)
    if min(sides) < 0 or any(side != int(side) for side in sides):
        raise ValueError(f"a size of {width!r} x {height!r}; expected whole numbers of pixels")
    return (int(sides[0]), int(sides[1])) if min(sides) else None


def name_of(value: Any) -> str:
    """Return the name of a class or a file, or raise ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"{value!r:.80} is no name")
    return str(value).strip()


def sorted_names(entries: Iterable[Entry]) -> list[str]:
    """Return the classes of all boxes and points."""
    return sorted({name for e in entries for name in (*e.names, *e.point_names) if name is not None})


def reason(error: Exception | str) -> str:
    """Return what an error says, or what kind it is where its text says too little."""
    if isinstance(error, (str, ValueError)):
        return str(error)
    return f"an entry is not as expected ({type(error).__name__}: {error})"


def plain(value: float) -> str:
    """Return a number of float32 in the shortest text that means it.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.formats.common import plain
    >>> plain(np.float32(10.1)), plain(np.float32(3))
    ('10.1', '3')
    """
    return str(np.float32(value)).removesuffix(".0")


def lost_shapes(records: Sequence[Record]) -> dict[str, int]:
    """Return how many polygons, points and scores there are, for formats that hold none of them."""
    return {
        "polygons not written, their boxes are": sum(bool(len(own)) for one in records for own in one.polygons),
        "points not written": sum(len(one.points) for one in records),
        "scores not written": sum(len(one.scores) for one in records if one.scores is not None),
    }


def is_tag(text: str) -> bool:
    """Whether a text is the kind of prefix that Label Studio sets before names: eight hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{8}", text) is not None


def counted(count: int, what: str) -> list[str]:
    """Return a note about so many things, or none."""
    return [f"{count:,} {what}"] if count else []


def _told(box: Sequence[float]) -> str:
    left, top, right, bottom = box
    return f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
