"""Accuracy on the real cells: by patient and by cell, with and without the disputed cells, and abroad.

    python benchmarks/accuracy.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria

DATA is the publisher's archive or folder; the other three are optional. Every row trains `small_cnn`
by the default recipe and prints one table row; models and a log of rows go to --out, and a row that
is there already is not trained again.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import cellscan

# name, how the cells are divided, what the network sees, epochs
ROWS = (
    ("fold 0 by patient", "patient", "filled", 6),
    ("random 80/20 by cell", "cell", "filled", 6),
    ("silhouettes only, fold 0", "patient", "outline", 4),
    ("as stored, fold 0", "patient", "cell", 6),
)
INFECTED = ("ring", "trophozoite", "schizont", "gametocyte")


def field_crops(folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut infected cells, and at most twelve random red cells a field, out of the IML fields.

    Boxes are clipped to the frame; "difficult" ones and those under 20 px a side are left out.
    """
    crops, infected = [], []
    rng = np.random.default_rng(0)
    for entry in json.loads((folder / "annotations.json").read_text()):
        image = np.asarray(Image.open(folder / "images" / entry["image_name"]).convert("RGB"))
        boxes = []
        for thing in entry["objects"]:
            x, y, w, h = (float(thing["bbox"][key]) for key in ("x", "y", "w", "h"))
            left, top = max(int(x), 0), max(int(y), 0)
            right, bottom = min(int(x + w), image.shape[1]), min(int(y + h), image.shape[0])
            if right - left >= 20 and bottom - top >= 20:
                boxes.append((thing["type"], image[top:bottom, left:right]))
        red = [crop for kind, crop in boxes if kind == "red blood cell"]
        chosen = [red[i] for i in rng.permutation(len(red))[:12]]
        sick = [crop for kind, crop in boxes if kind in INFECTED]
        crops += sick + chosen
        infected += [True] * len(sick) + [False] * len(chosen)
    return crops, np.array(infected)


def measure(cells: cellscan.CellDataset, args: argparse.Namespace, by: str, view: str, epochs: int) -> dict[str, float]:
    """Train one row and return its figures."""
    from sklearn.metrics import roc_auc_score

    if by == "patient":
        train, test = next(iter(cells.folds(args.folds if args.folds else 5)))
    else:
        train, test = cells.split(0.2, by="cell", seed=0)
    clf = cellscan.Classifier("small_cnn", image_size=64, view=view, seed=0)
    start = time.monotonic()
    clf.fit(train, epochs=epochs)
    seconds = time.monotonic() - start
    report = clf.evaluate(test)
    print(report, flush=True)
    clf.save(args.out / f"{by}-{view}.safetensors", report=report)
    row: dict[str, float] = {"accuracy": report.accuracy, "roc_auc": report.roc_auc, "seconds": seconds}
    row["low"], row["high"] = report.interval["accuracy"]
    right = report.probabilities.argmax(1) == report.labels
    if args.suspects:
        disputed = np.isin(report.names, np.genfromtxt(args.suspects, str, delimiter=",", skip_header=1)[:, 0])
        row |= {"undisputed": float(right[~disputed].mean()), "disputed": float(right[disputed].mean())}
    if args.fields:
        crops, infected = field_crops(args.fields)
        p = clf.predict_proba(crops)[:, 0]
        row |= {"transfer_auc": float(roc_auc_score(infected, p))}
        row |= {
            "infected_called": float((p[infected] >= 0.5).mean()),
            "healthy_called": float((p[~infected] >= 0.5).mean()),
        }
        row |= {"crops_infected": int(infected.sum()), "crops_healthy": int((~infected).sum())}
    return row


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path)
    parser.add_argument("--suspects", type=Path)
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--out", type=Path, default=Path("accuracy_output"))
    parser.add_argument("--only", type=int, nargs="*", default=range(len(ROWS)), help="numbers of rows")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    cells = cellscan.load_malaria(args.data)
    print(cells)
    table = []
    for number in args.only:
        name, by, view, epochs = ROWS[number]
        log = args.out / f"{by}-{view}.json"
        if not log.exists():
            log.write_text(json.dumps(measure(cells, args, by, view, epochs)))
        row = json.loads(log.read_text())
        line = f"| {name} | {epochs} | {row['accuracy']:.4f} ({row['low']:.4f} to {row['high']:.4f}) |"
        line += f" {row['roc_auc']:.4f} |"
        line += f" {row.get('undisputed', float('nan')):.4f} | {row.get('disputed', float('nan')):.2f} |"
        line += f" {row.get('transfer_auc', float('nan')):.3f} |"
        line += f" {row.get('infected_called', float('nan')):.2f} / {row.get('healthy_called', float('nan')):.2f} |"
        table.append(line + f" {row['seconds'] / 60:.1f} |")
    print(
        "\n| small_cnn, 64 px | epochs | accuracy (95 % interval) | ROC AUC | undisputed | agreement with disputed",
        end="",
    )
    print(" | transfer AUC | called parasitized abroad: infected / healthy | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(table))
    print(
        f"\ncellscan {cellscan.__version__}, jax {jax.__version__}, {jax.devices()}, "
        f"Python {platform.python_version()}, {platform.machine()}"
    )


if __name__ == "__main__":
    main()
