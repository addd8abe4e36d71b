"""What of a set of fields belongs together: patients, slides, and where neither is known, runs of neighbours."""

from __future__ import annotations

import re
from collections.abc import Sequence

RUN = 12
"""Consecutive fields that stay together in a split, at most."""


def find_runs(names: Sequence[str]) -> list[list[int]]:
    """Return runs of consecutive numbers, each in one folder, cut to `RUN`.

    Examples
    --------
    >>> from cellscan.data.runs import find_runs
    >>> find_runs(["A/1.png", "A/2.png", "B/2.png", "A/4.png"])
    [[0, 1], [3], [2]]
    """
    keys = find_counters(names)
    blocks: list[list[int]] = []
    for index in sorted(range(len(names)), key=lambda i: keys[i]):
        place, number = keys[index]
        if blocks and len(blocks[-1]) < RUN and keys[blocks[-1][-1]] == (place, number - 1):
            blocks[-1].append(index)
        else:
            blocks.append([index])
    return blocks


def find_blocks(names: Sequence[str], *groups: Sequence[str]) -> list[list[int]]:
    """Return which rows belong together: those of one group, by the first kind that is known of each; else runs.

    Examples
    --------
    >>> from cellscan.data.runs import find_blocks
    >>> find_blocks(["1.png", "2.png", "7.png", "8.png"], ["", "", "p1", "p2"], ["", "", "s1", "s1"])
    [[0, 1], [2], [3]]
    """
    owner = [next(((kind, own) for kind, own in enumerate(each) if own), None) for each in zip(*groups, strict=True)]
    owner = owner or [None] * len(names)
    bare = [row for row, one in enumerate(owner) if one is None]
    blocks = [[bare[row] for row in run] for run in find_runs([names[row] for row in bare])]
    known: dict[tuple[int, str], list[int]] = {}
    for row, one in enumerate(owner):
        if one is not None:
            known.setdefault(one, []).append(row)
    return [*blocks, *(known[one] for one in sorted(known))]


def find_counters(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return for every name what it shares with its neighbours, and its number among them.

    The counter is the last number of the file's own name along which names have neighbours: another name that is the
    same but for a number one higher or lower. For half of the names at least; else the number for which most have
    some. Names without a number follow one another as they are given.

    Examples
    --------
    >>> from cellscan.data.runs import find_counters
    >>> find_counters(["A/001_100x.png", "A/002_100x.png", "B/001_100x.png"])
    [('A/*_100x.png', 1), ('A/*_100x.png', 2), ('B/*_100x.png', 1)]
    """
    kinds: dict[tuple[str, ...], list[int]] = {}
    split: list[tuple[str, list[str], str]] = []
    for index, name in enumerate(names):
        folder, slash, own = name.replace("\\", "/").rpartition("/")
        stem, dot, suffix = own.rpartition(".")
        split.append((folder + slash, re.split(r"(\d+)", stem if dot else own), dot + suffix if dot else ""))
        kinds.setdefault(tuple(split[-1][1][::2]), []).append(index)
    found: list[tuple[str, int]] = [("", index) for index in range(len(names))]
    for kind, members in kinds.items():
        best, most = None, 0
        for place in reversed(range(1, 2 * len(kind) - 1, 2)):
            keys = {}
            for index in members:
                folder, parts, suffix = split[index]
                shared = "".join([folder, *parts[:place], "*", *parts[place + 1 :], suffix])
                keys[index] = (shared, int(parts[place]))
            there = set(keys.values())
            count = sum((key, n - 1) in there or (key, n + 1) in there for key, n in keys.values())
            if count > most:
                best, most = keys, count
            if 2 * most >= len(members):
                break
        if best is not None:
            found = [best.get(index, one) for index, one in enumerate(found)]
        elif len(kind) > 1:  # numbers that count nothing: no name has a neighbour
            for index in members:
                found[index] = (names[index], 0)
    return found
