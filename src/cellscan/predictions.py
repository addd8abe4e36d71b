"""`Predictions`, `Prediction` and `Failure`: what `Classifier.predict` returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from cellscan.data.tables import Column, Table, csv_rows, find_rows, make_frame, write_csv
from cellscan.errors import ArgumentError
from cellscan.notebook import as_table

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = 10
"""Number of rows in the table of a notebook."""


_BATCH = 20
"""Number of images from which a share of novel ones describes the batch."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes
    ----------
    label : int
        Index of the predicted class in the classifier's `class_names`.
    label_name : str
        Name of the predicted class.
    positive : bool or None
        Whether `label` is the positive class; None if no class is positive.
    probability : float
        Probability of `label`, in [0, 1].
    probabilities : dict[str, float]
        Probability of every class, by its name.
    name : str
        File name, or another name of the image.
    label_set : tuple[str, ...] or None
        The labels in the conformal set of the image. If the set has several labels or none, an expert should decide.
        None before `Classifier.conformalize`.
    novelty : float or None
        Distance of the image, in feature space, from the cells of `Classifier.learn_novelty`; None before that call.
    novel : bool or None
        Whether `novelty` is above `Classifier.novelty_threshold`; the label of a novel image is not reliable.

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
        Position of the image in the input.
    name : str
        File name, or another name of the image.
    reason : str
        Why the image could not be read.

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
    """A sequence of `Prediction`, in the order of the input.

    NumPy converts it to the array of labels, so ``np.asarray(preds)``, ``(preds == labels).mean()`` and scikit-learn's
    functions work. ``preds == names`` compares class names. An integer index gives a `Prediction`; a slice, a mask or
    an array of indices gives `Predictions`.

    Attributes
    ----------
    labels : numpy.ndarray
        (N,) int32, index of the predicted class of each image.
    probabilities : numpy.ndarray
        (N, K) float32, probability of every class; the columns are in the order of `class_names`.
    indices : numpy.ndarray
        (N,) int64, position of each image in the input; positions that are missing are in `failed`.
    names : tuple[str, ...]
        File names, or other names of the images.
    failed : tuple[Failure, ...]
        All images of the input that ``on_error="skip"`` skipped; a slice keeps all of them.
    class_names : tuple[str, ...]
        Class names.
    positive_class : str or None
        The class to which `Prediction.positive` refers.
    label_sets : numpy.ndarray or None
        (N, K) bool, which labels are in the conformal set of each image; None before `Classifier.conformalize`.
    novelty : numpy.ndarray or None
        (N,) float32, distance of each image, in feature space, from the cells of `Classifier.learn_novelty`; None
        before that call.
    novel : numpy.ndarray or None
        (N,) bool, whether `novelty` is above `Classifier.novelty_threshold`.

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
        """The name of the predicted class of each image.

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
            unread = f"; {len(self.failed)} images could not be read, see indices" if self.failed else ""
            raise ArgumentError(
                f"{len(self)} predictions compared with labels of shape {theirs.shape}; expected one label, or as many "
                f"as predictions{unread}"
            )
        given: list[Any] = theirs.ravel().tolist()
        if any(isinstance(value, bool) for value in given):
            raise ArgumentError(
                "predictions compared with bool, which is not a label; expected labels or names of classes"
            )
        numbers = [value for value in given if isinstance(value, Real) and value == value]
        beyond = [value for value in numbers if value not in range(len(self.class_names))]
        if beyond:
            raise ArgumentError(
                f"predictions compared with {beyond[0]!r}, which is not a label; expected 0 to "
                f"{len(self.class_names) - 1}, or names of classes"
            )
        names = {value for value in given if isinstance(value, str)}
        if names and numbers:
            raise ArgumentError("predictions compared with labels and names of classes; expected only one of the two")
        unknown = names - set(self.class_names)
        if unknown:
            raise ArgumentError(
                f"{sorted(unknown)[0]!r} is not a class; expected one of {', '.join(map(repr, self.class_names))}"
            )
        mine = np.array(self.label_names if names else self.labels.tolist(), object)
        try:
            return np.array([label == value for label, value in np.broadcast(mine, theirs)], bool)
        except TypeError as error:  # A comparison with pandas' NA is neither true nor false.
            raise ArgumentError(
                f"predictions compared with {other!r:.80}; expected labels or names of classes"
            ) from error

    def __ne__(self, other: object) -> np.ndarray:  # type: ignore[override]
        return ~(self == other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def _label_set(self, index: int) -> tuple[str, ...] | None:
        if self.label_sets is None:
            return None
        return tuple(name for name, member in zip(self.class_names, self.label_sets[index], strict=True) if member)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        listed = ", ".join(f"{name} {count:,}" for name, count in zip(self.class_names, counts, strict=True))
        novel = "" if self.novel is None else f"; {self.novel.sum():,} novel (unlike the training cells)"
        failed = f"; {len(self.failed)} could not be read" if self.failed else ""
        batch = ""
        if self.novel is not None and len(self) >= _BATCH and self.novel.mean() > 0.5:
            batch = ". Most of this batch differs from the training cells, for example in stain; see outlier_scores"
        return f"{len(self):,} predictions: {listed}{novel}{failed}{batch}"

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
        """Write a CSV file with one line per image: index, name, label, probability of every class, error.

        After `Classifier.conformalize` the file has a column ``label_set``, with labels joined by ``|``. After
        `Classifier.learn_novelty` it has columns ``novelty`` and ``novel`` (0 or 1). Images that could not be read
        have a line with the reason in ``error``.

        Parameters
        ----------
        path : path
            The file. An existing file is replaced once the new one is complete.

        Raises
        ------
        CellscanError
            If the file cannot be written; an existing file is then unchanged.

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
        """Return the rows that `to_csv` writes: a header, then one row per image.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).predict(["no.png"], on_error="skip").rows()[1]
        [0, 'no.png', '', '', '', 'no.png: there is no such file']
        """
        return csv_rows(self._table())

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per image and the columns of `to_csv`.

        ``index`` is int64; the probabilities and ``novelty`` are float64; ``label`` is categorical, with all class
        names. An image that could not be read has its reason in ``error``, and NaN in the other columns.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).predict(["no.png"], on_error="skip").to_dataframe().error.tolist()
        ['no.png: there is no such file']
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        indices = [*self.indices.tolist(), *(failure.index for failure in self.failed)]
        order, missing = np.argsort(indices, kind="stable").tolist(), [None] * len(self.failed)

        def column(
            values: Sequence[Any], kind: Any = "text", form: str = "", failed: Sequence[Any] = missing
        ) -> Column:
            both = [*values, *failed]
            return Column([both[row] for row in order], kind, form)

        table = {
            "index": column(self.indices.tolist(), "whole", failed=[failure.index for failure in self.failed]),
            "name": column(self.names, failed=[failure.name for failure in self.failed]),
            "label": column(self.label_names, self.class_names),
        }
        for name, values in zip(self.class_names, self.probabilities.T.tolist(), strict=True):
            table[f"p_{name}"] = column(values, "number", ".6f")
        if self.label_sets is not None:
            table["label_set"] = column(["|".join(self._label_set(row) or ()) for row in range(len(self))])
        if self.novelty is not None and self.novel is not None:
            table["novelty"] = column(self.novelty.tolist(), "number", ".4g")
            table["novel"] = column(self.novel.tolist(), "flag", "d")
        return {**table, "error": column([None] * len(self), failed=[failure.reason for failure in self.failed])}
