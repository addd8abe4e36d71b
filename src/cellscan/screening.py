"""Screening of smears: counts of red and infected cells over all fields, and the parasitemia with its interval."""

from __future__ import annotations

import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from cellscan.confirming import check_classifier, confirm, name_classifier, rules_with
from cellscan.data.fields import FieldDataset
from cellscan.data.inputs import Images
from cellscan.data.tables import Column, Table, csv_rows, make_frame, write_csv
from cellscan.data.values import as_patient, check_number, check_seed, check_whole
from cellscan.detection.rules import DetectionConfig
from cellscan.detections import Detections, SeenImage, make_failures, show_field
from cellscan.detector import Detector
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import DRAWS, draw_chunks, interval
from cellscan.notebook import TextInNotebook
from cellscan.predictions import Failure
from cellscan.tasks.detection import MIN_SCORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from cellscan.classifier import Classifier

    Grouping: TypeAlias = str | Mapping[str, str] | Callable[[str], str] | Sequence[str]

MINIMUM = 5000
"""Default of `minimum_cells`, the number of cells that is enough: a rule in common use; no source was read for it."""

SPARSE = 0.05
"""Smallest share of the area of the fields that red cells cover in a thin film; below it, a smear is refused."""

FEW = 100
"""Smallest number of red cells for a claim."""

_SHOWN = 4
"""Number of fields that a report can draw."""


@dataclass(frozen=True)
class FieldCount:
    """The numbers of cells of one field.

    Attributes
    ----------
    name : str
        File name or other name of the field.
    red_cells : int
        Number of red cells, including the infected ones.
    infected : int
        Number of infected cells.
    cell_diameter : float or None
        Diameter of the red cells in pixels of the field, as in `Detections`.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.FieldCount("a.png", red_cells=120, infected=2).infected
    2
    """

    name: str
    red_cells: int
    infected: int
    cell_diameter: float | None = None


@dataclass(frozen=True, repr=False, eq=False)
class SmearReport(TextInNotebook):
    """Counts and parasitemia of the fields of one smear. Research use only, not a medical device.

    `print` shows a few lines.

    Attributes
    ----------
    red_cells, infected : int
        Numbers of cells over all fields, without those that the border of a field cuts (`Detections.cut`). Each cell
        counts once; an infected cell is a red cell too.
    apparent : float
        Apparent share: infected / red_cells.
    parasitemia : float or None
        Apparent share after correction for missed infected cells and for false positives (Rogan and Gladen, 1978):
        (apparent - f) / (s - f), clipped to [0, 1]. s is the sensitivity and f is the false-positive rate that
        `Detector.choose_threshold` measured. None if the errors are not known for fields like these.
    interval : tuple[float, float] or None
        95 % interval of the parasitemia, by bootstrap over these fields and over the fields on which s and f were
        measured. It is at least as wide as the variation of independent cells, so that no infected cell among a few
        hundred does not give an interval of 0 to 0. None if the parasitemia is None, or if there is only one field,
        because one field does not show how much fields differ.
    warnings : tuple[str, ...]
        Sentences that a reader must consider before the numbers; `print` shows them first.
    limit_of_detection : float or None
        Parasitemia that is two standard deviations above the share that false positives alone give for this number of
        cells, and at least one infected cell. The standard deviation includes the uncertainty of f. None if no
        parasitemia is claimed.
    corrected : bool
        Whether s and f are known for fields like these, so that `parasitemia` is not None.
    enough : bool
        Whether at least `minimum_cells` red cells were counted.
    minimum_cells : int
        The argument of `screen`.
    per_microlitre : float or None
        Infected cells per microlitre of blood. None if the density of red cells was not given, or no parasitemia is
        claimed.
    fields : tuple[FieldCount, ...]
        The numbers of cells of each field, in the order of the input.
    failed : tuple[Failure, ...]
        Fields that were skipped with ``on_error="skip"``.
    shown : tuple[Detections, ...]
        The fields that `plot` draws.

    Examples
    --------
    >>> import cellscan
    >>> smear = cellscan.screen(fields, det, classifier=None, cell_diameter=50)  # see `cellscan.Detector`
    >>> len(smear.fields), smear.enough
    (4, False)
    """

    red_cells: int
    infected: int
    apparent: float
    parasitemia: float | None
    interval: tuple[float, float] | None
    limit_of_detection: float | None
    corrected: bool
    enough: bool
    minimum_cells: int
    per_microlitre: float | None
    fields: tuple[FieldCount, ...]
    failed: tuple[Failure, ...]
    warnings: tuple[str, ...]
    shown: tuple[Detections, ...] = field(repr=False)

    def __str__(self) -> str:
        lines = [f"Warning: {warning}" for warning in self.warnings]
        kind = self.shown[0].class_names[-1] if self.shown else "infected"  # a wrong order of the classes is visible
        lines.append(f"{len(self.fields):,} fields, {self.red_cells:,} red cells, {self.infected:,} called {kind}")
        if self.parasitemia is None:
            lines.append(f"parasitemia: no claim; apparent share {self.apparent:.2%}")
        else:
            bounds = "n/a: one field" if self.interval is None else "{:.2%} to {:.2%}".format(*self.interval)
            lines.append(f"parasitemia {self.parasitemia:.2%} (95 % over fields {bounds}), corrected for known errors")
            lines.append(f"as counted {self.apparent:.2%}")
        if self.limit_of_detection is not None:
            lines.append(f"limit of detection with so many cells {self.limit_of_detection:.2%}")
        if self.per_microlitre is not None:
            lines.append(f"{self.per_microlitre:,.0f} infected cells a microlitre")
        if self.failed:
            lines.append(f"{len(self.failed)} fields could not be read; the first: {self.failed[0].reason}")
        return "\n".join([*lines, "Research use only, not a medical device."])

    def __repr__(self) -> str:
        return f"SmearReport(red_cells={self.red_cells}, infected={self.infected}, fields={len(self.fields)})"

    def plot(self) -> Figure:
        """Draw up to four fields, those with the most infected cells; infected cells are highlighted.

        Cells that are not counted, because the border of the field cuts them, have no box.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.screen(fields, det, classifier=None, cell_diameter=50).plot().axes)
        4
        """
        from cellscan.plots import plot_fields

        return plot_fields(
            [(cells.name, cells.pixels(), cells.boxes, cells.labels, cells.scores) for cells in self.shown],
            self.shown[0].class_names,
        )

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file with one line per field: name, red cells, infected, and the reason if it could not be read.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smear.csv"
        >>> cellscan.screen(fields, det, classifier=None, cell_diameter=50).to_csv(file)
        >>> file.read_text().splitlines()[0]
        'field,red_cells,infected,error'
        """
        write_csv(path, self.rows())

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one HTML file that needs no other file and no network.

        The page has the warnings first, then the parasitemia with its interval, the counts of each field, and the
        fields of `plot` with their boxes.

        Parameters
        ----------
        path : path
            The file. An existing file is replaced once the new one is complete.

        Raises
        ------
        ArgumentError
            If `path` is not a path.
        DataError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smear.html"
        >>> cellscan.screen(fields, det, classifier=None, cell_diameter=50).to_html(file)
        >>> "Counts by field" in file.read_text()
        True
        """
        from cellscan.pages.page import write_page
        from cellscan.pages.parts import make_fields, make_table

        values = [
            ("parasitemia, corrected for known errors", _share_text(self.parasitemia, "no claim")),
            ("95 % interval over fields", _range_text(self.interval)),
            ("apparent share", _share_text(self.apparent)),
            ("limit of detection with so many cells", _share_text(self.limit_of_detection)),
            ("infected cells a microlitre", "n/a" if self.per_microlitre is None else f"{self.per_microlitre:,.0f}"),
            ("red cells, without those that a border cuts", f"{self.red_cells:,}"),
            ("infected cells", f"{self.infected:,}"),
            ("fields", f"{len(self.fields):,}"),
        ]
        counts = [
            (one.name, one.red_cells, one.infected,
             (one.infected / one.red_cells, f"{one.infected / one.red_cells:.2%}") if one.red_cells else (None, "n/a"),
             (None, "-") if one.cell_diameter is None else (one.cell_diameter, f"{one.cell_diameter:.1f}"))
            for one in self.fields
        ]  # fmt: skip
        header = ["field", "red cells", "infected", "share", "cell diameter, px"]
        sections = [
            ("Result", [make_table("Infected cells of the smear", ["quantity", "value"], values, sortable=False)]),
            ("Counts", [make_table("Counts by field", header, counts)]),
        ]
        if self.shown:
            boxes = make_fields([show_field(cells) for cells in self.shown], self.shown[0].class_names)
            sections.append(("Fields with the most infected cells", [boxes]))
        if self.failed:
            sections.append(make_failures(self.failed))
        write_page(path, "Screening of a smear", [], sections, warnings=self.warnings)

    def rows(self) -> list[list[object]]:
        """Return the rows that `to_csv` writes: a header, and one row per field; at the end those that were skipped.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.screen(fields, det, classifier=None, cell_diameter=50).rows())
        5
        """
        return csv_rows(self._table())

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per field and the columns of `to_csv`.

        A field that was skipped has NaN in the columns of counts.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> smear = cellscan.screen(fields, det, classifier=None, cell_diameter=50)
        >>> int(smear.to_dataframe().red_cells.sum()) == smear.red_cells
        True
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        skipped = [None] * len(self.failed)
        return {
            "field": Column([count.name for count in self.fields] + [failure.name for failure in self.failed]),
            "red_cells": Column([count.red_cells for count in self.fields] + skipped, "whole"),
            "infected": Column([count.infected for count in self.fields] + skipped, "whole"),
            "error": Column([None] * len(self.fields) + [failure.reason for failure in self.failed]),
        }


@dataclass(frozen=True, repr=False, eq=False)
class SmearTable(TextInNotebook, Sequence["SmearReport | None"]):
    """The reports of several smears, a sequence. Research use only, not a medical device.

    `print` shows a table with one row per smear. An integer index returns the report of a smear, in the order of
    first appearance in the input; None if the smear was refused. A slice returns a `SmearTable`.

    Attributes
    ----------
    names : tuple[str, ...]
        Names of the smears.
    reports : tuple[SmearReport or None, ...]
        Report of each smear; None if the smear was refused.
    refused : dict[str, str]
        For each smear without a report, the reason.

    Examples
    --------
    >>> import cellscan
    >>> table = cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len)  # see `cellscan.Detector`
    >>> len(table.names) == len(table.reports)
    True
    """

    names: tuple[str, ...]
    reports: tuple[SmearReport | None, ...]
    refused: dict[str, str]

    @overload
    def __getitem__(self, index: int) -> SmearReport | None: ...
    @overload
    def __getitem__(self, index: slice) -> SmearTable: ...
    def __getitem__(self, index: int | slice) -> SmearReport | SmearTable | None:
        if isinstance(index, slice):
            names = self.names[index]
            return SmearTable(names, self.reports[index], {k: v for k, v in self.refused.items() if k in names})
        return self.reports[index]

    def __len__(self) -> int:
        return len(self.names)

    def _warnings(self) -> list[tuple[str, int]]:
        """Return the warnings of all reports, each with the number of its smears."""
        warnings = [warning for report in self.reports if report is not None for warning in report.warnings]
        return sorted(Counter(warnings).items())

    def __repr__(self) -> str:
        return f"SmearTable({len(self)} smears, refused={len(self.refused)})"

    def __str__(self) -> str:
        lines = [
            f"Warning{f' ({count} smears)' if count > 1 else ''}: {warning}" for warning, count in self._warnings()
        ]
        width = max([5, *map(len, self.names)])
        lines.append(f"{'smear':{width}}{'fields':>8}{'cells':>9}{'infected':>10}{'share':>9}  parasitemia")
        for name, report in zip(self.names, self.reports, strict=True):
            if report is None:
                lines.append(f"{name:{width}}  refused: {self.refused[name]}")
                continue
            claim = "no claim" if report.parasitemia is None else f"{report.parasitemia:.2%}"
            if report.interval is not None:
                claim += " ({:.2%} to {:.2%})".format(*report.interval)
            columns = f"{len(report.fields):>8,}{report.red_cells:>9,}{report.infected:>10,}{report.apparent:>9.2%}"
            lines.append(f"{name:{width}}{columns}  {claim}")
        return "\n".join([*lines, "Research use only, not a medical device."])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file with one line per smear; values that are not claimed are empty.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smears.csv"
        >>> cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len).to_csv(file)
        >>> file.read_text().splitlines()[0]
        'smear,fields,red_cells,infected,apparent,parasitemia,low,high,warnings,refused'
        """
        write_csv(path, self.rows())

    def rows(self) -> list[list[object]]:
        """Return the rows that `to_csv` writes: a header, and one row per smear.

        Examples
        --------
        >>> import cellscan
        >>> table = cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len)
        >>> len(table.rows()) == 1 + len(table)
        True
        """
        return csv_rows(self._table())

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per smear and the columns of `to_csv`.

        Counts and shares are numbers; a value that is not claimed is NaN. A smear that was refused has its reason in
        ``refused``, and NaN in the other columns.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> table = cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len)
        >>> table.to_dataframe().smear.tolist() == list(table.names)
        True
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        def column(get: Callable[[SmearReport], Any], kind: Any = "text", form: str = "") -> Column:
            return Column([None if report is None else get(report) for report in self.reports], kind, form)

        return {
            "smear": Column(list(self.names)),
            "fields": column(lambda report: len(report.fields), "whole"),
            "red_cells": column(lambda report: report.red_cells, "whole"),
            "infected": column(lambda report: report.infected, "whole"),
            "apparent": column(lambda report: report.apparent, "number", ".6f"),
            "parasitemia": column(lambda report: report.parasitemia, "number", ".6f"),
            "low": column(lambda report: report.interval and report.interval[0], "number", ".6f"),
            "high": column(lambda report: report.interval and report.interval[1], "number", ".6f"),
            "warnings": column(lambda report: " ".join(report.warnings) or None),
            "refused": Column([self.refused.get(name) for name in self.names]),
        }

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the table as one HTML file that needs no other file and no network.

        The page has the warnings first, then a table with one row per smear, the figure of `plot`, and the reason for
        each refused smear. `SmearReport.to_html` writes the fields of one smear.

        Parameters
        ----------
        path : path
            The file. An existing file is replaced once the new one is complete.

        Raises
        ------
        ArgumentError
            If `path` is not a path.
        DataError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smears.html"
        >>> cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len).to_html(file)
        >>> "Smears" in file.read_text()
        True
        """
        from cellscan.pages.page import write_page
        from cellscan.pages.parts import make_figure, make_table

        rows = [
            (name, len(one.fields), one.red_cells, one.infected, (one.apparent, _share_text(one.apparent)),
             (one.parasitemia, _share_text(one.parasitemia, "no claim")), _range_text(one.interval))
            for name, one in zip(self.names, self.reports, strict=True) if one is not None
        ]  # fmt: skip
        header = ["smear", "fields", "red cells", "infected", "apparent share", "parasitemia", "95 % interval"]
        parts = [make_table("Smears", header, rows)]
        if rows:
            alt = "share of infected cells of each smear, with intervals; the table above has the values"
            parts.append(make_figure(self.plot, alt, "Infected red cells of each smear"))
        sections = [("Smears", parts)]
        if self.refused:
            refused = make_table("Refused smears", ["smear", "reason"], list(self.refused.items()))
            sections.append(("Refused smears", [refused]))
        warnings = [f"{warning} ({count} smears)" if count > 1 else warning for warning, count in self._warnings()]
        write_page(path, "Screening of smears", [f"{len(self):,} smears"], sections, warnings=warnings)

    def plot(self) -> Figure:
        """Draw the share of infected cells of every smear.

        A filled symbol is a claimed parasitemia with its interval. A hollow symbol is an apparent share without a
        claim. Refused smears are left out.

        Raises
        ------
        DataError
            If every smear was refused.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len).plot().axes)
        1
        """
        from cellscan.plots import plot_smears

        rows = [
            (name, report.apparent, report.parasitemia, report.interval)
            for name, report in zip(self.names, self.reports, strict=True)
            if report is not None
        ]
        if not rows:
            raise DataError("every smear was refused, so there is nothing to draw")
        return plot_smears(rows)


def _share_text(share: float | None, unknown: str = "n/a") -> str:
    return unknown if share is None else f"{share:.2%}"


def _range_text(ends: tuple[float, float] | None) -> str:
    return "n/a" if ends is None else "{:.2%} to {:.2%}".format(*ends)


@overload
def screen(
    images: Images | FieldDataset, detector: Detector | None = None, *, classifier: Classifier | str | None = ...,
    cell_diameter: float | str | None = ..., by: None = None, minimum_cells: int = ...,
    red_cells_per_microlitre: float | None = ..., on_error: str = ..., seed: int = ..., progress: bool = ...,
) -> SmearReport: ...  # fmt: skip
@overload
def screen(
    images: Images | FieldDataset, detector: Detector | None = None, *, classifier: Classifier | str | None = ...,
    cell_diameter: float | str | None = ..., by: Grouping, minimum_cells: int = ...,
    red_cells_per_microlitre: float | None = ..., on_error: str = ..., seed: int = ..., progress: bool = ...,
) -> SmearTable: ...  # fmt: skip
def screen(
    images: Images | FieldDataset,
    detector: Detector | None = None,
    *,
    classifier: Classifier | str | None = "pretrained",
    cell_diameter: float | str | None = "auto",
    by: Grouping | None = None,
    minimum_cells: int = MINIMUM,
    red_cells_per_microlitre: float | None = None,
    on_error: str = "raise",
    seed: int = 0,
    progress: bool = True,
) -> SmearReport | SmearTable:
    """Count the red cells and the infected cells in the fields of a smear, and estimate the parasitemia.

    Cells that the border of a field cuts are not counted. For research use only: not a medical device. With the default
    arguments, the bundled models are used, which need no training and no network connection. Fields are processed one
    after another, in bounded memory. A parasitemia is claimed only if the errors of detector and classifier were
    measured on fields like these: with `Detector.choose_threshold` on ten annotated fields of your own, or on the
    fields on which the bundled detector was measured, if yours look like them.

    Parameters
    ----------
    images : field, or many
        As in `Detector.predict`.
    detector : Detector, optional
        Detector with two classes, the second infected. Call `Detector.choose_threshold` first to measure its errors.
        Default: `Detector.pretrained()`.
    classifier : Classifier, "pretrained" or None
        Classifier that checks the cells that the detector finds infected. ``"pretrained"``, the default, is
        `Classifier.pretrained()`. If the joint threshold of both was chosen, with `Detector.choose_threshold`, it
        decides. Otherwise, a cell counts as infected if both call it infected. The classifier receives crops
        of the size `crop_scale` of the detector's card, and calls no cell infected that lies under text or a scale bar.
        None: no classifier is used.
    cell_diameter : "auto", float or None
        As in `Detector.predict`. With None, no parasitemia is claimed.
    by : str, callable, mapping or sequence, optional
        Smear of each field; `screen` then returns a `SmearTable`. ``"folder"``: each folder with files is a
        smear. ``"slide"``, ``"patient"`` or ``"laboratory"`` of a `FieldDataset`; a function or a mapping from the name
        of a field to its smear; or a sequence with one entry per field. None: all fields are of one smear.
    minimum_cells : int
        Number of red cells from which a smear has enough cells, at least 1. Below it, a warning states that there are
        not enough.
    red_cells_per_microlitre : float, optional
        Density of the red cells in the blood, above 0, to compute infected cells per microlitre.
    on_error : {"raise", "skip"}
        As in `Detector.predict`.
    seed : int
        Seed of the bootstrap.
    progress : bool
        As in `Detector.predict`.

    Returns
    -------
    SmearReport or SmearTable
        A `SmearTable` if `by` is given, with the reason for each smear that was refused.

    Raises
    ------
    ArgumentError
        If the detector does not have two classes, the classifier has no positive class, a number is out of range, or
        the entries of `by` do not match the fields.
    DataError
        If there are no fields, or the smear of a field is not known. Without `by`, also if the smear is refused: if no
        field can be read, or no whole cell is found; if most fields show no red cells whose diameter can be estimated,
        such as thick films and empty fields; if whole red cells cover less than a twentieth of the area of the fields;
        or if most detections lie on empty background. With `by`, the table contains the reason instead.

    Examples
    --------
    >>> import cellscan
    >>> smear = cellscan.screen(fields, det, classifier=None, cell_diameter=50)  # see `cellscan.Detector`
    >>> smear.red_cells == sum(count.red_cells for count in smear.fields), smear.infected <= smear.red_cells
    (True, True)
    """
    detector = Detector.pretrained() if detector is None else detector
    if not isinstance(detector, Detector):
        raise ArgumentError(f"detector is {detector!r}; expected a cellscan.Detector")
    if len(detector.class_names) != 2:
        raise ArgumentError(
            f"the detector has the classes {', '.join(detector.class_names)}; expected two classes, the second infected"
        )
    confirming = _second(classifier)
    minimum_cells = check_whole("minimum_cells", minimum_cells, 1)
    density = red_cells_per_microlitre
    density = None if density is None else check_number("red_cells_per_microlitre", density, 0, math.inf)
    check_seed(seed)
    smear_of, expected = _grouping(by, images)
    rules = detector.card.detection
    assert rules is not None
    classifier_name = name_classifier(confirming)
    rules = rules_with(classifier_name, rules)
    smears: dict[str, _Smear] = {}

    def smear_at(index: int, name: str) -> _Smear:
        smear = smears.setdefault(smear_of(name, index), _Smear())
        smear.first = min(smear.first, index)
        return smear

    stream = detector.stream(
        images, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, on_error=on_error, progress=progress
    )
    number, failed = 0, set[int]()
    for result in stream:
        if isinstance(result, Failure):  # The stream yields a failure before fields that still wait for their batch.
            failed.add(result.index)
            smear_at(result.index, result.name).failed.append(result)
            continue
        while number in failed:
            number += 1
        smear_at(number, result.name).add(confirm(result, rules, confirming))
        number += 1
    if not smears:
        raise DataError("there are no fields; expected at least one")
    if expected is not None and len(failed) + sum(len(smear.counts) for smear in smears.values()) < expected:
        raise ArgumentError(f"by has {expected} entries for fewer fields; expected one entry for each field")
    notes = _pooled(images) if by is None else ()
    how = _How(rules, classifier_name, minimum_cells, density, seed, cell_diameter == "auto", notes)
    if by is None:
        return smears[""].report(how)
    reports: list[SmearReport | None] = []
    refused: dict[str, str] = {}
    smears = dict(sorted(smears.items(), key=lambda entry: entry[1].first))
    for name, smear in smears.items():
        try:
            reports.append(smear.report(how))
        except DataError as error:
            reports.append(None)
            refused[name] = str(error)
    return SmearTable(tuple(smears), tuple(reports), refused)


def _second(classifier: Classifier | str | None) -> Classifier | None:
    if classifier is None:
        return None
    if isinstance(classifier, str):
        if classifier != "pretrained":
            raise ArgumentError(f"classifier is {classifier!r}; expected a cellscan.Classifier, 'pretrained', or None")
        from cellscan.classifier import Classifier

        return Classifier.pretrained()
    return check_classifier(classifier)


def _pooled(images: Any) -> tuple[str, ...]:
    """Return a warning if the fields are known to be of several patients or, without patients, of several slides."""
    if isinstance(images, FieldDataset):
        for what, owners in (("patient", images.patients), ("slide", images.slides)):
            count = len({owner for owner in owners.tolist() if owner})
            if count > 1:
                advice = f'for a report of each, pass by="{what}"'
                return (f"The fields are of {count} {what}s, counted together; {advice}.",)
            if count:
                break
    return ()


def _grouping(by: Grouping | None, images: Any) -> tuple[Callable[[str, int], str], int | None]:
    """Return a function from the name and the number of a field to its smear, and the number of entries of a list."""
    if by is None:
        return (lambda name, number: ""), None
    if callable(by):
        return (lambda name, number: _check_smear(name, by(name))), None
    if isinstance(by, Mapping):

        def look(name: str, number: int) -> str:
            if name not in by:
                raise DataError(f"by has no entry for the field {name!r}; expected one entry for each field")
            return _check_smear(name, by[name])

        return look, None
    if by == "folder":
        whole = isinstance(images, (str, os.PathLike))

        def folder(name: str, number: int) -> str:
            parent = Path(name).parent.as_posix()
            if parent == "." and not whole:
                raise DataError(f'by is "folder", but the field {name!r} has no folder in its name; pass paths')
            return _check_smear(name, parent)

        return folder, None
    groups: Any = by
    if isinstance(by, str):
        if not isinstance(images, FieldDataset):
            raise ArgumentError(
                f'by is {by!r}, which requires a FieldDataset; for images, pass "folder", a function or a mapping of '
                "names, or a list with the smear of every field"
            )
        groups = images.groups(by)
    listed = list(groups)
    if hasattr(images, "__len__") and not isinstance(images, (str, bytes)) and len(images) != len(listed):
        raise ArgumentError(f"by has {len(listed)} entries for {len(images)} fields; expected one entry for each field")

    def at(name: str, number: int) -> str:
        if number >= len(listed):
            raise ArgumentError(f"by has {len(listed)} entries for more fields; expected one entry for each field")
        return _check_smear(name, listed[number])

    return at, len(listed)


def _check_smear(name: str, smear: Any) -> str:
    """Return the name of the smear of a field; raise `DataError` for a missing value."""
    if not (text := as_patient(f"by of the field {name!r}", smear)):
        raise DataError(f"by gives {smear!r:.80} for the field {name!r}; expected the name of its smear")
    return text


@dataclass(frozen=True)
class _How:
    """Options that all reports of a call share."""

    rules: DetectionConfig
    second: str | None
    minimum_cells: int
    density: float | None
    seed: int
    estimated: bool
    notes: tuple[str, ...] = ()


@dataclass
class _Smear:
    """Counts of the fields of one smear, collected field by field. `first` is the index of its first field."""

    first: float = math.inf
    counts: list[FieldCount] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    best: list[Detections] = field(default_factory=list)
    appearances: list[tuple[float, ...]] = field(default_factory=list)
    seen: set[tuple[int, ...]] = field(default_factory=set)
    repeated: list[str] = field(default_factory=list)
    covered: float = 0.0
    area: float = 0.0
    on_background: float = 0.0

    def add(self, cells: Detections) -> None:
        """Add a field, with one detection for each of its cells."""
        infected = int((cells.labels == 1).sum())
        self.counts.append(FieldCount(cells.name, len(cells), infected, cells.cell_diameter))
        self.best = sorted([*self.best, cells], key=lambda detections: -int((detections.labels == 1).sum()))[:_SHOWN]
        if cells.appearance:
            self.appearances.append(cells.appearance)
        if (pixels := _identify(cells)) in self.seen:
            self.repeated.append(cells.name)
        elif pixels:
            self.seen.add(pixels)
        self.on_background += cells.on_background * len(cells)
        if cells.lit_area:
            sides = cells.boxes[:, 2:] - cells.boxes[:, :2]
            self.covered += float(sides.prod(1).sum()) * math.pi / 4
            self.area += cells.lit_area

    def report(self, how: _How) -> SmearReport:
        """Return the report; raise `DataError` with the reason if the smear is refused."""
        total = sum(count.red_cells for count in self.counts)
        self._refuse(total, how)
        red = np.array([count.red_cells for count in self.counts], np.float64)
        infected = np.array([count.infected for count in self.counts], np.float64)
        apparent = float(infected.sum() / total)
        warnings = _unknown(how, self.appearances, apparent, total)
        if self.repeated:
            warnings.append(
                f"No claim: {len(self.repeated)} of {len(red)} fields, the first {self.repeated[0]!r}, have the same "
                "pixels as another one, so their cells are counted more than once; leave them out."
            )
        parasitemia = bounds = limit = None
        if not warnings:
            parasitemia, bounds, limit = _correct(how.rules, infected, red, how.seed)
        if bounds is not None and bounds[1] == 0:
            parasitemia = bounds = limit = None
            warnings.append(
                "Fewer cells are called infected than the measured false-positive rate alone gives, so the error rates "
                f"are not valid for these fields. The apparent share is {apparent:.2%}; infected cells may be missed."
            )
        warnings += [*self._partly(how, parasitemia is not None), *how.notes]
        if total < how.minimum_cells:
            warnings.append(f"Not enough cells: fewer than {how.minimum_cells:,} red cells; count more fields.")
        if self.failed:
            warnings.append(f"{len(self.failed)} fields could not be read; the first: {self.failed[0].reason}")
        return SmearReport(
            red_cells=total,
            infected=int(infected.sum()),
            apparent=apparent,
            parasitemia=parasitemia,
            interval=bounds,
            limit_of_detection=limit,
            corrected=parasitemia is not None,
            enough=total >= how.minimum_cells,
            minimum_cells=how.minimum_cells,
            per_microlitre=None if how.density is None or parasitemia is None else parasitemia * how.density,
            fields=tuple(self.counts),
            failed=tuple(self.failed),
            warnings=tuple(warnings),
            shown=tuple(self.best),
        )

    def _partly(self, how: _How, claimed: bool) -> list[str]:
        """Return warnings about some of the fields, fewer than those for which a smear is refused or gets no claim."""
        warnings = []
        unmeasured = [count.name for count in self.counts if count.cell_diameter is None]
        if how.estimated and self.area and unmeasured:
            warnings.append(
                f"{len(unmeasured)} of {len(self.counts)} fields, the first {unmeasured[0]!r}, show no red cells whose "
                "diameter can be estimated; they were not rescaled, and their counts may be wrong."
            )
        known = how.rules.likeness
        if claimed and known and (differ := sum(bool(known.differences([one])) for one in self.appearances)):
            warnings.append(
                f"{differ} of {len(self.appearances)} fields differ from those of {known.source}, on which the error "
                "rates were measured; the parasitemia includes them."
            )
        return warnings

    def _refuse(self, total: int, how: _How) -> None:
        count = len(self.counts)
        if not count:
            raise DataError(f"none of the {len(self.failed)} fields could be read; the first: {self.failed[0].reason}")
        if not total:
            raise DataError(
                f"no whole cell was found in {count} fields; expected fields like those of the detector's training"
            )
        if self.on_background > total / 2:
            raise DataError(
                f"{self.on_background / total:.0%} of {total} detected cells lie on empty background, so the counts "
                "would be wrong. Pass cell_diameter=..., in pixels, or a detector that was trained on such fields"
            )
        unmeasured = sum(entry.cell_diameter is None for entry in self.counts)
        if how.estimated and self.area and 2 * unmeasured > count:
            raise DataError(
                f"{unmeasured} of {count} fields show no red cells whose diameter can be estimated; expected fields of "
                "a thin film, in focus. If these are, pass cell_diameter=..., in pixels"
            )
        if self.area and self.covered < SPARSE * self.area:
            raise DataError(
                f"red cells cover {self.covered / self.area:.1%} of the fields; expected at least {SPARSE:.0%}. A "
                "thick film has no red cells to count; for a thin film, choose fields in which cells lie side by side"
            )


def _identify(cells: Detections) -> tuple[int, ...]:
    """Return numbers that are equal for fields with the same pixels; empty if the pixels are not known."""
    image = cells.image
    if isinstance(image, SeenImage):
        return (*cells.size, image.checksum)
    return (*cells.size, zlib.crc32(np.ascontiguousarray(image))) if isinstance(image, np.ndarray) else ()


def _unknown(how: _How, appearances: Sequence[Sequence[float]], apparent: float, total: int) -> list[str]:
    """Return the reasons why no parasitemia can be claimed, as sentences; none if errors are known for such fields."""
    rules, known = how.rules, how.rules.likeness
    share = "No cell is called infected; infected cells may be missed."
    if apparent:
        share = f"The apparent share is {apparent:.2%}; up to all of it may be false, and infected cells may be missed."
    if rules.false_positive_rate is not None and rules.sensitivity is None:
        return [
            "The sensitivity was not measured, because no annotated cell was infected; "
            f"{rules.false_positive_rate:.2%} of the uninfected cells were called infected. {share}"
        ]
    if rules.sensitivity is None or rules.false_positive_rate is None:
        return [f"Error rates were not measured: see Detector.choose_threshold. {share}"]
    if rules.sensitivity <= rules.false_positive_rate:
        return [f"The detector calls uninfected cells infected at least as often as infected ones. {share}"]
    source = known.source if known else "other fields"
    if how.second != rules.measured_with:
        method = (
            "without a classifier"
            if rules.measured_with is None
            else "with a classifier or a threshold that this call does not use,"
        )
        return [
            f"Error rates were measured {method} on {source}; they are not valid for the classification in this call. "
            f"{share}"
        ]
    if known is None or not appearances:
        why = (
            "the card does not describe the fields on which the error rates were measured; call choose_threshold to "
            "measure them again"
            if known is None
            else "with cell_diameter=None, fields are not compared with those on which the error rates were measured"
        )
        return [f"No claim: {why}. {share}"]
    if len(rules.outcomes) < 2:
        return [
            "No claim: the error rates were measured on fewer than two fields, so their uncertainty is not known. "
            f"{share}"
        ]
    if differ := known.differences(appearances):
        listed = differ[0] if len(differ) == 1 else f"{', '.join(differ[:-1])} and {differ[-1]}"
        return [f"Error rates are known from {source} only; these fields differ in {listed}. {share}"]
    if total < FEW:
        return [f"{total} red cells are too few for a claim; expected at least {FEW}. {share}"]
    if apparent > rules.sensitivity:
        return [
            f"More cells are called infected than the measured sensitivity of {rules.sensitivity:.2%} permits, even if "
            f"all cells were infected; the error rates are not valid for these fields. {share}"
        ]
    return []


def _correct(
    rules: DetectionConfig, sick: np.ndarray, red: np.ndarray, seed: int
) -> tuple[float, tuple[float, float] | None, float]:
    """Return the parasitemia, its 95 % interval (None for one field), and the limit of detection."""
    s, f = rules.sensitivity, rules.false_positive_rate
    assert s is not None
    assert f is not None
    count, total = len(red), float(red.sum())
    share = sick.sum() / total
    parasitemia = float(np.clip((share - f) / (s - f), 0, 1))
    drawn_s, drawn_f = _draw_errors(rules, seed)
    noise = max(math.sqrt(f * (1 - f) / total), (rules.false_positive_sd or 0.0) / math.sqrt(count))
    noise = math.hypot(noise, float(drawn_f.std()))
    limit = min(max(2 * noise, 1 / total) / (s - f), 1.0)
    if count < 2:
        return parasitemia, None, limit
    chunks = draw_chunks(count, DRAWS, seed, max(1, 2_000_000 // count))
    cells = np.concatenate([weights @ np.stack([sick, red], 1) for weights in chunks])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(cells[:, 1] > 0, cells[:, 0] / cells[:, 1], np.nan)
        of_cells = np.random.default_rng([seed, 2]).beta(sick.sum() + 0.5, total - sick.sum() + 0.5, DRAWS)
        if not np.nanstd(shares) >= of_cells.std():
            shares = of_cells
        drawn = np.clip((shares - drawn_f) / (drawn_s - drawn_f), 0, 1)
    # A draw in which infected cells are found no more often than false positives does not limit the parasitemia.
    unlimited = drawn_s <= drawn_f
    return parasitemia, (interval(np.where(unlimited, 0, drawn))[0], interval(np.where(unlimited, 1, drawn))[1]), limit


def _draw_errors(rules: DetectionConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return s and f, (D,) each, for each bootstrap draw of the fields on which they were measured.

    Each value is drawn from a beta distribution with half a cell added to both counts of the ratio. A count of 0 in a
    small sample then does not give a rate of exactly 0.
    """
    outcomes = np.array(rules.outcomes, np.float64)
    chunks = draw_chunks(len(outcomes), DRAWS, seed + 1, max(1, 2_000_000 // len(outcomes)))
    hit, total, false, others = np.concatenate([weights @ outcomes for weights in chunks]).T
    rng = np.random.default_rng([seed, 1])
    return rng.beta(hit + 0.5, np.maximum(total - hit, 0) + 0.5), rng.beta(
        false + 0.5, np.maximum(others - false, 0) + 0.5
    )
