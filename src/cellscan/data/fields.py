"""`FieldDataset`: an immutable table of fields, their boxes, and the source of their pixels."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from cellscan.data.cells import CellDataset, find_classes, frozen, leave_out, with_classes
from cellscan.data.cutting import cut, in_pixels
from cellscan.data.formats.common import Record
from cellscan.data.formats.csv_boxes import box_table
from cellscan.data.images import ImageLike, fitted
from cellscan.data.pixels import Pixels, open_map
from cellscan.data.runs import find_blocks
from cellscan.data.saving import save_records
from cellscan.data.shapes import IGNORED, NONE, NOT_ANNOTATED, tidy, told_of
from cellscan.data.sources import ArraySource, Source, path_of
from cellscan.data.splits import assign, check_folds, part_fractions, read_folds
from cellscan.data.tables import Column, find_rows, make_frame
from cellscan.data.values import (
    as_class_names,
    as_list,
    as_patient,
    as_texts,
    check_indices,
    check_seed,
    check_whole,
    choose,
)
from cellscan.errors import ArgumentError, DataError, ImageError, check_choice, check_names
from cellscan.notebook import TextInNotebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

GROUPS = ("patient", "slide", "laboratory")
"""Ways to group fields. A split keeps the first group that is known of a field in one part."""

_A_FIELD = ("names", "sizes", "rows", "patients", "slides", "laboratories", "complete")
_A_LIST = ("boxes", "labels", "polygons", "points", "point_labels")
"""Attributes with one entry for each field: arrays in the first, tuples in the second."""


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes
    ----------
    name : str
        File name, or the name that the caller gave.
    image : numpy.ndarray
        (H, W, 3) uint8.
    boxes : numpy.ndarray
        (n, 4) float32 xyxy, in the image's own pixels.
    labels : numpy.ndarray
        (n,) int32, indices into the class names; -2 for an ignored box.
    polygons : tuple of tuple of numpy.ndarray
        The polygons of each box, (k, 2) float32 x and y; an empty tuple for a box without polygons.
    points : numpy.ndarray
        (m, 2) float32 x and y.
    point_labels : numpy.ndarray
        (m,) int32; -2 for an ignored point.
    patient, slide, laboratory : str
        ``""`` if unknown.

    Examples
    --------
    >>> import cellscan
    >>> field = cellscan.synthetic_fields(2, seed=0)[0]
    >>> field.image.shape, field.boxes.shape[1], field.boxes.dtype
    ((360, 480, 3), 4, dtype('float32'))
    """

    name: str
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    polygons: tuple[tuple[np.ndarray, ...], ...] = ()
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    point_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    patient: str = ""
    slide: str = ""
    laboratory: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class FieldDataset(TextInNotebook):
    """A data set of whole fields with boxes. It is immutable; `load_fields` or `synthetic_fields` creates it.

    Attributes
    ----------
    class_names : tuple[str, ...]
        Names of the classes; labels are indices into it.
    names : numpy.ndarray
        (N,) str, the name of each field.
    boxes : tuple[numpy.ndarray, ...]
        One array per field, (n, 4) float32 xyxy in pixels of the image, clipped to the frame.
    labels : tuple[numpy.ndarray, ...]
        One array per field, (n,) int32; -2 marks boxes that are ignored in training and in average precision.
    sizes : numpy.ndarray
        (N, 2) int64, width and height in pixels.
    notes : tuple[str, ...]
        Counts of what was clipped, dropped or skipped in reading. A selection keeps the counts of the whole set, and
        says of how many fields they are.
    annotated : bool
        False for a folder of images without boxes.
    polygons : tuple of tuple of tuple of numpy.ndarray
        The polygons of each box of each field, (k, 2) float32 x and y in pixels. A box has no polygon, one, or several
        if the cell is drawn in parts. Polygons are kept as written and may extend beyond the frame.
    points : tuple[numpy.ndarray, ...]
        One array per field, (m, 2) float32 x and y: cells that are marked by a point instead of a box.
    point_labels : tuple[numpy.ndarray, ...]
        One array per field, (m,) int32; -2 for ignored points.
    patients, slides, laboratories : numpy.ndarray
        (N,) str; ``""`` if unknown.
    complete : numpy.ndarray
        (N, K) bool: True if every cell of the class is annotated in the field. If False, cells without a box count
        neither as background in training nor as false positives in evaluation.
    format : str
        The recognised annotation format, one of the names that ``load_fields(format=...)`` takes; ``"images"`` for
        images without annotations, ``""`` for a data set that was not read from files.
    coordinates_note : str
        A description of that format in words, including its coordinates, such as "corners in pixels as written".

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.synthetic_fields(4, seed=0)
    >>> len(fields), fields.class_names
    (4, ('red blood cell', 'infected'))
    """

    class_names: tuple[str, ...]
    names: np.ndarray
    boxes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    sizes: np.ndarray
    source: Source = field(repr=False)
    rows: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    annotated: bool = True
    polygons: tuple[tuple[tuple[np.ndarray, ...], ...], ...] = ()
    points: tuple[np.ndarray, ...] = ()
    point_labels: tuple[np.ndarray, ...] = ()
    patients: np.ndarray = field(default_factory=lambda: np.zeros(0, "U1"))
    slides: np.ndarray = field(default_factory=lambda: np.zeros(0, "U1"))
    laboratories: np.ndarray = field(default_factory=lambda: np.zeros(0, "U1"))
    complete: np.ndarray = field(default_factory=lambda: np.ones((0, 0), bool))
    format: str = ""
    coordinates_note: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Fill in empty polygons, points and groups where the caller gave boxes only."""
        count = len(self.rows)
        empty: dict[str, Any] = {
            "polygons": tuple(((),) * len(boxes) for boxes in self.boxes),
            "points": (frozen(np.zeros((0, 2), np.float32)),) * count,
            "point_labels": (frozen(np.zeros(0, np.int32)),) * count,
            **{name: frozen(np.zeros(count, "U1")) for name in ("patients", "slides", "laboratories")},
            "complete": frozen(np.ones((count, len(self.class_names)), bool)),
        }
        given = {name for name in empty if len(getattr(self, name)) == count}
        given -= set() if self.complete.shape == (count, len(self.class_names)) else {"complete"}
        for name in empty.keys() - given:
            object.__setattr__(self, name, empty[name])

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in _A_FIELD:  # A pickle does not store that an array is read-only.
            getattr(self, name).flags.writeable = False
        for name in ("boxes", "labels", "points", "point_labels"):
            for array in getattr(self, name):
                array.flags.writeable = False
        for ring in (ring for polygons in self.polygons for rings in polygons for ring in rings):
            ring.flags.writeable = False

    @classmethod
    def from_arrays(
        cls,
        images: Iterable[ImageLike],
        boxes: Iterable[ArrayLike],
        labels: Iterable[ArrayLike],
        *,
        class_names: Sequence[str],
        names: Iterable[str] | None = None,
        polygons: Iterable[Sequence[Sequence[ArrayLike]]] | None = None,
        points: Iterable[ArrayLike] | None = None,
        point_labels: Iterable[ArrayLike] | None = None,
        patients: Iterable[Any] | None = None,
        slides: Iterable[Any] | None = None,
        laboratories: Iterable[Any] | None = None,
        complete: ArrayLike | None = None,
    ) -> FieldDataset:
        """Build a data set from images in memory. The images are copied.

        Parameters
        ----------
        images : iterable of (H, W, 3) uint8
            Any other form of image that `Detector.predict` takes works, too.
        boxes : iterable of (n, 4) float
            xyxy in pixels. Boxes are clipped to the frame of the image, and boxes without area are dropped; `notes`
            contains the number of both.
        labels : iterable of (n,) int or str
            Indices into `class_names`, or class names. Use -2, or None among names, for boxes to ignore.
        class_names : sequence of str
        names : iterable of str, optional
            Distinct names of the fields. Default: ``field_0000``, ``field_0001`` and so on.
        polygons : iterable, optional
            For each field a sequence with one entry per box; each entry is a sequence of (k, 2) arrays with k >= 3.
        points : iterable of (m, 2) float, optional
            x and y in pixels, inside the frame.
        point_labels : iterable of (m,) int or str, optional
            As `labels`.
        patients, slides, laboratories : iterable, optional
            (N,) each; None or ``""`` if unknown.
        complete : (N, K) or (K,) bool, optional
            True if every cell of the class is annotated in the field. Default: all True.

        Raises
        ------
        ArgumentError
            If the numbers of images, boxes, labels and names differ.
        DataError
            If boxes, labels or names are not as described above. A negative side is an error; it often means that
            boxes are x, y, width and height.
        ImageError
            If an entry of `images` is not an image.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> image, box = np.zeros((40, 50, 3), np.uint8), np.array([[10, 10, 60, 30]])
        >>> fields = cellscan.FieldDataset.from_arrays([image], [box], [np.array([0])], class_names=("cell",))
        >>> fields.boxes[0].tolist(), fields.notes
        ([[10.0, 10.0, 50.0, 30.0]], ('1 box clipped to the frame',))
        """
        if isinstance(images, (str, bytes)) or not isinstance(images, Iterable) or getattr(images, "ndim", 1) == 0:
            raise ArgumentError(f"images is {images!r:.80}; expected a sequence with one image a field")
        source = ArraySource(images)
        named = [f"field_{number:04d}" for number in range(len(source))] if names is None else as_list("names", names)
        more: dict[str, Any] = {
            name: None if value is None else as_list(name, value)
            for name, value in (("polygons", polygons), ("points", points), ("point_labels", point_labels))
        }
        given = as_list("labels", labels)
        result = cls.from_source(source, as_list("boxes", boxes), given, named, class_names, complete=complete, **more)
        corners = np.concatenate([np.zeros((0, 4)), *result.boxes])
        if len(corners) and corners.max() <= 1:
            raise DataError("no box extends beyond 1, so these are shares of the image; expected pixels")
        # `tidy` takes whole arrays as indices, because most come from this library.
        for entries in (given, more["point_labels"] or ()):
            for entry in entries:
                if isinstance(entry, np.ndarray) and entry.dtype.kind == "i":
                    check_indices(entry, result.class_names)
        return result.with_groups(patients, slides, laboratories)

    @classmethod
    def from_source(
        cls,
        source: Source,
        boxes: Sequence[ArrayLike],
        labels: Sequence[ArrayLike],
        names: Sequence[Any],
        class_names: Sequence[str],
        *,
        notes: Sequence[str] = (),
        annotated: bool = True,
        polygons: Sequence[Sequence[Sequence[ArrayLike]]] | None = None,
        points: Sequence[ArrayLike] | None = None,
        point_labels: Sequence[ArrayLike] | None = None,
        complete: ArrayLike | None = None,
        sizes: ArrayLike | None = None,
        format: str = "",
        coordinates_note: str = "",
    ) -> FieldDataset:
        """Build a data set from a source of images.

        Boxes are clipped to the frame; boxes without area and repeated boxes are dropped. Notes count both.
        Parameters and errors are those of `from_arrays`. If `sizes`, (N, 2) width and height, is not given, it is
        read from the images.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> from cellscan.data.sources import ArraySource
        >>> source = ArraySource([np.zeros((40, 50, 3), np.uint8)])
        >>> boxes, labels = [np.array([[1, 1, 9, 9]])], [np.array([0])]
        >>> print(cellscan.FieldDataset.from_source(source, boxes, labels, ["a"], ["cell"]))
        1 fields, 1 boxes: cell 1
        """
        count = len(source)
        lists = (boxes, labels, names, polygons, points, point_labels)
        counts = [None if values is None else len(values) for values in lists]
        if any(number not in (None, count) for number in counts):
            kinds = (
                "arrays of boxes", "arrays of labels", "names", "entries of polygons", "arrays of points",
                "arrays of point labels",
            )  # fmt: skip
            listed = ", ".join(f"{n} {kind}" for n, kind in zip(counts, kinds, strict=True) if n is not None)
            raise ArgumentError(f"there are {count} images, {listed}; expected as many of each")
        names = as_texts("names", names)
        class_names = as_class_names(class_names) if as_list("class_names", class_names) else ()
        bad_names = [name for name, uses in Counter(names).items() if uses > 1 or not name]
        if bad_names:
            problem = "several fields have this name" if bad_names[0] else "a name is empty"
            raise DataError(f"names has {bad_names[0]!r}: {problem}; expected a different name for each field")
        if sizes is None:
            sizes = [source.header(row)[:2] for row in range(count)]
        sizes = np.array(sizes, np.int64).reshape(-1, 2)
        full = np.ones(len(class_names), bool) if complete is None else np.asarray(complete)
        if full.dtype != bool or full.shape not in ((len(class_names),), (count, len(class_names))):
            raise ArgumentError(
                f"complete is {full.dtype} of shape {full.shape}; expected bool, ({count}, {len(class_names)}) or "
                f"({len(class_names)},)"
            )
        given = zip(
            boxes,
            labels,
            [None] * count if polygons is None else polygons,
            [()] * count if points is None else points,
            [()] * count if point_labels is None else point_labels,
            strict=True,
        )
        rows = [tidy(name, size, class_names, *each) for name, size, each in zip(names, sizes, given, strict=True)]
        return cls(
            class_names,
            frozen(np.array(list(names), str)),
            tuple(row.boxes for row in rows),
            tuple(row.labels for row in rows),
            frozen(sizes),
            source,
            frozen(np.arange(count)),
            (*notes, *told_of(rows)),
            annotated,
            tuple(row.polygons for row in rows),
            tuple(row.points for row in rows),
            tuple(row.point_labels for row in rows),
            complete=frozen(np.broadcast_to(full, (count, len(class_names))).copy()),
            format=format,
            coordinates_note=coordinates_note,
        )

    def with_groups(
        self,
        patients: Iterable[Any] | None = None,
        slides: Iterable[Any] | None = None,
        laboratories: Iterable[Any] | None = None,
    ) -> FieldDataset:
        """Return the data set with these patients, slides and laboratories. Those that are not given stay the same.

        Parameters
        ----------
        patients, slides, laboratories : iterable, optional
            (N,) texts or numbers each; None, NaN or ``""`` if unknown.

        Raises
        ------
        DataError
            The number of entries differs from the number of fields.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(4, seed=0).with_groups(patients=["p1", "p1", "p2", "p3"])
        >>> fields.patients.tolist()
        ['p1', 'p1', 'p2', 'p3']
        """
        given = {"patients": patients, "slides": slides, "laboratories": laboratories}
        groups: dict[str, Any] = {}
        for name, values in given.items():
            if values is not None:
                texts = [as_patient(f"{name}[{row}]", value) for row, value in enumerate(as_list(name, values))]
                if len(texts) != len(self):
                    raise DataError(f"there are {len(self)} fields and {len(texts)} {name}; expected as many of each")
                groups[name] = frozen(np.array(texts, str) if texts else np.zeros(0, "U1"))
        return replace(self, **groups)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Field: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> FieldDataset: ...
    def __getitem__(self, index: Any) -> Field | FieldDataset:
        row = find_rows(index, len(self), "fields")
        if not isinstance(row, int):
            return self.select(row)
        image = self.source.read(int(self.rows[row]))
        return Field(
            str(self.names[row]),
            image,
            self.boxes[row],
            self.labels[row],
            self.polygons[row],
            self.points[row],
            self.point_labels[row],
            str(self.patients[row]),
            str(self.slides[row]),
            str(self.laboratories[row]),
        )

    def __iter__(self) -> Iterator[Field]:
        return (self[index] for index in range(len(self)))

    def __str__(self) -> str:
        details = [f"  format {self.format}: {self.coordinates_note}"] if self.format else []
        groups = {"patients": self.patients, "slides": self.slides, "laboratories": self.laboratories}
        known = {kind: owners[owners != ""] for kind, owners in groups.items()}
        texts = [
            f"{len(set(owners.tolist())):,} {kind}{f' (of {len(owners):,} fields)' if len(owners) < len(self) else ''}"
            for kind, owners in known.items()
            if len(owners)
        ]
        details += [f"  {', '.join(texts)}"] if texts else []
        incomplete = (~self.complete).sum(0)
        texts = [
            f"{name}{f' (in {count:,} fields)' if count < len(self) else ''}"
            for name, count in zip(self.class_names, incomplete.tolist(), strict=True)
            if count
        ]
        details += [f"  not all annotated: {', '.join(texts)}"] if texts else []
        details += [f"  {note}" for note in self.notes]
        if not self.annotated:
            return "\n".join([f"{len(self):,} fields without boxes", *details])
        lines = []
        for shape, each in (("boxes", self.labels), ("points", self.point_labels)):
            labels = np.concatenate([*each, np.zeros(0, np.int32)])
            counts = [f"{name} {(labels == number).sum():,}" for number, name in enumerate(self.class_names)]
            if (labels == IGNORED).any():
                counts.append(f"ignored {(labels == IGNORED).sum():,}")
            if len(labels) or shape == "boxes":
                lines.append(f"{len(labels):,} {shape}: {', '.join(counts)}")
        return "\n".join([f"{len(self):,} fields, {lines[0]}", *(f"  {line}" for line in lines[1:]), *details])

    def __repr__(self) -> str:
        return f"FieldDataset({len(self)} fields, class_names={self.class_names})"

    def per_class(self) -> dict[str, int]:
        """Return the number of boxes of each class. Ignored boxes are not counted.

        Examples
        --------
        >>> import cellscan
        >>> sorted(cellscan.synthetic_fields(2, seed=0).per_class())
        ['infected', 'red blood cell']
        """
        labels = np.concatenate([*self.labels, np.zeros(0, np.int32)])
        return {name: int((labels == number).sum()) for number, name in enumerate(self.class_names)}

    def select(self, mask_or_indices: slice | np.ndarray | Sequence[int] | Sequence[bool]) -> FieldDataset:
        """Return the chosen fields as a data set that shares its pixels with this one.

        Parameters
        ----------
        mask_or_indices : (N,) bool array, index array, or slice
            The fields to choose. Indices also set their order.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(4, seed=0).select([0, -1]).names.tolist()
        ['synthetic_0000.png', 'synthetic_0003.png']
        """
        chosen = choose(mask_or_indices, len(self))
        arrays = {name: frozen(getattr(self, name)[chosen]) for name in _A_FIELD}
        lists = {name: tuple(getattr(self, name)[i] for i in chosen) for name in _A_LIST}
        notes = self.notes
        if len(set(chosen.tolist())) < len(self):
            # The counts are of the whole set; without these words, a selection would print them as its own.
            whole = f"of all {len(self):,} fields: "
            notes = tuple(note if note.startswith("of all ") else whole + note for note in notes)
        return replace(self, **arrays, **lists, notes=notes)

    def without(self, names: Iterable[str]) -> FieldDataset:
        """Return the data set without the fields of these names.

        Parameters
        ----------
        names : iterable of str
            Names of fields, or the part of a name after a slash. Names that are not in the data set are skipped, as
            long as at least one is.

        Raises
        ------
        DataError
            Names are given and none of them is in the data set, or one fits the end of several names.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(4, seed=0)
        >>> len(fields.without(fields.names[:1]))
        3
        """
        return self.select(leave_out(self.names, names))

    def rename_classes(self, names: Mapping[str, str | None]) -> FieldDataset:
        """Return the data set with renamed, merged or ignored classes.

        Parameters
        ----------
        names : mapping
            Old name -> new name. Classes with the same new name are merged. None ignores the boxes and points of the
            class. Classes that are not in the mapping keep their name.

        Raises
        ------
        DataError
            The mapping has a class that is not in the data set.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0)
        >>> fields.rename_classes({"red blood cell": "cell", "infected": "cell"}).class_names
        ('cell',)
        """
        if not isinstance(names, Mapping) or not all(new is None or isinstance(new, str) for new in names.values()):
            raise ArgumentError(f"names is {names!r:.80}; expected a mapping from old names to new names or None")
        find_classes(list(names), self.class_names)
        new = [names.get(old, old) for old in self.class_names]
        merged = list(dict.fromkeys(name for name in new if name is not None))
        return self.relabelled(as_class_names(merged) if merged else (), [merged.index(n) if n else None for n in new])

    def drop_classes(self, names: Sequence[str]) -> FieldDataset:
        """Return the data set without these classes, their boxes and their points.

        Such cells then count as background. To ignore them instead, use ``rename_classes({name: None})``.

        Parameters
        ----------
        names : sequence of str

        Raises
        ------
        DataError
            A name is not among the classes.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0)
        >>> print(fields.drop_classes(["infected"]))  # doctest: +ELLIPSIS
        2 fields, ... boxes: red blood cell ...
        """
        unwanted = check_names("names", names, 1)
        numbers = find_classes(unwanted, self.class_names)
        box_masks = [~np.isin(labels, numbers) for labels in self.labels]
        point_masks = [~np.isin(labels, numbers) for labels in self.point_labels]
        fields = replace(
            self,
            boxes=tuple(frozen(boxes[mask]) for boxes, mask in zip(self.boxes, box_masks, strict=True)),
            labels=tuple(frozen(labels[mask]) for labels, mask in zip(self.labels, box_masks, strict=True)),
            polygons=tuple(
                tuple(rings for rings, keep in zip(polygons, mask.tolist(), strict=True) if keep)
                for polygons, mask in zip(self.polygons, box_masks, strict=True)
            ),
            points=tuple(frozen(points[mask]) for points, mask in zip(self.points, point_masks, strict=True)),
            point_labels=tuple(
                frozen(labels[mask]) for labels, mask in zip(self.point_labels, point_masks, strict=True)
            ),
        )
        rest = [name for name in self.class_names if name not in unwanted]
        return fields.relabelled(rest, [rest.index(name) if name in rest else None for name in self.class_names])

    def add_classes(self, names: Sequence[str]) -> FieldDataset:
        """Return the data set with additional classes that have no cells, such as "infected" for healthy donors.

        The new classes count as completely annotated: no field has a cell of them.

        Parameters
        ----------
        names : sequence of str
            Names that are not among the classes.

        Raises
        ------
        DataError
            A name is already among the classes.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0).drop_classes(["infected"]).add_classes(["infected"])
        >>> fields.class_names, bool(fields.complete.all())
        (('red blood cell', 'infected'), True)
        """
        new = check_names("names", names, 1)
        result = self.relabelled(with_classes(self.class_names, new), range(len(self.class_names)))
        complete = np.concatenate([self.complete, np.ones((len(self), len(new)), bool)], 1)
        return replace(result, complete=frozen(complete))

    def relabelled(self, class_names: Sequence[str], to: Sequence[int | None]) -> FieldDataset:
        """Return the data set with new classes and labels.

        A new class is complete in a field (see `complete`) if every old class that is mapped to it is complete there.
        A new class to which no old class is mapped is never complete.

        Parameters
        ----------
        class_names : sequence of str
            The new classes.
        to : sequence of int or None
            One entry per old class: the index of its new class, or None to ignore its boxes and points.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0).relabelled(("infected", "platelet"), [None, 0])
        >>> fields.complete.tolist()
        [[True, False], [True, False]]
        """
        index = np.array([IGNORED if new is None else new for new in to], np.int32)
        complete = np.zeros((len(self), len(class_names)), bool)
        for number in range(len(class_names)):
            old = self.complete[:, index == number]
            complete[:, number] = old.all(1) & (old.shape[1] > 0)

        def relabel(labels: np.ndarray) -> np.ndarray:
            return frozen(np.where(labels >= 0, index[np.maximum(labels, 0)], labels).astype(np.int32))

        return replace(
            self,
            class_names=tuple(class_names),
            complete=frozen(complete),
            labels=tuple(map(relabel, self.labels)),
            point_labels=tuple(map(relabel, self.point_labels)),
        )

    @overload
    def split(
        self,
        *,
        test: float = 0.2,
        validation: None = None,
        by: Literal["patient", "slide", "laboratory"] | None = None,
        seed: int = 0,
    ) -> tuple[FieldDataset, FieldDataset]: ...
    @overload
    def split(
        self,
        *,
        test: float = 0.2,
        validation: float,
        by: Literal["patient", "slide", "laboratory"] | None = None,
        seed: int = 0,
    ) -> tuple[FieldDataset, FieldDataset, FieldDataset]: ...
    def split(
        self,
        *positional: Any,
        test: float = 0.2,
        validation: float | None = None,
        by: str | None = None,
        seed: int = 0,
    ) -> tuple[FieldDataset, ...]:
        """Divide the fields into training, validation and test sets. All arguments are keywords.

        Fields of one patient stay in one part; if the patient is unknown, fields of one slide do. If both are unknown,
        fields with consecutive numbers in their names stay together in runs of up to twelve, because they were mostly
        taken one after another from one slide. Names do not show where a slide ends, so one slide may still be in two
        parts. Runs are found in each folder separately. A number that does not count fields, such as the
        magnification after the counter, is treated as part of the name.

        Parameters
        ----------
        test, validation : float
            Fractions of the fields, each in (0, 1), with a sum below 1.
        by : {"patient", "slide", "laboratory"}, optional
            The group that no two parts share; it must be known for every field. Default: for each field its patient,
            else its slide, else its run.
        seed : int
            Seed of the random split.

        Returns
        -------
        tuple of FieldDataset
            ``(train, test)``, or ``(train, validation, test)`` if `validation` is given.

        Raises
        ------
        ArgumentError
            An argument is positional, or the fractions leave no fields for training.
        DataError
            There are too few fields or groups, or `by` is given and a group is unknown.

        Examples
        --------
        >>> import cellscan
        >>> train, test = cellscan.synthetic_fields(40, seed=0).split(test=0.3, seed=0)
        >>> len(train), len(test)
        (28, 12)
        """
        _, *fractions = part_fractions(positional, test, validation)
        rng = np.random.default_rng(check_seed(seed))
        blocks = self._blocks(by)
        what = (
            "runs" if by is None else "patients" if by == "patient" else "slides" if by == "slide" else "laboratories"
        )
        if len(blocks) <= len(fractions):
            raise DataError(
                f"{len(self)} fields in {len(blocks)} {what} cannot make {len(fractions) + 1} parts; use select(...)"
            )
        order = rng.permutation(len(blocks))
        parts: list[list[int]] = [[] for _ in fractions]
        left = [blocks[number] for number in order]
        for part, fraction in zip(parts, fractions, strict=True):
            while left and (not part or abs(len(part) + len(left[0]) - fraction * len(self))
                            <= abs(len(part) - fraction * len(self))):  # fmt: skip
                part += left.pop(0)
        if not left:
            raise DataError(f"{len(self)} fields are too few for fractions {tuple(fractions)}; use select(...)")
        rest = [index for block in left for index in block]
        return tuple(self.select(np.sort(chosen)) for chosen in (rest, *parts))

    def folds(
        self,
        folds: int | str | os.PathLike[str],
        *,
        by: Literal["patient", "slide", "laboratory"] | None = None,
        seed: int = 0,
    ) -> Iterator[tuple[FieldDataset, FieldDataset]]:
        """Yield (train, test) for each fold. Each field is in the test set of exactly one fold.

        Parameters
        ----------
        folds : int or path
            The number of folds. With ``by="laboratory"`` and one fold a laboratory, each laboratory is the test set
            once. Or a CSV file with the header ``patient,fold`` and all patients, as `CellDataset.write_folds` writes.
        by, seed
            As in `split`. With a CSV file, `by` must be ``"patient"`` or left out.

        Raises
        ------
        DataError
            There are fewer groups than folds, or a group is unknown.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(4, seed=0).with_groups(slides=["a", "a", "b", "b"])
        >>> [sorted(set(test.slides.tolist())) for _, test in fields.folds(2, by="slide")]
        [['a'], ['b']]
        """
        if isinstance(folds, (str, os.PathLike)):
            if by not in (None, "patient"):
                raise ArgumentError(f"a fold file divides by patient; by is {by!r}")
            listed = read_folds(folds, self.groups("patient"))
            return ((self.select(listed != fold), self.select(listed == fold)) for fold in np.unique(listed).tolist())
        count = check_folds(folds)
        group = np.zeros(len(self), np.int64)
        for number, block in enumerate(blocks := self._blocks(by)):
            group[block] = number
        if len(blocks) < count:
            raise DataError(f"{len(self)} fields in {len(blocks)} groups cannot fill {count} folds; pass fewer folds")
        fold = assign(np.zeros(len(self), np.int64), group, (1 / count,) * count, 1, check_seed(seed))
        return ((self.select(fold != number), self.select(fold == number)) for number in range(count))

    def _blocks(self, by: str | None) -> list[list[int]]:
        """Return the lists of fields that a split keeps together."""
        names = self.names.tolist()
        if by is None:
            return find_blocks(names, self.patients.tolist(), self.slides.tolist())
        return find_blocks(names, self.groups(by).tolist())

    def groups(self, by: str) -> np.ndarray:
        """Return the patient, slide or laboratory of every field, (N,) str.

        Parameters
        ----------
        by : {"patient", "slide", "laboratory"}

        Raises
        ------
        DataError
            It is unknown for a field.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0).with_groups(slides=["s1", "s2"])
        >>> fields.groups("slide").tolist()
        ['s1', 's2']
        """
        check_choice("by", by, GROUPS)
        owners = {"patient": self.patients, "slide": self.slides, "laboratory": self.laboratories}[by]
        if (owners == "").any():
            raise DataError(
                f"{self.names[owners == ''][0]}: its {by} is not known; pass load_fields(..., {by}=...) with one for "
                "every field, or leave by= out"
            )
        return owners

    def images(self, size: tuple[int, int], *, progress: bool = True) -> Pixels:
        """Return all fields, fitted into `size`. They are decoded once and stored in the cache.

        Parameters
        ----------
        size : (int, int)
            Height and width in pixels. Both sides are scaled by the same factor; the rest, to the right or below, is
            black.

        Returns
        -------
        Pixels
            (N, H, W, 3) uint8.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).images((90, 120), progress=False).shape
        (2, 90, 120, 3)
        """
        size = _check_size(size)
        if not len(self):
            raise DataError("there are no fields; expected at least one")
        pixels, failed = open_map(self.source, size, progress=progress)
        reasons = [failed[row] for row in self.rows.tolist() if row in failed]
        if reasons:
            raise ImageError(reasons[0])
        return Pixels((pixels,), np.zeros(len(self), np.int64), self.rows)

    def targets(self, size: tuple[int, int], capacity: int | None = None) -> np.ndarray:
        """Return boxes and labels as one padded array, in pixels of `images(size)`.

        Parameters
        ----------
        size : (int, int)
            Height and width in pixels.
        capacity : int, optional
            Rows for each field, M. Default: the largest number needed, rounded up to a multiple of 32.

        Returns
        -------
        (N, M, 5) float32
            xyxy and label. The label is -1 in padding and -2 for an ignored box. After the boxes of a field comes a
            row with label -3 - k for each class k of which not every cell has a box in this field: the class is
            annotated by points, or is not `complete`.

        Raises
        ------
        DataError
            A field needs more than `capacity` rows.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).targets((90, 120)).shape[2]
        5
        """
        unboxed = [np.flatnonzero(row) for row in ~self.boxed()]
        most = max((len(boxes) + len(more) for boxes, more in zip(self.boxes, unboxed, strict=True)), default=0)
        capacity = -(-max(most, 1) // 32) * 32 if capacity is None else check_whole("capacity", capacity, 1)
        if most > capacity:
            raise DataError(
                f"a field has {most} boxes and classes that are not fully boxed, more than capacity={capacity}; pass "
                f"capacity={most} or more"
            )
        targets = np.full((len(self), capacity, 5), NONE, np.float32)
        targets[:, :, :4] = 0
        factors = self.factors(size)
        for number, (boxes, labels) in enumerate(zip(self.boxes, self.labels, strict=True)):
            targets[number, : len(boxes), :4] = boxes * factors[number]
            targets[number, : len(boxes), 4] = labels
            targets[number, len(boxes) : len(boxes) + len(unboxed[number]), 4] = NOT_ANNOTATED - unboxed[number]
        return targets

    def boxed(self) -> np.ndarray:
        """Return (N, K) bool: True if every cell of the class has a box in the field.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(1, seed=0).boxed().tolist()
        [[True, True]]
        """
        boxed = np.array(self.complete)
        for row, labels in enumerate(self.point_labels):
            boxed[row, labels[labels >= 0]] = False
            if (labels == IGNORED).any():  # An ignored point may be a cell of any class.
                boxed[row] = False
        return boxed

    def factors(self, size: tuple[int, int]) -> np.ndarray:
        """Return (N, 4) float32: the factors by which boxes are scaled when fields are fitted into `size`.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(1, seed=0).factors((90, 120)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        """
        size = _check_size(size)
        inner = np.array([fitted(int(w), int(h), size) for w, h in self.sizes], np.float32).reshape(-1, 2)
        return np.tile(inner / self.sizes.astype(np.float32), 2)

    def crops(
        self,
        *,
        min_size: int = 20,
        max_per_class: int | None = None,
        background: Literal["keep", "black", "fill"] = "keep",
        scale: float = 1.0,
        seed: int = 0,
    ) -> CellDataset:
        """Crop the boxes and return them as a data set of cells.

        The patient of a cell is the patient of its field. If patients are not known for every field, the slide is
        used; if slides are not, the name of the field.

        Parameters
        ----------
        min_size : int
            Smallest side of a crop in pixels. Smaller crops are left out, as are ignored boxes.
        max_per_class : int, optional
            Largest number of cells a field, for each class except the last; they are drawn with `seed`. Default: all.
        background : {"keep", "black", "fill"}
            ``"keep"`` crops the whole box. ``"black"`` and ``"fill"`` crop along the polygons, which every box must
            have: pixels outside the cell become black, as in the NIH set, or the mean colour of the cell.
        scale : float
            As in `Detections.crops`.
        seed : int
            Seed of the choice for `max_per_class`.

        Returns
        -------
        CellDataset
            The cells, with the classes of the fields.

        Raises
        ------
        ArgumentError
            An argument is invalid.
        DataError
            No box is left, or a box has no polygon to crop along.

        Examples
        --------
        >>> import cellscan
        >>> crops = cellscan.synthetic_fields(2, seed=0).crops()
        >>> crops.class_names
        ('red blood cell', 'infected')
        """
        rng = np.random.default_rng(check_seed(seed))
        check_choice("background", background, ("keep", "black", "fill"))
        min_size = check_whole("min_size", min_size, 1)
        max_per_class = None if max_per_class is None else check_whole("max_per_class", max_per_class, 1)
        known = [groups for groups in (self.patients, self.slides) if len(groups) and (groups != "").all()]
        owner = (known[0] if known else self.names).tolist()
        images, labels, owners, names = [], [], [], []
        for index in range(len(self)):
            field = self[index]
            corners = in_pixels(field.boxes, scale)
            usable = (field.labels >= 0) & ((corners[:, 2:] - corners[:, :2]).min(1, initial=10**6) >= min_size)
            for label in range(len(self.class_names)):
                rows = np.flatnonzero(usable & (field.labels == label))
                if max_per_class is not None and label < len(self.class_names) - 1:
                    rows = np.sort(rng.permutation(rows)[:max_per_class])
                for row in rows.tolist():
                    if background != "keep" and not field.polygons[row]:
                        raise DataError(f"{field.name}: box {row} has no polygon to crop along; use background='keep'")
                    images.append(cut(field.image, corners[row].tolist(), field.polygons[row], background))
                    labels.append(self.class_names[label])
                    owners.append(owner[index])
                    names.append(f"{field.name}_{row:03d}")
        if not images:
            raise DataError(
                f"no box is left to crop; expected fields with boxes of at least min_size={min_size} pixels"
            )
        return CellDataset.from_arrays(images, labels, class_names=self.class_names, patients=owners, names=names)

    def save(
        self,
        folder: str | os.PathLike[str],
        format: Literal["coco", "yolo", "voc", "csv"] = "coco",
        *,
        images: bool = True,
    ) -> tuple[str, ...]:
        """Write images and annotations into a new folder that `load_fields` and annotation tools can read.

        Image files are copied; other images are written as PNG. A file `cellscan.json` stores what annotation formats
        cannot: the order of the classes, patients, slides, laboratories, completeness and notes.

        Parameters
        ----------
        folder : path
            A folder that does not exist, or is empty. If writing fails, no partial folder is left.
        format : {"coco", "yolo", "voc", "csv"}
            COCO and CSV store boxes, polygons, points and ignored boxes. YOLO stores only boxes. Pascal VOC stores
            boxes, and ignored boxes as difficult ones.
        images : bool
            False writes only the annotations.

        Returns
        -------
        tuple[str, ...]
            Counts of what the format cannot store; empty if nothing is lost.

        Raises
        ------
        ArgumentError
            The folder exists and is not empty, or an argument has the wrong type.
        DataError
            The folder cannot be written, or the name of a field is not a valid file name.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0)
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "set"
        >>> fields.save(folder, format="yolo")
        ()
        >>> cellscan.load_fields(folder).per_class() == fields.per_class()
        True
        """
        return save_records(folder, format, self._records(), self.class_names, self.notes, images=images)

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per box or point, and one for a field without either.

        The columns are those of the file that ``save(folder, format="csv")`` writes: ``field``, ``width``, ``height``,
        ``left``, ``top``, ``right``, ``bottom``, ``class``, ``ignored``, ``polygon``, ``x`` and ``y``, in pixels; and
        ``patient``, ``slide`` and ``laboratory``. ``class`` is categorical, with all class names, and missing for an
        ignored box. ``polygon`` is a text of JSON, with one list of x, y, x, y for each polygon of the box.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0)
        >>> frame = fields.to_dataframe()
        >>> frame["class"].value_counts().to_dict() == fields.per_class()
        True
        """
        table = box_table(self._records(), self.class_names)
        position = {name: row for row, name in enumerate(self.names.tolist())}
        rows = [position[name] for name in table["field"].values]
        groups = zip(GROUPS, (self.patients, self.slides, self.laboratories), strict=True)
        more = {name: Column([str(owners[row]) or None for row in rows]) for name, owners in groups}
        return make_frame({**table, **more})

    def _records(self) -> list[Record]:
        def read(row: int) -> Any:
            return lambda: self.source.read(row)

        return [
            Record(
                str(self.names[row]), (int(size[0]), int(size[1])), path_of(self.source, int(self.rows[row])),
                read(int(self.rows[row])), self.boxes[row], self.labels[row], self.polygons[row], self.points[row],
                self.point_labels[row], None,
                (str(self.patients[row]), str(self.slides[row]), str(self.laboratories[row])),
                self.complete[row].tolist(),
            )
            for row, size in enumerate(self.sizes.tolist())
        ]  # fmt: skip

    def describe(self) -> str:
        """Return a text with the counts of each class, the boxes a field, their sizes, and the notes.

        `CellDataset.describe` returns a record instead. This method opens no image.

        Examples
        --------
        >>> import cellscan
        >>> print(cellscan.synthetic_fields(2, seed=0).describe().splitlines()[0])  # doctest: +ELLIPSIS
        2 fields, ... boxes: red blood cell ..., infected ...
        """
        lines = [str(self)]
        if not len(self):
            return lines[0]
        sizes = sorted({f"{w} x {h}" for w, h in self.sizes.tolist()})
        lines.append(f"  sizes {', '.join(sizes[:5])}{', ...' if len(sizes) > 5 else ''}")
        if self.annotated and sum(map(len, self.boxes)):
            counts = [int((labels != IGNORED).sum()) for labels in self.labels]
            lines.append(f"  boxes a field: {min(counts)} to {max(counts)}, median {np.median(counts):g}")
            for number, name in enumerate(self.class_names):
                boxes = [b[label == number] for b, label in zip(self.boxes, self.labels, strict=True)]
                sides = np.concatenate([(b[:, 2:] - b[:, :2]) for b in boxes])
                if len(sides):
                    width, height = np.median(sides, 0)
                    lines.append(f"  {name}: median {width:.0f} x {height:.0f} px")
        return "\n".join(lines)

    def plot(self, *, count: int = 4, seed: int = 0) -> Figure:
        """Draw some fields with their boxes.

        Parameters
        ----------
        count : int
            Number of fields.
        seed : int
            Seed of the choice of fields.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.synthetic_fields(2, seed=0).plot().axes)
        2
        """
        from cellscan.plots import plot_fields

        if not len(self):
            raise DataError("there are no fields; expected at least one")
        chosen = np.sort(
            np.random.default_rng(check_seed(seed)).permutation(len(self))[: check_whole("count", count, 1)]
        )
        shown = [self[int(index)] for index in chosen]
        return plot_fields([(f.name, f.image, f.boxes, f.labels, None) for f in shown], self.class_names)

    def hash(self, *, pixels: bool = True) -> str:
        """Return 12 hexadecimal digits that identify the images, boxes, points, labels, names and order of the fields.

        Images are identified by the content of their files, which is read once.

        Parameters
        ----------
        pixels : bool
            False leaves the images out.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).hash() == cellscan.synthetic_fields(2, seed=0).hash()
        True
        """
        contents = self.source.checksums(self.rows.tolist()) if pixels else []
        digest = hashlib.sha256(repr((self.class_names, self.names.tolist(), contents)).encode())
        for boxes, labels in zip(self.boxes, self.labels, strict=True):
            digest.update(f"{boxes.shape}".encode() + boxes.tobytes() + labels.tobytes() + b"|")
        if not self.complete.all() or any(map(len, self.points)):
            digest.update(self.complete.tobytes())
            for points, labels in zip(self.points, self.point_labels, strict=True):
                digest.update(f"{points.shape}".encode() + points.tobytes() + labels.tobytes() + b"|")
        return digest.hexdigest()[:12]


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ArgumentError(f"size is {size!r}; expected a height and a width in pixels, such as (480, 640)")
    return check_whole("the height of size", size[0], 1), check_whole("the width of size", size[1], 1)
