"""Grouping fields for a split: by patient, by slide, or, if both are unknown, by runs of consecutive fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

RUN = 12
"""Largest number of consecutive fields that stay together in a split."""


def find_runs(names: Sequence[str]) -> list[list[int]]:
    """Return runs of names with consecutive numbers in one folder, as lists of at most `RUN` indices.

    Examples
    --------
    >>> from cellscan.data.runs import find_runs
    >>> find_runs(["A/1.png", "A/2.png", "B/2.png", "A/4.png"])
    [[0, 1], [3], [2]]
    """
    keys = find_counters(names)
    blocks: list[list[int]] = []
    for index in sorted(range(len(names)), key=lambda i: keys[i]):
        shared, number = keys[index]
        if blocks and len(blocks[-1]) < RUN and keys[blocks[-1][-1]] == (shared, number - 1):
            blocks[-1].append(index)
        else:
            blocks.append([index])
    return blocks


def find_blocks(names: Sequence[str], *groups: Sequence[str]) -> list[list[int]]:
    """Return lists of the rows that belong together.

    The group of a row is its first non-empty entry in `groups`, such as its patient, else its slide. Rows without
    a group are put into runs of consecutive names.

    Examples
    --------
    >>> from cellscan.data.runs import find_blocks
    >>> find_blocks(["1.png", "2.png", "7.png", "8.png"], ["", "", "p1", "p2"], ["", "", "s1", "s1"])
    [[0, 1], [2], [3]]
    """
    owners = [
        next(((kind, group) for kind, group in enumerate(each) if group), None) for each in zip(*groups, strict=True)
    ]
    owners = owners or [None] * len(names)
    ungrouped = [row for row, owner in enumerate(owners) if owner is None]
    blocks = [[ungrouped[row] for row in run] for run in find_runs([names[row] for row in ungrouped])]
    grouped: dict[tuple[int, str], list[int]] = {}
    for row, owner in enumerate(owners):
        if owner is not None:
            grouped.setdefault(owner, []).append(row)
    return [*blocks, *(grouped[owner] for owner in sorted(grouped))]


def find_counters(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return for each name the text that it shares with its neighbours, and its number among them.

    Two names are neighbours if they differ in one number only, and this number by one. Of the numbers in a file name,
    the counter is the last one along which at least half of the names have a neighbour, or else the one along which
    most have. Names without a number are numbered in their given order.

    Examples
    --------
    >>> from cellscan.data.runs import find_counters
    >>> find_counters(["A/001_100x.png", "A/002_100x.png", "B/001_100x.png"])
    [('A/*_100x.png', 1), ('A/*_100x.png', 2), ('B/*_100x.png', 1)]
    """
    kinds: dict[tuple[str, ...], list[int]] = {}
    split: list[tuple[str, list[str], str]] = []
    for index, name in enumerate(names):
        folder, slash, file = name.replace("\\", "/").rpartition("/")
        stem, dot, suffix = file.rpartition(".")
        split.append((folder + slash, re.split(r"(\d+)", stem if dot else file), dot + suffix if dot else ""))
        kinds.setdefault(tuple(split[-1][1][::2]), []).append(index)
    result: list[tuple[str, int]] = [("", index) for index in range(len(names))]
    for kind, members in kinds.items():
        best, most = None, 0
        for position in reversed(range(1, 2 * len(kind) - 1, 2)):
            keys = {}
            for index in members:
                folder, parts, suffix = split[index]
                shared = "".join([folder, *parts[:position], "*", *parts[position + 1 :], suffix])
                keys[index] = (shared, int(parts[position]))
            present = set(keys.values())
            count = sum((key, n - 1) in present or (key, n + 1) in present for key, n in keys.values())
            if count > most:
                best, most = keys, count
            if 2 * most >= len(members):
                break
        if best is not None:
            result = [best.get(index, counter) for index, counter in enumerate(result)]
        elif len(kind) > 1:  # No name has a neighbour, so the numbers are no counters.
            for index in members:
                result[index] = (names[index], 0)
    return result
