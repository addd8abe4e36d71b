"""
Correct the boxes of a detector in an annotation tool
=====================================================

A detector draws boxes around the cells of new fields, a person corrects them in Label Studio, CVAT or FiftyOne, and
cellscan loads the corrected file as a training set. In this example, a script makes the corrections.
"""

import json
import tempfile
from pathlib import Path

import cellscan

fields = cellscan.synthetic_fields(3, seed=1)
det = cellscan.Detector.pretrained()
found = det.predict(fields, progress=False)
print(found)

# %%
# Export: ``save`` writes images and boxes to a new folder. It returns a list of the information that the format cannot
# store; for COCO the list is empty.

folder = Path(tempfile.mkdtemp())
print("lost:", found.save(folder / "to_correct", format="coco"))
print(*sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")), sep="\n")

# %%
# The YOLO format cannot store scores, and ``save`` reports that.

print("lost:", found.save(folder / "to_correct_yolo", format="yolo"))

# %%
# Correction: the script deletes the last box of every field and adds one box. Annotation tools often change the folder
# in the path of an image; cellscan ignores the folder.

path = folder / "to_correct" / "annotations.json"
document = json.loads(path.read_text())
by_image = {}
for annotation in document["annotations"]:
    by_image.setdefault(annotation["image_id"], []).append(annotation)
document["annotations"] = [annotation for annotations in by_image.values() for annotation in annotations[:-1]]
document["annotations"].append({"id": 10_000, "image_id": 1, "category_id": 2, "bbox": [20, 30, 45, 40], "iscrowd": 0})
for image in document["images"]:
    image["file_name"] = f"/data/upload/1/0f1e2d3c-{image['file_name']}"
(folder / "corrected.json").write_text(json.dumps(document))

# %%
# Import: load the corrected file together with the exported images.

corrected = cellscan.load_fields(folder / "corrected.json", images=folder / "to_correct" / "images")
print(corrected)
corrected.plot()
