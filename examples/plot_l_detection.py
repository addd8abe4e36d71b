"""
Detect the cells of a field
===========================

A detector finds the red cells of a field and classifies each as infected or not. This example uses the bundled
detector and synthetic fields; for your own photographs, pass ``--data FOLDER``.
"""

import sys

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
fields = cellscan.synthetic_fields(4, seed=1)
fields.plot()

# %%
# The synthetic fields are not in the training of the bundled detector.

det = cellscan.Detector.pretrained()
found = det.predict(data or fields, progress=False)
print(found)
found[0].plot()

# %%
# ``crops`` cuts the detected cells out of the field, as input for a classifier.

crops = found[0].crops()
print(crops)
