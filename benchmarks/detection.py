"""Detection on IML-Malaria and BCCD: average precision and counts.

    python benchmarks/detection.py --iml iml_malaria --out detection_output
    python benchmarks/detection.py --bccd bccd --out detection_output

IML-Malaria has no published split. Runs of up to twelve consecutive fields are assigned to training, validation or
test, with a fixed seed. BCCD has a published split. Thresholds are chosen on validation fields. An interrupted run
continues when it is started again. Each detector is stored as `detector.safetensors` in its folder in --out. That of
IML-Malaria is better on fields of this laboratory than the bundled one, and worse on those of others; the licence of
the set is not stated.
"""

import argparse
import time
from pathlib import Path

from accuracy import versions

import cellscan

LICENCE = "not stated: trained on IML-Malaria, whose images were given for research use"


def measure(name: str, parts: tuple[cellscan.FieldDataset, ...], args: argparse.Namespace) -> None:
    """Train on one set, and print its metrics."""
    train, valid, test = parts
    for part in parts:
        print(part)
    det = cellscan.Detector(
        args.network, weights=args.weights, image_size=tuple(args.size), class_names=train.class_names, seed=0
    )
    start = time.monotonic()
    recipe = cellscan.Recipe(learning_rate=args.rate, augment=args.augment)
    folder = args.out / f"{name}-{args.network}"
    history = det.fit(
        train,
        validation=valid,
        epochs=args.epochs,
        batch_size=args.batch,
        recipe=recipe,
        checkpoint=folder,
        resume=True,
    )
    clf = cellscan.Classifier.pretrained() if name == "IML-Malaria" else None
    det.choose_threshold(valid, classifier=clf, source=name)
    print(f"\n{name}, validation\n{det.evaluate(valid)}\n")
    report = det.evaluate(test)
    print(f"{name}, test\n{report}")
    if clf is not None:
        print(f"with the bundled classifier\n{det.evaluate(test, classifier=clf)}")
    print(f"{sum(history['seconds']) / 60:.1f} minutes of training; this process took {time.monotonic() - start:.0f} s")
    print(versions())
    report.plot().savefig(folder / "report.png", dpi=90)
    found = det.predict(test.select([0]))[0]
    found.plot().savefig(folder / "field.png", dpi=90)
    det.save(folder / "detector.safetensors", report=report, licence=LICENCE)


def main() -> None:
    """Train the detectors that are missing, and print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iml", type=Path)
    parser.add_argument("--bccd", type=Path)
    parser.add_argument("--network", default="retinanet_small")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--augment", default="small")
    parser.add_argument("--out", type=Path, default=Path("detection_output"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    if args.iml:
        fields = cellscan.load_fields(args.iml / "annotations.json", classes=cellscan.IML_TWO_CLASS)
        measure("IML-Malaria", fields.split(validation=0.15, test=0.2, seed=0), args)
    if args.bccd:
        lists = [args.bccd / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val", "test")]
        measure("BCCD", tuple(map(cellscan.load_fields, lists)), args)


if __name__ == "__main__":
    main()
