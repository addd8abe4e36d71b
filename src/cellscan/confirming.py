"""Joint decisions of a detector and a classifier: which of the detected cells count as infected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cellscan.detection.rules import DetectionConfig
from cellscan.detections import Detections
from cellscan.errors import ArgumentError
from cellscan.evaluate.detection import keep_once, overlap
from cellscan.inference import SYMMETRIES, apply_symmetry

if TYPE_CHECKING:
    from cellscan.classifier import Classifier

_LEAST = 1e-6
"""Smallest distance of a probability from 0 and 1, so that log-odds are finite."""

_SAME_PLACE = 0.5
"""Smallest intersection over union of two boxes of different classes around one cell."""

_SHARED = 0.6
"""Largest part of the smaller of two boxes that two infected cells share. The detector keeps boxes of different sizes
around one object, and the classifier gives all of them high probabilities."""

_OVERLAY = 0.2
"""Largest channel of a pixel of text or of a scale bar, as a part of that of the background. In the annotated infected
cells of IML-Malaria it is at least 0.34; in the NIH cells, above 0.39."""

_COVERED, _LARGEST_OVERLAY = 0.005, 0.05
"""Part of a crop from which on it contains an overlay, and largest part of a field that an overlay has."""


def add_evidence(found: Detections, classifier: Classifier, crop_scale: float) -> Detections:
    """Return the detections with joint scores for the last class.

    The log-odds of a joint score are the mean of three log-odds: of the detector's score for the last class, of the
    classifier's probability of its positive class, and of the detector's score for a cell, which is the highest score
    of any class that a box with an intersection over union of at least 0.5 has there. The classifier was trained on
    cells only, and is often certain of what is none, such as white cells; the third score lowers those. The classifier
    receives crops of the size `crop_scale`, see `Detections.crops`. If the joint score is at least 0.5, it receives the
    crop in all eight symmetries, and the mean of their log-odds is used: this takes eight times as long, and few cells
    have such a score. The joint score is 0 for cells under text or a scale bar, and for all but the best of several
    boxes around one object.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.confirming import add_evidence
    >>> clf = cellscan.Classifier(image_size=16, class_names=("uninfected", "parasitized"))
    >>> found = det.predict(fields)[0]  # see the example of `cellscan.Detector`
    >>> len(add_evidence(found, clf, 0.886)) == len(found)
    True
    """
    scores = found.scores.copy()
    infected = np.flatnonzero(found.labels == len(found.class_names) - 1)
    if len(infected):
        crops, visible = _cut_out(found[infected], crop_scale)
        detected = _log_odds(scores[infected]) + _log_odds(_score_cells(found, infected))
        judged = _log_odds(_predict(crops, classifier))
        likely = np.flatnonzero(visible & (detected + judged >= 0))
        if len(likely) and not classifier.card.decision.tta:
            turned = [apply_symmetry(crops[row][None], way)[0] for way in SYMMETRIES[1:] for row in likely]
            others = _log_odds(_predict(turned, classifier)).reshape(-1, len(likely))
            judged[likely] = np.concatenate([judged[None, likely], others]).mean(0)
        joint = np.where(visible, 1 / (1 + np.exp(-(detected + judged) / 3)), 0)
        scores[infected] = np.where(_find_best(found.boxes[infected], joint), joint, 0)
    return replace(found, scores=scores)


def _score_cells(found: Detections, rows: np.ndarray) -> np.ndarray:
    """Return, for the detections of these rows, the highest score of all detections that lie at the same place."""
    near = np.array([overlap(found.boxes[row], found.boxes) >= _SAME_PLACE for row in rows])
    return np.maximum(found.scores[rows], np.where(near, found.scores, 0).max(1))


def _find_best(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return a mask of the boxes that share at most `_SHARED` of the smaller box with a box of a higher score."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    best: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        sides = np.minimum(boxes[row, 2:], boxes[best, 2:]) - np.maximum(boxes[row, :2], boxes[best, :2])
        if (np.maximum(sides, 0).prod(1) <= _SHARED * np.minimum(areas[row], areas[best])).all():
            best.append(int(row))
    return np.isin(np.arange(len(boxes)), best)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
    return np.log(clipped / (1 - clipped))


def _predict(crops: Sequence[np.ndarray], classifier: Classifier) -> np.ndarray:
    """Return the probability that each cell is positive."""
    return classifier.predict(list(crops), progress=False).probabilities[:, classifier.card.positive]


def _cut_out(found: Detections, crop_scale: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the crop of each cell, and whether it is visible, because no text or scale bar lies over it."""
    field = found.pixels()
    crops = [cell.image for cell in replace(found, image=field).crops(scale=crop_scale)]
    return crops, ~find_overlays(field, crops)


def find_overlays(field: np.ndarray, crops: Sequence[np.ndarray]) -> np.ndarray:
    """Return which crops of a field contain a part of a text or of a scale bar, which look like parasites.

    Such pixels are much darker, in all channels, than any stain. If many pixels of the field are, they are no overlay
    but a black background or the border of an eyepiece, and the result is False for every crop.

    Parameters
    ----------
    field : (H, W, 3) uint8
    crops : sequence of (h, w, 3) uint8

    Returns
    -------
    (n,) bool

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.confirming import find_overlays
    >>> field = np.full((200, 200, 3), 220, np.uint8)
    >>> field[100:104, 20:60] = 0
    >>> find_overlays(field, [field[90:120, 20:60], field[:40, :40]]).tolist()
    [True, False]
    """
    light = field[::4, ::4].max(-1)
    limit = _OVERLAY * np.percentile(light, 95)
    if (light < limit).mean() > _LARGEST_OVERLAY:
        return np.zeros(len(crops), bool)
    return np.array([(crop.max(-1) < limit).mean() > _COVERED for crop in crops], bool)


def rules_with(classifier_name: str | None, rules: DetectionConfig) -> DetectionConfig:
    """Return the rules for a call with this classifier: the joint threshold of another classifier is not used.

    Parameters
    ----------
    classifier_name : str or None
        The result of `name_classifier`, which reads all weights; None without a classifier.
    rules : DetectionConfig
        Rules of the detector.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from cellscan.confirming import rules_with
    >>> rules = replace(det.card.detection, joint_threshold=0.4, measured_with="one")
    >>> rules_with("one", rules).joint_threshold, rules_with("another", rules).joint_threshold
    (0.4, None)
    """
    own = classifier_name is not None and rules.measured_with == classifier_name
    return rules if own else replace(rules, joint_threshold=None)


def confirm(
    found: Detections, rules: DetectionConfig, classifier: Classifier | None, joint: Detections | None = None
) -> Detections:
    """Return the cells of a field, each counted once, after the classifier has checked the cells of the last class.

    Cells that the border of the field cuts are left out: a part of them is not visible, and sets differ in whether they
    have boxes.

    With a joint threshold, a detection of the last class counts as infected if its joint score reaches the threshold,
    see `add_evidence`. Without one, the detector's score has to reach the threshold of the class, and the classifier,
    at its own threshold, has to call the cell positive. Other detections of the last class are red cells, label 0, if
    their score reaches the threshold of either class.

    Parameters
    ----------
    found : Detections
        Detections of one field with two classes, from the lowest score on; the last class is the infected one.
    rules : DetectionConfig
        Rules of the detector, as `rules_with` returns them.
    classifier : Classifier or None
        Classifier with a positive class. None: the labels of the detector are kept.
    joint : Detections, optional
        The result of `add_evidence` for `found`, if it is known.

    Returns
    -------
    Detections
        One detection per cell, with the confirmed labels.

    Examples
    --------
    >>> from cellscan.confirming import confirm
    >>> found = det.predict(fields)[0]  # see the example of `cellscan.Detector`
    >>> len(confirm(found, det.card.detection, None)) <= len(found)
    True
    """
    last = found.labels == len(found.class_names) - 1
    limits = np.array(rules.thresholds, np.float32)
    infected, scores = last & (found.scores >= limits[-1]), found.scores
    if classifier is not None and rules.joint_threshold is not None:
        scores = (add_evidence(found, classifier, rules.crop_scale) if joint is None else joint).scores
        infected = last & (scores >= rules.joint_threshold)
        scores = np.where(infected, scores, found.scores)
    elif classifier is not None and infected.any():
        crops, visible = _cut_out(found[infected], rules.crop_scale)
        positive = classifier.predict(crops, progress=False).labels == classifier.card.positive
        infected[infected] = visible & positive
    labels = np.where(last & ~infected, 0, found.labels).astype(np.int32)
    counted = infected | (found.scores >= limits[found.labels]) | (last & (found.scores >= limits[0]))
    cells = replace(found, labels=labels, scores=scores)
    return cells[keep_once(cells, counted, rules)]


def check_classifier(classifier: Classifier) -> Classifier:
    """Return the classifier, or raise `ArgumentError` if it has no positive class or is not a `Classifier`."""
    from cellscan.classifier import Classifier as Kind

    if not isinstance(classifier, Kind):
        raise ArgumentError(f"classifier is {classifier!r:.80}; expected a cellscan.Classifier, or None")
    if classifier.card.positive is None:
        raise ArgumentError(
            f"the classifier has the classes {', '.join(classifier.class_names)} and no positive class; expected two "
            "classes, one of them positive: set classifier.positive_class"
        )
    return classifier


def name_classifier(classifier: Classifier | None) -> str | None:
    """Return a text that identifies the predictions of a classifier; None for None.

    It contains a hash of the weights and the settings that change probabilities or labels without training: threshold,
    temperature, positive class, background and test-time augmentation. Cards of detectors store it.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.confirming import name_classifier
    >>> name_classifier(cellscan.Classifier(image_size=16, seed=0)).split(" at ")[1]
    '0.5, temperature 1, positive parasitized, background fill'
    """
    if classifier is None:
        return None
    card = classifier.card
    decision = f"{card.decision.threshold:.6g}, temperature {card.decision.temperature:.6g}"
    shown = f"background {card.background}" + (", test-time augmentation" if card.decision.tta else "")
    return f"{classifier.fingerprint} at {decision}, positive {card.positive_class}, {shown}"
