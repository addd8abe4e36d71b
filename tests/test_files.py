"""Files that earlier releases wrote are read, and give the results that they gave then."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from files.make import HERE, PLAN, SIZE, load_classifier, results, resumed
from safetensors import safe_open
from safetensors.numpy import load_file

import cellscan
from cellscan import card as cards
from cellscan.models.retinanet import PLANS
from cellscan.tensors import write_tensors
from cellscan.training import checkpoint

RELEASES = sorted(path.name for path in HERE.iterdir() if (path / "results.npz").exists())
# In units of the values: rounding differs between releases of XLA and between processors.
TOLERANCES = {"probabilities": 1e-5, "scores": 1e-5, "novelty": 1e-3, "boxes": 1e-2}


@cache
def stored(release: str) -> dict[str, np.ndarray]:
    with np.load(HERE / release / "results.npz") as file:
        return dict(file)


def assert_as_stored(release: str, name: str, found: dict[str, np.ndarray], **tolerances: float) -> None:
    """Compare results with the stored ones: numbers within tolerances, decisions exactly."""
    expected = {
        key.removeprefix(f"{name}."): value for key, value in stored(release).items() if key.startswith(f"{name}.")
    }
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        tolerance = {**TOLERANCES, **tolerances}.get(key, 0)
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance, err_msg=f"{release} {name} {key}")


def test_this_format_has_stored_files() -> None:
    assert RELEASES
    with safe_open(HERE / RELEASES[-1] / "classifier.safetensors", "np") as file:
        number = json.loads(file.metadata()["cellscan"])["format"]
    assert number == cards.FORMAT, "the format of model files changed; run tests/files/make.py models"
    with safe_open(HERE / RELEASES[-1] / "checkpoint" / checkpoint.NAME, "np") as file:
        number = json.loads(file.metadata()["cellscan.checkpoint"])["format"]
    assert number == checkpoint.FORMAT, "the format of checkpoints changed; run tests/files/make.py models"


def test_stored_files_are_small() -> None:
    for release in RELEASES:
        assert sum(path.stat().st_size for path in (HERE / release).rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ["classifier", "ensemble", "float16"])
def test_a_classifier_decides_as_it_did(release, name) -> None:
    clf = load_classifier(HERE / release / f"{name}.safetensors")
    found = results(clf, stored(release))
    assert_as_stored(release, name, found)
    assert set(found["labels"]) == {0, 1}
    if name == "ensemble":
        assert clf.card.n_members == 2
        return
    assert clf.card.licence == "CC0-1.0"
    assert clf.card.decision.conformal is not None
    assert clf.card.decision.patient_rule is not None
    assert clf.card.novelty is not None
    assert clf.card.patient_hashes["train"]
    assert name == "float16" or "accuracy" in clf.card.metrics["report"]["metrics"]


@pytest.mark.parametrize("release", RELEASES)
def test_a_detector_finds_what_it_found(release, monkeypatch) -> None:
    monkeypatch.setitem(PLANS, PLAN.name, PLAN)
    det = cellscan.Detector.load(HERE / release / "detector.safetensors")
    found = results(det, stored(release))
    assert set(found["labels"]) == {0, 1}
    assert_as_stored(release, "detector", found)
    detection = det.card.detection
    assert detection is not None
    assert detection.likeness is not None
    assert len(detection.outcomes) == 10


@pytest.mark.parametrize("release", RELEASES)
def test_a_checkpoint_is_resumed(release, tmp_path) -> None:
    shutil.copytree(HERE / release / "checkpoint", tmp_path, dirs_exist_ok=True)
    clf = resumed(HERE / release / "classifier.safetensors", stored(release), tmp_path)
    assert clf.card.epochs == 16
    # Two epochs of training enlarge the differences of rounding.
    found = {"probabilities": clf.predict_proba(stored(release)["cells"], progress=False)}
    assert_as_stored(release, "checkpoint", found, probabilities=1e-3)


@pytest.mark.parametrize("release", RELEASES)
def test_an_exported_file_runs(release) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(HERE / release / "classifier.onnx"))
    images = stored(release)["cells"]
    assert images.shape[1:] == (SIZE, SIZE, 3)
    assert json.loads(session.get_modelmeta().custom_metadata_map["cellscan"])["format"] <= cards.FORMAT
    probabilities = session.run(None, {"images": images})[0]
    np.testing.assert_allclose(probabilities, stored(release)["classifier.probabilities"], rtol=0, atol=1e-5)


def rewrite(source: Path, target: Path, entry: str, **changes: object) -> None:
    """Copy a file with other values in its header."""
    with safe_open(source, "np") as file:
        raw = json.loads(file.metadata()[entry])
    write_tensors(target, load_file(source), {entry: json.dumps({**raw, **changes})})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": cards.FORMAT - 1}, "from before the first release.*Train and save the model again"),
        ({"format": cards.FORMAT + 1, "versions": {"cellscan": "9.9"}}, "made by a newer cellscan .9.9.*Upgrade"),
        ({"novelty": {"threshold": 3.0}}, "the card is damaged .KeyError: 'cells'"),
    ],
)
def test_a_file_of_another_format_is_refused_with_what_to_do(tmp_path, changes, message) -> None:
    path = tmp_path / "model.safetensors"
    rewrite(HERE / RELEASES[-1] / "classifier.safetensors", path, "cellscan", **changes)
    with pytest.raises(cellscan.ModelFileError, match=f"model.safetensors: .*{message}"):
        load_classifier(path)


def test_novelty_of_another_format_is_refused(tmp_path) -> None:
    source, path = HERE / RELEASES[-1] / "classifier.safetensors", tmp_path / "model.safetensors"
    with safe_open(source, "np") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    tensors["novelty.basis"] = tensors["novelty.basis"].astype(np.float32)
    write_tensors(path, tensors, {"cellscan": metadata["cellscan"]})
    with pytest.raises(cellscan.ModelFileError, match="do not fit each other basis of float32"):
        load_classifier(path)
    del tensors["novelty.variances"]
    write_tensors(path, tensors, {"cellscan": metadata["cellscan"]})
    with pytest.raises(cellscan.ModelFileError, match=r"card is damaged .KeyError: 'novelty\.variances'"):
        load_classifier(path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path) -> None:
    source = HERE / RELEASES[-1] / "checkpoint" / checkpoint.NAME
    rewrite(source, tmp_path / checkpoint.NAME, "cellscan.checkpoint", format=checkpoint.FORMAT + 1)
    with pytest.raises(cellscan.ModelFileError, match="this cellscan reads format 1. Pass another folder"):
        resumed(HERE / RELEASES[-1] / "classifier.safetensors", stored(RELEASES[-1]), tmp_path)
