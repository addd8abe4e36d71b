"""Split cells into parts or folds that share no patient."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellscan.data.values import as_patient, check_number, read_table
from cellscan.errors import ArgumentError, DataError

_TRIES = 48
"""Number of random orders that `assign` tries."""


@dataclass(frozen=True)
class Split:
    """Describes the split that made a part of a data set; reports contain it.

    Attributes
    ----------
    by : str
        ``"patient"``: no patient is in two parts. ``"cell"``: the same patients are in several parts.
    part : str
        Name of the part, with its fractions or folds and the seed.
    hash : str
        The first 12 hexadecimal digits of a SHA-256 hash of the assignment of cells to parts.

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
    """Return the fraction of each part of a split: training, validation if it is given, test.

    Parameters
    ----------
    positional : sequence
        The positional arguments of the call; must be empty.
    test, validation : float
        Each in (0, 1); `validation` may be None.

    Raises
    ------
    ArgumentError
        If there are positional arguments, or the fractions are not in (0, 1) or leave no cells for training.

    Examples
    --------
    >>> from cellscan.data.splits import part_fractions
    >>> part_fractions((), 0.25, None), part_fractions((), 0.25, 0.25)
    ((0.75, 0.25), (0.5, 0.25, 0.25))
    """
    if positional:
        raise ArgumentError(
            f"split got {', '.join(f'{value!r:.40}' for value in positional)} without a keyword; "
            "expected keywords: split(test=0.2, validation=0.1)"
        )
    fractions = (check_number("test", test, 0, 1),)
    if validation is not None:
        fractions = (check_number("validation", validation, 0, 1), *fractions)
    if sum(fractions) >= 1:
        raise ArgumentError(
            f"validation is {validation} and test is {test}, which leaves no cells for training; expected a sum below 1"
        )
    return (1 - sum(fractions), *fractions)


def assign(labels: np.ndarray, groups: np.ndarray, fractions: Sequence[float], classes: int, seed: int) -> np.ndarray:
    """Return the part (N,) of every cell such that no group is divided.

    Every part gets about its fraction of the cells of each class and of the groups. The groups are assigned one after
    another, large ones early, each to the part where it brings the counts closest to the fractions. This is repeated
    for several random orders of the groups; the best assignment is returned. Names that are probably two spellings of
    one group give a warning.
    """
    names, group = np.unique(groups, return_inverse=True)
    _warn_if_alike(names.tolist())
    count = len(names)
    parts = len(fractions)
    if count < parts:
        raise DataError(
            f"{count} patients cannot fill {parts} parts; expected at least one patient for each part. "
            "Use fewer parts, or more patients"
        )
    size = np.zeros((count, classes + 1))
    np.add.at(size, (group, labels), 1.0)
    size[:, classes] = 1.0
    share = size / np.maximum(size.sum(0), 1.0)
    cells = size[:, :classes].sum(1)
    target = np.asarray(fractions)[:, None]
    rng = np.random.default_rng(seed)
    best, best_score = None, np.inf
    for _ in range(_TRIES):
        order = np.argsort(-cells * rng.uniform(0.5, 1.5, count), kind="stable")
        assigned = np.zeros((parts, classes + 1))
        part = np.empty(count, np.int64)
        for g in order:
            # Adding a share s to a part changes its squared distance to the target by s * (2 (assigned - target) + s).
            cost = (share[g] * (2 * (assigned - target) + share[g]) / target).sum(1)
            part[g] = int(cost.argmin())
            assigned[part[g]] += share[g]
        score = float(np.abs(assigned - target).max()) + (np.bincount(part, minlength=parts) == 0).sum()
        if score < best_score:
            best, best_score = part, score
    assert best is not None
    if (np.bincount(best, minlength=parts) == 0).any():
        raise DataError(
            f"{count} patients do not fill {parts} parts of fractions {tuple(fractions)}; use larger fractions"
        )
    return best[group]


def _warn_if_alike(names: Sequence[Any]) -> None:
    """Warn about ids such as "01" and "1", which are often one patient in two tables."""
    spellings: dict[str, list[str]] = {}
    for name in map(str, names):
        key = re.sub(r"[\s_-]+", " ", re.sub(r"(?<![\d.])0+(?=\d)", "", name.casefold()))
        spellings.setdefault(key, []).append(name)
    alike = [" and ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    if alike:
        warnings.warn(
            f"the ids {', '.join(alike[:3])}{', ...' if len(alike) > 3 else ''} differ only in leading zeros, case or "
            "separators. They are treated as different patients, who may be in different parts. "
            "If they are the same, write the id of a patient in one way",
            stacklevel=5,
        )


def assign_cells(labels: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Return the part (N,) of every cell, stratified by class; patients are ignored."""
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
        raise ArgumentError(f"folds is {folds!r}; expected a number from 2, or a fold file (a CSV with patient,fold)")
    return int(folds)


def read_folds(file: str | os.PathLike[str], patients: np.ndarray) -> np.ndarray:
    """Return the fold (N,) of every cell from a file of ``patient,fold`` lines."""
    rows = read_table(file, "fold file", ("patient", "fold"))
    try:
        fold_of = {as_patient(str(file), row["patient"]): int(as_patient(str(file), row["fold"])) for row in rows}
    except ValueError as error:
        raise DataError(f"{file}: expected a patient and a whole number in every line") from error
    if len(fold_of) < len(rows):
        raise DataError(f"{file}: some patients occur twice; expected one line for each patient")
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
    """Return a hash of the assignment of cells to parts, independent of the order of the cells."""
    lines = sorted(f"{name}|{label}|{part}" for name, label, part in zip(names.tolist(), labels, parts, strict=True))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:12]
