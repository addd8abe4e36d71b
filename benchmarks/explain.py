"""Quality of explanation maps: the pointing game, completeness, and a test with randomised weights.

    python benchmarks/explain.py

The cells are synthetic, because their parasites have masks. `small_cnn` is trained on 3,000 of them at 64 px, for six
epochs.
"""

import time

import numpy as np
from accuracy import versions
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

import cellscan
from cellscan.data.images import read_rgb
from cellscan.explain import METHODS

GRACE = 3
"""Largest distance in pixels between the maximum of a map and the parasite that counts as a hit."""

PARTS = ("head", "stage4", "stage3", "stage2", "stage1", "stem_norm", "stem")


def near(cells: cellscan.CellDataset) -> list[np.ndarray]:
    """Return one mask per cell: the pixels where the maximum of a map counts as a hit."""
    assert cells.masks is not None
    return [np.asarray(distance_transform_edt(~mask)) <= GRACE for mask in cells.masks]


def randomised(clf: cellscan.Classifier) -> list[tuple[str, cellscan.Classifier]]:
    """Return classifiers with random weights in more and more parts of the network, from the head down."""
    fresh = cellscan.Classifier("small_cnn", seed=9)
    weights = {kind: dict(leaves) for kind, leaves in clf._members[0].items()}
    found = []
    for part in PARTS:
        drawn = {name: leaf for name, leaf in fresh._members[0]["params"].items() if name.split(".")[0] == part}
        weights = {**weights, "params": {**weights["params"], **drawn}}
        found.append((part, cellscan.Classifier._with(clf._task.network, (weights,), clf.card)))
    return found


def main() -> None:
    """Train, explain, and print two tables."""
    clf = cellscan.Classifier("small_cnn", seed=0)
    clf.fit(cellscan.synthetic_cells(3000, seed=1, progress=False), epochs=6, progress=False)
    cells = cellscan.synthetic_cells(400, seed=2, progress=False)
    called = clf.predict(cells, progress=False).labels
    right = cells.select(np.flatnonzero((cells.labels == 0) & (called == 0)))
    allowed = near(right)
    chance = np.mean([m.sum() / c.image.any(-1).sum() for m, c in zip(allowed, right, strict=True)])
    print(f"{len(right)} parasitized cells called right of {(cells.labels == 0).sum()}")
    print("\n| method | on the parasite | completeness: median error, worst | ms a cell |\n| --- | --- | --- | --- |")
    for method in METHODS:
        clf.explain(right.select([0]), method=method, progress=False)
        start = time.perf_counter()
        found = clf.explain(right, method=method, progress=False)
        spent = (time.perf_counter() - start) / len(right) * 1000
        hits = [m[np.unravel_index(w.map.argmax(), w.map.shape)] for w, m in zip(found, allowed, strict=True)]
        off = [abs(w.values.sum() - (w.output - w.baseline)) / abs(w.output - w.baseline) for w in found]
        whole = f"{np.median(off):.4f}, {np.max(off):.4f}" if method == "integrated_gradients" else ""
        print(f"| {method} | {np.mean(hits):.3f} | {whole} | {spent:.1f} |", flush=True)
    print(f"| a point of the cell at random | {chance:.3f} | | |")
    few = right.select(range(40))
    inside = [read_rgb(cell.image, clf.image_size).any(-1) for cell in few]
    print(f"\n| reinitialised, from the head down to | {' | '.join(METHODS)} |\n| --- | --- | --- | --- |")
    before = {m: clf.explain(few, method=m, label="parasitized", progress=False) for m in METHODS}
    for part, drawn in randomised(clf):
        row = []
        for method in METHODS:
            after = drawn.explain(few, method=method, label="parasitized", progress=False)
            trio = zip(before[method], after, inside, strict=True)
            row.append(np.nanmean([float(np.asarray(spearmanr(a.values[m], b.values[m]))[0]) for a, b, m in trio]))
        print(f"| {part} | {' | '.join(f'{value:.2f}' for value in row)} |", flush=True)
    print(f"\n{versions()}")


if __name__ == "__main__":
    main()
