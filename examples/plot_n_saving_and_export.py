"""
Save, load and export a classifier
==================================

``save`` writes weights and card to one safetensors file. ``export`` writes a StableHLO or ONNX file, which runs without
this library. This example uses synthetic cells; for real cells, pass ``--data cell_images.zip``.
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
# The card contains architecture, classes, image size, background, normalisation, decision rules, metrics, versions, and
# hashes of the patients in training.

clf.save(folder / "model.safetensors", licence="Apache-2.0")
again = cellscan.Classifier.load(folder / "model.safetensors")
print(again)
print(again.card.decision, again.card.versions, sep="\n")

# %%
# The exported program takes uint8 images and returns probabilities. ``export`` also writes a script that runs it.

clf.export(folder / "model.stablehlo")
print((folder / "model.stablehlo.py").read_text())

# %%
# The exported program and ``predict_proba`` give the same probabilities.

images = np.asarray(cells.images(clf.image_size))
program = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
exported, direct = np.asarray(program.call(images))[:, 0], clf.predict_proba(images, progress=False)[:, 0]
figure, axis = plt.subplots(figsize=(3.8, 3.6), layout="constrained")
axis.plot(direct, exported, ".", ms=4)
axis.set(xlabel="P(parasitized), predict_proba", ylabel="P(parasitized), exported program")
print("largest difference", np.abs(exported - direct).max())
