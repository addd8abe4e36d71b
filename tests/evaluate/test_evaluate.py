"""Figures agree with scikit-learn; intervals are over patients."""

import time

import numpy as np
import pytest
from helpers import tiny_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import cellscan
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import draw_figures, draw_weights, interval
from cellscan.evaluate.metrics import NAMES, confusion_matrix, figures, from_confusion, macro_ranking, ranking
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
    chosen = [0] if classes == 2 else range(classes)
    got_ranks = macro_ranking(labels, scores, 0, weights[None])
    for values, score in zip(got_ranks, (sk.roc_auc_score, sk.average_precision_score), strict=True):
        want = np.mean([score(labels == k, scores[:, k], sample_weight=weights) for k in chosen])
        assert np.isclose(values[0], want)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_draw_of_every_patient_once_gives_the_figures(classes, monkeypatch) -> None:
    """The bootstrap has figures of its own; where each patient is drawn once they are scikit-learn's."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 300)
    scores = rng.dirichlet(np.ones(classes), 300)
    scores[np.arange(300), labels] += 0.5
    scores = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    patients = rng.integers(0, 12, 300)
    monkeypatch.setattr(
        "cellscan.evaluate.bootstrap.draw_weights", lambda groups, draws, seed: (np.ones((draws, 12)), groups)
    )
    drawn = draw_figures(labels, scores.argmax(1), scores, patients, 0, draws=2)
    for name, value in figures(labels, scores.argmax(1), scores, 0).items():
        assert np.allclose(drawn[name], value, atol=1e-5, equal_nan=True), name


def test_undefined_figures_are_nan() -> None:
    got = from_confusion(np.array([[0, 0], [1, 4]]), 0)
    assert np.isnan(got["sensitivity"])
    assert got["specificity"] == 0.8
    assert np.isnan(ranking(np.ones(3, bool), np.arange(3.0), np.ones((1, 3)))).all()
    one = figures(np.ones(4, int), np.ones(4, int), np.tile([0.2, 0.8], (4, 1)), 0)
    assert np.isnan([one[name] for name in ("sensitivity", "roc_auc", "average_precision")]).all()
    assert one["accuracy"] == one["specificity"] == 1


def test_intervals_over_patients_are_wider_when_patients_differ() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 50)
    right = rng.random(1000) < np.repeat(rng.choice([0.7, 1.0], 20), 50)
    labels = rng.integers(0, 2, 1000)
    predicted = np.where(right, labels, 1 - labels)
    scores = np.eye(2)[predicted]
    by_patient = interval(draw_figures(labels, predicted, scores, patients, 0)["accuracy"])
    by_cell = interval(draw_figures(labels, predicted, scores, np.arange(1000), 0)["accuracy"])
    assert by_patient[1] - by_patient[0] > 2 * (by_cell[1] - by_cell[0])
    assert by_patient[0] < right.mean() < by_patient[1]


def test_one_patient_gives_no_interval() -> None:
    labels = np.array([0, 1, 1, 0])
    found = draw_figures(labels, labels, np.eye(2)[labels], np.zeros(4), 0)
    assert all(np.isnan(found[name]).all() for name in found)
    text = str(cellscan.Classifier(image_size=32).evaluate(tiny_cells(20, patients=1)))
    assert "accuracy" in text
    assert "nan" not in text


def test_a_bootstrap_of_cells_covers_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    predicted = np.where(rng.random(2000) < 0.9, labels, 1 - labels)
    low, high = interval(draw_figures(labels, predicted, np.eye(2)[predicted], np.arange(2000), 0)["accuracy"])
    theory = 2 * 1.96 * np.sqrt(0.9 * 0.1 / 2000)
    assert 0.8 * theory < high - low < 1.2 * theory


def test_intervals_of_the_whole_set_in_bounded_chunks() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 27_558)
    scores = rng.random((27_558, 2))
    start = time.monotonic()
    found = draw_figures(labels, scores.argmax(1), scores, rng.integers(0, 200, 27_558), 0, draws=2000)
    print(f"2,000 draws of 27,558 predictions: {time.monotonic() - start:.2f} s")
    low, high = interval(found["roc_auc"])
    assert low - 0.02 < 0.5 < high + 0.02
    assert set(NAMES) <= set(found)


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
    assert len(report().plot().axes) == 5
    assert len(found.plot().axes) == 5


@pytest.mark.parametrize("by", ["patient", "cell"])
def test_report_states_the_split(by) -> None:
    train, test = tiny_cells().split(0.34, by=by, seed=0)
    clf = cellscan.Classifier(image_size=32)
    text = str(clf.evaluate(test))
    assert f"by {by}" in text
    assert ("ON BOTH SIDES" in text) == (by == "cell")
    assert len(train) + len(test) == 48


def test_pairs_of_draws_take_the_same_patients() -> None:
    groups = np.array(["b", "a", "b", "c"])
    one, two = (draw_weights(groups, 50, 3)[0] for _ in range(2))
    assert (one == two).all()
    assert (one.sum(1) == 3).all()


def made(labels, scores, patients, **changes):
    """A report of given probabilities of the first class."""
    names = np.array([f"{i}.png" for i in range(len(labels))])
    base = {
        "names": names, "patients": np.asarray(patients), "class_names": ("parasitized", "uninfected"), "positive": 0,
        "threshold": 0.5, "split": "whole", "seen": Seen(len(set(patients)), 0, 0), "view": "filled",
    }  # fmt: skip
    probabilities = np.stack([scores, 1 - np.asarray(scores)], 1).astype(np.float32)
    predicted = np.where(np.asarray(scores) >= 0.5, 0, 1).astype(np.int32)
    return make_report(np.asarray(labels), predicted, probabilities, **{**base, **changes})


def test_patients_by_hand() -> None:
    """Two infected patients, two donors; every figure counted on fingers."""
    labels = [0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    scores = [0.9, 0.8, 0.1, 0.1, 0.2, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    found = made(labels, scores, list("aaaabbbbccccdddd"), rule=0.3)
    rows = found.patients
    assert [(r.patient, r.cells, r.positive, r.share, r.called, r.truth) for r in rows] == [
        ("a", 4, 2, 0.5, True, True), ("b", 4, 1, 0.25, False, True),
        ("c", 4, 0, 0.0, False, False), ("d", 4, 1, 0.25, False, False),
    ]  # fmt: skip
    assert (rows.sensitivity, rows.specificity) == (0.5, 1.0)
    assert np.allclose(rows.interval["sensitivity"], (0.0126, 0.9874), atol=1e-4)  # Clopper and Pearson's, 1 of 2
    assert np.isclose(rows.false_per_thousand, 125)
    spread = np.std([0, 0.25], ddof=1)
    assert np.isclose(rows.false_spread, 1000 * spread)
    assert np.isclose(rows.detection_limit, 2 * spread / (0.5 - 0.125))  # sensitivity over patients: (1 + 0) / 2
    assert found.averaged["sensitivity"] == 0.5
    assert np.isclose(found.averaged["specificity"], (1 + 2 / 3 + 1 + 3 / 4) / 4)
    assert found.sensitivity == 2 / 3
    assert rows.worst(1)[0].patient == "b"
    text = str(found)
    assert "not its parasitemia" in text
    assert "sensitivity 0.500 (0.013 to 0.987, exact, of 2)" in text


def test_prevalence_by_bayes() -> None:
    labels, scores = np.arange(20) // 10, np.array([0.9] * 9 + [0.1] * 9 + [0.9] * 2)
    found = made(labels, scores, [f"p{i % 5}" for i in range(20)])
    rare = found.at_prevalence(0.02)
    assert np.isclose(rare.precision, 0.9 * 0.02 / (0.9 * 0.02 + 0.2 * 0.98))
    assert np.isclose(found.at_prevalence(0.5).precision, found.precision)
    low, high = rare.interval["precision"]
    assert low <= rare.precision <= high
    with pytest.raises(ArgumentError, match=r"expected a number in \(0, 1\)"):
        found.at_prevalence(2)


def test_what_is_left_out_and_what_is_refused() -> None:
    labels, scores = [0, 1] * 10, [0.9, 0.1] * 9 + [0.1, 0.9]
    found = made(labels, scores, [f"p{i % 5}" for i in range(20)])
    kept = found.without(["18.png", "19.png", "elsewhere.png"])
    assert (len(kept.labels), kept.accuracy, kept.seen.patients) == (18, 1.0, 5)
    with pytest.raises(DataError, match="none of the 1 names"):
        found.without(["x.png"])
    with pytest.raises(DataError, match="no cell is left"):
        found.select(np.zeros(20, bool))
    with pytest.raises(DataError, match="not finite"):
        made(labels, [np.nan, *scores[1:]], [f"p{i % 5}" for i in range(20)])


def test_compare_pairs_patients() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    good = np.where(rng.random(400) < 0.9, labels == 0, labels != 0) * 0.8 + 0.1
    worse = np.where(rng.random(400) < 0.1, 1 - good, good)
    patients = [f"p{i % 20}" for i in range(400)]
    a, b = made(labels, good, patients), made(labels, worse, patients)
    found = cellscan.compare(a, b)
    assert np.isclose(found.difference["accuracy"], a.accuracy - b.accuracy)
    low, high = found.interval["accuracy"]
    assert 0 < low < found.difference["accuracy"] < high
    alone = (
        a.interval["accuracy"][1] - a.interval["accuracy"][0] + b.interval["accuracy"][1] - b.interval["accuracy"][0]
    )
    assert high - low < alone
    turned = cellscan.compare(a, b.select(np.arange(400)[::-1]))
    assert turned.difference == found.difference
    assert "*" in str(found)
    with pytest.raises(DataError, match="the same cells"):
        cellscan.compare(a, b.select(np.arange(10)))
