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
        seen.extend(cell.shape for cell in cells)
        return SimpleNamespace(probabilities=np.tile([0.1, 0.9], (len(cells), 1)), labels=np.ones(len(cells), int))

    clf: Any = SimpleNamespace(predict=predict, card=SimpleNamespace(positive=1, decision=cellscan.Decision()))
    joint = add_evidence(found, clf, 0.8).scores
    assert seen == [(32, 32, 3)] * (5 + 7 * 3)  # the three visible ones again, in the other symmetries
    assert joint[[0, 3, 4]] == pytest.approx(0.9)
    assert joint[[1, 2]].max() < 0.01
    sure = replace(found, scores=np.ones(5, np.float32))
    assert add_evidence(sure, clf, 0.8).scores[[1, 2]].max() == 0
    rules = cellscan.DetectionConfig(Anchors((8,), 16.0, (1.0,)), (0.5, 0.5))
    cells = confirm(found, rules, clf)
    assert cells.labels.tolist() == [1, 0, 0, 1, 1]
    both = confirm(found, replace(rules, joint_threshold=0.6), clf)
    assert both.labels.tolist() == [1, 0, 0, 1, 1]


def test_likely_cells_are_classified_in_all_symmetries() -> None:
    """The classifier sees a bright corner: four of the eight symmetries have it in the upper half."""
    image = np.full((100, 200, 3), 120, np.uint8)
    image[22:30, 22:30] = 250
    boxes = np.array([[20, 20, 60, 50], [120, 20, 160, 50]], np.float32)
    found = cellscan.Detections(
        "a", (200, 100), boxes, np.ones(2, np.int32), np.array([0.9, 0.3], np.float32), ("red blood cell", "infected"),
        image,
    )  # fmt: skip
    calls = []

    def predict(cells, **_):
        calls.append(len(cells))
        upper = np.array([cell[: len(cell) // 2].max() > 200 for cell in cells])
        probability = np.where(upper, 0.9, 0.5)
        return SimpleNamespace(probabilities=np.stack([1 - probability, probability], 1))

    def score(decision: cellscan.Decision) -> np.ndarray:
        clf: Any = SimpleNamespace(predict=predict, card=SimpleNamespace(positive=1, decision=decision))
        return add_evidence(found, clf, 1.0).scores

    first, second = score(cellscan.Decision())
    assert calls == [2, 7]
    assert np.log(first / (1 - first)) == pytest.approx((2 * np.log(9) + np.log(9) / 2) / 3, rel=1e-3)
    assert np.log(second / (1 - second)) == pytest.approx(2 * np.log(3 / 7) / 3, rel=1e-3)
    assert score(cellscan.Decision(tta=True))[0] == pytest.approx(0.9)  # its predictions are averages already
    assert calls == [2, 7, 2]


def test_what_is_no_cell_for_the_detector_has_a_lower_joint_score() -> None:
    """The first two have the same scores, but at the place of the first there is a red cell, beside the second none."""
    sides = [[20, 20, 60, 60], [120, 20, 160, 60], [22, 21, 62, 61], [125, 45, 165, 85]]
    found = cellscan.Detections(
        "a", (400, 200), np.array(sides, np.float32), np.array([1, 1, 0, 0], np.int32),
        np.array([0.3, 0.3, 0.9, 0.9], np.float32), ("red blood cell", "infected"), field(),
    )  # fmt: skip

    def predict(cells, **_):
        return SimpleNamespace(probabilities=np.tile([0.4, 0.6], (len(cells), 1)))

    clf: Any = SimpleNamespace(predict=predict, card=SimpleNamespace(positive=1, decision=cellscan.Decision()))
    joint = add_evidence(found, clf, 1.0).scores
    low, high, judged = np.log(3 / 7), np.log(9), np.log(1.5)
    assert np.log(joint[:2] / (1 - joint[:2])) == pytest.approx([(low + high + judged) / 3, (2 * low + judged) / 3])
    assert joint[2:].tolist() == found.scores[2:].tolist()


def test_one_of_several_boxes_around_one_object_is_infected() -> None:
    """The second box is larger, and contains the first one; the third is a cell that overlaps the first."""
    sides = [[20, 20, 60, 60], [18, 16, 80, 78], [45, 20, 85, 60], [120, 20, 160, 60]]
    found = cellscan.Detections(
        "a", (400, 200), np.array(sides, np.float32), np.ones(4, np.int32),
        np.array([0.8, 0.7, 0.6, 0.5], np.float32), ("red blood cell", "infected"), field(),
    )  # fmt: skip

    def predict(cells, **_):
        return SimpleNamespace(probabilities=np.tile([0.4, 0.6], (len(cells), 1)))

    clf: Any = SimpleNamespace(predict=predict, card=SimpleNamespace(positive=1, decision=cellscan.Decision()))
    assert add_evidence(found[[0, 1, 3]], clf, 1.0).scores.astype(bool).tolist() == [True, False, True]
    assert add_evidence(found[[0, 2, 3]], clf, 1.0).scores.astype(bool).tolist() == [True, True, True]
    flat = replace(found[[0, 3]], boxes=np.array([[20, 20, 60, 20], [120, 20, 160, 60]], np.float32))
    assert add_evidence(flat, clf, 1.0).scores.all()  # a box without area is at the place of none, not even its own
