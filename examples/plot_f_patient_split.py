"""
Split by patient or by cell
===========================

A random split of cells puts cells of every patient into both training and test set. In this synthetic set, patients
differ strongly in stain, and the split by cell overestimates the accuracy on new patients. On the real cells the
difference is small (:doc:`/results`), but only a split by patient can show that. For real cells, pass ``--data
cell_images.zip``.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(480, seed=3, difficulty="hard")
reports = {}
for by in ("patient", "cell"):
    train, test = cells.split(test=0.3, by=by, seed=0)
    clf = cellscan.Classifier("small_cnn", image_size=24, seed=0)
    clf.fit(train, epochs=6, progress=False)
    reports[by] = clf.evaluate(test, progress=False)
    print(str(reports[by]).splitlines()[0])

# %%
# The first line of each report gives the patient overlap. The intervals are computed by a bootstrap over patients.

figure, axis = plt.subplots(figsize=(5.5, 3), layout="constrained")
for row, report in enumerate(reports.values()):
    low, high = report.interval["accuracy"]
    axis.plot([low, high], [row, row], lw=3, alpha=0.4)
    axis.plot(report.accuracy, row, "o", ms=9)
    axis.text(report.accuracy, row + 0.12, f"{report.accuracy:.3f}", ha="center")
axis.set(yticks=[0, 1], yticklabels=["by patient", "by cell"], ylim=(-0.5, 1.5), xlabel="accuracy")
print("patients on both sides:", {by: report.patient_overlap.train for by, report in reports.items()})
assert np.isfinite([report.accuracy for report in reports.values()]).all()
