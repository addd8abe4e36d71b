"""`fit_epochs`: the same training as `fit`, which the caller may leave, resume and use between epochs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flax import nnx
from helpers import TinyNet, tiny_cells
from safetensors.numpy import load_file

import cellscan
from cellscan import Classifier, Recipe

CELLS = tiny_cells(24, 16)
PATIENCE = Recipe(patience=2, monitor="accuracy", ema=None)


def classifier() -> Classifier:
    return Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)


def epochs_of(clf: Classifier, folder=None, *, resume: bool = False, recipe: Recipe | None = None):
    return clf.fit_epochs(
        CELLS, validation=CELLS, epochs=6, batch_size=8, checkpoint=folder, resume=resume, recipe=recipe, progress=False
    )


def untimed(records: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in records]


@pytest.mark.parametrize("recipe", [Recipe(), PATIENCE], ids=["default", "patience"])
def test_it_has_the_bits_of_fit_whatever_happens_between_epochs(recipe, tmp_path) -> None:
    expected = classifier()
    history = expected.fit(CELLS, validation=CELLS, epochs=6, batch_size=8, recipe=recipe, progress=False)
    clf, records = classifier(), []
    for record in epochs_of(clf, recipe=recipe):
        records.append(dict(record))
        record.clear()
        clf.threshold = 0.3
        clf.save(tmp_path / "model.safetensors")
    assert untimed(records) == untimed(history.records)
    assert all({"seconds", "images_per_second"} <= set(record) for record in records)
    assert clf.fingerprint == expected.fingerprint
    assert clf.card.metrics == expected.card.metrics


def test_the_model_has_the_weights_of_each_epoch() -> None:
    clf, seen = classifier(), set()
    for number, record in enumerate(epochs_of(clf), 1):
        assert record["epoch"] == clf.card.epochs == number
        assert clf.card.metrics == {"fit": untimed([record])[0]}
        assert clf.evaluate(CELLS, progress=False).accuracy == pytest.approx(record["validation_accuracy"])
        seen.add(clf.fingerprint)
    assert len(seen) == 6


def leave_by_break(records: Iterator[dict[str, float]]) -> None:
    for record in records:
        if record["epoch"] == 3:
            break


def leave_by_error(records: Iterator[dict[str, float]]) -> None:
    def use() -> None:
        for record in records:
            if record["epoch"] == 3:
                raise RuntimeError("the tracking server is away")

    with pytest.raises(RuntimeError, match="tracking"):
        use()


def leave_open(records: Iterator[dict[str, float]]) -> None:
    for _ in range(3):
        next(records)


@pytest.mark.parametrize(
    ("leave", "recipe"), [(leave_by_break, PATIENCE), (leave_by_error, Recipe()), (leave_open, Recipe())]
)
def test_a_training_that_was_left_keeps_its_last_epoch_and_resumes(leave, recipe, tmp_path) -> None:
    whole, at_three = classifier(), ""
    expected = []
    for record in epochs_of(whole, recipe=recipe):
        expected.append(record)
        at_three = whole.fingerprint if record["epoch"] == 3 else at_three
    clf = classifier()
    leave(records := epochs_of(clf, tmp_path, recipe=recipe))
    assert clf.fingerprint == at_three
    assert clf.card.epochs == 3
    resumed = classifier()
    records = epochs_of(resumed, tmp_path, resume=True, recipe=recipe)
    first = next(records)
    assert resumed.fingerprint == at_three
    assert untimed([first, *records]) == untimed(expected)
    assert resumed.fingerprint == whole.fingerprint
    assert (resumed.card.epochs, resumed.card.metrics) == (whole.card.epochs, whole.card.metrics)
    assert untimed(list(epochs_of(classifier(), tmp_path, resume=True, recipe=recipe))) == untimed(expected)


def test_a_change_of_a_record_is_not_written_to_the_checkpoint(tmp_path) -> None:
    for record in epochs_of(classifier(), tmp_path):
        record.clear()
    for record in epochs_of(classifier(), tmp_path, resume=True):
        assert record["loss"] > 0


def test_arguments_are_checked_by_the_call_and_nothing_is_trained_without_a_loop(tmp_path) -> None:
    clf = classifier()
    with pytest.raises(cellscan.ArgumentError, match="epochs"):
        clf.fit_epochs(CELLS, epochs=0)
    with pytest.raises(cellscan.ArgumentError, match="patience needs a validation set"):
        clf.fit_epochs(CELLS, recipe=PATIENCE)
    before = clf.fingerprint
    epochs_of(clf, tmp_path)
    assert clf.card.epochs == 0
    assert clf.fingerprint == before
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_leaves_finite_weights() -> None:
    clf = classifier()
    recipe = Recipe(learning_rate=1e30, schedule="constant", clip_norm=None, augment="none", ema=None)
    with pytest.raises(cellscan.TrainingError, match="not finite"):
        list(epochs_of(clf, recipe=recipe))
    assert clf.card.epochs < 6
    assert np.isfinite(clf.predict_proba(CELLS, progress=False)).all()


def test_a_detector_has_the_same_iterator(tmp_path) -> None:
    fields = cellscan.synthetic_fields(4, seed=0, size=(96, 128))

    def detector() -> cellscan.Detector:
        return cellscan.Detector("retinanet_small", image_size=(64, 64), seed=0)

    options: dict[str, Any] = {"epochs": 2, "batch_size": 2, "progress": False}
    expected = detector()
    history = expected.fit(fields, **options)
    det = detector()
    for record in det.fit_epochs(fields, checkpoint=tmp_path, **options):
        assert untimed([record]) == untimed(history.records[:1])
        break
    assert det.card.epochs == 1
    resumed = detector()
    records = list(resumed.fit_epochs(fields, checkpoint=tmp_path, resume=True, **options))
    assert untimed(records) == untimed(history.records)
    for name, model in (("resumed", resumed), ("whole", expected)):
        model.save(tmp_path / f"{name}.safetensors")
    tensors, wanted = load_file(tmp_path / "resumed.safetensors"), load_file(tmp_path / "whole.safetensors")
    assert tensors.keys() == wanted.keys()
    assert all(np.array_equal(tensors[name], wanted[name]) for name in wanted)
