"""Metrics, thresholds and error rates of detections, counted by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import cellscan
from cellscan.data.shapes import IGNORED
from cellscan.detection.anchors import Anchors
from cellscan.detection.rules import DetectionConfig
from cellscan.evaluate.detection import choose_thresholds, evaluate_detections, measure_errors, once

NAMES = ("red blood cell", "infected")
RULES = DetectionConfig(Anchors((8,)), (0.5, 0.5))


def box(column: int, row: int = 0, *, width: float = 20, height: float = 20) -> list[float]:
    """Return a box of a grid whose boxes do not overlap, and which the border does not cut."""
    left, top = 40.0 * column + 8, 40.0 * row + 8
    return [left, top, left + width, top + height]


def fields_of(*annotations: tuple[Sequence[Sequence[float]], Sequence[int]], **more: Any) -> cellscan.FieldDataset:
    images = [np.full((200, 400, 3), number, np.uint8) for number in range(len(annotations))]
    boxes, labels = zip(*annotations, strict=True)
    return cellscan.FieldDataset.from_arrays(images, boxes, labels, class_names=NAMES, **more)


def found(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float]) -> cellscan.Detections:
    boxes_array = np.array(boxes, np.float32).reshape(-1, 4)
    return cellscan.Detections(
        "a", (400, 200), boxes_array, np.array(labels, np.int32), np.array(scores, np.float32), NAMES, None
    )


@pytest.mark.parametrize(("width", "levels"), [(20.8, 1), (29.6, 5), (30.4, 6), (38.4, 10), (19.6, 0)])
def test_average_precision_at_ten_levels_of_overlap(width, levels) -> None:
    """The detection has an IoU of `width` / 40 with its cell: thresholds are 0.5, 0.55, ..., 0.95."""
    fields = fields_of(([[0, 0, 40, 20]], [0]))
    report = evaluate_detections(fields, [found([[0, 0, width, 20]], [0], [0.9])], RULES)
    assert report.ap == pytest.approx(levels / 10)
    assert report.ar == pytest.approx(levels / 10)
    assert report.ap50 == pytest.approx(float(levels >= 1))
    assert report.ap75 == pytest.approx(float(levels >= 6))
    assert np.isnan(report.ap50_per_class[1])
    assert np.isnan(report.recall_per_class[1])


def test_precision_recall_and_counts_at_the_thresholds() -> None:
    fields = fields_of(([box(0), box(1), box(2)], [0, 0, 1]), ([], []))
    detections = [
        found([box(0), box(1), box(3), box(2)], [0, 0, 0, 1], [0.5, 0.49, 0.9, 0.7]),
        found([box(5), box(6)], [0, 1], [0.6, 0.2]),
    ]
    report = evaluate_detections(fields, detections, RULES)
    assert report.precision_per_class == (1 / 3, 1.0)  # a score equal to the threshold counts
    assert report.recall_per_class == (1 / 2, 1.0)
    assert report.f1_per_class == (2 / 5, 1.0)
    assert (report.found.tolist(), report.truth.tolist(), report.boxes) == ([3, 1], [3, 0], 3)
    assert report.count_error == 0.5  # 0 of 3 cells, and 1 where there is none
    assert [curve.shape for curve in report.curves] == [(101, 2)] * 2
    assert report.curves[1][:, 1] == pytest.approx(np.ones(101))
    given = evaluate_detections(fields, detections, RULES, cells=[detections[0], detections[1][:0]])
    assert given.found.tolist() == [4, 0]
    one = evaluate_detections(fields, detections, replace(RULES, max_detections=1))
    assert one.recall_per_class == (0.0, 1.0)  # the best detection of the class is false


def test_thresholds_lie_halfway_to_the_next_score() -> None:
    fields = fields_of(([box(0), box(1), box(2)], [0, 0, 1]))
    first = found([box(0), box(1), box(3), box(4)], [0, 0, 0, 1], [0.9, 0.7, 0.4, 0.8])
    assert choose_thresholds(fields, [first], RULES).thresholds == pytest.approx((0.55, 0.5))  # class 1: no hit
    last = found([box(3), box(0), box(1), box(2)], [0, 0, 0, 1], [0.9, 0.8, 0.3, 1.0])
    assert choose_thresholds(fields, [last], RULES).thresholds == pytest.approx((0.15, 0.5))
    sure = found([box(0), box(1), box(2), box(3)], [0, 0, 1, 1], [0.001, 0.001, 1.0, 0.9999])
    assert choose_thresholds(fields, [sure], RULES).thresholds == pytest.approx((0.001, 0.999))


def test_the_threshold_of_a_rate_of_false_detections() -> None:
    """Ten cells that are not infected: a rate of 0.1 allows one false detection."""
    grid = [box(column, row) for row in range(2) for column in range(5)]
    fields = fields_of(([*grid, box(6)], [0] * 10 + [1]))
    one = found([box(6), box(7), box(8), box(9)], [1] * 4, [0.9, 0.8, 0.6, 0.4])
    for rate, threshold in ((0.1, 0.7), (0.09, 0.85), (0.2, 0.5), (0.3, 0.2)):
        rules = choose_thresholds(fields, [one], replace(RULES, thresholds=(0.3, 0.5)), rate)
        assert rules.thresholds == pytest.approx((0.3, threshold))
    false = found([box(7)], [1], [0.8])
    assert choose_thresholds(fields, [false], RULES, 0.05).thresholds == pytest.approx((0.5, 0.9))
    points = fields_of(([], []), points=[[[20 * k + 10, 100] for k in range(10)]], point_labels=[[0] * 9 + [IGNORED]])
    with_points = cellscan.concat([fields, points])
    rules = choose_thresholds(with_points, [one, found([], [], [])], RULES, 0.1)
    assert rules.thresholds[1] == pytest.approx(0.7)  # 19 other cells: still one


def test_detected_cells_are_the_others_where_annotation_is_incomplete() -> None:
    """Ten annotated cells, and five detected ones of a field that is annotated in part: a rate of 0.2 allows three."""
    grid = [box(column, row) for row in range(2) for column in range(5)]
    fields = fields_of((grid, [0] * 10), (grid[:1], [0]), complete=[[True, True], [False, True]])
    one = found([box(6), box(7), box(8), box(9)], [1] * 4, [0.9, 0.8, 0.6, 0.4])
    part = found(grid[:6], [0] * 6, [0.9] * 5 + [0.2])
    rules = choose_thresholds(fields, [one, part], replace(RULES, thresholds=(0.3, 0.5)), 0.2)
    assert rules.thresholds == pytest.approx((0.3, 0.5))
    full = replace(fields, complete=np.ones((2, 2), bool))
    assert choose_thresholds(full, [one, part], RULES, 0.2).thresholds[1] == pytest.approx(0.7)


def test_error_rates_by_hand() -> None:
    cells = ([box(0), box(1), box(2), box(3), box(4)], [1, 1, 0, 0, 0])
    ignored = ([box(0), box(1), [200.0, 8, 240, 48]], [1, 0, IGNORED])
    fields = fields_of(cells, ignored)
    half, less = box(0, width=10), box(0, width=9.8)
    detections = [
        found([half, box(2), box(1), box(1)], [1, 1, 1, 1], [0.9, 0.8, 0.7, 0.6]),
        found([less, [180, 8, 220, 48], [179, 8, 219, 48], box(1)], [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.9]),
    ]
    rules = measure_errors(fields, detections, RULES)
    # Field 1: an IoU of 0.5 is a hit, a second detection of the same cell is false. Field 2: an IoU of 0.49 is false,
    # and so is a detection of which less than half lies in the ignored box.
    assert rules.outcomes == ((2, 2, 2, 3), (0, 1, 2, 1))
    assert rules.sensitivity == 2 / 3
    assert rules.false_positive_rate == 4 / 4
    assert rules.false_positive_sd == pytest.approx(np.std([2 / 3, 2], ddof=1))
    assert measure_errors(fields.select([0]), detections[:1], RULES).false_positive_sd == 0.0
    nothing = measure_errors(fields_of(([], [])), [found([], [], [])], RULES)
    assert (nothing.sensitivity, nothing.false_positive_rate, nothing.outcomes) == (None, None, ((0, 0, 0, 0),))


def test_the_surer_detection_finds_the_cell() -> None:
    """Two infected cells overlap; the weaker detection fits the first cell only."""
    fields = fields_of(([[20, 20, 40, 40], [26, 20, 46, 40]], [1, 1]))
    weak, sure = [16.0, 20, 36, 40], [22.0, 20, 42, 40]
    for order in ([0, 1], [1, 0]):
        one = found([weak, sure], [1, 1], [0.6, 0.9])[order]
        assert measure_errors(fields, [one], RULES).outcomes == ((1, 2, 1, 0),)


def test_each_cell_is_counted_once() -> None:
    half = found([[8, 8, 18, 18], [8, 8, 18, 28]], [0, 0], [0.9, 0.8])  # an IoU of 0.5 is not above 0.5
    assert once(half, RULES).tolist() == [True, True]
    assert once(half, replace(RULES, iou_threshold=0.49)).tolist() == [True, False]
    assert once(half[[1, 0]], replace(RULES, iou_threshold=0.49)).tolist() == [False, True]
    three = found([box(0), box(1), box(0)], [0, 0, 0], [0.9, 0.8, 0.7])  # the last overlaps one of the others
    assert once(three, RULES).tolist() == [True, True, False]
    weak = found([box(0), box(1)], [0, 1], [0.5, 0.49])
    assert once(weak, RULES).tolist() == [True, False]


def test_a_detection_finds_the_nearest_of_its_points() -> None:
    points = [[[10, 10], [30, 30], [60, 20]]]
    fields = fields_of(([], []), points=points, point_labels=[[0, 0, 0]])
    wide, small = [10.0, 10, 60, 40], [0.0, 0, 12, 12]
    for detections, recall in (
        (found([wide, small], [0, 0], [0.9, 0.8]), 2 / 3),  # the wide one finds its middle point
        (found([wide], [0], [0.5]), 1 / 3),
        (found([[31, 31, 40, 40]], [0], [0.9]), 0.0),
        (found([[30, 30, 40, 40]], [0], [0.9]), 1 / 3),  # a point on the border lies inside
        (found([[20, 20, 30, 30]], [0], [0.9]), 1 / 3),
        (found([wide], [1], [0.9]), 0.0),
    ):
        assert evaluate_detections(fields, [detections], RULES).recall_per_class[0] == recall
    order = found([[0, 0, 40, 40], [4, 4, 40, 40]], [0, 0], [0.6, 0.9])
    pair = fields_of(([], []), points=[[[2, 2], [22, 22]]], point_labels=[[0, 0]])
    assert evaluate_detections(pair, [order], RULES).recall_per_class[0] == 1.0
    assert evaluate_detections(pair, [order[[1, 0]]], RULES).recall_per_class[0] == 1.0


def test_the_dark_border_of_an_eyepiece_cuts_cells() -> None:
    """A circle of radius 80 px in a field of 400 x 200 px, seen at half the size; cells of 20 px, so 2 px of margin."""
    y, x = np.mgrid[:100, :200] + 0.5
    lit = np.hypot(2 * x - 200, 2 * y - 100) < 80
    boxes = [[190, 90, 210, 110], [190, 24, 210, 44], [190, 18, 210, 38], [264, 90, 278, 110], [245, 45, 258, 58]]
    one = replace(found(boxes, [0] * 5, [0.9] * 5), lit=lit, cell_diameter=20.0)
    assert one.cut.tolist() == [False, False, True, True, False]
    assert one[2:].cut.tolist() == [True, True, False]
    assert one.find_cut(np.array([[0, 0, 20, 20], [240, 40, 260, 60]])).tolist() == [True, True]
    assert not replace(one, lit=None).cut.any()
    assert replace(one, boxes=np.array([[0, 90, 20, 110], *boxes[1:]], np.float32)).cut[0]


def test_cells_that_the_border_cuts_are_not_counted() -> None:
    """Boxes end at most 2 px (a pixel, and a twentieth of 20 px) from the border of a field of 400 x 200 px."""
    inside = [[3, 3, 23, 23], [377, 177, 397, 197]]
    at = [[2, 30, 22, 50], [60, 2, 80, 22], [378, 60, 398, 80], [60, 178, 80, 198]]
    fields = fields_of(([*inside, *at], [0, 1, 0, 1, 0, 0]))
    one = found([*inside, *at], [0, 1, 0, 1, 1, 0], [0.9] * 6)
    assert one.cut.tolist() == [False] * 2 + [True] * 4
    assert replace(one, cell_diameter=42.0).cut.all()
    assert not replace(one, cell_diameter=18.0).cut.any()
    assert found([], [], []).cut.tolist() == []
    assert once(one, RULES).tolist() == [True] * 2 + [False] * 4
    report = evaluate_detections(fields, [one], RULES)
    assert (report.found.tolist(), report.truth.tolist(), report.count_error, report.boxes) == ([2], [2], 0.0, 6)
    assert report.recall_per_class == (3 / 4, 1.0)  # of all boxes
    assert measure_errors(fields, [one[~one.cut]], RULES).outcomes == ((1, 1, 0, 1),)
    # The detection of the second class at the border is false, and does not count.
    false = found([inside[1], at[2]], [1, 1], [0.8, 0.9])
    assert choose_thresholds(fields, [false], replace(RULES, thresholds=(0.3, 0.5)), 0.5).thresholds == pytest.approx(
        (0.3, 0.4)
    )
    points = fields_of(([], []), points=[[[10, 100], [9, 50], [200, 100]]], point_labels=[[0, 0, 0]])
    wide = replace(found([], [], []), cell_diameter=16.0)
    assert evaluate_detections(points, [wide], RULES).truth.tolist() == [2]  # points nearer than 8 + 1.8 px are cut
