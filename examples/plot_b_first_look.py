"""
A first look at cells
=====================

What is in a data set, and what a network is shown of it. ``--data cell_images.zip`` takes real cells.
"""

import sys

import jax.numpy as jnp
from matplotlib import pyplot as plt

import cellscan
from cellscan.preprocessing import BACKGROUNDS, prepare

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(400, seed=0)
print(cells.describe())

# %%
# Cells of both classes, with their patients. Cells of one patient look alike: one stain, one light.

cells.plot(rows=2, columns=8)

# %%
# The cutting program left black around every cell, and its outline gives the label away within this set. The
# background ``"fill"``, the default, hides it; ``"silhouette"`` shows nothing else, as a baseline.

images = jnp.asarray(cells.select(range(6)).images(96)[:])
figure, axes = plt.subplots(len(BACKGROUNDS), 6, figsize=(8, 4), layout="constrained")
for row, background in zip(axes, BACKGROUNDS, strict=True):
    for axis, image in zip(row, prepare(images, background), strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(background)
