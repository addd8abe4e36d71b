"""An exported classifier returns the same probabilities as `predict_proba`."""

import json
import subprocess
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from helpers import TinyNet, random_image, tiny_cells

import cellscan

needs_onnx = pytest.mark.skipif(find_spec("jax2onnx") is None, reason="jax2onnx is for Python 3.12 and newer")


def run_onnx(path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    return np.asarray(session.run(None, {"images": images})[0])


def run_stablehlo(path, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(images))


def classifiers() -> dict[str, cellscan.Classifier]:
    from flax import nnx

    members = [cellscan.Classifier(image_size=32, seed=seed) for seed in range(2)]
    both = cellscan.Classifier.ensemble(members)
    both.calibrate(tiny_cells(48), progress=False)
    named = {
        name: cellscan.Classifier(name, image_size=size, seed=0)
        for name, size in (("resnet18", 33), ("squeezenet1_1", 32))
    }
    own = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, background="silhouette")
    return {"pretrained": cellscan.Classifier.pretrained(), "ensemble": both, "own": own, **named}


NAMES = ("pretrained", "ensemble", "own", "resnet18", "squeezenet1_1")


@pytest.fixture(scope="module")
def built() -> dict[str, cellscan.Classifier]:
    return classifiers()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=needs_onnx), "stablehlo"])
def test_a_file_says_the_same(built, tmp_path, name: str, suffix: str) -> None:
    clf = built[name]
    path = tmp_path / f"model.{suffix}"
    clf.export(path)
    run = run_onnx if suffix == "onnx" else run_stablehlo
    for count in (5, 1):
        images = np.random.default_rng(0).integers(0, 256, (count, clf.image_size, clf.image_size, 3), dtype=np.uint8)
        images[:, :4] = 0  # a background
        assert np.abs(run(path, images) - clf.predict_proba(images, progress=False)).max() < 1e-4


@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=needs_onnx), "stablehlo"])
def test_the_script_beside_it_runs_without_this_library(tmp_path, suffix: str) -> None:
    from PIL import Image

    clf = cellscan.Classifier.pretrained()
    clf.export(tmp_path / f"model.{suffix}")
    Image.fromarray(random_image(0, 90, 120)).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([random_image(1, 70, 60), np.full((70, 60), 255, np.uint8)])).save(tmp_path / "b.png")
    grey = random_image(2, 60, 50)[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray((grey / 255).astype(np.float32)).save(tmp_path / "float.tif")
    names = ("a.png", "b.png", "sixteen.png", "float.tif")
    code = f"""
import runpy, sys
sys.modules["cellscan"] = None
sys.argv = ["script", *{names}]
runpy.run_path("model.{suffix}.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    expected = clf.predict_proba([tmp_path / name for name in names], progress=False)
    for line, name, row in zip(lines, names, expected, strict=True):
        assert line.split()[0] == name
        assert [float(word.split("=")[1]) for word in line.split()[1:]] == pytest.approx(row.tolist(), abs=1e-4)


@needs_onnx
def test_the_card_travels_along(tmp_path) -> None:
    import onnx

    clf = cellscan.Classifier.pretrained()
    clf.export(tmp_path / "m.onnx")
    clf.export(tmp_path / "m.stablehlo")
    model = onnx.load(tmp_path / "m.onnx")
    texts = [next(entry.value for entry in model.metadata_props if entry.key == "cellscan"),
             (tmp_path / "m.stablehlo.json").read_text()]  # fmt: skip
    for text in texts:
        card = json.loads(text)
        assert (card["architecture"], card["image_size"]) == ("squeezenet1_1", 96)
        assert card["decision"]["threshold"] == clf.threshold


def test_a_program_is_for_several_platforms(tmp_path) -> None:
    cellscan.Classifier(image_size=16).export(tmp_path / "m.stablehlo")
    assert jax.export.deserialize(bytearray((tmp_path / "m.stablehlo").read_bytes())).platforms == ("cpu", "cuda")


def test_bad_calls(tmp_path, monkeypatch) -> None:
    clf = cellscan.Classifier(image_size=16)
    with pytest.raises(cellscan.ArgumentError, match=r"\.onnx or \.stablehlo"):
        clf.export(tmp_path / "model.pb")
    with pytest.raises(cellscan.ModelFileError, match="there is no folder"):
        clf.export(tmp_path / "no" / "model.stablehlo")
    clf.export(tmp_path / "m.stablehlo")
    wrong = np.zeros((2, 17, 17, 3), np.uint8)
    with pytest.raises(ValueError, match="shape"):
        run_stablehlo(tmp_path / "m.stablehlo", wrong)
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(cellscan.MissingExtraError, match=r"pip install 'cellscan\[export\]'"):
        clf.export(tmp_path / "m.onnx")


def test_stablehlo_says_what_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    with pytest.raises(cellscan.MissingExtraError, match="flatbuffers"):
        cellscan.Classifier(image_size=16).export(tmp_path / "m.stablehlo")


@needs_onnx
def test_onnx_refuses_another_size(tmp_path) -> None:
    cellscan.Classifier(image_size=16).export(tmp_path / "m.onnx")
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run_onnx(tmp_path / "m.onnx", np.zeros((2, 17, 17, 3), np.uint8))
