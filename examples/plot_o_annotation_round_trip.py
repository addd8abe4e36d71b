"""
Boxes out to be corrected, and back
===================================

A detector boxes the cells of new fields; a person corrects them in Label Studio, CVAT or FiftyOne; what comes back is a
set to train on. Here a script plays the person.
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
# Out: images and boxes in a new folder. ``save`` returns what the format does not hold: nothing here.

place = Path(tempfile.mkdtemp())
print("lost:", found.save(place / "to_correct", format="coco"))
print(*sorted(path.relative_to(place).as_posix() for path in place.rglob("*.*")), sep="\n")

# %%
# YOLO, for tools that want it, has no scores, and says so.

print("lost:", found.save(place / "to_correct_yolo", format="yolo"))

# %%
# Corrected: the person throws out the last box of every field, and draws one anew. Tools write paths of their own
# before the names of images, which do not matter.

path = place / "to_correct" / "annotations.json"
document = json.loads(path.read_text())
kept = {}
for thing in document["annotations"]:
    kept.setdefault(thing["image_id"], []).append(thing)
document["annotations"] = [thing for things in kept.values() for thing in things[:-1]]
document["annotations"].append({"id": 10_000, "image_id": 1, "category_id": 2, "bbox": [20, 30, 45, 40], "iscrowd": 0})
for image in document["images"]:
    image["file_name"] = f"/data/upload/1/0f1e2d3c-{image['file_name']}"
(place / "corrected.json").write_text(json.dumps(document))

# %%
# Back: the corrected file, with the images that are still here.

corrected = cellscan.load_fields(place / "corrected.json", images=place / "to_correct" / "images")
print(corrected)
corrected.plot()
