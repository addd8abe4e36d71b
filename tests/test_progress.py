"""Progress bars and lines, and the switch that hides all of them."""

import ast
import sys
import types
from typing import Any

import pytest
from helpers import REPOSITORY, run_python, tiny_cells

import cellscan
from cellscan import progress
from cellscan.progress import Progress

SOURCE = REPOSITORY / "src" / "cellscan"


@pytest.fixture(autouse=True)
def _untouched(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_switch", None)
    monkeypatch.delenv(progress.VARIABLE, raising=False)


def run(**options) -> None:
    """Advance over ten images, with a permanent line."""
    with Progress("counting", 10, delay=0, **options) as bar:
        for number in range(10):
            bar.advance(1, f"image {number}")
        bar.line("half of <it>")
        bar.advance(0)


@pytest.mark.parametrize("argument", [True, False])
@pytest.mark.parametrize("switch", [True, False, None])
@pytest.mark.parametrize("variable", ["0", "1", "", None])
def test_argument_and_switch_must_both_allow_it(argument, switch, variable, monkeypatch, capfd) -> None:
    if variable is not None:
        monkeypatch.setenv("CELLSCAN_PROGRESS", variable)
    if switch is not None:
        cellscan.set_progress(switch)
    run(show=argument)
    allowed = switch if switch is not None else variable != "0"
    said = capfd.readouterr()
    assert ("half of <it>" in said.err) == (argument and allowed)
    assert said.out == ""


def test_wrong_values_are_refused(monkeypatch) -> None:
    for value in (0, "off", None):
        with pytest.raises(cellscan.ArgumentError, match="expected True or False"):
            cellscan.set_progress(value)  # type: ignore[arg-type]
    monkeypatch.setenv("CELLSCAN_PROGRESS", "no")
    with pytest.raises(cellscan.ArgumentError, match="CELLSCAN_PROGRESS is 'no'; expected 0 or 1"):
        Progress("counting", 10)
    Progress("counting", 10, show=False)


def test_the_switch_silences_training_evaluation_and_studies(capfd) -> None:
    cells = tiny_cells()
    options: dict[str, Any] = {"folds": 2, "epochs": 1, "image_size": 16, "batch_size": 24}
    cellscan.cross_validate("small_cnn", cells, **options)
    said = capfd.readouterr()
    assert "fold 2 of 2, seed 0" in said.err
    assert "epoch   1 of 1" in said.err
    assert said.out == ""
    cellscan.set_progress(False)
    study = cellscan.cross_validate("small_cnn", cells, **options)
    study.members[0].evaluate(cells)
    assert capfd.readouterr() == ("", "")


def test_a_child_process_reads_the_variable() -> None:
    code = "from cellscan.progress import Progress; print(Progress('counting', 1).show)"
    assert run_python(code, env={"CELLSCAN_PROGRESS": "0"}) == "False"
    assert run_python(code, env={"CELLSCAN_PROGRESS": "1"}) == "True"


class Output:
    """Output of a notebook cell: everything that it displayed, in order."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: str) -> None:
        self.shown.append(html)


def test_a_notebook_needs_no_other_package(monkeypatch, capfd) -> None:
    output = Output()

    def display(html: str, *, display_id: bool) -> Output:
        output.update(html)
        return output

    shell = types.SimpleNamespace(kernel=object())
    ipython, module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    module.HTML, module.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    run()
    assert 'max="10"' in output.shown[0]
    assert output.shown[-1] == "<pre>half of &lt;it&gt;</pre>"
    assert capfd.readouterr() == ("", "")
    count = len(output.shown)
    run(show=False)
    assert len(output.shown) == count


def test_a_terminal_shows_a_bar(monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run()
    assert "counting" in capfd.readouterr().err


def test_a_paused_bar_leaves_the_terminal_to_the_caller(monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal, as it does outside tests
    with Progress("training", 10, delay=0) as bar:
        bar.advance(1)
        bar.pause()
        print("a result")
        with Progress("predicting", 10, delay=0) as other:
            other.advance(1)
        assert capfd.readouterr().out == "a result\n"
        bar.advance(1)
    assert "training" in capfd.readouterr().err


def test_only_results_are_printed() -> None:
    """Messages of the library are progress, warnings or errors; `Classifier.summary` prints its table."""
    printing = {
        path.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"classifier.py", "cli.py", "progress.py"}
