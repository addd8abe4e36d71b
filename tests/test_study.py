"""Studies: folds are separated by patient, members equal those trained alone, and an interrupted study continues."""

from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from helpers import TinyNet, tiny_cells

import cellscan
from cellscan.errors import ArgumentError, DataError

PLAIN = cellscan.Recipe(augment="none", background=None, learning_rate=3e-2)


def run(cells: cellscan.CellDataset, **changes) -> cellscan.Study:
    base = {"folds": 3, "epochs": 2, "batch_size": 8, "image_size": 32, "recipe": PLAIN, "progress": False}
    model = changes.pop("model", None) or TinyNet(rngs=nnx.Rngs(0))
    return cellscan.cross_validate(model, cells, **{**base, **changes})


@pytest.fixture(scope="module")
def study() -> cellscan.Study:
    return run(tiny_cells(120, patients=12), seeds=2, epochs=6)


def test_no_patient_is_on_both_sides(study) -> None:
    assert study.probabilities.shape == (2, 120, 2)
    assert study.keys == ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    for clf, (number, _), report in zip(study.members, study.keys, study.reports, strict=True):
        own = study.cells.select(study.fold == number)
        count, overlap = clf.card.count_overlap(own.patients)
        assert count > 0
        assert overlap == {"train": 0, "validation": 0, "decision": 0}
        assert set(report.cell_patients) == set(own.patients)
        alone = clf.predict_proba(own)
        assert (alone == study.probabilities[study.seeds.index(clf.card.seed), study.fold == number]).all()
    assert study.report.accuracy > 0.9


def test_shuffled_labels_score_a_half() -> None:
    cells = tiny_cells(240, patients=24)
    shuffled = replace(cells, labels=np.random.default_rng(1).permutation(cells.labels))
    assert 0.35 < run(shuffled, epochs=4).report.roc_auc < 0.65


def test_the_ensemble_averages_and_travels(study, tmp_path) -> None:
    clf = study.ensemble()
    cells = study.cells
    want = np.mean([member.predict_proba(cells) for member in study.members], axis=0)
    assert np.allclose(clf.predict_proba(cells), want, atol=1e-6)
    assert "PATIENT OVERLAP: 12 in training" in str(clf.evaluate(cells))
    clf.save(tmp_path / "e.safetensors")
    again = cellscan.Classifier.load(tmp_path / "e.safetensors", model=TinyNet(rngs=nnx.Rngs(1)))
    assert (again.predict_proba(cells) == clf.predict_proba(cells)).all()
    assert again.card.n_members == 6
    with pytest.raises(ArgumentError, match="this ensemble has 6"):
        _ = again.model
    with pytest.raises(ArgumentError, match="call fit on its members"):
        again.fit(cells)
    assert (again.members[2].predict_proba(cells) == study.members[2].predict_proba(cells)).all()
    with pytest.raises(ArgumentError, match="differ in architecture, image_size"):
        cellscan.Classifier.ensemble([clf, cellscan.Classifier(image_size=64)])
    with pytest.raises(ArgumentError, match="members is empty"):
        cellscan.Classifier.ensemble([])


def new_patients(letter: str, seed: int) -> cellscan.CellDataset:
    """Ten patients that are not in the study, five of them healthy."""
    rng = np.random.default_rng(seed)
    labels = np.arange(200) % 2
    light = np.where(labels == 0, 90, 170)[:, None, None, None]
    images = np.clip(light + rng.normal(0, 20, (200, 32, 32, 3)), 40, 255).astype(np.uint8)
    number = np.where(labels == 0, rng.integers(0, 5, 200), rng.integers(0, 10, 200))
    return cellscan.CellDataset.from_arrays(images, labels, patients=[f"{letter}{n}" for n in number])


def test_from_folds_to_a_patient_called_infected(study, tmp_path) -> None:
    clf, valid, test = study.ensemble(), new_patients("v", 1), new_patients("t", 2)
    with pytest.raises(DataError, match="12 of these 12 patients"):
        clf.calibrate(study.cells)
    temperature = clf.calibrate(valid)
    threshold = clf.choose_threshold(valid, sensitivity=0.97)
    clf.conformalize(valid, alpha=0.2)
    rule = clf.choose_patient_rule(valid, specificity=0.8)
    path = tmp_path / "e.safetensors"
    clf.save(path)
    clf = cellscan.Classifier.load(path, model=TinyNet(rngs=nnx.Rngs(1)))
    decision = clf.card.decision
    assert (decision.temperature, decision.threshold, decision.patient_rule) == (temperature, threshold, rule)
    assert decision.conformal is not None
    assert all(p.label_set is not None for p in clf.predict(test))
    report = clf.evaluate(test)
    assert report.sensitivity > 0.9
    assert len(report.patients) == 10
    assert report.patients.sensitivity == 1.0
    assert {p.patient for p in report.patients if p.truth} == {f"t{n}" for n in range(5)}
    assert "no overlap with training" in str(report)


def test_an_ensemble_of_separate_models_cannot_determine_the_overlap() -> None:
    cells = tiny_cells()
    members = [cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=32, seed=seed) for seed in range(2)]
    for member in members:
        member.fit(cells, epochs=1, recipe=PLAIN, progress=False)
    assert "cannot be determined" in str(cellscan.Classifier.ensemble(members).evaluate(cells))


def test_patients_by_rules_from_other_folds(study) -> None:
    labels = np.where(np.isin(study.cells.patients, ["p0", "p1", "p2", "p3", "p4"]), 1, study.cells.labels)
    cells = replace(study.cells, labels=labels.astype(np.int32))
    other = cellscan.Study(cells, study.fold, study.seeds, study.members, study.probabilities, "x", study._options)
    found = other.patients(specificity=0.9)
    assert sum(not row.truth for row in found) == 5
    called = other.report.predicted == 0
    for number in range(3):
        mine = study.fold != number
        shares = [called[mine & (cells.patients == p)].mean() for p in np.unique(cells.patients[mine]) if p in
                  ("p0", "p1", "p2", "p3", "p4")]  # fmt: skip
        rule = np.nextafter(np.float32(sorted(shares)[int(np.ceil(0.9 * len(shares))) - 1]), np.float32(2))
        for row in found:
            if row.patient in cells.patients[~mine]:
                assert row.called == (row.share >= rule)


def test_what_a_study_says(study, tmp_path) -> None:
    text = str(study)
    assert study.split in text
    assert "3 folds by patient, hash" in text
    assert "±" in text
    assert "jax" in text
    study.to_csv(tmp_path / "s.csv")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 + 5
    assert float(lines[7].split(",")[4]) == np.mean([report.accuracy for report in study.reports])
    assert len({len(line.split(",")) for line in lines[:7]}) == 1
    kept = study.without(study.cells.names[:7])
    assert len(kept.report.labels) == 113
    assert sum(len(report.labels) for report in kept.reports) == 226
    with pytest.raises(DataError, match="loses all its cells"):
        study.select(study.fold > 0)
    study.plot()


def test_a_metric_that_nobody_can_give_is_shown_as_such(study) -> None:
    nobody = np.broadcast_to(np.array([0, 1], np.float32), study.probabilities.shape)
    text = str(cellscan.Study(study.cells, study.fold, study.seeds, study.members, nobody, study.split, {"tta": False}))
    assert "nan" not in text
    assert text[text.index("\nprecision") :].split()[:2] == ["precision", "n/a"]


def test_temperatures_come_from_other_folds(study) -> None:
    sure = np.clip(study.probabilities, 0.001, 0.999)
    other = cellscan.Study(study.cells, study.fold, study.seeds, study.members, sure, "x", study._options)
    scaled = other.calibrated()
    assert (scaled.probabilities.argmax(-1) == sure.argmax(-1)).all()
    from cellscan.evaluate.calibration import apply_temperature, fit_temperature

    here = study.fold == 1
    temperature = fit_temperature([sure[1][~here]], study.cells.labels[~here])
    assert np.allclose(scaled.probabilities[1, here], apply_temperature(sure[1, here], temperature))


def test_label_issues_are_what_others_contradict(study, tmp_path) -> None:
    flipped = study.cells.labels.copy()
    flipped[:6] = 1 - flipped[:6]
    cells = replace(study.cells, labels=flipped)
    other = cellscan.Study(cells, study.fold, study.seeds, study.members, study.probabilities, "x", study._options)
    issues = other.label_issues()
    assert {s.name for s in issues} >= set(cells.names[:6])
    assert issues[0].probability <= issues[1].probability
    assert issues.against(cells.names[:6])["roc_auc"] > 0.95
    issues.to_csv(tmp_path / "s.csv")
    assert len((tmp_path / "s.csv").read_text().splitlines()) == len(issues) + 1
    issues.plot(4)
    with pytest.raises(DataError, match="on the list"):
        issues.against(["nobody.png"])


def test_external_validation_and_silhouette(study) -> None:
    crops = tiny_cells(40, patients=8)
    found = study.external_validation(crops, progress=False)
    assert len(found.reports) == 6
    low, high = found.interval["roc_auc"]
    assert low <= found.mean["roc_auc"] <= high
    assert "8 patients or fields" in str(found)
    baseline = run(tiny_cells(36), epochs=1).silhouette()
    assert baseline.report.background == "silhouette"
    assert "BASELINE" in str(baseline.report)


def test_a_killed_study_goes_on(tmp_path) -> None:
    cells = tiny_cells(72)
    whole = run(cells, checkpoint=tmp_path / "a", epochs=2)
    import shutil

    shutil.copytree(tmp_path / "a" / "fold0-seed0", tmp_path / "b" / "fold0-seed0")  # killed in the second fold
    with pytest.raises(ArgumentError, match="resume=True"):
        run(cells, checkpoint=tmp_path / "b")
    again = run(cells, checkpoint=tmp_path / "b", resume=True)
    assert (again.probabilities == whole.probabilities).all()
    file = tmp_path / "b" / "fold1-seed0" / "predictions.safetensors"
    file.write_bytes(file.read_bytes()[:-5])  # half written by something else: not trusted
    assert (run(cells, checkpoint=tmp_path / "b", resume=True).probabilities == whole.probabilities).all()
    with pytest.raises(ArgumentError, match="another training"):
        run(cells, checkpoint=tmp_path / "b", resume=True, epochs=3)


def test_bad_input(tmp_path) -> None:
    cells = tiny_cells()
    with pytest.raises(DataError, match="6 patients cannot fill 7 parts"):
        run(cells, folds=7)
    with pytest.raises(DataError, match="no cell is 'parasitized'"):
        run(cells.select((cells.labels == 1) | (cells.patients == "p0")))
    with pytest.raises(ArgumentError, match="seeds"):
        run(cells, seeds=0)
    with pytest.raises(ArgumentError, match="patience"):
        run(cells, recipe=cellscan.Recipe(patience=2))
    with pytest.raises(ArgumentError, match="checkpoint"):
        run(cells, resume=True)
    (tmp_path / "folds.csv").write_text("patient,fold\nC1,0\nC2,1\n")
    with pytest.raises(DataError, match="6 patients of the data set are not in it"):
        run(cells, folds=tmp_path / "folds.csv")
    cells.write_folds(tmp_path / "own.csv", 3)
    assert (cells.fold_numbers(tmp_path / "own.csv") == cells.fold_numbers(3)).all()
    nobody = cellscan.CellDataset.from_arrays(np.zeros((8, 16, 16, 3), np.uint8), [0, 1] * 4)
    with pytest.raises(DataError, match="patients of these cells are unknown"):
        run(nobody)


class Plain(TinyNet):
    """Without the bias before the norm: its gradient is nothing but rounding, which Adam makes large."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        super().__init__(rngs=rngs)
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)


@pytest.mark.parametrize("scan", [False, True])
def test_vectorized_members_are_what_they_are_alone(scan, tmp_path) -> None:
    """Twenty-odd steps, members of different length, a schedule each; batch norm, dropout, average, augmentation."""
    from cellscan.models.network import Network, weights_of
    from cellscan.tasks.classification import ClassificationTask
    from cellscan.tasks.programs import trained_by
    from cellscan.training.devices import Examples
    from cellscan.training.vectorized import run_vectorized, unstack

    cells = tiny_cells(100, patients=10)
    recipe = cellscan.Recipe(learning_rate=1e-2, class_weight="balanced")
    rows = [*(np.flatnonzero(cells.fold_numbers(3) != number) for number in range(2)), np.arange(100)]
    seeds, first = [0, 5, 7], [cellscan.Classifier(Plain(rngs=nnx.Rngs(i)), image_size=32) for i in range(3)]
    task = trained_by(ClassificationTask(Network(first[0].model)), recipe)
    *_, last = run_vectorized(
        task, [weights_of(clf.model) for clf in first], Examples(cells.images(32), cells.labels), rows, seeds,
        recipe=recipe, epochs=2, batch_size=8, class_names=cells.class_names, scan=scan,
    )  # fmt: skip
    assert last.finished
    assert len({len(own) for own in rows}) > 1
    for place, (clf, own, seed) in enumerate(zip(first, rows, seeds, strict=True)):
        alone = cellscan.Classifier(clf.model, image_size=32, seed=seed)
        history = alone.fit(cells.select(own), epochs=2, batch_size=8, recipe=recipe, progress=False)
        trained = weights_of(alone.model)
        for kind, leaves in unstack(last.kept, place).items():
            for name, leaf in leaves.items():
                assert np.allclose(leaf, trained[kind][name], atol=1e-4), (place, name)
        assert np.isclose(history["loss"][-1], np.array(last.records[-1]["loss"])[place], atol=1e-4)


def test_a_vectorized_study(tmp_path) -> None:
    cells = tiny_cells(72)
    apart, both = (
        run(cells, model=Plain(rngs=nnx.Rngs(0)), vectorized=vectorized, checkpoint=tmp_path / str(vectorized))
        for vectorized in (False, True)
    )
    assert np.allclose(apart.probabilities, both.probabilities, atol=1e-3)
    assert [clf.card.epochs for clf in both.members] == [2, 2, 2]
    assert both.members[0].card.recipe == apart.members[0].card.recipe
    again = run(cells, model=Plain(rngs=nnx.Rngs(0)), vectorized=True, checkpoint=tmp_path / "True", resume=True)
    assert (again.probabilities == both.probabilities).all()
    with pytest.raises(cellscan.TrainingError, match="not finite"):
        run(cells, vectorized=True, recipe=replace(PLAIN, learning_rate=1e30, clip_norm=None))
