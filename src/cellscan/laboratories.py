"""Evaluation of detectors on laboratories without training fields: each laboratory is left out in turn."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from cellscan.data.fields import FieldDataset
from cellscan.data.tables import Column, Table, csv_rows, find_rows, make_frame, write_csv
from cellscan.data.values import as_path
from cellscan.detector import Detector
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.detection import DetectionReport
from cellscan.evaluate.formatting import metric_text
from cellscan.notebook import TextInNotebook

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False, eq=False)
class LaboratoryStudy(TextInNotebook, Sequence[DetectionReport]):
    """Reports of detectors on laboratories that were left out of their training.

    A study prints as a table with one row per laboratory. Indexing with an integer returns the report of a laboratory,
    a slice returns a study of fewer laboratories.

    Attributes
    ----------
    names : tuple[str, ...]
        The laboratories that were left out.
    reports : tuple[DetectionReport, ...]
        The report on each laboratory.
    detectors : tuple[Detector, ...]
        The detector that was trained without each laboratory.

    Examples
    --------
    >>> import cellscan
    >>> two = fields.with_groups(laboratories=["A", "A", "B", "B"])  # `fields` and `det` as of `cellscan.Detector`
    >>> table = cellscan.leave_one_laboratory_out(two, lambda others: det)
    >>> table.names, len(table[:1])
    (('A', 'B'), 1)
    """

    names: tuple[str, ...]
    reports: tuple[DetectionReport, ...]
    detectors: tuple[Detector, ...]

    @overload
    def __getitem__(self, index: int) -> DetectionReport: ...
    @overload
    def __getitem__(self, index: slice) -> LaboratoryStudy: ...
    def __getitem__(self, index: int | slice) -> DetectionReport | LaboratoryStudy:
        result = find_rows(index, len(self), "laboratories")
        if isinstance(result, int):
            return self.reports[result]
        rows = result.tolist()
        names, reports, detectors = (
            tuple(column[row] for row in rows) for column in (self.names, self.reports, self.detectors)
        )
        return LaboratoryStudy(names, reports, detectors)

    def __iter__(self) -> Iterator[DetectionReport]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"LaboratoryStudy({', '.join(self.names)})"

    def __str__(self) -> str:
        classes = self.reports[0].class_names
        width = max([14, *map(len, self.names)])
        head = "".join(f"{f'AP50 {name}':>{max(len(name) + 7, 10)}}" for name in classes)
        head += "".join(f"{f'F1 {name}':>{max(len(name) + 5, 10)}}" for name in classes)
        lines = [f"{'left out':{width}}{'fields':>8}{head}{'count error':>13}"]
        for name, report in zip(self.names, self.reports, strict=True):
            row = "".join(
                f"{metric_text(value, 3):>{max(len(kind) + 7, 10)}}"
                for kind, value in zip(classes, report.ap50_per_class, strict=True)
            )
            row += "".join(
                f"{metric_text(value, 3):>{max(len(kind) + 5, 10)}}"
                for kind, value in zip(classes, report.f1_per_class, strict=True)
            )
            error = "n/a" if np.isnan(report.count_error) else f"{report.count_error:.1%}"
            lines.append(f"{name:{width}}{len(report.truth):>8,}{row}{error:>13}")
        return "\n".join([*lines, "Research use only, not a medical device."])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file with one line per laboratory and class.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> two = fields.with_groups(laboratories=["A", "A", "B", "B"])
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "laboratories.csv"
        >>> cellscan.leave_one_laboratory_out(two, lambda others: det).to_csv(file)
        >>> file.read_text().splitlines()[0]
        'laboratory,class,fields,ap50,precision,recall,f1,count_error'
        """
        write_csv(path, csv_rows(self._table()))

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per laboratory and class, and the columns of `to_csv`.

        ``class`` is categorical, ``fields`` int64, and the metrics are float64; undefined ones are NaN.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> two = fields.with_groups(laboratories=["A", "A", "B", "B"])
        >>> frame = cellscan.leave_one_laboratory_out(two, lambda others: det).to_dataframe()
        >>> frame.laboratory.tolist(), frame.fields.tolist()
        (['A', 'A', 'B', 'B'], [2, 2, 2, 2])
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        rows = [
            (name, one, k)
            for name, one in zip(self.names, self.reports, strict=True)
            for k in range(len(one.class_names))
        ]
        classes = tuple(dict.fromkeys(name for one in self.reports for name in one.class_names))

        def metric(values: Iterable[float]) -> Column:
            return Column([None if np.isnan(value) else float(value) for value in values], "number", ".6f")

        return {
            "laboratory": Column([name for name, _, _ in rows]),
            "class": Column([one.class_names[k] for _, one, k in rows], classes),
            "fields": Column([len(one.truth) for _, one, _ in rows], "whole"),
            "ap50": metric(one.ap50_per_class[k] for _, one, k in rows),
            "precision": metric(one.precision_per_class[k] for _, one, k in rows),
            "recall": metric(one.recall_per_class[k] for _, one, k in rows),
            "f1": metric(one.f1_per_class[k] for _, one, k in rows),
            "count_error": metric(one.count_error for _, one, _ in rows),
        }


def leave_one_laboratory_out(
    fields: FieldDataset,
    train: Callable[[FieldDataset], Detector],
    *,
    cell_diameter: float | str | None = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> LaboratoryStudy:
    """Train one detector for each laboratory, without the fields of that laboratory, and evaluate it on them.

    The reports estimate the performance on fields of a laboratory that contributed no training data. For an unbiased
    estimate, `train` must choose everything, such as thresholds and the number of epochs, from the fields it receives.

    Parameters
    ----------
    fields : FieldDataset
        Fields of at least two laboratories; the laboratory of every field must be known.
    train : callable
        A function that takes the fields of the other laboratories and returns a trained detector, with its thresholds.
    cell_diameter : "auto", float or None
        As in `Detector.predict`.
    checkpoint : path, optional
        Folder in which the trained detectors are saved, each with a hash of the names and annotations of its training
        fields in its name. A detector of the same fields is not trained again, so a study that was stopped continues.
        Delete the folder to train all detectors again, such as after a change of `train`.
    progress : bool
        Show progress bars during the evaluation.

    Returns
    -------
    LaboratoryStudy

    Raises
    ------
    ArgumentError
        If `train` is not callable, or does not return a detector.
    DataError
        If the laboratory of a field is unknown, or there is only one laboratory.

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.synthetic_fields(4, seed=0)
    >>> two_laboratories = fields.with_groups(laboratories=["A", "A", "B", "B"])
    >>> def train(others):
    ...     mosaics = cellscan.mosaic_fields(others, 2, size=(96, 128))
    ...     det = cellscan.Detector("retinanet_small", image_size=(96, 128), seed=0)
    ...     det.fit(mosaics, epochs=1, batch_size=2, progress=False)
    ...     return det
    >>> print(cellscan.leave_one_laboratory_out(two_laboratories, train))  # doctest: +ELLIPSIS
    left out        fields   AP50 red blood cell   AP50 infected ...
    A                    2 ...
    B                    2 ...
    Research use only, not a medical device.
    """
    if not isinstance(fields, FieldDataset):
        raise ArgumentError(f"fields is a {type(fields).__name__}; expected a FieldDataset, see cellscan.load_fields")
    if not callable(train):
        raise ArgumentError(f"train is {train!r:.80}; expected a function from fields to a trained Detector")
    owner = fields.groups("laboratory")
    names = tuple(dict.fromkeys(owner.tolist()))
    if len(names) < 2:
        raise DataError(f"the fields are of {len(names)} laboratories ({', '.join(names)}); expected two or more")
    folder = None if checkpoint is None else as_path("checkpoint", checkpoint)
    detectors, reports = [], []
    for number, name in enumerate(names):
        others, file = fields.select(owner != name), None
        if folder is not None:
            stem = f"{number}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}-{others.hash(pixels=False)}"
            file = folder / f"{stem}.safetensors"
        if file is not None and file.is_file():
            detector = Detector.load(file)
        else:
            detector = train(others)
            if not isinstance(detector, Detector):
                raise ArgumentError(f"train returned {detector!r:.80}; expected a cellscan.Detector")
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                detector.save(file)
        kept = fields.select(owner == name)
        reports.append(detector.evaluate(kept, cell_diameter=cell_diameter, progress=progress))
        detectors.append(detector)
    return LaboratoryStudy(names, tuple(reports), tuple(detectors))
