"""The real cells: every way of loading, splits, training and evaluation."""

import subprocess
import sys
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_python

import cellscan
from cellscan.preprocessing import prepare


@pytest.fixture(scope="module")
def cells(real) -> cellscan.CellDataset:
    return cellscan.load_malaria(real / "cell_images.zip")


def test_counts_and_patients(real, cells) -> None:
    assert len(cells) == 22_238
    assert np.bincount(cells.labels).tolist() == [10_554, 11_684]
    assert len(set(cells.patients.tolist())) == 170
    slides = {name.split("_IMG")[0] for name in cells.names.tolist()}
    assert len(slides) >= 170  # one patient may have two slides
    folder = cellscan.load_malaria(real / "cell_images")
    assert folder.hash() == cells.hash()


def test_mapping_files_agree_with_names(real, cells) -> None:
    files = sorted(real.glob("patientid_cellmapping_*.csv"))
    assert len(files) == 2
    assert cellscan.load_malaria(real / "cell_images.zip", patient_files=files).hash() == cells.hash()


def test_folds_hold_no_patient_twice(source, cells) -> None:
    folds = list(cells.folds(source / "folds.csv"))
    assert [len(set(test.patients)) for _, test in folds] == [34] * 5
    for train, test in folds:
        assert not set(train.patients) & set(test.patients)
        assert len(train) + len(test) == len(cells)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_splits_are_balanced_within_three_points(cells, seed) -> None:
    parts = cells.split(validation=0.1, test=0.2, seed=seed)
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(part) / len(cells) - share) < 0.03
        assert abs((part.labels == 0).mean() - (cells.labels == 0).mean()) < 0.03
        assert abs(len(set(part.patients)) / 170 - share) < 0.03


def test_the_background_of_real_cells_is_found_and_filled(cells) -> None:
    chosen = cells.select(np.random.default_rng(0).choice(len(cells), 200, replace=False))
    images = chosen.images(64)[:]
    assert 0.15 < (images.max(-1) < 24).mean() < 0.4
    filled = np.asarray(prepare(jnp.asarray(images), "fill"))
    dark = (filled.max(-1) < 0.3).mean()
    assert dark < 0.002  # what is left is inside the cells


def test_anonymous_memory_stays_small_at_224_px(real) -> None:
    code = f"""
import os, re, tempfile, numpy as np, cellscan
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6
cells = cellscan.load_malaria({str(real / "cell_images.zip")!r}).select(slice(0, None, 10))
pixels = cells.images(224)
total = sum(int(pixels[start : start + 64].sum()) for start in range(0, len(pixels), 64))
print(anonymous() < 0.5)
"""
    if sys.platform != "linux":
        pytest.skip("/proc/self/status is Linux's")
    with tempfile.TemporaryDirectory() as cache:
        assert run_python(code, env={"CELLSCAN_CACHE": cache}) == "True"


def test_training_on_real_cells_beats_chance_by_far(source, cells) -> None:
    train, test = next(iter(cells.folds(source / "folds.csv")))
    rng = np.random.default_rng(0)
    few = train.select(rng.choice(len(train), 2500, replace=False))
    test = test.select(rng.choice(len(test), 800, replace=False))
    clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
    clf.fit(few, epochs=4, progress=False)
    report = clf.evaluate(test)
    print(report)
    assert report.accuracy > 0.85
    assert "no overlap with training" in str(report).splitlines()[0]
    leaked = clf.evaluate(few.select(slice(0, 200)))
    assert "PATIENT OVERLAP" in str(leaked).splitlines()[0]


def test_shuffled_labels_score_a_half(source, cells) -> None:
    train, test = next(iter(cells.folds(source / "folds.csv")))
    rng = np.random.default_rng(0)
    few = train.select(rng.choice(len(train), 1000, replace=False))
    shuffled = cellscan.CellDataset.from_arrays(few.images(32)[:], rng.permutation(few.labels))
    clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
    clf.fit(shuffled, epochs=2, progress=False)
    auc = clf.evaluate(test.select(rng.choice(len(test), 1500, replace=False))).roc_auc
    assert 0.3 < auc < 0.7


def test_tfds_road_on_the_real_archive(source, tmp_path) -> None:
    if sys.platform != "linux":
        pytest.skip("array_record has wheels for Linux only")
    command = [sys.executable, str(source / "unpack.py"), str(tmp_path / "some"), "--only", "cells", "--zip"]
    subprocess.run([*command, "--patients", "C1,C47,C100,C13"], check=True, capture_output=True)
    (archive,) = (tmp_path / "some").glob("*.zip")
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    archive.rename(manual / "cell_images.zip")
    through = cellscan.load_malaria(data_dir=tmp_path / "tfds")
    direct = cellscan.load_malaria(manual / "cell_images.zip")
    assert through.hash() == direct.hash()
    assert set(through.patients) == {"C1", "C47", "C100", "C13"}
    order = np.argsort(through.names), np.argsort(direct.names)
    assert np.array_equal(through.images(32)[order[0]], direct.images(32)[order[1]])


def test_the_model_that_comes_along_knows_these_patients_and_says_so(cells) -> None:
    clf = cellscan.Classifier.pretrained()
    assert clf.card.data["train"]["hash"] == cells.hash(pixels=False)
    chosen = cells.select(np.random.default_rng(0).choice(len(cells), 600, replace=False))
    report = clf.evaluate(chosen)
    assert report.accuracy > 0.94
    assert "PATIENT OVERLAP" in str(report).splitlines()[0]


def test_the_model_that_comes_along_tells_cells_from_photographs(cells) -> None:
    from sklearn.datasets import load_sample_images

    clf = cellscan.Classifier.pretrained()
    chosen = cells.select(np.random.default_rng(0).choice(len(cells), 300, replace=False))
    familiar = clf.predict(chosen, progress=False).novel
    strange = clf.predict([photo[:, at : at + 300] for photo in load_sample_images().images for at in (0, 300)]).novel
    assert familiar is not None
    assert strange is not None
    assert familiar.mean() < 0.05
    assert strange.all()
