"""Public names use the terms of the glossary; source and documents contain no replaced phrase."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import REPOSITORY

import cellscan

GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text()
BANNED = ("painted", "comes along", "abroad", "at home", "suspects", "vary_surround", "least=", "most=", "half=True")
# The file of disputed labels and the option of the benchmarks that reads it keep their names.
ALLOWED = re.compile(r"suspects\.csv|--suspects\b")


def replaced() -> set[str]:
    """Return the words of the last column of the glossary's tables: those that its terms replace."""
    words = set()
    for line in GLOSSARY.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "word" and not cells[0].startswith("---"):
            words |= {word for word in cells[2].split(", ") if word}
    return words


def words_of(name: str) -> list[str]:
    """Return the words of an identifier, in lower case and without a plural s."""
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)
    return [part.lower().removesuffix("s") for part in parts]


def public_names() -> Iterator[tuple[str, str]]:
    """Yield every public name, attribute and parameter, with where it stands."""
    for name in cellscan.__all__:
        value = getattr(cellscan, name)
        yield name, name
        if inspect.ismodule(value):
            continue
        members = [value] if inspect.isfunction(value) else []
        if inspect.isclass(value):
            fields = getattr(value, "__dataclass_fields__", {})
            yield from ((f"{name}.{field}", field) for field in fields if not field.startswith("_"))
            for member in (member for member in vars(value) if not member.startswith("_")):
                yield f"{name}.{member}", member
                found = inspect.unwrap(getattr(value, member)) if callable(getattr(value, member)) else None
                members += [found] if inspect.isfunction(found) or inspect.ismethod(found) else []
            members += [value.__init__] if "__init__" in vars(value) and not fields else []
        for member in members:
            parameters = [own for own in inspect.signature(member).parameters if not own.startswith("_")]
            yield from ((f"{name}.{member.__name__}({own})", own) for own in parameters)


def checked_files() -> list[Path]:
    """Return source, documents and examples, without the glossary, which lists the replaced words."""
    files = [REPOSITORY / "README.md"]
    for folder, pattern in (("src", "**/*.py"), ("docs", "*.md"), ("examples", "*.py"), ("examples", "*.rst")):
        files += sorted((REPOSITORY / folder).glob(pattern))
    return [file for file in files if file.name != "glossary.md"]


def find_banned(text: str) -> list[tuple[int, str]]:
    """Return the banned phrases of a text, each with the number of its line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        rest = ALLOWED.sub("", line)
        for phrase in BANNED:
            end = r"\b" if phrase[-1].isalnum() else ""
            if re.search(rf"\b{re.escape(phrase)}{end}", rest, re.IGNORECASE):
                found.append((number, phrase))
    return found


def test_the_glossary_says_what_it_replaces() -> None:
    assert {"suspect", "surround", "least", "overlap", "together", "figure"} <= replaced()
    assert words_of("LabelIssues") == ["label", "issue"]
    assert words_of("max_detections") == ["max", "detection"]
    assert words_of("to_numpy") == ["to", "numpy"]


@pytest.mark.parametrize("word", sorted(replaced() - {"overlap", "at home"}))
def test_no_public_name_has_a_replaced_word(word) -> None:
    found = [where for where, name in public_names() if word in words_of(name)]
    assert not found, f"docs/glossary.md has another word for {word!r}: {', '.join(found)}"


def test_every_public_class_and_function_has_a_sentence() -> None:
    for name in cellscan.__all__:
        value = getattr(cellscan, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            first = (inspect.getdoc(value) or "").split("\n\n")[0]
            assert first.endswith((".", ":")), name


def test_banned_phrases_are_whole_words() -> None:
    assert find_banned("ok\nPainted cells, at home") == [(2, "painted"), (2, "at home")]
    assert find_banned("screen(fields, least=0.5, half=True)") == [(1, "least="), (1, "half=True")]
    assert not find_banned("repainted; python study.py --suspects suspects.csv; at_least=3")


def test_no_file_has_a_banned_phrase() -> None:
    files = checked_files()
    assert len(files) > 100
    found = [
        f"{file.relative_to(REPOSITORY)}:{number}: {phrase!r}"
        for file in files
        for number, phrase in find_banned(file.read_text())
    ]
    assert not found, "use the words of docs/glossary.md instead:\n" + "\n".join(found)
