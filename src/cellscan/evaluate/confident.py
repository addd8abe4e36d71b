"""Label issues: cells whose label is contradicted by confident out-of-fold predictions.

Northcutt, Jiang and Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels (JAIR 70).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cellscan.data.cells import CellDataset, find_named
from cellscan.data.tables import Column, Table, csv_rows, find_rows, make_frame, write_csv
from cellscan.data.values import check_whole
from cellscan.errors import DataError
from cellscan.evaluate.metrics import make_ranking
from cellscan.notebook import TextInNotebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def find_contradicted(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows whose label is contradicted by a confident prediction, worst first.

    A prediction is confident in a class if the probability of the class is at least its mean over the cells with
    that label. The rows are sorted by the probability of their label, lowest first.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, K) float
        Out-of-fold predictions: the network of each cell was trained without the patient of the cell.

    Returns
    -------
    (M,) int64

    Raises
    ------
    DataError
        If a class has no cell.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.confident import find_contradicted
    >>> p = np.array([0.9, 0.8, 0.95, 0.2, 0.1])
    >>> find_contradicted(np.array([0, 0, 1, 1, 1]), np.stack([p, 1 - p], 1)).tolist()
    [2]
    """
    classes = probabilities.shape[1]
    missing = [k for k in range(classes) if not (labels == k).any()]
    if missing:
        raise DataError(f"no cell has a label of class {missing[0]}; expected cells of every class")
    thresholds = np.array([probabilities[labels == k, k].mean() for k in range(classes)])
    confident = probabilities >= thresholds - 1e-6
    guess = np.where(confident, probabilities, -1.0).argmax(1)
    rows = np.flatnonzero(confident.any(1) & (guess != labels) & (probabilities.argmax(1) != labels))
    return rows[np.argsort(probabilities[rows, labels[rows]], kind="stable")]


@dataclass(frozen=True)
class LabelIssue:
    """A cell whose label is contradicted by out-of-fold predictions.

    Attributes
    ----------
    name, patient : str
        Name and patient of the cell.
    label_name : str
        Name of the published label.
    suggested : str
        Class that the out-of-fold networks predict.
    probability : float
        Out-of-fold probability of the published label.

    Examples
    --------
    >>> from cellscan.evaluate.confident import LabelIssue
    >>> LabelIssue("a.png", "C1", "parasitized", "uninfected", 0.02).suggested
    'uninfected'
    """

    name: str
    patient: str
    label_name: str
    suggested: str
    probability: float


@dataclass(frozen=True, repr=False, eq=False)
class LabelIssues(TextInNotebook, Sequence[LabelIssue]):
    """Cells whose label is contradicted by out-of-fold predictions, worst first; a sequence of `LabelIssue`.

    Neither the label nor the prediction is the truth. Many disputed "parasitized" cells lost their parasite when
    they were cut out. Many disputed "uninfected" cells show stain or platelets, and their label may be correct.

    Attributes
    ----------
    rows : numpy.ndarray
        (M,) int64, the rows in `cells` that have a label issue.
    scores : numpy.ndarray
        (N,) float32, the out-of-fold probability of the label, for every cell.
    probabilities : numpy.ndarray
        (N, K) float32, the out-of-fold probabilities of every cell.
    cells : CellDataset
        All cells, with and without label issues.

    Examples
    --------
    >>> issues = study.label_issues()
    >>> len(issues.scores), len(issues) <= 200
    (200, True)
    """

    rows: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    cells: CellDataset

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> LabelIssue: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> LabelIssues: ...
    def __getitem__(self, index: Any) -> LabelIssue | LabelIssues:
        index = find_rows(index, len(self), "label issues")
        if not isinstance(index, int):
            return replace(self, rows=self.rows[index])
        row, names = int(self.rows[index]), self.cells.class_names
        return LabelIssue(
            str(self.cells.names[row]),
            str(self.cells.patients[row]),
            names[int(self.cells.labels[row])],
            names[int(self.probabilities[row].argmax())],
            float(self.scores[row]),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> np.ndarray:
        """Names (M,) of the cells with a label issue, worst first.

        Examples
        --------
        >>> issues = study.label_issues()
        >>> len(cells.without(issues.names)) == len(cells) - len(issues)
        True
        """
        return self.cells.names[self.rows]

    def __repr__(self) -> str:
        return f"LabelIssues({len(self)} of {len(self.cells)} cells)"

    def __str__(self) -> str:
        lines = [f"{len(self):,} of {len(self.cells):,} labels are contradicted by out-of-fold predictions"]
        for label, name in enumerate(self.cells.class_names):
            count = int((self.cells.labels[self.rows] == label).sum())
            lines.append(f"  labelled {name}: {count:,}")
        lines += [f"{s.name}  {s.label_name} -> {s.suggested}, P(label) {s.probability:.4f}" for s in self[:10]]
        return "\n".join(lines)

    def against(self, names: Sequence[str] | np.ndarray) -> dict[str, float]:
        """Compare the ranking with a list of cells whose label experts dispute.

        Parameters
        ----------
        names : sequence of str
            Names of the disputed cells.

        Returns
        -------
        dict
            ``roc_auc`` and ``average_precision`` of the ranking of all cells, and ``hits_500``: how many of the
            first 500 cells of the ranking are on the list.

        Raises
        ------
        DataError
            If the list contains none of the cells, or all of them.

        Examples
        --------
        >>> sorted(study.label_issues().against(cells.names[:10]))
        ['average_precision', 'hits_500', 'roc_auc']
        """
        listed = find_named(self.cells.names, names)
        if not 0 < listed.sum() < len(listed):
            raise DataError(
                f"{listed.sum()} of {len(listed)} cells are on the list; expected at least one, but not all"
            )
        first = np.argsort(self.scores, kind="stable")[:500]
        auc, precision = make_ranking(listed, -self.scores, np.zeros(len(listed), int))(np.ones(1))
        return {
            "roc_auc": auc,
            "average_precision": precision,
            "hits_500": int(listed[first].sum()),
        }

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file with one line per label issue; the least probable label comes first.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "label_issues.csv"
        >>> study.label_issues().to_csv(file)
        >>> file.read_text().splitlines()[0]
        'name,patient,label_name,suggested,probability'
        """
        write_csv(path, csv_rows(self._table()))

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per label issue and the columns of `to_csv`.

        ``label_name`` and ``suggested`` are categorical, with all class names; ``probability`` is float64.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> issues = study.label_issues()
        >>> len(issues.to_dataframe()) == len(issues)
        True
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        names, issues = self.cells.class_names, list(self)
        return {
            "name": Column([issue.name for issue in issues]),
            "patient": Column([issue.patient or None for issue in issues]),
            "label_name": Column([issue.label_name for issue in issues], names),
            "suggested": Column([issue.suggested for issue in issues], names),
            "probability": Column([issue.probability for issue in issues], "number"),
        }

    def to_html(self, path: str | os.PathLike[str], *, count: int = 500) -> None:
        """Write one HTML file with the pictures of the cells, a filter, and check boxes.

        The file needs no other file and no network. Its button downloads the ticked cells as CSV, with the columns of
        `to_csv`.

        Parameters
        ----------
        path : path
            The file. An existing file is replaced once the new one is complete.
        count : int
            Largest number of pictures, at least 1; worst label first.

        Raises
        ------
        ArgumentError
            If an argument is invalid.
        DataError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> issues = study.label_issues()
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "label_issues.html"
        >>> issues.to_html(file)
        >>> file.read_text().count("data:image/jpeg") == len(issues)
        True
        """
        from cellscan.pages.markup import tag
        from cellscan.pages.page import write_page
        from cellscan.pages.parts import Shown, make_gallery, make_table
        from cellscan.pages.pictures import read_or_reason

        shown = []
        for issue, row in zip(self[: check_whole("count", count, 1)], self.rows[:count], strict=True):
            values = (issue.name, issue.patient, issue.label_name, issue.suggested, f"{issue.probability:.4f}")
            lines = (
                f"labelled {issue.label_name}, suggested {issue.suggested}", f"P(label) {values[4]}",
                f"patient {issue.patient or 'unknown'}",
            )  # fmt: skip
            image = read_or_reason(lambda row=row: self.cells[int(row)].image)
            shown.append(Shown(image, values, lines))
        columns, filters = list(LabelIssue.__dataclass_fields__), ["label_name", "suggested"]
        filters += ["patient"] if self.cells.has_patients else []
        labels = self.cells.labels[self.rows]
        rows = [
            (name, int((labels == label).sum()), count)
            for label, (name, count) in enumerate(self.cells.per_class().items())
        ]
        more = f"The first {len(shown):,} of {len(self):,} cells, worst first." if len(shown) < len(self) else ""
        cells = make_gallery(shown, columns, filters, file="ticked.csv") if shown else tag("p", "There are none.")
        write_page(
            path,
            "Label issues",
            [
                f"{len(self):,} of {len(self.cells):,} labels are contradicted by out-of-fold predictions.",
                "Neither the label nor the prediction is the truth: look at the cell, and tick what you have decided.",
            ],
            [
                ("Counts", [make_table("Label issues by class", ["labelled", "label issues", "cells"], rows)]),
                ("Cells", [tag("p", more) if more else tag("p", "All cells, worst first."), cells]),
            ],
        )

    def plot(self, count: int = 24) -> Figure:
        """Draw the first `count` cells, with their published label and its out-of-fold probability.

        Examples
        --------
        >>> issues = study.label_issues()
        >>> figure = issues.plot(8) if len(issues) else None
        """
        if not len(self):
            raise DataError("no label is contradicted, so there is nothing to draw; expected at least one label issue")
        count = check_whole("count", count, 1)
        from cellscan.plots import plot_images

        return plot_images(
            [
                (
                    self.cells[int(row)].image,
                    f"labelled {issue.label_name}\nP = {issue.probability:.3f}, {issue.patient}",
                )
                for issue, row in zip(self[:count], self.rows[:count], strict=True)
            ]
        )
