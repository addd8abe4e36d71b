"""
Augmentation
============

What training shows instead of a cell: its eight symmetries, other colours, and another background. ``--data
cell_images.zip`` takes real cells.
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
one = jnp.asarray(cells.select([0]).images(96)[:])

# %%
# A row each of ``Recipe(augment="none")``, ``"small"`` (the default) and ``"strong"``; and ``background="random"``.

shown = prepare(jnp.repeat(one, 8, 0), "fill")
rows = {"none": shown}
for strength in ("small", "strong"):
    augment = make_augment(strength)
    assert augment is not None
    rows[strength] = augment(jax.random.key(0), shown)
rows["background"] = random_background(jax.random.key(1), prepare(jnp.repeat(one, 8, 0), "keep"))
figure, axes = plt.subplots(len(rows), 8, figsize=(9, 5), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(jnp.clip(image, 0, 1))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)

# %%
# The last row is on by default too: half of the cells get another ground, since cells in a field of another
# laboratory have no black around them. On real cells that is what carries a network over; see :doc:`/results`.
