"""`FieldDataset`: an immutable table of fields, the boxes in them, and where their pixels come from."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cellscan.data.cells import CellDataset, frozen, leave_out
from cellscan.data.images import ImageLike, fitted
from cellscan.data.pixels import Pixels, open_map
from cellscan.data.sources import ArraySource, Source
from cellscan.data.tables import find_rows
from cellscan.data.values import as_class_names, as_labels, as_list, as_texts, check_seed, check_whole, choose
from cellscan.errors import ArgumentError, DataError, ImageError
from cellscan.notebook import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE, IGNORED = -1, -2
"""Labels in a padded array of boxes: no box; a box that counts neither for nor against, such as a doubtful cell."""

RUN = 12
"""Consecutive fields that stay together in a split, at most."""


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

    @classmethod
    def from_arrays(
        cls,
        images: Iterable[ImageLike],
        boxes: Iterable[ArrayLike],
        labels: Iterable[ArrayLike],
        *,
        class_names: Sequence[str],
        names: Iterable[str] | None = None,
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
        return cls.from_source(source, as_list("boxes", boxes), as_list("labels", labels), named, class_names)

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
    ) -> FieldDataset:
        """Build a data set over a source of images; boxes are tidied, and what was tidied is counted.

        Parameters and errors are those of `from_arrays`.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> from cellscan.data.sources import ArraySource
        >>> source = ArraySource([np.zeros((40, 50, 3), np.uint8)])
        >>> boxes, labels = [np.array([[1, 1, 9, 9]])], [np.array([0])]
        >>> print(cellscan.FieldDataset.from_source(source, boxes, labels, ["a"], ["cell"]))
        1 fields, 1 boxes: cell 1
        """
        if not len(source) == len(boxes) == len(labels) == len(names):
            raise ArgumentError(
                f"{len(source)} images, {len(boxes)} arrays of boxes, {len(labels)} of labels, {len(names)} names; "
                "expected as many of each"
            )
        names = as_texts("names", names)
        class_names = as_class_names(class_names) if as_list("class_names", class_names) else ()
        twice = [name for name, count in Counter(names).items() if count > 1 or not name]
        if twice:
            raise DataError(f"{twice[0]!r} is no name of a field, or one of several; expected a name for each")
        sizes = np.array([source.header(row)[:2] for row in range(len(source))], np.int64).reshape(-1, 2)
        clean, kept = [], []
        counts = {"clipped to the frame": 0, "without area dropped": 0, "given twice dropped": 0}
        for number, (own, said) in enumerate(zip(boxes, labels, strict=True)):
            own, said = _check_boxes(names[number], own), _check_labels(names[number], said, class_names)
            if len(own) != len(said):
                raise DataError(f"{names[number]}: {len(own)} boxes and {len(said)} labels; expected as many of each")
            inside = np.clip(own, 0, np.tile(sizes[number], 2).astype(np.float32))
            area = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
            counts["clipped to the frame"] += int(((inside != own).any(1) & area).sum())
            counts["without area dropped"] += int((~area).sum())
            inside, said = inside[area], said[area]
            _, first = np.unique(np.c_[inside, said], axis=0, return_index=True)
            counts["given twice dropped"] += len(inside) - len(first)
            clean.append(frozen(inside[np.sort(first)]))
            kept.append(frozen(said[np.sort(first)]))
        told = [f"{count:,} {'box' if count == 1 else 'boxes'} {what}" for what, count in counts.items() if count]
        return cls(
            class_names,
            frozen(np.array(list(names), str)),
            tuple(clean),
            tuple(kept),
            frozen(sizes),
            source,
            frozen(np.arange(len(source))),
            (*notes, *told),
            annotated,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Field:
        found = find_rows(index, len(self), "fields")
        if not isinstance(found, int):
            raise ArgumentError(f"fields[{index!r}]: expected a whole number; for many use fields.select(...)")
        image = self.source.read(int(self.rows[found]))
        return Field(str(self.names[found]), image, self.boxes[found], self.labels[found])

    def __iter__(self) -> Iterator[Field]:
        return (self[index] for index in range(len(self)))

    def __str__(self) -> str:
        told = [f"  {note}" for note in self.notes]
        if not self.annotated:
            return "\n".join([f"{len(self):,} fields without boxes", *told])
        labels = np.concatenate([*self.labels, np.zeros(0, np.int32)])
        counts = [f"{name} {(labels == number).sum():,}" for number, name in enumerate(self.class_names)]
        if (labels == IGNORED).any():
            counts.append(f"ignored {(labels == IGNORED).sum():,}")
        return "\n".join([f"{len(self):,} fields, {len(labels):,} boxes: {', '.join(counts)}", *told])

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
        return replace(
            self,
            names=frozen(self.names[chosen]),
            boxes=tuple(self.boxes[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            sizes=frozen(self.sizes[chosen]),
            rows=frozen(self.rows[chosen]),
        )

    def without(self, names: Iterable[str]) -> FieldDataset:
        """Return the data set without the fields of these names.

        Parameters
        ----------
        names : iterable of str
            Those that are not here are passed over; where not one of them is here, that is an error.

        Raises
        ------
        DataError
            Where names are given and none of them is here.

        Examples
        --------
        >>> import cellscan
        >>> fields = cellscan.synthetic_fields(4, seed=0)
        >>> len(fields.without(fields.names[:1]))
        3
        """
        return self.select(leave_out(self.names, names))

    def split(self, *fractions: float, seed: int = 0) -> tuple[FieldDataset, ...]:
        """Split off parts; what is left comes first, as of `CellDataset.split`.

        Fields whose names are alike but for consecutive numbers were mostly taken of one slide one after another. Runs
        of up to twelve stay together, so that neighbours stand on one side; a slide may still stand on both, since
        names do not tell where it ends. A number that counts nothing, such as an objective behind the counter, is
        part of the name; a folder is too.

        Parameters
        ----------
        *fractions : float
            Share of the fields in each part, each in (0, 1), together below 1.
        seed : int

        Examples
        --------
        >>> import cellscan
        >>> train, test = cellscan.synthetic_fields(40, seed=0).split(0.3, seed=0)
        >>> len(train), len(test)
        (28, 12)
        """
        rng = np.random.default_rng(check_seed(seed))
        numbers = all(isinstance(share, Real) and math.isfinite(share) and share > 0 for share in fractions)
        if not fractions or not numbers or sum(fractions) >= 1:
            raise ArgumentError(f"fractions are {fractions}; expected shares above 0 that sum to less than 1")
        blocks = self._runs()
        if len(blocks) <= len(fractions):
            raise DataError(
                f"{len(self)} fields in {len(blocks)} runs cannot make {len(fractions) + 1} parts; use select(...)"
            )
        order = rng.permutation(len(blocks))
        parts: list[list[int]] = [[] for _ in fractions]
        left = [blocks[number] for number in order]
        for part, fraction in zip(parts, fractions, strict=True):
            while left and (not part or abs(len(part) + len(left[0]) - fraction * len(self))
                            <= abs(len(part) - fraction * len(self))):  # fmt: skip
                part += left.pop(0)
        if not left:
            raise DataError(f"{len(self)} fields are too few for fractions {fractions}; use select(...)")
        rest = [index for block in left for index in block]
        return tuple(self.select(np.sort(chosen)) for chosen in (rest, *parts))

    def _runs(self) -> list[list[int]]:
        """Return runs of consecutive numbers, cut to `RUN`."""
        keys = find_counters(self.names.tolist())
        blocks: list[list[int]] = []
        for index in sorted(range(len(self)), key=lambda i: keys[i]):
            place, number = keys[index]
            if blocks and len(blocks[-1]) < RUN and keys[blocks[-1][-1]] == (place, number - 1):
                blocks[-1].append(index)
            else:
                blocks.append([index])
        return blocks

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
            xyxy and label: -1 where there is no box, -2 for one that is ignored.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).targets((90, 120)).shape[2]
        5
        """
        most = max((len(own) for own in self.boxes), default=0)
        room = -(-max(most, 1) // 32) * 32 if room is None else check_whole("room", room, 1)
        if most > room:
            raise DataError(f"a field has {most} boxes; there is room for {room}")
        found = np.full((len(self), room, 5), NONE, np.float32)
        found[:, :, :4] = 0
        factors = self.factors(size)
        for number, (own, said) in enumerate(zip(self.boxes, self.labels, strict=True)):
            found[number, : len(own), :4] = own * factors[number]
            found[number, : len(own), 4] = said
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

    def crops(self, *, least: int = 20, most: int | None = None, seed: int = 0) -> CellDataset:
        """Cut the boxes out, as cells to classify; the field of each stands as its patient.

        Parameters
        ----------
        least : int
            Boxes with a shorter side, in pixels, are left out; so are ignored ones.
        most : int, optional
            Of every class but the last, at most so many a field, drawn with `seed`.
        seed : int

        Returns
        -------
        CellDataset
            With the classes of the fields.

        Examples
        --------
        >>> import cellscan
        >>> crops = cellscan.synthetic_fields(2, seed=0).crops()
        >>> crops.class_names
        ('red blood cell', 'infected')
        """
        rng = np.random.default_rng(check_seed(seed))
        least, most = check_whole("least", least, 1), None if most is None else check_whole("most", most, 1)
        images, labels, owners, names = [], [], [], []
        for index in range(len(self)):
            one = self[index]
            corners = np.c_[np.floor(one.boxes[:, :2]), np.ceil(one.boxes[:, 2:])].astype(int).reshape(-1, 4)
            good = (one.labels >= 0) & ((corners[:, 2:] - corners[:, :2]).min(1, initial=10**6) >= least)
            for label in range(len(self.class_names)):
                rows = np.flatnonzero(good & (one.labels == label))
                if most is not None and label < len(self.class_names) - 1:
                    rows = np.sort(rng.permutation(rows)[:most])
                for row in rows:
                    left, top, right, bottom = corners[row]
                    images.append(one.image[top:bottom, left:right])
                    labels.append(label)
                    owners.append(one.name)
                    names.append(f"{one.name}_{row:03d}")
        if not images:
            raise DataError("no box is left to cut out; expected fields with boxes")
        return CellDataset.from_arrays(images, labels, class_names=self.class_names, patients=owners, names=names)

    def describe(self) -> str:
        """Return what the set holds: counts a class, boxes a field, their sizes, and the notes.

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
        """Draw some fields with their boxes.

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

    def hash(self) -> str:
        """Return 12 hexadecimal digits that identify pixels, boxes, labels and names, in this order of fields.

        Images are told by the content of their files, which is read once.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).hash() == cellscan.synthetic_fields(2, seed=0).hash()
        True
        """
        contents = self.source.checksums(self.rows.tolist())
        digest = hashlib.sha256(repr((self.class_names, self.names.tolist(), contents)).encode())
        for own, said in zip(self.boxes, self.labels, strict=True):
            digest.update(f"{own.shape}".encode() + own.tobytes() + said.tobytes() + b"|")
        return digest.hexdigest()[:12]


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ArgumentError(f"size is {size!r}; expected a height and a width in pixels")
    return check_whole("the height of size", size[0], 1), check_whole("the width of size", size[1], 1)


def _check_boxes(name: str, boxes: Any) -> np.ndarray:
    """Return boxes (n, 4) float32, a copy."""
    try:
        own = np.array(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the boxes are no numbers; expected (n, 4), xyxy in pixels") from error
    if own.size and own.shape[-1:] != (4,):
        raise DataError(f"{name}: boxes of shape {own.shape}; expected (n, 4), xyxy in pixels")
    own = own.reshape(-1, 4)
    if not np.isfinite(own).all():
        raise DataError(f"{name}: a box is not finite; expected numbers of pixels")
    bad = own[(own[:, 2:] < own[:, :2]).any(1)]
    if len(bad):
        raise DataError(f"{name}: the box {bad[0].tolist()} has a negative side; expected left, top, right, bottom")
    return own


def _check_labels(name: str, labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Return labels (n,) int32, a copy."""
    given = np.array(labels, object).ravel().tolist()
    ignored = [one is None or (isinstance(one, Real) and one == IGNORED) for one in given]
    counts = ~np.array(ignored, bool)
    said = np.full(len(given), IGNORED, np.int32)
    try:
        said[counts] = as_labels([one for one, real in zip(given, counts, strict=True) if real], class_names)
    except DataError as error:
        raise DataError(f"{name}: {error}; or {IGNORED}, or None among names, to ignore a box") from error
    return said


def find_counters(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return for every name what it shares with its neighbours, and its number among them.

    The counter is the last number of the file's own name along which names have neighbours: another name that is the
    same but for a number one higher or lower. For half of the names at least; else the number for which most have
    some. Names without a number follow one another as they are given.

    Examples
    --------
    >>> from cellscan.data.fields import find_counters
    >>> find_counters(["A/001_100x.png", "A/002_100x.png", "B/001_100x.png"])
    [('A/*_100x.png', 1), ('A/*_100x.png', 2), ('B/*_100x.png', 1)]
    """
    kinds: dict[tuple[str, ...], list[int]] = {}
    split: list[tuple[str, list[str], str]] = []
    for index, name in enumerate(names):
        folder, slash, own = name.replace("\\", "/").rpartition("/")
        stem, dot, suffix = own.rpartition(".")
        split.append((folder + slash, re.split(r"(\d+)", stem if dot else own), dot + suffix if dot else ""))
        kinds.setdefault(tuple(split[-1][1][::2]), []).append(index)
    found: list[tuple[str, int]] = [("", index) for index in range(len(names))]
    for kind, members in kinds.items():
        best, most = None, 0
        for place in reversed(range(1, 2 * len(kind) - 1, 2)):
            keys = {}
            for index in members:
                folder, parts, suffix = split[index]
                shared = "".join([folder, *parts[:place], "*", *parts[place + 1 :], suffix])
                keys[index] = (shared, int(parts[place]))
            there = set(keys.values())
            count = sum((key, n - 1) in there or (key, n + 1) in there for key, n in keys.values())
            if count > most:
                best, most = keys, count
            if 2 * most >= len(members):
                break
        if best is not None:
            found = [best.get(index, one) for index, one in enumerate(found)]
        elif len(kind) > 1:  # numbers that count nothing: no name has a neighbour
            for index in members:
                found[index] = (names[index], 0)
    return found
