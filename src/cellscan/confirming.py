"""Confirmation of detected cells by a classifier: a cell counts as infected only if detector and classifier agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cellscan.detection.rules import DetectionConfig
from cellscan.detections import Detections
from cellscan.errors import ArgumentError
from cellscan.evaluate.detection import once

if TYPE_CHECKING:
    from cellscan.classifier import Classifier


def confirm(found: Detections, rules: DetectionConfig, classifier: Classifier | None) -> Detections:
    """Return the cells of a field, each counted once, after the classifier has checked the cells of the last class.

    A cell that the detector calls infected and the classifier does not call positive becomes a red cell, label 0. The
    classifier uses its own threshold.

    Parameters
    ----------
    found : Detections
        Detections of one field, with two classes; the last class is the infected one.
    rules : DetectionConfig
        Score thresholds and IoU threshold of the detector.
    classifier : Classifier or None
        Classifier with a positive class. None: the labels of the detector are kept.

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
    cells = found[once(found, rules)]
    infected = np.flatnonzero(cells.labels == len(cells.class_names) - 1)
    if classifier is None or not len(infected):
        return cells
    preds = classifier.predict(cells[infected].crops(), progress=False)
    labels = cells.labels.copy()
    labels[infected[preds.labels != classifier.card.positive]] = 0
    return cells.with_labels(labels)


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


def name_classifier(classifier: Classifier) -> str:
    """Return a text that identifies a classifier and its threshold; cards of detectors store it.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.confirming import name_classifier
    >>> name_classifier(cellscan.Classifier(image_size=16, seed=0)).endswith(" at 0.5")
    True
    """
    return f"{classifier.fingerprint} at {classifier.card.decision.threshold:.6g}"
