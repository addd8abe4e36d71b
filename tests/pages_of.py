"""Write every kind of HTML page from results made by hand, with names that try to break out of a page."""

import dataclasses
from pathlib import Path

import numpy as np

import cellscan
from cellscan.evaluate.confident import LabelIssues
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import Report, make_report
from cellscan.explain import Explanation, Explanations
from cellscan.predictions import Failure

HOSTILE = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"' onload=alert(1) x='", "</style>&lt;",
    "a\u202egnp.exe", "$\\frac{", "--><!--", "\udcff.png", "细胞.png", "null\x00byte",
)  # fmt: skip
CLASSES = ("<i>sick</i>", '"well"')


def make_cells(count: int = 40, side: int = 64) -> cellscan.CellDataset:
    """Return discs, of the first class with a dark spot, that have hostile names, patients and classes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side - 0.5
    images = []
    for number in range(count):
        image = np.where((x**2 + y**2 < 0.2)[..., None], rng.integers((190, 140, 150), (230, 180, 190)), 0)
        left, top = rng.uniform(-0.2, 0.2, 2)
        if number % 2 == 0:
            image[(x - left) ** 2 + (y - top) ** 2 < 0.008] = (110, 50, 130)
        images.append(np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8))
    names = [f"{number} {HOSTILE[number % len(HOSTILE)]}" for number in range(count)]
    patients = [f"p{number // 2 % 5} {HOSTILE[number // 2 % 5]}" for number in range(count)]
    return cellscan.CellDataset.from_arrays(
        images, np.arange(count) % 2, class_names=CLASSES, patients=patients, names=names
    )


def make_probabilities(cells: cellscan.CellDataset) -> np.ndarray:
    """Return probabilities (N, 2) of which about one in eight is wrong."""
    right = np.clip(np.random.default_rng(1).normal(0.75, 0.2, len(cells)), 0.01, 0.99)
    first = np.where(cells.labels == 0, right, 1 - right)
    return np.stack([first, 1 - first], 1).astype(np.float32)


def make_cell_report(cells: cellscan.CellDataset) -> Report:
    """Return a report on the cells."""
    probabilities, patients = make_probabilities(cells), cells.patients.tolist()
    return make_report(
        cells.labels, probabilities.argmax(1).astype(np.int32), probabilities, names=cells.names,
        patients=cells.patients, class_names=cells.class_names, positive=0, threshold=0.5, split="by <hand>",
        patient_overlap=PatientOverlap.among(patients, train=[], validation=[], decision=[]), background="fill",
        rule=0.4,
    )  # fmt: skip


def make_issues(cells: cellscan.CellDataset) -> LabelIssues:
    """Return label issues: every cell, the least probable label first."""
    probabilities = make_probabilities(cells)
    scores = probabilities[np.arange(len(cells)), cells.labels]
    return LabelIssues(np.argsort(scores, kind="stable"), scores, probabilities, cells)


def make_found(count: int = 3) -> cellscan.FieldDetections:
    """Return detections of drawn fields; the image of the last one cannot be read, and one field failed."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:180, :240]
    fields = []
    for number in range(count):
        corners = rng.uniform(0, (210, 150), (12, 2))
        image = rng.integers(215, 235, (180, 240, 3), dtype=np.uint8)
        for row, (left, top) in enumerate(corners + 15):
            image[(x - left) ** 2 + (y - top) ** 2 < 180] = (205, 150, 165)
            if row > 8:
                image[(x - left) ** 2 + (y - top) ** 2 < 16] = (100, 50, 130)
        fields.append(
            cellscan.Detections(
                f"{number} {HOSTILE[number]}", (240, 180), np.c_[corners, corners + 30].astype(np.float32),
                np.array([0] * 9 + [1] * 3, np.int32), np.linspace(0.95, 0.4, 12).astype(np.float32),
                ("<b>red</b> cell", "infected"), image if number < count - 1 else "no/such/file.png", 30.0,
            )
        )  # fmt: skip
    failed = (Failure(count, HOSTILE[0], f"{HOSTILE[1]}: there is no such file"),)
    return cellscan.FieldDetections(tuple(fields), failed, fields[0].class_names)


def make_smear(found: cellscan.FieldDetections) -> cellscan.SmearReport:
    """Return the report of a smear of these fields."""
    counts = tuple(
        cellscan.FieldCount(field.name, len(field), int((field.labels == 1).sum()), field.cell_diameter)
        for field in found
    )
    return cellscan.SmearReport(
        red_cells=36, infected=9, apparent=0.25, parasitemia=0.2, interval=(0.1, 0.3), limit_of_detection=0.01,
        corrected=True, enough=False, minimum_cells=5000, per_microlitre=None, fields=counts, failed=found.failed,
        warnings=(f"Names such as {HOSTILE[0]} are odd.", "Not enough cells."), shown=found.fields,
    )  # fmt: skip


def make_study(cells: cellscan.CellDataset) -> cellscan.Study:
    """Return a study of two folds, of a classifier that was not trained."""
    names = cells.class_names
    clf = cellscan.Classifier(image_size=16, seed=0, class_names=names, positive_class=names[0])
    fold = (np.unique(cells.patients, return_inverse=True)[1] % 2).astype(np.int64)
    return cellscan.Study(cells, fold, (0,), (clf, clf), make_probabilities(cells)[None], "<by> hand", {"tta": False})


def make_maps(cells: cellscan.CellDataset) -> Explanations:
    """Return attribution maps made by hand."""
    y, x = np.mgrid[:64, :64] / 32 - 1
    heat = np.exp(-4 * (x**2 + y**2)).astype(np.float32)
    return Explanations(
        "gradcam",
        tuple(Explanation(heat, heat, 0, CLASSES[0], 1.0, 0.0, cell.image, cell.name) for cell in cells),
    )


def write_pages(folder: Path) -> list[Path]:
    """Write a page of every kind, and return the files."""
    cells, found = make_cells(), make_found()
    smear = make_smear(found)
    make_cell_report(cells).to_html(folder / "report.html", cells=cells, explain=make_maps)
    make_study(cells).to_html(folder / "study.html")
    make_issues(cells).to_html(folder / "label_issues.html")
    found.to_html(folder / "detections.html")
    smear.to_html(folder / "smear.html")
    none = dataclasses.replace(smear, parasitemia=None, interval=None, limit_of_detection=None, corrected=False)
    table = cellscan.SmearTable((HOSTILE[0], "b", "c"), (smear, none, None), {"c": f"refused: {HOSTILE[1]}"})
    table.to_html(folder / "smears.html")
    return sorted(folder.glob("*.html"))
