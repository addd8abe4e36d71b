"""
Transfer learning
=================

A network is trained on cells of one laboratory, then on a few cells of a second laboratory with a weaker stain. Both
sets are synthetic; to use real cells as the second set, pass ``--data cell_images.zip``.

Networks with ImageNet weights are used in the same way: ``Classifier("resnet50", weights="imagenet", image_size=96)``
replaces the last layer of ResNet-50.
"""

import sys
import tempfile
from pathlib import Path

from matplotlib import pyplot as plt

import cellscan

first_cells = cellscan.synthetic_cells(700, seed=1)
first = cellscan.Classifier("small_cnn", image_size=32, seed=0)
first.fit(first_cells, epochs=4, progress=False)
file = Path(tempfile.mkdtemp()) / "first.safetensors"
first.save(file)

# %%
# The second laboratory has few cells for training. The patients of the test set are in neither training set.

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(600, seed=9, difficulty="hard")
few, test = cells.split(test=0.7, seed=0)
print(few, test, sep="\n")
print(f"without further training: ROC AUC {first.evaluate(test, progress=False).roc_auc:.3f}")

# %%
# There are three ways to train: from scratch; the last layer alone, with a frozen backbone whose features are computed
# only once; and all layers, with a smaller learning rate.

ways = {
    "from scratch": (cellscan.Classifier("small_cnn", image_size=32, seed=0), cellscan.Recipe()),
    "last layer alone": (cellscan.Classifier.load(file), cellscan.Recipe(freeze="backbone", augment="none")),
    "all layers": (cellscan.Classifier.load(file), cellscan.Recipe(learning_rate=1e-3)),
}
figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for name, (clf, recipe) in ways.items():
    history = clf.fit(few, validation=test, epochs=6, recipe=recipe, progress=False)
    axis.plot(range(1, 7), history["validation_roc_auc"], "o-", label=name)
    print(f"{name}: ROC AUC {history['validation_roc_auc'][-1]:.3f}")
axis.set(xlabel="epoch", ylabel="ROC AUC, patients not in training", xticks=range(1, 7))
axis.legend(frameon=False)
