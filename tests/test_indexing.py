"""Data sets and results index as NumPy's arrays do, all in the same way."""

from typing import Any

import numpy as np
import pytest
from helpers import random_image, tiny_cells
from sklearn.metrics import accuracy_score

import cellscan
from cellscan.evaluate.confident import LabelIssues
from cellscan.evaluate.patients import make_patients
from cellscan.predictions import Predictions

COUNT = 6


def make_fields() -> cellscan.FieldDataset:
    images = [random_image(seed, 40, 50) for seed in range(COUNT)]
    boxes = [np.array([[1, 1, 9 + row, 9]]) for row in range(COUNT)]
    return cellscan.FieldDataset.from_arrays(
        images, boxes, [[row % 2] for row in range(COUNT)], class_names=("red blood cell", "infected"),
        patients=[f"p{row // 2}" for row in range(COUNT)],
    )  # fmt: skip


def make_detections(name: str = "a") -> cellscan.Detections:
    boxes = np.array([[row, row, row + 5, row + 5] for row in range(COUNT)], np.float32)
    labels, scores = np.arange(COUNT, dtype=np.int32) % 2, np.linspace(0.9, 0.4, COUNT, dtype=np.float32)
    names = ("red blood cell", "infected")
    return cellscan.Detections(name, (50, 40), boxes, labels, scores, names, random_image(0, 40, 50))


def make_predictions() -> Predictions:
    chance = np.linspace(0.1, 0.9, COUNT, dtype=np.float32)
    probabilities = np.stack([chance, 1 - chance], 1)
    names = tuple(f"{row}.png" for row in range(COUNT))
    return Predictions(
        probabilities.argmax(1).astype(np.int32), probabilities, np.arange(COUNT), names, (),
        ("parasitized", "uninfected"), "parasitized",
    )  # fmt: skip


def make_suspects() -> LabelIssues:
    cells = tiny_cells()
    chance = np.linspace(0.1, 0.9, len(cells), dtype=np.float32)
    return LabelIssues(np.array([9, 3, 5, 1, 7, 0]), chance, np.stack([chance, 1 - chance], 1), cells)


def make_judged() -> Any:
    rng = np.random.default_rng(0)
    labels = np.r_[rng.integers(0, 2, 60), np.ones(60, int)]
    owners = np.repeat([f"p{row}" for row in range(COUNT)], 20)
    return make_patients(labels, np.where(rng.random(120) < 0.2, 1 - labels, labels), owners, 0, rule=0.3)


KINDS = {
    "cells": (lambda: tiny_cells()[:COUNT], "name"),
    "fields": (make_fields, "name"),
    "predictions": (make_predictions, "name"),
    "detections": (make_detections, "score"),
    "detections of fields": (
        lambda: cellscan.FieldDetections(
            tuple(make_detections(f"{row}") for row in range(COUNT)), (), ("red blood cell", "infected")
        ),
        "name",
    ),
    "suspects": (make_suspects, "name"),
    "patients": (make_judged, "patient"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_index_alike(kind) -> None:
    make, key = KINDS[kind]
    things: Any = make()
    assert len(things) == COUNT
    keys = [getattr(one, key) for one in things]
    assert len(set(keys)) == COUNT
    for index in (0, -1, np.int64(2), np.uint8(3), -COUNT):
        assert getattr(things[index], key) == keys[index]
    parts = (
        (slice(1, 4), [1, 2, 3]), (slice(None, None, -1), [5, 4, 3, 2, 1, 0]), (slice(9, 12), []), ([0, -1], [0, 5]),
        (np.array([2, 2]), [2, 2]), (np.arange(COUNT) > 3, [4, 5]), ([True] + [False] * 5, [0]), ([], []),
    )  # fmt: skip
    for index, rows in parts:
        part = things[index]
        assert type(part) is type(things)
        assert [getattr(one, key) for one in part] == [keys[row] for row in rows]
        assert len(part) == len(rows)
    for bad in (True, "a", None, 1.5, [0.5], [True], np.zeros((2, 2), int), [COUNT], slice("a", None)):
        with pytest.raises(cellscan.ArgumentError, match=f"is not an index of {COUNT}"):
            things[bad]
    for bad in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError, match=f"there are {COUNT}"):
            things[bad]


def test_predictions_are_labels_to_numpy_and_scikit_learn() -> None:
    preds, y = make_predictions(), np.array([1, 1, 0, 1, 0, 0])
    assert accuracy_score(y, preds) == (preds == y).mean() == (np.asarray(preds) == y).mean()
    assert set(preds[preds.labels == 0].labels.tolist()) == {0}
    assert np.asarray(preds[:3]).tolist() == preds.labels[:3].tolist()


def test_a_part_of_the_patients_has_figures_of_its_own() -> None:
    patients = make_judged()
    whole = patients[:]
    assert (whole.rows, whole.rule, str(whole)) == (patients.rows, patients.rule, str(patients))
    truth = np.array([row.truth for row in patients])
    sick, healthy = patients[truth], patients[~truth]
    assert (len(sick), len(healthy)) == (3, 3)
    assert sick.sensitivity == patients.sensitivity
    assert np.isnan(sick.specificity)
    assert healthy.specificity == patients.specificity
    assert healthy.false_per_thousand == patients.false_per_thousand
    assert np.isnan(patients[:0].sensitivity)


def test_both_kinds_of_sets_have_the_same_verbs(tmp_path) -> None:
    cells, fields = tiny_cells(), make_fields()
    for data in (cells, fields):
        things: Any = data
        first, second = things.class_names
        with pytest.raises(cellscan.DataError, match="'rong' is not among"):
            things.rename_classes({"rong": "a"})
        with pytest.raises(cellscan.ArgumentError, match="mapping from (old )?names to (new )?names"):
            things.rename_classes({first: 3})
        with pytest.raises(cellscan.DataError, match="'rong' is not among"):
            things.drop_classes(["rong"])
        with pytest.raises(cellscan.DataError, match=f"'{first}' is there already"):
            things.add_classes([first])
        with pytest.raises(cellscan.DataError, match="not distinct"):
            things.add_classes([first.upper()])
        assert things.add_classes(["platelet"]).per_class() == {**things.per_class(), "platelet": 0}
        assert things.drop_classes([first]).per_class() == {second: things.per_class()[second]}
        assert things.sizes.shape == (len(things), 2)
        assert things[[1, 0]].sizes.tolist() == things.sizes[[1, 0]].tolist()
        assert not things.sizes.flags.writeable
        assert things.hash(pixels=False) != things[:3].hash(pixels=False)
        with pytest.raises(cellscan.ArgumentError, match="expected a number from 2, or a fold file"):
            things.folds(1)
    assert cells.rename_classes({"parasitized": "a"}).class_names[0] == "a"
    with pytest.raises(cellscan.ArgumentError, match=r"drop_classes\(\['parasitized'\]\)"):
        cells.rename_classes({"parasitized": None})  # type: ignore[dict-item]
    with pytest.raises(cellscan.DataError, match="expected one to be left"):
        cells.drop_classes(cells.class_names)
    file = tmp_path / "folds.csv"
    file.write_text("patient,fold\np0,0\np1,1\np2,1\n")
    assert [sorted(set(test.patients.tolist())) for _, test in fields.folds(file)] == [["p0"], ["p1", "p2"]]
    with pytest.raises(cellscan.ArgumentError, match="divides by patient"):
        fields.folds(file, by="slide")
