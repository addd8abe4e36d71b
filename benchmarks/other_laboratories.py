"""Detection and screening on fields of laboratories that are not in training.

    python benchmarks/other_laboratories.py --data FOLDER --out other_laboratories.json

FOLDER contains `iml_malaria`, `bccd`, `chula_rbc12` and `draaslan`, unpacked. Results are stored in the JSON file, and
results that are already there are not measured again, so an interrupted run continues when it is started again. The
script prints results of the bundled models, with `cell_diameter=None` (as trained) and with `cell_diameter="auto"`: on
fields of Chula that chose no threshold, on IML fields redrawn larger and smaller, on the middle of IML fields, and on
IML fields out of focus and compressed.
`several_laboratories.py` prints those on the test fields of all laboratories.

With --diameters, the script measures the estimates of the cell diameter alone. Their constants were chosen on fields
with an even position (in the order of the annotations; for BCCD, by name). The printed results are for the fields with
an odd position.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import versions
from PIL import Image, ImageFilter

import cellscan

CLASSES = ("red blood cell", "infected")
Change = Callable[[np.ndarray], np.ndarray]


def resize(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a rescaled image."""
    if factor == 1:
        return image
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def blur(image: np.ndarray) -> np.ndarray:
    """Return an image out of focus: blurred by 2 pixels, a fortieth of a cell."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))


def compress(image: np.ndarray) -> np.ndarray:
    """Return an image that was stored as a JPEG of quality 10."""
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=10)
    return np.asarray(Image.open(stored))


def cut_middle(path: Path, boxes: np.ndarray, part: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of a field, a part of each side, and the boxes whose centre lies in it."""
    (image,) = read([path])
    size = np.array(image.shape[1::-1])
    low = ((1 - part) / 2 * size).round().astype(int)
    high = size - low
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > low) & (centres < high)).all(1)
    return image[low[1] : high[1], low[0] : high[0]], boxes[inside] - np.tile(low, 2)


def read(paths: list[Path]) -> list[np.ndarray]:
    """Read images as RGB arrays."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def load_sets(data: Path) -> dict[str, Callable[[], Iterator[tuple[Path, np.ndarray]]]]:
    """Return, by the name of a set, an iterator over its fields: path, and red-cell boxes (n, 4) or points (n, 2)."""

    def boxed(fields: cellscan.FieldDataset, folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
        red = [n for n, name in enumerate(fields.class_names) if name.lower() in ("rbc", "red blood cell", "infected")]
        for name, boxes, labels in zip(fields.names.tolist(), fields.boxes, fields.labels, strict=True):
            yield folder / name, boxes[np.isin(labels, red)]

    def iml() -> Iterator[tuple[Path, np.ndarray]]:
        file = data / "iml_malaria" / "annotations.json"
        yield from boxed(cellscan.load_fields(file, classes=cellscan.IML_TWO_CLASS), file.parent / "images")

    def bccd() -> Iterator[tuple[Path, np.ndarray]]:
        yield from boxed(cellscan.load_fields(data / "bccd" / "Annotations"), data / "bccd" / "JPEGImages")

    def plain(name: str, key: str) -> Callable[[], Iterator[tuple[Path, np.ndarray]]]:
        def each() -> Iterator[tuple[Path, np.ndarray]]:
            for field in json.loads((data / name / "annotations.json").read_text())["fields"]:
                entries = [entry for entry in field[key] if key == "points" or entry[4] in (0, "rbc")]
                width = 2 if key == "points" else 4
                yield data / name / field["file"], np.array([e[:width] for e in entries], np.float64).reshape(-1, width)

        return each

    return {"IML": iml, "BCCD": bccd, "Chula": plain("chula_rbc12", "points"), "draaslan": plain("draaslan", "boxes")}


def true_diameter(boxes: np.ndarray, width: int, height: int) -> float:
    """Return the median side of the boxes inside the image; Chula's cells are about 91 px in images 1280 px wide."""
    if boxes.shape[1] == 2:
        return 91 * width / 1280
    inside = (boxes[:, :2] > 2).all(1) & (boxes[:, 2:] < (width - 2, height - 2)).all(1)
    sides = (boxes[inside, 2:] - boxes[inside, :2]) if inside.any() else boxes[:, 2:] - boxes[:, :2]
    return float(np.median(np.sqrt(sides.prod(1)))) if len(sides) else float("nan")


def measure_diameters(fields: list[tuple[Path, np.ndarray]], factor: float) -> dict[str, Any]:
    """Measure the errors of the estimated cell diameter."""
    ratios, seconds = [], []
    for path, boxes in fields:
        (image,) = read([path])
        truth = true_diameter(boxes, image.shape[1], image.shape[0])
        if not np.isfinite(truth):
            continue
        image = resize(image, factor)
        start = time.process_time()
        try:
            ratios.append(cellscan.estimate_cell_diameter(image)[0] / factor / truth)
        except cellscan.DataError:
            ratios.append(float("nan"))
        seconds.append(time.process_time() - start)
    off = np.abs(np.array(ratios) - 1)
    return {
        "fields": len(ratios), "median ratio": float(np.nanmedian(ratios)), "within 15 %": float((off < 0.15).mean()),
        "within 30 %": float((off < 0.3).mean()), "none seen": int(np.isnan(ratios).sum()),
        "ms": 1000 * float(np.mean(seconds)),
    }  # fmt: skip


def measure_screening(
    fields: list[tuple[Path, np.ndarray]], part: float, factor: float, change: Change | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Run `screen` on the middle of rescaled or otherwise changed fields as one smear, and return its results."""
    none = np.zeros((0, 4))
    middles = (resize(cut_middle(path, none, part)[0], factor) for path, _ in fields)
    images = middles if change is None else map(change, middles)
    try:
        smear = cellscan.screen(images, progress=False, **options)
    except cellscan.DataError as error:
        return {"fields": len(fields), "refused": str(error)}
    return {
        "fields": len(fields), "red cells": smear.red_cells, "called": smear.infected, "apparent": smear.apparent,
        "claimed": smear.parasitemia, "warnings": list(smear.warnings),
    }  # fmt: skip


def measure_boxes(
    fields: list[tuple[Path, np.ndarray]], part: float, factor: float, mode: str | None
) -> dict[str, Any]:
    """Return the average precision of red cells, infected or not, and the mean error of counts."""
    cut = [cut_middle(path, field_boxes, part) for path, field_boxes in fields]
    images = [resize(image, factor) for image, _ in cut]
    boxes = [field_boxes * factor for _, field_boxes in cut]
    labels = [np.zeros(len(field_boxes), int) for field_boxes in boxes]
    truth = cellscan.FieldDataset.from_arrays(images, boxes, labels, class_names=CLASSES)
    report = cellscan.Detector.pretrained().evaluate(truth, cell_diameter=mode, progress=False)
    return {
        "fields": len(fields), "cells": sum(map(len, boxes)), "AP50 red": report.ap50_per_class[0],
        "count error": report.count_error,
    }  # fmt: skip


def main() -> None:
    """Measure the results that are missing, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("other_laboratories.json"))
    parser.add_argument("--max-fields", type=int, help="fields of a set, evenly taken; left out, all")
    parser.add_argument("--diameters", action="store_true")
    args = parser.parse_args()
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    sets = {name: list(each()) for name, each in load_sets(args.data).items()}

    def show(title: str, call: Callable[[], dict[str, Any]]) -> None:
        if title not in known:
            known[title] = call()
            part = args.out.with_suffix(".part")
            part.write_text(json.dumps(known, indent=1))
            part.replace(args.out)
        values = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in known[title].items()}
        print(f"{title}: {', '.join(f'{k} {v}' for k, v in values.items())}", flush=True)

    def few(name: str, step: int = 1) -> list[tuple[Path, np.ndarray]]:
        every = sets[name][step - 1 :: step]
        count = min(args.max_fields or len(every), len(every))
        return [every[int(i)] for i in np.linspace(0, len(every) - 1, count)]

    most = f", {args.max_fields}" if args.max_fields else ""
    if args.diameters:
        for factor in (1.0, 0.25, 0.5, 2.0, 4.0):
            for name in sets:
                show(f"diameter {name} x {factor:g}{most}", lambda n=name, f=factor: measure_diameters(few(n, 2), f))
    else:
        modes: tuple[tuple[str, dict[str, Any]], ...] = (
            ("as trained, detector alone", {"cell_diameter": None, "classifier": None}),
            ("auto, detector alone", {"classifier": None}),
            ("auto, both", {}),
        )
        for setting, options in modes:
            show(f"screen Chula {setting}{most}", lambda o=options: measure_screening(few("Chula", 2), 1, 1, None, o))
        cases = [(f"redrawn to {pixels} px", 1.0, pixels / 82) for pixels in (10, 20, 35, 55, 82, 100, 120, 150, 200)]
        cases += [(f"{part:.0%} of each side", part, 1.0) for part in (0.8, 0.6, 0.4)]
        for title, part, factor in cases:
            for mode in (None, "auto"):
                show(
                    f"boxes IML {title} {mode}{most}",
                    lambda p=part, f=factor, m=mode: measure_boxes(few("IML"), p, f, m),
                )
            for setting, options in (modes[0], modes[2]):
                show(
                    f"screen IML {title} {setting}{most}",
                    lambda p=part, f=factor, o=options: measure_screening(few("IML"), p, f, None, o),
                )
        for title, change in (("blurred", blur), ("JPEG of quality 10", compress)):
            show(f"screen IML {title}{most}", lambda c=change: measure_screening(few("IML"), 1, 1, c, {}))
    print(versions())


if __name__ == "__main__":
    main()
