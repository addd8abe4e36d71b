"""Train a classifier for the cells of fields of other laboratories; a trial, which is not bundled.

    python benchmarks/fields_classifier.py --data FOLDER --folds folds.csv --weights FILE --out FOLDER

The folder in --data contains `cell_images`, `bccd` and `draaslan`, unpacked. FILE contains the ImageNet weights of
SqueezeNet 1.1; docs/backbones.md describes how to make it. The training images are

1. the NIH cells of all patients but those of fold 0, which measures the result;
2. crops of fields composed of these cells, of both classes, half of them in the colours of BCCD and draaslan, with
   platelets of BCCD pasted onto some of them;
3. healthy cells of the training fields of BCCD and draaslan: those which the bundled detector and classifier take for
   infected most, and some at random. Every style has infected cells too, those of 2.

An interrupted run continues when it is started again. `several_laboratories.py --classifier FILE` chooses thresholds
for the file `classifier.safetensors` in --out, and prints what it does on the fields.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accuracy import versions
from PIL import Image
from several_laboratories import CROP_SCALE, load

import cellscan

NETWORK, SIZE, EPOCHS = "squeezenet1_1", 96, 4
COMPOSED, CELLS_A_FIELD, INFECTED_SHARE = 800, 9, 0.4
HARD, RANDOM = 1000, 500
WITH_PLATELET = 0.15
CLASSES = ("parasitized", "uninfected")
LICENCE = (
    "MIT; fine-tuned from SqueezeNet weights under MIT on images of the NIH set (published by the U.S. National "
    "Library of Medicine for research), BCCD (MIT) and draaslan's Blood Cell Detection Dataset (MIT)"
)


def cut_out_platelets(fields: cellscan.FieldDataset) -> tuple[list[np.ndarray], float]:
    """Return the transmittances (side, side, 3) of platelets that lie alone, and the median cell diameter.

    Multiplied with a cell, they look like platelets on it. At the rim of a cut-out the transmittance is 1.
    """
    platelet, red = fields.class_names.index("Platelets"), fields.class_names.index("RBC")
    found: list[np.ndarray] = []
    sides: list[float] = []
    for field in fields:
        sizes = field.boxes[:, 2:] - field.boxes[:, :2]
        sides += np.sqrt(sizes[field.labels == red].prod(1)).tolist()
        for box, size in zip(field.boxes[field.labels == platelet], sizes[field.labels == platelet], strict=True):
            half = int(0.75 * size.max())
            x, y = ((box[:2] + box[2:]) / 2).astype(int).tolist()
            part = field.image[max(y - half, 0) : y + half, max(x - half, 0) : x + half].astype(np.float32)
            if half < 10 or part.shape != (2 * half, 2 * half, 3):
                continue
            across = np.linspace(-1, 1, 2 * half)
            distance = np.hypot(across, across[:, None])
            rim = part[(distance > 0.85) & (distance < 1.1)]
            background = np.percentile(rim, 75, 0)
            if (np.abs(rim - background).max(1) > 25).mean() > 0.08:  # It touches something.
                continue
            transmittance = np.clip(part / background, 0.05, 1)
            transmittance[transmittance > 0.96] = 1
            faded = np.clip((0.95 - distance) / 0.2, 0, 1)[..., None]
            found.append((1 - (1 - transmittance) * faded).astype(np.float32))
    return found, float(np.median(sides))


def paste(rng: np.random.Generator, cell: np.ndarray, platelets: list[np.ndarray], diameter: float) -> np.ndarray:
    """Return the crop of a cell with one of the platelets on it, which were cut out at this cell diameter."""
    drawn = platelets[int(rng.integers(len(platelets)))]
    drawn = np.rot90(drawn, int(rng.integers(4)))[:: int(rng.choice([-1, 1]))]
    height, width = cell.shape[:2]
    side = max(round(len(drawn) * np.sqrt(height * width) / diameter * np.exp(rng.normal(0, 0.25))), 5)
    resized = Image.fromarray((255 * drawn).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    stain = rng.uniform(0.6, 1.5) * np.exp(rng.normal(0, 0.15, 3))
    light = (np.asarray(resized) / 255) ** stain
    angle, distance = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 0.8)) / 2
    left = round(width * (0.5 + distance * np.cos(angle)) - side / 2)
    top = round(height * (0.5 + distance * np.sin(angle)) - side / 2)
    factor = np.ones(cell.shape)
    rows, columns = slice(max(top, 0), max(top + side, 0)), slice(max(left, 0), max(left + side, 0))
    window = factor[rows, columns]
    window *= light[max(-top, 0) :, max(-left, 0) :][: window.shape[0], : window.shape[1]]
    return (cell * factor).astype(np.uint8)


def make_composed(
    cells: cellscan.CellDataset, real: dict[str, cellscan.FieldDataset], data: Path
) -> Iterator[cellscan.CellDataset]:
    """Yield crops of composed fields, of both classes, with boxes of two sizes."""
    style = cellscan.concat(list(real.values()))
    lists = data / "bccd" / "ImageSets" / "Main"
    platelets, diameter = cut_out_platelets(cellscan.load_fields(lists / "train.txt"))
    for seed, (colours, scale) in enumerate([(None, 1.0), (None, CROP_SCALE), (style, 1.0), (style, CROP_SCALE)]):
        fields = cellscan.compose_fields(
            cells, COMPOSED // 4, cell_diameter=(60, 90), size=(540, 720), infected_share=INFECTED_SHARE,
            style=colours, seed=500 + seed,
        )  # fmt: skip
        crops = fields.crops(scale=scale, max_per_class=CELLS_A_FIELD, seed=seed)
        rng = np.random.default_rng(seed)
        images = [
            paste(rng, cell.image, platelets, diameter * scale) if rng.random() < WITH_PLATELET else cell.image
            for cell in crops
        ]
        labels = np.where(crops.labels == crops.class_names.index("infected"), 0, 1)
        names = [f"{seed}-{name}" for name in crops.names]
        yield cellscan.CellDataset.from_arrays(
            images, labels, class_names=CLASSES, patients=crops.patients, names=names
        )


def make_healthy(real: dict[str, cellscan.FieldDataset]) -> cellscan.CellDataset:
    """Return healthy cells that the bundled models take for infected most, in boxes of two sizes, and random ones."""
    det, clf = cellscan.Detector.pretrained(), cellscan.Classifier.pretrained()
    candidates: list[tuple[float, str, np.ndarray, np.ndarray]] = []
    for name, fields in real.items():
        for found in det.predict(fields, score_threshold=0.1):
            infected = found[found.labels == 1]
            if len(infected):
                small, whole = infected.crops(scale=CROP_SCALE), infected.crops()
                probability = clf.predict(small, progress=False).probabilities[:, clf.card.positive]
                both = np.clip([infected.scores, probability], 1e-6, 1 - 1e-6)
                for row, score in enumerate(np.log(both / (1 - both)).sum(0).tolist()):
                    candidates.append((score, f"{name} {found.name}", small[row].image, whole[row].image))
    candidates.sort(key=lambda candidate: -candidate[0])
    others = np.random.default_rng(0).choice(np.arange(HARD, len(candidates)), RANDOM, replace=False)
    rows = [(candidate[1], image) for candidate in candidates[:HARD] for image in candidate[2:]]
    rows += [(candidates[row][1], candidates[row][2]) for row in others]
    print(f"{len(rows)} healthy crops of {len(candidates)} candidates", flush=True)
    patients, images = zip(*rows, strict=True)
    names = [f"healthy_{number:05}" for number in range(len(rows))]
    return cellscan.CellDataset.from_arrays(
        images, np.ones(len(rows), int), class_names=CLASSES, patients=patients, names=names
    )


def main() -> None:
    """Train the classifier, or continue, and print what it does on fold 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--folds", "--weights", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    cells = cellscan.load_malaria(args.data / "cell_images")
    train, test = next(iter(cells.folds(args.folds)))
    real = {name: load(args.data, name)[0] for name in ("BCCD", "draaslan")}
    every = cellscan.concat([train, *make_composed(train, real, args.data), make_healthy(real)])
    print(every, flush=True)
    clf = cellscan.Classifier(NETWORK, weights=args.weights, image_size=SIZE, seed=0)
    clf.fit(every, epochs=args.epochs, checkpoint=args.out / "checkpoint", resume=True)
    report = clf.evaluate(test)
    print(report, flush=True)
    clf.save(args.out / "classifier.safetensors", report=report, licence=LICENCE, dtype="float16")
    print(versions())


if __name__ == "__main__":
    main()
