"""
Your own training loop
======================

The training step of ``fit`` is a pure, jitted function: it takes a state and a batch, and returns a new state and
metrics. You can call it in your own loop. This example uses synthetic cells; for real cells, pass ``--data
cell_images.zip``.
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
# The step accepts any optax optimiser and any Flax NNX module. Images are uint8 arrays.

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
# The trained network is an ordinary Flax NNX module. Pass it to `cellscan.Classifier` to evaluate it.

clf = cellscan.Classifier(trained_module(model, state), image_size=32)
print(clf.evaluate(test, progress=False))
