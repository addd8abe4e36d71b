"""HTML of results for notebooks: small tables and preformatted text, with all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def as_text(text: str) -> str:
    """Return preformatted text as HTML.

    Examples
    --------
    >>> from cellscan.notebook import as_text
    >>> as_text("P < 0.5")
    '<pre>P &lt; 0.5</pre>'
    """
    return f"<pre>{escape(text)}</pre>"


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
