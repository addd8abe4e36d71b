"""Thresholds, label sets, label errors: against hand counts, simulation, and cleanlab."""

from typing import Any

import numpy as np
import pytest
from helpers import tiny_cells

import cellscan
from cellscan.decisions.conformal import fit_quantile, label_sets, simulate
from cellscan.errors import ArgumentError, DataError
from cellscan.evaluate.calibration import apply_temperature, fit_temperature
from cellscan.evaluate.confident import LabelIssues, find_contradicted
from cellscan.evaluate.thresholds import choose, choose_rule

WHAT = ("sick", "well")


@pytest.mark.parametrize("wanted", [0.01, 0.5, 0.9, 1.0])
def test_a_threshold_is_the_tightest_that_keeps_its_word(wanted) -> None:
    rng = np.random.default_rng(0)
    sick, well = rng.random(57).astype(np.float32), (rng.random(43) ** 2).astype(np.float32)
    line = choose(sick, well, sensitivity=wanted, specificity=None, what=WHAT)
    assert (sick >= np.float32(line)).mean() >= wanted
    assert (sick >= np.nextafter(np.float32(line), np.float32(2))).mean() < wanted  # no higher one does
    line = choose(sick, well, sensitivity=None, specificity=wanted, what=WHAT)
    assert (well < np.float32(line)).mean() >= wanted
    assert (well < np.nextafter(np.float32(line), np.float32(-1))).mean() < wanted  # no lower one does


def test_thresholds_of_the_least_and_the_greatest_scores() -> None:
    none, all_ones = np.zeros(3), np.ones(3)
    assert choose(all_ones, none, sensitivity=1.0, specificity=None, what=WHAT) == 1.0
    assert 0 < choose(none, none, sensitivity=1.0, specificity=None, what=WHAT) < 1e-30
    below = np.nextafter(np.float32(1), np.float32(0))
    assert choose(none, np.array([below]), sensitivity=None, specificity=1.0, what=WHAT) == 1.0
    scores = np.linspace(0.1, 1, 10)
    for tenths in range(1, 11):  # such as 0.7 x 10, which is not 7 in binary
        line = choose(scores, scores, sensitivity=tenths / 10, specificity=None, what=WHAT)
        assert (scores >= line).sum() == tenths


def test_a_patient_rule_by_hand() -> None:
    """Shares of positive cells: 1/4 and 3/4 of the infected patients, 0 and 2/4 of the healthy ones."""
    ids = np.repeat(list("abcd"), 4)
    truth = np.isin(np.arange(16), [0, 4])
    called = np.isin(np.arange(16), [1, 4, 5, 6, 12, 13])
    assert choose_rule(truth, called, ids, 1.0, None) == 0.25
    assert choose_rule(truth, called, ids, 0.5, None) == 0.75
    assert 0.5 < choose_rule(truth, called, ids, None, 1.0) < 0.500001
    assert 0 < choose_rule(truth, called, ids, None, 0.5) < 1e-30


def test_a_threshold_refuses() -> None:
    some, none = np.array([0.3, 1.0]), np.zeros(0)
    with pytest.raises(ArgumentError, match="exactly one"):
        choose(some, some, sensitivity=0.9, specificity=0.9, what=WHAT)
    with pytest.raises(ArgumentError, match="exactly one"):
        choose(some, some, sensitivity=None, specificity=None, what=WHAT)
    with pytest.raises(ArgumentError, match=r"in \(0, 1\]"):
        choose(some, some, sensitivity=1.2, specificity=None, what=WHAT)
    odd: list[Any] = ["0.9", float("nan"), 0, [0.9]]
    for bad in odd:
        with pytest.raises(ArgumentError, match=r"in \(0, 1\]"):
            choose(some, some, sensitivity=bad, specificity=None, what=WHAT)
    with pytest.raises(DataError, match="there are no well"):
        choose(some, none, sensitivity=None, specificity=0.9, what=WHAT)
    with pytest.raises(DataError, match="there are no sick"):
        choose(none, some, sensitivity=0.9, specificity=None, what=WHAT)
    with pytest.raises(DataError, match="greatest score"):
        choose(some, some, sensitivity=None, specificity=1.0, what=WHAT)
    with pytest.raises(DataError, match="no healthy patients"):
        choose_rule(np.array([True]), np.array([True]), np.array(["a"]), None, 0.9)


def test_quantile_by_hand() -> None:
    """Patient a has one cell, b has three: each patient weighs 1/3, and so does the one to come."""
    scores, patients = np.array([0.5, 0.1, 0.2, 0.9]), np.array(["a", "b", "b", "b"])
    # cumulated: 0.1 -> 1/9, 0.2 -> 2/9, 0.5 -> 5/9, 0.9 -> 6/9
    assert fit_quantile(scores, patients, alpha=0.4) == 0.9
    assert fit_quantile(scores, patients, alpha=0.45) == 0.5
    assert fit_quantile(scores, patients, alpha=1 - 2 / 9) == 0.2


def test_too_few_patients_for_alpha() -> None:
    with pytest.raises(DataError, match=r"9 patients are too few for alpha 0.05; expected at least 19"):
        fit_quantile(np.linspace(0, 1, 90), np.arange(90) // 10, 0.05)
    fit_quantile(np.linspace(0, 1, 19), np.arange(19), 0.05)
    with pytest.raises(ArgumentError, match="alpha"):
        fit_quantile(np.ones(3), np.arange(3), 1.0)


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_sets_hold_for_patients_that_differ(alpha) -> None:
    """Some patients are hard, and those have most of the cells: weighing cells alike would go wrong."""
    rng = np.random.default_rng(0)
    size = np.where(np.arange(160) % 4 == 0, 60, 6)
    patients = np.repeat(np.arange(160), size)
    hard = patients % 4 == 0
    p = np.where(hard, rng.beta(1.2, 1, len(patients)), rng.beta(12, 1, len(patients)))
    labels = np.zeros(len(patients), int)
    found = simulate(np.stack([p, 1 - p], 1), labels, patients, alpha, splits=200, seed=0)
    assert abs(found.coverage - (1 - alpha)) < 0.02
    by_cell = np.quantile(1 - p, 1 - alpha)
    held = label_sets(np.stack([p, 1 - p], 1), by_cell)[:, 0]
    assert abs(np.average(held, weights=1 / size[patients]) - (1 - alpha)) > 0.03  # so the method matters


@pytest.mark.parametrize("classes", [2, 4])
def test_label_errors_equal_cleanlabs(classes) -> None:
    filtering = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, 3000)
    labels = np.where(rng.random(3000) < 0.08, rng.integers(0, classes, 3000), truth)
    scores = rng.dirichlet(np.ones(classes), 3000) + 1.5 * np.eye(classes)[truth] * rng.random((3000, 1))
    scores = scores / scores.sum(1, keepdims=True)
    want = filtering.find_label_issues(
        labels, scores, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    found = find_contradicted(labels, scores)
    assert len(found) > 50
    assert found.tolist() == want.tolist()


def test_a_probability_equal_to_the_mean_of_its_class_is_confident() -> None:
    p = np.array([0.7, 0.7, 0.7, 0.2, 0.2, 0.7])
    assert find_contradicted(np.array([0, 0, 0, 1, 1, 1]), np.stack([p, 1 - p], 1)).tolist() == [5]


def test_the_ranking_of_label_issues_is_compared_with_a_list() -> None:
    count = 600
    cells = cellscan.CellDataset.from_arrays(np.zeros((count, 2, 2, 3), np.uint8), np.arange(count) % 2)
    scores = np.linspace(0, 1, count).astype(np.float32)
    issues = LabelIssues(np.arange(25), scores, np.stack([scores, 1 - scores], 1), cells)
    listed = issues.against(cells.names[[0, 499, 500]])
    assert listed["hits_500"] == 2
    assert listed["roc_auc"] == pytest.approx(1 - (498 + 498) / (3 * 597))
    assert listed["average_precision"] == pytest.approx((1 + 2 / 500 + 3 / 501) / 3)
    assert issues.against(cells.names[:1])["hits_500"] == 1
    for names in ([], cells.names):
        with pytest.raises(DataError, match="expected at least one, but not all"):
            issues.against(names)
    lines = str(issues).splitlines()
    assert [line.split(": ")[1] for line in lines[1:3]] == ["13", "12"]
    assert len(lines) == 3 + 10


def test_a_class_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match="no cell has a label of class 1"):
        find_contradicted(np.zeros(3, int), np.tile([0.5, 0.5], (3, 1)))


def test_temperature_of_probabilities_is_that_of_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 3))

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    assert np.allclose(apply_temperature(softmax(logits), 2.5), softmax(logits / 2.5), atol=1e-6)
    labels = np.array([np.random.default_rng(i).choice(3, p=row) for i, row in enumerate(softmax(logits / 4))])
    assert fit_temperature([softmax(logits)], labels) > 2


def test_the_temperature_minimises_the_log_loss_of_the_averaged_members() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 400, 3))
    members, sharp = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (logits, 2 * logits))
    labels = np.array([rng.choice(3, p=row) for row in sharp.mean(0)])

    def loss(temperature):
        mean = np.mean([apply_temperature(member, temperature) for member in members], 0)
        return -np.log(mean[np.arange(400), labels]).mean()

    found = fit_temperature(list(members), labels)
    assert 0.4 < found < 0.6
    assert loss(found) < min(loss(0.97 * found), loss(1.03 * found))


def test_temperatures_are_limited_and_certain_probabilities_stay_finite() -> None:
    unsure = [np.tile([0.6, 0.4], (10, 1))]
    assert fit_temperature(unsure, np.zeros(10, int)) == pytest.approx(0.05, rel=1e-3)  # always correct
    assert fit_temperature(unsure, np.ones(10, int)) == pytest.approx(20, rel=1e-3)  # always wrong
    certain = np.array([[1.0, 0.0]])
    assert apply_temperature(certain, 0.05).tolist() == [[1, 0]]
    assert np.isfinite(fit_temperature([certain], np.array([1])))
    both = [np.repeat(certain, 10, 0), *unsure]
    assert fit_temperature(both, np.zeros(10, int)) == pytest.approx(0.05, rel=1e-2)
    floor = 10**-1.5  # the twentieth root of 1e-30
    assert apply_temperature(certain, 20.0)[0, 1] == pytest.approx(floor / (1 + floor), abs=1e-5)


def test_a_decision_is_of_one_kind_of_averaging(tmp_path) -> None:
    """Its parts are chosen with the same `tta`, predictions use it, and another one gives a warning."""
    cells = tiny_cells(48)
    clf = cellscan.Classifier(image_size=16, seed=0)
    clf.choose_threshold(cells, sensitivity=0.9, tta=True, progress=False)
    assert clf.card.decision.tta is True
    averaged = clf.predict_proba(cells, tta=True, progress=False)
    assert np.array_equal(clf.predict_proba(cells, progress=False), averaged)
    assert clf.evaluate(cells, progress=False).sensitivity == pytest.approx(0.9, abs=0.05)
    with pytest.warns(UserWarning, match="chosen with tta=True"):
        alone = clf.predict(cells, tta=False, progress=False)
    assert not np.array_equal(alone.probabilities, averaged)
    with pytest.raises(ArgumentError, match="other parts of the decision were chosen with tta=True"):
        clf.choose_patient_rule(cells, sensitivity=0.9, tta=False, progress=False)
    clf.choose_patient_rule(cells, sensitivity=0.9, progress=False)
    clf.save(tmp_path / "a.safetensors")
    assert cellscan.Classifier.load(tmp_path / "a.safetensors").card.decision == clf.card.decision
    clf.choose_threshold(cells, sensitivity=0.9, tta=False, progress=False)  # with the rule, which it resets
    assert clf.card.decision.tta is False
    clf.calibrate(cells, tta=True, progress=False)  # resets all
    assert clf.card.decision.tta is True
    with pytest.warns(UserWarning, match="test-time augmentation, which the exported file does not apply"):
        clf.export(tmp_path / "a.stablehlo", platforms=("cpu",))
    odd: list[Any] = ["yes", 1, 0.5, [True]]
    for bad in odd:
        with pytest.raises(ArgumentError, match="expected True, False or None"):
            clf.predict(cells, tta=bad, progress=False)
