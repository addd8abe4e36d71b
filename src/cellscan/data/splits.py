"""Dividing cells without tearing a patient apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellscan.data.values import as_patient, check_number, read_table
from cellscan.errors import ArgumentError, DataError

_TRIES = 48


@dataclass(frozen=True)
class Split:
    """How a part of a data set came about; a report repeats it.

    Attributes
    ----------
    by : str
        ``"patient"``: no patient is in two parts. ``"cell"``: patients are on both sides.
    part : str
        Which part this is, in words.
    hash : str
        The first 12 hexadecimal digits of a SHA-256 over which cell went where.

    Examples
    --------
    >>> import cellscan
    >>> train, test = cellscan.synthetic_cells(200, seed=0).split(test=0.2, seed=0)
    >>> test.split_info.part
    'part 2 of 2 (fractions 0.80, 0.20; seed 0)'
    """

    by: str
    part: str
    hash: str

    def __str__(self) -> str:
        leak = "; PATIENTS ARE ON BOTH SIDES: the metrics are optimistically biased" if self.by == "cell" else ""
        return f"by {self.by}, {self.part}, hash {self.hash}{leak}"


def part_fractions(positional: Sequence[Any], test: Any, validation: Any) -> tuple[float, ...]:
    """Return the fraction of each part of a split: training, validation where it is asked for, test.

    Parameters
    ----------
    positional : sequence
        What a call gave without a keyword; there must be nothing.
    test, validation : float
        Each in (0, 1); `validation` may be None.

    Raises
    ------
    ArgumentError
        Where arguments are positional, are no fractions, or leave nothing to train on.

    Examples
    --------
    >>> from cellscan.data.splits import part_fractions
    >>> part_fractions((), 0.25, None), part_fractions((), 0.25, 0.25)
    ((0.75, 0.25), (0.5, 0.25, 0.25))
    """
    if positional:
        raise ArgumentError(
            f"split got {', '.join(f'{one!r:.40}' for one in positional)} without a keyword; "
            "split takes keywords: split(test=0.2, validation=0.1)"
        )
    fractions = (check_number("test", test, 0, 1),)
    if validation is not None:
        fractions = (check_number("validation", validation, 0, 1), *fractions)
    if sum(fractions) >= 1:
        raise ArgumentError(
            f"validation is {validation} and test is {test}, which leaves nothing to train on; expected a sum below 1"
        )
    return (1 - sum(fractions), *fractions)


def assign(labels: np.ndarray, groups: np.ndarray, fractions: Sequence[float], classes: int, seed: int) -> np.ndarray:
    """Return the part (N,) of every cell such that no group is divided.

    Every part gets close to its fraction of the cells of each class and of the groups. Groups are
    dealt one after another, large ones early, each to the part that then lacks least; the best of
    several random orders is kept.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    parts = len(fractions)
    if count < parts:
        raise DataError(
            f"{count} patients cannot fill {parts} parts; expected at least one patient a part. "
            "Ask for fewer parts, or bring more patients"
        )
    size = np.zeros((count, classes + 1))
    np.add.at(size, (group, labels), 1.0)
    size[:, classes] = 1.0
    share = size / np.maximum(size.sum(0), 1.0)
    cells = size[:, :classes].sum(1)
    want = np.asarray(fractions)[:, None]
    rng = np.random.default_rng(seed)
    best, best_score = None, np.inf
    for _ in range(_TRIES):
        order = np.argsort(-cells * rng.uniform(0.5, 1.5, count), kind="stable")
        have = np.zeros((parts, classes + 1))
        part = np.empty(count, np.int64)
        for g in order:
            # adding the share s to a part changes its squared distance to the wish by s * (2 (have - want) + s)
            cost = (share[g] * (2 * (have - want) + share[g]) / want).sum(1)
            part[g] = int(cost.argmin())
            have[part[g]] += share[g]
        score = float(np.abs(have - want).max()) + (np.bincount(part, minlength=parts) == 0).sum()
        if score < best_score:
            best, best_score = part, score
    assert best is not None
    if (np.bincount(best, minlength=parts) == 0).any():
        raise DataError(
            f"{count} patients do not fill {parts} parts of fractions {tuple(fractions)}; use larger fractions"
        )
    return best[group]


def assign_cells(labels: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Return the part (N,) of every cell, stratified by class, with no regard to patients."""
    rng = np.random.default_rng(seed)
    part = np.empty(len(labels), np.int64)
    bounds = np.cumsum(fractions)[:-1]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(bounds * len(rows)).astype(int)
        for number, chunk in enumerate(np.split(rows, cuts)):
            part[chunk] = number
    return part


def check_folds(folds: Any) -> int:
    """Return a number of folds, or raise `ArgumentError`."""
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
        raise ArgumentError(f"folds is {folds!r}; expected a number from 2, or a fold file")
    return int(folds)


def read_folds(file: str | os.PathLike[str], patients: np.ndarray) -> np.ndarray:
    """Return the fold (N,) of every cell from a file of ``patient,fold`` lines."""
    rows = read_table(file, "fold file", ("patient", "fold"))
    try:
        fold_of = {as_patient(str(file), row["patient"]): int(as_patient(str(file), row["fold"])) for row in rows}
    except ValueError as error:
        raise DataError(f"{file}: expected a patient and a whole number in every line") from error
    if len(fold_of) < len(rows):
        raise DataError(f"{file}: some patients stand in it twice; expected one line a patient")
    absent = sorted(set(patients.tolist()) - set(fold_of))
    if absent:
        raise DataError(
            f"{file}: {len(absent)} patients of the data set are not in it, such as {absent[0]!r}. "
            "Is this the fold file of another data set?"
        )
    folds = np.array([fold_of[patient] for patient in patients.tolist()])
    if len(np.unique(folds)) < 2:
        raise DataError(f"{file}: all patients of this data set are in one fold; expected at least two folds")
    return folds


def split_hash(names: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> str:
    """Hash which cell went where, whatever the order of the cells."""
    lines = sorted(f"{name}|{label}|{part}" for name, label, part in zip(names.tolist(), labels, parts, strict=True))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:12]
