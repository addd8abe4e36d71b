"""With unexpected arguments, public calls of `cellscan.data` return or raise an error of cellscan."""

from pathlib import Path
from typing import Any

import pytest
from helpers import random_image, tiny_cells, write_cells
from hypothesis import given, settings
from odd import odd

import cellscan


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_cells(tmp_path_factory.mktemp("d"), {"Parasitized": ["1.png"], "Uninfected": ["2.png"]})


def somewhere(value: Any) -> Any:
    """Return a value, unless it is the path of a folder that takes long to list."""
    return "absent" if isinstance(value, str) and not value.strip("/.") else value


IMAGES = [random_image(0), random_image(1)]
CELLS: Any = tiny_cells()
PIXELS: Any = CELLS.images(8)
SCAN: Any = cellscan
MAKE: Any = cellscan.CellDataset.from_arrays
CALLS = {
    "load_folder": lambda x, d: SCAN.load_folder(somewhere(x)),
    "load_folder, patient": lambda x, d: SCAN.load_folder(d, patient=x),
    "load_malaria, patient_files": lambda x, d: SCAN.load_malaria(d, patient_files=x),
    "load_malaria": lambda x, d: SCAN.load_malaria("absent" if x is None else somewhere(x)),
    "synthetic_cells, seed": lambda x, d: SCAN.synthetic_cells(8, seed=x),
    "synthetic_cells, difficulty": lambda x, d: SCAN.synthetic_cells(8, difficulty=x if isinstance(x, str) else "x"),
    "synthetic_cells": lambda x, d: SCAN.synthetic_cells(x if not isinstance(x, int) or x < 99 else 99),
    "synthetic_fields, size": lambda x, d: SCAN.synthetic_fields(1, size=x),
    "malaria_patient": lambda x, d: SCAN.malaria_patient(x),
    "concat": lambda x, d: SCAN.concat(x),
    "concat, second": lambda x, d: SCAN.concat([CELLS, x]),
    "from_arrays": lambda x, d: MAKE(x, [0, 1]),
    "from_arrays, image": lambda x, d: MAKE([x, IMAGES[1]], [0, 1]),
    "from_arrays, labels": lambda x, d: MAKE(IMAGES, x),
    "from_arrays, label": lambda x, d: MAKE(IMAGES, [0, x]),
    "from_arrays, class_names": lambda x, d: MAKE(IMAGES, [0, 1], class_names=x),
    "from_arrays, patients": lambda x, d: MAKE(IMAGES, [0, 1], patients=x),
    "from_arrays, patient": lambda x, d: MAKE(IMAGES, [0, 1], patients=["a", x]),
    "from_arrays, names": lambda x, d: MAKE(IMAGES, [0, 1], names=x),
    "from_arrays, name": lambda x, d: MAKE(IMAGES, [0, 1], names=["a", x]),
    "cells[]": lambda x, d: CELLS[x],
    "select": lambda x, d: CELLS.select(x),
    "without": lambda x, d: CELLS.without(x),
    "rename_classes": lambda x, d: CELLS.rename_classes(x),
    "rename_classes, name": lambda x, d: CELLS.rename_classes({"parasitized": x}),
    "split": lambda x, d: CELLS.split(test=x),
    "split, positional": lambda x, d: CELLS.split(x),
    "split, seed": lambda x, d: CELLS.split(test=0.3, seed=x),
    "fold_numbers": lambda x, d: CELLS.fold_numbers(x),
    "fold_numbers, seed": lambda x, d: CELLS.fold_numbers(2, seed=x),
    "folds": lambda x, d: list(CELLS.folds(x)),
    "write_folds, folds": lambda x, d: CELLS.write_folds(d.parent / "f.csv", x),
    "write_folds": lambda x, d: CELLS.write_folds(d / "absent" / str(x), 2),
    "images": lambda x, d: CELLS.images(x if not isinstance(x, int) or x < 99 else 99),
    "open_pixels": lambda x, d: CELLS.open_pixels(x if not isinstance(x, int) or x < 99 else 10**9),
    "plot, seed": lambda x, d: CELLS.plot(1, 1, seed=x),
    "plot, size": lambda x, d: CELLS.plot(1, 1, size=x if not isinstance(x, int) or x < 99 else 99),
    "pixels[]": lambda x, d: PIXELS[x],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(value=odd)
def test_an_answer_or_an_error_of_ours(call, folder, value) -> None:
    try:
        CALLS[call](value, folder)
    except cellscan.CellscanError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
