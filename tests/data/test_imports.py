"""The modules of `cellscan.data` import one another without cycles."""

import ast
from graphlib import TopologicalSorter

from helpers import REPOSITORY

PACKAGE = REPOSITORY / "src" / "cellscan" / "data"


def test_no_circle_of_imports() -> None:
    imports: dict[str, set[str]] = {}
    for path in PACKAGE.glob("*.py"):
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        names = {module.removeprefix("cellscan.data.") for module in modules if module}
        imports[path.stem] = names & {other.stem for other in PACKAGE.glob("*.py")}
    assert imports["cells"] >= {"pixels", "description"}  # found inside functions and under TYPE_CHECKING, too
    assert imports["loaders"] >= {"_malaria_builder", "malaria"}
    tuple(TopologicalSorter(imports).static_order())  # raises CycleError
