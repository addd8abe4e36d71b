"""Novelty by the bundled classifier: cells of new patients, cells of other laboratories, and images of other things.

    python benchmarks/novelty.py DATA --folds folds.csv --fields iml_malaria --bccd bccd
    python benchmarks/novelty.py DATA --folds folds.csv --fields iml_malaria --bccd bccd --within draaslan bccd
    python benchmarks/novelty.py DATA --folds folds.csv --fields iml_malaria --bccd bccd --ship

Novelty is fitted on the patients outside fold 0, so that the patients of fold 0 are new to it. The weights were trained
on all patients. With --ship, novelty is then fitted on all patients and written into the bundled file. With --within,
the script only prints how well outlier scores separate white cells and platelets from the red cells of the same set.
The script needs scikit-image.
"""

import argparse
from pathlib import Path

import numpy as np
from accuracy import versions
from PIL import Image
from pretrained import TARGET
from sklearn.metrics import roc_auc_score
from study import crops_of

import cellscan
from cellscan.data.images import read_rgb

PHOTOGRAPHS = (
    "astronaut", "camera", "cat", "coffee", "rocket", "coins", "page", "text", "grass", "gravel", "brick", "moon",
    "clock", "retina", "hubble_deep_field", "immunohistochemistry", "logo", "colorwheel",
)  # fmt: skip
CROPS = 30
"""Number of random square crops of each photograph, in addition to the whole photograph."""


def photographs(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return the photographs of scikit-image and scikit-learn, whole and as random square crops."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    whole = [getattr(skimage.data, name)() for name in PHOTOGRAPHS] + list(load_sample_images().images)
    found = []
    for image in (image[..., :3] if image.ndim == 3 else image for image in whole):
        found.append(read_rgb(image, size))
        for _ in range(CROPS):
            side = int(rng.uniform(0.15, 0.8) * min(image.shape[:2]))
            top, left = (int(rng.integers(0, length - side)) for length in image.shape[:2])
            found.append(read_rgb(image[top : top + side, left : left + side], size))
    return np.stack(found)


def turn_hue(images: np.ndarray, degrees: int) -> np.ndarray:
    """Rotate the hue of every pixel."""
    turned = []
    for image in images:
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).copy()
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(degrees / 360 * 256)) % 256
        turned.append(np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")))
    return np.stack(turned)


def measure_within(folder: Path) -> None:
    """Print the ROC AUC of novelty and of outlier scores against the red cells of one set."""
    crops = cellscan.load_fields(folder).crops(min_size=10)
    clf, names = cellscan.Classifier.pretrained(), np.array(crops.class_names)[crops.labels]
    novelty, scores = clf.predict(crops, progress=False).novelty, clf.outlier_scores(crops, progress=False)
    assert novelty is not None
    red = np.char.lower(names) == "rbc"
    for name in sorted(set(names[~red].tolist())):
        rows = red | (names == name)
        one, other = (roc_auc_score(names[rows] == name, values[rows]) for values in (novelty, scores))
        count = (names == name).sum()
        print(f"{folder.name}, {count} {name} of {len(crops)} cells: novelty {one:.3f}, outlier score {other:.3f}")


def main() -> None:
    """Print the table; with --ship, also update the bundled file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--bccd", type=Path, required=True)
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("--within", type=Path, nargs="*", default=())
    args = parser.parse_args()
    for folder in args.within:
        measure_within(folder)
    if args.within:
        print(versions())
        return
    cells = cellscan.load_malaria(args.data)
    fold = cells.fold_numbers(args.folds)
    clf = cellscan.Classifier.pretrained()
    clf.learn_novelty(cells.select(fold != 0), progress=False)
    print(clf.card.novelty)
    size, rng = clf.image_size, np.random.default_rng(0)
    internal = np.asarray(cells.select(fold == 0).images(size))
    iml = cellscan.load_fields(args.fields)
    bccd = cellscan.load_fields(args.bccd).crops(min_size=8)
    of = {name: np.asarray(bccd.select(bccd.labels == k).images(size)) for k, name in enumerate(bccd.class_names)}
    sets = {
        "cells of the 34 patients of fold 0": internal,
        "crops of IML's fields": np.asarray(crops_of(args.fields).images(size)),
        "BCCD, red blood cells": of["RBC"],
        "BCCD, white blood cells": of["WBC"],
        "BCCD, platelets": of["Platelets"],
        "IML's fields, whole": np.stack([read_rgb(field.image, size) for field in iml]),
        "photographs": photographs(rng, size),
        "noise": rng.integers(0, 256, (500, size, size, 3), dtype=np.uint8),
        "plain colours": np.broadcast_to(rng.integers(0, 256, (500, 1, 1, 3), dtype=np.uint8), (500, size, size, 3)),
        "fold 0, hue turned by 30 degrees": turn_hue(internal, 30),
        "fold 0, hue turned by 90 degrees": turn_hue(internal, 90),
    }
    print("\n| images | number | flagged | AUROC against fold 0 |\n| --- | --- | --- | --- |")
    familiar = None
    for name, images in sets.items():
        preds = clf.predict(images, progress=False)
        assert preds.novelty is not None
        assert preds.novel is not None
        if familiar is None:
            familiar, auroc = preds.novelty, ""
        else:
            truth = np.arange(len(familiar) + len(preds)) >= len(familiar)
            auroc = f"{roc_auc_score(truth, np.concatenate([familiar, preds.novelty])):.4f}"
        print(f"| {name} | {len(preds):,} | {preds.novel.mean():.4f} | {auroc} |", flush=True)
    print(f"\n{versions()}")
    if args.ship:
        clf.learn_novelty(cells, progress=False)
        clf.save(TARGET, dtype="float16")


if __name__ == "__main__":
    main()
