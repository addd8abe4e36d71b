"""
Your own training loop
======================

The step that ``fit`` runs is a pure, jitted function: state and batch in, state and metrics out. Put your own loop
round it. ``--data cell_images.zip`` takes real cells.
"""

import sys

import jax
import numpy as np
import optax
from matplotlib import pyplot as plt

import cellscan
from cellscan.training import init_state, make_train_step, trained_module

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(400, seed=0, difficulty="easy")
train, test = cells.split(test=0.2, seed=0)
images, labels = np.asarray(train.images(32)), train.labels

# %%
# Any optax optimiser, any Flax NNX module. Images go in as uint8.

model = cellscan.models.create("small_cnn", num_classes=2)
optimizer = optax.adamw(2e-3)
step = make_train_step(model, optimizer)
state = init_state(model, optimizer)

rng, losses = np.random.default_rng(0), []
for number in range(60):
    batch = rng.choice(len(images), 64, replace=False)
    state, metrics = step(state, images[batch], labels[batch], jax.random.key(number))
    losses.append(float(metrics["loss"]))

figure, axis = plt.subplots(figsize=(5.5, 3), layout="constrained")
axis.plot(losses)
axis.set(xlabel="step", ylabel="loss", yscale="log")

# %%
# What it gives is a module like any other, and a `cellscan.Classifier` takes it.

clf = cellscan.Classifier(trained_module(model, state), image_size=32)
print(clf.evaluate(test, progress=False))
