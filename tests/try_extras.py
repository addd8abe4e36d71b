"""Install the wheel with each extra alone, in a fresh environment, and use it; called by `make extras`, not by pytest.

    python tests/try_extras.py dist/cellscan-0.1.0-py3-none-any.whl [EXTRA ...]

Before the extra is installed, the same code must raise `MissingExtraError` with the command that installs it. The wheel
without any extra is tried first: the command line, an HTML page and an estimator of scikit-learn.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
NOT_FOR_USERS = {"cuda", "dev", "docs"}  # `cuda` needs gigabytes and a GPU.
CELLS = "import cellscan; cells = cellscan.synthetic_cells(40, seed=0, progress=False)\n"
EXTRAS = {
    "": """
from cellscan.sklearn import CellClassifier
from PIL import Image
assert CellClassifier(epochs=1, image_size=16).fit(cells.images(16, progress=False), cells.labels).score(
    cells.images(16, progress=False), cells.labels) > 0
report = cellscan.Classifier.pretrained().evaluate(cells, progress=False)
report.to_html("report.html", cells=cells)
Image.fromarray(cells[0].image).save("cell.png")
""",
    "dataframe": "print(cells.to_dataframe().shape)",
    "detect": """
print(cellscan.Detector.pretrained().evaluate(cellscan.synthetic_fields(1, seed=0), progress=False).ap50)
""",
    "export": """
from PIL import Image
Image.fromarray(cells[0].image).save("cell.png")
clf = cellscan.Classifier(image_size=16, class_names=("a", "b"), seed=0)
clf.export("model.stablehlo")
clf.export("model.onnx")
""",
    "hub": """
try:
    cellscan.Classifier(image_size=16, class_names=("a", "b")).push_to_hub("nobody/nothing", token="hf_none")
except cellscan.ModelFileError as error:  # There is no hub at the address in HF_ENDPOINT.
    print(error)
""",
    "tiff": """
from PIL import Image
pages = [Image.new("L", (20, 20), value) for value in (30, 200)]
text = "ImageJ=1.53\\nimages=2\\nchannels=2\\n"
pages[0].save("stack.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw", description=text)
reading = cellscan.Reading(channel=1)
print(cellscan.Classifier.pretrained().predict("stack.tif", reading=reading, progress=False)[0].label_name)
""",
}
AFTER = {"": ["cellscan --help", "cellscan predict cell.png"], "export": ["python model.onnx.py cell.png"]}
"""Commands that are run after the code, in the same folder."""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, and return its exit code and what it printed."""
    env = {**os.environ, "CELLSCAN_CACHE": str(folder / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def need(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of what a command printed, or exit with its error."""
    if done.returncode:
        sys.exit(f"{' '.join(done.args)}\n{done.stdout}{done.stderr}")
    return (done.stdout.strip().splitlines() or [""])[-1]


def try_extra(wheel: Path, extra: str, folder: Path) -> None:
    """Try the wheel without and with an extra, or without any if `extra` is empty."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    python, install = str(programs / "python"), ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    use = [
        python,
        "-I",
        "-W",
        "error::DeprecationWarning:cellscan",
        "-c",
        CELLS + EXTRAS[extra],
    ]
    need(run([python, *install, str(wheel)], folder))
    if extra:
        done = run(use, folder)
        message = (done.stderr.strip().splitlines() or ["no error"])[-1]
        if "MissingExtraError" not in message or f"pip install 'cellscan[{extra}]'" not in message:
            sys.exit(
                f"{extra}: without it, expected a MissingExtraError with the command; came:\n{done.stderr}{done.stdout}"
            )
        print(f"{extra}: without it: {message}")
        need(run([python, *install, f"{wheel}[{extra}]"], folder))
    need(run([python, "-m", "pip", "check"], folder))
    told = [need(run(use, folder))]
    for command in AFTER.get(extra, []):
        program, *arguments = command.split()
        told.append(need(run([str(programs / program), *arguments], folder)))
    print(f"{extra or 'no extra'}: works: {'; '.join(filter(None, told))}", flush=True)


def main() -> None:
    """Try the extras that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("extra", nargs="*", default=list(EXTRAS), help='"" is the wheel without extras')
    args = parser.parse_args()
    declared = set(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"])
    assert declared - NOT_FOR_USERS == set(EXTRAS) - {""}, declared
    for extra in args.extra:
        with tempfile.TemporaryDirectory() as folder:
            try_extra(args.wheel.absolute(), extra, Path(folder))


if __name__ == "__main__":
    main()
