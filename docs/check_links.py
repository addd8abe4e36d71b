"""Fail where a page of the built site points at a file or a heading of it that is not there.

python docs/check_links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page points at, and what in it can be pointed at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.links: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets |= {value for value in (given.get("id"), given.get("name") if tag == "a" else None) if value}
        link = given.get("href") if tag in ("a", "link") else given.get("src")
        if link and not urlsplit(link).scheme and not link.startswith("//"):
            self.links.add(link)


def main() -> int:
    """Read every page, and say what leads nowhere."""
    root = Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in root.rglob("*.html") if "_static" not in path.parts}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append(f"{path.relative_to(root)}: {link} is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].targets:
                broken.append(f"{path.relative_to(root)}: {link} has no such heading")
    print("\n".join(broken) or f"{len(pages)} pages, every link inside them leads somewhere")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
