"""Calls of classifiers, detectors, studies and smears with unexpected values return or raise an error of cellscan."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_image, tiny_cells
from hypothesis import given, settings
from odd import odd

import cellscan

CELLS: Any = tiny_cells(24)
FIELDS: Any = cellscan.synthetic_fields(2, seed=0, size=(96, 96))
IMAGE = random_image()
SCAN: Any = cellscan


def one(value: Any, allowed: int) -> Any:
    """Return a value, or the allowed one for a whole number that may be allowed too: each size compiles anew."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return allowed if whole and value > 0 else value


def nowhere(value: Any, folder: Path) -> Any:
    """Return a path in a folder of its own, where the value is one."""
    return folder / "new" / "a.safetensors" if isinstance(value, (str, bytes, Path)) else value


RECIPE = [one.name for one in dataclasses.fields(cellscan.Recipe)]


def recipe_with(name: str, value: Any) -> None:
    """Make a recipe with this value, or see an error of ours."""
    try:
        SCAN.Recipe(**{name: value})
    except cellscan.CellscanError as error:
        assert name in str(error)  # noqa: PT017 - either outcome is right


class Things:
    """What the calls are made on, made once."""

    def __init__(self) -> None:
        self.clf: Any = cellscan.Classifier(image_size=16, seed=0)
        self.det: Any = cellscan.Detector(image_size=(96, 96), seed=0)
        self.det.thresholds = 0.05, 0.05
        self.study: Any = cellscan.cross_validate("small_cnn", CELLS, folds=2, image_size=16, epochs=1, progress=False)
        self.report: Any = self.clf.evaluate(CELLS, progress=False)

    def fit(self, **options: Any) -> None:
        given_ = {"train": CELLS, "epochs": 1, "batch_size": 8, "progress": False, **options}
        cellscan.Classifier(image_size=16).fit(given_.pop("train"), **given_)

    def teach(self, **options: Any) -> None:
        given_ = {"train": FIELDS, "epochs": 1, "batch_size": 2, "progress": False, **options}
        cellscan.Detector(image_size=(96, 96)).fit(given_.pop("train"), **given_)

    def cross(self, **options: Any) -> None:
        given_ = {"model": "small_cnn", "cells": CELLS, "folds": 2, "epochs": 1, "image_size": 16, **options}
        cellscan.cross_validate(given_.pop("model"), given_.pop("cells"), progress=False, **given_)


CALLS = {
    "Classifier": lambda x, t, d: SCAN.Classifier(x),
    "Classifier, weights": lambda x, t, d: SCAN.Classifier("small_cnn", weights=x),
    "Classifier, image_size": lambda x, t, d: SCAN.Classifier(image_size=one(x, 16)),
    "Classifier, background": lambda x, t, d: SCAN.Classifier(background=x),
    "Classifier, class_names": lambda x, t, d: SCAN.Classifier(class_names=x),
    "Classifier, class name": lambda x, t, d: SCAN.Classifier(class_names=["a", x]),
    "Classifier, positive_class": lambda x, t, d: SCAN.Classifier(positive_class=x),
    "Classifier, seed": lambda x, t, d: SCAN.Classifier(seed=x),
    "ensemble": lambda x, t, d: SCAN.Classifier.ensemble(x),
    "ensemble, one": lambda x, t, d: SCAN.Classifier.ensemble([t.clf, x]),
    "fit": lambda x, t, d: t.fit(train=x),
    "fit, validation": lambda x, t, d: t.fit(validation=x),
    "fit, epochs": lambda x, t, d: t.fit(epochs=one(x, 1)),
    "fit, batch_size": lambda x, t, d: t.fit(batch_size=one(x, 8)),
    "fit, recipe": lambda x, t, d: t.fit(recipe=x),
    "fit, checkpoint": lambda x, t, d: t.fit(checkpoint=nowhere(x, d)),
    "fit, resume": lambda x, t, d: t.fit(resume=x),
    "predict": lambda x, t, d: t.clf.predict(x),
    "predict, one": lambda x, t, d: t.clf.predict([IMAGE, x]),
    "predict, tta": lambda x, t, d: t.clf.predict(IMAGE, tta=x),
    "predict, on_error": lambda x, t, d: t.clf.predict(IMAGE, on_error=x),
    "predict, progress": lambda x, t, d: t.clf.predict(IMAGE, progress=x),
    "predict_proba": lambda x, t, d: t.clf.predict_proba(x),
    "embed": lambda x, t, d: t.clf.embed([x]),
    "explain": lambda x, t, d: t.clf.explain(x, method="grad_cam"),
    "explain, method": lambda x, t, d: t.clf.explain(IMAGE, method=x),
    "explain, label": lambda x, t, d: t.clf.explain(IMAGE, method="grad_cam", label=x),
    "evaluate": lambda x, t, d: t.clf.evaluate(x),
    "evaluate, without": lambda x, t, d: t.clf.evaluate(CELLS, without=x),
    "calibrate": lambda x, t, d: t.clf.calibrate(x),
    "calibrate, tta": lambda x, t, d: SCAN.Classifier(image_size=16).calibrate(CELLS, tta=x),
    "choose_threshold": lambda x, t, d: t.clf.choose_threshold(x, sensitivity=0.9),
    "choose_threshold, sensitivity": lambda x, t, d: t.clf.choose_threshold(CELLS, sensitivity=x),
    "choose_threshold, specificity": lambda x, t, d: t.clf.choose_threshold(CELLS, specificity=x),
    "conformalize, alpha": lambda x, t, d: t.clf.conformalize(CELLS, alpha=x),
    "choose_patient_rule, sensitivity": lambda x, t, d: t.clf.choose_patient_rule(CELLS, sensitivity=x),
    "learn_novelty": lambda x, t, d: t.clf.learn_novelty(x),
    "threshold": lambda x, t, d: setattr(t.clf, "threshold", x),
    "save": lambda x, t, d: t.clf.save(nowhere(x, d)),
    "save, report": lambda x, t, d: t.clf.save(d / "a.safetensors", report=x),
    "save, licence": lambda x, t, d: t.clf.save(d / "a.safetensors", licence=x),
    "save, dtype": lambda x, t, d: t.clf.save(d / "a.safetensors", dtype=x),
    "export": lambda x, t, d: t.clf.export(x),
    "export, platforms": lambda x, t, d: t.clf.export(d / "a.stablehlo", platforms=x),
    "load": lambda x, t, d: SCAN.Classifier.load(x),
    "load, model": lambda x, t, d: SCAN.Classifier.load(d / "own.safetensors", model=x),
    "pretrained": lambda x, t, d: SCAN.Classifier.pretrained(x),
    "Recipe": lambda x, t, d: [recipe_with(name, x) for name in RECIPE],
    "Decision, threshold": lambda x, t, d: SCAN.Decision(threshold=x),
    "Decision, temperature": lambda x, t, d: SCAN.Decision(temperature=x),
    "Decision, conformal": lambda x, t, d: SCAN.Decision(conformal=x),
    "Decision, patient_rule": lambda x, t, d: SCAN.Decision(patient_rule=x),
    "Decision, tta": lambda x, t, d: SCAN.Decision(tta=x),
    "Detector": lambda x, t, d: SCAN.Detector(x),
    "Detector, weights": lambda x, t, d: SCAN.Detector(weights=x),
    "Detector, image_size": lambda x, t, d: SCAN.Detector(image_size=x),
    "Detector, side": lambda x, t, d: SCAN.Detector(image_size=(64, one(x, 64))),
    "Detector, class_names": lambda x, t, d: SCAN.Detector(class_names=x),
    "Detector, seed": lambda x, t, d: SCAN.Detector(seed=x),
    "Detector.thresholds": lambda x, t, d: setattr(t.det, "thresholds", x),
    "Detector.threshold": lambda x, t, d: setattr(t.det, "thresholds", (x, 0.5)),
    "Detector.fit": lambda x, t, d: t.teach(train=x),
    "Detector.fit, validation": lambda x, t, d: t.teach(validation=x),
    "Detector.fit, batch_size": lambda x, t, d: t.teach(batch_size=one(x, 2)),
    "Detector.fit, recipe": lambda x, t, d: t.teach(recipe=x),
    "Detector.predict": lambda x, t, d: t.det.predict(x),
    "Detector.predict, score_threshold": lambda x, t, d: t.det.predict(IMAGE, score_threshold=x),
    "Detector.predict, on_error": lambda x, t, d: t.det.predict(IMAGE, on_error=x),
    "Detector.evaluate": lambda x, t, d: t.det.evaluate(x),
    "Detector.choose_threshold": lambda x, t, d: t.det.choose_threshold(x),
    "Detector.save": lambda x, t, d: t.det.save(nowhere(x, d)),
    "Detector.save, report": lambda x, t, d: t.det.save(d / "a.safetensors", report=x),
    "Detector.load": lambda x, t, d: SCAN.Detector.load(x),
    "Detector.pretrained": lambda x, t, d: SCAN.Detector.pretrained(x),
    "screen": lambda x, t, d: SCAN.screen(x, t.det),
    "screen, minimum_cells": lambda x, t, d: SCAN.screen(FIELDS, t.det, minimum_cells=x),
    "screen, red_cells": lambda x, t, d: SCAN.screen(FIELDS, t.det, red_cells_per_microlitre=x),
    "screen, seed": lambda x, t, d: SCAN.screen(FIELDS, t.det, seed=x),
    "cross_validate": lambda x, t, d: t.cross(cells=x),
    "cross_validate, model": lambda x, t, d: t.cross(model=x),
    "cross_validate, folds": lambda x, t, d: t.cross(folds=one(x, 2)),
    "cross_validate, seeds": lambda x, t, d: t.cross(seeds=one(x, 1)),
    "cross_validate, epochs": lambda x, t, d: t.cross(epochs=one(x, 1)),
    "cross_validate, tta": lambda x, t, d: t.cross(tta=x),
    "cross_validate, vectorized": lambda x, t, d: t.cross(vectorized=x),
    "cross_validate, checkpoint": lambda x, t, d: t.cross(checkpoint=nowhere(x, d)),
    "study.select": lambda x, t, d: t.study.select(x),
    "study.without": lambda x, t, d: t.study.without(x),
    "study.patients": lambda x, t, d: t.study.patients(sensitivity=x),
    "study.coverage, alpha": lambda x, t, d: t.study.coverage(alpha=x),
    "study.coverage, splits": lambda x, t, d: t.study.coverage(splits=one(x, 3)),
    "study.coverage, seed": lambda x, t, d: t.study.coverage(splits=3, seed=x),
    "study.external_validation": lambda x, t, d: t.study.external_validation(x),
    "study.to_csv": lambda x, t, d: t.study.to_csv(nowhere(x, d)),
    "label_issues.against": lambda x, t, d: t.study.label_issues().against(x),
    "label_issues.plot": lambda x, t, d: t.study.label_issues().plot(one(x, 2)),
    "compare": lambda x, t, d: SCAN.compare(x, t.report),
    "keep_programs": lambda x, t, d: SCAN.keep_programs(nowhere(x, d)),
}
"""Name -> call with an odd value, the things, and a folder."""


@pytest.fixture(scope="module")
def things() -> Things:
    return Things()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("d")


LONG = [name for name in CALLS if "fit" in name or "cross_validate" in name]
"""Calls that train where the value is right."""


@pytest.mark.parametrize("call", [name for name in CALLS if name not in LONG])
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25, deadline=None)
@given(value=odd)
def test_an_answer_or_an_error_of_ours(call, things, folder, value) -> None:
    check(call, things, folder, value)


@pytest.mark.parametrize("call", LONG)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=8, deadline=None)
@given(value=odd)
def test_a_training_or_an_error_of_ours(call, things, folder, value) -> None:
    check(call, things, folder, value)


def check(call: str, things: Things, folder: Path, value: Any) -> None:
    try:
        CALLS[call](value, things, folder)
    except cellscan.CellscanError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_a_file_that_is_open_is_no_path(things) -> None:
    with pytest.raises(cellscan.ArgumentError, match="expected a path"):
        things.clf.save(io.BytesIO())
