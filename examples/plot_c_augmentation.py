"""
Augmentation
============

Training changes every cell at random: one of eight symmetries, other colours, and another background. This example uses
synthetic cells; for real cells, pass ``--data cell_images.zip``.
"""

import sys

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import cellscan
from cellscan.preprocessing import prepare
from cellscan.training import make_augment, random_background

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(80, seed=0)
cell = jnp.asarray(cells.select([0]).images(96)[:])

# %%
# The rows show ``Recipe(augment="none")``, ``"small"`` (the default), ``"strong"``, and ``background="random"``.

filled = prepare(jnp.repeat(cell, 8, 0), "fill")
rows = {"none": filled}
for strength in ("small", "strong"):
    augment = make_augment(strength)
    assert augment is not None
    rows[strength] = augment(jax.random.key(0), filled)
rows["background"] = random_background(jax.random.key(1), prepare(jnp.repeat(cell, 8, 0), "keep"))
figure, axes = plt.subplots(len(rows), 8, figsize=(9, 5), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(jnp.clip(image, 0, 1))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)

# %%
# The random background is also on by default: half of the cells get another background, because cells in a field of
# another laboratory have no black background. On real cells, good results in external validation depend on
# this option; see :doc:`/results`.
