"""What `Classifier.predict` returns: a sequence of results, with the arrays beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import numpy as np

from cellscan.data.tables import find_rows, write_csv
from cellscan.errors import ArgumentError
from cellscan.notebook import as_table

_SHOWN = 10
"""Rows that a notebook shows."""


@dataclass(frozen=True)
class Prediction:
    """The result of one image.

    Attributes
    ----------
    label : int
        Index into the classifier's `class_names`.
    label_name : str
        The class.
    positive : bool or None
        Whether that is the positive class; None where there is no positive class.
    probability : float
        Of `label`, in [0, 1].
    probabilities : dict[str, float]
        Of every class.
    name : str
        File name, or what else names the image.
    label_set : tuple[str, ...] or None
        The labels that belong to its conformal set: both, or none, says "ask an expert". None before
        `Classifier.conformalize`.
    novelty : float or None
        How far it is from the cells that the classifier knows; None before `Classifier.learn_novelty`.
    novel : bool or None
        Whether that is farther than `Classifier.novelty_threshold`: its label means little then.

    Examples
    --------
    >>> import numpy as np, cellscan
    >>> p = cellscan.Classifier(image_size=32).predict(np.zeros((40, 40, 3), np.uint8))[0]
    >>> p.label_name == ("parasitized" if p.positive else "uninfected")
    True
    """

    label: int
    label_name: str
    positive: bool | None
    probability: float
    probabilities: dict[str, float]
    name: str
    label_set: tuple[str, ...] | None = None
    novelty: float | None = None
    novel: bool | None = None


@dataclass(frozen=True)
class Failure:
    """An image that could not be read.

    Attributes
    ----------
    index : int
        Its position in the input.
    name : str
        File name, or what else names the image.
    reason : str
        What is wrong with it.

    Examples
    --------
    >>> import cellscan
    >>> preds = cellscan.Classifier(image_size=32).predict(["no.png"], on_error="skip")
    >>> preds.failed
    (Failure(index=0, name='no.png', reason='no.png: there is no such file'),)
    """

    index: int
    name: str
    reason: str


@dataclass(frozen=True, repr=False, eq=False)
class Predictions(Sequence[Prediction]):
    """Results in the order of the input; a sequence of `Prediction`, and to NumPy the array of their labels.

    So ``np.asarray(preds)``, ``(preds == labels).mean()`` and scikit-learn's functions work; ``preds == names``
    compares names of classes. A number gives one result; a slice, a mask or an array of numbers gives `Predictions`
    again.

    Attributes
    ----------
    labels : numpy.ndarray
        (N,) int32.
    probabilities : numpy.ndarray
        (N, K) float32; columns in the order of `class_names`.
    indices : numpy.ndarray
        (N,) int64, position of each result in the input; gaps are images in `failed`.
    names : tuple[str, ...]
        File names, or what else names the images.
    failed : tuple[Failure, ...]
        Images of the whole input passed over under ``on_error="skip"``; a part keeps all of them.
    class_names : tuple[str, ...]
        The classes.
    positive_class : str or None
        The class that `Prediction.positive` speaks of.
    label_sets : numpy.ndarray or None
        (N, K) bool, which labels belong to the conformal set of each image; None before `Classifier.conformalize`.
    novelty : numpy.ndarray or None
        (N,) float32, how far each image is from the cells that the classifier knows; None before
        `Classifier.learn_novelty`.
    novel : numpy.ndarray or None
        (N,) bool, whether that is farther than `Classifier.novelty_threshold`.

    Examples
    --------
    >>> import numpy as np, cellscan
    >>> preds = cellscan.Classifier(image_size=32).predict(np.zeros((3, 40, 40, 3), np.uint8))
    >>> len(preds), preds.probabilities.shape, preds.labels.dtype
    (3, (3, 2), dtype('int32'))
    >>> bool((preds == preds.labels).all()), len(preds[preds.labels == 0]) + len(preds[preds.labels == 1])
    (True, 3)
    """

    labels: np.ndarray
    probabilities: np.ndarray
    indices: np.ndarray
    names: tuple[str, ...]
    failed: tuple[Failure, ...]
    class_names: tuple[str, ...]
    positive_class: str | None
    label_sets: np.ndarray | None = None
    novelty: np.ndarray | None = None
    novel: np.ndarray | None = None

    @property
    def label_names(self) -> list[str]:
        """The class of each result.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.Classifier(image_size=32).predict(cellscan.synthetic_cells(40, seed=0)).label_names)
        40
        """
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Predictions: ...
    def __getitem__(self, index: Any) -> Prediction | Predictions:
        index = find_rows(index, len(self), "predictions")
        if not isinstance(index, int):
            sets, novelty, novel = (
                None if rows is None else rows[index] for rows in (self.label_sets, self.novelty, self.novel)
            )
            return Predictions(
                self.labels[index], self.probabilities[index], self.indices[index],
                tuple(self.names[row] for row in index), self.failed, self.class_names, self.positive_class,
                sets, novelty, novel,
            )  # fmt: skip
        label, row = int(self.labels[index]), self.probabilities[index]
        name = self.class_names[label]
        positive = None if self.positive_class is None else name == self.positive_class
        by_name = {k: float(v) for k, v in zip(self.class_names, row, strict=True)}
        return Prediction(
            label,
            name,
            positive,
            float(row[label]),
            by_name,
            self.names[index],
            self._label_set(index),
            None if self.novelty is None else float(self.novelty[index]),
            None if self.novel is None else bool(self.novel[index]),
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy or (dtype is not None and np.dtype(dtype) != self.labels.dtype):
            return np.array(self.labels, dtype, copy=None if copy is None else copy)
        whole = self.labels.view()
        whole.flags.writeable = False
        return whole

    def __eq__(self, other: object) -> np.ndarray:  # type: ignore[override]
        try:
            theirs = np.asarray(other)
        except ValueError as error:
            raise ArgumentError(f"predictions compared with {other!r}; expected labels or names of classes") from error
        if theirs.shape not in ((), (len(self),)):
            gone = f"; {len(self.failed)} images could not be read, see indices" if self.failed else ""
            raise ArgumentError(f"{len(self)} predictions compared with {theirs.shape} labels; expected as many{gone}")
        if theirs.dtype == bool:
            raise ArgumentError(
                "predictions compared with bool, which says no class; expected labels or names of classes"
            )
        if theirs.dtype.kind not in "UO":
            return np.asarray(self.labels == theirs)
        unknown = {name for name in theirs.ravel().tolist() if isinstance(name, str)} - set(self.class_names)
        if unknown:
            raise ArgumentError(
                f"{sorted(unknown)[0]!r} is no class; expected {', '.join(map(repr, self.class_names))}"
            )
        try:
            return np.array(
                [name == one for name, one in np.broadcast(np.array(self.label_names, object), theirs)], bool
            )
        except TypeError as error:  # pandas' NA is neither
            raise ArgumentError(
                f"predictions compared with {other!r:.80}; expected labels or names of classes"
            ) from error

    def __ne__(self, other: object) -> np.ndarray:  # type: ignore[override]
        return ~(self == other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def _label_set(self, index: int) -> tuple[str, ...] | None:
        if self.label_sets is None:
            return None
        return tuple(name for name, held in zip(self.class_names, self.label_sets[index], strict=True) if held)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        shown = ", ".join(f"{name} {count:,}" for name, count in zip(self.class_names, counts, strict=True))
        novel = "" if self.novel is None else f"; {self.novel.sum():,} not like the cells this was trained on"
        failed = f"; {len(self.failed)} could not be read" if self.failed else ""
        return f"{len(self):,} predictions: {shown}{novel}{failed}"

    def _repr_html_(self) -> str:
        header = ["name", "label", *(f"P({name})" for name in self.class_names)]
        header += [] if self.label_sets is None else ["label set"]
        header += [] if self.novel is None else ["novel"]
        rows = []
        for p in self[:_SHOWN]:
            row: list[object] = [p.name, p.label_name, *(f"{value:.3f}" for value in p.probabilities.values())]
            row += [] if p.label_set is None else [", ".join(p.label_set) or "none"]
            row += [] if p.novel is None else ["yes" if p.novel else ""]
            rows.append(row)
        more = f"and {len(self) - _SHOWN:,} more. " if len(self) > _SHOWN else ""
        return as_table(repr(self), header, rows, f"{more}Research use only, not a medical device.")

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line an image: index, name, label, probability of every class, error.

        After `Classifier.conformalize` there is a column ``label_set`` too, its labels joined by ``|``; after
        `Classifier.learn_novelty` there are ``novelty`` and ``novel`` (0 or 1).
        Images that could not be read have a line too, with the reason.

        Parameters
        ----------
        path : path
            Overwritten where it exists, once the new file is complete.

        Raises
        ------
        CellscanError
            Where it cannot be written; what stood there before is untouched.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> preds = cellscan.Classifier(image_size=32).predict(cellscan.synthetic_cells(40, seed=0))
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "out.csv"
        >>> preds.to_csv(file)
        >>> file.read_text().splitlines()[0]
        'index,name,label,p_parasitized,p_uninfected,error'
        """
        write_csv(path, self.rows())

    def rows(self) -> list[list[object]]:
        """Return what `to_csv` writes: a header, and one row an image.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).predict(["no.png"], on_error="skip").rows()[1]
        [0, 'no.png', '', '', '', 'no.png: there is no such file']
        """
        rows: list[tuple[int, list[object]]] = []
        for i, (index, name) in enumerate(zip(self.indices, self.names, strict=True)):
            values = [f"{value:.6f}" for value in self.probabilities[i]]
            held = self._label_set(i)
            values += [] if held is None else ["|".join(held)]
            if self.novelty is not None and self.novel is not None:
                values += [f"{self.novelty[i]:.4g}", str(int(self.novel[i]))]
            rows.append((int(index), [int(index), name, self.class_names[self.labels[i]], *values, ""]))
        more = [] if self.label_sets is None else ["label_set"]
        more += [] if self.novelty is None else ["novelty", "novel"]
        blank = [""] * (1 + len(self.class_names) + len(more))
        rows += [(f.index, [f.index, f.name, *blank, f.reason]) for f in self.failed]
        header: list[object] = ["index", "name", "label", *(f"p_{name}" for name in self.class_names), *more, "error"]
        return [header, *(row for _, row in sorted(rows, key=lambda pair: pair[0]))]
