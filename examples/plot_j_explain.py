"""
Where the network looks
=======================

Three maps of what speaks for "parasitized": integrated gradients, Grad-CAM, occlusion. ``--data cell_images.zip`` takes
real cells.
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
sick = test.select(np.flatnonzero(test.labels == 0)[:4])

# %%

why = clf.explain(sick, method="integrated_gradients", label="parasitized", progress=False)
why.plot()

# %%
# The other two are coarser. Integrated gradients add up to what the label's logit has risen by, from an image that is
# everywhere of the cell's mean colour.

methods = ("integrated_gradients", "gradcam", "occlusion")
figure, axes = plt.subplots(len(methods), len(sick), figsize=(7, 5.4), layout="constrained")
for row, method in zip(axes, methods, strict=True):
    for axis, one in zip(row, clf.explain(sick, method=method, label="parasitized", progress=False), strict=True):
        axis.imshow(one.image)
        axis.contour(one.map, levels=[0.3, 0.6], colors=["white", "cyan"], linewidths=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(method.replace("_", "\n"))
for one in why:
    print(f"{one.name}: sum of the map {one.values.sum():.2f}, rise of the logit {one.output - one.baseline:.2f}")
