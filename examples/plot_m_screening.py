"""
Estimate the parasitemia of a smear
===================================

``screen`` estimates the share of infected red cells in a smear, corrected for the known errors of the detector, with an
interval over fields. This example uses synthetic fields; for photographs, pass ``--data FOLDER``. Research use only,
not a medical device.
"""

import sys

import cellscan

data = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else None
fields = cellscan.synthetic_fields(8, seed=2)
smear = cellscan.screen(data or fields, cellscan.Detector.pretrained(), progress=False)
print(smear)

# %%
# The plot shows the fields with the most infected cells, and the detections in them.

smear.plot()
