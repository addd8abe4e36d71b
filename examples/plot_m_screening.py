"""
From fields to a parasitemia
============================

How many red cells of a smear are infected, with an interval over fields, corrected for the detector's own errors.
Synthetic fields; ``--data FOLDER`` takes photographs. Research use only, not a medical device.
"""

import sys

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
fields = cellscan.synthetic_fields(8, seed=2)
smear = cellscan.screen(data or fields, cellscan.Detector.pretrained(), progress=False)
print(smear)

# %%
# The fields with most infected cells, as it sees them.

smear.plot()
