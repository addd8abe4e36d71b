"""`FieldDataset`: an immutable table of fields, the boxes in them, and where their pixels come from."""

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
from cellscan.data.cutting import cut
from cellscan.data.formats.common import Record
from cellscan.data.images import ImageLike, fitted
from cellscan.data.joined import path_of
from cellscan.data.pixels import Pixels, open_map
from cellscan.data.runs import find_blocks
from cellscan.data.saving import save_records
from cellscan.data.shapes import IGNORED, NONE, NOT_ANNOTATED, tidy, told_of
from cellscan.data.sources import ArraySource, Source
from cellscan.data.splits import assign, check_folds, part_fractions, read_folds
from cellscan.data.tables import find_rows
from cellscan.data.values import (
    as_class_names,
    as_list,
    as_patient,
    as_texts,
    check_seed,
    check_whole,
    choose,
)
from cellscan.errors import ArgumentError, DataError, ImageError, check_choice, check_names
from cellscan.notebook import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPS = ("patient", "slide", "laboratory")
"""What fields may be told apart by, the first that is known of a field being what a split keeps whole."""

_A_FIELD = ("names", "sizes", "rows", "patients", "slides", "laboratories", "complete")
_A_LIST = ("boxes", "labels", "polygons", "points", "point_labels")
"""Attributes with one entry a field: arrays, and tuples."""


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes
    ----------
    name : str
        File name, or what else names it.
    image : numpy.ndarray
        (H, W, 3) uint8.
    boxes : numpy.ndarray
        (n, 4) float32 xyxy, in the image's own pixels.
    labels : numpy.ndarray
        (n,) int32, indices into the class names; -2 for a box that is ignored.
    polygons : tuple of tuple of numpy.ndarray
        The polygons of every box, (k, 2) float32 x and y; none where there is a box alone.
    points : numpy.ndarray
        (m, 2) float32 x and y.
    point_labels : numpy.ndarray
        (m,) int32.
    patient, slide, laboratory : str
        ``""`` where it is not known.

    Examples
    --------
    >>> import cellscan
    >>> one = cellscan.synthetic_fields(2, seed=0)[0]
    >>> one.image.shape, one.boxes.shape[1], one.boxes.dtype
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
class FieldDataset:
    """Whole fields with boxes; made by `load_fields` or `synthetic_fields`, never changed, and read-only.

    Attributes
    ----------
    class_names : tuple[str, ...]
        The classes.
    names : numpy.ndarray
        (N,) str.
    boxes : tuple[numpy.ndarray, ...]
        (n, 4) float32 xyxy of every field, in its own pixels, inside the frame.
    labels : tuple[numpy.ndarray, ...]
        (n,) int32 of every field; -2 marks boxes that are ignored in training and in average precision.
    sizes : numpy.ndarray
        (N, 2) int64, width and height.
    notes : tuple[str, ...]
        What was clipped, dropped or passed over while it was read, counted.
    annotated : bool
        False for a folder of images without boxes.
    polygons : tuple of tuple of tuple of numpy.ndarray
        Of every field, for each of its boxes its polygons, (k, 2) float32 x and y in pixels; none where there is a box
        alone, several where a cell is drawn in parts. As written: they may overrun the frame.
    points : tuple[numpy.ndarray, ...]
        (m, 2) float32 x and y of every field: cells that are marked, and not boxed.
    point_labels : tuple[numpy.ndarray, ...]
        (m,) int32; -2 for points that are ignored.
    patients, slides, laboratories : numpy.ndarray
        (N,) str; ``""`` where one is not known.
    complete : numpy.ndarray
        (N, K) bool: whether every cell of the class is annotated in the field. Where not, what has no box counts
        neither as background in training nor as a false call in evaluation.
    format : str
        Which annotation format was recognised, as of ``load_fields(format=...)``; ``"images"`` for images alone, ``""``
        where nothing was read.
    told : str
        The same in words, with how corners are counted.

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
    told: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Fill in what a caller that knows boxes alone has left out."""
        count = len(self.rows)
        empty: dict[str, Any] = {
            "polygons": tuple(((),) * len(own) for own in self.boxes),
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
        for name in _A_FIELD:  # pickles forget it
            getattr(self, name).flags.writeable = False
        for name in ("boxes", "labels", "points", "point_labels"):
            for array in getattr(self, name):
                array.flags.writeable = False
        for ring in (ring for own in self.polygons for rings in own for ring in rings):
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
        """Build a data set from images in memory, which are copied.

        Parameters
        ----------
        images : iterable of (H, W, 3) uint8
            Or of any other form that `Detector.predict` takes.
        boxes : iterable of (n, 4) float
            xyxy in pixels; what overruns the frame is clipped, and boxes without area are dropped, with a note.
        labels : iterable of (n,) int or str
            Indices into `class_names`, or names of them; -2, or None among names, for boxes to ignore.
        class_names : sequence of str
        names : iterable of str, optional
            Distinct. Numbers if left out.
        polygons : iterable, optional
            Of every field, for each of its boxes a sequence of (k, 2) arrays, of three corners or more each.
        points : iterable of (m, 2) float, optional
            x and y in pixels, inside the frame.
        point_labels : iterable of (m,) int or str, optional
            As `labels`.
        patients, slides, laboratories : iterable, optional
            (N,) each; None or ``""`` where one is not known.
        complete : (N, K) or (K,) bool, optional
            Whether every cell of the class is annotated in the field. All, if left out.

        Raises
        ------
        ArgumentError
            Where there are not as many images, boxes, labels and names.
        DataError
            Where boxes, labels or names are not as above; a negative side, as of x, y, width and height, is an error.
        ImageError
            Where an image is none.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> image, box = np.zeros((40, 50, 3), np.uint8), np.array([[10, 10, 60, 30]])
        >>> fields = cellscan.FieldDataset.from_arrays([image], [box], [np.array([0])], class_names=("cell",))
        >>> fields.boxes[0].tolist(), fields.notes
        ([[10.0, 10.0, 50.0, 30.0]], ('1 box clipped to the frame',))
        """
        if isinstance(images, (str, bytes)) or not isinstance(images, Iterable) or getattr(images, "ndim", 1) == 0:
            raise ArgumentError(f"images is {images!r:.80}; expected one entry a field")
        source = ArraySource(images)
        named = [f"field_{number:04d}" for number in range(len(source))] if names is None else as_list("names", names)
        more: dict[str, Any] = {
            name: None if value is None else as_list(name, value)
            for name, value in (("polygons", polygons), ("points", points), ("point_labels", point_labels))
        }
        found = cls.from_source(
            source, as_list("boxes", boxes), as_list("labels", labels), named, class_names, complete=complete, **more
        )
        return found.with_groups(patients, slides, laboratories)

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
        told: str = "",
    ) -> FieldDataset:
        """Build a data set over a source of images; boxes are tidied, and what was tidied is counted.

        Parameters and errors are those of `from_arrays`; `sizes` (N, 2), width and height, are read where left out.

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
        counts = [None if one is None else len(one) for one in lists]
        if any(number not in (None, count) for number in counts):
            what = ("arrays of boxes", "of labels", "names", "of polygons", "of points", "of their labels")
            told_counts = ", ".join(f"{n} {kind}" for n, kind in zip(counts, what, strict=True) if n is not None)
            raise ArgumentError(f"{count} images, {told_counts}; expected as many of each")
        names = as_texts("names", names)
        class_names = as_class_names(class_names) if as_list("class_names", class_names) else ()
        twice = [name for name, count in Counter(names).items() if count > 1 or not name]
        if twice:
            raise DataError(f"{twice[0]!r} is no name of a field, or one of several; expected a name for each")
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
            told=told,
        )

    def with_groups(
        self,
        patients: Iterable[Any] | None = None,
        slides: Iterable[Any] | None = None,
        laboratories: Iterable[Any] | None = None,
    ) -> FieldDataset:
        """Return the data set with these patients, slides and laboratories; what is left out stays.

        Parameters
        ----------
        patients, slides, laboratories : iterable, optional
            (N,) texts or numbers each; None, NaN or ``""`` where one is not known.

        Raises
        ------
        DataError
            Where there are not as many as fields.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(4, seed=0).with_groups(patients=["p1", "p1", "p2", "p3"])
        >>> fields.patients.tolist()
        ['p1', 'p1', 'p2', 'p3']
        """
        given = {"patients": patients, "slides": slides, "laboratories": laboratories}
        found: dict[str, Any] = {}
        for name, values in given.items():
            if values is not None:
                texts = [as_patient(f"{name}[{row}]", value) for row, value in enumerate(as_list(name, values))]
                if len(texts) != len(self):
                    raise DataError(f"{len(self)} fields and {len(texts)} {name}; expected as many of each")
                found[name] = frozen(np.array(texts, str) if texts else np.zeros(0, "U1"))
        return replace(self, **found)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Field: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> FieldDataset: ...
    def __getitem__(self, index: Any) -> Field | FieldDataset:
        found = find_rows(index, len(self), "fields")
        if not isinstance(found, int):
            return self.select(found)
        image = self.source.read(int(self.rows[found]))
        return Field(
            str(self.names[found]),
            image,
            self.boxes[found],
            self.labels[found],
            self.polygons[found],
            self.points[found],
            self.point_labels[found],
            str(self.patients[found]),
            str(self.slides[found]),
            str(self.laboratories[found]),
        )

    def __iter__(self) -> Iterator[Field]:
        return (self[index] for index in range(len(self)))

    def __str__(self) -> str:
        told = [f"  format {self.format}: {self.told}"] if self.format else []
        groups = {"patients": self.patients, "slides": self.slides, "laboratories": self.laboratories}
        known = {what: own[own != ""] for what, own in groups.items()}
        texts = [
            f"{len(set(own.tolist())):,} {what}{f' (of {len(own):,} fields)' if len(own) < len(self) else ''}"
            for what, own in known.items()
            if len(own)
        ]
        told += [f"  {', '.join(texts)}"] if texts else []
        part = (~self.complete).sum(0)
        texts = [
            f"{name}{f' (in {count:,} fields)' if count < len(self) else ''}"
            for name, count in zip(self.class_names, part.tolist(), strict=True)
            if count
        ]
        told += [f"  not all annotated: {', '.join(texts)}"] if texts else []
        told += [f"  {note}" for note in self.notes]
        if not self.annotated:
            return "\n".join([f"{len(self):,} fields without boxes", *told])
        lines = []
        for what, each in (("boxes", self.labels), ("points", self.point_labels)):
            labels = np.concatenate([*each, np.zeros(0, np.int32)])
            counts = [f"{name} {(labels == number).sum():,}" for number, name in enumerate(self.class_names)]
            if (labels == IGNORED).any():
                counts.append(f"ignored {(labels == IGNORED).sum():,}")
            if len(labels) or what == "boxes":
                lines.append(f"{len(labels):,} {what}: {', '.join(counts)}")
        return "\n".join([f"{len(self):,} fields, {lines[0]}", *(f"  {line}" for line in lines[1:]), *told])

    def __repr__(self) -> str:
        return f"FieldDataset({len(self)} fields, class_names={self.class_names})"

    def _repr_html_(self) -> str:
        return as_text(self.describe())

    def per_class(self) -> dict[str, int]:
        """Count the boxes of each class, ignored ones left out.

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
            Which fields, in the order given.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(4, seed=0).select([0, -1]).names.tolist()
        ['synthetic_0000.png', 'synthetic_0003.png']
        """
        chosen = choose(mask_or_indices, len(self))
        arrays = {name: frozen(getattr(self, name)[chosen]) for name in _A_FIELD}
        return replace(self, **arrays, **{name: tuple(getattr(self, name)[i] for i in chosen) for name in _A_LIST})

    def without(self, names: Iterable[str]) -> FieldDataset:
        """Return the data set without the fields of these names.

        Parameters
        ----------
        names : iterable of str
            Names of fields, or their ends behind a slash. Those that are not here are passed over; where not one of
            them is here, that is an error.

        Raises
        ------
        DataError
            Where names are given and none of them is here, or one is the end of several fields' names.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(4, seed=0)
        >>> len(fields.without(fields.names[:1]))
        3
        """
        return self.select(leave_out(self.names, names))

    def rename_classes(self, names: Mapping[str, str | None]) -> FieldDataset:
        """Return the data set with other names of classes: several of one name become one, None ignores.

        Parameters
        ----------
        names : mapping
            Old name -> new name, or None for boxes and points to ignore; classes that are not in it keep their name.

        Raises
        ------
        DataError
            Where it names a class that is not here.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0)
        >>> fields.rename_classes({"red blood cell": "cell", "infected": "cell"}).class_names
        ('cell',)
        """
        if not isinstance(names, Mapping) or not all(new is None or isinstance(new, str) for new in names.values()):
            raise ArgumentError(f"names is {names!r:.80}; expected a mapping from names to names, or None")
        find_classes(list(names), self.class_names)
        new = [names.get(old, old) for old in self.class_names]
        kept = list(dict.fromkeys(name for name in new if name is not None))
        return self.relabelled(as_class_names(kept) if kept else (), [kept.index(n) if n else None for n in new])

    def drop_classes(self, names: Sequence[str]) -> FieldDataset:
        """Return the data set without these classes, their boxes and their points: such cells count as background.

        To ignore them instead, so that they count neither way, use ``rename_classes({name: None})``.

        Parameters
        ----------
        names : sequence of str

        Raises
        ------
        DataError
            Where it names a class that is not here.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0)
        >>> print(fields.drop_classes(["infected"]))  # doctest: +ELLIPSIS
        2 fields, ... boxes: red blood cell ...
        """
        unwanted = check_names("names", names, 1)
        numbers = find_classes(unwanted, self.class_names)
        kept = [~np.isin(said, numbers) for said in self.labels]
        marked = [~np.isin(said, numbers) for said in self.point_labels]
        left = replace(
            self,
            boxes=tuple(frozen(own[keep]) for own, keep in zip(self.boxes, kept, strict=True)),
            labels=tuple(frozen(own[keep]) for own, keep in zip(self.labels, kept, strict=True)),
            polygons=tuple(
                tuple(rings for rings, stays in zip(own, keep.tolist(), strict=True) if stays)
                for own, keep in zip(self.polygons, kept, strict=True)
            ),
            points=tuple(frozen(own[keep]) for own, keep in zip(self.points, marked, strict=True)),
            point_labels=tuple(frozen(own[keep]) for own, keep in zip(self.point_labels, marked, strict=True)),
        )
        rest = [name for name in self.class_names if name not in unwanted]
        return left.relabelled(rest, [rest.index(name) if name in rest else None for name in self.class_names])

    def add_classes(self, names: Sequence[str]) -> FieldDataset:
        """Return the data set with more classes, of which no field has a cell, such as "infected" of healthy donors.

        Parameters
        ----------
        names : sequence of str
            Names that are not among the classes.

        Raises
        ------
        DataError
            Where it names a class that is here.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0).drop_classes(["infected"]).add_classes(["infected"])
        >>> fields.class_names, bool(fields.complete.all())
        (('red blood cell', 'infected'), True)
        """
        new = check_names("names", names, 1)
        found = self.relabelled(with_classes(self.class_names, new), range(len(self.class_names)))
        complete = np.concatenate([self.complete, np.ones((len(self), len(new)), bool)], 1)
        return replace(found, complete=frozen(complete))

    def relabelled(self, class_names: Sequence[str], to: Sequence[int | None]) -> FieldDataset:
        """Return the data set with these classes; `to` says for each of the old ones which it is, or None to ignore.

        A class of the new ones is complete where every old one of it is; one that is no old one is not annotated.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0).relabelled(("infected", "platelet"), [None, 0])
        >>> fields.complete.tolist()
        [[True, False], [True, False]]
        """
        index = np.array([IGNORED if one is None else one for one in to], np.int32)
        complete = np.zeros((len(self), len(class_names)), bool)
        for number in range(len(class_names)):
            own = self.complete[:, index == number]
            complete[:, number] = own.all(1) & (own.shape[1] > 0)
        labels = {
            name: tuple(frozen(np.where(said >= 0, index[np.maximum(said, 0)], said).astype(np.int32)) for said in each)
            for name, each in (("labels", self.labels), ("point_labels", self.point_labels))
        }
        return replace(self, class_names=tuple(class_names), complete=frozen(complete), **labels)

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
        """Divide the fields into parts to train, to validate and to test; all arguments are keywords.

        Whole patients stay on one side, where they are known, or else whole slides. Where neither is, fields whose
        names are alike but for consecutive numbers were mostly taken of one slide one after another: runs of up to
        twelve stay together, so that neighbours stand on one side. A slide may then still stand on both, since
        names do not tell where it ends. A number that counts nothing, such as an objective behind the counter, is
        part of the name; a folder is too, so runs count in each.

        Parameters
        ----------
        test, validation : float
            Fractions of the fields, each in (0, 1), with a sum below 1.
        by : {"patient", "slide", "laboratory"}, optional
            What no part shares with another; it must be known of every field. Left out: of each field the patient,
            or the slide, or its run.
        seed : int
            Another seed gives another split.

        Returns
        -------
        tuple of FieldDataset
            ``(train, test)``, or ``(train, validation, test)`` where `validation` is given.

        Raises
        ------
        ArgumentError
            Where an argument is positional, or the fractions leave nothing to train on.
        DataError
            Where there are too few fields, or groups, or one is not known.

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
        """Yield (train, test) for every fold; every field is in one test part.

        Parameters
        ----------
        folds : int or path
            How many; with ``by="laboratory"`` and as many as there are, each is kept apart once. Or a CSV file with
            the header ``patient,fold`` that names every patient, as of `CellDataset.write_folds`.
        by, seed
            As in `split`; with a file `by` must be ``"patient"`` or left out.

        Raises
        ------
        DataError
            Where there are fewer groups than folds, or one is not known.

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
            return ((self.select(listed != one), self.select(listed == one)) for one in np.unique(listed).tolist())
        count = check_folds(folds)
        group = np.zeros(len(self), np.int64)
        for number, block in enumerate(blocks := self._blocks(by)):
            group[block] = number
        if len(blocks) < count:
            raise DataError(f"{len(self)} fields in {len(blocks)} groups cannot fill {count} folds; ask for fewer")
        fold = assign(np.zeros(len(self), np.int64), group, (1 / count,) * count, 1, check_seed(seed))
        return ((self.select(fold != number), self.select(fold == number)) for number in range(count))

    def _blocks(self, by: str | None) -> list[list[int]]:
        """Return which fields a split keeps together."""
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
            Where that of a field is not known.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(2, seed=0).with_groups(slides=["s1", "s2"])
        >>> fields.groups("slide").tolist()
        ['s1', 's2']
        """
        check_choice("by", by, GROUPS)
        own = {"patient": self.patients, "slide": self.slides, "laboratory": self.laboratories}[by]
        if (own == "").any():
            raise DataError(
                f"{self.names[own == ''][0]}: its {by} is not known; give one for every field, by "
                f"load_fields(..., {by}=...), or leave by= out"
            )
        return own

    def images(self, size: tuple[int, int], *, progress: bool = True) -> Pixels:
        """Return all fields, fitted into `size`: decoded once, kept in the cache.

        Parameters
        ----------
        size : (int, int)
            Height and width; both sides by one factor, black where room is left to the right or below.

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

    def targets(self, size: tuple[int, int], room: int | None = None) -> np.ndarray:
        """Return boxes and labels as one padded array, in the pixels of `images(size)`.

        Parameters
        ----------
        size : (int, int)
        room : int, optional
            Boxes a field; left out, the most that there are, rounded up to 32.

        Returns
        -------
        (N, M, 5) float32
            xyxy and label: -1 where there is no box, -2 for one that is ignored, and, behind the boxes, -3 - k where
            not every cell of class k has a box in this field: it has points, or is not `complete`.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).targets((90, 120)).shape[2]
        5
        """
        unknown = [np.flatnonzero(own) for own in ~self.boxed()]
        most = max((len(own) + len(more) for own, more in zip(self.boxes, unknown, strict=True)), default=0)
        room = -(-max(most, 1) // 32) * 32 if room is None else check_whole("room", room, 1)
        if most > room:
            raise DataError(f"a field has {most} boxes and classes without some; there is room for {room}")
        found = np.full((len(self), room, 5), NONE, np.float32)
        found[:, :, :4] = 0
        factors = self.factors(size)
        for number, (own, said) in enumerate(zip(self.boxes, self.labels, strict=True)):
            found[number, : len(own), :4] = own * factors[number]
            found[number, : len(own), 4] = said
            found[number, len(own) : len(own) + len(unknown[number]), 4] = NOT_ANNOTATED - unknown[number]
        return found

    def boxed(self) -> np.ndarray:
        """Return (N, K) bool: whether every cell of the class has a box in the field.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(1, seed=0).boxed().tolist()
        [[True, True]]
        """
        found = np.array(self.complete)
        for row, said in enumerate(self.point_labels):
            found[row, said[said >= 0]] = False
            if (said == IGNORED).any():  # a marked cell of an unknown kind
                found[row] = False
        return found

    def factors(self, size: tuple[int, int]) -> np.ndarray:
        """Return (N, 4) float32: what boxes are multiplied by when fields are fitted into `size`.

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
        seed: int = 0,
    ) -> CellDataset:
        """Cut the boxes out, as cells to classify.

        The patient of each is that of its field; where that is not known of every field, the slide; else the field.

        Parameters
        ----------
        min_size : int
            Boxes with a shorter side, in pixels, are left out; so are ignored ones.
        max_per_class : int, optional
            Of every class but the last, at most so many a field, drawn with `seed`.
        background : {"keep", "black", "fill"}
            ``"keep"`` cuts the whole box. The others cut along polygons, which every box must have: outside the cell
            is black, as of the NIH cells, or has the cell's mean colour.
        seed : int

        Returns
        -------
        CellDataset
            With the classes of the fields.

        Raises
        ------
        DataError
            Where no box is left, or one has no polygon to cut along.

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
        known = [own for own in (self.patients, self.slides) if len(own) and (own != "").all()]
        owner = (known[0] if known else self.names).tolist()
        images, labels, owners, names = [], [], [], []
        for index in range(len(self)):
            one = self[index]
            corners = np.c_[np.floor(one.boxes[:, :2]), np.ceil(one.boxes[:, 2:])].astype(int).reshape(-1, 4)
            good = (one.labels >= 0) & ((corners[:, 2:] - corners[:, :2]).min(1, initial=10**6) >= min_size)
            for label in range(len(self.class_names)):
                rows = np.flatnonzero(good & (one.labels == label))
                if max_per_class is not None and label < len(self.class_names) - 1:
                    rows = np.sort(rng.permutation(rows)[:max_per_class])
                for row in rows.tolist():
                    if background != "keep" and not one.polygons[row]:
                        raise DataError(f"{one.name}: box {row} has no polygon to cut along; use background='keep'")
                    images.append(cut(one.image, corners[row].tolist(), one.polygons[row], background))
                    labels.append(label)
                    owners.append(owner[index])
                    names.append(f"{one.name}_{row:03d}")
        if not images:
            raise DataError("no box is left to cut out; expected fields with boxes")
        return CellDataset.from_arrays(images, labels, class_names=self.class_names, patients=owners, names=names)

    def save(
        self,
        folder: str | os.PathLike[str],
        format: Literal["coco", "yolo", "voc", "csv"] = "coco",
        *,
        images: bool = True,
    ) -> tuple[str, ...]:
        """Write images and annotations into a new folder that `load_fields`, and annotation tools, read.

        Images that are files are copied, others written as PNG. Beside them stands a file `cellscan.json` with what
        annotation formats have no room for: order of the classes, patients, slides, laboratories, completeness, notes.
        COCO and CSV hold boxes, polygons, points and ignored boxes; YOLO boxes alone; Pascal VOC boxes, and ignored
        ones as difficult.

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
            What the format does not hold, counted: nothing is lost where it is empty.

        Raises
        ------
        ArgumentError
            Where the folder is there, or an argument is of another kind.
        DataError
            Where it cannot be written, or names of fields do not work as file names.

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

        def read(row: int) -> Any:
            return lambda: self.source.read(row)

        records = [
            Record(
                str(self.names[row]), (int(size[0]), int(size[1])), path_of(self.source, int(self.rows[row])),
                read(int(self.rows[row])), self.boxes[row], self.labels[row], self.polygons[row], self.points[row],
                self.point_labels[row], None,
                (str(self.patients[row]), str(self.slides[row]), str(self.laboratories[row])),
                self.complete[row].tolist(),
            )
            for row, size in enumerate(self.sizes.tolist())
        ]  # fmt: skip
        return save_records(folder, format, records, self.class_names, self.notes, images=images)

    def describe(self) -> str:
        """Return what the set holds: counts a class, boxes a field, their sizes, and the notes.

        A text, where `CellDataset.describe` gives a record: all of it is known, so no file is opened.

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
            counts = [int((own != IGNORED).sum()) for own in self.labels]
            lines.append(f"  boxes a field: {min(counts)} to {max(counts)}, median {np.median(counts):g}")
            for number, name in enumerate(self.class_names):
                own = [b[label == number] for b, label in zip(self.boxes, self.labels, strict=True)]
                sides = np.concatenate([(b[:, 2:] - b[:, :2]) for b in own])
                if len(sides):
                    wide, high = np.median(sides, 0)
                    lines.append(f"  {name}: median {wide:.0f} x {high:.0f} px")
        return "\n".join(lines)

    def plot(self, *, count: int = 4, seed: int = 0) -> Figure:
        """Draw some fields with their boxes; a figure holds few fields, and many cells in `CellDataset.plot`.

        Parameters
        ----------
        count : int
            How many fields.
        seed : int
            Which fields are drawn.

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
        found = [self[int(index)] for index in chosen]
        return plot_fields([(f.name, f.image, f.boxes, f.labels, None) for f in found], self.class_names)

    def hash(self, *, pixels: bool = True) -> str:
        """Return 12 hexadecimal digits that identify pixels, boxes, points, labels and names, in this order of fields.

        Images are told by the content of their files, which is read once.

        Parameters
        ----------
        pixels : bool
            False: without the images.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).hash() == cellscan.synthetic_fields(2, seed=0).hash()
        True
        """
        contents = self.source.checksums(self.rows.tolist()) if pixels else []
        digest = hashlib.sha256(repr((self.class_names, self.names.tolist(), contents)).encode())
        for own, said in zip(self.boxes, self.labels, strict=True):
            digest.update(f"{own.shape}".encode() + own.tobytes() + said.tobytes() + b"|")
        if not self.complete.all() or any(map(len, self.points)):
            digest.update(self.complete.tobytes())
            for own, said in zip(self.points, self.point_labels, strict=True):
                digest.update(f"{own.shape}".encode() + own.tobytes() + said.tobytes() + b"|")
        return digest.hexdigest()[:12]


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ArgumentError(f"size is {size!r}; expected a height and a width in pixels")
    return check_whole("the height of size", size[0], 1), check_whole("the width of size", size[1], 1)
