"""Tables of names, a family each: where a parameter of ours stands in a published file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Rule = tuple[str, str | Callable[[list[str]], str]]


@dataclass(frozen=True)
class Keys:
    """How the names and arrays of a published file become ours.

    Attributes
    ----------
    rules : tuple of (pattern, replacement)
        Applied in order, each with `re.sub`, to the dotted path of one of our modules, such as
        ``stage1.blocks.0.conv1.norm``; what comes out is its path in the file. A function gets the groups.
    head : str
        Pattern of the names in the file that belong to its top, which a new head takes the place of.
    ignore : str
        Pattern of names in the file that have no place here.
    layout : {"torch", "keras"}
        ``"torch"``: kernels are (out, in, h, w) and named ``weight``; ``"keras"``: (h, w, in, out), ``kernel``.
    bgr : bool
        The published network takes blue first. Its first kernel is turned round, so that ours takes RGB.
    """

    rules: tuple[Rule, ...]
    head: str = r"^$"
    ignore: str = r"num_batches_tracked$"
    layout: str = "torch"
    bgr: bool = False
