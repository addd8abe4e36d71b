"""Cross-validation by patient: each fold is evaluated by classifiers trained without its patients."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cellscan.classifier import Classifier, are_small, fit_vectorized, make_members
from cellscan.data.cells import CellDataset, leave_out
from cellscan.data.tables import Column, Table, csv_rows, make_frame, write_csv
from cellscan.data.values import as_list, as_path, check_flag, check_seed, check_whole, choose
from cellscan.decisions.conformal import Coverage, simulate
from cellscan.decisions.decision import Decision, decide
from cellscan.errors import ArgumentError, DataError, ModelFileError
from cellscan.evaluate.bootstrap import interval
from cellscan.evaluate.calibration import apply_temperature, fit_temperature
from cellscan.evaluate.confident import LabelIssues, find_contradicted
from cellscan.evaluate.formatting import interval_text, metric_text
from cellscan.evaluate.metrics import AVERAGED, NAMES
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.patients import Patients, make_patient_parts, make_patients
from cellscan.evaluate.report import Report, make_metric_parts, make_report
from cellscan.evaluate.thresholds import choose_rule
from cellscan.notebook import TextInNotebook
from cellscan.progress import Progress
from cellscan.tasks.recipe import Recipe, as_recipe
from cellscan.tensors import check_digest, read_tensors, write_tensors
from cellscan.training.loop import Call

if TYPE_CHECKING:
    from flax import nnx
    from matplotlib.figure import Figure
    from pandas import DataFrame

_SHOWN = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "roc_auc", "calibration_error")
_PLOTTED = ("accuracy", "balanced_accuracy", "roc_auc", "calibration_error")


def cross_validate(
    model: str | nnx.Module,
    cells: CellDataset,
    *,
    folds: int | str | os.PathLike[str] = 5,
    seeds: int | Sequence[int] = 1,
    epochs: int = 10,
    batch_size: int = 64,
    recipe: Recipe | None = None,
    weights: str | os.PathLike[str] | None = None,
    image_size: int = 64,
    background: str = "fill",
    positive_class: str | None = None,
    tta: bool = False,
    vectorized: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Study:
    """Train a classifier for every fold and seed, without the patients of the fold, and evaluate it on those patients.

    Parameters
    ----------
    model, weights, image_size, background, positive_class
        As in `cellscan.Classifier`.
    cells : CellDataset
        Cells whose patients are known.
    folds : int or path
        Number of folds, made by patient and stratified by class and number of cells; or a file of ``patient,fold``
        lines, as `CellDataset.write_folds` writes it.
    seeds : int or sequence of int
        Number of seeds (0, 1, ...), or the seeds themselves.
    epochs, batch_size, recipe
        As in `Classifier.fit`. The recipe must not set `patience`, because a study has no validation set.
    tta : bool
        Test-time augmentation: average the predictions over the eight symmetries of the square.
    vectorized : bool, optional
        Train all members at once, as one program over stacked weights. By default this is done on a single
        accelerator if the network has at most five million parameters. It is not faster on a CPU.
    checkpoint : path, optional
        Folder for the checkpoints of this study alone. It contains one subfolder per member.
    resume : bool
        Continue an interrupted study with the member, and the epoch, at which it stopped.
    progress : bool
        As in `Classifier.fit`.

    Returns
    -------
    Study
        The report of every fold and seed, the pooled report, the classifiers, and the out-of-fold probabilities of
        every cell. ``print(study)`` shows the metrics by fold, their mean, and the pooled metrics with 95 % intervals
        over patients.

    Raises
    ------
    ArgumentError
        If an argument is invalid, or if the checkpoint folder contains a study and `resume` is False.
    DataError
        If patients are unknown, if there are fewer patients than folds, if a patient is missing from the fold file,
        or if a class is missing from the training or test cells of a fold.
    ImageError, ModelFileError, TrainingError
        As in `Classifier.fit`.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(200, seed=0, difficulty="easy")
    >>> study = cellscan.cross_validate("small_cnn", cells, folds=2, image_size=16, epochs=2, progress=False)
    >>> len(study.reports), len(study.report.labels)
    (2, 200)
    """
    if not isinstance(cells, CellDataset):
        raise ArgumentError(
            f"cells is a {type(cells).__name__}; expected a CellDataset, such as load_malaria() returns it"
        )
    tta = check_flag("tta", tta)
    if vectorized is not None:
        vectorized = check_flag("vectorized", vectorized)
    if isinstance(seeds, (int, np.integer)):
        chosen = list(range(check_whole("seeds", seeds, 1)))
    else:
        chosen = [check_seed(seed) for seed in as_list("seeds", seeds)]
    if not chosen or len(set(chosen)) < len(chosen):
        raise ArgumentError(f"seeds is {seeds!r}; expected a whole number of at least 1, or distinct whole numbers")
    recipe = as_recipe(recipe)
    if recipe.patience is not None:
        raise ArgumentError(
            "the recipe sets patience, which needs a validation set, and a study has none; expected patience=None"
        )
    fold = cells.fold_numbers(folds)
    numbers = np.unique(fold)
    parts = list(cells.folds(folds))
    for train, test in parts:
        for part in (train, test):
            absent = set(range(len(cells.class_names))) - set(part.labels.tolist())
            if absent:
                name = cells.class_names[absent.pop()]
                raise DataError(
                    f"{part.split_info}: no cell is {name!r}; expected every class: use fewer folds, or another file"
                )
    root = None if checkpoint is None else as_path("checkpoint", checkpoint)
    if root is not None and not resume and any(root.glob("fold*")):
        raise ArgumentError(f"{root} contains a study; pass resume=True to continue it, or another folder")
    if resume and root is None:
        raise ArgumentError("resume=True needs the folder of the study to continue; pass checkpoint=...")
    options = {"model": model, "weights": weights, "image_size": image_size, "background": background,
               "positive_class": positive_class, "folds": folds, "seeds": seeds, "epochs": epochs,
               "batch_size": batch_size, "recipe": recipe, "tta": tta, "vectorized": vectorized,
               "checkpoint": checkpoint, "resume": resume, "progress": progress}  # fmt: skip
    keys = [(number, seed) for number in range(len(parts)) for seed in chosen]
    members = make_members(model, [seed for _, seed in keys], weights=weights, image_size=image_size,
                           background=background, class_names=cells.class_names,
                           positive_class=positive_class)  # fmt: skip
    if vectorized is None:
        vectorized = are_small(members)
    if vectorized:
        training_rows = [np.flatnonzero(fold != numbers[number]) for number, _ in keys]
        folder = None if root is None else root / "fold-all"
        call = Call(epochs, batch_size, folder, resume, progress)
        fit_vectorized(members, cells, training_rows, call=call, recipe=recipe)
    probabilities = np.zeros((len(chosen), len(cells), len(cells.class_names)), np.float32)
    for clf, (number, seed) in zip(members, keys, strict=True):
        train, test = parts[number]
        folder = None if root is None else root / f"fold{number}-seed{seed}"
        if not vectorized:
            with Progress("folds", len(keys), show=progress) as bar:
                bar.line(f"fold {number + 1} of {len(parts)}, seed {seed}")
            clf.fit(train, epochs=epochs, batch_size=batch_size, recipe=recipe, checkpoint=folder, resume=resume,
                    progress=progress)  # fmt: skip
        probabilities[chosen.index(seed), fold == numbers[number]] = _predict(clf, test, tta, folder, progress)
    info = parts[0][1].split_info
    split = f"out of fold, {len(parts)} folds by patient, hash {info.hash if info else 'unknown'}"
    return Study(cells, fold, tuple(chosen), tuple(members), probabilities, split, options)


def _predict(clf: Classifier, test: CellDataset, tta: bool, folder: Path | None, progress: bool) -> np.ndarray:
    """Predict the cells of a fold, or read the stored predictions of the same weights on the same cells."""
    plan = {"weights": clf.fingerprint, "cells": test.fingerprint(), "tta": tta}
    path = None if folder is None else folder / "predictions.safetensors"
    if path is not None and path.exists():
        try:
            metadata, tensors = read_tensors(path)
            check_digest(path, metadata, tensors)
            if json.loads(metadata["cellscan.predictions"]) == plan:
                return tensors["probabilities"]
        except (ModelFileError, KeyError, ValueError):
            pass  # The file is damaged or belongs to other weights or cells, so predict again.
    probabilities = clf.predict_proba(test, tta=tta, progress=progress)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {"probabilities": probabilities}, {"cellscan.predictions": json.dumps(plan)})
    return probabilities


def _spread(reports: Sequence[Report], name: str) -> tuple[float, float]:
    """Compute mean and standard deviation of a metric; the latter is NaN for a single report."""
    values = np.array([getattr(report, name) for report in reports])
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _mean_text(reports: Sequence[Report], name: str) -> str:
    mean, spread = _spread(reports, name)
    return metric_text(mean) + ("" if math.isnan(spread) else f" ± {spread:.4f}")


@dataclass(frozen=True)
class ExternalValidation(TextInNotebook):
    """Metrics of the members of a study on cells of another laboratory; prints as a table.

    Attributes
    ----------
    reports : tuple[Report, ...]
        One report per member.
    mean, interval : dict
        Mean of every metric over the members, and its 95 % interval by bootstrap over the patients, or fields, of
        the external set.

    Examples
    --------
    >>> import cellscan
    >>> external = study.external_validation(cellscan.synthetic_cells(60, seed=9))
    >>> low, high = external.interval["roc_auc"]
    >>> len(external.reports), low <= external.mean["roc_auc"] <= high
    (2, True)
    """

    reports: tuple[Report, ...]
    mean: dict[str, float]
    interval: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        first = self.reports[0]
        patients = first.patient_overlap.patients
        lines = [f"{len(self.reports)} members on {len(first.labels):,} cells, {patients} patients or fields"]
        lines.append(f"{'':20}{'mean ± SD of members':24}95 % interval of the mean, over {first.interval_over}")
        for name in ("roc_auc", "sensitivity", "specificity", "average_precision", "calibration_error"):
            text = f"{name.replace('_', ' '):20}{_mean_text(self.reports, name):24}"
            lines.append(text + interval_text(self.interval[name]))
        return "\n".join(lines)


class Study(TextInNotebook):
    """Result of a cross-validation by patient, with out-of-fold predictions of every cell; prints as a table.

    `cellscan.cross_validate` returns it. The examples below continue the example of that function.

    Attributes
    ----------
    cells : CellDataset
        All cells.
    fold : numpy.ndarray
        (N,) int64, the fold of each cell.
    seeds : tuple[int, ...]
        Seeds of the members.
    keys : tuple[tuple[int, int], ...]
        Fold and seed of each member.
    members : tuple[Classifier, ...]
        One classifier per fold and seed.
    probabilities : numpy.ndarray
        (S, N, K) float32, the out-of-fold probabilities of every seed and cell.
    split : str
        How the cells were divided into folds.
    reports : tuple[Report, ...]
        One report per member, on its fold.
    report : Report
        Pooled report of all cells; the probabilities are means over seeds.

    Examples
    --------
    >>> study.keys, study.probabilities.shape
    (((0, 0), (1, 0)), (1, 200, 2))
    """

    def __init__(
        self,
        cells: CellDataset,
        fold: np.ndarray,
        seeds: tuple[int, ...],
        members: tuple[Classifier, ...],
        probabilities: np.ndarray,
        split: str,
        options: dict[str, Any],
    ) -> None:
        numbers = np.unique(fold).tolist()
        self.cells: CellDataset = cells
        self.fold: np.ndarray = fold
        self.seeds: tuple[int, ...] = seeds
        self.members: tuple[Classifier, ...] = members
        self.probabilities: np.ndarray = probabilities
        self.keys: tuple[tuple[int, int], ...] = tuple((k, seed) for k in range(len(numbers)) for seed in seeds)
        self._options = options
        self.split: str = split
        self.reports: tuple[Report, ...] = tuple(
            self._report(fold == numbers[number], seeds.index(seed), f"fold {number}, seed {seed}; {self.split}")
            for number, seed in self.keys
        )
        self.report: Report = self._report(np.ones(len(cells), bool), None, self.split)

    def _report(self, rows: np.ndarray, seed: int | None, split: str) -> Report:
        probabilities = (self.probabilities.mean(0) if seed is None else self.probabilities[seed])[rows]
        card, patients = self.members[0].card, self.cells.patients[rows]
        threshold = Decision().threshold
        return make_report(
            self.cells.labels[rows],
            decide(probabilities, card.positive, threshold),
            probabilities,
            names=self.cells.names[rows],
            patients=patients,
            class_names=self.cells.class_names,
            positive=card.positive,
            threshold=threshold if len(self.cells.class_names) == 2 and card.positive is not None else None,
            split=split,
            patient_overlap=PatientOverlap(len(set(patients.tolist())), 0, 0),
            background=card.background,
        )

    def __repr__(self) -> str:
        return f"Study(folds={len(self.keys) // len(self.seeds)}, seeds={len(self.seeds)}, {self.report!r})"

    def _describe(self) -> list[str]:
        """Return sentences on the network, the folds and the versions."""
        card = self.members[0].card
        return [
            f'{card.architecture}, {card.image_size} px, background "{card.background}", {card.epochs} epochs'
            f"{', test-time augmentation' if self._options['tta'] else ''}; {self.split}; seeds {self.seeds}",
            ", ".join(f"{name} {version}" for name, version in card.versions.items())
            + f"; {jax.devices()[0].device_kind}, {platform.machine()}, {os.cpu_count()} cores",
        ]

    def __str__(self) -> str:
        lines = [
            *self._describe(),
            "",
            f"{'fold':>4} {'seed':>4} {'patients':>8} {'cells':>7}  " + "".join(f"{_short(n):>14}" for n in _SHOWN),
        ]
        for (number, seed), report in zip(self.keys, self.reports, strict=True):
            lines.append(
                f"{number:>4} {seed:>4} {report.patient_overlap.patients:>8} {len(report.labels):>7,}  "
                + "".join(f"{metric_text(getattr(report, name)):>14}" for name in _SHOWN)
            )
        lines.append(f"\n{'':20}{'mean ± SD':20}{'pooled':10}95 % interval over patients")
        for name in NAMES:
            text = f"{name.replace('_', ' '):20}{_mean_text(self.reports, name):20}"
            lines.append(
                text + f"{metric_text(getattr(self.report, name)):10}{interval_text(self.report.interval[name])}"
            )
        lines.append("\naveraged over the patients that have the class in question")
        for name, value in self.report.averaged.items():
            text = f"{name.replace('_', ' '):40}{metric_text(value):10}"
            lines.append(text + interval_text(self.report.averaged_interval[name]))
        lines.append("\nResearch use only, not a medical device.")
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Plot the metrics of every member, their mean, and the pooled metric with its interval.

        Examples
        --------
        >>> len(study.plot().axes)
        4
        """
        from cellscan.plots import plot_study

        return plot_study(
            [number for number, _ in self.keys],
            {name: [getattr(report, name) for report in self.reports] for name in _PLOTTED},
            pooled={name: getattr(self.report, name) for name in _PLOTTED},
            intervals=self.report.interval,
        )

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line per member, then lines with mean, standard deviation, pooled metric and its interval.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "study.csv"
        >>> study.to_csv(file)
        >>> [line.split(",")[0] for line in file.read_text().splitlines()]
        ['fold', '0', '1', 'mean', 'sd', 'pooled', 'pooled_low', 'pooled_high']
        """
        rows = csv_rows(self._table())
        spreads = [_spread(self.reports, name) for name in NAMES]
        rows.append(["mean", "", "", "", *(mean for mean, _ in spreads)])
        rows.append(["sd", "", "", "", *(spread for _, spread in spreads)])
        rows.append(["pooled", "", *_row(self.report)])
        for end, name in enumerate(("pooled_low", "pooled_high")):
            ends = [self.report.interval[metric][end] for metric in NAMES]
            ends += [self.report.averaged_interval[f][end] for f in AVERAGED if f in self.report.averaged_interval]
            rows.append([name, "", "", "", *ends])
        write_csv(path, rows)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the study as one HTML file that needs no other file and no network.

        The page has the metrics of every fold, their mean, the pooled metrics with their intervals, the figure of
        `plot`, and the patients. `LabelIssues.to_html` writes the cells whose label the networks contradict.

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
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "study.html"
        >>> study.to_html(file)
        >>> "Metrics by fold" in file.read_text()
        True
        """
        from cellscan.pages.page import write_page
        from cellscan.pages.parts import make_figure, make_table

        header = ["fold", "seed", "patients", "cells", *map(_short, _SHOWN)]
        folds = [
            [number, seed, report.patient_overlap.patients, len(report.labels),
             *((getattr(report, name), metric_text(getattr(report, name))) for name in _SHOWN)]
            for (number, seed), report in zip(self.keys, self.reports, strict=True)
        ]  # fmt: skip
        means = [
            (name.replace("_", " "), (_spread(self.reports, name)[0], _mean_text(self.reports, name))) for name in NAMES
        ]
        alt = f"{', '.join(name.replace('_', ' ') for name in _PLOTTED)} of each member by fold, mean and pooled value"
        sections = [
            ("Folds", [
                make_table("Metrics by fold", header, folds),
                make_table("Metrics over folds", ["metric", "mean ± SD"], means),
                make_figure(self.plot, alt, "Metrics by fold, with the pooled metric and its interval over patients"),
            ]),
            ("All cells, out of fold", make_metric_parts(self.report)),
        ]  # fmt: skip
        if len(self.cells.class_names) == 2 and self.report.positive_class is not None:
            sections.append(("Patients", make_patient_parts(self.report.patients)))
        write_page(path, "Cross-validation by patient", self._describe(), sections)

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per member and the columns of `to_csv`.

        The frame does not have the last lines of the file, which are not members. The pooled metrics and their
        intervals are in ``study.report.to_dataframe()``. Counts are int64 and metrics float64; undefined metrics are
        NaN.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> frame = study.to_dataframe()
        >>> frame["fold"].tolist(), int(frame["cells"].sum())
        ([0, 1], 200)
        """
        return make_frame(self._table())

    def _table(self) -> Table:
        table = {
            "fold": Column([number for number, _ in self.keys], "whole"),
            "seed": Column([seed for _, seed in self.keys], "whole"),
            "patients": Column([report.patient_overlap.patients for report in self.reports], "whole"),
            "cells": Column([len(report.labels) for report in self.reports], "whole"),
        }
        for name in NAMES:
            table[name] = Column([getattr(report, name) for report in self.reports], "number")
        for name in AVERAGED:
            table[f"{name}_by_patient"] = Column([report.averaged.get(name) for report in self.reports], "number")
        return table

    def select(self, mask_or_indices: slice | np.ndarray | Sequence[int] | Sequence[bool]) -> Study:
        """Return the study evaluated on the selected cells alone, such as the undisputed cells.

        Parameters
        ----------
        mask_or_indices : (N,) bool array, index array, or slice
            The cells to select; their order does not change.

        Raises
        ------
        DataError
            If a fold has no selected cell.

        Examples
        --------
        >>> len(study.select(cells.labels == 0).report.labels)
        100
        """
        rows, mask = choose(mask_or_indices, len(self.fold)), np.zeros(self.fold.shape, bool)
        mask[rows] = True
        if set(self.fold[mask]) != set(self.fold):
            raise DataError("a fold loses all its cells; expected cells of every fold")
        split = f"{self.split}; {int(mask.sum()):,} of its cells"
        cells, probabilities = self.cells.select(mask), self.probabilities[:, mask]
        return Study(cells, self.fold[mask], self.seeds, self.members, probabilities, split, self._options)

    def without(self, names: Sequence[str] | np.ndarray) -> Study:
        """Return the study without the cells that have these names.

        Examples
        --------
        >>> len(study.without(cells.names[:5]).report.labels)
        195
        """
        return self.select(leave_out(self.cells.names, names))

    def calibrated(self) -> Study:
        """Return the study with calibrated probabilities. The temperature of each fold is fitted on the other folds.

        Examples
        --------
        >>> scaled = study.calibrated()
        >>> bool((scaled.report.predicted == study.report.predicted).all())
        True
        """
        scaled = self.probabilities.copy()
        for number in np.unique(self.fold):
            inside = self.fold == number
            for seed, probabilities in enumerate(self.probabilities):
                temperature = fit_temperature([probabilities[~inside]], self.cells.labels[~inside])
                scaled[seed, inside] = apply_temperature(probabilities[inside], temperature)
        return Study(self.cells, self.fold, self.seeds, self.members, scaled, self.split, self._options)

    def patients(self, *, sensitivity: float | None = None, specificity: float | None = None) -> Patients:
        """Classify the patients of each fold by a rule that is chosen on the patients of the other folds.

        All predictions are out of fold.

        Parameters
        ----------
        sensitivity, specificity : float, optional
            As in `Classifier.choose_patient_rule`; give exactly one of them.

        Raises
        ------
        ArgumentError
            If there are not two classes, if no class is positive, or if not exactly one of the two is given.

        Examples
        --------
        >>> len(study.patients(sensitivity=0.9))
        5
        """
        positive = self.members[0].card.positive
        if len(self.cells.class_names) != 2 or positive is None:
            raise ArgumentError(
                f"the study has the classes {self.cells.class_names}; a patient rule needs two classes, one of them "
                "positive: pass cross_validate(..., positive_class=...)"
            )
        called, truth = self.report.predicted == positive, self.cells.labels == positive
        rule = np.zeros(len(self.cells))
        for number in np.unique(self.fold):
            other = self.fold != number
            rule[~other] = choose_rule(
                truth[other], called[other], self.cells.patients[other], sensitivity, specificity
            )
        return make_patients(self.cells.labels, self.report.predicted, self.cells.patients, positive, rule)

    def coverage(self, *, alpha: float = 0.1, splits: int = 200, seed: int = 0) -> Coverage:
        """Estimate the coverage of conformal sets: calibrate on half of the patients, evaluate on the others, repeat.

        Parameters
        ----------
        alpha : float
            As in `Classifier.conformalize`.
        splits, seed : int
            Number of random splits into halves, and their seed.

        Returns
        -------
        Coverage
            The share of cells whose label set contains the true label, and the shares of sets with several labels and
            with none.

        Examples
        --------
        >>> study.coverage(alpha=0.5, splits=20).alpha
        0.5
        """
        probabilities = self.probabilities.mean(0)
        return simulate(probabilities, self.cells.labels, self.cells.patients, alpha, splits=splits, seed=seed)

    def label_issues(self) -> LabelIssues:
        """Return the cells whose label is contradicted by out-of-fold predictions, worst first.

        Examples
        --------
        >>> study.label_issues().rows.dtype
        dtype('int64')
        """
        probabilities, labels = self.probabilities.mean(0), self.cells.labels
        rows = find_contradicted(labels, probabilities)
        return LabelIssues(rows, probabilities[np.arange(len(labels)), labels], probabilities, self.cells)

    def ensemble(self) -> Classifier:
        """Return one classifier that averages all members. Together, they were trained on all patients of the study.

        Examples
        --------
        >>> study.ensemble().card.n_members
        2
        """
        return Classifier.ensemble(self.members)

    def silhouette(self) -> Study:
        """Repeat the study on silhouettes alone: a baseline that measures how well the outline predicts the label.

        Returns
        -------
        Study
            A study with ``background="silhouette"``. Its checkpoints are in the subfolder ``silhouette`` of this
            study's checkpoint folder.

        Examples
        --------
        >>> study.silhouette().report.background
        'silhouette'
        """
        root = self._options["checkpoint"]
        changes = {"background": "silhouette", "checkpoint": None if root is None else Path(root) / "silhouette"}
        recipe = replace(self._options["recipe"], background=None)
        return cross_validate(cells=self.cells, **{**self._options, **changes, "recipe": recipe})

    def external_validation(
        self, crops: CellDataset, *, tta: bool | None = None, progress: bool = True
    ) -> ExternalValidation:
        """Evaluate every member, at its own threshold, on cells of another laboratory.

        Parameters
        ----------
        crops : CellDataset
            Cells with the same class names. Intervals are over its patients; if only the field of each crop is known,
            give the field as the patient.
        tta, progress
            As in `Classifier.predict`.

        Returns
        -------
        ExternalValidation
            One report per member, and the mean of every metric with its interval.

        Raises
        ------
        ArgumentError
            If `crops` is not a `CellDataset`.
        DataError
            If the classes do not match.

        Examples
        --------
        >>> round(study.external_validation(cells).reports[0].prevalence, 1)
        0.5
        """
        reports = tuple(clf.evaluate(crops, tta=tta, progress=progress) for clf in self.members)
        drawn = [report.bootstrap() for report in reports]
        return ExternalValidation(
            reports,
            {name: float(np.mean([getattr(report, name) for report in reports])) for name in NAMES},
            {name: interval(np.mean([draw[name] for draw in drawn], axis=0)) for name in NAMES},
        )


def _short(name: str) -> str:
    return {"balanced_accuracy": "balanced", "calibration_error": "calib. error"}.get(name, name.replace("_", " "))


def _row(report: Report) -> list[float]:
    averaged = [report.averaged[name] for name in AVERAGED if name in report.averaged]
    return [report.patient_overlap.patients, len(report.labels), *(getattr(report, name) for name in NAMES), *averaged]
