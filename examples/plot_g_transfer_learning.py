"""
Transfer learning
=================

A backbone with its top removed and a new head: frozen, or fine-tuned. Weights come from a file or, with
``weights="imagenet"``, once over the network; this page has neither, so its backbone is drawn and learns little
while it is frozen. ``--data cell_images.zip --weights squeezenet1_1.safetensors`` shows the real thing.
"""

import sys

from matplotlib import pyplot as plt

import cellscan

given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
cells = cellscan.load_malaria(given["--data"]) if "--data" in given else cellscan.synthetic_cells(400, seed=0)
train, valid = cells.split(0.25, seed=0)
clf = cellscan.Classifier("squeezenet1_1", weights=given.get("--weights"), image_size=32, seed=0)
clf.summary()

# %%
# Frozen: the backbone runs once over the cells, and only the head is trained.

frozen = clf.fit(
    train, validation=valid, epochs=6, recipe=cellscan.Recipe(freeze="backbone", augment="none"), progress=False
)
print(frozen)

# %%
# Then all of it, with rates that fall with depth.

tuned = clf.fit(
    train, validation=valid, epochs=6, recipe=cellscan.Recipe(learning_rate=1e-3, layer_decay=0.8), progress=False
)
print(tuned)

# %%

figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
axis.plot(range(1, 7), frozen["validation_accuracy"], "o-", label="head alone")
axis.plot(range(7, 13), tuned["validation_accuracy"], "s-", label="all of it")
axis.set(xlabel="epoch", ylabel="accuracy on patients never seen", ylim=(0.4, 1.02))
axis.legend(frameon=False)
