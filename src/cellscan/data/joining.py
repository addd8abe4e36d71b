"""Sets beside sets: joining them, and matching their classes by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cellscan.data.cells import CellDataset, frozen
from cellscan.errors import ArgumentError, DataError


def concat(datasets: Sequence[CellDataset]) -> CellDataset:
    """Join data sets; their classes must have the same names, in any order and case.

    Patients of the same id are taken to be the same patient. Where two sets have a cell of the same name, every name
    gets the number of its set before it, as in ``"2/a.png"``, so that a name still means one cell.

    Parameters
    ----------
    datasets : sequence of CellDataset
        At least one.

    Returns
    -------
    CellDataset
        With the class names of the first.

    Raises
    ------
    DataError
        Where the classes differ, or patients are known in some sets only.
    ArgumentError
        Where it gets something else than data sets of cells.

    Examples
    --------
    >>> import cellscan
    >>> a, b = cellscan.synthetic_cells(40, seed=0), cellscan.synthetic_cells(40, seed=1)
    >>> len(cellscan.concat([a, b]))
    80
    """
    if not isinstance(datasets, (list, tuple)) and not isinstance(datasets, Iterator):
        raise ArgumentError(f"concat got a {type(datasets).__name__}; expected a list of data sets of cells")
    datasets = list(datasets)
    for data in datasets:
        if not isinstance(data, CellDataset):
            raise ArgumentError(f"concat got a {type(data).__name__}; expected data sets of cells")
    if not datasets:
        raise DataError("concat got no data sets; expected at least one")
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
