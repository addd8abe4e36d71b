"""Train one detector on several laboratories, with one laboratory left out.

    python benchmarks/several_laboratories.py --data FOLDER --out FOLDER [--leave-out IML] [--epochs 10 4]

The folder in --data contains `cell_images`, `iml_malaria`, `bccd`, `draaslan` and `chula_rbc12`, unpacked. Training
fields are mosaics of annotated fields, and fields composed of NIH cells, half of them in the colours of those fields.
Thresholds are chosen on validation fields of the laboratories in training and on half of Chula's fields. An interrupted
run continues when it is started again.

With --classifier, the joint threshold is chosen for the classifier in this file, such as that of fields_classifier.py.
Its images must not be among the fields that choose the thresholds.

With --leave-out all, the training fields are composed of NIH cells alone, in random colours, and the thresholds are
chosen on half of Chula's fields.

With --ship, the detector is written into the package. IML has to be left out: it states no licence, and those of the
other sets (NIH, BCCD, draaslan) permit this.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy import versions

import cellscan
from cellscan.data.shapes import IGNORED
from cellscan.detection.ground import find_ground, load_ndimage
from cellscan.evaluate.detection import evaluate_detections, whole_cells
from cellscan.tasks.detection import MIN_SCORE

CLASSES = ("red blood cell", "infected")
LABORATORIES = ("IML", "BCCD", "draaslan")
TARGET = Path(__file__).parents[1] / "src" / "cellscan" / "weights" / "fields_retinanet_small.safetensors"
LICENCE = (
    "MIT; trained on images of the NIH set (published by the U.S. National Library of Medicine for research), BCCD "
    "(MIT) and draaslan's Blood Cell Detection Dataset (MIT)"
)


SMALLEST_REST = 0.1
"""Part of the area of a median box that a cell without box has at least; smaller ones are edges of cells in boxes."""


def as_healthy(fields: cellscan.FieldDataset) -> cellscan.FieldDataset:
    """Return fields of people without malaria: red cells have boxes, white cells and platelets are background."""
    fields = fields.rename_classes({name: CLASSES[0] for name in fields.class_names if name.lower() == "rbc"})
    return fields.drop_classes([name for name in fields.class_names if name != CLASSES[0]]).add_classes([CLASSES[1]])


def ignore_cells_without_box(fields: cellscan.FieldDataset) -> cellscan.FieldDataset:
    """Return the fields with boxes to ignore around cells that have no box, which image analysis finds.

    Many red cells of BCCD have none. They are no background, but the empty places between the cells are.
    """
    images, ndimage = [field.image for field in fields], load_ndimage()
    boxes, labels = [], []
    for known, kinds, image in zip(fields.boxes, fields.labels, images, strict=True):
        ground = find_ground(image)
        rest = ground.cells.copy()
        for x0, y0, x1, y1 in np.rint(known * ground.factor).astype(int):
            rest[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
        smallest = SMALLEST_REST * np.median(np.prod(known[:, 2:] - known[:, :2], 1)) * ground.factor**2
        parts, _ = ndimage.label(ndimage.binary_opening(rest, iterations=2))
        areas = np.bincount(parts.ravel())[1:]
        found = [
            [place.start / ground.factor for place in where[::-1]]
            + [place.stop / ground.factor for place in where[::-1]]
            for where, area in zip(ndimage.find_objects(parts), areas, strict=True)
            if area > smallest
        ]
        boxes.append(np.concatenate([known, np.reshape(found, (-1, 4))]))
        labels.append(np.concatenate([kinds, np.full(len(found), IGNORED)]))
    return cellscan.FieldDataset.from_arrays(
        images, boxes, labels, class_names=fields.class_names, names=fields.names, laboratories=fields.laboratories
    )


def load(data: Path, name: str, background: bool = True) -> tuple[cellscan.FieldDataset, cellscan.FieldDataset]:
    """Return training and validation fields of a laboratory.

    Without `background`, every place of BCCD without a box is ignored, and not only its cells without a box.
    """
    if name == "IML":
        file = data / "iml_malaria" / "annotations.json"
        every = cellscan.load_fields(file, classes=cellscan.IML_TWO_CLASS, laboratory=name)
        train, valid, _ = every.split(validation=0.15, test=0.2, seed=0)
        return train, valid
    if name == "BCCD":
        lists = data / "bccd" / "ImageSets" / "Main"
        complete = None if background else ("WBC", "Platelets")
        train, valid = (
            cellscan.load_fields(lists / f"{part}.txt", complete=complete, laboratory=name) for part in ("train", "val")
        )
        if background:
            train, valid = ignore_cells_without_box(train), ignore_cells_without_box(valid)
        return as_healthy(train), as_healthy(valid)
    train, valid = as_healthy(cellscan.load_fields(data / "draaslan", laboratory=name)).split(test=0.2, seed=0)
    return train, valid


class Stage(NamedTuple):
    """A part of the training: number of composed fields, of mosaics of each laboratory, and how it is trained."""

    composed: int
    mosaics: int
    augment: str
    rate: float
    background: bool


STAGES = (Stage(900, 120, "small", 2e-3, False), Stage(600, 250, "strong", 1e-3, True))
"""The second stage has other colours and sizes, and more white cells and platelets, which only the mosaics have. It
also learns the background of BCCD, which the first one ignores; without that, cells are found in it."""

EPOCHS = [10, 4]
DIAMETERS, INFECTED_SHARE = (40.0, 60.0), 0.3

LARGEST_RATE = 0.0005
"""False infected cells per other cell, on the fields that choose the thresholds; half of what other fields may have."""

CROP_SCALE = 0.886
"""The classifier was trained on cells without background. A crop of this part of a box, the square root of pi / 4, has
the area of a round cell in the box, and shows little of what surrounds the cell."""


def make_training(names: list[str], data: Path, number: int) -> tuple[cellscan.FieldDataset, cellscan.FieldDataset]:
    """Return training and validation fields of all laboratories for a stage, with cells of about the same size."""
    stage = STAGES[number]
    parts = [load(data, name, stage.background) for name in names]
    cells = cellscan.load_malaria(data / "cell_images")
    groups = cells.split(test=0.15, by="patient", seed=0)
    found = []
    for part, patients in enumerate(groups):
        share, seed = (1, 10 * number) if part == 0 else (0.1, 1)
        real = [fields[part] for fields in parts]
        sets = [
            cellscan.mosaic_fields(fields, round(share * stage.mosaics), cell_diameter=DIAMETERS, margin=0.3, seed=seed)
            for fields in real
        ]
        styles = [None, cellscan.concat(real)] if real else [None]
        for colour, colours in enumerate(styles):
            sets.append(
                cellscan.compose_fields(
                    patients,
                    round(share * stage.composed / len(styles)),
                    cell_diameter=DIAMETERS,
                    infected_share=INFECTED_SHARE,
                    style=colours,
                    seed=2 * seed + colour,
                )
            )
        found.append(cellscan.concat(sets))
    return found[0], found[1]


def train(folder: Path, names: list[str], data: Path, epochs: list[int]) -> None:
    """Train in stages of a number of epochs each, and keep the detector."""
    det = cellscan.Detector("retinanet_small", image_size=(360, 480), class_names=CLASSES, seed=0)
    for number, stage in enumerate(STAGES):
        file = folder / f"stage-{number}.safetensors"
        if file.exists():
            det = cellscan.Detector.load(file)
            continue
        fields, valid = make_training(names, data, number)
        print(stage, fields, valid, sep="\n", flush=True)
        recipe = cellscan.Recipe(learning_rate=stage.rate, augment=stage.augment)
        history = det.fit(
            fields, validation=valid, epochs=epochs[number], batch_size=8, recipe=recipe,
            checkpoint=folder / f"checkpoint-{number}", resume=True,
        )  # fmt: skip
        print({name: [round(value, 4) for value in history[name]] for name in history}, flush=True)
        det.choose_threshold(valid, cell_diameter=None)
        print(f"{sum(history['seconds']) / 60:.1f} minutes\n{det.evaluate(valid, cell_diameter=None)}", flush=True)
        det.save(file, licence=LICENCE, dtype="float16")


def load_classifier(args: argparse.Namespace) -> cellscan.Classifier:
    """Return the classifier that decides together with the detector: the bundled one by default."""
    return cellscan.Classifier.pretrained() if args.classifier is None else cellscan.Classifier.load(args.classifier)


def choose(folder: Path, names: list[str], args: argparse.Namespace) -> None:
    """Choose the thresholds of the detector and its joint threshold with the classifier.

    That of red cells was chosen in training. The others are chosen on fields of healthy people that were not in
    training, with at most `LARGEST_RATE`: validation fields of BCCD and draaslan, and half of Chula's fields. Composed
    fields would not do, because some of their cells labelled as uninfected are infected.
    """
    det, clf = cellscan.Detector.load(folder / f"stage-{len(STAGES) - 1}.safetensors"), load_classifier(args)
    own = [load(args.data, name)[1] for name in names if name != "IML"]
    fields = cellscan.concat([*own, load_chula(args.data)[::2]])
    print(f"thresholds are chosen on {fields}", flush=True)
    source = ", ".join(["NIH", *names])
    det.choose_threshold(
        fields, classifier=clf, max_false_positive_rate=LARGEST_RATE, crop_scale=CROP_SCALE, source=source
    )
    print(det.card.detection, flush=True)
    if "IML" not in names:  # The error rates are those on a laboratory that was used for nothing else.
        det.measure_errors(test_fields(args.data, "IML"), classifier=clf, source="IML-Malaria")
    (first, *_) = [name for name in LABORATORIES if name not in names]
    report = det.evaluate(test_fields(args.data, first), classifier=clf)
    det.save(folder / "detector.safetensors", report=report, licence=LICENCE, dtype="float16")


def load_chula(data: Path) -> cellscan.FieldDataset:
    """Return Chula's fields, which have points and no malaria; many are annotated in part."""
    fields = cellscan.load_fields(data / "chula_rbc12" / "annotations.json", complete=[], laboratory="Chula")
    fields = fields.rename_classes({name: CLASSES[0] for name in fields.class_names})
    return fields.add_classes([CLASSES[1]])


def test_fields(data: Path, name: str) -> cellscan.FieldDataset:
    """Return the test fields of a laboratory; none of them is in training, even if the laboratory is."""
    if name == "IML":
        file = data / "iml_malaria" / "annotations.json"
        return cellscan.load_fields(file, classes=cellscan.IML_TWO_CLASS).split(validation=0.15, test=0.2, seed=0)[2]
    if name == "BCCD":
        fields = as_healthy(cellscan.load_fields(data / "bccd" / "ImageSets" / "Main" / "test.txt"))
        return fields[np.linspace(0, len(fields) - 1, 36).astype(int)]
    return load(data, "draaslan")[1]


def screen(images: Any, det: cellscan.Detector, clf: cellscan.Classifier) -> None:
    """Print what the detector calls infected, alone and with the classifier."""
    for classifier in (None, clf):
        smear = cellscan.screen(images, det, classifier=classifier, progress=False)
        who = "alone" if classifier is None else "with the classifier"
        print(f"{who}: {smear.infected} of {smear.red_cells} cells called infected ({smear.apparent:.3%})", flush=True)


def measure_whole(fields: cellscan.FieldDataset, det: cellscan.Detector) -> None:
    """Print the metrics of red cells that the border of the field does not cut, neither annotated nor detected ones."""
    found = det.predict(fields, score_threshold=MIN_SCORE, progress=False)
    assert det.card.detection is not None
    whole = [detections[~detections.cut] for detections in found]
    report = evaluate_detections(whole_cells(fields, found), whole, det.card.detection)
    ap50, precision, recall = report.ap50_per_class[0], report.precision_per_class[0], report.recall_per_class[0]
    print(f"red cells that no border cuts: AP50 {ap50:.3f}, precision {precision:.3f}, recall {recall:.3f}", flush=True)


def measure_chula(data: Path, det: cellscan.Detector, clf: cellscan.Classifier) -> None:
    """Print how many annotated points lie in a box, on those fields that were not used to choose thresholds."""
    fields = load_chula(data)[1::6]
    hits = total = 0
    for points, found in zip(fields.points, det.predict(fields, progress=False), strict=True):
        inside = (points[:, None] >= found.boxes[:, :2]) & (points[:, None] <= found.boxes[:, 2:])
        hits += int(inside.all(2).any(1).sum())
        total += len(points)
    print(f"\nChula, {len(fields)} fields: {hits} of {total} points lie in a box")
    screen(fields, det, clf)


def main() -> None:
    """Train the detector, or continue, and print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out", choices=(*LABORATORIES, "all"), default="IML")
    parser.add_argument("--epochs", type=int, nargs=len(STAGES), default=EPOCHS, help="of each stage")
    parser.add_argument("--classifier", type=Path, help="file of a classifier (default: the bundled one)")
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    if args.ship and args.classifier:
        parser.error("--ship with --classifier: the bundled detector is measured with the bundled classifier")
    if args.ship and args.leave_out != "IML":
        parser.error("--ship with another set than IML left out: the licence of IML-Malaria is not stated")
    folder = args.out / f"without-{args.leave_out}"
    folder.mkdir(exist_ok=True, parents=True)
    names = [name for name in LABORATORIES if args.leave_out not in (name, "all")]
    train(folder, names, args.data, args.epochs)
    if not (folder / "detector.safetensors").exists():
        choose(folder, names, args)
    det, clf = cellscan.Detector.load(folder / "detector.safetensors"), load_classifier(args)
    for name in LABORATORIES:
        kept = test_fields(args.data, name)
        print(f"\n{name}, {'test fields' if name in names else 'left out'}\n{det.evaluate(kept)}", flush=True)
        if name == "IML":
            print(f"with the classifier\n{det.evaluate(kept, classifier=clf)}", flush=True)
        measure_whole(kept, det)
        screen(kept, det, clf)
    measure_chula(args.data, det, clf)
    print(versions())
    if args.ship:
        shutil.copyfile(folder / "detector.safetensors", TARGET)


if __name__ == "__main__":
    main()
