"""Folder layouts of image sets: which level of folders is the class, the patient or the split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cellscan.errors import ArgumentError, DataError

SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation"))
"""Names (lower case) of folders that are parts of a divided data set instead of classes."""

WORDS = ("class", "patient", "split", "*")


class Placed(NamedTuple):
    """An image with its class, patient and split, as read from its folders.

    Attributes
    ----------
    path : str
        Path relative to the root.
    name : str
        The path without a top folder that contains all images.
    class_name : str
    below : str
        The path below the class folder.
    patient, split : str
        ``""`` if the layout has no such level.
    """

    path: str
    name: str
    class_name: str
    below: str
    patient: str
    split: str


def place(where: str, paths: Sequence[str], layout: str | None, *, patient_given: bool) -> tuple[str, list[Placed]]:
    """Return the layout of a tree of images, and each image with its class, patient and split.

    Parameters
    ----------
    where : str
        Path of the tree, for error messages.
    paths : sequence of str
        Paths of the images relative to the tree, with slashes.
    layout : str or None
        A layout such as ``"class/patient/image"``. None recognises it from the folders.
    patient_given : bool
        True if patients are known from another source; folders below a class are then not read as patients.

    Raises
    ------
    DataError
        The tree does not have this layout, or `layout` is None and several layouts are possible.

    Examples
    --------
    >>> from cellscan.data.layouts import place
    >>> layout, placed = place("d", ["set/A/1.png", "set/B/2.png"], None, patient_given=False)
    >>> layout, [image.class_name for image in placed], placed[0].name
    ('*/class/image', ['A', 'B'], 'A/1.png')
    >>> layout, placed = place("d", ["p1/A/1.png"], "patient/class/image", patient_given=False)
    >>> placed[0].patient, placed[0].below
    ('p1', '1.png')
    """
    folders = {path: path.split("/")[:-1] for path in paths}
    stray = [path for path in paths if not folders[path]]
    if stray or not paths:
        problem = f"{len(stray)} images are outside of them, such as {stray[0]}" if stray else "there are no images"
        raise DataError(f"{where}: expected one sub-folder for each class, with its images; {problem}")
    if layout is None:
        layout = _recognise(where, folders, patient_given)
        levels = parse(layout)
    else:
        levels = parse(layout)
        shallow = [path for path in paths if len(folders[path]) < len(levels)]
        if shallow:
            raise DataError(
                f"{where}: {shallow[0]} has {len(folders[shallow[0]])} levels of folders, but layout={layout!r} needs "
                f"{len(levels)}"
            )
        _check_around(where, folders, levels, layout)
    around = levels[0] == "*" and len({above[0] for above in folders.values()}) == 1
    at = {word: levels.index(word) for word in levels}
    placed = []
    for path, above in folders.items():
        parts = path.split("/")
        patient, split = (above[at[word]] if word in at else "" for word in ("patient", "split"))
        below = "/".join(parts[at["class"] + 1 :])
        placed.append(Placed(path, "/".join(parts[around:]), above[at["class"]], below, patient, split))
    return layout, placed


def parse(layout: object) -> tuple[str, ...]:
    """Return the meaning of each level of folders, or raise `ArgumentError` if `layout` is not valid.

    Examples
    --------
    >>> from cellscan.data.layouts import parse
    >>> parse("split/class/image")
    ('split', 'class')
    """
    *levels, last = layout.split("/") if isinstance(layout, str) else ("", "")
    known = all(level in WORDS for level in levels) and all(levels.count(word) < 2 for word in WORDS[:3])
    if last != "image" or not known or "class" not in levels:
        raise ArgumentError(
            f"layout is {layout!r}; expected levels of folders that end with image, such as 'class/image', "
            "'class/patient/image', 'patient/class/image' or 'split/class/image'; * is a folder without a meaning"
        )
    return tuple(levels)


def _recognise(where: str, folders: dict[str, list[str]], patient_given: bool) -> str:
    """Return the layout of a tree, or raise `DataError` if several are possible."""
    around = ""
    tops = {above[0] for above in folders.values()}
    least = min(map(len, folders.values()))
    # An archive often has one top folder that contains everything.
    if len(tops) == 1 and least > 1 and not _are_splits(tops):
        around = "*/"
        folders = {path: above[1:] for path, above in folders.items()}
        tops = {above[0] for above in folders.values()}
        least -= 1
    deepest = max(map(len, folders.values()))
    if _are_splits(tops):
        if least == deepest == 2 or (least > 1 and patient_given):
            return f"{around}split/class/image"
        if least == 1:
            raise DataError(
                f"{where}: the folders {_listed(tops)} look like splits, but contain images directly, without class "
                f"folders. If these are the classes, pass layout='{around}class/image'"
            )
        raise _unclear(where, folders, around, "split/")
    copies = [(path, name) for path, (top, *below) in folders.items() for name in below if name in tops - {top}]
    if least == 1 and copies:
        path, name = copies[0]
        raise DataError(
            f"{where}: the class {name!r} is also a folder within {folders[path][0]!r}, as in {path}. If this is a "
            f"second copy of the set, load {folders[path][0]!r} alone, or remove it"
        )
    if least == 1 or patient_given:
        return f"{around}class/image"
    raise _unclear(where, folders, around, "")


def _are_splits(names: set[str]) -> bool:
    return all(name.casefold() in SPLITS for name in names)


def _unclear(where: str, folders: dict[str, list[str]], around: str, first: str) -> DataError:
    path, above = max(sorted(folders.items()), key=lambda entry: len(entry[1]))
    upper, lower = above[1:3] if first else above[:2]
    options = (
        (f"{first}class/patient/image", f"class {upper!r}, patient {lower!r}"),
        (f"{first}patient/class/image", f"patient {upper!r}, class {lower!r}"),
        (f"{first}class/*/image", f"class {upper!r}, and {lower!r} without a meaning"),
    )
    if not first and _are_splits({above[1] for above in folders.values()}):
        options = (*options, ("class/split/image", f"class {upper!r}, split {lower!r}"))
    listed = "".join(f"\n  layout={around + layout!r}: {meaning}" for layout, meaning in options)
    return DataError(f"{where}: the folders of {path} can be read in more than one way; pass one of:{listed}")


def _check_around(where: str, folders: dict[str, list[str]], levels: tuple[str, ...], layout: str) -> None:
    """Raise if a top folder that contains all images would be read as the first level of a given layout."""
    tops = {above[0] for above in folders.values()}
    if len(tops) == 1 and levels[0] != "*" and all(len(above) > len(levels) for above in folders.values()):
        top = tops.pop()
        raise DataError(
            f"{where}: every image lies in {top!r}, which layout={layout!r} reads as the {levels[0]}. If this folder "
            f"only contains the data set, pass layout='*/{layout}'; if it is the {levels[0]}, add the folders below "
            f"it: layout='{'/'.join((*levels, '*'))}/image'"
        )


def choose_splits(where: str, placed: list[Placed], split: str | Sequence[str] | None, layout: str) -> list[Placed]:
    """Return the images of the chosen splits.

    Raises
    ------
    DataError
        There are several splits and `split` is None.
    ArgumentError
        `split` is not the name of a split, or a sequence of such names.
    """
    result = sorted({image.split for image in placed} - {""})
    if split is None:
        if len(result) > 1:
            raise DataError(
                f"{where}: read as {layout}, with the splits {_listed(result)}. Load one with split={result[0]!r}, or "
                f"join them with split={tuple(result)!r}"
            )
        return placed
    wanted = (split,) if isinstance(split, str) else split
    if not isinstance(wanted, (tuple, list)) or not wanted or not all(isinstance(name, str) for name in wanted):
        raise ArgumentError(f"split is {split!r:.80}; expected the name of a folder, or a sequence of names")
    unknown = [name for name in wanted if name.casefold() not in {known.casefold() for known in result}]
    if unknown:
        available = f"it has {_listed(result)}" if result else f"it has none (read as {layout})"
        raise ArgumentError(f"split is {split!r}, but {where} has no split {unknown[0]!r}; {available}")
    folded = {name.casefold() for name in wanted}
    return [image for image in placed if image.split.casefold() in folded]


def _listed(names: set[str] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:6]) + (", ..." if len(names) > 6 else "")
