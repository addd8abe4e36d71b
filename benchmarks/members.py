"""Vectorized training of the members of a study, compared with training in turn: seconds per epoch, all members.

    python benchmarks/members.py DATA --folds folds.csv --seeds 1 3

Both ways train the same networks on the same cells. The first epoch, which includes compilation, is reported
separately. One after another, one member per fold is trained; for several seeds, its time is multiplied by the number
of seeds.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from accuracy import versions

import cellscan
from cellscan.models.network import Network, weights_of
from cellscan.tasks.classification import ClassificationTask
from cellscan.tasks.programs import trained_by
from cellscan.training.devices import Examples
from cellscan.training.vectorized import run_vectorized


def at_once(cells: cellscan.CellDataset, fold: np.ndarray, seeds: int, args: argparse.Namespace) -> list[float]:
    """Return the seconds of each epoch of a vectorized training of all members."""
    keys = [(number, seed) for number in np.unique(fold) for seed in range(seeds)]
    members = [cellscan.Classifier(args.network, image_size=args.size, seed=seed).model for _, seed in keys]
    recipe = cellscan.Recipe(learning_rate=4e-3)
    task = trained_by(ClassificationTask(Network(members[0])), recipe)
    examples = Examples(cells.images(args.size), cells.labels)
    spent, start = [], time.monotonic()
    for _ in run_vectorized(
        task,
        [weights_of(model) for model in members],
        examples,
        [np.flatnonzero(fold != number) for number, _ in keys],
        [seed for _, seed in keys],
        recipe=recipe,
        epochs=args.epochs,
        batch_size=64,
        class_names=cells.class_names,
    ):
        spent.append(time.monotonic() - start)
        start = time.monotonic()
    return spent


def alone(cells: cellscan.CellDataset, fold: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """Return the seconds of each epoch, summed over one member per fold, trained one after another."""
    spent = np.zeros(args.epochs)
    for number in np.unique(fold):
        clf = cellscan.Classifier(args.network, image_size=args.size, seed=0)
        history = clf.fit(cells.select(fold != number), epochs=args.epochs, progress=False)
        spent += np.array(history["seconds"])
    return spent


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--network", default="small_cnn")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cells", type=int, help="only so many, for a machine that is slow")
    args = parser.parse_args()
    cells = cellscan.load_malaria(args.data)
    fold = cells.fold_numbers(args.folds)
    if args.cells:
        chosen = np.zeros(len(cells), bool)
        chosen[np.random.default_rng(0).permutation(len(cells))[: args.cells]] = True
        cells, fold = cells.select(chosen), fold[chosen]
    cells.images(args.size)  # Decode before the time measurement starts.
    print("| members | first epoch, vectorized / in turn, s | later epochs, vectorized / in turn, s | times as fast |")
    print("| --- | --- | --- | --- |")
    turn = alone(cells, fold, args)
    for seeds in args.seeds:
        one, other = at_once(cells, fold, seeds, args), seeds * turn
        later, turns = float(np.median(one[1:])), float(np.median(other[1:]))
        count = len(np.unique(fold)) * seeds
        print(
            f"| {count} | {one[0]:.1f} / {other[0]:.1f} | {later:.2f} / {turns:.2f} | {turns / later:.2f} |", flush=True
        )
    print(f"\n{args.network}, {args.size} px, batch 64, {len(cells):,} cells; {versions()}")


if __name__ == "__main__":
    main()
