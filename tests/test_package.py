"""The structure of the package: the cost of an import, the order of its layers, and its documentation."""

import ast
import inspect
import re
from types import ModuleType

import pytest
from helpers import REPOSITORY, run_python

import cellscan

SOURCE = REPOSITORY / "src" / "cellscan"

# The layers of the package, lowest first. A module imports only from its own layer and from lower layers.
LAYERS = (
    "_deprecation",
    "errors", "process", "progress", "notebook", "plots", "tensors", "hub", "data", "pages", "preprocessing", "models",
    "detection", "decisions", "card", "publishing", "tasks", "predictions", "detections", "inference", "explain",
    "export", "training", "evaluate", "classifier", "sklearn", "study", "confirming", "detector", "laboratories",
    "screening", "cli",
)  # fmt: skip


def test_import_is_light() -> None:
    heavy = (
        "flax",
        "optax",
        "tensorflow_datasets",
        "matplotlib",
        "sklearn",
        "pandas",
        "tensorflow",
        "torch",
        "jax",
        "numpy",
    )
    code = f"import sys, cellscan; print([name for name in {heavy!r} if name in sys.modules])"
    assert run_python(code) == "[]"


def test_no_tensorflow_or_torch_after_training() -> None:
    code = """
import sys, cellscan
cells = cellscan.synthetic_cells(16, seed=0)
clf = cellscan.Classifier(image_size=16)
clf.fit(cells, epochs=1, progress=False)
clf.evaluate(cells).plot()
print([name for name in ("tensorflow", "torch", "keras") if name in sys.modules])
"""
    assert run_python(code) == "[]"


def _imports(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cellscan."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "cellscan":
            found |= {alias.name for alias in node.names if alias.name in LAYERS}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_from_lower_layers_only(path) -> None:
    layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if layer in ("__init__", "__main__"):
        return
    wrong = {other for other in _imports(path) if LAYERS.index(other) > LAYERS.index(layer)}
    assert not wrong, f"{path.name} is in the layer {layer} and imports from a higher layer: {', '.join(sorted(wrong))}"


def _modules_imported(source: str, modules: set[str]) -> set[str]:
    """Return what a file imports of the package: at its top, for types alone, and inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "this test reads absolute imports only"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & modules) | ({node.module} if whole - modules else set())
    return found & modules


def _find_circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle in its order, its first again at its end; none where there is no circle."""
    finished = set()

    def walk(path: list[str]) -> list[str]:
        for other in sorted(arrows[path[-1]] - finished):
            if other in path:
                return [*path[path.index(other) :], other]
            if circle := walk([*path, other]):
                return circle
        finished.add(path[-1])
        return []

    return next((circle for name in sorted(arrows) if (circle := walk([name]))), [])


def test_no_circle_of_imports() -> None:
    dotted = {
        ".".join(("cellscan", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
    }
    arrows = {name: _modules_imported(path.read_text(), set(dotted)) for name, path in dotted.items()}
    assert "cellscan.errors" in arrows["cellscan.classifier"]
    circle = _find_circle(arrows)
    assert not circle, f"these import each other in a circle: {' -> '.join(circle)}"


def test_every_kind_of_import_counts() -> None:
    source = """
import a.b
from a import c, name
if TYPE_CHECKING:
    from a.d import Thing
def function():
    from a.e import thing
"""
    assert _modules_imported(source, {"a", "a.b", "a.c", "a.d", "a.e", "a.f"}) == {"a", "a.b", "a.c", "a.d", "a.e"}
    assert _find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_annotated_shape_is_checked(request: pytest.FixtureRequest) -> None:
    asked = request.config.getoption("--jaxtyping-packages")
    if not asked:
        pytest.skip("`make test` checks shapes")
    written = {
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for path in SOURCE.rglob("*.py")
        if "jaxtyping" in path.read_text()
    }
    assert {"cellscan.detection.targets", "cellscan.models.retinanet"} < written
    assert written == set(asked.split(",")) - {"beartype.beartype"}
    import jax.numpy as jnp
    from jaxtyping import TypeCheckError

    from cellscan.detection.anchors import overlaps

    with pytest.raises(TypeCheckError, match="overlaps"):
        overlaps(jnp.zeros((2, 5)), jnp.zeros((3, 4)))


def _public() -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name in cellscan.__all__:
        thing = getattr(cellscan, name)
        if inspect.ismodule(thing):
            exported = {k: getattr(thing, k) for k in getattr(thing, "__all__", vars(thing))}
            found += [(f"{name}.{k}", v) for k, v in exported.items()
                      if not k.startswith("_") and (inspect.isfunction(v) or inspect.isclass(v))]  # fmt: skip
            continue
        if isinstance(thing, dict):  # a table, with a string below it
            continue
        found.append((name, thing))
        if inspect.isclass(thing):
            own = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
            for k, v in own.items():
                if isinstance(v, (property, classmethod, staticmethod)) or inspect.isfunction(v):
                    found.append((f"{name}.{k}", getattr(v, "__func__", v)))
    return found


@pytest.mark.parametrize(("name", "thing"), _public(), ids=lambda x: x if isinstance(x, str) else "")
def test_every_public_name_is_documented_with_an_example(name: str, thing: object) -> None:
    text = inspect.getdoc(thing) or ""
    assert ">>> " in text, f"{name} has no docstring with an example"


def test_all_names_resolve_and_unknown_ones_fail() -> None:
    for name in cellscan.__all__:
        assert getattr(cellscan, name) is not None
    for name in ("nonsense", "classifiers"):
        with pytest.raises(AttributeError, match=name):
            getattr(cellscan, name)


def _names_of(module: ModuleType) -> set[str]:
    """Return what can be imported from a public module; submodules are internal."""
    names = {name for name in dir(module) if not name.startswith("_")}
    return {name for name in names if not inspect.ismodule(getattr(module, name))}


def test_the_reference_lists_what_can_be_imported_from_public_modules() -> None:
    listed = re.findall(r"^ {3}([A-Za-z_.]+)$", (REPOSITORY / "docs" / "reference.rst").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    names = _names_of(cellscan)
    names |= {f"sklearn.{name}" for name in cellscan.sklearn.__all__}  # a module, which also has what it imports
    for package in (cellscan.models, cellscan.training):
        # A name of both modules is listed once, as the shorter one.
        names |= {f"{package.__name__.removeprefix('cellscan.')}.{name}" for name in _names_of(package) - names}
    assert names == set(listed), "docs/reference.rst lists other names than can be imported, see its first lines"


def test_a_name_without_underscore_is_noticed() -> None:
    assert {"create", "list_backbones"} == _names_of(cellscan.models)
    assert "models" not in _names_of(cellscan)
    assert set(cellscan.__all__) == _names_of(cellscan) | {"models", "sklearn", "training"}


def test_documents_import_public_names_only() -> None:
    documents = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    found = []
    for path in [*documents, *(REPOSITORY / "examples").glob("*.py")]:
        allowed = {"cellscan.models", "cellscan.sklearn", "cellscan.training"}
        if path not in documents:  # Two pages of the gallery show what the network gets; no public function returns it.
            allowed.add("cellscan.preprocessing")
        modules = set(re.findall(r"^ *(?:from|import) (cellscan\.[\w.]+)", path.read_text(), re.MULTILINE))
        found += [f"{path.name}: {module}" for module in modules - allowed]
    assert not found, "these modules are internal"


def test_errors_are_one_family() -> None:
    for name in ("ArgumentError", "DataError", "ImageError", "ModelFileError", "TrainingError"):
        assert issubclass(getattr(cellscan, name), cellscan.CellscanError)
    assert issubclass(cellscan.ImageError, ValueError)


def test_what_a_change_touches_is_what_contributing_says() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    table = text[text.index("| a new | such as | named in |") :].split("\n\n")[0].splitlines()[2:]
    assert len(table) == 5
    for row in table:
        what, example, files = (cell.strip() for cell in row.strip("|").split("|"))
        word = example.strip("`")
        # an option is named as an argument or as a field: image_size=..., image_size: int
        name = re.compile(rf"\b{word[:-1]}(=|: \w)" if word.endswith("=") else rf"\b{word}(\b|_|v2)")
        found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if name.search(path.read_text())}
        assert found == set(re.findall(r"`([^`]+)`", files)), f"a new {what}"
