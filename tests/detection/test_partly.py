"""Fields in which not every cell has a box: what is left out is no background, and no false call."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from helpers import random_image

import cellscan
from cellscan.data.shapes import NOT_ANNOTATED
from cellscan.detection.anchors import Anchors
from cellscan.detection.rules import DetectionConfig
from cellscan.detection.targets import detection_loss
from cellscan.evaluate.detection import choose_thresholds, evaluate_detections, measure_errors, once

RULES = DetectionConfig(Anchors((8,)), (0.5, 0.5))
NAMES = ("red blood cell", "infected")
BOXES = np.array([[10, 10, 30, 30], [50, 50, 70, 70]], np.float32)


def make(count: int, boxes: Any = BOXES, labels: Any = (0, 1), **more: Any) -> cellscan.FieldDataset:
    images = [random_image(row, 100, 100) for row in range(count)]
    return cellscan.FieldDataset.from_arrays(images, [boxes] * count, [labels] * count, class_names=NAMES, **more)


def found_in(fields: cellscan.FieldDataset, boxes, labels, scores=None) -> list[cellscan.Detections]:
    boxes, labels = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32)
    scores = np.full(len(boxes), 0.9, np.float32) if scores is None else np.array(scores, np.float32)
    return [
        cellscan.Detections(one.name, (100, 100), boxes, labels, scores, NAMES, one.image) for one in fields
    ]  # fmt: skip


def test_background_of_a_class_that_is_not_annotated_takes_no_part() -> None:
    anchors = jnp.array([[10.0, 10, 30, 30], [60, 60, 80, 80], [10, 60, 30, 80]])
    closed = np.array([[10, 10, 30, 30, 1], [0, 0, 0, 0, -1], [0, 0, 0, 0, -1]], np.float32)
    part = closed.copy()
    part[1, 4] = NOT_ANNOTATED  # class 0
    logits = jnp.array([[[0.3, 0.2], [1.0, 2.0], [0.5, -1.0]]])

    def loss(logits, targets):
        return detection_loss({"classes": logits, "boxes": jnp.zeros((1, 3, 4))}, anchors, targets[None])[0]

    whole, less = (jax.grad(loss)(logits, jnp.asarray(targets))[0] for targets in (closed, part))
    assert (np.asarray(whole) != 0).all()
    assert np.asarray(less)[1:, 0].tolist() == [0, 0]  # background may hold class 0
    assert (np.asarray(less)[1:, 1] == np.asarray(whole)[1:, 1]).all()  # and holds none of class 1
    assert (np.asarray(less)[0] == np.asarray(whole)[0]).all()  # a box is of its class and no other


def test_a_class_that_a_set_does_not_have_is_not_trained_on_as_background() -> None:
    det = cellscan.Detector("retinanet_small", image_size=(64, 64), seed=0)
    sick = make(1).rename_classes({"red blood cell": None})
    assert sick.class_names == ("infected",)
    matched = det._matched(sick, "train")
    assert matched.class_names == NAMES
    assert matched.complete.tolist() == [[False, True]]
    assert matched.targets((64, 64))[0, 2, 4] == NOT_ANNOTATED


def test_what_is_found_where_nothing_is_annotated_is_no_false_call() -> None:
    extra = [*BOXES, [75, 10, 95, 30], [10, 70, 30, 90]]
    full = make(2)
    part = make(2, complete=[False, True])
    found = found_in(full, extra, [0, 1, 0, 1])
    whole, spared = (evaluate_detections(fields, found, RULES) for fields in (full, part))
    assert whole.precision_per_class == (0.5, 0.5)
    assert spared.precision_per_class == (1.0, 0.5)  # of class 1 every cell is annotated
    assert spared.recall_per_class == (1.0, 1.0)
    assert whole.count_error == 1.0
    assert np.isnan(spared.count_error)
    assert "n/a: no field is annotated in full" in str(spared)
    joined = cellscan.concat([full, part])
    both = evaluate_detections(joined, [*found, *found], RULES)
    assert both.precision_per_class[0] == 4 / 6
    assert both.count_error == 1.0


def test_rates_are_measured_where_a_call_can_be_false() -> None:
    full, part = make(2), make(3, complete=[True, False])
    found = found_in(full, [*BOXES, [10, 70, 30, 90]], [0, 1, 1], [0.9, 0.9, 0.95])

    def measured(fields, found):
        rules = choose_thresholds(fields, found, RULES)
        return measure_errors(fields, [one[once(one, rules)] for one in found], rules)

    alone = measured(full, found)
    both = measured(cellscan.concat([full, part]), [*found, *found, found[0]])
    assert alone.false_positive_rate == both.false_positive_rate == 1.0  # one false call for one cell that is none


def test_points_serve_recall_and_counts() -> None:
    points = [[[20, 20], [22, 22], [60, 60]]]
    fields = make(1, boxes=np.zeros((0, 4)), labels=(), points=points, point_labels=[[0, 0, 1]])
    assert fields.boxed().tolist() == [[False, False]]
    report = evaluate_detections(fields, found_in(fields, BOXES, [0, 1]), RULES)
    assert report.recall_per_class == (0.5, 1.0)  # one box finds one point
    assert np.isnan(report.precision_per_class).all()
    assert np.isnan(report.ap50)
    assert (report.truth.tolist(), report.found.tolist(), report.boxes, report.points) == ([3], [2], 0, 3)
    assert report.count_error == 1 / 3
    assert "0 boxes, 3 points" in str(report)
    missed = evaluate_detections(fields, found_in(fields, BOXES, [1, 0]), RULES)
    assert missed.recall_per_class == (0.0, 0.0)
    weak = evaluate_detections(fields, found_in(fields, BOXES, [0, 1], [0.4, 0.6]), RULES)
    assert weak.recall_per_class == (0.0, 1.0)


def test_detections_are_saved_and_come_back(tmp_path) -> None:
    fields = make(2, names=["a", "s/b.png"])
    found = cellscan.FieldDetections(tuple(found_in(fields, BOXES, [0, 1])), (), NAMES)
    scores = ("4 scores not written",)
    kinds: dict[Literal["coco", "csv", "yolo", "voc"], tuple[str, ...]]
    kinds = {"coco": (), "csv": (), "yolo": scores, "voc": scores}
    for format, lost in kinds.items():
        assert found.save(tmp_path / format, format) == lost
        again = cellscan.load_fields(tmp_path / format)
        assert again.class_names == NAMES
        assert again.names.tolist() == ["a.png", "s/b.png"]
        for row in range(2):
            assert np.allclose(again.boxes[row], BOXES, atol=1e-4)
            assert again.labels[row].tolist() == [0, 1]
            assert (again[row].image == fields[row].image).all()
        assert any("scores not kept" in note for note in again.notes) == (not lost)
