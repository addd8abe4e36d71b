"""Read the NIH malaria cells, with their patients, from the publisher's folders or archive."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cellscan.data.cells import CellDataset
from cellscan.data.images import warn_of_others
from cellscan.data.listing import Listing, list_images
from cellscan.data.patients import patients_of
from cellscan.errors import DataError

CLASS_NAMES = ("parasitized", "uninfected")


def read_malaria(root: Path, patient_files: Iterable[str | os.PathLike[str]] = ()) -> CellDataset:
    """Read the publisher's archive, its extracted folder, or a nested copy of either; see `load_malaria`."""
    listing = list_images(root)
    result: dict[tuple[int, str], list[str]] = {}
    stray = []
    # Sorting by depth puts a nested copy after the original.
    for path in sorted(listing.images, key=lambda path: (path.count("/"), path)):
        label, name = path.split("/")[-2:] if "/" in path else ("", path)
        if label.casefold() in CLASS_NAMES:
            result.setdefault((CLASS_NAMES.index(label.casefold()), name), []).append(path)
        else:
            stray.append(path)
    if len({label for label, _ in result}) < 2:
        raise DataError(
            f"{root}: expected images in two folders named Parasitized and Uninfected, found "
            f"{len(result)} in {'one of them' if result else 'neither'}. For folders with other names use load_folder"
        )
    warn_of_others(root, [*stray, *listing.others])
    cells = [(label, path) for (label, _), paths in sorted(result.items()) for path in _without_copies(listing, paths)]
    paths = [path for _, path in cells]
    names = [path.rsplit("/", 1)[-1] for path in paths]
    if max(Counter(names).values()) > 1:  # The names of the publisher are unique; those of other folders may not be.
        around = os.path.commonpath(["/".join(path.split("/")[:-2]) for path in paths])
        names = [os.path.relpath(path, around) if around else path for path in paths]
    patients = patients_of(names, patient_files)
    return CellDataset.from_source(listing.source(paths), [label for label, _ in cells], names, patients, CLASS_NAMES)


def _without_copies(listing: Listing, paths: list[str]) -> list[str]:
    """Return the first path of each distinct content among files with the same class and name."""
    if len(paths) == 1:
        return paths
    source = listing.source(paths)
    first: dict[str, str] = {}
    for path, content in zip(paths, source.checksums(range(len(paths))), strict=True):
        first.setdefault(content, path)
    return list(first.values())
