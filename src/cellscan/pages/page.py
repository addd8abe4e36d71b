"""A page: one file that needs no other and no network."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files

from cellscan.data.values import as_path
from cellscan.errors import DataError
from cellscan.pages.markup import Html, tag
from cellscan.pages.parts import make_list
from cellscan.tensors import write_whole


def write_page(
    path: str | os.PathLike[str],
    title: str,
    lead: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Html]]],
    *,
    warnings: Sequence[str] = (),
) -> None:
    """Write a page. An existing file is replaced only once the new one is complete.

    Parameters
    ----------
    path : path
    title : str
    lead : sequence of str
        Sentences below the title.
    sections : sequence of (heading, parts)
    warnings : sequence of str
        Sentences that stand before all others.

    Raises
    ------
    ArgumentError
        If `path` is not a path.
    DataError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cellscan.pages.page import write_page
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.html"
    >>> write_page(file, "A <page>", ["One sentence."], [])
    >>> "<h1>A &lt;page&gt;</h1>" in file.read_text()
    True
    """
    write_whole(as_path("path", path), make_page(title, lead, sections, warnings).encode(), error=DataError)


def make_page(
    title: str, lead: Sequence[str], sections: Sequence[tuple[str, Sequence[Html]]], warnings: Sequence[str] = ()
) -> str:
    """Return a page as text; the arguments are those of `write_page`.

    The browser runs and applies only the script and the style sheet whose digests the page states, shows only pictures
    in the page, and opens no connection.

    Examples
    --------
    >>> from cellscan.pages.page import make_page
    >>> page = make_page("A page", [], [])
    >>> page.startswith("<!doctype html>"), "Research use only, not a medical device." in page, "://" in page
    (True, True, False)
    """
    style, script = (files("cellscan.pages").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )
    links = [tag("li", tag("a", heading, href=f"#section-{n}")) for n, (heading, _) in enumerate(sections)]
    header = tag(
        "header",
        tag("p", "Research use only, not a medical device.", class_="notice"),
        tag("h1", title),
        make_list(warnings, warnings=True) if warnings else None,
        *(tag("p", line) for line in lead),
    )
    main = [
        tag("section", tag("h2", heading, id=f"heading-{n}"), *parts, id=f"section-{n}",
            aria_labelledby=f"heading-{n}")
        for n, (heading, parts) in enumerate(sections)
    ]  # fmt: skip
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#main", class_="skip"),
        header,
        tag("nav", tag("ul", *links), aria_label="Contents") if len(links) > 1 else None,
        tag("main", *main, id="main", tabindex=-1),
        tag("footer", tag("p", f"Made by cellscan {version('cellscan')}. Research use only, not a medical device.")),
        tag("script", Html(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
