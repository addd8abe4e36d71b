"""
Tutorial: from cells to a test, step by step
============================================

The road of the well-known notebook tutorials on malaria cells: load, look, resize, split, take a network, train, draw
the learning curve, test. It runs on synthetic cells in seconds; ``--data cell_images.zip`` takes the NIH cells.

Research use only, not a medical device.
"""

import sys

import cellscan

# %%
# Load
# ----
# A data set knows of every cell its class and its patient. `cellscan.load_malaria` reads the publisher's archive or
# folder, Kaggle's copy, or the TFDS set.

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(900, seed=0)
print(cells)
print(cells.describe())

# %%
# Look at both classes
# --------------------
# A parasite is a purple ring or blot. Debris and stain look alike: they lie on cells of both classes.

cells.plot(rows=1, columns=8)

# %%
# Split
# -----
# Notebooks split cells at random, and every patient lands on both sides. Here whole patients go to one side; see
# :doc:`plot_f_patient_split` for what the other way hides. There is no step that resizes: a classifier does that by
# itself, the same way in training and in ``predict``.

train, valid, test = cells.split(validation=0.15, test=0.25, by="patient", seed=0)
print(train, valid, test, sep="\n")

# %%
# Take a network
# --------------
# ``"small_cnn"`` is trained from nothing. ``Classifier("vgg16", weights="imagenet", image_size=64)`` takes VGG16
# without its top instead, ``"resnet50"`` or ``"inception_v3"`` another one: :doc:`plot_g_transfer_learning`.
# RetinaNet is for whole fields: :doc:`plot_l_detection`.

for backbone in cellscan.list_backbones():
    print(f"{backbone.name:24} {backbone.parameters:>12,} parameters, from {backbone.least_size} px")

clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
clf.summary()

# %%
# Loss, optimiser, training
# -------------------------
# `cellscan.Recipe` says how: cross-entropy with smoothed labels, AdamW with one cycle of the learning rate,
# mirrored and recoloured cells. Every line can be changed.

recipe = cellscan.Recipe()
print(recipe)
history = clf.fit(train, validation=valid, epochs=5, recipe=recipe, progress=False)
print(history)

# %%
# Learning curve
# --------------

history.plot()

# %%
# Test
# ----
# The first line states the patient overlap with training; intervals are drawn over patients, not cells.

report = clf.evaluate(test, progress=False)
print(report)

# %%

report.plot()

# %%
# Where it goes further
# ---------------------
# What the random split hides: :doc:`plot_f_patient_split`. Probabilities that mean what they say:
# :doc:`plot_e_calibration`. Where the network looks: :doc:`plot_j_explain`. Folds, label issues and other
# laboratories: :doc:`/studies`.
