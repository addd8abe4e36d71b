"""Write the stored model files and the stored results of the bundled models, which tests compare in every run.

    python tests/files/make.py models    # tests/files/<version>/: once per release that changes a format
    python tests/files/make.py bundled   # tests/files/bundled/expected.json: after a bundled model is replaced

`models` writes one small file of each kind, trained on synthetic images, and the results of each on stored inputs. It
does not overwrite a folder: a stored file is evidence of what a release wrote. It needs Python 3.12 or newer, for the
ONNX export. `bundled` draws its images only if there are none.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from flax import nnx
from PIL import Image

import cellscan
from cellscan.models.retinanet import PLANS, Plan
from cellscan.training.checkpoint import Checkpoint

HERE = Path(__file__).resolve().parent
SIZE = 16
PLAN = Plan("retinanet_stored", "small", (16, 16, 16), width=16, convolutions=1, levels=3, norm=True)
"""The smallest detector; those of the library have megabytes."""
MARGIN = 5e-3
"""Smallest distance of a stored value from the limit that decides about it, so that rounding changes no decision."""


class StoredNet(nnx.Module):
    """The network of the stored classifiers, of 1,134 parameters, with batch norm. Do not change it."""

    def __init__(self, *, seed: int = 0) -> None:
        rngs = nnx.Rngs(seed)
        # A bias before batch norm has no gradient but rounding, which Adam would enlarge.
        self.conv1 = nnx.Conv(3, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.conv2 = nnx.Conv(8, 12, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(12, 2, rngs=rngs)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        first = jax.nn.relu(self.norm(self.conv1(x)))
        second = jax.nn.relu(self.conv2(first))
        return {"first": first, "second": second, "pre_logits": second.mean((1, 2))}

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.features(x)["pre_logits"])


def resumed(start: Path, inputs: dict[str, np.ndarray], folder: Path) -> cellscan.Classifier:
    """Train a stored classifier on the stored cells for four epochs, or continue the training of a checkpoint.

    A checkpoint compares the initial weights. They are read from a file, because drawn ones depend on the compiler.
    """
    cells = cellscan.CellDataset.from_arrays(inputs["cells"], inputs["labels"], patients=inputs["patients"])
    clf = load_classifier(start)
    clf.fit(cells, validation=cells, epochs=4, batch_size=8, checkpoint=folder, resume=True, progress=False)
    return clf


def results(model: cellscan.Classifier | cellscan.Detector, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a model predicts for the stored inputs."""
    if isinstance(model, cellscan.Detector):
        found = model.predict(list(inputs["fields"]), cell_diameter=None, progress=False)
        return {name: np.concatenate([getattr(one, name) for one in found]) for name in ("boxes", "labels", "scores")}
    preds = model.predict(inputs["cells"], progress=False)
    values = {name: getattr(preds, name) for name in ("probabilities", "labels", "label_sets", "novelty", "novel")}
    return {name: value for name, value in values.items() if value is not None}


def save_models(folder: Path) -> None:
    """Write one file of each kind, their inputs and their results to a folder."""
    cells = cellscan.synthetic_cells(600, seed=0, difficulty="easy", progress=False)
    train, calibration, others = cells.split(validation=0.4, test=0.2, by="patient", seed=0)
    fields = cellscan.synthetic_fields(10, seed=0, size=(192, 256), difficulty="easy")
    infected = sorted(fields, key=lambda field: (field.labels == 1).sum(), reverse=True)
    found: dict[str, dict[str, np.ndarray]] = {}

    def keep(name: str, model: cellscan.Classifier | cellscan.Detector, load: Callable[[Path], Any], **options) -> None:
        path = folder / f"{name}.safetensors"
        model.save(path, licence="CC0-1.0", **options)
        found[name] = results(load(path), inputs)

    members = []
    for seed in range(2):
        clf = cellscan.Classifier(StoredNet(seed=seed), image_size=SIZE, seed=seed)
        clf.fit(train, epochs=12, batch_size=16, recipe=cellscan.Recipe(learning_rate=0.02), progress=False)
        members.append(clf)
    one = members[0]
    both = cellscan.Classifier.ensemble(members)
    one.calibrate(calibration, progress=False)
    one.choose_threshold(calibration, sensitivity=0.9, progress=False)
    one.conformalize(calibration, alpha=0.2, progress=False)
    one.choose_patient_rule(calibration, sensitivity=0.9, progress=False)
    one.learn_novelty(train, progress=False)
    shown = others.select(find_clear([one, both], others)[::3][:24])
    inputs = {
        "cells": np.asarray(shown.images(SIZE)), "labels": shown.labels, "patients": shown.patients,
        "fields": np.stack([field.image for field in infected[:2]]),
    }  # fmt: skip
    keep("classifier", one, load_classifier, report=one.evaluate(calibration, progress=False))
    keep("ensemble", both, load_classifier)
    keep("float16", one, load_classifier, dtype="float16")
    one.export(folder / "classifier.onnx")
    (folder / "classifier.onnx.py").unlink()  # It is code of the library, which other tests run.

    with mock.patch.dict(PLANS, {PLAN.name: PLAN}):
        det = cellscan.Detector(PLAN.name, image_size=(96, 128), seed=0)
        recipe = cellscan.Recipe(augment="none", learning_rate=0.01)
        det.fit(fields, epochs=200, batch_size=5, recipe=recipe, progress=False)
        det.thresholds = (0.05, 0.05)
        seen = results(det, inputs)
        det.thresholds = [find_gap(seen["scores"][seen["labels"] == label]) for label in range(2)]
        det.measure_errors(fields, progress=False)
        keep("detector", det, cellscan.Detector.load, dtype="float16")
    if set(found["detector"]["labels"]) != {0, 1}:
        raise SystemExit("the detector does not find cells of both classes; train it longer")

    start, save = folder / "classifier.safetensors", Checkpoint.save

    def interrupt(self: Checkpoint, at: Any) -> None:
        save(self, at)
        if len(at.records) == 2:
            raise KeyboardInterrupt

    with mock.patch.object(Checkpoint, "save", interrupt):
        try:
            resumed(start, inputs, folder / "checkpoint")
        except KeyboardInterrupt:
            pass
    with tempfile.TemporaryDirectory() as other:
        shutil.copytree(folder / "checkpoint", other, dirs_exist_ok=True)
        found["checkpoint"] = {"probabilities": resumed(start, inputs, Path(other)).predict_proba(inputs["cells"])}
    flat = {f"{name}.{key}": value for name, values in found.items() for key, value in values.items()}
    np.savez_compressed(folder / "results.npz", **inputs, **flat, allow_pickle=False)


def load_classifier(path: Path) -> cellscan.Classifier:
    """Load a stored classifier."""
    return cellscan.Classifier.load(path, model=StoredNet())


def find_clear(models: list[cellscan.Classifier], cells: cellscan.CellDataset) -> np.ndarray:
    """Return the cells whose decisions are not changed by rounding, and not by weights in float16."""
    clear = np.ones(len(cells), bool)
    for clf in models:
        preds, card = clf.predict(cells, progress=False), clf.card
        novelty = preds.novelty
        clear &= np.abs(preds.probabilities[:, 0] - card.decision.threshold) > MARGIN
        if card.decision.conformal is not None and card.novelty is not None and novelty is not None:
            clear &= (np.abs(1 - preds.probabilities - card.decision.conformal.quantile) > MARGIN).all(1)
            clear &= np.abs(novelty - card.novelty.threshold) > MARGIN
    return np.flatnonzero(clear)


def find_gap(scores: np.ndarray) -> float:
    """Return a score threshold in the widest gap between scores; 0.5 for a class with fewer than two."""
    scores = np.sort(scores)
    if len(scores) < 2:
        return 0.5
    row = int(np.diff(scores).argmax())
    return float(scores[row : row + 2].mean())


def describe_bundled() -> dict[str, Any]:
    """Return what the bundled models predict for the stored images."""
    folder = HERE / "bundled"
    cells, fields = (sorted(folder.glob(f"{kind}_*.png")) for kind in ("cell", "field"))
    preds = cellscan.Classifier.pretrained().predict([str(path) for path in cells], progress=False)
    assert preds.novelty is not None
    rows = {
        path.name: {"label": pred.label_name, "probabilities": row.tolist(), "novelty": float(novelty)}
        for path, pred, row, novelty in zip(cells, preds, preds.probabilities, preds.novelty, strict=True)
    }
    for found in cellscan.Detector.pretrained().predict([str(path) for path in fields], progress=False):
        names = [found.class_names[label] for label in found.labels]
        values = {"diameter": found.cell_diameter, "appearance": list(found.appearance), "labels": names}
        rows[Path(found.name).name] = {**values, "scores": found.scores.tolist(), "boxes": found.boxes.tolist()}
    return rows


def save_bundled() -> None:
    """Write what the bundled models predict for the stored images, which are drawn if there are none."""
    folder = HERE / "bundled"
    if not folder.exists():
        folder.mkdir()
        for number, cell in enumerate(cellscan.synthetic_cells(40, seed=5, progress=False)[::8]):
            Image.fromarray(cell.image).save(folder / f"cell_{number}.png")
        for number, field in enumerate(cellscan.synthetic_fields(2, seed=2, size=(180, 240))):
            Image.fromarray(field.image).save(folder / f"field_{number}.png")
    text = json.dumps(describe_bundled(), indent=1)
    (folder / "expected.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("models", "bundled"))
    if parser.parse_args().what == "bundled":
        return save_bundled()
    target = HERE / cellscan.__version__
    if target.exists():
        raise SystemExit(f"{target} exists; stored files are not replaced")
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder))
        shutil.copytree(folder, target)
    return None


if __name__ == "__main__":
    main()
