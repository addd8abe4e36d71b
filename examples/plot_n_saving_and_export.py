"""
Saving, loading, exporting
==========================

One safetensors file holds weights and a card; a StableHLO or ONNX file runs without this library. ``--data
cell_images.zip`` takes real cells.
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from matplotlib import pyplot as plt

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(200, seed=0)
clf = cellscan.Classifier.pretrained()
folder = Path(tempfile.mkdtemp())

# %%
# The card says what the classifier is: architecture, classes, size, background, normalisation, decisions, metrics,
# versions, and hashes of the patients of its training.

clf.save(folder / "model.safetensors", licence="Apache-2.0")
again = cellscan.Classifier.load(folder / "model.safetensors")
print(again)
print(again.card.decision, again.card.versions, sep="\n")

# %%
# A program for another process: uint8 images in, probabilities out. A script beside it shows how to run it.

clf.export(folder / "model.stablehlo")
print((folder / "model.stablehlo.py").read_text())

# %%
# They agree.

images = np.asarray(cells.images(clf.image_size))
program = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
theirs, ours = np.asarray(program.call(images))[:, 0], clf.predict_proba(images, progress=False)[:, 0]
figure, axis = plt.subplots(figsize=(3.8, 3.6), layout="constrained")
axis.plot(ours, theirs, ".", ms=4)
axis.set(xlabel="P(parasitized), predict_proba", ylabel="the exported program")
print("greatest difference", np.abs(theirs - ours).max())
