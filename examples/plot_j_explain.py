"""
Which pixels a prediction depends on
====================================

Three methods show which pixels contribute to "parasitized": integrated gradients, Grad-CAM and occlusion. This example
uses synthetic cells; for real cells, pass ``--data cell_images.zip``.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(1000, seed=5, difficulty="easy")
train, test = cells.split(test=0.2, seed=0)
clf = cellscan.Classifier("small_cnn", image_size=40, seed=0)
clf.fit(train, epochs=5, progress=False)
infected = test.select(np.flatnonzero(test.labels == 0)[:4])

# %%

maps = clf.explain(infected, method="integrated_gradients", label="parasitized", progress=False)
maps.plot()

# %%
# The maps of Grad-CAM and occlusion are coarser. The values of integrated gradients sum to the increase of the label's
# logit over a baseline, a uniform image in the mean colour of the cell.

methods = ("integrated_gradients", "gradcam", "occlusion")
figure, axes = plt.subplots(len(methods), len(infected), figsize=(7, 5.4), layout="constrained")
for row, method in zip(axes, methods, strict=True):
    found = clf.explain(infected, method=method, label="parasitized", progress=False)
    for axis, explanation in zip(row, found, strict=True):
        axis.imshow(explanation.image)
        axis.contour(explanation.map, levels=[0.3, 0.6], colors=["white", "cyan"], linewidths=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(method.replace("_", "\n"))
for cell in maps:
    increase = cell.output - cell.baseline
    print(f"{cell.name}: sum of the map {cell.values.sum():.2f}, increase of the logit {increase:.2f}")
