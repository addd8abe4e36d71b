"""`FieldDataset`: an immutable table of fields, the boxes in them, and where their pixels come from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from cellscan.data.cells import CellDataset
from cellscan.data.images import fitted
from cellscan.data.pixels import Pixels, open_map
from cellscan.data.sources import ArraySource, Source
from cellscan.errors import ArgumentError, DataError, ImageError

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
    """Whole fields with boxes; made by `load_fields` or `synthetic_fields`, and never changed.

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
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        *,
        class_names: Sequence[str],
        names: Sequence[str] | None = None,
    ) -> FieldDataset:
        """Build a data set from images in memory.

        Parameters
        ----------
        images : sequence of (H, W, 3) uint8
        boxes : sequence of (n, 4) float
            xyxy in pixels; what overruns the frame is clipped, and boxes without area are dropped, with a note.
        labels : sequence of (n,) int
            Indices into `class_names`, or -2 for boxes to ignore.
        class_names : sequence of str
        names : sequence of str, optional
            Numbers if left out.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> image, box = np.zeros((40, 50, 3), np.uint8), np.array([[10, 10, 60, 30]])
        >>> fields = cellscan.FieldDataset.from_arrays([image], [box], [np.array([0])], class_names=("cell",))
        >>> fields.boxes[0].tolist(), fields.notes
        ([[10.0, 10.0, 50.0, 30.0]], ('1 box clipped to the frame',))
        """
        if not len(images) == len(boxes) == len(labels):
            raise ArgumentError(
                f"{len(images)} images, {len(boxes)} arrays of boxes, {len(labels)} of labels; expected as many of each"
            )
        names = [f"field_{number:04d}" for number in range(len(images))] if names is None else list(names)
        source = ArraySource([np.asarray(image) for image in images])
        return cls.from_source(source, boxes, labels, names, class_names)

    @classmethod
    def from_source(
        cls,
        source: Source,
        boxes: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        names: Sequence[str],
        class_names: Sequence[str],
        *,
        notes: Sequence[str] = (),
        annotated: bool = True,
    ) -> FieldDataset:
        """Build a data set over a source of images; boxes are tidied, and what was tidied is counted.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> from cellscan.data.sources import ArraySource
        >>> source = ArraySource([np.zeros((40, 50, 3), np.uint8)])
        >>> boxes, labels = [np.array([[1, 1, 9, 9]])], [np.array([0])]
        >>> print(cellscan.FieldDataset.from_source(source, boxes, labels, ["a"], ["cell"]))
        1 fields, 1 boxes: cell 1
        """
        sizes = np.array([source.header(row)[:2] for row in range(len(source))], np.int64).reshape(-1, 2)
        clean, kept = [], []
        counts = {"clipped to the frame": 0, "without area dropped": 0, "given twice dropped": 0}
        for number, (own, said) in enumerate(zip(boxes, labels, strict=True)):
            own = np.asarray(own, np.float32).reshape(-1, 4)
            said = np.asarray(said, np.int32).reshape(-1)
            if len(own) != len(said):
                raise DataError(f"{names[number]}: {len(own)} boxes and {len(said)} labels; expected as many of each")
            if not np.isfinite(own).all():
                raise DataError(f"{names[number]}: a box is not finite; expected numbers of pixels")
            bad = said[(said >= len(class_names)) | ((said < 0) & (said != IGNORED))]
            if len(bad):
                last = len(class_names) - 1
                raise DataError(f"{names[number]}: label {bad[0]}; expected 0 to {last}, or {IGNORED} to ignore a box")
            inside = np.clip(own, 0, np.tile(sizes[number], 2).astype(np.float32))
            area = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
            counts["clipped to the frame"] += int(((inside != own).any(1) & area).sum())
            counts["without area dropped"] += int((~area).sum())
            inside, said = inside[area], said[area]
            _, first = np.unique(np.c_[inside, said], axis=0, return_index=True)
            counts["given twice dropped"] += len(inside) - len(first)
            clean.append(inside[np.sort(first)])
            kept.append(said[np.sort(first)])
        told = [f"{count:,} {'box' if count == 1 else 'boxes'} {what}" for what, count in counts.items() if count]
        return cls(
            tuple(class_names),
            np.array(list(names), str),
            tuple(clean),
            tuple(kept),
            sizes,
            source,
            np.arange(len(source)),
            (*notes, *told),
            annotated,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Field:
        if not isinstance(index, (int, np.integer)):
            raise ArgumentError(f"fields[{index!r}]: expected a whole number; for many use fields.select(...)")
        if not -len(self) <= index < len(self):
            raise IndexError(f"field {index} of {len(self)}")
        index = int(index) % len(self)
        image = self.source.read(int(self.rows[index]))
        return Field(str(self.names[index]), image, self.boxes[index], self.labels[index])

    def __str__(self) -> str:
        if not self.annotated:
            return f"{len(self):,} fields without boxes"
        labels = np.concatenate([*self.labels, np.zeros(0, np.int32)])
        counts = [f"{name} {(labels == number).sum():,}" for number, name in enumerate(self.class_names)]
        if (labels == IGNORED).any():
            counts.append(f"ignored {(labels == IGNORED).sum():,}")
        lines = [f"{len(self):,} fields, {len(labels):,} boxes: {', '.join(counts)}"]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return f"FieldDataset({len(self)} fields, class_names={self.class_names})"

    def select(self, which: np.ndarray | Sequence[int]) -> FieldDataset:
        """Return some of the fields, by a mask or by index.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.synthetic_fields(4, seed=0).select([0, 2]))
        2
        """
        chosen = np.asarray(which)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ArgumentError(f"select got a mask {chosen.shape}; expected ({len(self)},)")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        if len(chosen) and not (0 <= chosen.min() and chosen.max() < len(self)):
            raise ArgumentError(f"select got an index outside 0 to {len(self) - 1}")
        return replace(
            self,
            names=self.names[chosen],
            boxes=tuple(self.boxes[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            sizes=self.sizes[chosen],
            rows=self.rows[chosen],
        )

    def split(self, *fractions: float, seed: int = 0) -> tuple[FieldDataset, ...]:
        """Split off parts; what is left comes first, as of `CellDataset.split`.

        Fields whose names end in consecutive numbers were mostly taken of one slide one after another. Runs of up
        to twelve stay together, so that neighbours stand on one side; a slide may still stand on both, since
        names do not tell where it ends.

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
        if not fractions or min(fractions) <= 0 or sum(fractions) >= 1:
            raise ArgumentError(f"fractions are {fractions}; expected shares above 0 that sum to less than 1")
        blocks = self._runs()
        if len(blocks) <= len(fractions):
            raise DataError(
                f"{len(self)} fields in {len(blocks)} runs cannot make {len(fractions) + 1} parts; use select(...)"
            )
        order = np.random.default_rng(seed).permutation(len(blocks))
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
        keys: list[tuple[str, int]] = []
        for number, name in enumerate(self.names):
            found = re.search(r"(\d+)\D*$", PurePath(str(name)).stem)
            keys.append((str(name)[: found.start()] if found else "", int(found[1]) if found else number))
        blocks: list[list[int]] = []
        for index in sorted(range(len(self)), key=lambda i: keys[i]):
            stem, number = keys[index]
            if blocks and len(blocks[-1]) < RUN and keys[blocks[-1][-1]] == (stem, number - 1):
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
        if not len(self):
            raise DataError("there are no fields; expected at least one")
        pixels, failed = open_map(self.source, size, progress=progress)
        for row, reason in failed.items():
            if row in set(self.rows.tolist()):
                raise ImageError(reason)
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
        room = -(-max(most, 1) // 32) * 32 if room is None else room
        if most > room:
            raise DataError(f"a field has {most} boxes; there is room for {room}")
        found = np.full((len(self), room, 5), NONE, np.float32)
        found[:, :, :4] = 0
        for number, (own, said) in enumerate(zip(self.boxes, self.labels, strict=True)):
            found[number, : len(own), :4] = own * self.factors(size)[number]
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
        rng = np.random.default_rng(seed)
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

        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        found = [self[int(index)] for index in chosen]
        return plot_fields([(f.name, f.image, f.boxes, f.labels, None) for f in found], self.class_names)

    def hash(self) -> str:
        """Return a short hash of images, boxes and labels.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_fields(2, seed=0).hash() == cellscan.synthetic_fields(2, seed=0).hash()
        True
        """
        digest = hashlib.sha256(repr((self.class_names, self.names.tolist())).encode())
        for own, said in zip(self.boxes, self.labels, strict=True):
            digest.update(own.tobytes() + said.tobytes() + b"|")
        return digest.hexdigest()[:12]
