"""Results of `Detector.predict`: a sequence of fields, each of which is a sequence of detections."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from cellscan.data.cells import CellDataset
from cellscan.data.cutting import in_pixels
from cellscan.data.formats.common import Record
from cellscan.data.images import read_rgb
from cellscan.data.saving import save_records
from cellscan.data.tables import Column, Table, csv_rows, find_rows, make_frame, write_csv
from cellscan.data.values import check_whole
from cellscan.errors import DataError, ImageError
from cellscan.notebook import TextInNotebook
from cellscan.predictions import Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from cellscan.pages.markup import Html
    from cellscan.pages.parts import ShownField


_CUT = 0.05
"""Largest distance from the border, in cell diameters, at which a box still ends at it; boxes are about as exact."""

_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24, False)), np.sin(np.linspace(0, 2 * np.pi, 24, False))], 1)
"""Points (24, 2) of the unit circle."""


@dataclass(frozen=True)
class SeenImage:
    """Reads an image again and raises an error if its pixels have changed.

    A loop may have overwritten the file with the next image.

    Attributes
    ----------
    image : path, or callable that returns pixels
    name : str
        Name of the image in error messages.
    checksum : int
        CRC-32 of the pixels at the first reading.

    Examples
    --------
    >>> import zlib, numpy as np
    >>> from cellscan.detections import SeenImage
    >>> image = np.zeros((4, 4, 3), np.uint8)
    >>> SeenImage(lambda: image, "a", zlib.crc32(image))().shape
    (4, 4, 3)
    """

    image: Any
    name: str
    checksum: int

    def __call__(self) -> np.ndarray:
        pixels = np.asarray(self.image()) if callable(self.image) else read_rgb(self.image, where=self.name)
        if zlib.crc32(pixels) != self.checksum:
            raise ImageError(f"{self.name}: the file has changed since its cells were detected; predict it again")
        return pixels

    def file(self) -> str | None:
        """Return the path of the image after checking its pixels; None if the image does not come from a file.

        Examples
        --------
        >>> from cellscan.detections import SeenImage
        >>> SeenImage(len, "a", 0).file() is None
        True
        """
        if callable(self.image):
            return None
        self()
        return os.fsdecode(self.image)


@dataclass(frozen=True)
class Detection:
    """One detected cell: its box, class and score.

    Attributes
    ----------
    box : tuple[float, float, float, float]
        Box as xyxy, in pixels of the original field.
    label : int
        Index into the detector's `class_names`.
    label_name : str
        Name of the class.
    score : float
        Score in [0, 1].

    Examples
    --------
    >>> found = det.predict(fields)[0]  # see the example of `cellscan.Detector`
    >>> found[0].label_name == found.class_names[found[0].label]
    True
    """

    box: tuple[float, float, float, float]
    label: int
    label_name: str
    score: float


@dataclass(frozen=True, repr=False, eq=False)
class Detections(Sequence[Detection]):
    """The detections of one field, in descending order of score; a sequence of `Detection`.

    An integer index returns one detection. A slice, a mask or an array of integers returns `Detections`.

    Attributes
    ----------
    name : str
        File name or other name of the field.
    size : tuple[int, int]
        Width and height of the field, in pixels.
    boxes : numpy.ndarray
        (n, 4) float32 xyxy, in pixels of the original field.
    labels : numpy.ndarray
        (n,) int32, indices into `class_names`.
    scores : numpy.ndarray
        (n,) float32 in [0, 1].
    class_names : tuple[str, ...]
        Names of the classes.
    cell_diameter : float or None
        Diameter of the red cells, given or estimated, in pixels of the field. None if it was not requested, or if the
        field shows no red cells.
    lit_area : float
        Area of the field outside its dark border, in pixels; 0 if it was not measured.
    lit : numpy.ndarray or None
        (h, w) bool at reduced size, False in the dark border; None if there is no dark border or it was not measured.
    appearance : tuple[float, ...]
        Numbers that describe the appearance of the field, for `cellscan.screen` to compare; empty if they were not
        computed.
    on_background : float
        Share of the detections above the detector's thresholds whose box is nearly as bright as the background, so that
        it has no cell; 0 if it was not measured. Such boxes are left out if they are at most half of all.

    Examples
    --------
    >>> found = det.predict(fields)[0]  # see the example of `cellscan.Detector`
    >>> found.boxes.shape[1], len(found) == len(found.scores), len(found[found.scores > 1])
    (4, True, 0)
    """

    name: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]
    image: Any = field(repr=False)
    cell_diameter: float | None = None
    lit_area: float = 0.0
    lit: np.ndarray | None = field(default=None, repr=False)
    appearance: tuple[float, ...] = field(default=(), repr=False)
    on_background: float = 0.0

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        rows = find_rows(index, len(self), "detections")
        if not isinstance(rows, int):
            return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], scores=self.scores[rows])
        left, top, right, bottom = map(float, self.boxes[rows])
        label = int(self.labels[rows])
        return Detection((left, top, right, bottom), label, self.class_names[label], float(self.scores[rows]))

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        counts = [f"{name} {(self.labels == k).sum():,}" for k, name in enumerate(self.class_names)]
        return f"Detections({self.name!r}, {', '.join(counts)})"

    @property
    def cut(self) -> np.ndarray:
        """Which cells the border of the field cuts, (n,) bool; `screen` does not count them.

        These are the boxes that end within a twentieth of a cell diameter, and a pixel, of the border of the image; and
        those whose ellipse, larger by this distance, has a point in the dark border of an eyepiece.

        Examples
        --------
        >>> found = det.predict(fields)[0]
        >>> len(found[~found.cut]) <= len(found)
        True
        """
        return self.find_cut(self.boxes)

    def find_cut(self, boxes: np.ndarray) -> np.ndarray:
        """Return which of other boxes of this field, such as annotated ones, its border cuts; see `cut`.

        Parameters
        ----------
        boxes : (m, 4) array
            Left, top, right, bottom in pixels of the field.

        Returns
        -------
        (m,) bool

        Examples
        --------
        >>> import numpy as np
        >>> found = det.predict(fields)[0]
        >>> found.find_cut(np.array([[0, 40, 20, 60], [30, 40, 50, 60]])).tolist()
        [True, False]
        """
        margin = 1 + _CUT * self._typical_diameter()
        low, high = margin, np.array(self.size) - margin
        boxes = np.reshape(boxes, (-1, 4))
        cut = (boxes[:, :2] <= low).any(1) | (boxes[:, 2:] >= high).any(1)
        if self.lit is None:
            return cut
        middles, radii = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 + margin
        points = middles[:, None] + radii[:, None] * _CIRCLE
        small = np.array(self.lit.shape[::-1])
        x, y = np.moveaxis(np.clip(points * (small / self.size), 0, small - 1).astype(int), 2, 0)
        return cut | ~self.lit[y, x].all(1)

    def _typical_diameter(self) -> float:
        """Return the diameter of the red cells, or the median side of the boxes if it is not known; 0 without boxes."""
        if self.cell_diameter is not None or not len(self):
            return self.cell_diameter or 0.0
        return float(np.median(np.sqrt((self.boxes[:, 2:] - self.boxes[:, :2]).prod(1))))

    def with_labels(self, labels: np.ndarray) -> Detections:
        """Return a copy of the detections with other labels, such as those of a second model.

        Parameters
        ----------
        labels : (n,) int
            Indices into `class_names`.

        Examples
        --------
        >>> found = det.predict(fields)[0]
        >>> int(found.with_labels(found.labels * 0).labels.sum())
        0
        """
        new_labels = np.array(labels, np.int32)
        if new_labels.shape != self.labels.shape or not np.isin(new_labels, range(len(self.class_names))).all():
            raise DataError(
                f"labels have the shape {new_labels.shape}; expected {len(self)} labels, each an index into class_names"
            )
        return replace(self, labels=new_labels)

    def pixels(self) -> np.ndarray:
        """Read the image of the field again and return it as an (H, W, 3) uint8 array.

        Raises
        ------
        ImageError
            If the file has changed since the prediction, or can no longer be read.

        Examples
        --------
        >>> found = det.predict(fields)[0]
        >>> found.pixels().shape
        (96, 128, 3)
        """
        return np.asarray(self.image()) if callable(self.image) else read_rgb(self.image, where=self.name)

    def plot(self) -> Figure:
        """Draw the field and its boxes; boxes of the last class are highlighted.

        Examples
        --------
        >>> found = det.predict(fields)[0]
        >>> len(found.plot().axes)
        1
        """
        from cellscan.plots import plot_fields

        image = self.pixels()
        return plot_fields([(self.name, image, self.boxes, self.labels, self.scores)], self.class_names)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file with one line per box: field, left, top, right, bottom, class, score.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "found.csv"
        >>> det.predict(fields)[0].to_csv(file)
        >>> file.read_text().splitlines()[0]
        'field,left,top,right,bottom,class,score'
        """
        write_csv(path, csv_rows(_table([self], self.class_names)))

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per box and the columns of `to_csv`.

        The sides, in pixels, and the score are float64; ``class`` is categorical, with all class names.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> det.predict(fields)[0].to_dataframe().columns.tolist()
        ['field', 'left', 'top', 'right', 'bottom', 'class', 'score']
        """
        return make_frame(_table([self], self.class_names))

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file with the field and its boxes, as `FieldDetections.to_html` does.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "found.html"
        >>> det.predict(fields)[0].to_html(file)
        >>> file.read_text().count("data:image/jpeg")
        1
        """
        FieldDetections((self,), (), self.class_names).to_html(path)

    def crops(self, *, scale: float = 1.0) -> CellDataset:
        """Cut the boxes out of the field as cells; each cell has the label of its detection.

        Parameters
        ----------
        scale : float
            Sides of a crop as a part of those of its box, in (0, 1]. 0.886 gives a square crop the area of the cell,
            so that it shows less of the background and of other cells. The bundled classifier, which was trained on
            cells without background, finds more infected cells in such crops.

        Raises
        ------
        DataError
            If there are no detections.
        ArgumentError
            If `scale` is out of range.
        ImageError
            If the image of the field has changed or can no longer be read.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> image, boxes = np.zeros((40, 60, 3), np.uint8), np.array([[5, 5, 25, 30]], np.float32)
        >>> one = np.zeros(1, np.int32)
        >>> names = ("red blood cell", "infected")
        >>> found = cellscan.Detections("a", (60, 40), boxes, one, np.ones(1, np.float32), names, image)
        >>> found.crops()[0].image.shape
        (25, 20, 3)
        >>> found.crops(scale=0.8)[0].image.shape
        (21, 16, 3)
        """
        if not len(self):
            raise DataError(f"{self.name}: there are no detections to cut out")
        corners = in_pixels(self.boxes, scale)
        image = self.pixels()
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        cells = [image[top:bottom, left:right] for left, top, right, bottom in corners.tolist()]
        names = [f"{self.name}_{number:03d}" for number in range(len(cells))]
        labels = [self.class_names[label] for label in self.labels]
        return CellDataset.from_arrays(
            cells, labels, class_names=self.class_names, patients=[self.name] * len(cells), names=names
        )


@dataclass(frozen=True, repr=False, eq=False)
class FieldDetections(TextInNotebook, Sequence[Detections]):
    """The detections of all fields, in the order of the input.

    An integer index returns the detections of one field. A slice, a mask or an array of integers returns
    `FieldDetections`.

    Attributes
    ----------
    fields : tuple[Detections, ...]
        The detections of each field.
    failed : tuple[Failure, ...]
        Fields of the input that were skipped with ``on_error="skip"``. A selection keeps all of them.
    class_names : tuple[str, ...]
        Names of the classes.

    Examples
    --------
    >>> found = det.predict(fields)  # see the example of `cellscan.Detector`
    >>> len(found), found.failed
    (4, ())
    """

    fields: tuple[Detections, ...]
    failed: tuple[Failure, ...]
    class_names: tuple[str, ...]

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detections: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> FieldDetections: ...
    def __getitem__(self, index: Any) -> Detections | FieldDetections:
        index = find_rows(index, len(self), "fields")
        if isinstance(index, int):
            return self.fields[index]
        return FieldDetections(tuple(self.fields[row] for row in index), self.failed, self.class_names)

    def __len__(self) -> int:
        return len(self.fields)

    def __str__(self) -> str:
        counts = [
            f"{name} {sum(int((detections.labels == k).sum()) for detections in self.fields):,}"
            for k, name in enumerate(self.class_names)
        ]
        failed = f"; {len(self.failed)} failed" if self.failed else ""
        return f"{len(self)} fields: {', '.join(counts)}{failed}\nResearch use only, not a medical device."

    def __repr__(self) -> str:
        return f"FieldDetections({len(self)} fields, failed={len(self.failed)})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file with one line per box, as `Detections.to_csv`, and one per field that was skipped.

        The column ``error`` contains why a field was skipped; these lines come last. A field without detections has no
        line.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "found.csv"
        >>> found = det.predict(fields)
        >>> found.to_csv(file)
        >>> file.read_text().splitlines()[0]
        'field,left,top,right,bottom,class,score,error'
        """
        write_csv(path, csv_rows(self._table()))

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with the rows and columns of `to_csv`, typed as in `Detections.to_dataframe`.

        A field that was skipped has its reason in ``error``, and NaN in all columns but the first.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> found = det.predict(fields)
        >>> len(found.to_dataframe()) == sum(map(len, found)) + len(found.failed)
        True
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        boxes, skipped = _table(self.fields, self.class_names), [None] * len(self.failed)
        names = [*boxes.pop("field").values, *(failure.name for failure in self.failed)]
        return {
            "field": Column(names),
            **{name: replace(column, values=[*column.values, *skipped]) for name, column in boxes.items()},
            "error": Column([None] * (len(names) - len(skipped)) + [failure.reason for failure in self.failed]),
        }

    def to_html(self, path: str | os.PathLike[str], *, count: int = 20) -> None:
        """Write one HTML file with counts of all fields, and pictures of the first fields with their boxes.

        The file needs no other file and no network. Boxes can be hidden by class and by score.

        Parameters
        ----------
        path : path
            The file. An existing file is replaced once the new one is complete.
        count : int
            Largest number of pictures, at least 1. A picture is at most 800 px wide or high.

        Raises
        ------
        ArgumentError
            If an argument is invalid.
        DataError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "found.html"
        >>> det.predict(fields).to_html(file, count=2)
        >>> file.read_text().count("data:image/jpeg")
        2
        """
        from cellscan.pages.page import write_page
        from cellscan.pages.parts import make_fields, make_table

        shown = self.fields[: check_whole("count", count, 1)]
        rows = [
            [field.name, *(int((field.labels == k).sum()) for k in range(len(self.class_names))),
             (None, "-") if field.cell_diameter is None else (field.cell_diameter, f"{field.cell_diameter:.1f}")]
            for field in self.fields
        ]  # fmt: skip
        header = ["field", *self.class_names, "cell diameter, px"]
        sections = [
            ("Counts", [make_table("Detections by field", header, rows)]),
            (
                "Fields" if len(shown) == len(self) else f"The first {len(shown)} fields",
                [make_fields([show_field(field) for field in shown], self.class_names)],
            ),
        ]
        if self.failed:
            sections.append(make_failures(self.failed))
        write_page(path, "Detections", str(self).splitlines()[:1], sections)

    def save(
        self,
        folder: str | os.PathLike[str],
        format: Literal["coco", "yolo", "voc", "csv"] = "coco",
        *,
        images: bool = True,
    ) -> tuple[str, ...]:
        """Write images and boxes into a new folder, for correction in Label Studio, CVAT or FiftyOne.

        Fields that were read from absolute paths are named by their paths below the folder that contains all of them.

        `cellscan.load_fields` reads the folder, and also the exports of these tools. COCO and CSV files contain the
        scores, YOLO and VOC files do not. `load_fields` ignores the scores.

        Parameters
        ----------
        folder : path
            A new or an empty folder. After an error nothing is left of it.
        format : {"coco", "yolo", "voc", "csv"}
            File format of the annotations.
        images : bool
            False writes the annotations only.

        Returns
        -------
        tuple[str, ...]
            Kinds of information that the format cannot store, with their counts.

        Raises
        ------
        ArgumentError
            If the folder exists and is not empty, or an argument has the wrong type.
        DataError
            If the folder cannot be written, or two fields have the same name.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "found"
        >>> found = det.predict(fields)
        >>> found.save(folder, format="coco")
        ()
        >>> len(cellscan.load_fields(folder)) == len(found)
        True
        """
        no_points, no_labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
        records = [
            Record(
                name, field.size, _file_of(field.image),
                field.pixels, field.boxes, field.labels, [()] * len(field), no_points, no_labels, field.scores,
                complete=[True] * len(self.class_names),
            )
            for name, field in zip(_below_one_folder([field.name for field in self.fields]), self.fields, strict=True)
        ]  # fmt: skip
        return save_records(folder, format, records, self.class_names, (), images=images)


def show_field(detections: Detections) -> ShownField:
    """Return a field and its boxes as an HTML page shows them; with the reason if the image cannot be read.

    Examples
    --------
    >>> from cellscan.detections import show_field
    >>> show_field(det.predict(fields)[0]).image.shape
    (96, 128, 3)
    """
    from cellscan.pages.parts import ShownField
    from cellscan.pages.pictures import read_or_reason

    counts = [f"{name} {(detections.labels == k).sum():,}" for k, name in enumerate(detections.class_names)]
    return ShownField(
        detections.name, detections.size, read_or_reason(detections.pixels), detections.boxes, detections.labels,
        detections.scores, f"{detections.name}: {', '.join(counts)}",
    )  # fmt: skip


def make_failures(failed: Sequence[Failure]) -> tuple[str, list[Html]]:
    """Return the section of an HTML page with the images that could not be read.

    Examples
    --------
    >>> from cellscan.detections import make_failures
    >>> from cellscan.predictions import Failure
    >>> make_failures([Failure(0, "a.png", "no file")])[0]
    'Fields that could not be read'
    """
    from cellscan.pages.parts import make_table

    rows = [(failure.name, failure.reason) for failure in failed]
    return "Fields that could not be read", [make_table("Skipped fields", ["field", "reason"], rows)]


def _below_one_folder(names: list[str]) -> list[str]:
    """Return absolute paths as paths below the folder that contains all of them; return other names unchanged."""
    if not names or not all(map(os.path.isabs, names)):
        return names
    try:
        folder = os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # on different drives
        return names
    return [Path(name).relative_to(folder).as_posix() for name in names]


def _file_of(image: Any) -> str | None:
    """Return the path that an image is read from; None if it does not come from a file."""
    if isinstance(image, SeenImage):
        return image.file()
    return os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else None


def _table(fields: Sequence[Detections], class_names: tuple[str, ...]) -> dict[str, Column]:
    """Return the table of the detections of some fields, with one row per box."""
    sides = zip(*(box for detections in fields for box in detections.boxes.tolist()), strict=True)
    left, top, right, bottom = sides if any(map(len, fields)) else ([],) * 4
    return {
        "field": Column([detections.name for detections in fields for _ in detections.labels]),
        "left": Column(left, "number", ".1f"),
        "top": Column(top, "number", ".1f"),
        "right": Column(right, "number", ".1f"),
        "bottom": Column(bottom, "number", ".1f"),
        "class": Column(
            [detections.class_names[label] for detections in fields for label in detections.labels], class_names
        ),
        "score": Column([score for detections in fields for score in detections.scores.tolist()], "number", ".4f"),
    }
