"""Output of notebooks and of the command line."""

import csv
import inspect
import io
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.cli import main


class Checker(HTMLParser):
    """Collect tags and text, and see that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


EVIL = "<script>alert(1)</script>&.png"


def shown(thing) -> Checker:
    html = thing._repr_html_()
    found = Checker(html)
    assert "script" not in found.tags
    return found


def test_notebooks_show_and_escape(tmp_path) -> None:
    count = 48
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    cells = cellscan.CellDataset.from_arrays(
        images,
        np.arange(count) % 2,
        names=[f"{i}{EVIL}" for i in range(count)],
        patients=[f"<b>{i % 6}" for i in range(count)],
        class_names=("<i>sick", "well"),
    )
    clf = cellscan.Classifier(image_size=16, class_names=("<i>sick", "well"), positive_class="<i>sick", seed=0)
    found = shown(cells)
    assert "<i>sick" in found.text
    assert "48 cells of 6 patients" in found.text
    preds = shown(clf.predict(cells, progress=False))
    assert f"0{EVIL}" in preds.text
    assert "and 38 more. Research use only" in preds.text
    assert "P(<i>sick)" in preds.text
    history = clf.fit(cells, validation=cells, epochs=2, progress=False)
    assert "validation accuracy" in shown(history).text
    assert "<b>0" in shown(clf.evaluate(cells)).text
    study = cellscan.cross_validate(
        "small_cnn", cells, folds=2, image_size=16, epochs=1, positive_class="<i>sick", progress=False
    )
    assert "pooled" in shown(study).text


def test_what_prints_as_a_text_shows_the_same_text_in_a_notebook() -> None:
    for name in cellscan.__all__:
        value = getattr(cellscan, name)
        if inspect.isclass(value) and not issubclass(value, Exception) and "__str__" in vars(value):
            assert hasattr(value, "_repr_html_") or name == "Split", name
    description = cellscan.synthetic_cells(20, seed=0).describe(progress=False)
    assert shown(description).text.strip() == str(description).strip()


def test_a_smear_shows_itself() -> None:
    fields = cellscan.synthetic_fields(1, seed=0)
    det = cellscan.Detector.pretrained()
    assert "parasitemia" in shown(cellscan.screen(fields, det)).text


def test_versions_and_devices(capsys) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert cellscan.__version__ in out
    assert "device     cpu" in out
    assert "not a medical device" in out


def test_predictions_on_standard_output(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/a.png", "in/b.png", "c.png"):
        Image.fromarray(random_image(len(name))).save(tmp_path / name)
    assert main(["predict", str(tmp_path / "in"), str(tmp_path / "c.png")]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"].rpartition("/")[2] for row in rows] == ["a.png", "b.png", "c.png"]
    expected = cellscan.Classifier.pretrained().predict([row["name"] for row in rows], progress=False)
    assert [float(row["p_parasitized"]) for row in rows] == pytest.approx(expected.probabilities[:, 0], abs=1e-5)
    (tmp_path / "in" / "bad.png").write_text("no image")
    assert main(["predict", str(tmp_path / "in")]) == 3
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [bool(row["error"]) for row in rows] == [False, False, True]


def test_what_the_command_line_refuses(tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path / "empty")]) == 1
    assert main(["predict", "a.png", "--model", "no.safetensors"]) == 1
    said = capsys.readouterr().err
    assert "no images" in said
    assert "no.safetensors: there is no such file" in said
    with pytest.raises(SystemExit):
        main(["predict"])


def test_a_model_of_ones_own(tmp_path, capsys) -> None:
    clf = cellscan.Classifier(image_size=16, seed=0)
    clf.learn_novelty(cellscan.synthetic_cells(720, seed=0), progress=False)
    clf.save(tmp_path / "m.safetensors")
    Image.fromarray(random_image()).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "a.png"), "--model", str(tmp_path / "m.safetensors")]) == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert (row["label"] in clf.class_names, row["novel"]) == (True, "1")


def test_the_module_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "cellscan", "predict", "no.png"], capture_output=True, text=True)
    assert done.returncode == 3
    assert "no.png: there is no such file" in done.stdout
