"""
Training, and what its curve says
=================================

``fit`` trains with one jitted step, on whatever devices JAX has. ``--data cell_images.zip`` takes real cells.
"""

import sys
import tempfile

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(900, seed=0, difficulty="hard")
train, valid, test = cells.split(validation=0.15, test=0.25, seed=0)

# %%
# A checkpoint folder makes a training that is killed go on where it was, to the same bits.

with tempfile.TemporaryDirectory() as folder:
    clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
    history = clf.fit(train, validation=valid, epochs=8, checkpoint=folder, resume=True, progress=False)
print(history)

# %%
# Training is measured on augmented cells, while the network still learns: the validation curve may lie above it.

history.plot()

# %%
# Confusion matrix, ROC, precision and recall, reliability, and every patient's share of positive cells.

clf.evaluate(test, progress=False).plot()
