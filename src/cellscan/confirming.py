"""Detector and classifier decide together: a cell is infected where both say so."""

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
    """Return the cells of a field, each once; of the last class those alone that the classifier too calls positive.

    Others that the detector called infected stay as red cells. The classifier is asked at its own threshold.

    Parameters
    ----------
    found : Detections
        Of two classes, the last infected.
    rules : DetectionConfig
    classifier : Classifier or None
        None asks nobody.

    Examples
    --------
    >>> from cellscan.confirming import confirm
    >>> found = det.predict(fields)[0]  # as of `cellscan.Detector`
    >>> len(confirm(found, det.card.detection, None)) <= len(found)
    True
    """
    cells = found[once(found, rules)]
    asked = np.flatnonzero(cells.labels == len(cells.class_names) - 1)
    if classifier is None or not len(asked):
        return cells
    preds = classifier.predict(cells[asked].crops(), progress=False)
    labels = cells.labels.copy()
    labels[asked[preds.labels != classifier.card.positive]] = 0
    return cells.with_labels(labels)


def check_classifier(classifier: Classifier) -> Classifier:
    """Return a classifier that has a positive class to confirm, or say what is wrong with it."""
    from cellscan.classifier import Classifier as Kind

    if not isinstance(classifier, Kind):
        raise ArgumentError(f"classifier is {classifier!r:.80}; expected a cellscan.Classifier, or None")
    if classifier.card.positive is None:
        raise ArgumentError(
            f"the classifier knows {', '.join(classifier.class_names)} and has no positive class; expected two "
            "classes, one of them positive: set classifier.positive_class"
        )
    return classifier


def name_classifier(classifier: Classifier) -> str:
    """Return what tells a classifier and its threshold from others, as cards keep it.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.confirming import name_classifier
    >>> name_classifier(cellscan.Classifier(image_size=16, seed=0)).endswith(" at 0.5")
    True
    """
    return f"{classifier.fingerprint} at {classifier.card.decision.threshold:.6g}"
