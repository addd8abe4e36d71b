"""Join data sets, and match their classes by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from cellscan.data.cells import CellDataset, frozen
from cellscan.data.fields import FieldDataset
from cellscan.data.sources import JoinedSource
from cellscan.errors import ArgumentError, DataError


@overload
def concat(datasets: Sequence[CellDataset]) -> CellDataset: ...
@overload
def concat(datasets: Sequence[FieldDataset]) -> FieldDataset: ...
def concat(datasets: Sequence[Any]) -> CellDataset | FieldDataset:
    """Join data sets of cells, or of fields.

    Parameters
    ----------
    datasets : sequence of CellDataset, or of FieldDataset
        At least one.

    Returns
    -------
    CellDataset or FieldDataset
        Cells with the class names of the first set; fields with their patients, slides and laboratories, if known.

    Raises
    ------
    DataError
        If the classes of cells differ, patients are known in only some sets of cells, or only some sets of fields have
        annotations.
    ArgumentError
        If `datasets` contains anything but data sets of one kind.

    Notes
    -----
    Sets of cells must have the same class names, in any order and case. Fields get the classes of all sets. A class
    that a set does not have is marked as not annotated in its fields (`FieldDataset.complete`); there, cells of this
    class count neither as background in training nor as false positives in evaluation. If sets have different names
    for the same class, rename them first with `FieldDataset.rename_classes`.

    Patients with the same id are treated as the same patient. If two sets have a cell or field of the same name, the
    number of its set is put before every name, as in ``"2/a.png"``, so that names stay unique.

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
        raise DataError("some of these sets have annotations and others do not; join only sets of one kind")
    classes: dict[str, str] = {}
    for data in datasets:
        for name in data.class_names:
            classes.setdefault(name.casefold(), name)
    position = {name: number for number, name in enumerate(classes)}
    relabelled = [
        data.relabelled(tuple(classes.values()), [position[name.casefold()] for name in data.class_names])
        for data in datasets
    ]
    names = [name for data in relabelled for name in data.names.tolist()]
    if len(set(names)) < len(names):
        names = [f"{number}/{name}" for number, data in enumerate(relabelled, 1) for name in data.names.tolist()]
    arrays: dict[str, Any] = {
        name: frozen(np.concatenate([getattr(data, name) for data in relabelled]))
        for name in ("sizes", "patients", "slides", "laboratories", "complete")
    }
    lists: dict[str, Any] = {
        name: tuple(entry for data in relabelled for entry in getattr(data, name))
        for name in ("boxes", "labels", "polygons", "points", "point_labels")
    }
    formats = {(data.format, data.coordinates_note) for data in relabelled}
    kind, description = formats.pop() if len(formats) == 1 else ("", "")
    return FieldDataset(
        class_names=tuple(classes.values()),
        names=frozen(np.array(names, str)),
        source=JoinedSource([data.source for data in relabelled], [data.rows for data in relabelled]),
        rows=frozen(np.arange(len(names))),
        notes=tuple(f"set {number}: {note}" for number, data in enumerate(relabelled, 1) for note in data.notes),
        annotated=datasets[0].annotated,
        format=kind,
        coordinates_note=description,
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
    """Return the names of each set; if cells with different images have the same name, with the number of the set."""
    owner: dict[str, tuple[int, int]] = {}
    for data in datasets:
        for name, part, row in zip(data.names.tolist(), data._part.tolist(), data._row.tolist(), strict=True):
            cell = id(data._sources[part]), row
            if owner.setdefault(name, cell) != cell:
                return [np.array([f"{number}/{n}" for n in d.names.tolist()]) for number, d in enumerate(datasets, 1)]
    return [data.names for data in datasets]


def match_labels(cells: CellDataset, class_names: Sequence[str]) -> np.ndarray:
    """Return the labels (N,) int32 of `cells` as indices into `class_names`, matched by name, ignoring case."""
    position = {name.casefold(): i for i, name in enumerate(class_names)}
    used = {cells.class_names[i] for i in np.unique(cells.labels)}
    unknown = sorted(name for name in used if name.casefold() not in position)
    if unknown:
        raise DataError(
            f"the classes {unknown} of this data set are not among {tuple(class_names)}. "
            f"Rename them: cells = cells.rename_classes({{{unknown[0]!r}: {class_names[0]!r}, ...}})"
        )
    index = np.array([position.get(name.casefold(), -1) for name in cells.class_names], np.int32)
    return index[cells.labels]
