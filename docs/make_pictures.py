"""Draw the pictures of the README and the documentation from the real cells.

    python docs/make_pictures.py DATA suspects.csv

DATA is the publisher's archive or folder. suspects.csv is the experts' list of disputed labels. The cells are published
by the U.S. National Library of Medicine (Rajaraman et al. 2018, PeerJ 6:e4568).
"""

import csv
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

import cellscan
from cellscan.preprocessing import BACKGROUNDS, prepare

HERE = Path(__file__).parent / "images"


def draw_wrong(cells: cellscan.CellDataset, disputed: set[str]) -> None:
    """Draw the cells whose label the bundled network contradicts most, with attribution maps of its prediction."""
    clf = cellscan.Classifier.pretrained()
    probability = clf.predict_proba(cells)[np.arange(len(cells)), cells.labels]
    figure, axes = plt.subplots(4, 8, figsize=(11, 6.6), layout="constrained")
    for label, name in enumerate(cells.class_names):
        rows = np.flatnonzero(cells.labels == label)
        worst = cells.select(rows[np.argsort(probability[rows])[:8]])
        for column, explanation in enumerate(clf.explain(worst, label=cells.class_names[1 - label])):
            above, below = axes[2 * label : 2 * label + 2, column]
            above.imshow(explanation.image)
            below.imshow(explanation.image)
            below.imshow(explanation.map, cmap="magma", vmin=0, vmax=1, alpha=0.35 + 0.6 * explanation.map)
            colour = "crimson" if explanation.name in disputed else "black"
            above.set_title(f"{name}\n{worst[column].patient}", fontsize=7, color=colour)
            for axis in (above, below):
                axis.set_axis_off()
    figure.savefig(HERE / "wrong.png", dpi=100)


def draw_backgrounds(cells: cellscan.CellDataset) -> None:
    """Draw twelve cells, six of each class, with every background."""
    rng = np.random.default_rng(7)
    chosen = np.concatenate([rng.choice(np.flatnonzero(cells.labels == label), 6, replace=False) for label in (0, 1)])
    few = cells.select(chosen)
    figure, axes = plt.subplots(len(BACKGROUNDS), len(few), figsize=(11, 3.1), layout="constrained")
    images = jnp.asarray(np.stack([cellscan.CellDataset.from_arrays([c.image], [0]).images(96)[0] for c in few]))
    for row, background in enumerate(BACKGROUNDS):
        for axis, image in zip(axes[row], np.asarray(prepare(images, background)), strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        axes[row, 0].set_ylabel(f'"{background}"', fontsize=8)
    for axis, cell in zip(axes[0], few, strict=True):
        axis.set_title(f"{cell.label_name}\n{cell.patient}", fontsize=7)
    figure.savefig(HERE / "backgrounds.png", dpi=110)


def main() -> None:
    """Draw all pictures."""
    HERE.mkdir(exist_ok=True)
    cells = cellscan.load_malaria(sys.argv[1])
    with open(sys.argv[2], newline="") as file:
        disputed = {row["name"] for row in csv.DictReader(file)}
    draw_backgrounds(cells)
    draw_wrong(cells, disputed)


if __name__ == "__main__":
    main()
