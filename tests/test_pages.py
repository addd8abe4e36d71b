"""Code blocks of pages, run in order in one namespace, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY
from pages import read_fences, run_block
from PIL import Image

import cellscan

DOCS = REPOSITORY / "docs"
PAGES = {
    "torch_loader": "torch",
    "grain_pipeline": "grain",
    "nnx_loop": "flax",
    "optuna_search": "optuna",
    "tracking": "tensorboardX",
}
"""Pages, and the package that each needs."""


def read_blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Return the code blocks of a page in a language, each with the number of its first line."""
    return [(line, code) for line, name, code in read_fences(DOCS / f"{page}.md") if name == language]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch) -> None:
    pytest.importorskip(PAGES[page], reason=f"pip install {PAGES[page]}")
    monkeypatch.chdir(tmp_path)
    blocks = read_blocks(page, "python")
    assert blocks
    names: dict[str, Any] = {"__name__": page}
    for line, code in blocks:
        run_block(DOCS / f"{page}.md", line, code, names)
    if "clf" in names:
        assert names["clf"].predict_proba(names["cells"].images(names["clf"].image_size)[:4]).shape == (4, 2)


def test_every_loop_is_listed_and_tested() -> None:
    listed = re.findall(r"\]\((\w+)\.md\)", (DOCS / "other_loops.md").read_text(encoding="utf-8"))
    assert listed == list(PAGES)


def write_set(root: Path, name: str, seed: int) -> None:
    """Write a folder of cells with the classes as sub-folders, and a file of their patients beside it."""
    cells = cellscan.synthetic_cells(80, seed=seed, difficulty="easy")
    lines = ["name,patient"]
    for cell in cells:
        folder = root / name / cells.class_names[cell.label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell.image).save(folder / cell.name)
        lines.append(f"{cell.name},{cell.patient}")
    (root / f"{name}.csv").write_text("\n".join(lines))


def test_the_tutorial_in_six_lines_of_shell(tmp_path) -> None:
    write_set(tmp_path, "cells", 0)
    write_set(tmp_path, "new_cells", 1)
    (tmp_path / "smear").mkdir()
    for field in cellscan.synthetic_fields(2, seed=0):
        Image.fromarray(field.image).save(tmp_path / "smear" / field.name)
    (block,) = [code for _, code in read_blocks("command_line", "shell")]
    lines = block.splitlines()
    assert len(lines) == 6
    command = f'"{sys.executable}" -m cellscan '
    for line in lines:
        assert line.startswith("cellscan ")
        done = subprocess.run(
            line.replace("cellscan ", command, 1), shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "not a medical device" in (tmp_path / "report.txt").read_text()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 81
    assert "red cells" in (tmp_path / "smear.txt").read_text()
