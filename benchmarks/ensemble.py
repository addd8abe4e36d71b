"""Cross-validation of networks trained with and without label issues, alone and as an ensemble.

    python benchmarks/ensemble.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria \
        --squeezenet squeezenet1_1.safetensors --lite0 tf_efficientnet_lite0.safetensors --only 0 3

The label issues of a fold are found among its training patients alone. A logistic regression on the features of two
pretrained backbones predicts every group of these patients without training on it, and confident learning selects the
label issues. The experts' list is used for evaluation only. The predictions of each network are stored in --out, and an
interrupted training continues. With two or more rows, the last row averages their probabilities, and a line counts the
undisputed labels that all of them contradict. Points gained are relative to the first row, with the interval of a
paired bootstrap over patients.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import fold_hash, make_parser, read_suspected_labels, slug, versions
from backgrounds import COLUMNS, line, points_gained, study_metrics
from study import crops_of

import cellscan
from cellscan.evaluate.confident import find_contradicted
from cellscan.tensors import read_tensors, write_tensors

STRENGTH = 1e-3
"""Inverse of the penalty of the logistic regression, chosen from 1e-3 and 1e-2 on the training patients of fold 1."""


@dataclass(frozen=True)
class Row:
    """A network and its training options."""

    title: str
    network: str
    size: int
    epochs: int
    tta: bool
    pruned: bool


ROWS = (
    Row("small_cnn", "small_cnn", 64, 10, False, False),
    Row("small_cnn, label issues left out", "small_cnn", 64, 10, False, True),
    Row("EfficientNet-Lite0", "tf_efficientnet_lite0", 112, 4, True, False),
    Row("EfficientNet-Lite0, label issues left out", "tf_efficientnet_lite0", 112, 4, True, True),
    Row("SqueezeNet 1.1", "squeezenet1_1", 96, 4, False, False),
)


def embeddings(cells: cellscan.CellDataset, args: argparse.Namespace) -> np.ndarray:
    """Return the concatenated features of both pretrained backbones."""
    networks = (("squeezenet1_1", args.squeezenet, 96), ("tf_efficientnet_lite0", args.lite0, 112))
    return np.hstack([cellscan.Classifier(n, weights=w, image_size=size).embed(cells) for n, w, size in networks])


def label_issues_of(
    cells: cellscan.CellDataset, disputed: np.ndarray, args: argparse.Namespace
) -> dict[int, np.ndarray]:
    """Return for every fold the names of the cells with label issues among the other folds' patients, worst first."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, fold, found = embeddings(cells, args), cells.fold_numbers(args.folds), {}
    for number in np.unique(fold).tolist():
        rest = np.flatnonzero(fold != number)
        probabilities = np.asarray(
            cross_val_predict(
                make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=200)),
                features[rest],
                cells.labels[rest],
                groups=fold[rest],
                cv=LeaveOneGroupOut(),
                method="predict_proba",
            )
        )
        right = (probabilities.argmax(1) == cells.labels[rest]).mean()
        found[number] = cells.names[rest[find_contradicted(cells.labels[rest], probabilities)]]
        listed = np.isin(found[number], disputed).mean()
        print(f"fold {number}: {len(found[number])} label issues in {len(rest):,} cells to train on; ", end="")
        print(f"{listed:.2f} of them on the experts' list; features alone {right:.4f} accurate", flush=True)
    return found


def predict(
    row: Row,
    cells: cellscan.CellDataset,
    issues: dict[int, np.ndarray],
    crops: cellscan.CellDataset,
    args: argparse.Namespace,
) -> tuple[cellscan.Study, np.ndarray]:
    """Return the study of a row, and the predictions of each member on the crops."""
    fold, place = cells.fold_numbers(args.folds), args.out / slug(row.title)
    weights = {"small_cnn": None, "tf_efficientnet_lite0": args.lite0, "squeezenet1_1": args.squeezenet}[row.network]
    probabilities = np.zeros((args.seeds, len(cells), len(cells.class_names)), np.float32)
    predicted = {}
    for seed in range(args.seeds):
        for number, (train, test) in enumerate(cells.folds(args.folds)):
            if row.pruned:
                train = train.without(issues[number])
            clf = cellscan.Classifier(row.network, weights=weights, image_size=row.size, seed=seed)
            here = place / f"fold{number}-seed{seed}"
            file = here / "answers.safetensors"
            if not file.exists():
                clf.fit(train, epochs=row.epochs, checkpoint=here, resume=True, progress=False)
                parts = {"internal": test, "external": crops}
                answers = {name: clf.predict_proba(part, tta=row.tta, progress=False) for name, part in parts.items()}
                write_tensors(file, answers, {})
            _, answers = read_tensors(file)
            probabilities[seed, fold == number] = answers["internal"]
            predicted[number, seed] = clf, answers["external"]
            print(f"{row.title}, fold {number}, seed {seed}: predicted", flush=True)
    members, external = zip(*(predicted[key] for key in sorted(predicted)), strict=True)
    options = {"tta": row.tta}
    study = cellscan.Study(cells, fold, tuple(range(args.seeds)), members, probabilities, "by patient", options)
    return study, np.stack(external)


def averaged(studies: list[cellscan.Study], external: list[np.ndarray]) -> tuple[cellscan.Study, np.ndarray]:
    """Average the predictions over seeds and rows; return the study and the predictions on the external set."""
    first = studies[0]
    mean = np.mean([study.probabilities.mean(0, keepdims=True) for study in studies], axis=0)
    members = first.members[:: len(first.seeds)]
    study = cellscan.Study(first.cells, first.fold, (0,), members, mean, "by patient", {"tta": False})
    folds = len(members)
    return study, np.mean([part.reshape(folds, -1, *part.shape[1:]).mean(1) for part in external], axis=0)


def main() -> None:
    """Train the rows that are missing, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--squeezenet", type=Path, required=True)
    parser.add_argument("--lite0", type=Path, required=True)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(ROWS)), help="numbers of rows")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("ensemble_output"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    cells, crops = cellscan.load_malaria(args.data), crops_of(args.fields)
    disputed = read_suspected_labels(args.suspects)
    issues = label_issues_of(cells, disputed, args) if any(ROWS[number].pruned for number in args.only) else {}
    rows, predicted = [], []

    def add_row(title: str, study: cellscan.Study, external: np.ndarray) -> None:
        gain = points_gained(study.report, predicted[0][0].report) if rows else ""
        rows.append(f"{line(title, study_metrics(study, disputed, crops.labels, external))} {gain} |")
        print(rows[-1], flush=True)

    for number in args.only:
        predicted.append(predict(ROWS[number], cells, issues, crops, args))
        add_row(ROWS[number].title, *predicted[-1])
        if args.seeds > 1:
            add_row(
                f"{ROWS[number].title}, average of {args.seeds} seeds", *averaged(*([one] for one in predicted[-1]))
            )
    if len(predicted) > 1:
        studies, external = (list(part) for part in zip(*predicted, strict=True))
        add_row("average of all of these", *averaged(studies, external))
        clean = ~np.isin(cells.names, disputed)
        wrong = np.all([one.report.predicted != cells.labels for one in studies], axis=0) & clean
        share = 1 - wrong.sum() / clean.sum()
        print(f"undisputed labels that every row contradicts: {wrong.sum()} of {clean.sum():,}; ", end="")
        print(f"no choice among the rows exceeds an accuracy of {share:.4f} there")
    seeds = "one seed" if args.seeds == 1 else f"{args.seeds} seeds"
    print(f"\n| five folds, {seeds} | {COLUMNS} | points gained |")
    print("|" + " --- |" * 8)
    print("\n".join(rows))
    print(f"\n{versions()}, fold hash {fold_hash(cells, args.folds)}")


if __name__ == "__main__":
    main()
