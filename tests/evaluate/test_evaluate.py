"""Figures agree with scikit-learn; intervals are over patients."""

import time

import numpy as np
import pytest
from helpers import tiny_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import cellscan
from cellscan.evaluate.bootstrap import intervals
from cellscan.evaluate.metrics import confusion_matrix, from_confusion, macro_roc_auc, roc_auc
from cellscan.evaluate.report import Seen, make_report


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_figures_equal_scikit_learns(seed, classes) -> None:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(0, classes, 60)]
    predicted = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, classes, len(labels)))
    got = from_confusion(confusion_matrix(labels, predicted, classes), 0)
    assert np.isclose(got["accuracy"], sk.accuracy_score(labels, predicted))
    assert np.isclose(got["balanced_accuracy"], sk.balanced_accuracy_score(labels, predicted))
    assert np.isclose(got["mcc"], sk.matthews_corrcoef(labels, predicted))
    if classes == 2:
        assert np.isclose(got["sensitivity"], sk.recall_score(labels, predicted, pos_label=0))
        assert np.isclose(got["specificity"], sk.recall_score(labels, predicted, pos_label=1))
        assert np.isclose(got["f1"], sk.f1_score(labels, predicted, pos_label=0))
        if (predicted == 0).any():
            assert np.isclose(got["precision"], sk.precision_score(labels, predicted, pos_label=0))
    else:
        assert np.isclose(got["f1"], sk.f1_score(labels, predicted, average="macro"))
        assert np.isnan(got["sensitivity"])
    scores = rng.random((len(labels), classes)).round(1)  # with ties
    scores /= scores.sum(1, keepdims=True) + 1e-9
    weights = rng.integers(1, 4, len(labels)).astype(float)
    if classes == 2:
        want = sk.roc_auc_score(labels == 0, scores[:, 0], sample_weight=weights)
    else:
        each = [sk.roc_auc_score(labels == k, scores[:, k], sample_weight=weights) for k in range(classes)]
        want = np.mean(each)
    assert np.isclose(macro_roc_auc(labels, scores, 0, weights[None])[0], want)


def test_undefined_figures_are_nan() -> None:
    got = from_confusion(np.array([[0, 0], [1, 4]]), 0)
    assert np.isnan(got["sensitivity"])
    assert got["specificity"] == 0.8
    assert np.isnan(roc_auc(np.ones(3, bool), np.arange(3.0), np.ones((1, 3))))[0]


def test_intervals_over_patients_are_wider_when_patients_differ() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 50)
    right = rng.random(1000) < np.repeat(rng.choice([0.7, 1.0], 20), 50)
    labels = rng.integers(0, 2, 1000)
    predicted = np.where(right, labels, 1 - labels)
    scores = np.eye(2)[predicted]
    by_patient = intervals(labels, predicted, scores, patients, 0)["accuracy"]
    by_cell = intervals(labels, predicted, scores, np.arange(1000), 0)["accuracy"]
    assert by_patient[1] - by_patient[0] > 2 * (by_cell[1] - by_cell[0])
    assert by_patient[0] < right.mean() < by_patient[1]


def test_one_patient_gives_no_interval() -> None:
    labels = np.array([0, 1, 1, 0])
    found = intervals(labels, labels, np.eye(2)[labels], np.zeros(4), 0)
    assert all(np.isnan(found[name]).all() for name in found)
    text = str(cellscan.Classifier(image_size=32).evaluate(tiny_cells(20, patients=1)))
    assert "accuracy" in text
    assert "nan" not in text


def test_a_bootstrap_of_cells_covers_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    predicted = np.where(rng.random(2000) < 0.9, labels, 1 - labels)
    low, high = intervals(labels, predicted, np.eye(2)[predicted], np.arange(2000), 0)["accuracy"]
    theory = 2 * 1.96 * np.sqrt(0.9 * 0.1 / 2000)
    assert 0.8 * theory < high - low < 1.2 * theory


def test_intervals_of_the_whole_set_in_bounded_chunks() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 27_558)
    scores = rng.random((27_558, 2))
    start = time.monotonic()
    found = intervals(labels, scores.argmax(1), scores, rng.integers(0, 200, 27_558), 0, draws=50)
    print(f"50 draws of 27,558 predictions: {time.monotonic() - start:.2f} s")
    assert found["roc_auc"][0] < 0.5 < found["roc_auc"][1] + 0.02


def report(**changes):
    cells = tiny_cells(40)
    p = np.tile([0.8, 0.2], (40, 1)).astype(np.float32)
    base = {
        "names": cells.names, "patients": cells.patients, "class_names": cells.class_names, "positive": 0,
        "threshold": 0.5, "split": "whole", "seen": Seen(6, 0, 0), "view": "filled",
    }  # fmt: skip
    return make_report(cells.labels, np.zeros(40, np.int32), p, **{**base, **changes})


def test_report_says_what_must_be_said() -> None:
    text = str(report())
    assert text.splitlines()[0] == "40 cells of 6 patients, none of them seen in training or as validation"
    assert "95 % interval over patients" in text
    assert "not a medical device" in text
    assert "prevalence here 0.500" in text
    assert "2 SEEN IN TRAINING and 1 as validation: the figures flatter" in str(report(seen=Seen(6, 2, 1)))
    assert "BASELINE" in str(report(view="outline"))
    unknown = report(seen=Seen(0, None, None))
    assert "patients unknown" in str(unknown).splitlines()[0]
    assert "over CELLS (patients unknown): too narrow" in str(unknown)
    assert unknown.interval_over == "cells"
    assert "cannot be told" in str(report(seen=Seen(6, None, 0)))
    assert "n/a" in str(make_one_class())


def make_one_class():
    cells = tiny_cells(40)
    chosen = cells.select(cells.labels == 1)
    return cellscan.Classifier(image_size=32).evaluate(chosen)


def test_report_as_json_and_picture() -> None:
    import json

    found = make_one_class()
    assert np.isnan(found.sensitivity)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["figures"]["sensitivity"]["value"] is None
    assert len(report().plot().axes) == 2
    assert len(found.plot().axes) == 2


@pytest.mark.parametrize("by", ["patient", "cell"])
def test_report_states_the_split(by) -> None:
    train, test = tiny_cells().split(0.34, by=by, seed=0)
    clf = cellscan.Classifier(image_size=32)
    text = str(clf.evaluate(test))
    assert f"by {by}" in text
    assert ("ON BOTH SIDES" in text) == (by == "cell")
    assert len(train) + len(test) == 48
