"""What a network is shown, and how it is trained: one study over the folds a row, at home and abroad.

    python benchmarks/views.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --table views
    python benchmarks/views.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --table options
    python benchmarks/views.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --table pruned

Every row is `small_cnn` at 64 px. `views` sets views and augmentations side by side, `options` takes one option of
`Recipe` away or adds one, `pruned` leaves out training cells whose label is contradicted by networks that saw neither
the fold nor the cell's patient. Rows are kept in --out; one that is there is not trained again.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from accuracy import read_suspects, versions
from study import crops_of

import cellscan
from cellscan import Recipe

SHARE = 0.7
"""Side of the crop inside, of the box's side."""

TABLES = {
    "views": (
        ("as stored", "cell", Recipe(surround="view"), False),
        ("as stored, strong colour", "cell", Recipe(surround="view", augment="strong"), False),
        ("filled", "filled", Recipe(surround="view"), False),
        ("filled, strong colour", "filled", Recipe(surround="view", augment="strong"), False),
        ("surround varied, no augmentation", "filled", Recipe(augment="none"), False),
        ("surround varied (default)", "filled", Recipe(), False),
        ("surround varied, strong colour", "filled", Recipe(augment="strong"), False),
        ("surround varied, crop inside", "filled", Recipe(), True),
        ("silhouettes alone", "outline", Recipe(surround="view"), False),
    ),
    "options": (
        ("default", "filled", Recipe(), False),
        ("no average of weights", "filled", Recipe(ema=None), False),
        ("no label smoothing", "filled", Recipe(label_smoothing=0.0), False),
        ("no gradient clipping", "filled", Recipe(clip_norm=None), False),
        ("no weight decay", "filled", Recipe(weight_decay=0.0), False),
        ("cosine schedule", "filled", Recipe(schedule="cosine"), False),
        ("mixup 0.2", "filled", Recipe(mixup=0.2), False),
        ("classes balanced", "filled", Recipe(class_weight="balanced"), False),
        ("bfloat16", "filled", Recipe(dtype="bfloat16"), False),
    ),
}


def inside(cells: cellscan.CellDataset) -> cellscan.CellDataset:
    """Return the middle of every image, resized as the whole would be."""
    whole = round(64 / SHARE)
    start = (whole - 64) // 2
    middle = cells.images(whole)[:, start : start + 64, start : start + 64]
    return cellscan.CellDataset.from_arrays(
        middle, cells.labels, patients=cells.patients.tolist(), names=cells.names.tolist()
    )


def figures(study: cellscan.Study, disputed: np.ndarray, crops: cellscan.CellDataset) -> dict[str, float]:
    """Return what a row says of a study."""
    row = {}
    for name in ("accuracy", "roc_auc"):
        found = [getattr(report, name) for report in study.reports]
        row |= {name: float(np.mean(found)), f"{name}_sd": float(np.std(found, ddof=1))}
    clean = [report.accuracy for report in study.without(disputed).reports]
    on_list = study.report.select(np.isin(study.cells.names, disputed))
    abroad = study.transfer(crops, progress=False)
    aucs = [report.roc_auc for report in abroad.reports]
    return row | {
        "undisputed": float(np.mean(clean)),
        "disputed_parasitized": on_list.sensitivity,
        "disputed_uninfected": on_list.specificity,
        "transfer": abroad.mean["roc_auc"],
        "transfer_sd": float(np.std(aucs, ddof=1)),
        "infected_called": abroad.mean["sensitivity"],
        "healthy_called": 1 - abroad.mean["specificity"],
    }


def line(title: str, row: dict[str, float]) -> str:
    """Return a row of the table."""
    home = f"{row['accuracy']:.4f} ± {row['accuracy_sd']:.4f} | {row['roc_auc']:.4f} | {row['undisputed']:.4f}"
    disputes = f"{row['disputed_parasitized']:.2f} / {row['disputed_uninfected']:.2f}"
    abroad = f"{row['transfer']:.3f} ± {row['transfer_sd']:.3f}"
    called = f"{row['infected_called']:.2f} / {row['healthy_called']:.2f}"
    return f"| {title} | {home} | {disputes} | {abroad} | {called} |"


def suspected(cells: cellscan.CellDataset, fold: np.ndarray, number: int, args: argparse.Namespace) -> np.ndarray:
    """Return the names of suspects among the patients outside a fold, by networks that saw neither."""
    rest = cells.select(fold != number)
    owners = dict(zip(cells.patients.tolist(), fold.tolist(), strict=True))
    inner = args.out / f"folds-without-{number}.csv"
    lines = [f"{name},{owners[name]}" for name in sorted(set(rest.patients.tolist()))]
    inner.write_text("patient,fold\n" + "\n".join(lines) + "\n")
    study = cellscan.cross_validate("small_cnn", rest, folds=inner, epochs=args.epochs, progress=False)
    return rest.names[study.suspects().rows]


def pruned(
    cells: cellscan.CellDataset, disputed: np.ndarray, crops: cellscan.CellDataset, args: argparse.Namespace
) -> list[str]:
    """Train with and without the suspects of each fold's training patients, and return the rows."""
    fold = cells.fold_numbers(args.folds)
    log = args.out / "suspects.json"
    if not log.exists():
        found = {str(number): suspected(cells, fold, number, args).tolist() for number in np.unique(fold)}
        log.write_text(json.dumps(found))
    found = json.loads(log.read_text())
    rows = []
    for title, share in (
        ("suspects kept", 0.0),
        ("worst half of the suspects left out", 0.5),
        ("suspects left out", 1.0),
    ):
        path = args.out / f"pruned-{share}.json"
        if not path.exists():
            members, probabilities = [], np.zeros((1, len(cells), 2), np.float32)
            for number in np.unique(fold):
                names = found[str(number)]
                out = np.isin(cells.names, names[: round(share * len(names))])
                clf = cellscan.Classifier("small_cnn", image_size=64, seed=0)
                clf.fit(cells.select((fold != number) & ~out), epochs=args.epochs, progress=False)
                probabilities[0, fold == number] = clf.predict_proba(cells.select(fold == number), progress=False)
                members.append(clf)
            study = cellscan.Study(cells, fold, (0,), tuple(members), probabilities, "by patient", {"tta": False})
            path.write_text(json.dumps(figures(study, disputed, crops)))
        count = np.mean([len(names) * share for names in found.values()])
        rows.append(line(f"{title} ({count:,.0f} a fold)", json.loads(path.read_text())) + " |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--suspects", type=Path, required=True)
    parser.add_argument("--fields", type=Path, required=True)
    parser.add_argument("--table", choices=(*TABLES, "pruned"), default="views")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of rows")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("views_output"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    cells, crops = cellscan.load_malaria(args.data), crops_of(args.fields)
    disputed = read_suspects(args.suspects)
    rows = []
    if args.table == "pruned":
        rows = pruned(cells, disputed, crops, args)
    else:
        table = TABLES[args.table]
        for number in range(len(table)) if args.only is None else args.only:
            title, view, recipe, middle = table[number]
            log = args.out / f"{args.table}-{number}.json"
            if not log.exists():
                start = time.monotonic()
                study = cellscan.cross_validate(
                    "small_cnn",
                    inside(cells) if middle else cells,
                    folds=args.folds,
                    seeds=args.seeds,
                    epochs=args.epochs,
                    view=view,
                    recipe=recipe,
                    checkpoint=args.out / f"{args.table}-{number}",
                    resume=True,
                    progress=False,
                )
                spent = time.monotonic() - start
                row = figures(study, disputed, inside(crops) if middle else crops)
                log.write_text(json.dumps({**row, "seconds": spent}))
            row = json.loads(log.read_text())
            rows.append(line(title, row) + f" {row['seconds'] / 60:.1f} |")
            print(rows[-1], flush=True)
    print(f"\n| small_cnn, 64 px, {args.epochs} epochs, {args.seeds} seeds | accuracy | ROC AUC | undisputed ", end="")
    print("| agreement with disputed: parasitized / uninfected | transfer AUC | ", end="")
    print("called abroad: infected / healthy | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows))
    print(f"\n{versions()}")


if __name__ == "__main__":
    main()
