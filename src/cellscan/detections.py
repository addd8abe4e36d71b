"""What `Detector.predict` returns: a sequence of fields, each a sequence of detections."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from cellscan.data.cells import CellDataset
from cellscan.data.formats.common import Record
from cellscan.data.images import read_rgb
from cellscan.data.saving import save_records
from cellscan.data.tables import find_rows, write_csv
from cellscan.errors import DataError, ImageError
from cellscan.predictions import Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SeenImage:
    """Reads an image again, or raises where it is another one: a loop may have written the next picture to its file.

    Attributes
    ----------
    image : path, or callable that returns pixels
    name : str
        For errors.
    checksum : int
        CRC-32 of the pixels that were seen.

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
        """Return the file that holds the image still; None where it is no file.

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
    """One box that was found.

    Attributes
    ----------
    box : tuple[float, float, float, float]
        xyxy, in the field's own pixels.
    label : int
        Index into the detector's `class_names`.
    label_name : str
        The class.
    score : float
        In [0, 1].

    Examples
    --------
    >>> found = det.predict(fields)[0]  # as of `cellscan.Detector`
    >>> found[0].label_name == found.class_names[found[0].label]
    True
    """

    box: tuple[float, float, float, float]
    label: int
    label_name: str
    score: float


@dataclass(frozen=True, repr=False, eq=False)
class Detections(Sequence[Detection]):
    """What was found in one field, the surest first; a sequence of `Detection`.

    A number gives one detection; a slice, a mask or an array of numbers gives `Detections` again.

    Attributes
    ----------
    name : str
        File name, or what else names the field.
    size : tuple[int, int]
        Width and height of the field, in pixels.
    boxes : numpy.ndarray
        (n, 4) float32 xyxy, in the field's own pixels.
    labels : numpy.ndarray
        (n,) int32, indices into `class_names`.
    scores : numpy.ndarray
        (n,) float32 in [0, 1].
    class_names : tuple[str, ...]
        The classes.
    cell_diameter : float or None
        Of the red cells, in pixels of the field, as given or estimated; None where it was not asked for, and where
        no red cells were to be seen.
    lit_area : float
        Pixels of the field that are not dark surround; 0 where it was not looked for.
    appearance : tuple[float, ...]
        What the field looks like, in numbers that `cellscan.screen` compares; empty where it was not looked at.

    Examples
    --------
    >>> found = det.predict(fields)[0]  # as of `cellscan.Detector`
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
    appearance: tuple[float, ...] = field(default=(), repr=False)

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

    def with_labels(self, labels: np.ndarray) -> Detections:
        """Return the detections under other labels, (n,) int, such as a second opinion.

        Examples
        --------
        >>> found = det.predict(fields)[0]
        >>> int(found.with_labels(found.labels * 0).labels.sum())
        0
        """
        said = np.array(labels, np.int32)
        if said.shape != self.labels.shape or not np.isin(said, range(len(self.class_names))).all():
            raise DataError(f"labels of shape {said.shape}; expected {len(self)}, each an index into class_names")
        return replace(self, labels=said)

    def pixels(self) -> np.ndarray:
        """Read the field again: (H, W, 3) uint8.

        Raises
        ------
        ImageError
            Where its file has changed since, or cannot be read any more.

        Examples
        --------
        >>> found = det.predict(fields)[0]
        >>> found.pixels().shape
        (96, 128, 3)
        """
        return np.asarray(self.image()) if callable(self.image) else read_rgb(self.image, where=self.name)

    def plot(self) -> Figure:
        """Draw the field and its boxes; those of the last class are highlighted.

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
        """Write one line a box: field, left, top, right, bottom, class, score.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "found.csv"
        >>> det.predict(fields)[0].to_csv(file)
        >>> file.read_text().splitlines()[0]
        'field,left,top,right,bottom,class,score'
        """
        _write([self], path)

    def crops(self) -> CellDataset:
        """Cut the boxes out, as cells; the label of each is what was found.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> image, boxes = np.zeros((40, 60, 3), np.uint8), np.array([[5, 5, 25, 30]], np.float32)
        >>> one = np.zeros(1, np.int32)
        >>> names = ("red blood cell", "infected")
        >>> found = cellscan.Detections("a", (60, 40), boxes, one, np.ones(1, np.float32), names, image)
        >>> found.crops()[0].image.shape
        (25, 20, 3)
        """
        if not len(self):
            raise DataError(f"{self.name}: nothing was found, so there is nothing to cut out")
        image = self.pixels()
        corners = np.c_[np.floor(self.boxes[:, :2]), np.ceil(self.boxes[:, 2:])].astype(int)
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
        cut = [image[top:bottom, left:right] for left, top, right, bottom in corners.tolist()]
        names = [f"{self.name}_{number:03d}" for number in range(len(cut))]
        return CellDataset.from_arrays(
            cut, self.labels, class_names=self.class_names, patients=[self.name] * len(cut), names=names
        )


@dataclass(frozen=True, repr=False, eq=False)
class FieldDetections(Sequence[Detections]):
    """Detections of every field, in the order of the input.

    A number gives one field; a slice, a mask or an array of numbers gives `FieldDetections` again.

    Attributes
    ----------
    fields : tuple[Detections, ...]
        One a field.
    failed : tuple[Failure, ...]
        Fields of the whole input passed over under ``on_error="skip"``; a part keeps all of them.
    class_names : tuple[str, ...]
        The classes.

    Examples
    --------
    >>> found = det.predict(fields)  # as of `cellscan.Detector`
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
            f"{name} {sum(int((one.labels == k).sum()) for one in self.fields):,}"
            for k, name in enumerate(self.class_names)
        ]
        failed = f"; {len(self.failed)} failed" if self.failed else ""
        return f"{len(self)} fields: {', '.join(counts)}{failed}\nResearch use only, not a medical device."

    def __repr__(self) -> str:
        return f"FieldDetections({len(self)} fields, failed={len(self.failed)})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line a box: field, left, top, right, bottom, class, score.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "found.csv"
        >>> found = det.predict(fields)
        >>> found.to_csv(file)
        >>> len(file.read_text().splitlines()) == 1 + sum(map(len, found))
        True
        """
        _write(self.fields, path)

    def save(
        self,
        folder: str | os.PathLike[str],
        format: Literal["coco", "yolo", "voc", "csv"] = "coco",
        *,
        images: bool = True,
    ) -> tuple[str, ...]:
        """Write images and boxes into a new folder, for Label Studio, CVAT or FiftyOne to correct.

        `cellscan.load_fields` reads the folder, and what these tools export. COCO and CSV hold the scores, of which
        `load_fields` keeps none; the others do not.

        Parameters
        ----------
        folder : path
            It must not be there, or be empty. It appears whole or not at all.
        format : {"coco", "yolo", "voc", "csv"}
        images : bool
            False writes annotations alone.

        Returns
        -------
        tuple[str, ...]
            What the format does not hold, counted.

        Raises
        ------
        ArgumentError
            Where the folder is there, or an argument is of another kind.
        DataError
            Where it cannot be written, or two fields have one name.

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
        none = np.zeros(0, np.int32)
        records = [
            Record(
                one.name, one.size, _file_of(one.image),
                one.pixels, one.boxes, one.labels, [()] * len(one), np.zeros((0, 2), np.float32), none, one.scores,
                complete=[True] * len(self.class_names),
            )
            for one in self.fields
        ]  # fmt: skip
        return save_records(folder, format, records, self.class_names, (), images=images)


def _file_of(image: Any) -> str | None:
    """Return the file that an image is read from; None where it is none."""
    if isinstance(image, SeenImage):
        return image.file()
    return os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else None


def _write(found: Sequence[Detections], path: str | os.PathLike[str]) -> None:
    rows: list[list[object]] = [["field", "left", "top", "right", "bottom", "class", "score"]]
    for one in found:
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True):
            rows.append([one.name, *(f"{side:.1f}" for side in box), one.class_names[label], f"{score:.4f}"])
    write_csv(path, rows)
