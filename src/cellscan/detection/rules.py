"""`DetectionConfig`: the rules by which what a detector says becomes boxes, and boxes become cells."""

from __future__ import annotations

from dataclasses import dataclass

from cellscan.detection.anchors import Anchors
from cellscan.detection.likeness import Likeness


@dataclass(frozen=True)
class DetectionConfig:
    """How what a detector says of its anchors becomes boxes; printed with every score.

    Attributes
    ----------
    anchors : Anchors
        What boxes are written relative to.
    thresholds : tuple[float, ...]
        Score from which a box counts, a class each, in (0, 1).
    iou_threshold : float
        Intersection over union from which a box is suppressed by a better one of its class.
    max_detections : int
        How many boxes of a field are kept at most.
    sensitivity, false_positive_rate, false_positive_sd : float or None
        Of the last class, measured by `Detector.choose_threshold`: share of its cells that are found; false ones for
        every cell that is none; and the standard deviation of that over fields.
    outcomes : tuple of (int, int, int, int)
        Of every field that these were measured on: cells of the last class found and annotated; false ones, and
        annotated cells that are none.
    cell_diameter : float or None
        Median side of the boxes that the detector was trained on, in pixels of its input.
    likeness : Likeness or None
        What the fields looked like on which the errors were measured, and where they are from.
    judged_with : str or None
        Fingerprint of the classifier that confirmed the last class while the errors were measured; None where none did.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Detector("retinanet_small", image_size=(64, 64)).card.detection.thresholds
    (0.5, 0.5)
    """

    anchors: Anchors
    thresholds: tuple[float, ...]
    iou_threshold: float = 0.5
    max_detections: int = 400
    sensitivity: float | None = None
    false_positive_rate: float | None = None
    false_positive_sd: float | None = None
    outcomes: tuple[tuple[int, int, int, int], ...] = ()
    cell_diameter: float | None = None
    likeness: Likeness | None = None
    judged_with: str | None = None
