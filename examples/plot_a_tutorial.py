"""
Tutorial: from loading cells to testing a classifier
====================================================

This tutorial follows the steps of the well-known notebook tutorials on malaria cells: load the images, look at them,
resize, split, create a network, train it, plot the learning curve, and test. It runs on synthetic cells in seconds. To
use the NIH cells, pass ``--data cell_images.zip``.

Research use only, not a medical device.
"""

import sys

import cellscan

# %%
# Load the cells
# --------------
# A data set contains the class and the patient of every cell. `cellscan.load_malaria` reads the publisher's archive or
# folder, the copy on Kaggle, or the TFDS data set.

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(900, seed=0)
print(cells)
print(cells.describe())

# %%
# Look at both classes
# --------------------
# A parasite is a purple ring or spot. Debris and stain residues look similar, and occur on cells of both classes.

cells.plot(rows=1, columns=8)

# %%
# Split by patient
# ----------------
# Many notebooks split the cells at random, so that every patient has cells in training and in the test set. Here each
# patient belongs to one part only; :doc:`plot_f_patient_split` shows why this matters. No resizing step is needed: the
# classifier resizes the images itself, in the same way in ``fit`` and in ``predict``.

train, valid, test = cells.split(validation=0.15, test=0.25, by="patient", seed=0)
print(train, valid, test, sep="\n")

# %%
# Create a classifier
# -------------------
# ``"small_cnn"`` is trained from scratch. ``Classifier("vgg16", weights="imagenet", image_size=64)`` uses VGG16 with
# ImageNet weights and a new last layer; ``"resnet50"`` and ``"inception_v3"`` work in the same way, see
# :doc:`plot_g_transfer_learning`. RetinaNet is a network for whole fields, see :doc:`plot_l_detection`.

for backbone in cellscan.list_backbones():
    print(f"{backbone.name:24} {backbone.parameters:>12,} parameters, from {backbone.least_size} px")

clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
clf.summary()

# %%
# Choose loss and optimiser, and train
# ------------------------------------
# `cellscan.Recipe` defines the training. By default it uses cross-entropy with label smoothing, AdamW with a one-cycle
# learning rate, and augmentation by mirroring and colour changes. Every option can be changed.

recipe = cellscan.Recipe()
print(recipe)
history = clf.fit(train, validation=valid, epochs=5, recipe=recipe, progress=False)
print(history)

# %%
# Plot the learning curve
# -----------------------

history.plot()

# %%
# Test the classifier
# -------------------
# The first line of the report gives the patient overlap with training. Intervals are computed by a bootstrap over
# patients, not over cells.

report = clf.evaluate(test, progress=False)
print(report)

# %%

report.plot()

# %%
# Next steps
# ----------
# - Why a random split is too optimistic: :doc:`plot_f_patient_split`.
# - How to calibrate probabilities: :doc:`plot_e_calibration`.
# - Which pixels a prediction depends on: :doc:`plot_j_explain`.
# - Cross-validation, label issues and external validation: :doc:`/studies`.
