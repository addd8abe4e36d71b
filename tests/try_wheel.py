"""Try the installed wheel from outside the repository; called by `make wheel`, not by pytest."""

import importlib.metadata
import sys
import tempfile
from pathlib import Path

import cellscan

home = Path(cellscan.__file__)
assert "site-packages" in home.parts, home
assert (home.parent / "py.typed").exists()
assert (home.parent / "data" / "checksums.tsv").exists()
assert importlib.metadata.version("cellscan") == cellscan.__version__
assert {"LICENSE", "NOTICE"} <= {path.name for path in importlib.metadata.files("cellscan") or ()}

cells = cellscan.synthetic_cells(48, seed=0)
train, test = cells.split(test=0.25, seed=0)
clf = cellscan.Classifier(image_size=16, seed=0)
clf.fit(train, validation=test, epochs=1, progress=False)
with tempfile.TemporaryDirectory() as folder:
    clf.save(Path(folder) / "model.safetensors")
    again = cellscan.Classifier.load(Path(folder) / "model.safetensors")
    assert (again.predict_proba(test) == clf.predict_proba(test)).all()
print(again.evaluate(test))
assert cellscan.Classifier.pretrained().predict(test, progress=False).positive_class == "parasitized"
smear = cellscan.screen(cellscan.synthetic_fields(1, seed=2), progress=False)
print(smear)
assert smear.red_cells > 0
assert smear.parasitemia is None  # synthetic fields are unlike those with known error rates
from cellscan.data import _malaria_builder as malaria_builder  # noqa: E402 - needs declared dependencies only

assert malaria_builder.CellscanMalaria.url_infos
wrong = {"tensorflow", "torch", "keras"} & set(sys.modules)
assert not wrong, wrong
print(f"the wheel works: {home}")
