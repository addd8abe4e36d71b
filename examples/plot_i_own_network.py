"""
Your own network
================

A classifier accepts any Flax NNX module that returns one logit per class. If the module has a method ``features``,
``embed`` works too; if it also has ``classify``, Grad-CAM works. This example uses synthetic cells; for real cells,
pass ``--data cell_images.zip``.
"""

import itertools
import sys

import jax
import numpy as np
from flax import nnx
from matplotlib import pyplot as plt

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(600, seed=0, difficulty="easy")
train, test = cells.split(test=0.25, seed=0)


class ThreeLayers(nnx.Module):
    """Three convolutions and a dense layer."""

    def __init__(self, classes: int, *, rngs: nnx.Rngs) -> None:
        widths = (3, 16, 32, 48)
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), strides=2, rngs=rngs) for a, b in itertools.pairwise(widths)])
        self.head = nnx.Linear(widths[-1], classes, rngs=rngs)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        maps = {}
        for number, conv in enumerate(self.convs):
            x = maps[f"conv{number}"] = jax.nn.relu(conv(x))
        return {**maps, "pre_logits": x.mean((1, 2))}

    def classify(self, x: jax.Array) -> jax.Array:
        return self.head(x.mean((1, 2)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classify(self.features(x)["conv2"])


# %%

clf = cellscan.Classifier(ThreeLayers(2, rngs=nnx.Rngs(0)), image_size=32, seed=0)
clf.summary()
history = clf.fit(train, epochs=8, progress=False)
print(history)
print(clf.evaluate(test, progress=False))

# %%
# The plot shows the features of the test cells along their first two principal components.

features = clf.embed(test, progress=False)
_, _, axes = np.linalg.svd(features - features.mean(0), full_matrices=False)
x, y = ((features - features.mean(0)) @ axes[:2].T).T
figure, axis = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
for label, name in enumerate(test.class_names):
    axis.scatter(x[test.labels == label], y[test.labels == label], s=14, alpha=0.7, label=name)
axis.set(xlabel="first component", ylabel="second component")
axis.legend(frameon=False)
