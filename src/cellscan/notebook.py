"""HTML of results for notebooks: small tables and preformatted text, with all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class TextInNotebook:
    """Base class of results that a notebook shows as the text that `print` shows.

    Examples
    --------
    >>> from cellscan.notebook import TextInNotebook
    >>> class Rule(TextInNotebook):
    ...     def __str__(self):
    ...         return "P < 0.5"
    >>> Rule()._repr_html_()
    '<pre>P &lt; 0.5</pre>'
    """

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def as_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table as HTML, with a title above it and a note below.

    Examples
    --------
    >>> from cellscan.notebook import as_table
    >>> as_table("one cell", ["name"], [["<a>"]])
    '<p>one cell</p><table><tr><th>name</th></tr><tr><td>&lt;a&gt;</td></tr></table>'
    """
    lines = "".join(f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>" for row in rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<p>{escape(title)}</p><table><tr>{head}</tr>{lines}</table>{below}"
