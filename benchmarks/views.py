"""What a network is shown, and how it is trained: one study over the folds a row, at home and abroad.

    python benchmarks/views.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --table views
    python benchmarks/views.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --table options

Every row is `small_cnn` at 64 px. `views` sets views and augmentations side by side, `options` takes one option of
`Recipe` away or adds one. Rows are kept in --out; one that is there is not trained again.
"""

import json
import time
from pathlib import Path

import numpy as np
from accuracy import make_parser, read_suspects, versions
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


COLUMNS = (
    "accuracy | ROC AUC | undisputed | agreement with disputed: parasitized / uninfected | transfer AUC | "
    "called abroad: infected / healthy"
)
"""What `line` prints behind the title."""


def inside(cells: cellscan.CellDataset) -> cellscan.CellDataset:
    """Return the middle of every image, resized as the whole would be."""
    whole = round(64 / SHARE)
    start = (whole - 64) // 2
    middle = cells.images(whole)[:, start : start + 64, start : start + 64]
    return cellscan.CellDataset.from_arrays(
        middle, cells.labels, patients=cells.patients.tolist(), names=cells.names.tolist()
    )


def figures(
    study: cellscan.Study, disputed: np.ndarray, labels: np.ndarray, abroad: list[np.ndarray]
) -> dict[str, float]:
    """Return what a row says of a study; `abroad` is what each member says of the crops, whose labels are given."""
    from sklearn.metrics import roc_auc_score

    row = {}
    for name in ("accuracy", "roc_auc"):
        found = [getattr(report, name) for report in study.reports]
        row |= {name: float(np.mean(found)), f"{name}_sd": float(np.std(found, ddof=1))}
    clean = study.without(disputed).reports
    on_list = study.report.select(np.isin(study.cells.names, disputed))
    positive = np.stack(abroad)[:, :, 0]
    aucs = [float(roc_auc_score(labels == 0, member)) for member in positive]
    called = positive >= 0.5
    return row | {
        "undisputed": float(np.mean([report.accuracy for report in clean])),
        "disputed_parasitized": on_list.sensitivity,
        "disputed_uninfected": on_list.specificity,
        "transfer": float(np.mean(aucs)),
        "transfer_sd": float(np.std(aucs, ddof=1)),
        "infected_called": float(called[:, labels == 0].mean()),
        "healthy_called": float(called[:, labels == 1].mean()),
    }


def line(title: str, row: dict[str, float]) -> str:
    """Return a row of the table."""
    home = f"{row['accuracy']:.4f} ± {row['accuracy_sd']:.4f} | {row['roc_auc']:.4f} | {row['undisputed']:.4f}"
    disputes = f"{row['disputed_parasitized']:.2f} / {row['disputed_uninfected']:.2f}"
    abroad = f"{row['transfer']:.3f} ± {row['transfer_sd']:.3f}"
    called = f"{row['infected_called']:.2f} / {row['healthy_called']:.2f}"
    return f"| {title} | {home} | {disputes} | {abroad} | {called} |"


def main() -> None:
    """Train what is missing and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--table", choices=TABLES, default="views")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of rows")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("views_output"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    cells, crops = cellscan.load_malaria(args.data), crops_of(args.fields)
    disputed = read_suspects(args.suspects)
    rows = []
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
            shown = inside(crops) if middle else crops
            abroad = [clf.predict_proba(shown, progress=False) for clf in study.members]
            row = figures(study, disputed, shown.labels, abroad)
            log.write_text(json.dumps({**row, "seconds": spent}))
        row = json.loads(log.read_text())
        rows.append(line(title, row) + f" {row['seconds'] / 60:.1f} |")
        print(rows[-1], flush=True)
    print(f"\n| small_cnn, 64 px, {args.epochs} epochs, {args.seeds} seeds | {COLUMNS} | minutes |")
    print("|" + " --- |" * 8)
    print("\n".join(rows))
    print(f"\n{versions()}")


if __name__ == "__main__":
    main()
