"""`CellDataset`: an immutable table of cells and the sources of their images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from cellscan.data.cell_table import list_table
from cellscan.data.description import Description, count_images
from cellscan.data.images import PIXEL_LIMIT, ImageLike, read_rgb
from cellscan.data.pixels import Pixels, open_map
from cellscan.data.reading import Reading, check_reading
from cellscan.data.sources import ArraySource, Source, hash_lines, path_of
from cellscan.data.splits import Split, assign, assign_cells, check_folds, part_fractions, read_folds, split_hash
from cellscan.data.tables import Column, find_rows, make_frame, write_csv
from cellscan.data.values import (
    as_class_names,
    as_labels,
    as_list,
    as_patient,
    as_texts,
    check_seed,
    check_whole,
    choose,
    is_missing,
)
from cellscan.errors import ArgumentError, DataError, ImageError, check_choice, check_names
from cellscan.notebook import as_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Cell:
    """One cell of a data set.

    Attributes
    ----------
    image : numpy.ndarray
        (H, W, 3) uint8, RGB, at the stored size; read-only.
    label : int
        Index into the data set's `class_names`.
    label_name : str
        Name of the class.
    patient : str
        Id of the patient, ``""`` if unknown.
    name : str
        Unique name of the cell in its data set, such as its file name.

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
    """An immutable table of cells: labels, patients, names, and the sources of their images.

    `load_malaria`, `load_folder`, `load_table`, `synthetic_cells`, `CellDataset.from_arrays`,
    `CellDataset.from_dataframe` and `concat` return one.

    Attributes
    ----------
    labels : numpy.ndarray
        (N,) int32, indices into `class_names`.
    patients : numpy.ndarray
        (N,) str; all ``""`` if the patients are unknown.
    names : numpy.ndarray
        (N,) str, unique: file names, preceded by their folders where file names alone are not unique.
    class_names : tuple[str, ...]
        The classes, in the order of their indices.
    split_info : Split or None
        The split that made this data set, or None if it is not part of a split.
    layout : str
        The folder layout that `load_folder` used, such as ``"class/patient/image"``; ``""`` for cells that were not
        loaded from folders.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(200, seed=0)
    >>> print(cells)
    200 cells of 5 patients: parasitized 100, uninfected 100
    >>> cells.labels.dtype, cells.class_names
    (dtype('int32'), ('parasitized', 'uninfected'))
    >>> train, test = cells.split(test=0.2, by="patient", seed=0)
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
    layout: str = ""

    @classmethod
    def from_source(
        cls,
        source: Source,
        labels: Iterable[Any],
        names: Iterable[Any],
        patients: Iterable[Any] | None,
        class_names: Sequence[str],
    ) -> CellDataset:
        """Build a data set from a source of images. All loaders of this package call this method.

        Parameters
        ----------
        source : Source
            N images.
        labels : sequence of int or of str
            (N,) indices into `class_names`, or class names in upper or lower case.
        names : sequence of str
            (N,) unique names of the cells; an empty name becomes ``"image_<row>"``.
        patients : sequence or None
            (N,) ids of the patients; None if they are unknown.
        class_names : sequence of str
            The classes.

        Raises
        ------
        DataError
            If there are no images, the lengths differ, a label is not a class, a name occurs twice, or only some
            patients are known.

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
        class_names = as_class_names(class_names)
        label_array, texts = as_labels(labels, class_names), as_texts("names", names)
        if len(label_array) != count or len(texts) != count:
            raise DataError(
                f"got {count} images, {len(label_array)} labels and {len(texts)} names; expected as many of each"
            )
        texts = [text or f"image_{row}" for row, text in enumerate(texts)]
        if len(set(texts)) < count:
            repeated = Counter(texts).most_common(1)[0][0]
            rows = [row for row, name in enumerate(texts) if name == repeated]
            raise DataError(
                f"the cells {rows[0]} and {rows[1]} are both named {repeated!r}; expected unique names. "
                "Put the folder or the class before each name"
            )
        owners = [""] * count if patients is None else as_list("patients", patients)
        if len(owners) != count:
            raise DataError(f"got {count} images and {len(owners)} patients; expected as many of each")
        patient_array = np.array([as_patient(f"patients[{row}]", owner) for row, owner in enumerate(owners)], dtype=str)
        if (patient_array == "").any() and (patient_array != "").any():
            row = int(np.flatnonzero(patient_array == "")[0])
            raise DataError(
                f"{texts[row]}: the patient of this cell is unknown, but other patients are known. "
                "Name a patient for every cell, or for none"
            )
        return cls(
            frozen(label_array),
            frozen(patient_array),
            frozen(np.array(texts, dtype=str)),
            class_names,
            None,
            (source,),
            frozen(np.zeros(count, np.int32)),
            frozen(np.arange(count)),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.pop("sizes", None)  # The property reads the sizes again on its next use.
        # A pickle does not store that an array is read-only.
        for array in (self.labels, self.patients, self.names, self._part, self._row):
            array.flags.writeable = False

    @classmethod
    def from_arrays(
        cls,
        images: Iterable[ImageLike] | np.ndarray,
        labels: Iterable[Any],
        *,
        class_names: Sequence[str] = ("parasitized", "uninfected"),
        patients: Iterable[Any] | None = None,
        names: Iterable[Any] | None = None,
        reading: Reading | None = None,
    ) -> CellDataset:
        """Build a data set from images in memory. The data set copies all arguments.

        Parameters
        ----------
        images : iterable
            N images: arrays (H, W, 3) uint8, or any other form that `Classifier.predict` accepts. They are stored as
            RGB uint8.
        labels : sequence of int or of str
            (N,) indices into `class_names`, or class names in upper or lower case. A number that may be both, as with
            the classes ``"1"`` and ``"2"``, is an error; pass such names as texts.
        class_names : sequence of str
            The classes.
        patients : sequence, optional
            (N,) ids of the patients, texts or numbers; 1 and 1.0 are the same patient. By default, and if all ids are
            None, NaN or empty, the patients are unknown.
        names : sequence of str, optional
            (N,) unique names of the cells. Default: ``"image_0"``, ``"image_1"`` and so on.
        reading : Reading, optional
            Channel and window of the images, such as ``cellscan.Reading(window=(0, 4095))`` for a 12-bit camera.

        Raises
        ------
        ImageError
            If an entry of `images` is not an image in one of the accepted forms.
        DataError
            If the lengths differ, a label is not a class, a name occurs twice, or only some patients are known.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> images = np.zeros((4, 32, 32, 3), np.uint8)
        >>> print(cellscan.CellDataset.from_arrays(images, [0, 1, 0, 1]))
        4 cells, patients unknown: parasitized 2, uninfected 2
        """
        texts = None if names is None else as_texts("names", names)
        listed = as_list("images", images)
        if texts is not None and len(texts) != len(listed):
            raise DataError(f"got {len(listed)} images and {len(texts)} names; expected as many of each")
        source = ArraySource(listed, names=texts, reading=check_reading(reading))
        return cls.from_source(source, labels, [""] * len(source) if texts is None else texts, patients, class_names)

    @classmethod
    def from_dataframe(
        cls,
        df: Any,
        *,
        path: str = "file",
        label: str = "class",
        patient: str | None = "patient",
        name: str | None = "name",
        root: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        reading: Reading | None = None,
    ) -> CellDataset:
        """Load the images that a data frame lists, one cell per row. This is the inverse of `to_dataframe`.

        Parameters
        ----------
        df : data frame
            A data frame of pandas or Polars, or a mapping of columns.
        path, label : str
            The columns of the image files and of the classes, in upper or lower case.
        patient, name : str or None
            The columns of the patients and of the names of the cells. A column with the default name need not exist:
            the patients are then unknown, and the names are the paths, as in `cellscan.load_table`. With None, no
            column is read.
        root : path, optional
            The folder, or the archive, that the paths are relative to. Default: the working folder.
        class_names : sequence of str, optional
            The classes; the labels are then class names or indices. Default: the categories of a categorical column,
            in their order; else the sorted labels.
        reading : Reading, optional
            As in `cellscan.load_folder`.

        Raises
        ------
        ArgumentError
            If `df` is not a data frame, or has no such column.
        DataError
            If an image is missing or occurs twice, a path, a label or a name is missing, a label is not a class, a name
            occurs twice, or only some patients are known. The message contains row and column.

        See Also
        --------
        cellscan.load_table : The same from a CSV file, whose columns are ``path``, ``label`` and ``patient``.

        Examples
        --------
        >>> import tempfile, pathlib, pandas, cellscan
        >>> from PIL import Image
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "b.png"):
        ...     Image.new("RGB", (40, 40), "pink").save(root / name)
        >>> df = pandas.DataFrame({"file": ["a.png", "b.png"], "class": ["infected", "healthy"], "patient": [1, 2]})
        >>> print(cellscan.CellDataset.from_dataframe(df, root=root))
        2 cells of 2 patients: healthy 1, infected 1
        """
        if isinstance(df, (str, os.PathLike)):
            raise ArgumentError(f"df is {df!r:.80}; expected a data frame; cellscan.load_table reads CSV files")
        return cls.from_source(
            *list_table(
                df, root, path=path, label=label, patient=patient, name=name, class_names=class_names,
                reading=check_reading(reading),
            )
        )  # fmt: skip

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per cell: its name, class, patient and file.

        ``class`` is categorical, with all class names in their order. ``patient`` is NaN if the patients are unknown.
        ``file`` is the absolute path of the image, and NaN for an image that is not a file of its own: an array, or
        a member of an archive. The frame has no images, and no `Reading`.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(40, seed=0).to_dataframe().head(2)
                         name        class patient file
        0  S001_cell_00000.png  parasitized    S001  NaN
        1  S002_cell_00001.png  parasitized    S002  NaN
        """
        parts = zip(self._part.tolist(), self._row.tolist(), strict=True)
        return make_frame(
            {
                "name": Column(self.names.tolist()),
                "class": Column([self.class_names[label] for label in self.labels], self.class_names),
                "patient": Column([patient or None for patient in self.patients.tolist()]),
                "file": Column([path_of(self._sources[part], row) for part, row in parts]),
            }
        )

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Cell: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> CellDataset: ...
    def __getitem__(self, index: Any) -> Cell | CellDataset:
        index = find_rows(index, len(self), "cells")
        if not isinstance(index, int):
            return self.select(index)
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
        patients = f" of {known} patients" if known else ", patients unknown"
        read = f" (read as {self.layout})" if self.layout not in ("", "class/image") else ""
        return f"{len(self):,} cells{patients}: {counts}{read}"

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
        """Masks of the parasites in synthetic cells: one (H, W) bool array for each cell, at the stored size.

        Raises
        ------
        DataError
            If the cells are not synthetic.

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
                raise DataError("these cells have no masks; only cells of synthetic_cells have masks")
            masks.append(source.masks[row])
        return masks

    def images(self, size: int, *, progress: bool = True) -> Pixels:
        """Return all images at one size, as a lazy read-only array (N, size, size, 3) uint8.

        Parameters
        ----------
        size : int
            Side in pixels, at least 8. An antialiased bilinear filter stretches each image to a square, as in
            `Classifier.predict`.
        progress : bool
            Show a progress bar if decoding takes longer than two seconds.

        Returns
        -------
        Pixels

        Raises
        ------
        ImageError
            If images of this data set cannot be read; the message lists them.
        DataError
            If the disk is full, the cache folder cannot be written, or memory, disk or network fails three times.

        Notes
        -----
        The first call decodes every image of the set that was loaded, including the images of its other splits, into a
        file in the cache folder. It uses all cores. Later calls reopen that file, also for other splits of the set.
        Small sets of arrays stay in memory. The cache folder is the environment variable ``CELLSCAN_CACHE``, or by
        default the cache folder of the user. It holds at most 20 GB, or ``CELLSCAN_CACHE_LIMIT`` gigabytes;
        `clear_cache` empties it.

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
                f"Leave them out: cells.select(~np.isin(np.arange(len(cells)), {list(bad)[:20]}))"
            )
        return pixels

    def open_pixels(self, size: int, *, progress: bool = True) -> tuple[Pixels, dict[int, str]]:
        """Return all images at one size, and the reason for each image that cannot be read.

        Unlike `images`, this method raises no error for images that cannot be read.

        Parameters
        ----------
        size, progress
            As in `images`.

        Returns
        -------
        pixels : Pixels
            As from `images`; images that cannot be read are black.
        unreadable : dict[int, str]
            For each cell that cannot be read, its index and the reason.

        Examples
        --------
        >>> import cellscan
        >>> pixels, unreadable = cellscan.synthetic_cells(60, seed=0).open_pixels(32)
        >>> unreadable
        {}
        """
        size = check_whole("size", size, 8, "pixels")
        if size**2 > PIXEL_LIMIT:
            raise ArgumentError(f"size is {size}; an image has at most {PIXEL_LIMIT:,} pixels")
        maps: list[np.ndarray] = []
        bad: dict[int, str] = {}
        for number, source in enumerate(self._sources):
            pixels, failed = open_map(source, size, progress=progress)
            maps.append(pixels)
            for row in np.flatnonzero((self._part == number) & np.isin(self._row, list(failed))):
                bad[int(row)] = failed[int(self._row[row])]
        return Pixels(tuple(maps), self._part, self._row), dict(sorted(bad.items()))

    @cached_property
    def sizes(self) -> np.ndarray:
        """Stored width and height of every image, (N, 2) int64; read from the file headers on first use.

        Raises
        ------
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(60, seed=0).sizes.shape
        (60, 2)
        """

        def size(row: int) -> tuple[int, int]:
            return self._sources[int(self._part[row])].header(int(self._row[row]))[:2]

        with ThreadPoolExecutor() as pool:
            return frozen(np.array(list(pool.map(size, range(len(self)))), np.int64).reshape(-1, 2))

    def describe(self, *, progress: bool = True) -> Description:
        """Count classes, patients, sizes and formats. This opens every file but decodes none.

        Parameters
        ----------
        progress : bool
            Show a progress bar if it takes longer than two seconds.

        Returns
        -------
        Description

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(80, seed=0).describe().per_class
        {'parasitized': 40, 'uninfected': 40}
        """

        def header(row: int) -> tuple[int, int, str]:
            return self._sources[int(self._part[row])].header(int(self._row[row]))

        patients = self.patients.tolist() if self.has_patients else []
        return count_images(self.per_class(), patients, header, progress=progress)

    def plot(self, rows: int = 2, columns: int = 8, *, size: int | None = None, seed: int = 0) -> Figure:
        """Draw a grid of randomly chosen cells: `rows` rows for each class, with the patient of each cell.

        Parameters
        ----------
        rows, columns : int
            Rows for each class, and cells in each row.
        size : int, optional
            Side in pixels to which the images are resized. Default: the stored size.
        seed : int
            Seed of the random choice of cells.

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

        if size is not None:
            size = check_whole("size", size, 1, "pixels")
        if not len(self):
            raise DataError("there are no cells to draw; expected at least one")
        rows, columns = check_whole("rows", rows, 1), check_whole("columns", columns, 1)
        rng = np.random.default_rng(check_seed(seed))
        drawn = {}
        for label, name in enumerate(self.class_names):
            of_class = np.flatnonzero(self.labels == label)
            count = min(len(of_class), rows * columns)
            cells = [self[int(row)] for row in rng.choice(of_class, count, replace=False)]
            drawn[name] = [(cell.image if size is None else read_rgb(cell.image, size), cell.patient) for cell in cells]
        return plot_cells(drawn, rows, columns)

    def select(self, mask_or_indices: np.ndarray | Sequence[int] | Sequence[bool] | slice) -> CellDataset:
        """Return the selected cells as a data set that shares its images with this one.

        Parameters
        ----------
        mask_or_indices : (N,) bool array, index array, or slice
            The cells to select; indices keep their order.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> print(cells.select(cells.labels == 0))
        20 cells of 3 patients: parasitized 20, uninfected 0
        """
        return self._take(choose(mask_or_indices, len(self)), self.split_info)

    def _take(self, chosen: Any, info: Split | None) -> CellDataset:
        columns = ("labels", "patients", "names", "_part", "_row")
        return replace(self, split_info=info, **{name: frozen(getattr(self, name)[chosen]) for name in columns})

    def without(self, names: Iterable[str]) -> CellDataset:
        """Return the data set without the named cells, such as those with label issues.

        Parameters
        ----------
        names : iterable of str
            Names of cells, or the last parts of their paths, such as the bare file name. Names that are not in the data
            set are ignored.

        Raises
        ------
        DataError
            If names are given but none is in the data set, or a file name matches several cells.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> len(cells.without(cells.names[:3]))
        37
        """
        return self.select(leave_out(self.names, names))

    def rename_classes(self, names: Mapping[str, str]) -> CellDataset:
        """Return the same cells with other class names.

        Parameters
        ----------
        names : mapping
            Old names to new names. Classes that are not in the mapping keep their names. Two classes that get the same
            name are merged. None as a new name is an error here; `FieldDataset.rename_classes` accepts it, to ignore
            boxes. Use `drop_classes` to leave cells out.

        Raises
        ------
        ArgumentError
            If `names` is not a mapping from names to names.
        DataError
            If `names` contains a class that is not in the data set.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0).rename_classes({"parasitized": "Infected"})
        >>> cells.class_names
        ('Infected', 'uninfected')
        """
        if not isinstance(names, Mapping) or not all(new is None or isinstance(new, str) for new in names.values()):
            raise ArgumentError(
                f"names is {names!r:.80}; expected a mapping from names to names, such as {{'old': 'new'}}"
            )
        find_classes(list(names), self.class_names)
        ignored = [old for old, new in names.items() if new is None]
        if ignored:
            raise ArgumentError(
                f"names maps {ignored[0]!r} to None, which is possible for fields only; leave these cells out with "
                f"drop_classes([{ignored[0]!r}])"
            )
        renamed = as_texts("names", [names.get(name, name) for name in self.class_names])
        class_names = as_class_names(dict.fromkeys(renamed).keys())
        index = np.array([class_names.index(name) for name in renamed], np.int32)
        return replace(self, class_names=class_names, labels=frozen(index[self.labels]))

    def drop_classes(self, names: Sequence[str]) -> CellDataset:
        """Return the data set without the named classes and without the cells of these classes.

        Parameters
        ----------
        names : sequence of str
            The classes to drop.

        Raises
        ------
        DataError
            If a class is not in the data set, or no class remains.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(40, seed=0).drop_classes(["uninfected"]).per_class()
        {'parasitized': 20}
        """
        unwanted = find_classes(check_names("names", names, 1), self.class_names)
        remaining = [number for number in range(len(self.class_names)) if number not in unwanted]
        if not remaining:
            raise DataError(f"all classes would be dropped: {', '.join(self.class_names)}; expected one to be left")
        cells = self.select(np.isin(self.labels, remaining))
        position = np.full(len(self.class_names), -1, np.int32)
        position[remaining] = np.arange(len(remaining), dtype=np.int32)
        return replace(
            cells, class_names=tuple(self.class_names[k] for k in remaining), labels=frozen(position[cells.labels])
        )

    def add_classes(self, names: Sequence[str]) -> CellDataset:
        """Return the data set with additional classes after the existing ones; the new classes have no cells.

        Parameters
        ----------
        names : sequence of str
            Names of the new classes.

        Raises
        ------
        DataError
            If a class is already in the data set.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(40, seed=0).add_classes(["platelet"]).per_class()
        {'parasitized': 20, 'uninfected': 20, 'platelet': 0}
        """
        return replace(self, class_names=with_classes(self.class_names, check_names("names", names, 1)))

    @overload
    def split(
        self, *, test: float = 0.2, validation: None = None, by: Literal["patient", "cell"] = "patient", seed: int = 0
    ) -> tuple[CellDataset, CellDataset]: ...
    @overload
    def split(
        self, *, test: float = 0.2, validation: float, by: Literal["patient", "cell"] = "patient", seed: int = 0
    ) -> tuple[CellDataset, CellDataset, CellDataset]: ...
    def split(
        self,
        *positional: Any,
        test: float = 0.2,
        validation: float | None = None,
        by: str = "patient",
        seed: int = 0,
    ) -> tuple[CellDataset, ...]:
        """Divide the cells into parts for training, validation and test. All arguments are keyword-only.

        Parameters
        ----------
        test, validation : float
            Fractions of the cells, each in (0, 1), with a sum below 1. Each part gets about this fraction of the cells
            of each class, and of the patients, as far as whole patients allow.
        by : {"patient", "cell"}
            ``"patient"`` keeps all cells of a patient in one part. ``"cell"`` reproduces the random split of the
            literature: the same patients are in training and test. Every report of such a split states this.
        seed : int
            Seed of the random assignment.

        Returns
        -------
        tuple of CellDataset
            ``(train, test)``, or ``(train, validation, test)`` if `validation` is given.

        Raises
        ------
        ArgumentError
            If an argument is positional, or the fractions leave no cells for training.
        DataError
            If the patients are unknown or too few.

        Examples
        --------
        >>> import cellscan
        >>> train, valid, test = cellscan.synthetic_cells(400, seed=0).split(validation=0.1, test=0.2, seed=0)
        >>> [len(set(part.patients)) for part in (train, valid, test)]
        [7, 1, 2]
        """
        shares = part_fractions(positional, test, validation)
        seed = check_seed(seed)
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
        """Yield the training cells and the test cells of every fold.

        Parameters
        ----------
        folds : int or path
            Number of folds, at least 2; or a CSV file with the header ``patient,fold`` that lists every patient.
        by : {"patient", "cell"}
            As in `split`; with a file it must be ``"patient"``.
        seed : int
            Seed of the random assignment; ignored with a file.

        Yields
        ------
        train, test : CellDataset
            `test` contains the cells of the fold, `train` the cells of all other folds.

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
                in_fold = fold == number
                yield (
                    self._take(~in_fold, Split(by, f"all but fold {number} {how}", code)),
                    self._take(in_fold, Split(by, f"fold {number} {how}", code)),
                )

        return pairs()

    def fold_numbers(
        self,
        folds: int | str | os.PathLike[str],
        *,
        by: Literal["patient", "cell"] = "patient",
        seed: int = 0,
    ) -> np.ndarray:
        """Return the fold number of every cell, (N,) int64.

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
                raise ArgumentError(f"by is {by!r}; expected 'patient', because a fold file divides by patient")
            return read_folds(folds, self.patients)
        count = check_folds(folds)
        if count > len(self):
            raise DataError(f"{len(self)} cells cannot fill {count} folds")
        return self._assign((1 / count,) * count, by, check_seed(seed))

    def write_folds(self, path: str | os.PathLike[str], folds: int = 5, *, seed: int = 0) -> None:
        """Divide the patients into folds, stratified by class and size, and write the folds to a CSV file.

        Parameters
        ----------
        path : path
            A CSV file with the header ``patient,fold``, which `folds` and `cellscan.cross_validate` read.
            An existing file is replaced only once the new one is complete.
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
        write_csv(path, [("patient", "fold"), *rows])

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
                "load_folder(dir, patient=...), a mapping or function from file name to patient. "
                'by="cell" divides without patients; every report then states that patients are on both sides'
            )

    def hash(self, *, pixels: bool = True) -> str:
        """Return 12 hexadecimal digits that identify names, labels, patients and images, in any order of cells.

        Parameters
        ----------
        pixels : bool
            If False, leave the images out of the hash, as the card of the bundled classifier does.

        Notes
        -----
        The hash contains checksums of the image files, each of which is read once. It is the same for a folder, an
        archive and a TFDS set of the same files.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> cells.hash() == cells.select(slice(None, None, -1)).hash()
        True
        """
        columns = [self.names.tolist(), np.array(self.class_names)[self.labels].tolist(), self.patients.tolist()]
        rows = sorted(zip(*columns, *([self._contents()] if pixels else []), strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]

    def source_fingerprint(self) -> str:
        """Return 64 hexadecimal digits that change if an image, or the choice of images, may have changed.

        No image is read: files are compared by size and times, as for the cache of decoded images.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> cells.source_fingerprint() == cells.select(slice(None, None, -1)).source_fingerprint()
        False
        """
        sources = [source.fingerprint() for source in self._sources]
        return hash_lines([*sources, repr(self._part.tolist()), repr(self._row.tolist())])

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that identify the cells and their order.

        The fingerprint depends on classes, labels, patients, names and the content of the images. An array of results,
        one per cell, fits another data set only if both data sets have the same fingerprint.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(40, seed=0)
        >>> cells.fingerprint() == cellscan.synthetic_cells(40, seed=0).fingerprint()
        True
        >>> cells.fingerprint() == cells.select(slice(None, None, -1)).fingerprint()
        False
        """
        rows = zip(self.names.tolist(), self.labels.tolist(), self.patients.tolist(), self._contents(), strict=True)
        return hashlib.sha256(repr((self.class_names, list(rows))).encode()).hexdigest()

    def _contents(self) -> list[str]:
        """Return the checksum of the image of each cell."""
        checksums = np.full(len(self), "", object)
        for number, source in enumerate(self._sources):
            in_source = np.flatnonzero(self._part == number)
            if in_source.size:
                checksums[in_source] = source.checksums(self._row[in_source].tolist())
        return checksums.tolist()

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of a data set in a card: cells, patients, hash and split, as JSON values.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.synthetic_cells(40, seed=0).to_dict()["patients"]
        4
        """
        split = None if self.split_info is None else str(self.split_info)
        patients = len(set(self.patients.tolist())) if self.has_patients else None
        return {"cells": len(self), "patients": patients, "hash": self.hash(), "split": split}


def find_classes(names: Sequence[Any], class_names: Sequence[str]) -> list[int]:
    """Return the indices of these classes, or raise `DataError` if one is not among `class_names`."""
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise DataError(f"the class {unknown[0]!r} is not among {', '.join(class_names)}")
    return [class_names.index(name) for name in names]


def with_classes(class_names: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    """Return `class_names` followed by `names`, or raise `DataError` if one of them is already a class."""
    existing = [name for name in names if name in class_names]
    if existing:
        raise DataError(
            f"the class {existing[0]!r} is there already: {', '.join(class_names)}; expected names of new classes"
        )
    return as_class_names([*class_names, *names])


def frozen(array: np.ndarray) -> np.ndarray:
    """Return a read-only copy of an array. The caller may still write to the original."""
    array = np.array(array)
    array.flags.writeable = False
    return array


def find_named(names: np.ndarray, wanted: Iterable[str]) -> np.ndarray:
    """Return a mask (N,) bool of the cells with these names; names of other cells are ignored.

    Parameters
    ----------
    names : numpy.ndarray
        (N,) str, names of cells.
    wanted : iterable of str
        Whole names, or the last parts of paths, such as the bare file name, if these fit one cell only.

    Raises
    ------
    DataError
        If the last part of a path fits several cells.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.cells import find_named
    >>> find_named(np.array(["sick/a.png", "sick/b.png"]), ["b.png", "z.png"]).tolist()
    [False, True]
    """
    listed = [wanted] if isinstance(wanted, (str, os.PathLike)) else as_list("names", wanted, ordered=False)
    texts = set(as_texts("names", [name for name in listed if not is_missing(name)]))
    whole = set(np.asarray(names).tolist())
    matched, ends = texts & whole, {text.replace("\\", "/") for text in texts - whole}
    if ends:
        by_file: dict[str, list[str]] = {}
        for name in whole:
            by_file.setdefault(name.rsplit("/", 1)[-1], []).append(name)
        for end in ends:
            fitting = [name for name in by_file.get(end.rsplit("/", 1)[-1], []) if f"/{name}".endswith(f"/{end}")]
            if len(fitting) > 1:
                raise DataError(
                    f"{end!r} fits {len(fitting)} cells: {', '.join(map(repr, sorted(fitting)[:4]))}; "
                    "give the whole name of one cell"
                )
            matched.update(fitting)
    return np.isin(names, np.array(sorted(matched), str))


def leave_out(names: np.ndarray, unwanted: Iterable[str]) -> np.ndarray:
    """Return a mask (N,) bool of the cells that remain: all except those that `find_named` finds.

    Raises
    ------
    DataError
        If `unwanted` contains names but none of them is among `names`.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.cells import leave_out
    >>> leave_out(np.array(["a.png", "b.png"]), ["b.png", "z.png"]).tolist()
    [True, False]
    """
    unwanted = [unwanted] if isinstance(unwanted, (str, os.PathLike)) else as_list("names", unwanted, ordered=False)
    named = find_named(names, unwanted)
    if unwanted and not named.any():
        example = f"; names are such as {names[0]!r}" if len(names) else ""
        raise DataError(f"none of the {len(unwanted)} names to leave out is among these cells{example}")
    return ~named
