"""
Calibrated probabilities, thresholds and patient rules
======================================================

This example fits a temperature, and chooses a threshold, conformal label sets and a patient rule. All of them use
patients that are not in training. It uses synthetic cells; for real cells, pass ``--data cell_images.zip``.
"""

import sys

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
cells = cellscan.load_malaria(data) if data else cellscan.synthetic_cells(2000, seed=0, difficulty="hard")
train, decide, test = cells.split(validation=0.3, test=0.3, seed=0)
clf = cellscan.Classifier("small_cnn", image_size=24, seed=0)
clf.fit(train, epochs=4, progress=False)
before = clf.evaluate(test, progress=False)

# %%
# A temperature above 1 means that the network was overconfident; below 1, that it was underconfident.

print("temperature", round(clf.calibrate(decide, progress=False), 3))
after = clf.evaluate(test, progress=False)
print(f"calibration error {before.calibration_error:.3f} before, {after.calibration_error:.3f} after")
after.plot()

# %%
# A conformal set contains both labels, or none, if the prediction is too uncertain for a single label.

clf.choose_threshold(decide, sensitivity=0.9, progress=False)
clf.conformalize(decide, alpha=0.1, progress=False)
preds = clf.predict(test, progress=False)
print(preds)
print("both labels or none:", sum(len(p.label_set or ()) != 1 for p in preds), "of", len(preds))

# %%
# The patient rule is the share of positive cells at and above which a patient counts as infected.

clf.choose_patient_rule(decide, specificity=0.9, progress=False)
print(clf.evaluate(test, progress=False).patients)
