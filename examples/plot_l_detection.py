"""
Cells in a whole field
======================

A detector finds every red cell of a field and says which are infected. Trained here for a minute's fraction on
synthetic fields; the bundled one knows real ones. ``--data FOLDER`` takes your own photographs with that.
"""

import sys

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
fields = cellscan.synthetic_fields(4, seed=1)
fields.plot()

# %%
# The bundled detector, on synthetic fields that are not in its training.

det = cellscan.Detector.pretrained()
found = det.predict(data or fields, progress=False)
print(found)
found[0].plot()

# %%
# Its first cells, cut out as a classifier takes them.

crops = found[0].crops()
print(crops)
