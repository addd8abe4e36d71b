"""Cross-validation by patient: undisputed cells, patients, calibration, label issues and external validation.

    python benchmarks/study.py DATA --folds folds.csv --suspects suspects.csv --fields iml_malaria \
        --network tf_efficientnet_lite0 --weights FILE --size 112 --epochs 4 --tta

All results are stored in --out, and an interrupted run continues. No option was chosen by the printed results.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
from accuracy import field_crops, read_suspected_labels

import cellscan


@functools.cache
def crops_of(folder: Path) -> cellscan.CellDataset:
    """Cut the IML crops; the field of each crop is used as its patient."""
    crops, infected, fields = field_crops(folder)
    ids = [f"field {number}" for number in fields]
    return cellscan.CellDataset.from_arrays(crops, np.where(infected, 0, 1), patients=ids)


def means(study: cellscan.Study, *names: str) -> str:
    """Return mean and standard deviation of metrics over members, as text."""
    values = {name: [getattr(report, name) for report in study.reports] for name in names}
    return ", ".join(f"{name} {np.mean(v):.4f} (SD {np.std(v, ddof=1):.4f})" for name, v in values.items())


def main() -> None:
    """Run the study and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--suspects", type=Path, required=True)
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--network", default="small_cnn")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tta", action="store_true")
    parser.add_argument("--shuffle", action="store_true", help="the leak test: labels shuffled, which must score 0.5")
    parser.add_argument("--frozen", action="store_true", help="train the head alone, on features computed once")
    parser.add_argument("--part", type=int, help="train this fold alone and stop; one such process a fold may run")
    parser.add_argument("--out", type=Path, default=Path("study_output"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    cells = cellscan.load_malaria(args.data)
    if args.shuffle:
        from dataclasses import replace

        cells = replace(cells, labels=np.random.default_rng(0).permutation(cells.labels))
    frozen = cellscan.Recipe(freeze="backbone", augment="none", background=None)
    recipe = frozen if args.frozen else cellscan.Recipe()
    if args.part is not None:
        train, _ = list(cells.folds(args.folds))[args.part]
        for seed in range(args.seeds):
            clf = cellscan.Classifier(args.network, weights=args.weights, image_size=args.size, seed=seed)
            here = args.out / f"fold{args.part}-seed{seed}"
            clf.fit(train, epochs=args.epochs, recipe=recipe, checkpoint=here, resume=True)
        return
    study = cellscan.cross_validate(
        args.network,
        cells,
        folds=args.folds,
        seeds=args.seeds,
        epochs=args.epochs,
        image_size=args.size,
        weights=args.weights,
        recipe=recipe,
        tta=args.tta,
        checkpoint=args.out,
        resume=True,
    )
    print(study, flush=True)
    study.to_csv(args.out / "study.csv")
    if args.shuffle:
        return
    study.plot().savefig(args.out / "study.png", dpi=90)
    disputed = read_suspected_labels(args.suspects)
    print("\nwithout the disputed cells, means over folds:", means(study.without(disputed), "accuracy", "roc_auc"))
    on_list = study.report.select(np.isin(cells.names, disputed))
    print(
        f"agreement with disputed labels: parasitized {on_list.sensitivity:.3f}, uninfected {on_list.specificity:.3f} "
        f"of {len(on_list.labels):,} cells"
    )
    calibrated = study.calibrated()
    print(f"calibration error, temperatures from other folds: {means(calibrated, 'calibration_error')}")
    low, high = calibrated.report.interval["calibration_error"]
    print(f"  pooled {calibrated.report.calibration_error:.4f} ({low:.4f} to {high:.4f})")
    calibrated.report.plot().savefig(args.out / "report.png", dpi=90)
    print(f"\n{study.patients(specificity=0.9).summary()}")
    print(f"\nconformal sets: {calibrated.coverage(alpha=0.1)}")
    print(f"conformal sets: {calibrated.coverage(alpha=0.05)}")
    print(f"\n{study.report.at_prevalence(0.02)}")
    issues = study.label_issues()
    print(f"\n{issues}\nagainst the experts' list of {np.isin(cells.names, disputed).sum():,}: ", end="")
    print(issues.against(disputed))
    issues.to_csv(args.out / "label_issues.csv")
    issues.plot().savefig(args.out / "label_issues.png", dpi=90)
    if args.fields:
        print(f"\n{study.external_validation(crops_of(args.fields))}")


if __name__ == "__main__":
    main()
