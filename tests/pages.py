"""Run the Python blocks of a page of the documentation, in order, and compare what they print with the page.

``python tests/pages.py docs/dataframes.md`` writes what the blocks print into the page.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
_NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]\d+)?")


def read_fences(page: Path) -> list[tuple[int, str, str]]:
    """Return the code blocks of a page: number of the first line, language, and code."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: block.start(3)].count("\n") + 1, block[2], textwrap.dedent(block[3])) for block in found]


def run_block(page: Path, line: int, code: str, names: dict[str, Any]) -> None:
    """Run a block whose first line has this number. The empty lines give a traceback the line numbers of the page."""
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def run_blocks(page: Path) -> list[tuple[str, str]]:
    """Return what the page says that each block prints, and what it prints. The blocks run in the working folder."""
    namespace: dict[str, Any] = {"__name__": "page"}
    outputs = []
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start(1)) + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run_block(page, line, found[1], namespace)
        outputs.append((found[2] or "", printed.getvalue()))
    return outputs


def without_numbers(text: str) -> list[str]:
    """Return the lines of a text without the values of decimal numbers, which differ between machines."""
    return [re.sub(r"[ -]+", " ", _NUMBER.sub("#", line)).strip() for line in text.splitlines()]


def write_outputs(page: Path) -> None:
    """Write what each block prints into the page."""
    page = page.absolute()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        printed = iter([output for _, output in run_blocks(page)])

    def replaced(found: re.Match[str]) -> str:
        output = "".join(f"{line.rstrip()}\n" for line in next(printed).splitlines())
        return f"```python\n{found[1]}```\n" + (f"\n```text\n{output}```\n" if output else "")

    page.write_text(_BLOCK.sub(replaced, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("CELLSCAN_CACHE", tempfile.mkdtemp(prefix="cellscan-pages-"))
    for name in sys.argv[1:]:
        write_outputs(Path(name))
