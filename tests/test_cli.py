"""The command line: output, exit codes and messages of each command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cellscan
from cellscan.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder of cells with a file of patients beside it."""
    root = tmp_path_factory.mktemp("cells")
    cells = cellscan.synthetic_cells(80, seed=0, difficulty="easy")
    lines = ["name,patient"]
    for cell in cells:
        kind = cells.class_names[cell.label]
        (root / "cells" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell.image).save(root / "cells" / kind / cell.name)
        lines.append(f"{cell.name},{cell.patient}")
    (root / "patients.csv").write_text("\n".join(lines))
    return root


def test_train_evaluate_predict_and_info(folder, tmp_path, capsys) -> None:
    data = [str(folder / "cells"), "--patients", str(folder / "patients.csv")]
    model = str(tmp_path / "m.safetensors")
    options = ["--image-size", "16", "--epochs", "1", "--test", "0.3", "--format", "json"]
    assert main(["train", *data, "--out", model, *options]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["metrics"]
    page = tmp_path / "report.html"
    assert main(["evaluate", *data, "--model", model, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert page.read_text().count("data:image/jpeg") == 48
    assert "PATIENT OVERLAP" in out
    assert "not a medical device" in out
    assert main(["predict", str(folder / "cells" / "uninfected"), "--model", model, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 40
    assert {row["label"] for row in rows} <= {"parasitized", "uninfected"}
    assert main(["predict", str(folder / "cells" / "uninfected"), "--model", model, "--threshold", "1.5"]) == 1
    assert "threshold" in capsys.readouterr().err
    assert main(["info", model]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "small_cnn"


def test_without_patients_it_says_so(folder, tmp_path, capsys) -> None:
    model = str(tmp_path / "m.safetensors")
    assert main(["train", str(folder / "cells"), "--out", model, "--image-size", "16", "--epochs", "1"]) == 0
    assert "patients are unknown" in capsys.readouterr().err


def test_screen_in_three_formats(tmp_path, capsys) -> None:
    fields = cellscan.synthetic_fields(2, seed=0)
    for field in fields:
        Image.fromarray(field.image).save(tmp_path / field.name)
    call = ["screen", str(tmp_path), "--no-classifier", "--cell-diameter", "50"]
    smear = cellscan.screen(sorted(map(str, tmp_path.iterdir())), classifier=None, cell_diameter=50)
    assert main(call) == 0
    assert "no claim" in capsys.readouterr().out
    page = tmp_path / "pages" / "smear.html"
    page.parent.mkdir()
    assert main([*call, "--format", "csv", "--html", str(page)]) == 0
    assert "Counts by field" in page.read_text()
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "field,red_cells,infected,error"
    assert len(said.out.splitlines()) == 3
    assert said.err.startswith("Warning: ")
    assert main([*call, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["red_cells"] == smear.red_cells
    assert main([*call[:3], "--cell-diameter", "large"]) == 1
    assert '--cell-diameter is large; expected pixels, "auto" or "none"' in capsys.readouterr().err
    capsys.readouterr()
    assert main(call) == 0
    assert "1 file is not read: pages/smear.html" in capsys.readouterr().err
    (tmp_path / "bad.png").write_text("no image")
    capsys.readouterr()
    assert main([*call, "--format", "csv"]) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{tmp_path / 'bad.png'},,,")
    with pytest.raises(SystemExit) as stopped:
        main([*call, "--classifier", "clf.safetensors"])
    assert stopped.value.code == 2


def test_screen_of_one_smear_per_folder(tmp_path, capsys) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for field in cellscan.synthetic_fields(2, seed=ord(name)):
            Image.fromarray(field.image).save(tmp_path / name / field.name)
    page = tmp_path / "smears.html"
    call = ["screen", str(tmp_path), "--no-classifier", "--cell-diameter", "50", "--by", "folder"]
    assert main([*call, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "a") in said
    assert str(tmp_path / "b") in said
    assert "Screening of smears" in page.read_text()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "bad.png").write_text("no image")
    capsys.readouterr()
    assert main([*call, "--format", "json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    assert [row["smear"] for row in rows] == [str(tmp_path / name) for name in "abc"]
    assert [row["fields"] for row in rows] == [2, 2, ""]
    assert "bad.png" in rows[2]["refused"]
    assert rows[0]["warnings"]
    assert main([*call, "--format", "csv"]) == 3
    said = capsys.readouterr()
    assert [len(said.out.splitlines()), "Warning" in said.err] == [4, False]


def test_the_cache_is_shown_and_cleared(capsys) -> None:
    np.asarray(cellscan.synthetic_cells(8, seed=0).images(8))
    assert main(["cache"]) == 0
    assert "MB" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "deleted" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["predict", "screen", "train", "evaluate", "info", "cache"])
def test_help_shows_an_example(command, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"cellscan {command}" in out.split("example:")[1]
    assert "not a medical device" in " ".join(out.split())


def test_wrong_usage_exits_with_two() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "cells"])
    assert stopped.value.code == 2
