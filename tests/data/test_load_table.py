"""Tables of paths and labels: CSV files, data frames, folders and archives."""

import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import run_python, write_cells

import cellscan

FILES = ["x/1.png", "x/2.png", "y/1.png"]
COLUMNS = {"path": FILES, "label": ["sick", "well", "sick"], "patient": ["p1", "p1", "p2"]}


@pytest.fixture
def root(tmp_path) -> Path:
    return write_cells(tmp_path / "d", {".": FILES})


def write_csv(path: Path, columns: dict, delimiter: str = ",") -> Path:
    rows = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    path.write_text("\r\n".join(delimiter.join(map(str, row)) for row in rows), encoding="utf-8-sig")
    return path


def test_csv_frames_and_mappings_agree(root, tmp_path) -> None:
    frame = pandas.DataFrame(COLUMNS)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name in FILES:
            archive.write(root / name, f"set/{name}")
    (tmp_path / "set").symlink_to(root)
    sets = [
        cellscan.load_table(write_csv(root / "cells.csv", COLUMNS)),
        cellscan.load_table(str(write_csv(tmp_path / "cells.csv", COLUMNS, ";")), root),
        cellscan.load_table(frame, root),
        cellscan.load_table(frame.set_index("patient", drop=False), str(root)),
        cellscan.load_table(COLUMNS, root),
        cellscan.load_table(frame.rename(columns={"path": "Path", "label": " LABEL"}), tmp_path / "d.zip"),
        cellscan.load_table({**COLUMNS, "path": [f"set\\{name}" for name in FILES]}, tmp_path),
    ]
    for cells in sets:
        assert cells.class_names == ("sick", "well")
        assert cells.labels.tolist() == [0, 1, 0]
        assert cells.patients.tolist() == ["p1", "p1", "p2"]
        assert np.array_equal(cells.images(16)[:], sets[0].images(16)[:])
    assert len({cells.fingerprint() for cells in sets[:6]}) == 1
    assert sets[6].names.tolist() == [f"set/{name}" for name in FILES]
    absolute = cellscan.load_table({**COLUMNS, "path": [root / name for name in FILES]})
    assert absolute.fingerprint() == sets[0].fingerprint()


def test_columns_by_name(root) -> None:
    frame = pandas.DataFrame({"file": FILES, "class": [1, 0, 1], "who": [7, 7.0, 8]})
    cells = cellscan.load_table(frame, root, path="file", label="class", patient="who")
    assert (cells.class_names, cells.labels.tolist()) == (("0", "1"), [1, 0, 1])
    assert cells.patients.tolist() == ["7", "7", "8"]
    for table in (frame, write_csv(root / "c.csv", {name: frame[name].tolist() for name in frame})):
        cells = cellscan.load_table(table, root, path="file", label="class", class_names=("well", "sick"))
        assert (cells.class_names, cells.labels.tolist()) == (("well", "sick"), [1, 0, 1])
        assert not cells.has_patients
    assert not cellscan.load_table(COLUMNS, root, patient=None).has_patients
    assert len(cellscan.load_table(pandas.DataFrame({0: FILES, 1: [1, 0, 1]}), root, path="0", label="1")) == 3
    many = cellscan.load_table({**COLUMNS, "label": ["10", "9", "9"]}, root)
    assert many.class_names == ("9", "10")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"path": "file"}, r"no column 'file'; it has 'path', 'label', 'patient'.*path="),
        ({}, {"label": "class"}, "no column 'class'"), ({}, {"patient": "who"}, "no column 'who'"),
        ({}, {"path": 3}, "path is 3"), ({"PATH": FILES}, {"path": "Path"}, "several columns 'Path'"),
        ({"label": ["sick", None, "sick"]}, {}, "row 1 .* has no label"),
        ({"label": ["sick", float("nan"), "sick"]}, {}, "row 1 .* has no label"),
        ({"path": ["x/1.png", "", "y/1.png"]}, {}, "row 1 .* has no path"),
        ({"path": ["x/1.png", "x/9.png", "y"]}, {}, r"2 of 3 images are not in .*: x/9.png, y. .*root="),
        ({"path": ["x/1.png", "./x/1.png", "y/1.png"]}, {}, "rows 0 and 1 .* column 'path': 'x/1.png'"),
        ({"patient": ["p1", None, "p2"]}, {}, "patient of this cell is unknown"),
        ({"label": ["sick", "Sick", "well"]}, {}, "not distinct"),
        ({}, {"class_names": ("a", "b")}, "expected an index or one of the class names"),
        ({"label": [0, 1, 2]}, {"class_names": ("a", "b")}, "expected 0 to 1"),
        ({"path": [], "label": [], "patient": []}, {}, "no images"),
        ({"label": ["sick", "well"]}, {}, "3 images, 2 labels"),
    ],
)  # fmt: skip
def test_tables_that_do_not_hold_together(root, change, arguments, message) -> None:
    with pytest.raises(cellscan.CellscanError, match=message):
        cellscan.load_table({**COLUMNS, **change}, root, **arguments)


@pytest.mark.parametrize("table", [3, None, "", [1, 2], "absent.csv"])
def test_what_is_no_table(table, tmp_path) -> None:
    with pytest.raises(cellscan.CellscanError):
        cellscan.load_table(table, tmp_path)


def test_pandas_is_imported_by_nobody(root) -> None:
    write_csv(root / "cells.csv", COLUMNS)
    code = f"import sys, cellscan; cellscan.load_table({str(root / 'cells.csv')!r}); print('pandas' in sys.modules)"
    assert run_python(code) == "False"
