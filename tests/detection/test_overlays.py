"""Text and scale bars that the microscope's software wrote into a field."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cellscan
from cellscan.confirming import add_evidence, confirm, find_overlays
from cellscan.detection.anchors import Anchors


def field() -> np.ndarray:
    """Return a field with cells of 40 px, each with a dark purple parasite."""
    image = np.full((200, 400, 3), (225, 220, 230), np.uint8)
    for left in range(20, 400, 80):
        image[80:120, left : left + 40] = (190, 120, 140)
        image[95:103, left + 10 : left + 18] = (100, 40, 110)
    return image


def crops(image: np.ndarray) -> list[np.ndarray]:
    return [image[80:120, left : left + 40] for left in range(20, 400, 80)]


def test_a_parasite_is_no_overlay_but_a_scale_bar_is_one() -> None:
    image = field()
    assert not find_overlays(image, crops(image)).any()
    image[100:103, 110:190] = (8, 8, 8)  # ends in the cells 2 and 3
    assert find_overlays(image, crops(image)).tolist() == [False, True, True, False, False]
    # One dark pixel, as dust or as a fault of the camera, covers nothing.
    image = field()
    image[90, 25] = 0
    assert not find_overlays(image, crops(image)).any()


def test_the_darkness_is_relative_to_the_light_of_the_field() -> None:
    dim = (field() * 0.25).astype(np.uint8)  # The parasites are as dark as the bar of a bright field.
    assert not find_overlays(dim, crops(dim)).any()
    dim[100:103, 110:190] = 0
    assert find_overlays(dim, crops(dim)).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("edge", [30, 79])
def test_a_black_background_and_a_border_are_no_overlays(edge) -> None:
    image = field()
    image[:edge] = 0
    wide = [image[70:120, left : left + 40] for left in range(20, 400, 80)]
    assert not find_overlays(image, wide).any()


def test_covered_cells_are_red_cells() -> None:
    image = field()
    image[100:103, 110:190] = 0
    boxes = np.array([[left, 80, left + 40, 120] for left in range(20, 400, 80)], np.float32)
    found = cellscan.Detections(
        "a", (400, 200), boxes, np.ones(5, np.int32), np.full(5, 0.9, np.float32), ("red blood cell", "infected"), image
    )
    seen = []

    def predict(cells, **_):
        seen.extend(cell.image.shape for cell in cells)
        return SimpleNamespace(probabilities=np.tile([0.1, 0.9], (5, 1)), labels=np.ones(5, int))

    clf: Any = SimpleNamespace(predict=predict, card=SimpleNamespace(positive=1))
    joint = add_evidence(found, clf, 0.8).scores
    assert seen == [(32, 32, 3)] * 5
    assert joint[[0, 3, 4]] == pytest.approx(0.9)
    assert joint[[1, 2]].max() < 0.01
    rules = cellscan.DetectionConfig(Anchors((8,), 16.0, (1.0,)), (0.5, 0.5))
    cells = confirm(found, rules, clf)
    assert cells.labels.tolist() == [1, 0, 0, 1, 1]
    both = confirm(found, replace(rules, joint_threshold=0.6), clf)
    assert both.labels.tolist() == [1, 0, 0, 1, 1]
