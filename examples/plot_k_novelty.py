"""
Novelty of images
=================

A classifier predicts a label, often with high confidence, for any image: a photograph, noise, or a cell with another
stain. Novelty measures how far an image is from the cells of training. This example uses synthetic cells; for real
cells, pass ``--data cell_images.zip``.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_sample_images

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(1200, seed=0)
train, test = cells.split(test=0.2, seed=0)
clf = cellscan.Classifier("small_cnn", image_size=24, seed=0)
clf.fit(train, epochs=2, progress=False)
clf.learn_novelty(train, progress=False)

# %%
# The plot shows the novelty of four kinds of images.

rng = np.random.default_rng(0)
photographs = []
for image in load_sample_images().images:
    for _ in range(40):
        top, left = rng.integers(0, 300), rng.integers(0, 500)
        photographs.append(image[top : top + 120, left : left + 120])
recoloured = [cells[i].image[..., ::-1] for i in range(0, len(cells), 15)]  # Red and blue are exchanged.
noise = list(rng.integers(0, 256, (80, 40, 40, 3), dtype=np.uint8))
kinds = {"cells of new patients": test, "other colours": recoloured, "photographs": photographs, "noise": noise}

figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for row, (name, images) in enumerate(kinds.items()):
    preds = clf.predict(images, progress=False)
    assert preds.novelty is not None
    assert preds.novel is not None
    print(f"{name}: {preds}")
    axis.plot(preds.novelty, row + rng.uniform(-0.25, 0.25, len(preds)), ".", ms=4, alpha=0.6)
axis.axvline(clf.novelty_threshold or 0, color="black", lw=1, ls="--")
axis.set(yticks=range(len(kinds)), yticklabels=kinds, xlabel="novelty; dashed: the threshold", xscale="log")
