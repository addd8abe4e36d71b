"""
Send a result as one HTML file
==============================

``to_html`` writes a result as a page with tables, figures and pictures. The page is one file and needs no network. This
example writes the detections of synthetic fields, and the report of a screening. Research use only, not a medical
device.
"""

import tempfile
from pathlib import Path

import cellscan

folder = Path(tempfile.mkdtemp())
fields = cellscan.synthetic_fields(4, seed=2)
detector = cellscan.Detector.pretrained()

# %%
# In the page, boxes can be hidden by class and by score.

detector.predict(fields, progress=False).to_html(folder / "detections.html")

# %%
# Warnings are the first part of the page of a smear, before the numbers.

cellscan.screen(fields, detector, progress=False).to_html(folder / "smear.html")

for file in sorted(folder.iterdir()):
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
