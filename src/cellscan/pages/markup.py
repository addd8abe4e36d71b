"""Build HTML from Python values. All text is escaped, unless it is `Html`."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

_EMPTY = frozenset(("img", "input", "link", "meta"))
"""Elements that have no end tag."""

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, marks that change the direction of text, halves of surrogate pairs."""


class Html(str):
    """Text that is HTML already, and is not escaped again.

    Examples
    --------
    >>> from cellscan.pages.markup import Html, tag
    >>> tag("p", Html("<b>1</b>"), "<2>")
    '<p><b>1</b>&lt;2&gt;</p>'
    """

    __slots__ = ()


def visible(text: str) -> str:
    """Replace characters that are not seen, such as marks that reverse a file name, by their codes.

    Examples
    --------
    >>> from cellscan.pages.markup import visible
    >>> print(visible("cell" + chr(0x202E) + "gnp.a"))
    cell[U+202E]gnp.a
    """
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def tag(name: str, /, *children: object, **attributes: Any) -> Html:
    """Return an element. Children and attributes are escaped; None and False are left out.

    Parameters
    ----------
    name : str
        Name of the element.
    *children : object
        `Html` is inserted as it is; other values as escaped text.
    **attributes
        An underscore becomes a hyphen, and one at the end is removed, as in ``class_``. True gives an attribute without
        a value.

    Examples
    --------
    >>> from cellscan.pages.markup import tag
    >>> tag("td", 'a"<b>', data_value=1, class_="number", hidden=False)
    '<td data-value="1" class="number">a&quot;&lt;b&gt;</td>'
    """
    start = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        start.append(key if value is True else f'{key}="{escape(visible(str(value)))}"')
    inside = "".join(_as_html(child) for child in children if child is not None and child is not False)
    return Html(f"<{' '.join(start)}>" + ("" if name in _EMPTY else f"{inside}</{name}>"))


def _as_html(child: object) -> str:
    return child if isinstance(child, Html) else escape(visible(str(child)))


def script_data(value: Any) -> Html:
    """Return an element with JSON for the script of the page. No text in it can end the element.

    Examples
    --------
    >>> from cellscan.pages.markup import script_data
    >>> script_data(["</script>"]).count("</script>")
    1
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Html(f'<script type="application/json">{text}</script>')
