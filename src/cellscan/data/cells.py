"""`CellDataset`: an immutable table of cells, plus where their pixels come from."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from cellscan.data.images import read_rgb
from cellscan.data.pixels import Pixels, open_map
from cellscan.data.sources import ArraySource, Source
from cellscan.data.splits import Split, assign, assign_cells, read_folds, split_hash
from cellscan.errors import ArgumentError, DataError, ImageError, check_choice
from cellscan.notebook import as_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cellscan.data.description import Description


@dataclass(frozen=True)
class Cell:
    """One cell of a data set.

    Attributes
    ----------
    image : numpy.ndarray
        (H, W, 3) uint8, RGB, at the size it is stored in.
    label : int
        Index into the data set's `class_names`.
    label_name : str
        The class.
    patient : str
        The patient, ``""`` where unknown.
    name : str
        The file name.

    Examples
    --------
    >>> import cellscan
    >>> cell = cellscan.synthetic_cells(40, seed=0)[0]
    >>> cell.label_name, cell.image.dtype
    ('parasitized', dtype('uint8'))
    """

    image: np.ndarray = field(repr=False)
    label: int
    label_name: str
    patient: str
    name: str


@dataclass(frozen=True, repr=False, eq=False)
class CellDataset:
    """An immutable table of cells: labels, patients, names, and where the pixels are.

    Made by `load_malaria`, `load_folder`, `synthetic_cells`, `CellDataset.from_arrays`, `concat`.

    Attributes
    ----------
    labels : numpy.ndarray
        (N,) int32, indices into `class_names`.
    patients : numpy.ndarray
        (N,) str; all ``""`` where patients are unknown.
    names : numpy.ndarray
        (N,) str, file names.
    class_names : tuple[str, ...]
        The classes, in the order of their indices.
    split_info : Split or None
        How this part came about, where it is a part.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(200, seed=0)
    >>> print(cells)
    200 cells of 5 patients: parasitized 100, uninfected 100
    >>> cells.labels.dtype, cells.class_names
    (dtype('int32'), ('parasitized', 'uninfected'))
    >>> train, test = cells.split(0.2, by="patient", seed=0)
    >>> set(train.patients) & set(test.patients)
    set()
    """

    labels: np.ndarray
    patients: np.ndarray
    names: np.ndarray
    class_names: tuple[str, ...]
    split_info: Split | None
    _sources: tuple[Source, ...]
    _part: np.ndarray
    _row: np.ndarray

    @classmethod
    def from_source(
        cls,
        source: Source,
        labels: Sequence[int] | np.ndarray,
        names: Sequence[str],
        patients: Sequence[str] | None,
        class_names: Sequence[str],
    ) -> CellDataset:
        """Build a data set over a source; the loaders of this package end here.

        Examples
        --------
        >>> from cellscan.data.sources import ArraySource
        >>> import numpy as np, cellscan
        >>> source = ArraySource([np.zeros((8, 8, 3), np.uint8)])
        >>> len(cellscan.CellDataset.from_source(source, [0], ["a"], None, ["parasitized"]))
        1
        """
        count = len(source)
        if count == 0:
            raise DataError("there are no images; expected at least one")
        class_names = tuple(class_names)
        folded = [name.casefold() for name in class_names]
        if len(set(folded)) < len(folded):
            raise DataError(f"the class names {class_names} are not distinct (upper and lower case are one)")
        label_array = np.asarray(labels, np.int32)
        if label_array.shape != (count,) or len(names) != count:
            raise DataError(f"{count} images, {len(label_array)} labels, {len(names)} names; expected as many of each")
        if label_array.min() < 0 or label_array.max() >= len(class_names):
            raise DataError(
                f"labels from {label_array.min()} to {label_array.max()}; expected 0 to {len(class_names) - 1}"
            )
        patient_array = np.array([""] * count if patients is None else list(patients), dtype=str)
        if patient_array.shape != (count,):
            raise DataError(f"{count} images and {len(patient_array)} patients; expected as many of each")
        if (patient_array == "").any() and (patient_array != "").any():
            row = int(np.flatnonzero(patient_array == "")[0])
            raise DataError(
                f"{names[row]}: the patient of this cell is unknown while others are known. "
                "Name a patient for every cell, or for none"
            )
        return cls(
            frozen(label_array),
            frozen(patient_array),
            frozen(np.array(list(names), dtype=str)),
            class_names,
            None,
            (source,),
            frozen(np.zeros(count, np.int32)),
            frozen(np.arange(count)),
        )

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[np.ndarray] | np.ndarray,
        labels: Sequence[int] | np.ndarray,
        *,
        class_names: Sequence[str] = ("parasitized", "uninfected"),
        patients: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> CellDataset:
        """Build a data set from images in memory.

        Parameters
        ----------
        images : sequence of numpy.ndarray
            Each (H, W, 3) uint8 or another form that `Classifier.predict` takes.
        labels : sequence of int
            (N,) indices into `class_names`.
        class_names : sequence of str
            The classes.
        patients : sequence of str, optional
            (N,) patients; unknown if left out.
        names : sequence of str, optional
            (N,) names; numbers if left out.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> images = np.zeros((4, 32, 32, 3), np.uint8)
        >>> print(cellscan.CellDataset.from_arrays(images, [0, 1, 0, 1]))
        4 cells, patients unknown: parasitized 2, uninfected 2
        """
        names = [f"image_{i}" for i in range(len(images))] if names is None else names
        return cls.from_source(ArraySource([np.asarray(i) for i in images]), labels, names, patients, class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Cell:
        if not isinstance(index, (int, np.integer)):
            raise ArgumentError(f"cells[{index!r}]: expected a whole number; for many use cells.select(...)")
        if not -len(self) <= index < len(self):
            raise IndexError(f"cell {index} of {len(self)}")
        source, row = self._sources[int(self._part[index])], int(self._row[index])
        label = int(self.labels[index])
        return Cell(
            source.read(row),
            label,
            self.class_names[label],
            str(self.patients[index]),
            str(self.names[index]),
        )

    def __iter__(self) -> Iterator[Cell]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.per_class().items())
        known = len(set(self.patients.tolist())) if self.has_patients else 0
        whose = f" of {known} patients" if known else ", patients unknown"
        return f"{len(self):,} cells{whose}: {counts}"

    def _repr_html_(self) -> str:
        rows = []
        for label, (name, count) in enumerate(self.per_class().items()):
            owners = set(self.patients[self.labels == label].tolist()) - {""}
            rows.append([name, f"{count:,}", f"{len(owners):,}" if owners else "unknown"])
        split = "" if self.split_info is None else f"split: {self.split_info}"
        return as_table(repr(self), ["class", "cells", "patients"], rows, split)

    def per_class(self) -> dict[str, int]:
        """Return the number of cells of each class.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(80, seed=0).per_class()
        {'parasitized': 40, 'uninfected': 40}
        """
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}

    @property
    def has_patients(self) -> bool:
        """Whether the patients are known.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(40, seed=0).has_patients
        True
        """
        return bool(len(self)) and self.patients[0] != ""

    @property
    def masks(self) -> list[np.ndarray]:
        """Where the parasites of painted cells are: one (H, W) bool array a cell, at the stored size.

        Raises
        ------
        DataError
            Where the cells were not painted.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> bool(cells.masks[0].any()), cells.masks[0].shape == cells[0].image.shape[:2]
        (True, True)
        """
        masks: list[np.ndarray] = []
        for part, row in zip(self._part, self._row, strict=True):
            source = self._sources[part]
            if not isinstance(source, ArraySource) or source.masks is None:
                raise DataError("these cells have no masks; only synthetic_cells paints them")
            masks.append(source.masks[row])
        return masks

    def images(self, size: int, *, progress: bool = True) -> Pixels:
        """Return all images at one size, as a lazy read-only array (N, size, size, 3) uint8.

        The first call decodes every image of the underlying set into a file in the cache folder
        (``CELLSCAN_CACHE``, else the user's cache folder), on all cores; later calls, also of
        other splits of the same set, reopen it. Both sides are stretched by an antialiased bilinear
        filter, as in `Classifier.predict`.

        Parameters
        ----------
        size : int
            Side in pixels, at least 8.
        progress : bool
            Show a progress bar if it takes longer than two seconds.

        Raises
        ------
        ImageError
            Where an image of this data set cannot be read; it names all of them.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(60, seed=0).images(32)
        Pixels(shape=(60, 32, 32, 3), dtype=uint8)
        """
        pixels, bad = self.open_pixels(size, progress=progress)
        if bad:
            listed = "\n  ".join(list(bad.values())[:5])
            more = f"\n  and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise ImageError(
                f"{len(bad)} of {len(self)} images cannot be read:\n  {listed}{more}\n"
                f"Leave them out with cells.select(~np.isin(np.arange(len(cells)), {list(bad)[:20]}))"
            )
        return pixels

    def open_pixels(self, size: int, *, progress: bool = True) -> tuple[Pixels, dict[int, str]]:
        """Return what `images` does, and the reason of each cell that cannot be read instead of an error.

        Parameters
        ----------
        size, progress
            As in `images`.

        Examples
        --------
        >>> import cellscan
        >>> pixels, unreadable = cellscan.synthetic_cells(60, seed=0).open_pixels(32)
        >>> unreadable
        {}
        """
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 8:
            raise ArgumentError(f"size is {size!r}; expected a whole number of pixels, 8 or more")
        maps: list[np.ndarray] = []
        bad: dict[int, str] = {}
        for number, source in enumerate(self._sources):
            pixels, failed = open_map(source, int(size), progress=progress)
            maps.append(pixels)
            for row in np.flatnonzero((self._part == number) & np.isin(self._row, list(failed))):
                bad[int(row)] = failed[int(self._row[row])]
        return Pixels(tuple(maps), self._part, self._row), dict(sorted(bad.items()))

    def describe(self, *, progress: bool = True) -> Description:
        """Count classes, patients, sizes and formats; opens every file but decodes none.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(80, seed=0).describe().per_class
        {'parasitized': 40, 'uninfected': 40}
        """
        from cellscan.data.description import describe_cells

        return describe_cells(self, progress)

    def plot(self, rows: int = 2, columns: int = 8, *, size: int | None = None, seed: int = 0) -> Figure:
        """Draw a grid of cells, `rows` rows of each class, with their patients.

        Parameters
        ----------
        rows, columns : int
            Rows a class, and cells a row.
        size : int, optional
            Side in pixels to resize to; as stored if left out.
        seed : int
            Which cells are drawn.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import cellscan
        >>> figure = cellscan.synthetic_cells(40, seed=0).plot(rows=1, columns=4)
        >>> len(figure.axes)
        8
        """
        from cellscan.plots import plot_cells

        rng = np.random.default_rng(seed)
        shown = {}
        for label, name in enumerate(self.class_names):
            found = np.flatnonzero(self.labels == label)
            chosen = [self[int(row)] for row in rng.choice(found, min(len(found), rows * columns), replace=False)]
            shown[name] = [(c.image if size is None else read_rgb(c.image, size), c.patient) for c in chosen]
        return plot_cells(shown, rows, columns)

    def select(self, mask_or_indices: np.ndarray | Sequence[int] | Sequence[bool] | slice) -> CellDataset:
        """Return the chosen cells as a data set that shares its pixels with this one.

        Parameters
        ----------
        mask_or_indices : (N,) bool array, index array, or slice
            Which cells, in the order given.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> print(cells.select(cells.labels == 0))
        20 cells of 3 patients: parasitized 20, uninfected 0
        """
        chosen: Any = mask_or_indices
        if not isinstance(chosen, slice):
            chosen = np.asarray(chosen)
            if chosen.ndim != 1 or not (chosen.dtype == bool or chosen.dtype.kind in "iu" or chosen.size == 0):
                raise ArgumentError(
                    f"select got an array of shape {chosen.shape} and dtype {chosen.dtype}; "
                    "expected a (N,) mask of bool or a list of indices"
                )
            if chosen.dtype == bool and len(chosen) != len(self):
                raise ArgumentError(f"select got a mask of {len(chosen)} values for {len(self)} cells")
            if chosen.dtype != bool and chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
                raise ArgumentError(f"select got indices from {chosen.min()} to {chosen.max()} for {len(self)} cells")
            chosen = chosen.astype(int) if chosen.size == 0 else chosen
        return self._take(chosen, self.split_info)

    def _take(self, chosen: Any, info: Split | None) -> CellDataset:
        taken = {name: frozen(getattr(self, name)[chosen]) for name in ("labels", "patients", "names", "_part", "_row")}
        return replace(self, split_info=info, **taken)

    def without(self, names: Iterable[str]) -> CellDataset:
        """Return the data set without the cells of these names, such as those whose label is suspect.

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
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> len(cells.without(cells.names[:3]))
        37
        """
        return self.select(leave_out(self.names, names))

    def rename_classes(self, names: Mapping[str, str]) -> CellDataset:
        """Return the same cells under other class names.

        Parameters
        ----------
        names : mapping
            Old name to new name; classes it leaves out keep theirs. Two classes may become one.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0).rename_classes({"parasitized": "Infected"})
        >>> cells.class_names
        ('Infected', 'uninfected')
        """
        unknown = set(names) - set(self.class_names)
        if unknown:
            raise ArgumentError(f"{sorted(unknown)} are no classes of this set; it has {self.class_names}")
        renamed = [names.get(name, name) for name in self.class_names]
        kept = tuple(dict.fromkeys(renamed))
        index = np.array([kept.index(name) for name in renamed], np.int32)
        return replace(self, class_names=kept, labels=frozen(index[self.labels]))

    @overload
    def split(
        self, fraction: float, /, *, by: Literal["patient", "cell"] = "patient", seed: int = 0
    ) -> tuple[CellDataset, CellDataset]: ...
    @overload
    def split(
        self, first: float, second: float, /, *, by: Literal["patient", "cell"] = "patient", seed: int = 0
    ) -> tuple[CellDataset, CellDataset, CellDataset]: ...
    def split(self, *fractions: float, by: str = "patient", seed: int = 0) -> tuple[CellDataset, ...]:
        """Divide the cells; the remainder comes first.

        Parts get near their fraction of the cells of each class, and of the patients, as far as
        whole patients allow.

        Parameters
        ----------
        *fractions : float
            Of the cells: one for (train, test), two for (train, validation, test).
        by : {"patient", "cell"}
            ``"cell"`` reproduces the literature's random split, which puts patients on both sides;
            every report of it says so.
        seed : int
            Another seed gives another split.

        Raises
        ------
        DataError
            Where patients are unknown or too few, or the fractions do not leave a first part.

        Examples
        --------
        >>> import cellscan
        >>> train, valid, test = cellscan.synthetic_cells(400, seed=0).split(0.1, 0.2, seed=0)
        >>> [len(set(part.patients)) for part in (train, valid, test)]
        [7, 1, 2]
        """
        if not fractions or min(fractions) <= 0 or sum(fractions) >= 1:
            raise DataError(
                f"the fractions {fractions} do not leave a first part; expected numbers above 0 whose sum is below 1"
            )
        shares = (1 - sum(fractions), *fractions)
        part = self._assign(shares, by, seed)
        texts = ", ".join(f"{share:.2f}" for share in shares)
        return self._parts(part, len(shares), by, f"of {len(shares)} (fractions {texts}; seed {seed})")

    def folds(
        self,
        folds: int | str | os.PathLike[str],
        *,
        by: Literal["patient", "cell"] = "patient",
        seed: int = 0,
    ) -> Iterator[tuple[CellDataset, CellDataset]]:
        """Yield (train, test) for every fold.

        Parameters
        ----------
        folds : int or path
            How many; or a CSV file with the header ``patient,fold`` that names every patient.
        by : {"patient", "cell"}
            As in `split`; with a file it must be ``"patient"``.
        seed : int
            Used with a number only.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(400, seed=0)
        >>> [len(set(test.patients)) for train, test in cells.folds(5, seed=0)]
        [2, 2, 2, 2, 2]
        """
        fold = self.fold_numbers(folds, by=by, seed=seed)
        how = f"of {folds} (seed {seed})" if isinstance(folds, (int, np.integer)) else f"of {os.path.basename(folds)}"
        code = split_hash(self.names, self.labels, fold)

        def pairs() -> Iterator[tuple[CellDataset, CellDataset]]:
            for number in np.unique(fold):
                here = fold == number
                yield (
                    self._take(~here, Split(by, f"all but fold {number} {how}", code)),
                    self._take(here, Split(by, f"fold {number} {how}", code)),
                )

        return pairs()

    def fold_numbers(
        self,
        folds: int | str | os.PathLike[str],
        *,
        by: Literal["patient", "cell"] = "patient",
        seed: int = 0,
    ) -> np.ndarray:
        """Return the fold (N,) int64 of every cell.

        Parameters
        ----------
        folds, by, seed
            As in `folds`.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(400, seed=0)
        >>> sorted(set(cells.fold_numbers(5).tolist()))
        [0, 1, 2, 3, 4]
        """
        if isinstance(folds, (str, os.PathLike)):
            self._need_patients()
            if by != "patient":
                raise ArgumentError(f"a fold file divides by patient; by is {by!r}")
            return read_folds(folds, self.patients)
        if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
            raise ArgumentError(f"folds is {folds!r}; expected a number from 2, or a fold file")
        return self._assign((1 / folds,) * int(folds), by, seed)

    def write_folds(self, path: str | os.PathLike[str], folds: int = 5, *, seed: int = 0) -> None:
        """Divide by patient, stratified by class and size, and write which patient is in which fold.

        Parameters
        ----------
        path : path
            A CSV file with the header ``patient,fold``, which `folds` and `cellscan.cross_validate` read.
            Overwritten where it exists.
        folds, seed : int
            As in `folds`.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> cells = cellscan.synthetic_cells(400, seed=0)
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "folds.csv"
        >>> cells.write_folds(file, 5)
        >>> bool((cells.fold_numbers(file) == cells.fold_numbers(5)).all())
        True
        """
        rows = sorted(set(zip(self.patients.tolist(), self.fold_numbers(folds, seed=seed).tolist(), strict=True)))
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("patient", "fold"), *rows])

    def _assign(self, shares: Sequence[float], by: str, seed: int) -> np.ndarray:
        check_choice("by", by, ("patient", "cell"))
        if by == "cell":
            return assign_cells(self.labels, shares, seed)
        self._need_patients()
        return assign(self.labels, self.patients, shares, len(self.class_names), seed)

    def _parts(self, part: np.ndarray, count: int, by: str, how: str) -> tuple[CellDataset, ...]:
        code = split_hash(self.names, self.labels, part)
        return tuple(self._take(part == k, Split(by, f"part {k + 1} {how}", code)) for k in range(count))

    def _need_patients(self) -> None:
        if not self.has_patients:
            raise DataError(
                "the patients of these cells are unknown, so they cannot be divided by patient. Load them with "
                "load_folder(dir, patient=...), a mapping or function from file name to patient; "
                'by="cell" divides without, and every report then says that patients are on both sides'
            )

    def hash(self) -> str:
        """Return 12 hexadecimal digits that identify names, labels and patients, in any order of cells.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> cells.hash() == cells.select(slice(None, None, -1)).hash()
        True
        """
        label_names = np.array(self.class_names)[self.labels].tolist()
        rows = sorted(zip(self.names.tolist(), label_names, self.patients.tolist(), strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return what a card keeps of a data set: cells, patients, hash and split, as JSON values.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(40, seed=0).to_dict()["patients"]
        4
        """
        split = None if self.split_info is None else str(self.split_info)
        patients = len(set(self.patients.tolist())) if self.has_patients else None
        return {"cells": len(self), "patients": patients, "hash": self.hash(), "split": split}


def frozen(array: np.ndarray) -> np.ndarray:
    """Return a read-only view of an array."""
    array = array.view()
    array.flags.writeable = False
    return array


def leave_out(names: np.ndarray, unwanted: Iterable[str]) -> np.ndarray:
    """Return which of `names` stay, (N,) bool; those of the unwanted that are elsewhere are passed over.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.cells import leave_out
    >>> leave_out(np.array(["a.png", "b.png"]), ["b.png", "z.png"]).tolist()
    [True, False]
    """
    unwanted = [unwanted] if isinstance(unwanted, str) else list(unwanted)
    named = np.isin(names, np.asarray(unwanted))
    if unwanted and not named.any():
        raise DataError(f"none of the {len(unwanted)} names to leave out is among these cells, such as {names[0]!r}")
    return ~named
