"""`DetectionConfig`: the rules that turn the outputs of a detector into boxes, and boxes into cells."""

from __future__ import annotations

from dataclasses import dataclass

from cellscan.detection.anchors import Anchors
from cellscan.detection.likeness import Likeness


@dataclass(frozen=True)
class DetectionConfig:
    """Rules that turn the outputs of a detector into boxes; every report prints them with its metrics.

    Attributes
    ----------
    anchors : Anchors
        Reference boxes of the detector.
    thresholds : tuple[float, ...]
        Score at and above which a box counts, for each class, in (0, 1).
    iou_threshold : float
        Intersection over union above which a box of higher score suppresses another box of its class.
    max_detections : int
        Largest number of boxes in a field.
    sensitivity, false_positive_rate, false_positive_sd : float or None
        Error rates of the last class, measured by `Detector.choose_threshold`: share of its cells that are detected;
        number of false detections per cell of the other classes; and the standard deviation of this rate over fields.
    outcomes : tuple of (int, int, int, int)
        Counts of each field on which the rates were measured: detected and annotated cells of the last class; false
        detections, and annotated cells of the other classes.
    cell_diameter : float or None
        Median side of the boxes that the detector was trained on, in pixels of its input.
    likeness : Likeness or None
        Appearance and origin of the fields on which the rates were measured.
    measured_with : str or None
        Fingerprint and settings of the classifier that confirmed the last class while the rates were measured; None
        without one.
    joint_threshold : float or None
        Joint score of detector and classifier at and above which a cell counts as one of the last class, in (0, 1). It
        is used together with the classifier `measured_with` only. The log-odds of a joint score are the mean of those
        of the detector's score for the class, the classifier's probability, and the detector's score for any cell.
    crop_scale : float
        Sides of the crops that a classifier receives, as a part of those of their boxes, in (0, 1].

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
    measured_with: str | None = None
    joint_threshold: float | None = None
    crop_scale: float = 1.0
