"""
A first look at cells
=====================

This example shows the contents of a data set, and the images that a network receives. It uses synthetic cells; for real
cells, pass ``--data cell_images.zip``.
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
# These are cells of both classes, with their patients. Cells of one patient look similar, because they have the same
# stain and illumination.

cells.plot(rows=2, columns=8)

# %%
# In the NIH set, every cell was cut out along its outline and has a black background. Within this set, the label can be
# predicted from the outline alone, to some extent. The default background, ``"fill"``, hides the outline.
# ``"silhouette"`` keeps only the outline, as a baseline.

images = jnp.asarray(cells.select(range(6)).images(96)[:])
figure, axes = plt.subplots(len(BACKGROUNDS), 6, figsize=(8, 4), layout="constrained")
for row, background in zip(axes, BACKGROUNDS, strict=True):
    for axis, image in zip(row, prepare(images, background), strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(background)
