"""Project files: oldest dependencies, pinned tools, deprecations and pinned actions."""

import importlib
import json
import re
import runpy
import tomllib
import warnings

import pytest
from helpers import REPOSITORY

import cellscan
from cellscan._deprecation import deprecated

_CONFIGURATION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def _read(name: str) -> str:
    path = REPOSITORY / name
    if not path.exists():
        pytest.skip(f"{name} is not in a source distribution")
    return path.read_text(encoding="utf-8")


def test_oldest_dependencies_are_those_that_are_promised() -> None:
    def release(text: str) -> tuple[int, ...]:
        numbers = [int(part) for part in text.split(".")]
        return tuple(numbers + [0] * (3 - len(numbers)))

    promised = {}
    for line in _CONFIGURATION["project"]["dependencies"]:
        found = re.match(r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)", line)
        assert found, f"{line} states no oldest release"
        promised[found[1]] = release(found[2])
    lines = [line for line in _read("tests/oldest.txt").splitlines() if line and not line.startswith("#")]
    assert {name: release(number) for name, number in (line.split("==") for line in lines)} == promised


def test_hooks_run_the_ruff_of_pyproject() -> None:
    wanted = next(x for x in _CONFIGURATION["project"]["optional-dependencies"]["dev"] if x.startswith("ruff=="))
    assert set(re.findall(r"ruff==[\d.]+", _read(".pre-commit-config.yaml"))) == {wanted}


def test_version_stands_once() -> None:
    assert f"version: {cellscan.__version__}\n" in _read("CITATION.cff")
    assert f"## {cellscan.__version__}" in _read("CHANGELOG.md")


def test_the_site_lists_the_versions_of_the_changelog() -> None:
    listed = json.loads(_read("docs/_static/versions.json"))
    wanted = []
    for version, when in re.findall(r"^## ([\d.]+) \((.+)\)$", _read("CHANGELOG.md"), re.MULTILINE):
        developed = when == "unreleased"
        name, folder = (f"{version} (dev)", "latest") if developed else (version, f"v{version}")
        wanted.append({"name": name, "version": version, "url": f"/en/{folder}/"})
    assert listed == wanted
    assert listed[0]["version"] == cellscan.__version__


@pytest.mark.parametrize(("kind", "switches"), [("branch", True), ("tag", True), ("external", False), (None, False)])
def test_only_a_published_site_has_a_version_switcher(kind, switches, monkeypatch) -> None:
    _read("docs/conf.py")
    monkeypatch.delenv("READTHEDOCS_VERSION_TYPE", raising=False)
    if kind:
        monkeypatch.setenv("READTHEDOCS_VERSION_TYPE", kind)
    for name in ("CELLSCAN_CACHE", "MPLBACKEND"):
        monkeypatch.setenv(name, "as it was")  # conf.py sets them for the build
    options = runpy.run_path(str(REPOSITORY / "docs" / "conf.py"))["html_theme_options"]
    assert ("switcher" in options) == ("version-switcher" in options.get("navbar_end", ())) == switches
    if switches:
        assert options["switcher"]["version_match"] == cellscan.__version__
        path = options["switcher"]["json_url"].removeprefix("/en/latest/")
        assert (REPOSITORY / "docs" / path).exists()


def test_the_readme_of_a_package_links_to_files_at_its_tag() -> None:
    text = _read("README.md")
    files = re.findall(r'(?:\]\(|src=")(?!https?:|#)([^)#"]+)', text)
    assert len(files) > 30
    for rule in _CONFIGURATION["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    repository = _CONFIGURATION["project"]["urls"]["Repository"]
    pictures = repository.replace("https://github.com/", "https://raw.githubusercontent.com/")
    for file in files:
        assert (REPOSITORY / file).exists(), file
        address = pictures if file.endswith((".png", ".svg")) else f"{repository}/blob"
        assert f"{address}/v$HFPR_VERSION/{file}" in text
    assert not re.findall(r'(?:\]\(|src=")(?!https?:)', text)


def test_the_logo_is_what_its_script_draws() -> None:
    drawn = runpy.run_path(str(REPOSITORY / "docs" / "make_logo.py"))
    assert drawn["make_svg"]() == _read("docs/_static/logo.svg")
    icon = drawn["make_icon"](16).convert("RGB")
    assert min(icon.getpixel((7, 9))) > 200  # the ring is open at the size of an icon
    assert max(icon.getpixel((4, 9))) < 180


def test_actions_are_pinned_by_commit() -> None:
    paths = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
    if not paths:
        pytest.skip("workflows are not in a source distribution")
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert "\npermissions: {}\n" in text, path.name
        for line in re.findall(r"uses: .*", text):
            assert re.fullmatch(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), f"{path.name}: {line}"


def test_slower_ratios_are_found(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    ratios = importlib.import_module("ratios")
    old, new = {"a": 2.0, "b": 2.0, "removed": 1.0}, {"a": 1.53, "b": 1.54, "added": 0.1}
    assert ratios.find_slower(new, old, 1.3) == ["a: 1.53, before 2.00"]
    assert not ratios.find_slower(old, old, 1.0)


def test_a_deprecation_names_what_when_and_what_instead() -> None:
    def old() -> None:
        deprecated("old()", "new()", "0.3")

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        old()
    (warning,) = seen
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    assert str(warning.message) == "old() is deprecated and will be removed in cellscan 0.3; use new() instead"
