"""Slow, wide versions: `make test-all`."""

import io
import warnings

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.data.images import read_rgb

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("difficulty", "epochs", "least"), [("easy", 6, 0.99), ("normal", 5, 0.95)])
def test_small_cnn_learns_painted_cells(difficulty, epochs, least) -> None:
    cells = cellscan.synthetic_cells(2000, seed=0, difficulty=difficulty)
    train, test = cells.split(0.2, seed=0)
    clf = cellscan.Classifier(seed=0)
    clf.fit(train, epochs=epochs)
    assert clf.evaluate(test).accuracy > least


def test_strong_augmentation_and_bfloat16_still_learn() -> None:
    cells = cellscan.synthetic_cells(1000, seed=0, difficulty="easy")
    train, test = cells.split(0.2, seed=0)
    for recipe in (cellscan.Recipe(augment="strong"), cellscan.Recipe(dtype="bfloat16")):
        clf = cellscan.Classifier(image_size=48, seed=0)
        clf.fit(train, epochs=6, recipe=recipe)
        assert clf.evaluate(test).accuracy > 0.9


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM"])
def test_many_mutated_files_are_read_whole_or_refused(kind) -> None:
    rng = np.random.default_rng(0)
    whole = io.BytesIO()
    Image.fromarray(random_image(height=24, width=24)).save(whole, kind)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        content = bytearray(whole.getvalue())
        for _ in range(int(rng.integers(1, 8))):
            content[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
        if rng.random() < 0.3:
            content = content[: int(rng.integers(1, len(content)))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata
            try:
                image = read_rgb(io.BytesIO(bytes(content)), where="mutant")
            except cellscan.ImageError:
                outcomes["refused"] += 1
            else:
                assert image.dtype == np.uint8
                assert image.shape[-1] == 3
                outcomes["read"] += 1
    print(kind, outcomes)
    assert outcomes["refused"] > 0
