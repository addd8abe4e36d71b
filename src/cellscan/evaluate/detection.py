"""Evaluation of detections: average precision by pycocotools, and precision, recall and counts at the thresholds."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscan.data.fields import FieldDataset
from cellscan.data.shapes import IGNORED
from cellscan.detection.rules import DetectionConfig
from cellscan.detections import Detections
from cellscan.errors import DataError, import_extra
from cellscan.evaluate.formatting import as_json, metric_text
from cellscan.notebook import TextInNotebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class DetectionReport(TextInNotebook):
    """Metrics of a detector on annotated fields; prints as a table.

    pycocotools computes the average precision over all scores, for IoU thresholds from 0.5 to 0.95 and boxes of all
    sizes. F1 and counts are computed at the score thresholds of the detector, F1 with an IoU threshold of 0.5.
    Detections in ignored boxes count neither as correct nor as false.

    If not every cell of a class has a box in a field (`FieldDataset.boxed`), detections of this class there that match
    no box count neither as correct nor as false. A class with points but no boxes has only a recall: a point is found
    if a detection of its class at the threshold contains it, and each detection finds one point at most.

    Attributes
    ----------
    ap, ap50, ap75 : float
        Average precision, mean over classes: mean over IoU thresholds from 0.5 to 0.95, at 0.5, and at 0.75.
    ar : float
        Average recall over the same IoU thresholds.
    ap50_per_class : tuple[float, ...]
        AP50 in the order of the class names; NaN for a class without annotated boxes.
    precision_per_class, recall_per_class, f1_per_class : tuple[float, ...]
        Precision, recall and F1 at the thresholds.
    count_error : float
        Mean over fields of the relative error of the cell count. Each cell is counted once, whatever its class; cells
        that the border of the field cuts (`Detections.cut`) are not counted. Only fields in which every class is
        annotated completely are used; NaN if there are none.
    found, truth : numpy.ndarray
        (N,) int64, counted cells and annotated cells (boxes and points) of each field, without those that its border
        cuts.
    boxes, points : int
        Number of annotated boxes and points, without ignored ones.
    curves : tuple of (R, 2) arrays
        Recall and precision of each class at an IoU threshold of 0.5.
    class_names : tuple[str, ...]
        Names of the classes.
    detection : DetectionConfig
        Anchors, thresholds and rules of the detector.

    Examples
    --------
    >>> len(det.evaluate(fields).ap50_per_class)  # see the example of `cellscan.Detector`
    2
    """

    ap: float
    ap50: float
    ap75: float
    ar: float
    ap50_per_class: tuple[float, ...]
    precision_per_class: tuple[float, ...]
    recall_per_class: tuple[float, ...]
    f1_per_class: tuple[float, ...]
    count_error: float
    found: np.ndarray
    truth: np.ndarray
    boxes: int
    class_names: tuple[str, ...]
    detection: DetectionConfig
    curves: tuple[np.ndarray, ...] = field(default=())
    points: int = 0

    def __str__(self) -> str:
        rules = self.detection
        lines = [
            f"{len(self.truth):,} fields, {self.boxes:,} boxes{f', {self.points:,} points' if self.points else ''}",
            "AP {}, AP50 {}, AP75 {}, AR {}".format(*_texts(self.ap, self.ap50, self.ap75, self.ar)),
            f"{'class':20}{'AP50':>8}{'threshold':>11}{'precision':>11}{'recall':>8}{'F1':>8}",
        ]
        for row in zip(self.class_names, self.ap50_per_class, rules.thresholds, self.precision_per_class,
                       self.recall_per_class, self.f1_per_class, strict=True):  # fmt: skip
            name, ap50, threshold, precision, recall, f1 = row
            ap50, precision, recall, f1 = _texts(ap50, precision, recall, f1)
            lines.append(f"{name:20}{ap50:>8}{threshold:>11.3f}{precision:>11}{recall:>8}{f1:>8}")
        error = "n/a: no field is annotated in full" if np.isnan(self.count_error) else f"{self.count_error:.1%}"
        lines.append(f"cell count per field: mean error {error}")
        lines.append(
            f"boxes suppressed above an IoU of {rules.iou_threshold:g}, at most {rules.max_detections} boxes per field"
        )
        return "\n".join([*lines, "Research use only, not a medical device."])

    def __repr__(self) -> str:
        return f"DetectionReport(ap50={metric_text(self.ap50, 3)}, fields={len(self.truth)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON values; undefined ones, such as those of a class without boxes, are null.

        Examples
        --------
        >>> sorted(det.evaluate(fields).to_dict())[:2]
        ['ap', 'ap50']
        """
        names = ("ap", "ap50", "ap75", "ar", "count_error", "boxes", "points")
        per_class = ("ap50_per_class", "precision_per_class", "recall_per_class", "f1_per_class")
        metrics = {name: getattr(self, name) for name in (*names, *per_class)}
        return as_json({**metrics, "fields": len(self.truth), "rules": asdict(self.detection)})

    def plot(self) -> Figure:
        """Draw the precision-recall curves, and the counted against the annotated cells.

        Examples
        --------
        >>> len(det.evaluate(fields).plot().axes)
        2
        """
        from cellscan.plots import plot_detection

        return plot_detection(
            self.class_names, self.curves, self.ap50_per_class, self.truth, self.found, self.count_error
        )


def evaluate_detections(
    fields: FieldDataset,
    found: Sequence[Detections],
    detection: DetectionConfig,
    cells: Sequence[Detections] | None = None,
) -> DetectionReport:
    """Evaluate detections of all scores against the annotations; `cells` are the counted cells, if known."""
    counted = _evaluate(fields, found, detection.max_detections)
    precision = counted.eval["precision"][:, :, :, 0, -1]  # IoU threshold, recall, class
    recall = counted.eval["recall"][:, :, 0, -1]
    per_class = [_mean(precision[0, :, k]) for k in range(len(fields.class_names))]
    at = [_at(counted, k, threshold) for k, threshold in enumerate(detection.thresholds)]
    cells = [detections[once(detections, detection)] for detections in found] if cells is None else cells
    counts = np.array([len(counted_cells) for counted_cells in cells], np.int64)
    boxes, points = (
        np.array([int((labels != IGNORED).sum()) for labels in labels_of_fields], np.int64)
        for labels_of_fields in (fields.labels, fields.point_labels)
    )
    whole = whole_cells(fields, found)
    annotated = [np.concatenate(row) for row in zip(whole.labels, whole.point_labels, strict=True)]
    truth = np.array([int((labels != IGNORED).sum()) for labels in annotated], np.int64)
    complete = fields.complete.all(1)
    errors = np.abs(counts - truth)[complete] / np.maximum(truth[complete], 1)
    recall_at = [_ratio(hit, total) for hit, _, total in at]
    for k in range(len(fields.class_names)):
        if not at[k][2]:  # The class has no boxes.
            recall_at[k] = _recall_of_points(fields, found, k, detection.thresholds[k])
    return DetectionReport(
        ap=_mean(precision),
        ap50=_mean(precision[0]),
        ap75=_mean(precision[5]),
        ar=_mean(recall),
        ap50_per_class=tuple(per_class),
        precision_per_class=tuple(_ratio(hit, hit + miss) for hit, miss, _ in at),
        recall_per_class=tuple(recall_at),
        f1_per_class=tuple(_ratio(2 * hit, hit + miss + total) for hit, miss, total in at),
        count_error=float(errors.mean()) if len(errors) else float("nan"),
        found=counts,
        truth=truth,
        boxes=int(boxes.sum()),
        points=int(points.sum()),
        class_names=fields.class_names,
        detection=detection,
        curves=tuple(np.c_[counted.params.recThrs, precision[0, :, k]] for k in range(len(fields.class_names))),
    )


def choose_thresholds(
    fields: FieldDataset, found: Sequence[Detections], detection: DetectionConfig, largest_rate: float | None = None
) -> DetectionConfig:
    """Return the rules with the score thresholds that have the best F1 for each class, of cells that no border cuts.

    With `largest_rate`, only that of the last class is chosen: the lowest one with at most this number of false
    detections per cell of the other classes. The fields may all be of healthy people. In a field in which not every
    cell of the other classes is annotated, the cells that `found` counts there are used, because false detections on
    cells without annotation are counted, too.
    """
    fields = whole_cells(fields, found)
    counted = _evaluate(fields, [detections[~detections.cut] for detections in found], detection.max_detections)
    chosen = []
    for k, name in enumerate(fields.class_names):
        scores, hits, total = _outcomes(counted, k)
        if largest_rate is not None:
            if k < len(fields.class_names) - 1:
                chosen.append(detection.thresholds[k])
                continue
            others = sum(_count_others(fields, row, detections, detection) for row, detections in enumerate(found))
            accepted = int((np.cumsum(~hits) <= largest_rate * others).sum())
        else:
            if not total:
                last = k == len(fields.class_names) - 1
                raise DataError(
                    f"no box is annotated as {name!r}, or the border cuts all of them; expected at least one of a "
                    "whole cell to choose the threshold. Annotate more fields"
                    + (f", or pass max_false_positive_rate=0.001, which needs no {name} cell" if last else "")
                )
            f1 = 2 * np.cumsum(hits) / (np.arange(1, len(scores) + 1) + total)
            if not f1.any():
                chosen.append(0.5)
                continue
            accepted = int(f1.argmax()) + 1
        # The threshold lies halfway between the last accepted score and the next one, not at the score itself.
        above = scores[accepted - 1] if accepted else 1.0
        below = scores[accepted] if accepted < len(scores) else 0.0
        chosen.append(float(np.clip((above + below) / 2, 1e-3, 0.999)))
    return replace(detection, thresholds=tuple(chosen))


def _count_others(fields: FieldDataset, row: int, found: Detections, detection: DetectionConfig) -> int:
    """Return the number of cells of a field that are not of the last class: annotated or, failing that, detected."""
    labels = np.concatenate([fields.labels[row], fields.point_labels[row]])
    last = len(fields.class_names) - 1
    if fields.complete[row, :last].all():
        return int(((labels >= 0) & (labels != last)).sum())
    return max(int(once(found, detection).sum() - (labels == last).sum()), 0)


def measure_errors(fields: FieldDataset, cells: Sequence[Detections], detection: DetectionConfig) -> DetectionConfig:
    """Return the rules with the error rates of the last class.

    `cells` has the cells of each field, each counted once, without those that the border of the field cuts; annotated
    cells that it cuts are left out, too. Detections of the last class are matched in descending order of score: a
    detection is correct if its IoU with an unmatched annotated box of the class is at least 0.5. Detections in ignored
    boxes count neither as correct nor as false. False detections are only counted in fields in which every cell has a
    box.
    """
    outcomes, fields = [], whole_cells(fields, cells)
    complete = fields.boxed()[:, 1] & fields.complete[:, 0]  # fields in which false detections can be counted
    for row, (boxes, labels, result) in enumerate(zip(fields.boxes, fields.labels, cells, strict=True)):
        infected, last = boxes[labels == 1], result.labels == 1
        called = result.boxes[last][np.argsort(-result.scores[last])]
        unmatched = np.ones(len(infected), bool)
        false = 0
        for box in called:
            shared = np.where(unmatched, overlap(box, infected), 0) if len(infected) else np.zeros(0)
            if shared.size and shared.max() >= 0.5:
                unmatched[shared.argmax()] = False
            else:
                false += not _lies_in(box, boxes[labels == IGNORED])
        others = int((labels == 0).sum() + (fields.point_labels[row] == 0).sum())
        outcomes.append((int((~unmatched).sum()), len(infected), *((false, others) if complete[row] else (0, 0))))
    hit, total, false, others = np.array(outcomes, np.int64).sum(0).tolist()
    rates = np.array([o[2] / max(o[3], 1) for o, counted in zip(outcomes, complete, strict=True) if counted])
    return replace(
        detection,
        sensitivity=hit / total if total else None,
        false_positive_rate=false / others if others else None,
        false_positive_sd=float(rates.std(ddof=1)) if len(rates) > 1 else 0.0,
        outcomes=tuple(outcomes),
    )


def whole_cells(fields: FieldDataset, found: Sequence[Detections]) -> FieldDataset:
    """Return the fields, in which boxes and points of cells that the border of the field cuts are ignored ones.

    A point has no size: its cell is cut if the border is nearer than half a cell diameter.

    Examples
    --------
    >>> import numpy as np, cellscan
    >>> from cellscan.evaluate.detection import whole_cells
    >>> found = det.predict(fields)  # see the example of `cellscan.Detector`
    >>> ignored = np.concatenate(whole_cells(fields, found).labels) < 0
    >>> (ignored == np.concatenate([d.find_cut(boxes) for d, boxes in zip(found, fields.boxes)])).all()
    np.True_
    """
    labels, point_labels = [], []
    for row, detections in enumerate(found):
        labels.append(np.where(detections.find_cut(fields.boxes[row]), IGNORED, fields.labels[row]))
        half = (detections.cell_diameter or 0.0) / 2
        cells = np.concatenate([fields.points[row] - half, fields.points[row] + half], 1)
        point_labels.append(np.where(detections.find_cut(cells), IGNORED, fields.point_labels[row]))
    return replace(fields, labels=tuple(labels), point_labels=tuple(point_labels))


def _lies_in(box: np.ndarray, ignored: np.ndarray) -> bool:
    """Return whether at least half of a box lies in an ignored box."""
    if not len(ignored):
        return False
    sides = np.minimum(box[2:], ignored[:, 2:]) - np.maximum(box[:2], ignored[:, :2])
    return bool((np.maximum(sides, 0).prod(1) >= 0.5 * (box[2:] - box[:2]).prod()).any())


def once(found: Detections, detection: DetectionConfig) -> np.ndarray:
    """Return a mask of the detections at their thresholds that counts each cell once, whatever its class.

    Cells that the border of the field cuts are not counted. The last class has priority: a cell that is detected as the
    last class and as another one counts as the last class.
    """
    counted = found.scores >= np.array(detection.thresholds, np.float32)[found.labels]
    return keep_once(found, counted, detection)


def keep_once(found: Detections, counted: np.ndarray, detection: DetectionConfig) -> np.ndarray:
    """Return a mask of those detections in the mask `counted` that no other one overlaps with a higher label or score.

    Cells that the border of the field cuts are not in the result.
    """
    kept: list[int] = []
    for row in np.lexsort((-found.scores, -found.labels)):
        if counted[row] and (not kept or overlap(found.boxes[row], found.boxes[kept]).max() <= detection.iou_threshold):
            kept.append(int(row))
    mask = np.zeros(len(found), bool)
    mask[kept] = True
    return mask & ~found.cut


def _recall_of_points(fields: FieldDataset, found: Sequence[Detections], kind: int, threshold: float) -> float:
    """Return the share of the points of a class that lie in a detection of it; each detection finds one point."""
    hits = total = 0
    for points, labels, detections in zip(fields.points, fields.point_labels, found, strict=True):
        remaining = points[labels == kind]
        total += len(remaining)
        counts = (detections.labels == kind) & (detections.scores >= np.float32(threshold))
        for box in detections.boxes[counts][np.argsort(-detections.scores[counts], kind="stable")]:
            inside = ((remaining >= box[:2]) & (remaining <= box[2:])).all(1)
            if inside.any():
                distances = np.where(inside, np.abs(remaining - (box[:2] + box[2:]) / 2).sum(1), np.inf)
                remaining = np.delete(remaining, int(distances.argmin()), 0)
                hits += 1
    return _ratio(hits, total)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of a box (4,) and each of other boxes (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-9)


def _evaluate(fields: FieldDataset, found: Sequence[Detections], max_detections: int) -> Any:
    """Return the evaluation of pycocotools.

    An ignored box becomes a crowd annotation of every class. If not every cell of a class has a box in a field, the
    whole field becomes a crowd annotation of the class.
    """
    COCO = import_extra("pycocotools.coco", "detect", "average precision").COCO
    COCOeval = import_extra("pycocotools.cocoeval", "detect", "average precision").COCOeval
    if len(found) != len(fields):
        raise DataError(
            f"there are detections of {len(found)} fields; expected {len(fields)}, one for each annotated field"
        )
    truth: list[dict[str, Any]] = []
    incomplete = ~fields.boxed()
    for image, (boxes, labels) in enumerate(zip(fields.boxes, fields.labels, strict=True), 1):
        width, height = fields.sizes[image - 1].tolist()
        for kind in np.flatnonzero(incomplete[image - 1]).tolist():
            truth.append(_coco(len(truth) + 1, image, kind, [0.0, 0.0, width, height], crowd=1))
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            for kind in range(len(fields.class_names)) if label == IGNORED else [label]:
                truth.append(_coco(len(truth) + 1, image, kind, box, crowd=int(label == IGNORED)))
    results = [
        {**_coco(0, image, label, box, crowd=0), "score": score}
        for image, cells in enumerate(found, 1)
        for box, label, score in zip(cells.boxes.tolist(), cells.labels.tolist(), cells.scores.tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(1, len(fields) + 1)],
            "categories": [{"id": kind} for kind in range(1, len(fields.class_names) + 1)],
            "annotations": truth,
        }
        coco.createIndex()
        if results:
            predicted: Any = coco.loadRes(results)
        else:
            predicted = COCO()
            predicted.dataset = {**coco.dataset, "annotations": []}
            predicted.createIndex()
        counted = COCOeval(coco, predicted, "bbox")
        counted.params.maxDets = [max_detections]  # pycocotools sorts a list, and would use the largest number
        counted.params.areaRng, counted.params.areaRngLbl = [[0, 1e10]], ["all"]
        counted.evaluate()
        counted.accumulate()
    return counted


def _coco(number: int, image: int, kind: int, box: list[float], *, crowd: int) -> dict[str, Any]:
    left, top, right, bottom = box
    side = [left, top, right - left, bottom - top]
    where = {"id": number, "image_id": image, "category_id": kind + 1}
    return {**where, "bbox": side, "area": side[2] * side[3], "iscrowd": crowd}


def _images(counted: Any, kind: int) -> list[dict[str, Any] | None]:
    """Return the evaluation of a class by pycocotools for each image."""
    images = len(counted.params.imgIds)
    return counted.evalImgs[kind * images : (kind + 1) * images]


def _real(image: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the detections that are not ignored, and whether each matches at an IoU of 0.5."""
    counted = ~image["dtIgnore"][0].astype(bool)
    return np.asarray(image["dtScores"], float)[counted], image["dtMatches"][0][counted] > 0


def _outcomes(counted: Any, kind: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the scores in descending order, whether each matches at an IoU of 0.5, and the number of annotations."""
    images = [image for image in _images(counted, kind) if image is not None]
    if not images:
        return np.zeros(0), np.zeros(0, bool), 0
    scores, hits = map(np.concatenate, zip(*map(_real, images), strict=True))
    order = np.argsort(-scores, kind="stable")
    total = sum(int((~np.asarray(image["gtIgnore"], bool)).sum()) for image in images)
    return scores[order], hits[order], total


def _at(counted: Any, kind: int, threshold: float) -> tuple[int, int, int]:
    """Return the numbers of correct, false and annotated boxes of a class at a threshold."""
    scores, hits, total = _outcomes(counted, kind)
    over = scores >= threshold
    return int(hits[over].sum()), int((~hits[over]).sum()), total


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _texts(*values: float) -> list[str]:
    return [metric_text(value, 3) for value in values]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
