"""Sets beside sets: joining them, and matching their classes by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from cellscan.data.cells import CellDataset, frozen
from cellscan.data.fields import FieldDataset
from cellscan.data.joined import JoinedSource
from cellscan.errors import ArgumentError, DataError


@overload
def concat(datasets: Sequence[CellDataset]) -> CellDataset: ...
@overload
def concat(datasets: Sequence[FieldDataset]) -> FieldDataset: ...
def concat(datasets: Sequence[Any]) -> CellDataset | FieldDataset:
    """Join data sets of cells, or of fields.

    Classes of cells must have the same names, in any order and case. Fields keep the classes of all sets; one that a
    set does not have is not annotated in its fields (`FieldDataset.complete`), so that such a cell counts there neither
    as background in training nor as a false call in evaluation. Rename first where sets call one thing by two names:
    `FieldDataset.rename_classes`.

    Patients of the same id are taken to be the same patient. Where two sets have a cell or field of the same name,
    every name gets the number of its set before it, as in ``"2/a.png"``, so that a name still means one.

    Parameters
    ----------
    datasets : sequence of CellDataset, or of FieldDataset
        At least one.

    Returns
    -------
    CellDataset or FieldDataset
        Cells with the class names of the first; fields with their patients, slides and laboratories, as far as known.

    Raises
    ------
    DataError
        Where the classes of cells differ, patients are known in some sets of cells only, or fields without annotations
        are among others.
    ArgumentError
        Where it gets something else than data sets of one kind.

    Examples
    --------
    >>> import cellscan
    >>> a, b = cellscan.synthetic_cells(40, seed=0), cellscan.synthetic_cells(40, seed=1)
    >>> len(cellscan.concat([a, b]))
    80
    >>> fields = cellscan.synthetic_fields(2, seed=0)
    >>> infected = fields.rename_classes({"red blood cell": None}).with_groups(laboratories=["B", "B"])
    >>> print(cellscan.concat([fields, infected]))  # doctest: +ELLIPSIS
    4 fields, ... boxes: red blood cell ..., infected ..., ignored ...
      1 laboratories (of 2 fields)
      not all annotated: red blood cell (in 2 fields)
    """
    if not isinstance(datasets, (list, tuple)) and not isinstance(datasets, Iterator):
        raise ArgumentError(f"concat got a {type(datasets).__name__}; expected a list of data sets")
    datasets = list(datasets)
    for data in datasets:
        if not isinstance(data, (CellDataset, FieldDataset)):
            raise ArgumentError(f"concat got a {type(data).__name__}; expected data sets of cells, or of fields")
    if not datasets:
        raise DataError("concat got no data sets; expected at least one")
    if len({type(data) for data in datasets}) > 1:
        raise ArgumentError("concat got cells and fields; expected data sets of one kind")
    return _join_cells(datasets) if isinstance(datasets[0], CellDataset) else _join_fields(datasets)


def _join_fields(datasets: Sequence[FieldDataset]) -> FieldDataset:
    if len({data.annotated for data in datasets}) > 1:
        raise DataError("some of these sets have annotations and some are images alone; join only sets of one kind")
    classes: dict[str, str] = {}
    for data in datasets:
        for name in data.class_names:
            classes.setdefault(name.casefold(), name)
    position = {name: number for number, name in enumerate(classes)}
    same = [
        data.relabelled(tuple(classes.values()), [position[name.casefold()] for name in data.class_names])
        for data in datasets
    ]
    names = [name for data in same for name in data.names.tolist()]
    if len(set(names)) < len(names):
        names = [f"{number}/{name}" for number, data in enumerate(same, 1) for name in data.names.tolist()]
    arrays: dict[str, Any] = {
        name: frozen(np.concatenate([getattr(data, name) for data in same]))
        for name in ("sizes", "patients", "slides", "laboratories", "complete")
    }
    lists: dict[str, Any] = {
        name: tuple(one for data in same for one in getattr(data, name))
        for name in ("boxes", "labels", "polygons", "points", "point_labels")
    }
    formats = {(data.format, data.told) for data in same}
    kind, told = formats.pop() if len(formats) == 1 else ("", "")
    return FieldDataset(
        class_names=tuple(classes.values()),
        names=frozen(np.array(names, str)),
        source=JoinedSource([data.source for data in same], [data.rows for data in same]),
        rows=frozen(np.arange(len(names))),
        notes=tuple(f"set {number}: {note}" for number, data in enumerate(same, 1) for note in data.notes),
        annotated=datasets[0].annotated,
        format=kind,
        told=told,
        **arrays,
        **lists,
    )


def _join_cells(datasets: Sequence[CellDataset]) -> CellDataset:
    first = datasets[0]
    if len({d.has_patients for d in datasets}) > 1:
        raise DataError("patients are known in some of these sets and unknown in others; join only sets of one kind")
    labels, parts, sources = [], [], []
    for data in datasets:
        labels.append(match_labels(data, first.class_names))
        parts.append(data._part + len(sources))
        sources += data._sources
    leaky = [d.split_info for d in datasets if d.split_info and d.split_info.by == "cell"]
    infos = {d.split_info for d in datasets}
    return CellDataset(
        frozen(np.concatenate(labels)),
        frozen(np.concatenate([d.patients for d in datasets])),
        frozen(np.concatenate(_distinct(datasets))),
        first.class_names,
        leaky[0] if leaky else infos.pop() if len(infos) == 1 else None,
        tuple(sources),
        frozen(np.concatenate(parts)),
        frozen(np.concatenate([d._row for d in datasets])),
    )


def _distinct(datasets: Sequence[CellDataset]) -> list[np.ndarray]:
    """Return the names of each set, such that cells of other pixels have other names."""
    owner: dict[str, tuple[int, int]] = {}
    for data in datasets:
        for name, part, row in zip(data.names.tolist(), data._part.tolist(), data._row.tolist(), strict=True):
            cell = id(data._sources[part]), row
            if owner.setdefault(name, cell) != cell:
                return [np.array([f"{number}/{n}" for n in d.names.tolist()]) for number, d in enumerate(datasets, 1)]
    return [data.names for data in datasets]


def match_labels(cells: CellDataset, class_names: Sequence[str]) -> np.ndarray:
    """Return the labels (N,) int32 of `cells` as indices into `class_names`, matched by name, case-folded."""
    position = {name.casefold(): i for i, name in enumerate(class_names)}
    used = {cells.class_names[i] for i in np.unique(cells.labels)}
    unknown = sorted(name for name in used if name.casefold() not in position)
    if unknown:
        raise DataError(
            f"the classes {unknown} of this data set are not among {tuple(class_names)}. "
            f"Rename them: cells.rename_classes({{{unknown[0]!r}: {class_names[0]!r}, ...}})"
        )
    index = np.array([position.get(name.casefold(), -1) for name in cells.class_names], np.int32)
    return index[cells.labels]
