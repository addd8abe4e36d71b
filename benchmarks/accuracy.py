"""Accuracy on the real cells: splits by patient and by cell, undisputed and disputed cells, and external fields.

    python benchmarks/accuracy.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria

DATA is the publisher's archive or folder; the other three arguments are optional. Every row of the table trains
`small_cnn` with the default recipe; some rows change the background. Models and a log of every row are written to
--out. A row that is already in --out is not trained again.
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
from cellscan.evaluate.calibration import expected_calibration_error

# Name, unit of the split, background, background in training, epochs.
ROWS = (
    ("fold 0 by patient, fixed background", "patient", "fill", None, 6),
    ("random 80/20 by cell, fixed background", "cell", "fill", None, 6),
    ("silhouettes only, fold 0", "patient", "silhouette", None, 4),
    ("as stored, fold 0", "patient", "keep", None, 6),
    ("fold 0 by patient, default recipe", "patient", "fill", "random", 6),
)
INFECTED = ("ring", "trophozoite", "schizont", "gametocyte")


def field_crops(folder: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Cut all infected cells, and at most twelve random red cells per field, out of the IML fields.

    Boxes are clipped to the image. Boxes that are labelled "difficult" or have a side below 20 px are left out.
    Returns the crops, whether each is infected, and the number of its field.
    """
    crops, infected, fields = [], [], []
    rng = np.random.default_rng(0)
    for number, entry in enumerate(json.loads((folder / "annotations.json").read_text())):
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
        fields += [number] * (len(sick) + len(chosen))
    return crops, np.array(infected), np.array(fields)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the cells, their folds, the disputed names and the external fields."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    for name in ("--folds", "--suspects", "--fields"):
        parser.add_argument(name, type=Path, required=True)
    return parser


def slug(title: str) -> str:
    """Return the title of a row in a form that is suitable as a file name."""
    return title.replace(": ", "-").replace(", ", "-").replace(" ", "-")


def read_suspected_labels(path: Path) -> np.ndarray:
    """Return the names of the cells whose labels experts dispute."""
    return np.genfromtxt(path, str, delimiter=",", skip_header=1)[:, 0]


def internal_metrics(report: cellscan.Report, suspects: Path | None) -> dict[str, float]:
    """Return the internal metrics, on all cells and on the undisputed cells."""
    row: dict[str, float] = {"accuracy": report.accuracy, "roc_auc": report.roc_auc}
    row["low"], row["high"] = report.interval["accuracy"]
    row["ece"] = expected_calibration_error(report.probabilities, report.labels)
    if suspects:
        right = (report.probabilities[:, 0] >= (report.threshold or 0.5)) == (report.labels == 0)
        disputed = np.isin(report.names, read_suspected_labels(suspects))
        row |= {"undisputed": float(right[~disputed].mean()), "disputed": float(right[disputed].mean())}
    return row


def external_metrics(clf: cellscan.Classifier, folder: Path | None) -> dict[str, float]:
    """Return the metrics on the external fields. The second half of the fields was never used to choose options."""
    from sklearn.metrics import roc_auc_score

    if not folder:
        return {}
    crops, infected, fields = field_crops(folder)
    p = clf.predict_proba(crops)[:, 0]
    called, first = p >= (clf.threshold or 0.5), fields < fields.max() / 2
    return {
        "external_auc": float(roc_auc_score(infected, p)),
        "external_auc_first_half": float(roc_auc_score(infected[first], p[first])),
        "external_auc_second_half": float(roc_auc_score(infected[~first], p[~first])),
        "infected_called": float(called[infected].mean()),
        "healthy_called": float(called[~infected].mean()),
        "crops_infected": int(infected.sum()),
        "crops_healthy": int((~infected).sum()),
    }


def measure(
    cells: cellscan.CellDataset, args: argparse.Namespace, by: str, background: str, varied: str | None, epochs: int
) -> dict[str, float]:
    """Train one row and return its metrics."""
    if by == "patient":
        train, test = next(iter(cells.folds(args.folds if args.folds else 5)))
    else:
        train, test = cells.split(test=0.2, by="cell", seed=0)
    clf = cellscan.Classifier("small_cnn", image_size=64, background=background, seed=0)
    start = time.monotonic()
    clf.fit(train, epochs=epochs, recipe=cellscan.Recipe(background=varied))
    seconds = time.monotonic() - start
    report = clf.evaluate(test)
    print(report, flush=True)
    clf.save(args.out / f"{by}-{background}-{varied}.safetensors", report=report)
    return {**internal_metrics(report, args.suspects), **external_metrics(clf, args.fields), "seconds": seconds}


def fold_hash(cells: cellscan.CellDataset, folds: Path) -> str:
    """Return the hash of the folds."""
    how = next(iter(cells.folds(folds)))[1].split_info
    return "unknown" if how is None else how.hash


def versions() -> str:
    """Return the versions and devices that a table was made with."""
    return (
        f"cellscan {cellscan.__version__}, jax {jax.__version__}, {jax.devices()}, "
        f"Python {platform.python_version()}, {platform.machine()}"
    )


def main() -> None:
    """Train the rows that are missing, and print the table."""
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
        name, by, background, varied, epochs = ROWS[number]
        log = args.out / f"{by}-{background}-{varied}.json"
        if not log.exists():
            log.write_text(json.dumps(measure(cells, args, by, background, varied, epochs)))
        row = json.loads(log.read_text())
        line = f"| {name} | {epochs} | {row['accuracy']:.4f} ({row['low']:.4f} to {row['high']:.4f}) |"
        line += f" {row['roc_auc']:.4f} |"
        line += f" {row.get('undisputed', float('nan')):.4f} | {row.get('disputed', float('nan')):.2f} |"
        line += f" {row.get('external_auc', float('nan')):.3f} |"
        line += f" {row.get('infected_called', float('nan')):.2f} / {row.get('healthy_called', float('nan')):.2f} |"
        table.append(line + f" {row['seconds'] / 60:.1f} |")
    print(
        "\n| small_cnn, 64 px | epochs | accuracy (95 % interval) | ROC AUC | undisputed | agreement with disputed",
        end="",
    )
    print(" | external AUC | called parasitized on the external set: infected / healthy | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(table))
    print(f"\n{versions()}")


if __name__ == "__main__":
    main()
