"""Effect of the background, and of each option of the recipe: one cross-validation per row, with external validation.

    python benchmarks/backgrounds.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria
    python benchmarks/backgrounds.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria --table options

Every row trains `small_cnn` at 64 px. The default table, `backgrounds`, compares backgrounds and augmentations. The
table `options` removes or adds one option of `Recipe` per row. The last column is the difference in accuracy to the
first row, the default, in percentage points over all cells, with its interval by a paired bootstrap over patients. Rows
are stored in --out; a row that is already there is not trained again.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accuracy import fold_hash, make_parser, read_suspected_labels, slug, versions
from study import crops_of

import cellscan
from cellscan import Recipe

SHARE = 0.7
"""Side of the central crop, as a share of the side of the box."""

DEFAULT = ("default: random background", "fill", Recipe(), False)

# Title, background, recipe, whether the images are central crops.
TABLES = {
    "backgrounds": (
        DEFAULT,
        ("as stored", "keep", Recipe(background=None), False),
        ("as stored, strong colour", "keep", Recipe(background=None, augment="strong"), False),
        ("filled", "fill", Recipe(background=None), False),
        ("filled, strong colour", "fill", Recipe(background=None, augment="strong"), False),
        ("random background, no augmentation", "fill", Recipe(augment="none"), False),
        ("random background, strong colour", "fill", Recipe(augment="strong"), False),
        ("random background, crop inside", "fill", Recipe(), True),
        ("silhouettes alone", "silhouette", Recipe(background=None), False),
    ),
    "options": (
        DEFAULT,
        ("no average of weights", "fill", Recipe(ema=None), False),
        ("no label smoothing", "fill", Recipe(label_smoothing=0.0), False),
        ("no gradient clipping", "fill", Recipe(clip_norm=None), False),
        ("no weight decay", "fill", Recipe(weight_decay=0.0), False),
        ("cosine schedule", "fill", Recipe(schedule="cosine"), False),
        ("mixup 0.2", "fill", Recipe(mixup=0.2), False),
        ("classes balanced", "fill", Recipe(class_weight="balanced"), False),
        ("bfloat16", "fill", Recipe(dtype="bfloat16"), False),
    ),
}


COLUMNS = (
    "accuracy | ROC AUC | undisputed | agreement with disputed: parasitized / uninfected | external AUC | "
    "called on the external set: infected / healthy"
)
"""Headings of the columns that `line` prints after the title."""


def inside(cells: cellscan.CellDataset) -> cellscan.CellDataset:
    """Return the central crop of every image, at 64 px."""
    whole = round(64 / SHARE)
    start = (whole - 64) // 2
    middle = cells.images(whole)[:, start : start + 64, start : start + 64]
    return cellscan.CellDataset.from_arrays(
        middle, cells.labels, patients=cells.patients.tolist(), names=cells.names.tolist()
    )


def study_metrics(
    study: cellscan.Study, disputed: np.ndarray, labels: np.ndarray, external: Sequence[np.ndarray] | np.ndarray
) -> dict[str, float]:
    """Return the metrics of a study for a row; `external` holds the predictions of each member on the crops."""
    from sklearn.metrics import roc_auc_score

    row = {}
    for name in ("accuracy", "roc_auc"):
        found = [getattr(report, name) for report in study.reports]
        row |= {name: float(np.mean(found)), f"{name}_sd": float(np.std(found, ddof=1))}
    clean = study.without(disputed).reports
    called = study.probabilities[:, :, 0] >= 0.5
    on_list = np.isin(study.cells.names, disputed)
    first, second = (on_list & (study.cells.labels == label) for label in (0, 1))
    positive = np.asarray(external)[:, :, 0]
    aucs = [float(roc_auc_score(labels == 0, member)) for member in positive]
    called_external = positive >= 0.5
    return row | {
        "undisputed": float(np.mean([report.accuracy for report in clean])),
        "disputed_parasitized": float(called[:, first].mean()),
        "disputed_uninfected": float(1 - called[:, second].mean()),
        "external": float(np.mean(aucs)),
        "external_sd": float(np.std(aucs, ddof=1)),
        "infected_called": float(called_external[:, labels == 0].mean()),
        "healthy_called": float(called_external[:, labels == 1].mean()),
    }


def line(title: str, row: dict[str, float]) -> str:
    """Return a row of the table."""
    internal = f"{row['accuracy']:.4f} ± {row['accuracy_sd']:.4f} | {row['roc_auc']:.4f} | {row['undisputed']:.4f}"
    disputes = f"{row['disputed_parasitized']:.2f} / {row['disputed_uninfected']:.2f}"
    external = f"{row['external']:.3f} ± {row['external_sd']:.3f}"
    called = f"{row['infected_called']:.2f} / {row['healthy_called']:.2f}"
    return f"| {title} | {internal} | {disputes} | {external} | {called} |"


def points_gained(report: cellscan.Report, first: cellscan.Report) -> str:
    """Return the difference in accuracy in percentage points, and its paired interval over patients."""
    found = cellscan.compare(report, first)
    low, high = (100 * end for end in found.interval["accuracy"])
    return f"{100 * found.difference['accuracy']:+.2f} ({low:+.2f} to {high:+.2f})"


def report_of(cells: cellscan.CellDataset, folds: Path, file: Path) -> cellscan.Report:
    """Return the report of all cells from the stored probabilities of a row, (seeds, cells, 2)."""
    probabilities, fold = np.load(file), cells.fold_numbers(folds)
    members = (cellscan.Classifier("small_cnn"),) * (len(probabilities) * len(np.unique(fold)))
    seeds = tuple(range(len(probabilities)))
    return cellscan.Study(cells, fold, seeds, members, probabilities, "by patient", {"tta": False}).report


def main() -> None:
    """Train the rows that are missing, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--table", choices=TABLES, default="backgrounds")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of rows")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--in-turn", action="store_true", help="on an accelerator too, one member after the other")
    parser.add_argument("--out", type=Path, default=Path("backgrounds_output"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    cells = cellscan.load_malaria(args.data)
    disputed = read_suspected_labels(args.suspects)
    rows, first = [], None
    table = TABLES[args.table]
    for number in range(len(table)) if args.only is None else args.only:
        title, background, recipe, middle = table[number]
        log, kept = (args.out / f"{slug(title)}.{suffix}" for suffix in ("json", "npy"))
        if not log.exists():
            study = cellscan.cross_validate(
                "small_cnn",
                inside(cells) if middle else cells,
                folds=args.folds,
                seeds=args.seeds,
                epochs=args.epochs,
                background=background,
                recipe=recipe,
                vectorized=False if args.in_turn else None,
                checkpoint=args.out / slug(title),
                resume=True,
                progress=False,
            )
            np.save(kept, study.probabilities)
            crops = crops_of(args.fields)
            shown = inside(crops) if middle else crops
            external = [clf.predict_proba(shown, progress=False) for clf in study.members]
            log.write_text(json.dumps(study_metrics(study, disputed, shown.labels, external)))
        report, gain = report_of(cells, args.folds, kept), ""
        if number == 0:
            first = report
        elif first is not None:
            gain = points_gained(report, first)
        rows.append(f"{line(title, json.loads(log.read_text()))} {gain} |")
        print(rows[-1], flush=True)
    seeds = "one seed" if args.seeds == 1 else f"{args.seeds} seeds"
    print(f"\n| small_cnn, 64 px, {args.epochs} epochs, {seeds} | {COLUMNS} | points gained |")
    print("|" + " --- |" * 8)
    print("\n".join(rows))
    print(f"\n{versions()}, fold hash {fold_hash(cells, args.folds)}")


if __name__ == "__main__":
    main()
