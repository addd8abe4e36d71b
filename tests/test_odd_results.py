"""With unexpected arguments, calls of fields, annotations and results return or raise an error of cellscan."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_image, tiny_cells
from hypothesis import given, settings
from odd import odd
from PIL import Image

import cellscan
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import make_report
from cellscan.predictions import Failure, Predictions

FIELDS: Any = cellscan.synthetic_fields(3, seed=0, size=(96, 96))
SHARES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
CLASSES = ("parasitized", "uninfected")
PREDICTIONS: Any = Predictions(
    SHARES.argmax(1).astype(np.int32), SHARES, np.arange(4), tuple("abcd"), (Failure(4, "e", "no"),), CLASSES, None
)
CELLS = tiny_cells(20)
REPORT: Any = make_report(
    CELLS.labels, CELLS.labels, np.eye(2, dtype=np.float32)[CELLS.labels], names=CELLS.names, patients=CELLS.patients,
    class_names=CLASSES, positive=0, threshold=0.5, split="whole", background="fill",
    patient_overlap=PatientOverlap(6, 0, 0),
)  # fmt: skip
ONE: Any = cellscan.Detections(
    "a", (96, 96), FIELDS.boxes[0], FIELDS.labels[0], np.ones(len(FIELDS.boxes[0]), np.float32), CLASSES, None
)
DETECTIONS: Any = cellscan.FieldDetections((ONE,) * 3, (), CLASSES)
LOAD: Any = cellscan.load_fields
MAKE: Any = cellscan.FieldDataset.from_arrays
IMAGES, BOXES, LABELS = [random_image(0), random_image(1)], [[[1, 1, 9, 9]]] * 2, [[0], [0]]


def nowhere(value: Any, folder: Path) -> Any:
    """Return a path below no folder, where the value is one."""
    return folder / "absent" / "a.csv" if isinstance(value, (str, bytes, Path)) else value


def few(value: Any) -> Any:
    return min(value, 99) if isinstance(value, int) else value


CALLS = {
    "load_fields": lambda x, d: LOAD(nowhere(x, d)),
    "load_fields, images": lambda x, d: LOAD(d, images=nowhere(x, d)),
    "load_fields, classes": lambda x, d: LOAD(d, classes=x),
    "load_fields, class": lambda x, d: LOAD(d, classes={"rbc": x}),
    "load_fields, boxes": lambda x, d: LOAD(d, boxes=x),
    "from_arrays": lambda x, d: MAKE(x, BOXES, LABELS, class_names=["a"]),
    "from_arrays, image": lambda x, d: MAKE([x, IMAGES[1]], BOXES, LABELS, class_names=["a"]),
    "from_arrays, boxes": lambda x, d: MAKE(IMAGES, x, LABELS, class_names=["a"]),
    "from_arrays, box": lambda x, d: MAKE(IMAGES, [x, BOXES[1]], LABELS, class_names=["a"]),
    "from_arrays, side": lambda x, d: MAKE(IMAGES, [[[1, 1, 9, x]], BOXES[1]], LABELS, class_names=["a"]),
    "from_arrays, labels": lambda x, d: MAKE(IMAGES, BOXES, x, class_names=["a"]),
    "from_arrays, label": lambda x, d: MAKE(IMAGES, BOXES, [[x], [0]], class_names=["a"]),
    "from_arrays, class_names": lambda x, d: MAKE(IMAGES, BOXES, LABELS, class_names=x),
    "from_arrays, class name": lambda x, d: MAKE(IMAGES, BOXES, LABELS, class_names=["a", x]),
    "from_arrays, names": lambda x, d: MAKE(IMAGES, BOXES, LABELS, class_names=["a"], names=x),
    "from_arrays, name": lambda x, d: MAKE(IMAGES, BOXES, LABELS, class_names=["a"], names=["b", x]),
    "fields[]": lambda x, d: FIELDS[x],
    "fields.select": lambda x, d: FIELDS.select(x).describe(),
    "fields.without": lambda x, d: FIELDS.without(x),
    "fields.split": lambda x, d: FIELDS.split(test=x),
    "fields.folds": lambda x, d: list(FIELDS.folds(x)),
    "fields.rename_classes": lambda x, d: FIELDS.rename_classes(x),
    "fields.split, seed": lambda x, d: FIELDS.split(test=0.3, seed=x),
    "fields.images": lambda x, d: FIELDS.images(tuple(map(few, x)) if isinstance(x, tuple) else x, progress=False),
    "fields.targets": lambda x, d: FIELDS.targets(x),
    "fields.targets, room": lambda x, d: FIELDS.targets((64, 64), few(x)),
    "fields.crops, min_size": lambda x, d: FIELDS.crops(min_size=x),
    "fields.crops, max_per_class": lambda x, d: FIELDS.crops(max_per_class=x),
    "fields.crops, seed": lambda x, d: FIELDS.crops(seed=x),
    "predictions[]": lambda x, d: PREDICTIONS[x],
    "predictions ==": lambda x, d: PREDICTIONS == x,
    "predictions.to_csv": lambda x, d: PREDICTIONS.to_csv(nowhere(x, d)),
    "detections[]": lambda x, d: DETECTIONS[x],
    "detections of a field[]": lambda x, d: ONE[x],
    "detections.to_csv": lambda x, d: DETECTIONS.to_csv(nowhere(x, d)),
    "report.select": lambda x, d: REPORT.select(x),
    "report.without": lambda x, d: REPORT.without(x),
    "report.at_prevalence": lambda x, d: REPORT.at_prevalence(x),
    "report.bootstrap": lambda x, d: REPORT.bootstrap(draws=few(x)),
    "report.bootstrap, seed": lambda x, d: REPORT.bootstrap(draws=2, seed=x),
    "report.patients[]": lambda x, d: REPORT.patients[x],
    "report.patients.worst": lambda x, d: REPORT.patients.worst(x),
    "compare": lambda x, d: cellscan.compare(REPORT, x),
    "compare, seed": lambda x, d: cellscan.compare(REPORT, REPORT, seed=x),
    "screen, detector": lambda x, d: cellscan.screen(FIELDS, x),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("set")
    for name, text in (("classes.txt", "rbc"), ("labels/a.txt", "0 .5 .5 .1 .1"), ("labels/b.txt", "")):
        (found / name).parent.mkdir(exist_ok=True)
        (found / name).write_text(text)
    (found / "images").mkdir()
    for name in "ab":
        Image.fromarray(random_image()).save(found / "images" / f"{name}.png")
    return found


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, deadline=None)
@given(value=odd)
def test_an_answer_or_an_error_of_ours(call, folder, value) -> None:
    try:
        CALLS[call](value, folder)
    except cellscan.CellscanError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
