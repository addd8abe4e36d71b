"""Draw the pictures of README and docs from the real cells.

    python docs/make_pictures.py DATA

DATA is the publisher's archive or folder. The cells are the U.S. National Library of Medicine's
(Rajaraman et al. 2018, PeerJ 6:e4568).
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

import cellscan
from cellscan.views import VIEWS, prepare

HERE = Path(__file__).parent / "images"


def main() -> None:
    """Draw a handful of cells of both classes under every view."""
    cells = cellscan.load_malaria(sys.argv[1])
    rng = np.random.default_rng(7)
    chosen = np.concatenate([rng.choice(np.flatnonzero(cells.labels == label), 6, replace=False) for label in (0, 1)])
    few = cells.select(chosen)
    figure, axes = plt.subplots(len(VIEWS), len(few), figsize=(11, 3.1), layout="constrained")
    images = jnp.asarray(np.stack([cellscan.CellDataset.from_arrays([c.image], [0]).images(96)[0] for c in few]))
    for row, view in enumerate(VIEWS):
        for axis, image in zip(axes[row], np.asarray(prepare(images, view)), strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        axes[row, 0].set_ylabel(f'view="{view}"', fontsize=8)
    for axis, cell in zip(axes[0], few, strict=True):
        axis.set_title(f"{cell.label_name}\n{cell.patient}", fontsize=7)
    HERE.mkdir(exist_ok=True)
    figure.savefig(HERE / "views.png", dpi=110)


if __name__ == "__main__":
    main()
