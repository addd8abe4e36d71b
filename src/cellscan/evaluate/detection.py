"""Average precision of detections, by pycocotools, and what counts at a threshold."""

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
from cellscan.errors import DataError, MissingExtraError
from cellscan.evaluate.report import as_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class DetectionReport:
    """How well a detector finds what is annotated; prints as a table.

    Average precision is pycocotools' over all scores: boxes match from an overlap of 0.5 to 0.95, ignored boxes count
    neither for nor against, and nothing is left out by size. F1 and counts are taken at the thresholds, with
    matches from an overlap of 0.5.

    Where not every cell of a class has a box in a field (`FieldDataset.boxed`), what is found there and matches no box
    counts neither for nor against. A class that has points and no box has a recall alone: a point is found by a box
    of its class around it, at the threshold, each box finding one.

    Attributes
    ----------
    ap, ap50, ap75 : float
        Average precision, mean over classes: over overlaps from 0.5 to 0.95, at 0.5, at 0.75.
    ar : float
        Average recall over the same overlaps.
    ap50_per_class : tuple[float, ...]
        In the order of the class names; NaN where none is annotated.
    precision_per_class, recall_per_class, f1_per_class : tuple[float, ...]
        At the thresholds.
    count_error : float
        Mean over fields of the error of the count of all cells, each counted once, over the true count; of fields in
        which every class is complete. NaN where there is none.
    found, truth : numpy.ndarray
        (N,) int64, cells of every field: counted, and annotated, by box or point.
    boxes, points : int
        How many are annotated, ignored ones left out.
    curves : tuple of (R, 2) arrays
        Recall and precision at an overlap of 0.5, a class each.
    class_names : tuple[str, ...]
        The classes.
    detection : DetectionConfig
        Anchors, thresholds and rules that the scores belong to.

    Examples
    --------
    >>> len(det.evaluate(fields).ap50_per_class)  # as of `cellscan.Detector`
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
            f"AP {_text(self.ap)}, AP50 {_text(self.ap50)}, AP75 {_text(self.ap75)}, AR {_text(self.ar)}",
            f"{'class':20}{'AP50':>8}{'threshold':>11}{'precision':>11}{'recall':>8}{'F1':>8}",
        ]
        for row in zip(self.class_names, self.ap50_per_class, rules.thresholds, self.precision_per_class,
                       self.recall_per_class, self.f1_per_class, strict=True):  # fmt: skip
            name, ap50, threshold, precision, recall, f1 = row
            ap50, precision, recall, f1 = map(_text, (ap50, precision, recall, f1))
            lines.append(f"{name:20}{ap50:>8}{threshold:>11.3f}{precision:>11}{recall:>8}{f1:>8}")
        error = "n/a: no field is annotated in full" if np.isnan(self.count_error) else f"{self.count_error:.1%}"
        lines.append(f"count of a field, mean error {error}")
        lines.append(
            f"suppressed from an overlap of {rules.iou_threshold:g}, at most {rules.max_detections} boxes a field"
        )
        return "\n".join([*lines, "Research use only, not a medical device."])

    def __repr__(self) -> str:
        return f"DetectionReport(ap50={_text(self.ap50)}, fields={len(self.truth)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON values; null for those without meaning, such as of a class without a box.

        Examples
        --------
        >>> sorted(det.evaluate(fields).to_dict())[:2]
        ['ap', 'ap50']
        """
        names = ("ap", "ap50", "ap75", "ar", "count_error", "boxes", "points")
        per_class = ("ap50_per_class", "precision_per_class", "recall_per_class", "f1_per_class")
        found = {name: getattr(self, name) for name in (*names, *per_class)}
        return as_json({**found, "fields": len(self.truth), "rules": asdict(self.detection)})

    def plot(self) -> Figure:
        """Draw precision against recall, and counted against annotated cells.

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
    fields: FieldDataset, found: Sequence[Detections], detection: DetectionConfig
) -> DetectionReport:
    """Evaluate detections of all scores against the annotations."""
    counted = _evaluate(fields, found, detection.max_detections)
    precision = counted.eval["precision"][:, :, :, 0, -1]  # overlap, recall, class
    recall = counted.eval["recall"][:, :, 0, -1]
    per_class = [_mean(precision[0, :, k]) for k in range(len(fields.class_names))]
    at = [_at(counted, k, threshold) for k, threshold in enumerate(detection.thresholds)]
    counts = np.array([once(one, detection).sum() for one in found], np.int64)
    boxes, points = (
        np.array([int((said != IGNORED).sum()) for said in each], np.int64)
        for each in (fields.labels, fields.point_labels)
    )
    truth, whole = boxes + points, fields.complete.all(1)
    errors = np.abs(counts - truth)[whole] / np.maximum(truth[whole], 1)
    recall_at = [_ratio(hit, total) for hit, _, total in at]
    for k in range(len(fields.class_names)):
        if not at[k][2]:  # no box
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


def choose_thresholds(fields: FieldDataset, found: Sequence[Detections], detection: DetectionConfig) -> DetectionConfig:
    """Return the rules with the thresholds of best F1."""
    counted = _evaluate(fields, found, detection.max_detections)
    chosen = []
    for k, name in enumerate(fields.class_names):
        scores, hits, total = _outcomes(counted, k)
        if not total:
            raise DataError(f"no box is annotated as {name!r}; a threshold for it needs some")
        right = np.cumsum(hits)
        f1 = 2 * right / (np.arange(1, len(scores) + 1) + total) if len(scores) else np.zeros(1)
        best = int(f1.argmax())
        # Halfway to the next score below, so that the last box that counts is not on the edge.
        below = scores[best + 1] if best + 1 < len(scores) else 0.0
        chosen.append(float(np.clip((scores[best] + below) / 2, 1e-3, 0.999)) if f1.max() > 0 else 0.5)
    return replace(detection, thresholds=tuple(chosen))


def measure_errors(fields: FieldDataset, cells: Sequence[Detections], detection: DetectionConfig) -> DetectionConfig:
    """Return the rules with the error rates of the last class, of cells that each count once.

    A cell is annotated where a box of it overlaps the one that was found by a half at least, each box once, the surest
    first. What lies in an ignored box counts neither for nor against; nor do false calls in fields in which not every
    cell has a box.
    """
    outcomes = []
    whole = fields.boxed()[:, 1] & fields.complete[:, 0]  # where a call is false, and how many could be called
    for row, (own, said, one) in enumerate(zip(fields.boxes, fields.labels, cells, strict=True)):
        sick, called = own[said == 1], one.boxes[one.labels == 1][np.argsort(-one.scores[one.labels == 1])]
        free = np.ones(len(sick), bool)
        wrong = 0
        for box in called:
            shared = np.where(free, _overlap(box, sick), 0) if len(sick) else np.zeros(0)
            if shared.size and shared.max() >= 0.5:
                free[shared.argmax()] = False
            else:
                wrong += not _lies_in(box, own[said == IGNORED])
        others = int((said == 0).sum() + (fields.point_labels[row] == 0).sum())
        outcomes.append((int((~free).sum()), len(sick), *((wrong, others) if whole[row] else (0, 0))))
    hit, total, wrong, others = np.array(outcomes, np.int64).sum(0).tolist()
    rates = np.array([o[2] / max(o[3], 1) for o, sure in zip(outcomes, whole, strict=True) if sure])
    return replace(
        detection,
        sensitivity=hit / total if total else None,
        false_positive_rate=wrong / others if others else None,
        false_positive_sd=float(rates.std(ddof=1)) if len(rates) > 1 else 0.0,
        outcomes=tuple(outcomes),
    )


def _lies_in(box: np.ndarray, ignored: np.ndarray) -> bool:
    """Whether half of a box lies in an ignored one."""
    if not len(ignored):
        return False
    sides = np.minimum(box[2:], ignored[:, 2:]) - np.maximum(box[:2], ignored[:, :2])
    return bool((np.maximum(sides, 0).prod(1) >= 0.5 * (box[2:] - box[:2]).prod()).any())


def once(found: Detections, detection: DetectionConfig) -> np.ndarray:
    """Return a mask of the boxes that count, each cell once whatever it was called.

    The last class goes before the others: a cell that is found as both, from its threshold on, is one of the last.
    """
    counts = found.scores >= np.array(detection.thresholds, np.float32)[found.labels]
    kept: list[int] = []
    for row in np.lexsort((-found.scores, -found.labels)):
        if counts[row] and (not kept or _overlap(found.boxes[row], found.boxes[kept]).max() <= detection.iou_threshold):
            kept.append(int(row))
    mask = np.zeros(len(found), bool)
    mask[kept] = True
    return mask


def _recall_of_points(fields: FieldDataset, found: Sequence[Detections], kind: int, threshold: float) -> float:
    """Return the share of the points of a class that have a box of it around them; each box finds one point."""
    hits = total = 0
    for marks, said, one in zip(fields.points, fields.point_labels, found, strict=True):
        left = marks[said == kind]
        total += len(left)
        counts = (one.labels == kind) & (one.scores >= np.float32(threshold))
        for box in one.boxes[counts][np.argsort(-one.scores[counts], kind="stable")]:
            inside = ((left >= box[:2]) & (left <= box[2:])).all(1)
            if inside.any():
                far = np.where(inside, np.abs(left - (box[:2] + box[2:]) / 2).sum(1), np.inf)
                left = np.delete(left, int(far.argmin()), 0)
                hits += 1
    return _ratio(hits, total)


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-9)


def _evaluate(fields: FieldDataset, found: Sequence[Detections], max_detections: int) -> Any:
    """Return pycocotools' evaluation.

    An ignored box is a crowd in every class; a field in which not every cell of a class has a box is one crowd of it.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError("average precision needs pycocotools: pip install 'cellscan[detect]'") from error
    if len(found) != len(fields):
        raise DataError(f"{len(found)} fields were detected in, {len(fields)} are annotated; expected the same")
    truth: list[dict[str, Any]] = []
    open_ = ~fields.boxed()
    for image, (own, said) in enumerate(zip(fields.boxes, fields.labels, strict=True), 1):
        width, height = fields.sizes[image - 1].tolist()
        for kind in np.flatnonzero(open_[image - 1]).tolist():
            truth.append(_coco(len(truth) + 1, image, kind, [0.0, 0.0, width, height], crowd=1))
        for box, label in zip(own.tolist(), said.tolist(), strict=True):
            for kind in range(len(fields.class_names)) if label == IGNORED else [label]:
                truth.append(_coco(len(truth) + 1, image, kind, box, crowd=int(label == IGNORED)))
    results = [
        {**_coco(0, image, label, box, crowd=0), "score": score}
        for image, one in enumerate(found, 1)
        for box, label, score in zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)
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
            said: Any = coco.loadRes(results)
        else:
            said = COCO()
            said.dataset = {**coco.dataset, "annotations": []}
            said.createIndex()
        counted = COCOeval(coco, said, "bbox")
        counted.params.maxDets = [1, 10, max_detections]
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
    """Return what pycocotools found of a class, image by image."""
    images = len(counted.params.imgIds)
    return counted.evalImgs[kind * images : (kind + 1) * images]


def _real(image: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of an image that count, and whether each matches at an overlap of 0.5."""
    real = ~image["dtIgnore"][0].astype(bool)
    return np.asarray(image["dtScores"], float)[real], image["dtMatches"][0][real] > 0


def _outcomes(counted: Any, kind: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores, the highest first, whether each matches at an overlap of 0.5, and how many are annotated."""
    each = [e for e in _images(counted, kind) if e is not None]
    if not each:
        return np.zeros(0), np.zeros(0, bool), 0
    scores, hits = map(np.concatenate, zip(*map(_real, each), strict=True))
    order = np.argsort(-scores, kind="stable")
    total = sum(int((~np.asarray(e["gtIgnore"], bool)).sum()) for e in each)
    return scores[order], hits[order], total


def _at(counted: Any, kind: int, threshold: float) -> tuple[int, int, int]:
    """Return hits, false boxes and annotated boxes of a class at a threshold."""
    scores, hits, total = _outcomes(counted, kind)
    over = scores >= threshold
    return int(hits[over].sum()), int((~hits[over]).sum()), total


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _text(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3f}"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
