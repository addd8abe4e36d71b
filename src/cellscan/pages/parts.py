"""The parts of a page: tables that can be sorted, galleries with a filter, fields with boxes, and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellscan.pages.markup import Html, script_data, tag
from cellscan.pages.pictures import blend_map, encode_figure, encode_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL, _FIELD = 96, 800
"""Longest side of the pictures of cells and of fields, in pixels."""

_COLOURS = 8
"""Number of colours of boxes in the style sheet; further classes use them again."""


def make_list(lines: Iterable[object], *, warnings: bool = False) -> Html:
    """Return a list of sentences; of warnings, with this word before each.

    Examples
    --------
    >>> from cellscan.pages.parts import make_list
    >>> make_list(["a < b"])
    '<ul><li>a &lt; b</li></ul>'
    """
    items = [tag("li", f"Warning: {line}" if warnings else line) for line in lines]
    return tag("ul", *items, class_="warnings" if warnings else None, aria_label="Warnings" if warnings else None)


def make_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, sortable: bool = True) -> Html:
    """Return a table, by default one that can be sorted by each column.

    Parameters
    ----------
    caption : str
    header : sequence of str
        Names of the columns.
    rows : iterable of sequences
        The first value of a row is its header. An int, or a pair of a number and its text, is sorted as a number; NaN
        and None come last. Other values are sorted as texts.
    sortable : bool

    Examples
    --------
    >>> from cellscan.pages.parts import make_table
    >>> table = make_table("Counts", ["field", "cells"], [["a.png", 1200]])
    >>> '<th scope="row">a.png</th><td class="number" data-value="1200">1,200</td>' in table
    True
    """
    head = tag("tr", *(tag("th", name, scope="col") for name in header))
    body = [tag("tr", *(_make_entry(value, first=not column) for column, value in enumerate(row))) for row in rows]
    style = "sortable" if sortable else None
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=style)
    return tag("div", table, class_="scroll", role="group", aria_label=f"Table: {caption}", tabindex=0)


def _make_entry(value: object, *, first: bool) -> Html:
    if isinstance(value, int):
        value = value, f"{value:,}"
    style = data = None
    if isinstance(value, tuple):
        number, value = value
        style, data = "number", None if number is None or not math.isfinite(number) else f"{number:.10g}"
    return tag("th" if first else "td", value, scope="row" if first else None, class_=style, data_value=data)


def make_figure(draw: Callable[[], Figure], alt: str, caption: str) -> Html:
    """Return a figure of matplotlib as a picture with an alternative text.

    Examples
    --------
    >>> from cellscan.pages.parts import make_figure
    >>> from cellscan.plots import plot_smears
    >>> part = make_figure(lambda: plot_smears([("a", 0.1, None, None)]), "one smear at 10 %", "Smears")
    >>> part.count("<img"), 'alt="one smear at 10 %"' in part
    (1, True)
    """
    picture = tag("img", src=encode_figure(draw), alt=alt)
    scroll = tag("div", picture, class_="scroll", role="group", aria_label=f"Figure: {caption}", tabindex=0)
    return tag("figure", scroll, tag("figcaption", caption), class_="plot")


@dataclass(frozen=True)
class Shown:
    """A cell in a gallery.

    Attributes
    ----------
    image : (H, W, 3) uint8, or str
        The picture, or the reason why there is none.
    values : tuple of str
        One value per column of the gallery; the first is the name of the cell.
    lines : tuple of str
        Sentences below the name.
    heat : (H, W) float, or None
        Attribution map in [0, 1].

    Examples
    --------
    >>> from cellscan.pages.parts import Shown
    >>> Shown("no such file", ("a.png", "infected"), ("labelled infected",)).heat is None
    True
    """

    image: np.ndarray | str
    values: tuple[str, ...]
    lines: tuple[str, ...]
    heat: np.ndarray | None = None


def make_gallery(
    cells: Sequence[Shown], columns: Sequence[str], filters: Sequence[str], *, file: str | None = None
) -> Html:
    """Return pictures of cells, with a filter.

    Parameters
    ----------
    cells : sequence of Shown
    columns : sequence of str
        Names of the values of each cell.
    filters : sequence of str
        Columns whose values can be chosen from a list. A text is searched for in all columns.
    file : str, optional
        Name of the CSV file that the button of the page offers: the values of the cells that were ticked. Default:
        there are no check boxes.

    Examples
    --------
    >>> from cellscan.pages.parts import Shown, make_gallery
    >>> part = make_gallery([Shown("unread", ("<a>", "x"), ())], ["name", "class"], ["class"], file="ticked.csv")
    >>> part.count('type="checkbox"'), "<a>" in part
    (1, False)
    """
    controls = [tag("legend", "Filter")]
    for name in filters:
        column = list(columns).index(name)
        choices = sorted({cell.values[column] for cell in cells})
        # The script compares the positions of choices, because their texts are changed for display.
        options = [tag("option", choice or "unknown", value=number) for number, choice in enumerate(choices)]
        numbers = " ".join(str(choices.index(cell.values[column])) for cell in cells)
        select = tag("select", tag("option", "all", value=""), *options, data_numbers=numbers)
        controls.append(tag("label", name.replace("_", " "), select))
    controls.append(tag("label", "text", tag("input", type="search")))
    if file is not None:
        controls += [
            tag("button", "Tick all shown", type="button", data_action="tick"),
            tag("button", "Untick all", type="button", data_action="untick"),
            tag("button", "Download ticked as CSV", type="button", data_action="download"),
        ]
    controls.append(tag("output", role="status"))
    data = {"columns": list(columns), "rows": [cell.values for cell in cells], "file": file}
    cards = [_make_card(cell, ticked=file is not None) for cell in cells]
    return tag(
        "div",
        tag("fieldset", *controls, class_="controls", hidden=True),
        tag("ul", *cards, class_="cards"),
        script_data(data),
        class_="gallery",
    )


def _make_card(cell: Shown, *, ticked: bool) -> Html:
    name = cell.values[0]
    label = tag("bdi", name)
    head = tag("label", tag("input", type="checkbox"), label) if ticked else label
    if isinstance(cell.image, str):
        pictures = [tag("p", f"no picture: {cell.image}")]
    else:
        pictures = [_make_picture(cell.image, _CELL, f"cell {name}")]
        if cell.heat is not None:
            mixed = blend_map(cell.image, cell.heat)
            pictures.append(_make_picture(mixed, _CELL, f"attribution map of {name}"))
    lines = [tag("p", line) for line in cell.lines]
    return tag("li", tag("div", *pictures, class_="pictures"), tag("p", head, class_="name"), *lines)


def _make_picture(image: np.ndarray, side: int, alt: str) -> Html:
    address, width, height = encode_picture(image, side)
    return tag("img", src=address, width=width, height=height, alt=alt)


@dataclass(frozen=True)
class ShownField:
    """A field with its boxes.

    Attributes
    ----------
    name : str
    size : tuple[int, int]
        Width and height in pixels, to which the boxes refer.
    image : (H, W, 3) uint8, or str
        The picture, or the reason why there is none.
    boxes : (n, 4) float
        xyxy.
    labels, scores : (n,) int, (n,) float
    caption : str

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.pages.parts import ShownField
    >>> ShownField("a", (60, 40), "no file", np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), "a: 0 cells").size
    (60, 40)
    """

    name: str
    size: tuple[int, int]
    image: np.ndarray | str
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    caption: str


def make_fields(fields: Sequence[ShownField], class_names: Sequence[str]) -> Html:
    """Return pictures of fields with their boxes, which can be hidden by class and by score.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.pages.parts import ShownField, make_fields
    >>> image, box = np.zeros((40, 60, 3), np.uint8), np.array([[5, 5, 25, 30]])
    >>> field = ShownField("a", (60, 40), image, box, np.array([1]), np.array([0.9]), "a: 1 cell")
    >>> '<rect class="box1 last" x="5" y="5" width="20" height="25"' in make_fields([field], ["healthy", "sick"])
    True
    """
    controls = [tag("legend", "Boxes")]
    for number, name in enumerate(class_names):
        swatch = tag("span", class_=f"swatch fill{number % _COLOURS}")
        controls.append(tag("label", tag("input", type="checkbox", checked=True, value=number), swatch, name))
    score = tag("input", type="range", min=0, max=1, step=0.01, value=0)
    controls += [tag("label", "minimum score", score), tag("output", role="status")]
    return tag(
        "div",
        tag("fieldset", *controls, class_="controls", hidden=True),
        *(_make_field(field, class_names) for field in fields),
        class_="fields",
    )


def _make_field(field: ShownField, class_names: Sequence[str]) -> Html:
    caption = tag("figcaption", field.caption)
    if isinstance(field.image, str):
        return tag("figure", tag("p", f"no picture: {field.image}"), caption)
    rects = []
    for box, label, score in zip(field.boxes.tolist(), field.labels.tolist(), field.scores.tolist(), strict=True):
        left, top, right, bottom = box
        last = " last" if label == len(class_names) - 1 and label else ""
        title = tag("title", f"{class_names[label]} {score:.2f}")
        sides = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        texts = {name: f"{round(side, 1):g}" for name, side in sides.items()}
        style = f"box{label % _COLOURS}{last}"
        rects.append(tag("rect", title, class_=style, **texts, data_label=label, data_score=f"{score:.4f}"))
    width, height = field.size
    picture = _make_picture(field.image, _FIELD, f"field {field.name}")
    view = f"0 0 {width} {height}"
    boxes = tag("svg", *rects, viewBox=view, role="img", aria_label=f"boxes of {field.caption}")
    return tag("figure", tag("div", picture, boxes, class_="field"), caption)
