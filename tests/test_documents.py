"""The code blocks of the documents run, on small synthetic stand-ins for the user's own files and variables."""

import functools
import re
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import REPOSITORY, nih_name
from pages import read_fences, run_block
from PIL import Image

import cellscan
from cellscan import progress
from cellscan.cli import main

# These pages are tested elsewhere.
ELSEWHERE = {"scikit_learn.md", "dataframes.md"}
ELSEWHERE |= {"torch_loader.md", "grain_pipeline.md", "nnx_loop.md", "optuna_search.md", "tracking.md"}

# Blocks that do not run here, by file and number, with the reason.
NOT_RUN = {
    ("backbones.md", 1): "downloads weights",
    ("backbones.md", 2): "reads a downloaded file",
    ("backbones.md", 3): "downloads weights",
    ("own_microscope.md", 7): "compiles for a minute to train the bundled detector; fields.md has the same calls",
    ("own_microscope.md", 8): "compiles for a minute to train the bundled classifier, on the NIH set",
    ("own_microscope.md", 9): "uses what 7 and 8 trained",
    ("model_file.md", 1): "needs an account on the hub; tests/test_hub.py has the same calls",
    ("own_images.md", 3): "its lines read folders of different layouts; tests/data/test_layouts.py reads each",
    ("releasing.md", 1): "code for the library itself; tests/test_project.py runs it",
    ("studies.md", 3): "downloads weights",
    ("training.md", 4): "starts several machines; tests/training/test_devices.py runs it with several processes",
}
if find_spec("jax2onnx") is None:
    NOT_RUN["exporting.md", 1] = "jax2onnx is for Python 3.12 and newer"


def python_blocks(path: Path) -> list[tuple[int, str]]:
    return [(line, code) for line, language, code in read_fences(path) if language == "python"]


PAGES = {
    path.name: path
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    if python_blocks(path) and path.name not in ELSEWHERE
}


def make_cells() -> cellscan.CellDataset:
    """Return cells of 36 patients, a quarter of them healthy, whose class is their brightness."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(36), 8)
    labels = np.where((np.tile(np.arange(8), 36) < 5) & (patient // 3 % 4 > 0), 0, 1)
    light = np.where(labels == 0, 90, 170)[:, None, None, None]
    images = np.clip(light + rng.normal(0, 20, (len(labels), 24, 24, 3)), 40, 255).astype(np.uint8)
    return cellscan.CellDataset.from_arrays(images, labels, patients=[f"p{number}" for number in patient])


def save_images(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


def save_cells(folder: Path, cells: cellscan.CellDataset, folders: tuple[str, str], name: Callable[..., str]) -> None:
    """Write cells into a folder for each class; `name` returns a file name from the numbers of patient and cell."""
    for number, cell in enumerate(cells):
        path = folder / folders[cell.label] / name(1 + int(cell.patient.removeprefix("p")), number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell.image).save(path)


def save_fields(folder: Path, fields: cellscan.FieldDataset, class_names: tuple[str, str]) -> None:
    """Write fields in COCO's format as other programs do, with other names of their classes."""
    images = [field.image for field in fields]
    names = [f"{folder.name}_{100 * number}.png" for number in range(len(images))]  # no run of consecutive fields
    cellscan.FieldDataset.from_arrays(images, fields.boxes, fields.labels, class_names=class_names, names=names).save(
        folder
    )
    (folder / "cellscan.json").unlink()


def make_files(root: Path) -> None:
    """Write the files that the blocks read."""
    cells = make_cells()
    images = [cell.image for cell in cells[:4]]
    fields = cellscan.synthetic_fields(8, seed=3, size=(180, 240))
    pictures = [field.image for field in fields]
    for folder in ("folder", "folder_of_cells", "images"):
        save_images(root / folder, images)
    save_images(root / "new", [image[..., 0].astype(np.uint16) * 16 for image in images])  # 12 bits
    for folder in ("folder_of_fields", "fields", "smear"):
        save_images(root / folder, pictures[:1])
    save_images(root / "photographs", pictures[:2])
    Image.fromarray(pictures[0]).save(root / "field.jpg")
    save_cells(root / "dir", cells, ("infected", "healthy"), "p{}_{}.png".format)
    save_cells(root / "nih", cells, ("Parasitized", "Uninfected"), nih_name)
    with zipfile.ZipFile(root / "cell_images.zip", "w") as archive:
        for path in sorted((root / "nih").rglob("*.png")):
            archive.write(path, f"cell_images/{path.relative_to(root / 'nih')}")
    patients = sorted(set(cellscan.load_malaria(root / "nih").patients.tolist()))
    lines = [f"{patient},{number % 2}" for number, patient in enumerate(patients)]
    (root / "folds.csv").write_text("\n".join(["patient,fold", *lines]) + "\n")
    names = cellscan.load_folder(root / "dir").names.tolist()
    lines = [f"{name},{name.split('/')[1].split('_')[0]}" for name in names]
    (root / "patients.csv").write_text("\n".join(["name,patient", *lines]) + "\n")
    (root / "ticked.csv").write_text(f"name\n{cells.names[0]}\n")
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for number in range(4):
            archive.write(root / "images" / f"{number}.png", f"{number}.png")
    lines = [f"images/{n}.png,{n}.png,{'ab'[n % 2]},{'ab'[n % 2]},p{n}" for n in range(4)]
    (root / "cells.csv").write_text("\n".join(["path,file,label,class,patient", *lines]) + "\n")
    for folder in ("iml", "iml_malaria", "coco"):
        save_fields(root / folder, fields, ("red blood cell", "ring"))
    save_fields(root / "BCCD", fields, ("RBC", "WBC"))
    save_fields(root / "corrected", fields[:4], ("red blood cell", "infected"))
    for path in (root / "coco").rglob("*.png"):
        path.rename(root / "images" / path.name)
    (annotations,) = (root / "coco").rglob("*.json")
    annotations.rename(root / "annotations.json")


def variables(page: str, root: Path) -> dict[str, Any]:
    """Return the variables that the text of a page assumes."""
    cells = make_cells()
    train, valid, test = (cells.select(np.flatnonzero(np.arange(36).repeat(8) % 3 == part)) for part in range(3))
    known: dict[str, Any] = {"cellscan": cellscan, "train": train, "valid": valid, "test": test, "cells": cells}
    if page in ("training.md", "exporting.md", "own_images.md"):
        known["clf"] = cellscan.Classifier(image_size=16, seed=0)
    if page == "own_images.md":
        import pandas

        files = [f"{number}.png" for number in range(4)]
        known |= {"images": np.asarray(cells.images(24)), "labels": cells.labels, "ids": cells.patients}
        known["frame"] = pandas.DataFrame({"path": files, "label": list("abab"), "donor": list("wxyz")})
    if page == "studies.md":
        known |= {"names": cellscan.load_malaria(root / "nih").names[:3].tolist(), "crops": valid}
    if page == "html_pages.md":
        clf = cellscan.Classifier(image_size=16, seed=0)
        known |= {"clf": clf, "report": clf.evaluate(test), "detector": cellscan.Detector.pretrained()}
        known["study"] = cellscan.cross_validate("small_cnn", cells, folds=2)
    if page == "own_microscope.md":
        known["ten_photographs"] = sorted(str(path) for path in (root / "photographs").iterdir())
        known["test_fields"] = cellscan.synthetic_fields(2, seed=1, size=(180, 240))
    return known


def at_most(function: Callable[..., Any], *positions: int, **limits: Any) -> Callable[..., Any]:
    """Limit arguments of a function that make it slow: one at a position, or those with a keyword."""

    @functools.wraps(function)
    def limited(*args: Any, **options: Any) -> Any:
        values = [min(value, *positions) if isinstance(value, int) else value for value in args] if positions else args
        return function(*values, **{**options, **{k: min(options.get(k, limit), limit) for k, limit in limits.items()}})

    return limited


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the numbers of images and epochs, and the sizes of images."""
    patch = monkeypatch.setattr
    patch(progress, "_switch", None)  # training.md switches progress off.
    patch(cellscan.Classifier, "__init__", at_most(cellscan.Classifier.__init__, image_size=16))
    patch(cellscan.Classifier, "fit_epochs", at_most(cellscan.Classifier.fit_epochs, epochs=1, batch_size=16))
    patch(cellscan.Detector, "__init__", at_most(cellscan.Detector.__init__, image_size=(96, 128)))
    patch(cellscan.Detector, "fit_epochs", at_most(cellscan.Detector.fit_epochs, epochs=1, batch_size=2))
    patch(cellscan, "cross_validate", at_most(cellscan.cross_validate, epochs=1, image_size=16), raising=False)
    patch(cellscan, "mosaic_fields", at_most(cellscan.mosaic_fields, 2), raising=False)
    patch(cellscan, "synthetic_cells", at_most(cellscan.synthetic_cells, 400), raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    make_files(folder)
    return folder


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, root, monkeypatch) -> None:
    monkeypatch.chdir(root)
    known = variables(page, root)
    for number, (line, code) in enumerate(python_blocks(PAGES[page]), 1):
        if (page, number) in NOT_RUN:
            compile(code, page, "exec")
            continue
        run_block(PAGES[page], line, code, known)
    plt.close("all")


def test_blocks_that_do_not_run_exist() -> None:
    for page, number in NOT_RUN:
        assert number <= len(python_blocks(PAGES[page])), f"{page} has no block {number}"


def shell_lines(path: Path) -> list[str]:
    """Return the lines of code that are not Python, and the code in sentences."""
    blocks = [code for _, language, code in read_fences(path) if language != "python"]
    lines = [line.strip().removeprefix("$ ") for code in blocks for line in code.splitlines()]
    sentences = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return lines + re.findall(r"`([^`\n]+)`", sentences)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/releasing.md", "docs/command_line.md"])
def test_the_commands_of_a_page_exist(name, capsys) -> None:
    lines = shell_lines(REPOSITORY / name)
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = [found[1] for line in lines if (found := re.search(r"\bmake ([a-z][a-z-]*)", line))]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"there is no target {target}"
    commands = [found[1] for line in lines if (found := re.match(r"(?:python -m )?cellscan ([a-z]+)", line))]
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"there is no command {command}"
    assert targets or commands


def test_code_is_found() -> None:
    assert len(python_blocks(REPOSITORY / "README.md")) >= 5
    assert "make quickstart" in " ".join(shell_lines(REPOSITORY / "README.md"))
    assert "make test" in shell_lines(REPOSITORY / "CONTRIBUTING.md")
