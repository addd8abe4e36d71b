"""From fields to a smear: how many red cells, how many infected, and how sure that is."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from cellscan.confirming import check_classifier, confirm, name_classifier
from cellscan.data.fields import FieldDataset
from cellscan.data.inputs import Images
from cellscan.data.tables import write_csv
from cellscan.data.values import check_seed, check_whole
from cellscan.detection.rules import DetectionConfig
from cellscan.detections import Detections
from cellscan.detector import Detector
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import DRAWS, draw_chunks, interval
from cellscan.notebook import as_text
from cellscan.predictions import Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cellscan.classifier import Classifier

    Grouping: TypeAlias = str | Mapping[str, str] | Callable[[str], str] | Sequence[str]

MINIMUM = 5000
"""Cells from which a parasitemia is called counted: a rule in common use; no source was read for it."""

SPARSE = 0.05
"""Share of the fields that red cells cover, below which they are no thin film that is worth counting."""

FEW = 100
"""Red cells below which nothing is claimed of their share."""

_SHOWN = 4


@dataclass(frozen=True)
class FieldCount:
    """The cells of one field.

    Attributes
    ----------
    name : str
        File name, or what else names the field.
    red_cells : int
        All, infected ones included.
    infected : int
        Of those.
    cell_diameter : float or None
        As of `Detections`.

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
class SmearReport:
    """What the fields of one smear hold together; prints as a few lines. Research use only, not a medical device.

    Attributes
    ----------
    red_cells, infected : int
        Counted over all fields, each cell once; an infected cell is a red cell too.
    apparent : float
        infected / red_cells.
    parasitemia : float or None
        The same, corrected for what is missed and for what is called infected wrongly (Rogan and Gladen, 1978):
        (apparent - f) / (s - f), cut to [0, 1], with s and f as `Detector.choose_threshold` measured them. None where
        errors are not known for fields like these.
    interval : tuple[float, float] or None
        95 % of the parasitemia, by bootstrap over these fields and over those on which s and f were measured. None
        where the parasitemia is, and for one field alone, which says nothing about how far fields differ.
    warnings : tuple[str, ...]
        What a reader must know before the numbers, in sentences; printed first.
    limit_of_detection : float or None
        Parasitemia that stands two standard deviations above what false positives alone give in so many cells; None
        where no parasitemia is claimed.
    corrected, enough : bool
        Whether s and f are known for fields like these; whether `minimum_cells` were counted.
    per_microlitre : float or None
        Infected cells in a microlitre of blood, where its red cells were given.
    fields : tuple[FieldCount, ...]
        One a field, in the order of the input.
    failed : tuple[Failure, ...]
        Fields passed over under ``on_error="skip"``.

    Examples
    --------
    >>> import cellscan
    >>> smear = cellscan.screen(fields, det, classifier=None, cell_diameter=50)  # as of `cellscan.Detector`
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
        lines.append(f"{len(self.fields):,} fields, {self.red_cells:,} red cells, {self.infected:,} called infected")
        if not self.enough:
            lines.append(f"not enough cells: {self.red_cells:,} of {self.minimum_cells:,}; count more fields")
        if self.parasitemia is None:
            lines.append(f"parasitemia: no claim; apparent share {self.apparent:.2%}")
        else:
            over = "n/a: one field" if self.interval is None else "{:.2%} to {:.2%}".format(*self.interval)
            lines.append(f"parasitemia {self.parasitemia:.2%} (95 % over fields {over}), corrected for known errors")
            lines.append(f"as counted {self.apparent:.2%}")
        if self.limit_of_detection is not None:
            lines.append(f"limit of detection with so many cells {self.limit_of_detection:.2%}")
        if self.per_microlitre is not None:
            lines.append(f"{self.per_microlitre:,.0f} infected cells a microlitre")
        if self.failed:
            lines.append(f"{len(self.failed)} fields could not be read; the first: {self.failed[0].reason}")
        return "\n".join([*lines, "Research use only, not a medical device."])

    def _repr_html_(self) -> str:
        return as_text(str(self))

    def __repr__(self) -> str:
        return f"SmearReport(red_cells={self.red_cells}, infected={self.infected}, fields={len(self.fields)})"

    def plot(self) -> Figure:
        """Draw the fields with most infected cells, four at most; infected ones are highlighted.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.screen(fields, det, classifier=None, cell_diameter=50).plot().axes)
        4
        """
        from cellscan.plots import plot_fields

        return plot_fields(
            [(one.name, one.pixels(), one.boxes, one.labels, one.scores) for one in self.shown],
            self.shown[0].class_names,
        )

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line a field: name, red cells, infected.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smear.csv"
        >>> cellscan.screen(fields, det, classifier=None, cell_diameter=50).to_csv(file)
        >>> file.read_text().splitlines()[0]
        'field,red_cells,infected'
        """
        rows = ([one.name, one.red_cells, one.infected] for one in self.fields)
        write_csv(path, [["field", "red_cells", "infected"], *rows])


@dataclass(frozen=True, repr=False, eq=False)
class SmearTable(Sequence["SmearReport | None"]):
    """Many smears, a row each; prints as a table. Research use only, not a medical device.

    A number gives the report of a smear, in the order in which they were met; None where it was refused.

    Attributes
    ----------
    names : tuple[str, ...]
        Of the smears.
    reports : tuple[SmearReport or None, ...]
    refused : dict[str, str]
        Name of a smear -> why there is no report of it.

    Examples
    --------
    >>> import cellscan
    >>> table = cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len)  # as of `cellscan.Detector`
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

    def __repr__(self) -> str:
        return f"SmearTable({len(self)} smears, refused={len(self.refused)})"

    def __str__(self) -> str:
        told: dict[str, int] = {}
        for report in self.reports:
            for warning in () if report is None else report.warnings:
                told[warning] = told.get(warning, 0) + 1
        lines = [
            f"Warning{f' ({count} smears)' if count > 1 else ''}: {warning}" for warning, count in sorted(told.items())
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
            counts = f"{len(report.fields):>8,}{report.red_cells:>9,}{report.infected:>10,}{report.apparent:>9.2%}"
            lines.append(f"{name:{width}}{counts}  {claim}")
        return "\n".join([*lines, "Research use only, not a medical device."])

    def _repr_html_(self) -> str:
        return as_text(str(self))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line a smear; what is not claimed is empty.

        Examples
        --------
        >>> import pathlib, tempfile, cellscan
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "smears.csv"
        >>> cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len).to_csv(file)
        >>> file.read_text().splitlines()[0]
        'smear,fields,red_cells,infected,apparent,parasitemia,low,high,warnings,refused'
        """
        rows: list[list[object]] = [
            ["smear", "fields", "red_cells", "infected", "apparent", "parasitemia", "low", "high", "warnings",
             "refused"]
        ]  # fmt: skip
        for name, one in zip(self.names, self.reports, strict=True):
            if one is None:
                rows.append([name, *[""] * 8, self.refused[name]])
                continue
            low, high = ("", "") if one.interval is None else (f"{side:.6f}" for side in one.interval)
            claim = "" if one.parasitemia is None else f"{one.parasitemia:.6f}"
            counts = [len(one.fields), one.red_cells, one.infected, f"{one.apparent:.6f}"]
            rows.append([name, *counts, claim, low, high, " ".join(one.warnings), ""])
        write_csv(path, rows)

    def plot(self) -> Figure:
        """Draw the share of every smear: what is claimed with its interval, what is not as counted, hollow.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.screen(fields, det, classifier=None, cell_diameter=50, by=len).plot().axes)
        1
        """
        from cellscan.plots import plot_smears

        rows = [
            (name, one.apparent, one.parasitemia, one.interval)
            for name, one in zip(self.names, self.reports, strict=True)
            if one is not None
        ]
        if not rows:
            raise DataError("every smear was refused, so there is nothing to draw")
        return plot_smears(rows)


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
    """Count the red cells and the infected ones over the fields of a smear, and estimate its parasitemia.

    For research use only: not a medical device. Fields are read one after another, in bounded memory. A parasitemia is
    claimed only where errors were measured on fields like these: with `Detector.choose_threshold` on ten annotated
    fields of one's own, or where the fields look like those the bundled detector was measured on.

    Parameters
    ----------
    images
        As of `Detector.predict`.
    detector : Detector, optional
        With two classes, the second infected; after `Detector.choose_threshold`, so that its errors are known. Left
        out, `Detector.pretrained()`.
    classifier : Classifier, optional
        Asked of every cell that the detector calls infected; one that it does not call positive counts as a red cell.
        Left out, `Classifier.pretrained()`; None asks none.
    cell_diameter : "auto", float or None
        As of `Detector.predict`.
    by : str, callable, mapping or sequence, optional
        Of which smear a field is: ``"slide"``, ``"patient"`` or ``"laboratory"`` of a `FieldDataset` that knows them;
        what a function or a mapping gives of its name; or one entry a field. There is a `SmearTable` then.
    minimum_cells : int
        Below, the report says that cells are not enough.
    red_cells_per_microlitre : float, optional
        Of the blood, for infected cells a microlitre.
    on_error : {"raise", "skip"}
        As of `Detector.predict`.
    seed : int
        Of the bootstrap.
    progress : bool

    Returns
    -------
    SmearReport
        A `SmearTable` with `by`.

    Raises
    ------
    ArgumentError
        Where the detector has not two classes, the classifier no positive class, or a number is out of range.
    DataError
        Where no cell was found at all; where most fields show no red cells whose diameter could be estimated, as
        thick films and empty fields; where red cells cover less than a twentieth of the fields.

    Examples
    --------
    >>> import cellscan
    >>> smear = cellscan.screen(fields, det, classifier=None, cell_diameter=50)  # as of `cellscan.Detector`
    >>> smear.red_cells == sum(one.red_cells for one in smear.fields), smear.infected <= smear.red_cells
    (True, True)
    """
    detector = Detector.pretrained() if detector is None else detector
    if not isinstance(detector, Detector):
        raise ArgumentError(f"detector is {detector!r}; expected a cellscan.Detector")
    if len(detector.class_names) != 2:
        raise ArgumentError(
            f"the detector knows {', '.join(detector.class_names)}; screening needs two classes, the second infected"
        )
    second = _second(classifier)
    minimum_cells = check_whole("minimum_cells", minimum_cells, 1)
    density = red_cells_per_microlitre
    if density is not None and not (isinstance(density, Real) and 0 < density < math.inf):
        raise ArgumentError(f"red_cells_per_microlitre is {density!r}; expected a number above 0")
    check_seed(seed)
    belongs = _grouping(by, images)
    rules = detector.card.detection
    assert rules is not None
    smears: dict[str, _Smear] = {}
    stream = detector.stream(images, cell_diameter=cell_diameter, on_error=on_error, progress=progress)
    number, failed = 0, set[int]()
    for one in stream:
        if isinstance(one, Failure):  # comes as soon as it is read, before fields that still wait for their batch
            failed.add(one.index)
            smears.setdefault(belongs(one.name, one.index), _Smear()).failed.append(one)
            continue
        while number in failed:
            number += 1
        smears.setdefault(belongs(one.name, number), _Smear()).add(confirm(one, rules, second))
        number += 1
    if by is None and not smears:
        raise DataError("there are no fields; expected at least one")
    how = _How(rules, None if second is None else name_classifier(second), minimum_cells, density, seed,
               estimated=cell_diameter == "auto")  # fmt: skip
    if by is None:
        return smears[""].report(how)
    reports: list[SmearReport | None] = []
    refused: dict[str, str] = {}
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
            raise ArgumentError(f"classifier is {classifier!r}; expected a cellscan.Classifier, None, or nothing")
        from cellscan.classifier import Classifier

        return Classifier.pretrained()
    return check_classifier(classifier)


def _grouping(by: Grouping | None, images: Any) -> Callable[[str, int], str]:
    """Return what gives the smear of a field by its name and its number."""
    if by is None:
        return lambda name, number: ""
    if callable(by):
        return lambda name, number: str(by(name))
    if isinstance(by, Mapping):

        def look(name: str, number: int) -> str:
            if name not in by:
                raise DataError(f"by has no entry for the field {name!r}; expected one for each")
            return str(by[name])

        return look
    groups: Any = by
    if isinstance(by, str):
        if not isinstance(images, FieldDataset):
            raise ArgumentError(
                f"by is {by!r}, which a FieldDataset can tell alone; pass a function or a mapping of names, "
                "or a list with the smear of every field"
            )
        groups = images.groups(by)
    listed = [str(one) for one in groups]
    if hasattr(images, "__len__") and not isinstance(images, (str, bytes)) and len(images) != len(listed):
        raise ArgumentError(f"by has {len(listed)} entries and there are {len(images)} fields; expected one for each")

    def at(name: str, number: int) -> str:
        if number >= len(listed):
            raise ArgumentError(f"by has {len(listed)} entries and there are more fields; expected one for each")
        return listed[number]

    return at


@dataclass(frozen=True)
class _How:
    """What all smears of a call are reported by."""

    rules: DetectionConfig
    second: str | None
    minimum_cells: int
    density: float | None
    seed: int
    estimated: bool


@dataclass
class _Smear:
    """The fields of one smear so far."""

    counts: list[FieldCount] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    best: list[Detections] = field(default_factory=list)
    appearances: list[tuple[float, ...]] = field(default_factory=list)
    covered: float = 0.0
    area: float = 0.0

    def add(self, cells: Detections) -> None:
        """Count a field of which each cell stands once."""
        infected = int((cells.labels == 1).sum())
        self.counts.append(FieldCount(cells.name, len(cells), infected, cells.cell_diameter))
        self.best = sorted([*self.best, cells], key=lambda one: -int((one.labels == 1).sum()))[:_SHOWN]
        if cells.appearance:
            self.appearances.append(cells.appearance)
        if cells.lit_area:
            sides = cells.boxes[:, 2:] - cells.boxes[:, :2]
            self.covered += float(sides.prod(1).sum()) * math.pi / 4
            self.area += cells.lit_area

    def report(self, how: _How) -> SmearReport:
        """Return the report, or refuse with the reason."""
        total = sum(one.red_cells for one in self.counts)
        self._refuse(total, how)
        red = np.array([one.red_cells for one in self.counts], np.float64)
        sick = np.array([one.infected for one in self.counts], np.float64)
        apparent = float(sick.sum() / total)
        warnings = _unknown(how, self.appearances, apparent, total)
        parasitemia = between = limit = None
        if not warnings:
            parasitemia, between, limit = _correct(how.rules, sick, red, how.seed)
        if self.failed:
            warnings.append(f"{len(self.failed)} fields could not be read; the first: {self.failed[0].reason}")
        return SmearReport(
            red_cells=total,
            infected=int(sick.sum()),
            apparent=apparent,
            parasitemia=parasitemia,
            interval=between,
            limit_of_detection=limit,
            corrected=parasitemia is not None,
            enough=total >= how.minimum_cells,
            minimum_cells=how.minimum_cells,
            per_microlitre=None if how.density is None or parasitemia is None else parasitemia * float(how.density),
            fields=tuple(self.counts),
            failed=tuple(self.failed),
            warnings=tuple(warnings),
            shown=tuple(self.best),
        )

    def _refuse(self, total: int, how: _How) -> None:
        count = len(self.counts)
        if not count:
            raise DataError(f"not one of {len(self.failed)} fields could be read; the first: {self.failed[0].reason}")
        if not total:
            raise DataError(f"no cell was found in {count} fields; is this the detector for them?")
        blind = sum(one.cell_diameter is None for one in self.counts)
        if how.estimated and self.area and 2 * blind > count:
            raise DataError(
                f"in {blind} of {count} fields no red cells are to be seen that a diameter could be estimated of: are "
                "these fields of a thin film, in focus? If they are, give cell_diameter, in pixels"
            )
        if self.area and self.covered < SPARSE * self.area:
            raise DataError(
                f"red cells cover {self.covered / self.area:.1%} of the fields; expected at least {SPARSE:.0%}. A "
                "thick film has none to count; of a thin film take fields where cells lie side by side"
            )


def _unknown(how: _How, appearances: Sequence[Sequence[float]], apparent: float, total: int) -> list[str]:
    """Return why nothing can be claimed, in sentences; nothing where errors are known for fields like these."""
    rules, known = how.rules, how.rules.likeness
    share = f"The apparent share is {apparent:.2%}; up to all of it may be false, and infected cells may be missed."
    if rules.sensitivity is None or rules.false_positive_rate is None:
        return [f"Error rates were not measured: see Detector.choose_threshold. {share}"]
    if rules.sensitivity <= rules.false_positive_rate:
        return [f"The detector calls healthy cells infected as often as infected ones. {share}"]
    source = known.source if known else "other fields"
    if how.second != rules.judged_with:
        who = (
            "without a classifier"
            if rules.judged_with is None
            else "together with another classifier, or another threshold of it,"
        )
        return [f"Error rates were measured {who} on {source}, not as cells are classified here. {share}"]
    if known is None or not appearances:
        why = (
            "the card does not say what the fields looked like on which error rates were measured; choose_threshold "
            "measures them anew"
            if known is None
            else "with cell_diameter=None fields are not compared with those on which error rates are known"
        )
        return [f"No claim: {why}. {share}"]
    if differ := known.differences(appearances):
        listed = differ[0] if len(differ) == 1 else f"{', '.join(differ[:-1])} and {differ[-1]}"
        return [f"Error rates are known from {source} only; these fields differ in {listed}. {share}"]
    if total < FEW:
        return [f"{total} red cells are too few to claim anything of; expected at least {FEW}. {share}"]
    return []


def _correct(
    rules: DetectionConfig, sick: np.ndarray, red: np.ndarray, seed: int
) -> tuple[float, tuple[float, float] | None, float]:
    """Return parasitemia, 95 % of it, and limit of detection."""
    s, f = rules.sensitivity, rules.false_positive_rate
    assert s is not None
    assert f is not None
    count, total = len(red), float(red.sum())
    parasitemia = float(np.clip((sick.sum() / total - f) / (s - f), 0, 1))
    noise = max(math.sqrt(f * (1 - f) / total), (rules.false_positive_sd or 0.0) / math.sqrt(count))
    limit = 2 * noise / (s - f)
    if count < 2:
        return parasitemia, None, limit
    chunks = draw_chunks(count, DRAWS, seed, max(1, 2_000_000 // count))
    cells = np.concatenate([weights @ np.stack([sick, red], 1) for weights in chunks])
    drawn_s, drawn_f = _draw_errors(rules, s, f, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (cells[:, 0] / cells[:, 1] - drawn_f) / (drawn_s - drawn_f)
    drawn[(cells[:, 1] == 0) | (drawn_s <= drawn_f)] = np.nan
    low, high = interval(np.clip(drawn, 0, 1))
    return parasitemia, (low, high), limit


def _draw_errors(
    rules: DetectionConfig, s: float, f: float, seed: int
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return s and f of as many draws of the fields that they were measured on; as they are where those are not known.

    Half a cell is added to either side of each ratio, so that none found wrong among few is not none for sure.
    """
    if len(rules.outcomes) < 2:
        return s, f
    known = np.array(rules.outcomes, np.float64)
    chunks = draw_chunks(len(known), DRAWS, seed + 1, max(1, 2_000_000 // len(known)))
    hit, total, wrong, others = np.concatenate([weights @ known for weights in chunks]).T
    rng = np.random.default_rng([seed, 1])
    return rng.beta(hit + 0.5, np.maximum(total - hit, 0) + 0.5), rng.beta(
        wrong + 0.5, np.maximum(others - wrong, 0) + 0.5
    )
