"""Metrics agree with scikit-learn; intervals are over patients."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers import made_report, tiny_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import cellscan
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.bootstrap import bootstrap_metrics, draw_chunks, draw_weights, interval
from cellscan.evaluate.calibration import expected_calibration_error
from cellscan.evaluate.metrics import AVERAGED, LEAST, NAMES, compute_metrics, from_confusion, weighted_metrics
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import make_report

ATOL = 1e-6  # probabilities are float32, and scikit-learn cuts them at 1 - eps in the logarithmic loss


def by_scikit_learn(labels, predicted, probabilities, weights, positive) -> dict[str, float]:
    """Every metric by scikit-learn, with weights of cells; NaN where it has no meaning."""
    classes = list(range(probabilities.shape[1]))
    kept = weights > 0
    labels, predicted, probabilities, weights = (x[kept] for x in (labels, predicted, probabilities, weights))
    weighed = {"sample_weight": weights}
    two = len(classes) == 2 and positive is not None
    if two:
        one = {"pos_label": positive, "zero_division": np.nan, **weighed}
    else:
        one = {"average": "macro", "labels": classes, "zero_division": 0.0, **weighed}
    found = {
        "accuracy": sk.accuracy_score(labels, predicted, **weighed),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, **weighed),
        "precision": sk.precision_score(labels, predicted, **one),
        "f1": sk.f1_score(labels, predicted, **one),
        "mcc": sk.matthews_corrcoef(labels, predicted, **weighed),
        "log_loss": sk.log_loss(labels, np.maximum(probabilities, LEAST), labels=classes, **weighed),
        "sensitivity": math.nan,
        "specificity": math.nan,
    }
    if len(classes) == 2 and positive is not None:
        found["brier"] = sk.brier_score_loss(labels == positive, probabilities[:, positive], pos_label=True, **weighed)
        for name, label in (("sensitivity", positive), ("specificity", 1 - positive)):
            found[name] = sk.recall_score(labels, predicted, **{**one, "pos_label": label})
    else:
        found["brier"] = np.average(((probabilities - np.eye(len(classes))[labels]) ** 2).sum(1), weights=weights)
    ranked = [positive] if two else classes
    for name, score in (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        whole = all(0 < (labels == k).sum() < len(labels) for k in ranked)
        each = [score(labels == k, probabilities[:, k], **weighed) for k in ranked] if whole else math.nan
        found[name] = np.mean(each)
    confidence = probabilities.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    right = probabilities.argmax(1) == labels
    gaps = [abs(np.sum((weights * (right - confidence.astype(float)))[bins == b])) for b in range(15)]
    found["calibration_error"] = sum(gaps) / weights.sum()
    return found


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:invalid value:RuntimeWarning")  # of classes that are missing
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.sampled_from([0, 1, None]), st.sets(st.integers(0, 2)))
def test_metrics_equal_scikit_learns(seed, classes, positive, odd) -> None:
    """Two and more classes, tied scores, classes that no cell has, classes that none is called, and weights."""
    ties, missing, unpredicted = (what in odd for what in range(3))
    rng = np.random.default_rng(seed)
    cells = int(rng.integers(2, 60))
    labels = rng.integers(1 if missing else 0, classes, cells)
    probabilities = rng.dirichlet(np.ones(classes), cells)
    if ties:
        probabilities = probabilities.round(1) + 0.05
        probabilities /= probabilities.sum(1, keepdims=True)
    probabilities = probabilities.astype(np.float32)
    predicted = np.full(cells, classes - 1) if unpredicted else rng.integers(0, classes, cells)
    group = np.r_[0, rng.integers(0, 6, cells - 1)]
    weights = rng.integers(0, 3, (3, group.max() + 1)).astype(float)
    weights[:, 0] = 1
    found = weighted_metrics(labels, predicted, probabilities, group, positive, [weights[:2], weights[2:]])
    for row, groups in enumerate(weights):
        want = by_scikit_learn(labels, predicted, probabilities, groups[group], positive)
        assert set(want) == set(NAMES)
        for name, value in want.items():
            assert np.isclose(found[name][row], value, atol=ATOL, equal_nan=True), name
    plain = compute_metrics(labels, predicted, probabilities, positive)
    want = by_scikit_learn(labels, predicted, probabilities, np.ones(cells), positive)
    for name in NAMES:
        assert np.isclose(plain[name], want[name], atol=ATOL, equal_nan=True), name


def test_the_calibration_error_alone_is_that_of_the_report() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(3), 200), rng.integers(0, 3, 200)
    plain = compute_metrics(labels, labels, probabilities, None)
    assert np.isclose(expected_calibration_error(probabilities, labels), plain["calibration_error"])
    two = np.array([[0.95, 0.05], [0.55, 0.45]])  # gaps of opposite sign in two bins
    assert np.isclose(expected_calibration_error(two, np.array([1, 0])), (0.95 + 0.45) / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_metrics_by_patient_are_means_of_those_of_each(seed, classes) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, 40), rng.integers(0, classes, 40)
    group = rng.permutation(np.r_[np.arange(8), rng.integers(0, 8, 32)])
    weights = rng.integers(1, 3, (1, 8)).astype(float)
    found = weighted_metrics(labels, predicted, np.eye(classes)[predicted], group, 0, [weights])
    each = []
    for g in range(8):
        here = group == g
        each.append(compute_metrics(labels[here], predicted[here], np.eye(classes)[predicted[here]], 0))
    for name in AVERAGED:
        values = np.array([one[name] for one in each])
        known = np.isfinite(values)
        want = np.average(values[known], weights=weights[0][known]) if known.any() else np.nan
        assert np.isclose(found[f"{name}_by_patient"][0], want, equal_nan=True), name


def test_undefined_metrics_are_nan() -> None:
    got = from_confusion(np.array([[0, 0], [1, 4]]), 0)
    assert np.isnan(got["sensitivity"])
    assert got["specificity"] == 0.8
    one = compute_metrics(np.ones(4, int), np.ones(4, int), np.tile([0.2, 0.8], (4, 1)), 0)
    nothing = {"sensitivity", "precision", "f1", "roc_auc", "average_precision"}
    assert {name for name in NAMES if np.isnan(one[name])} == nothing
    assert one["accuracy"] == one["specificity"] == 1


def test_intervals_over_patients_are_wider_when_patients_differ() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 50)
    right = rng.random(1000) < np.repeat(rng.choice([0.7, 1.0], 20), 50)
    labels = rng.integers(0, 2, 1000)
    predicted = np.where(right, labels, 1 - labels)
    scores = np.eye(2)[predicted]
    by_patient = interval(bootstrap_metrics(labels, predicted, scores, patients, 0)["accuracy"])
    by_cell = interval(bootstrap_metrics(labels, predicted, scores, np.arange(1000), 0)["accuracy"])
    assert by_patient[1] - by_patient[0] > 2 * (by_cell[1] - by_cell[0])
    assert by_patient[0] < right.mean() < by_patient[1]


def test_one_patient_gives_no_interval() -> None:
    labels = np.array([0, 1, 1, 0])
    found = bootstrap_metrics(labels, labels, np.eye(2)[labels], np.zeros(4), 0)
    assert all(np.isnan(found[name]).all() for name in found)
    text = str(cellscan.Classifier(image_size=32).evaluate(tiny_cells(20, patients=1)))
    assert "accuracy" in text
    assert "nan" not in text


def test_two_patients_give_an_interval() -> None:
    labels, called = np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1])
    found = bootstrap_metrics(labels, called, np.eye(2)[called], np.array([0, 0, 1, 1]), 0)
    assert set(found["accuracy"]) == {0.5, 0.75, 1.0}
    assert len(found["accuracy"]) == 2000


def test_a_bootstrap_of_cells_covers_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    predicted = np.where(rng.random(2000) < 0.9, labels, 1 - labels)
    low, high = interval(bootstrap_metrics(labels, predicted, np.eye(2)[predicted], np.arange(2000), 0)["accuracy"])
    theory = 2 * 1.96 * np.sqrt(0.9 * 0.1 / 2000)
    assert 0.8 * theory < high - low < 1.2 * theory


@pytest.mark.parametrize("known", [True, False])
def test_intervals_take_bounded_memory(known) -> None:
    """Without patients each cell is a group: draws times cells would be 24 MB, then 240 MB."""
    rng = np.random.default_rng(0)
    cells, draws, peaks, found = 60_000, 500, [], {}
    labels = rng.integers(0, 2, cells)
    scores = rng.random((cells, 2))
    groups = rng.integers(0, 200, cells) if known else np.arange(cells)
    for count in (draws // 10, draws):
        tracemalloc.start()
        found = bootstrap_metrics(labels, scores.argmax(1), scores, groups, 0, draws=count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 150e6
    assert {name: len(found[name]) for name in NAMES} == dict.fromkeys(NAMES, draws)
    low, high = interval(found["roc_auc"])
    assert low < compute_metrics(labels, scores.argmax(1), scores, 0)["roc_auc"] < high
    # The standard error of a ROC AUC of one half: sqrt((m + n + 1) / (12 m n))
    spread = 2 * 1.96 * np.sqrt((cells + 1) / (12 * labels.sum() * (cells - labels.sum())))
    assert 0.8 * spread < high - low < 1.2 * spread


@pytest.mark.parametrize("count", [7, 20_000])
def test_draws_do_not_depend_on_their_chunks(count) -> None:
    whole = np.concatenate(list(draw_chunks(count, 20, 3, rows=20)))
    assert (whole == np.concatenate(list(draw_chunks(count, 20, 3, rows=7)))).all()
    assert (whole.sum(1) == count).all()
    assert whole.sum(0).all()  # every group is drawn
    assert abs(whole.var() - 1) < 0.5  # how often one is drawn is nearly Poisson's
    assert (whole == draw_weights(np.arange(count), 20, 3)[0]).all()


def report(**changes):
    cells = tiny_cells(40)
    p = np.tile([0.8, 0.2], (40, 1)).astype(np.float32)
    base = {
        "names": cells.names, "patients": cells.patients, "class_names": cells.class_names, "positive": 0,
        "threshold": 0.5, "split": "whole", "patient_overlap": PatientOverlap(6, 0, 0), "background": "fill",
    }  # fmt: skip
    return make_report(cells.labels, np.zeros(40, np.int32), p, **{**base, **changes})


def test_report_says_what_must_be_said() -> None:
    text = str(report())
    assert text.splitlines()[0] == "40 cells of 6 patients, no overlap with training or validation"
    assert "95 % interval over patients" in text
    assert "not a medical device" in text
    assert "prevalence in this set 0.500" in text
    assert "PATIENT OVERLAP: 2 in training, 1 in validation; the metrics are optimistically biased" in str(
        report(patient_overlap=PatientOverlap(6, 2, 1))
    )
    assert "BASELINE" in str(report(background="silhouette"))
    unknown = report(patient_overlap=PatientOverlap(0, None, None))
    assert "patients unknown" in str(unknown).splitlines()[0]
    assert "over CELLS (patients unknown): too narrow" in str(unknown)
    assert unknown.interval_over == "cells"
    assert "cannot be determined" in str(report(patient_overlap=PatientOverlap(6, None, 0)))
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
    assert plain["metrics"]["sensitivity"]["value"] is None
    assert len(report().plot().axes) == 5
    assert len(found.plot().axes) == 5


@pytest.mark.parametrize("by", ["patient", "cell"])
def test_report_states_the_split(by) -> None:
    train, test = tiny_cells().split(test=0.34, by=by, seed=0)
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


def test_patients_by_hand() -> None:
    """Two infected patients, two donors; every metric counted on fingers."""
    labels = [0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    scores = [0.9, 0.8, 0.1, 0.1, 0.2, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    found = made_report(labels, scores, list("aaaabbbbccccdddd"), rule=0.3)
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
    assert "is not the parasitemia" in text
    assert "sensitivity 0.500 (0.013 to 0.987, exact, of 2)" in text


def test_the_rule_is_reached_by_a_share_equal_to_it() -> None:
    labels, scores = [0, 0, 1, 1, 0, 1, 1, 1], [0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    one = made_report(labels, scores, list("aaaabbbb"), rule=0.25).patients
    assert [row.called for row in one] == [True, True]
    each = made_report(labels, scores, list("aaaabbbb"), rule=np.repeat([0.5, 0.375], 4)).patients
    assert [row.called for row in each] == [True, False]
    assert (each.rule, each.sensitivity) == (0.4375, 0.5)


def test_a_limit_of_detection_needs_two_donors_and_more_hits_than_false_positives() -> None:
    labels, none = [0, 0, 1, 1, 1, 1], [0.9, 0.9, 0.1, 0.1, 0.1, 0.1]
    one = made_report(labels[:4], none[:4], list("aabb"), rule=0.5).patients
    assert (one.false_per_thousand, np.isnan(one.false_spread), np.isnan(one.detection_limit)) == (0, True, True)
    assert "SD" not in one.summary()
    two = made_report(labels, none, list("aabbcc"), rule=0.5).patients
    assert (two.false_spread, two.detection_limit) == (0, 0)
    assert "limit of detection" not in two.summary()  # no false positives: not a limit of 0
    as_many = made_report(labels, [0.9, 0.1, 0.9, 0.9, 0.1, 0.1], list("aabbcc"), rule=0.5).patients
    assert (as_many.false_per_thousand, np.isnan(as_many.detection_limit)) == (500, True)
    healthy = made_report(labels[2:], [0.9, 0.1, 0.1, 0.1], list("bbcc"), rule=0.5).patients
    assert np.isnan(healthy.detection_limit)
    assert healthy.summary().startswith("patients: 0 infected (a cell labelled positive), 2 healthy")
    sick = made_report(labels[:2], none[:2], list("aa"), rule=0.5).patients
    assert "false-positive" not in sick.summary()
    assert np.isnan(sick.false_per_thousand)
    scores = np.repeat([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9], [1, 1, 2, 2, 2, 2, 2])
    many = made_report(np.zeros(12, int), scores, list("aabbccddeeff"), rule=0.5).patients
    assert [row.patient for row in many.worst()] == ["b", "c", "d", "e", "a"]
    assert many.worst(0) == ()


def test_prevalence_by_bayes() -> None:
    labels, scores = np.arange(20) // 10, np.array([0.9] * 9 + [0.1] * 9 + [0.9] * 2)
    found = made_report(labels, scores, [f"p{i % 5}" for i in range(20)])
    rare = found.at_prevalence(0.02)
    assert np.isclose(rare.precision, 0.9 * 0.02 / (0.9 * 0.02 + 0.2 * 0.98))
    assert np.isclose(found.at_prevalence(0.5).precision, found.precision)
    assert np.isclose(rare.negative_predictive_value, 0.8 * 0.98 / (0.8 * 0.98 + 0.1 * 0.02))
    for name in ("precision", "negative_predictive_value"):
        low, high = rare.interval[name]
        assert low < getattr(rare, name) < high
    with pytest.raises(ArgumentError, match=r"expected a number in \(0, 1\)"):
        found.at_prevalence(2)


def test_what_is_left_out_and_what_is_refused() -> None:
    labels, scores = [0, 1] * 10, [0.9, 0.1] * 9 + [0.1, 0.9]
    found = made_report(labels, scores, [f"p{i % 5}" for i in range(20)])
    kept = found.without(["18.png", "19.png", "elsewhere.png"])
    assert (len(kept.labels), kept.accuracy, kept.patient_overlap.patients) == (18, 1.0, 5)
    with pytest.raises(DataError, match="none of the 1 names"):
        found.without(["x.png"])
    with pytest.raises(DataError, match="no cell is left"):
        found.select(np.zeros(20, bool))
    with pytest.raises(DataError, match="no cells to evaluate"):
        made_report([], [], [])
    with pytest.raises(DataError, match="not finite"):
        made_report(labels, [np.nan, *scores[1:]], [f"p{i % 5}" for i in range(20)])


def test_a_part_of_a_report_knows_its_patient_overlap() -> None:
    patients = [f"p{i}" for i in range(10) for _ in range(4)]
    labels, scores = [0, 1] * 20, [0.9, 0.1] * 20
    overlap = PatientOverlap.among(patients, train=["p0", "p1", "p2", "gone"], validation=["p9"], decision=[])
    found = made_report(labels, scores, patients, patient_overlap=overlap)
    assert "PATIENT OVERLAP: 3 in training, 1 in validation" in str(found).splitlines()[0]
    mine = found.cell_patients
    assert found.select(~np.isin(mine, ["p0", "p1", "p2"])).patient_overlap.train == 0
    assert found.select(np.isin(mine, ["p0", "p7"])).patient_overlap == PatientOverlap(2, 1, 0, 0)
    assert found.select(np.isin(mine, ["p0", "p7"])).select(slice(0, 4)).patient_overlap == PatientOverlap(1, 1, 0, 0)
    assert found.select(slice(None, None, 2)).patient_overlap == found.patient_overlap
    text = str(found.without(found.names[mine == "p9"]))
    assert text.startswith("36 cells of 9 patients, PATIENT OVERLAP: 3 in training, 0 in validation")
    # Counts without names determine the overlap of a part only if none or all patients overlap.
    counted = made_report(labels, scores, patients, patient_overlap=PatientOverlap(10, 3, 0, 10))
    assert counted.select(slice(None)).patient_overlap == PatientOverlap(10, 3, 0, 10)
    assert counted.select(mine == "p0").patient_overlap == PatientOverlap(1, None, 0, 1)
    assert "cannot be determined" in str(counted.select(mine == "p0"))
    assert PatientOverlap.among(["", ""], train=["a"], validation=[], decision=[]) == PatientOverlap(
        0, None, None, None
    )
    assert PatientOverlap.among(["a"], train=None, validation=[], decision=[]) == PatientOverlap(1, None, 0, 0)


def test_odd_arguments_of_reports() -> None:
    found: Any = made_report([0, 1] * 10, [0.9, 0.1] * 10, [f"p{i % 5}" for i in range(20)])
    assert len(found.select([0, -1]).labels) == 2
    for call in (
        lambda: found.select([0.7]), lambda: found.select([20]), lambda: found.select(3), lambda: found.select([True]),
        lambda: found.bootstrap(draws=0), lambda: found.bootstrap(seed=-1), lambda: found.bootstrap(draws="a"),
        lambda: found.at_prevalence("0.1"), lambda: found.at_prevalence(float("nan")),
        lambda: cellscan.compare(found, found.names),
        lambda: found.patients["p0"],
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(cellscan.CellscanError, match="no folder"):
        found.patients.to_csv("no/such/folder.csv")


def test_compare_knows_which_cell_is_which() -> None:
    patients = [f"p{i % 5}" for i in range(20)]
    names = np.array([f"{i // 2}.png" for i in range(20)])  # each name twice
    labels, scores = [0, 1] * 10, np.linspace(0.1, 0.9, 20)
    a, b = (made_report(labels, scores, patients, names=names) for _ in range(2))
    assert cellscan.compare(a, b).difference["accuracy"] == 0
    with pytest.raises(DataError, match="several cells are called '0.png'"):
        cellscan.compare(a, b.select(np.arange(20).reshape(10, 2)[::-1].ravel()))
    twice = np.array([f"{min(i, 18):02d}.png" for i in range(20)])  # the last name twice
    c, d = (made_report(labels, scores, patients, names=twice) for _ in range(2))
    with pytest.raises(DataError, match=r"several cells are called '18.png'"):
        cellscan.compare(c, d.select(np.r_[18:20, :18]))
    with pytest.raises(DataError, match="patients differ"):
        cellscan.compare(a, made_report(labels, scores, ["p"] * 20, names=names))


def test_compare_pairs_patients() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    good = np.where(rng.random(400) < 0.9, labels == 0, labels != 0) * 0.8 + 0.1
    worse = np.where(rng.random(400) < 0.1, 1 - good, good)
    patients = [f"p{i % 20}" for i in range(400)]
    a, b = made_report(labels, good, patients), made_report(labels, worse, patients)
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
    marked = {line.split("  ")[0] for line in str(found).splitlines()[2:-1] if line.endswith("*")}
    assert {"accuracy", "mcc", "log loss"} <= marked
    assert str(found).splitlines()[1].endswith("95 % interval over 20 patients")
    assert cellscan.compare(b, a).difference["accuracy"] == -found.difference["accuracy"]
    same = str(cellscan.compare(a, a)).splitlines()
    assert len(same) == 2 + len(NAMES) + 1
    assert not any(line.endswith("*") for line in same[:-1])
    with pytest.raises(DataError, match="the same cells"):
        cellscan.compare(a, b.select(np.arange(10)))
