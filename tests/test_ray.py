"""The example that classifies many images with Ray."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY
from PIL import Image

import cellscan

pytest.importorskip("pyarrow", reason="pip install pyarrow")


def _run(folder: Path, out: Path, workers: int) -> subprocess.CompletedProcess[str]:
    example = REPOSITORY / "examples" / "many_images_with_ray.py"
    return subprocess.run(
        [sys.executable, str(example), str(folder), str(out), "--workers", str(workers)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )


def _write_images(folder: Path, count: int) -> list[str]:
    """Write `count` files, of few different images, in two folders; return their paths in order."""
    cells = cellscan.synthetic_cells(20, seed=0)
    for number in range(count):
        file = folder / "ab"[number % 2] / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number < len(cells):
            Image.fromarray(cells[number].image).save(file)
        else:
            os.link(folder / "ab"[number % 2] / f"{number % len(cells):04}.png", file)
    return sorted(str(path) for path in folder.rglob("*.png"))


def _rows(out: Path) -> dict[str, dict[str, Any]]:
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(out).to_table().to_pylist()
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows), "an image has more than one row"
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_has_one_row_and_a_second_run_predicts_what_is_new(tmp_path: Path, workers: int) -> None:
    if workers:
        pytest.importorskip("ray", reason="pip install ray")
    folder, out = tmp_path / "images", tmp_path / "out"
    files = _write_images(folder, 600)  # two pieces, so that both workers have one
    broken = str(folder / "a" / "broken.png")
    Path(broken).write_bytes(b"no image")
    first = _run(folder, out, workers)
    assert first.returncode == 0, first.stderr
    assert "601 predicted" in first.stdout
    rows = _rows(out)
    assert sorted(rows) == sorted([*files, broken])
    assert rows[broken]["label"] == ""
    assert "not an image of a known format" in rows[broken]["error"]
    assert np.isnan(rows[broken]["p_parasitized"])
    preds = cellscan.Classifier.pretrained().predict(files[:64], progress=False)
    assert [rows[path]["label"] for path in files[:64]] == list(preds.label_names)
    chances = np.array([[rows[path][f"p_{name}"] for name in preds.class_names] for path in files[:64]])
    np.testing.assert_allclose(chances, preds.probabilities, atol=1e-5)

    if workers:
        assert _run(folder, out, workers).stdout == "601 images, 601 already classified\n"
        return
    new = str(folder / "b" / "new.png")
    os.link(files[0], new)
    second = _run(folder, out, workers)
    assert "602 images, 601 already classified" in second.stdout, second.stderr
    assert "1 predicted" in second.stdout
    assert _rows(out)[new]["label"] == rows[files[0]]["label"]


def test_more_workers_than_cores_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install ray")
    _write_images(tmp_path / "images", 1)
    run = _run(tmp_path / "images", tmp_path / "out", 1000)
    assert run.returncode == 2
    assert "1000 workers need 1000 CPUs, but only" in run.stderr
