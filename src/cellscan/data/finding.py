"""Finding the image of an annotation from the name or path in the annotation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cellscan.data.formats.common import LABEL_FOLDERS, Entry, Place, is_tag
from cellscan.data.images import SUFFIXES
from cellscan.data.sources import FileSource
from cellscan.errors import DataError, ImageError

IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "image_2", "dataset", "data")
"""Names (lower case) of folders beside annotations that contain their images."""


class Finder:
    """Finds the images of entries. An image belongs to one entry only.

    Parameters
    ----------
    place : Place
        The folder that is read.
    walk : bool
        True also searches all folders below it. An image found this way must be the only one with its name.
    """

    def __init__(self, place: Place, *, walk: bool) -> None:
        self._place, self._walk = place, walk
        self._owner: dict[str, str] = {}
        self._stems: dict[Path, dict[str, list[str]]] = {}
        self._folders: dict[str, list[Path]] = {}
        self._named: dict[str, list[str]] | None = None

    def find(self, entry: Entry) -> tuple[Path, tuple[int, int]]:
        """Return the path of the image of an entry, and the width and height of the image.

        Raises
        ------
        DataError
            The image is missing, cannot be read, has another size than annotated, or already has an entry; or a box
            lies outside it.
        """
        path = self._search(entry)
        try:
            size = FileSource([str(path)]).header(0)[:2]
        except ImageError as error:
            raise DataError(str(error)) from error
        if entry.size is not None and entry.size != size and not (entry.either_way and entry.size == size[::-1]):
            hint = ". If its EXIF orientation rotates it, save it rotated, or annotate it as viewers display it"
            raise DataError(
                f"{entry.where}: {path}: the image has {size[0]} x {size[1]} pixels, but its annotation states "
                f"{entry.size[0]} x {entry.size[1]}; boxes would be misplaced"
                f"{hint if entry.size == size[::-1] else ''}"
            )
        _check_inside(entry, path, (1, 1) if entry.relative else size)
        absolute = os.path.abspath(path)
        if absolute in self._owner:
            raise DataError(f"{entry.where}: the image {path} is annotated twice, also in {self._owner[absolute]}")
        self._owner[absolute] = entry.where
        return path, size

    def _search(self, entry: Entry) -> Path:
        if entry.folder is not None:
            return entry.folder / entry.file
        folders = self._folders_of(entry.where)
        plain = entry.file.replace("\\", "/")
        parts = [part for part in plain.split("/") if part not in ("", ".", "..") and not part.endswith(":")]
        names = [entry.file, plain, *("/".join(parts[start:]) for start in range(len(parts)))]
        if parts and is_tag(parts[-1].partition("-")[0]):  # Label Studio adds a prefix to uploads.
            names.append(parts[-1].partition("-")[2])
        for name in dict.fromkeys(names):
            for folder in folders:
                if name and (folder / name).is_file():
                    return folder / PurePosixPath(name)
        bare = parts[-1] if parts and os.path.splitext(parts[-1])[1].lower() not in SUFFIXES else ""
        for stem in dict.fromkeys(filter(None, (bare, entry.stem))):
            for folder in folders:
                matching = self._list(folder).get(stem, [])
                if len(matching) > 1:
                    raise DataError(
                        f"{entry.where}: the image may be {' or '.join(matching)} in {folder}; write the suffix in "
                        "the annotation, or remove the other file"
                    )
                if matching:
                    return folder / matching[0]
        return self._anywhere(entry, [name for name in names if name], folders)

    def _anywhere(self, entry: Entry, names: Sequence[str], folders: Sequence[Path]) -> Path:
        """Return the only image below the folder with one of these names."""
        if self._walk and self._place.images is None:
            if self._named is None:
                self._named = {}
                for picture in self._place.pictures:
                    self._named.setdefault(picture.rpartition("/")[2], []).append(picture)
                    self._named.setdefault(os.path.splitext(picture.rpartition("/")[2])[0], []).append(picture)
            for name in (*names, entry.stem):
                fitting = self._named.get(name.rpartition("/")[2], [])
                if len(fitting) == 1:
                    return self._place.root / fitting[0]
                if fitting:
                    raise DataError(
                        f"{entry.where}: the image {entry.file!r} may be {' or '.join(fitting[:3])}; pass images=FOLDER"
                    )
        raise DataError(
            f"{entry.where}: there is no image {entry.file!r} in {' or '.join(map(str, folders))}; pass images=FOLDER"
        )

    def _folders_of(self, where: str) -> list[Path]:
        """Return the folders in which the image of an annotation file may be.

        These are the folder of the file and its parents up to the folder that is read, and in each of them the folders
        for images. If the folder that is read is one for annotations, its parent is added. For a file in a folder
        below one for annotations, the same folder below one for images comes first.
        """
        parent = os.path.dirname(where)
        if parent not in self._folders:
            here, below, candidates, belows = Path(parent), Path(), [], []
            while True:
                belows.append(below)
                inner = _children(here, IMAGE_FOLDERS)
                candidates += [child / below for child in inner if below.parts] + inner + [here]
                holds_labels = here.name.casefold() in LABEL_FOLDERS
                if (here == self._place.root and not holds_labels) or here == here.parent:
                    break
                if self._place.root not in here.parents and not holds_labels:
                    break
                below = Path() if holds_labels else here.name / below
                here = here.parent
            if self._place.images is not None:
                candidates = [self._place.images / below for below in belows]
            existing = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
            self._folders[parent] = existing or [Path(parent)]
        return self._folders[parent]

    def _list(self, folder: Path) -> dict[str, list[str]]:
        """Return the names of the images in a folder, by name without suffix; subfolders are not searched."""
        if folder not in self._stems:
            by_stem: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    by_stem.setdefault(stem, []).append(name)
            self._stems[folder] = by_stem
        return self._stems[folder]


def names_of(paths: Sequence[Path], root: Path) -> list[str]:
    """Return the names of fields: image paths relative to the folder that is read, without a leading image folder.

    The leading folder stays if two names would be equal without it. If some images are outside the folder that is
    read, names are relative to the folder that all images share.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    root = Path(os.path.abspath(root))
    if not all(root in path.parents for path in absolute):
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    relative = [path.relative_to(root).parts for path in absolute]
    short = [
        "/".join(parts[1:] if len(parts) > 1 and parts[0].casefold() in IMAGE_FOLDERS else parts) for parts in relative
    ]
    return short if len(set(short)) == len(short) else ["/".join(parts) for parts in relative]


def _check_inside(entry: Entry, path: Path, size: tuple[int, int]) -> None:
    """Raise if a box lies completely outside its image, or a point lies outside it."""
    width, height = size
    unit = "pixels" if size != (1, 1) else "shares of the image"
    for left, top, right, bottom in entry.boxes:
        if left > width or top > height or right < 0 or bottom < 0:
            raise DataError(
                f"{entry.where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) lies outside "
                f"{path}, {width} x {height} {unit}"
            )
    for x, y in entry.points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise DataError(f"{entry.where}: the point ({x:g}, {y:g}) lies outside {path}, {width} x {height} {unit}")


def _children(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders in `folder` with these names, ignoring case, in the order of the names."""
    children = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    return [child for name in names for child in children if child.name.casefold() == name]
