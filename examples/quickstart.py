"""Load cells, split them by patient, train and evaluate a classifier, predict, save it, and screen a few fields.

    python examples/quickstart.py                       synthetic cells, about two minutes on two cores
    python examples/quickstart.py cell_images.zip       the real cells, about 20 minutes
    python examples/quickstart.py --classify FOLDER     no training: classify your cells with the bundled model

Figures, predictions and the model are written to --out. Research use only, not a medical device.
"""

import argparse
from pathlib import Path

import cellscan


def classify(folder: str, out: Path) -> None:
    clf = cellscan.Classifier.pretrained()
    preds = clf.predict(folder, on_error="skip")
    for p in preds[:10]:
        print(f"{p.name}: {p.label_name}, probability {p.probability:.3f}")
    if len(preds) > 10:
        print(f"... and {len(preds) - 10:,} more")
    print(f"{sum(bool(p.positive) for p in preds):,} of {len(preds):,} cells called {clf.positive_class}")
    print(f"by {clf}, threshold {clf.threshold}; {len(preds.failed)} files could not be read")
    preds.to_csv(out / "predictions.csv")
    print(f"all of them: {out / 'predictions.csv'}\nResearch use only, not a medical device.")


def screen(out: Path) -> None:
    smear = cellscan.screen(cellscan.synthetic_fields(8, seed=2))
    print(f"\na smear of eight synthetic fields, by the bundled models:\n{smear}\n")
    smear.plot().savefig(out / "smear.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="the publisher's archive or folder; default: synthetic cells")
    parser.add_argument("--epochs", type=int, help="default: 5 on synthetic cells, 10 on real cells")
    parser.add_argument("--out", type=Path, default=Path("quickstart_output"))
    parser.add_argument("--classify", metavar="FOLDER", help="an image, or a folder of cropped cells")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.classify:
        return classify(args.classify, args.out)

    cells = cellscan.load_malaria(args.data) if args.data else cellscan.synthetic_cells(1500, seed=0)
    print(cells.describe())
    cells.plot(rows=2, columns=8).savefig(args.out / "cells.png", dpi=110)

    train, valid, test = cells.split(validation=0.1, test=0.2, by="patient", seed=0)
    clf = cellscan.Classifier("small_cnn", image_size=64, seed=0)
    clf.summary()
    history = clf.fit(train, validation=valid, epochs=args.epochs or (10 if args.data else 5))
    history.plot().savefig(args.out / "history.png", dpi=110)

    report = clf.evaluate(test)
    print(f"\n{report}\n")
    report.plot().savefig(args.out / "report.png", dpi=110)

    preds = clf.predict(test)
    preds.to_csv(args.out / "predictions.csv")
    p = preds[0]
    print(f"{p.name}: {p.label_name}, probability {p.probability:.3f}")

    clf.save(args.out / "model.safetensors", report=report)
    again = cellscan.Classifier.load(args.out / "model.safetensors")
    assert (again.predict_proba(test) == clf.predict_proba(test)).all()
    screen(args.out)
    print(f"saved to {args.out}: " + ", ".join(sorted(path.name for path in args.out.iterdir())))


if __name__ == "__main__":
    main()
