"""Transfer learning on the real cells, fold 0: pretrained weights, frozen or fine-tuned, and a network from scratch.

    python benchmarks/transfer.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria \
        --vgg16 FILE --lite0 FILE --squeezenet FILE

A FILE is a .safetensors file with ImageNet weights; rows without their file are left out. Frozen: the features of the
backbone are computed once for all cells, without augmentation, and the head alone is trained. Fine-tuned: all layers
are trained with the default recipe. No option was chosen by these results. Every row is stored in --out; a row that is
already there is not trained again, and an interrupted row continues.
"""

import argparse
import json
import time
from pathlib import Path

from accuracy import external_metrics, internal_metrics, versions

import cellscan

FROZEN = cellscan.Recipe(freeze="backbone", augment="none", background=None)
# Name, network, option with its weights, image size, epochs, recipe.
ROWS = (
    ("SqueezeNet 1.1, frozen", "squeezenet1_1", "squeezenet", 96, 20, FROZEN),
    ("EfficientNet-Lite0, frozen", "tf_efficientnet_lite0", "lite0", 112, 20, FROZEN),
    ("EfficientNet-Lite0, fine-tuned", "tf_efficientnet_lite0", "lite0", 112, 4, cellscan.Recipe()),
    ("SqueezeNet 1.1, fine-tuned", "squeezenet1_1", "squeezenet", 96, 4, cellscan.Recipe()),
    ("VGG16, frozen (the tutorials' way)", "vgg16", "vgg16", 64, 20, FROZEN),
    ("ResNet-18, from scratch", "resnet18", None, 64, 4, cellscan.Recipe()),
    ("VGG16, fine-tuned", "vgg16", "vgg16", 64, 1, cellscan.Recipe()),
)


def measure(number: int, cells: cellscan.CellDataset, args: argparse.Namespace) -> dict[str, float]:
    """Train one row and return its metrics."""
    _, network, option, size, epochs, recipe = ROWS[number]
    train, test = next(iter(cells.folds(args.folds)))
    weights = getattr(args, option) if option else None
    clf = cellscan.Classifier(network, weights=weights, image_size=size, seed=0)
    for part in (train, test):
        part.images(size)  # Decode before the time measurement starts.
    start = time.monotonic()
    clf.fit(train, epochs=epochs, recipe=recipe, checkpoint=args.out / f"row{number}", resume=True)
    seconds = time.monotonic() - start
    report = clf.evaluate(test)
    clf.save(args.out / f"row{number}.safetensors", report=report)
    row = {**internal_metrics(report, args.suspects), **external_metrics(clf, args.fields), "seconds": seconds}
    if args.tta:
        averaged = internal_metrics(clf.evaluate(test, tta=True), args.suspects)
        row |= {f"tta_{name}": value for name, value in averaged.items()}
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Train the rows that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--suspects", type=Path)
    parser.add_argument("--fields", type=Path)
    for option in ("vgg16", "lite0", "squeezenet"):
        parser.add_argument(f"--{option}", type=Path)
    parser.add_argument("--out", type=Path, default=Path("transfer_output"))
    parser.add_argument("--tta", action="store_true", help="evaluate once more with test-time augmentation")
    parser.add_argument("--only", type=int, nargs="*", default=range(len(ROWS)), help="numbers of rows")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    cells = cellscan.load_malaria(args.data)
    table = []
    for number in args.only:
        name, _, option, size, epochs, _ = ROWS[number]
        if option and not getattr(args, option):
            continue
        log = args.out / f"row{number}.json"
        if not log.exists():
            log.write_text(json.dumps(measure(number, cells, args)))
        row = json.loads(log.read_text())
        missing = float("nan")
        columns = [name, f"{size} px, {epochs}"]
        columns += [f"{row['accuracy']:.4f} ({row['low']:.4f} to {row['high']:.4f})", f"{row['roc_auc']:.4f}"]
        columns += [f"{row['tta_accuracy']:.4f} / {row['tta_roc_auc']:.4f}" if "tta_accuracy" in row else ""]
        columns += [f"{row.get('undisputed', missing):.4f}", f"{row.get('disputed', missing):.2f}"]
        columns += [f"{row.get('external_auc', missing):.3f}"]
        columns += [f"{row.get('infected_called', missing):.2f} / {row.get('healthy_called', missing):.2f}"]
        table.append(f"| {' | '.join(columns)} | {row['seconds'] / 60:.1f} |")
    print("\n| fold 0 | size, epochs | accuracy (95 % interval) | ROC AUC | both with tta | undisputed", end="")
    print(" | agreement with disputed | external AUC | called on the external set: infected / healthy | minutes |")
    print(f"|{' --- |' * 10}")
    print("\n".join(table))
    print(f"\n{versions()}")


if __name__ == "__main__":
    main()
