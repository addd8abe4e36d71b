"""
Send a result as one HTML file
==============================

``to_html`` writes a result as a page with tables, figures and pictures. The page is one file and needs no network. This
example writes every kind of page, from synthetic images. Research use only, not a medical device.
"""

import tempfile
from pathlib import Path

import cellscan

folder = Path(tempfile.mkdtemp())
cells, test = cellscan.synthetic_cells(800, seed=0).split(test=0.2, by="patient", seed=0)
study = cellscan.cross_validate("small_cnn", cells, folds=2, image_size=32, epochs=10, progress=False)

# %%
# A study: the metrics of every fold, means, and pooled metrics with intervals.

study.to_html(folder / "study.html")

# %%
# Label issues: the cells whose label is least probable come first. Ticked cells are downloaded as a CSV file.

study.label_issues().to_html(folder / "label_issues.html", count=24)

# %%
# The report of one classifier. ``cells=`` adds the cells whose label is least probable, and ``explain=`` their
# attribution maps.

clf = study.members[0]
report = clf.evaluate(test, progress=False)
report.to_html(folder / "report.html", cells=test, explain=clf.explain, count=12)

# %%
# Detections: boxes can be hidden by class and by score.

fields = cellscan.synthetic_fields(4, seed=2)
detector = cellscan.Detector.pretrained()
detector.predict(fields, progress=False).to_html(folder / "detections.html")

# %%
# A smear: warnings are the first part of the page, before the numbers.

cellscan.screen(fields, detector, progress=False).to_html(folder / "smear.html")

# %%
# Several smears: one row for each.

smears = cellscan.screen(fields, detector, by=["a", "a", "b", "b"], progress=False)
smears.to_html(folder / "smears.html")

for file in sorted(folder.iterdir()):
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
