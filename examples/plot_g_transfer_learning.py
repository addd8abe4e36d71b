"""
Transfer learning
=================

A network that knows the cells of one laboratory learns those of another, which stains more faintly, from few. Both are
synthetic here; ``--data cell_images.zip`` takes real cells for the second.

ImageNet's networks go the same way: ``Classifier("resnet50", weights="imagenet", image_size=96)``, its top removed.
"""

import sys
import tempfile
from pathlib import Path

from matplotlib import pyplot as plt

import cellscan

home = cellscan.synthetic_cells(700, seed=1)
first = cellscan.Classifier("small_cnn", image_size=32, seed=0)
first.fit(home, epochs=4, progress=False)
file = Path(tempfile.mkdtemp()) / "first.safetensors"
first.save(file)

# %%
# The other laboratory: few cells to learn from, and patients that are in no training.

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(600, seed=9, difficulty="hard")
few, test = cells.split(test=0.7, seed=0)
print(few, test, sep="\n")
print(f"untouched: ROC AUC {first.evaluate(test, progress=False).roc_auc:.3f}")

# %%
# Three ways: from nothing; the head alone, on a frozen backbone, which runs over the cells only once; and all of it, at
# a smaller rate.

ways = {
    "from nothing": (cellscan.Classifier("small_cnn", image_size=32, seed=0), cellscan.Recipe()),
    "the head alone": (cellscan.Classifier.load(file), cellscan.Recipe(freeze="backbone", augment="none")),
    "all of it": (cellscan.Classifier.load(file), cellscan.Recipe(learning_rate=1e-3)),
}
figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for name, (clf, recipe) in ways.items():
    history = clf.fit(few, validation=test, epochs=6, recipe=recipe, progress=False)
    axis.plot(range(1, 7), history["validation_roc_auc"], "o-", label=name)
    print(f"{name}: ROC AUC {history['validation_roc_auc'][-1]:.3f}")
axis.set(xlabel="epoch", ylabel="ROC AUC, patients not in training", xticks=range(1, 7))
axis.legend(frameon=False)
