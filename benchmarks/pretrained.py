"""Train and evaluate the model that `cellscan.Classifier.pretrained()` loads.

    python benchmarks/pretrained.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --weights FILE

FILE contains the ImageNet weights of SqueezeNet 1.1; docs/backbones.md describes how to make it.

1. For each fold in --only: train without the patients of the fold and without a tenth of the other patients. The
   temperature is fitted on that tenth; the metrics are those of the fold.
2. Train on all patients with the same recipe, and set the mean temperature of the folds. The threshold is 0.5, at which
   the predicted label is the more probable one. A threshold chosen on so few validation patients varied more between
   folds than it improved the metrics.

The file is written to src/cellscan/weights in float16, with the metrics in its card. All results are stored in --out as
they are made, and an interrupted run continues when it is started again. The external fields are never used in
training.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from accuracy import external_metrics, internal_metrics, make_parser, versions

import cellscan
from cellscan import card as cards

NETWORK, SIZE, EPOCHS = "squeezenet1_1", 96, 4
LICENCE = "Apache-2.0, fine-tuned from SqueezeNet weights under MIT (see NOTICE)"
TARGET = Path(__file__).parents[1] / "src" / "cellscan" / "weights" / "malaria_squeezenet.safetensors"


def make(args: argparse.Namespace) -> cellscan.Classifier:
    """Create the classifier before training."""
    return cellscan.Classifier(NETWORK, weights=args.weights, image_size=SIZE, seed=0)


def measure(number: int, cells: cellscan.CellDataset, args: argparse.Namespace) -> dict[str, float]:
    """Train without one fold and return the metrics on it."""
    train, test = list(cells.folds(args.folds))[number]
    train, valid = train.split(test=0.1, seed=0)
    clf = make(args)
    clf.fit(train, epochs=args.epochs, checkpoint=args.out / f"fold{number}", resume=True)
    before = internal_metrics(clf.evaluate(test), None)["ece"]
    row: dict[str, float] = {"temperature": clf.calibrate(valid), "ece_before_temperature": before}
    report = clf.evaluate(test)
    print(report, flush=True)
    row |= internal_metrics(report, args.suspects) | external_metrics(clf, args.fields)
    row |= {"sensitivity": report.sensitivity, "specificity": report.specificity}
    again = internal_metrics(clf.evaluate(test, tta=True), args.suspects)
    row |= {f"{name}_tta": again[name] for name in ("accuracy", "roc_auc", "undisputed")}
    clf.save(args.out / f"fold{number}.safetensors", report=report)
    return row


def main() -> None:
    """Train the folds that are missing, write the file, and print the metrics."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("pretrained_output"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--only", type=int, nargs="*", default=range(5), help="numbers of folds")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    cells = cellscan.load_malaria(args.data)
    rows = {}
    for number in args.only:
        log = args.out / f"fold{number}.json"
        if not log.exists():
            log.write_text(json.dumps(measure(number, cells, args)))
        rows[number] = json.loads(log.read_text())
        print(f"fold {number}: {json.dumps(rows[number])}", flush=True)
    mean = {name: float(np.mean([row[name] for row in rows.values()])) for name in rows[args.only[0]]}

    final = make(args)
    final.fit(cells, epochs=args.epochs, checkpoint=args.out / "final", resume=True)
    final.save(args.out / "final.safetensors", licence=LICENCE, dtype="float16")
    card, tensors = cards.read(args.out / "final.safetensors")
    card = replace(
        card,
        decision=replace(card.decision, temperature=mean["temperature"]),
        metrics={
            **card.metrics,
            "folds": {str(number): row for number, row in rows.items()},
            "note": "each fold was measured by a network that saw none of its patients, trained by the same recipe; "
            "these weights were then trained on all 170 patients. The temperature is the folds'.",
        },
    )
    TARGET.parent.mkdir(exist_ok=True)
    cards.write(TARGET, card, tensors)
    print(f"final, on the fields: {json.dumps(external_metrics(cellscan.Classifier.load(TARGET), args.fields))}")
    print(f"{TARGET.name}: {os.path.getsize(TARGET):,} bytes")
    print(versions())


if __name__ == "__main__":
    main()
