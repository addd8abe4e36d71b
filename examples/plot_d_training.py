"""
Training and its learning curve
===============================

``fit`` trains with one jitted step, on all devices that JAX finds. This example uses synthetic cells; for real cells,
pass ``--data cell_images.zip``.
"""

import sys
import tempfile

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(900, seed=0, difficulty="hard")
train, valid, test = cells.split(validation=0.15, test=0.25, seed=0)

# %%
# With a checkpoint folder, an interrupted training continues from its last checkpoint. The result is bitwise identical
# to that of an uninterrupted training.

with tempfile.TemporaryDirectory() as folder:
    clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
    history = clf.fit(train, validation=valid, epochs=8, checkpoint=folder, resume=True, progress=False)
print(history)

# %%
# Training loss and accuracy are measured on augmented cells during the epoch, while the weights still change. The
# validation accuracy can therefore be higher.

history.plot()

# %%
# The plot of the report shows the confusion matrix, the ROC and precision-recall curves, the reliability diagram, and
# the share of positive cells of every patient.

clf.evaluate(test, progress=False).plot()
