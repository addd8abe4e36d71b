"""Time to read annotated fields, for every format.

    python benchmarks/annotations.py [--fields 1300] [--boxes 80000] [--runs 3]

All fields are links to one small image. Boxes are drawn at random; they are written as polygons or points if a format
has no boxes. Each row is the median of --runs calls of `load_fields`, after one call that is not counted.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import cellscan
from cellscan.data.formats.registry import FORMATS

SIZE = (640, 480)
NAMES = ("red blood cell", "infected")

Rows = Sequence[tuple[int, int, int, int, int]]  # left, top, right, bottom, class


def write_json(folder: Path, name: str, document: object) -> None:
    (folder / name).write_text(json.dumps(document))


def ring(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def labelme(folder: Path, fields: dict[str, Rows]) -> None:
    for name, rows in fields.items():
        shapes = [{"label": NAMES[k], "points": [[a, b], [c, d]], "shape_type": "rectangle"} for a, b, c, d, k in rows]
        write_json(folder, f"{name[:-4]}.json", {"shapes": shapes, "imagePath": name})


def via(folder: Path, fields: dict[str, Rows]) -> None:
    def region(a: int, b: int, c: int, d: int, k: int) -> dict:
        shape = {"name": "rect", "x": a, "y": b, "width": c - a, "height": d - b}
        return {"shape_attributes": shape, "region_attributes": {"class": NAMES[k]}}

    images = {name: {"filename": name, "regions": [region(*row) for row in rows]} for name, rows in fields.items()}
    write_json(folder, "via.json", {"_via_img_metadata": images})


def cvat(folder: Path, fields: dict[str, Rows]) -> None:
    lines = ["<annotations>"]
    for name, rows in fields.items():
        lines.append(f'<image name="{name}" width="{SIZE[0]}" height="{SIZE[1]}">')
        lines += [f'<box label="{NAMES[k]}" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for a, b, c, d, k in rows]
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))


def label_studio(folder: Path, fields: dict[str, Rows]) -> None:
    def region(a: int, b: int, c: int, d: int, k: int) -> dict:
        wide, high = SIZE
        value = {
            "x": 100 * a / wide,
            "y": 100 * b / high,
            "width": 100 * (c - a) / wide,
            "height": 100 * (d - b) / high,
        }
        return {"original_width": wide, "original_height": high, "value": {**value, "rectanglelabels": [NAMES[k]]}}

    tasks = [
        {"id": row, "data": {"image": f"/data/upload/1/0f1e2d3c-{name}"},
         "annotations": [{"result": [region(*one) for one in rows]}]}
        for row, (name, rows) in enumerate(fields.items())
    ]  # fmt: skip
    write_json(folder, "export.json", tasks)


def kitti(folder: Path, fields: dict[str, Rows]) -> None:
    for name, rows in fields.items():
        lines = [f"{NAMES[k].split()[0]} 0 0 0 {a} {b} {c} {d} 0 0 0 0 0 0 0" for a, b, c, d, k in rows]
        (folder / f"{name[:-4]}.txt").write_text("\n".join(lines))


def iml(folder: Path, fields: dict[str, Rows]) -> None:
    def thing(a: int, b: int, c: int, d: int, k: int) -> dict:
        return {"type": NAMES[k], "bbox": {"x": str(a), "y": str(b), "w": str(c - a), "h": str(d - b)}}

    entries = [{"image_name": name, "objects": [thing(*row) for row in rows]} for name, rows in fields.items()]
    write_json(folder, "annotations.json", entries)


def bbbc041(folder: Path, fields: dict[str, Rows]) -> None:
    def thing(a: int, b: int, c: int, d: int, k: int) -> dict:
        return {"bounding_box": {"minimum": {"r": b, "c": a}, "maximum": {"r": d, "c": c}}, "category": NAMES[k]}

    entries = [
        {"image": {"pathname": f"/images/{name}", "shape": {"r": SIZE[1], "c": SIZE[0]}},
         "objects": [thing(*row) for row in rows]}
        for name, rows in fields.items()
    ]  # fmt: skip
    write_json(folder, "training.json", entries)


def nih(folder: Path, fields: dict[str, Rows]) -> None:
    for name, rows in fields.items():
        lines = [f"{len(rows)},{SIZE[0]},{SIZE[1]}"]
        for number, (*box, kind) in enumerate(rows):
            lines.append(f"1-{number},{NAMES[kind]},No_comment,Polygon,4,{','.join(map(str, ring(*box)))}")
        (folder / f"{name[:-4]}.txt").write_text("\n".join(lines))


def chula(folder: Path, fields: dict[str, Rows]) -> None:
    for name, rows in fields.items():
        (folder / f"{name[:-4]}.txt").write_text(
            "".join(f"{(a + c) // 2} {(b + d) // 2} {k}\n" for a, b, c, d, k in rows)
        )


def lists(folder: Path, fields: dict[str, Rows]) -> None:
    entries = [{"file": name, "boxes": rows} for name, rows in fields.items()]
    write_json(folder, "annotations.json", {"classes": NAMES, "fields": entries})


def saved(format: str) -> Callable[[Path, dict[str, Rows]], None]:
    """Return a function that writes a format by `FieldDataset.save`."""

    def write(folder: Path, fields: dict[str, Rows]) -> None:
        lists(folder, fields)
        whole = cellscan.load_fields(folder)
        (folder / "annotations.json").unlink()
        whole.save(folder / "written", format, images=False)  # type: ignore[arg-type]
        for path in sorted((folder / "written").iterdir()):
            path.rename(folder / path.name)
        (folder / "written").rmdir()

    return write


WRITERS = {
    **{name: saved(name) for name in ("coco", "voc", "yolo", "csv")},
    "via": via, "labelme": labelme, "cvat": cvat, "label_studio": label_studio, "kitti": kitti, "iml": iml,
    "bbbc041": bbbc041, "nih": nih, "chula": chula, "lists": lists,
}  # fmt: skip


def draw(count: int, boxes: int) -> dict[str, Rows]:
    """Return random boxes for every field."""
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, count, boxes))
    corner = rng.integers(0, (600, 440), (boxes, 2))
    size = rng.integers(20, 40, (boxes, 2))
    rows = np.c_[corner, corner + size, rng.integers(0, 2, boxes)].tolist()
    found: dict[str, list] = {f"field_{number:04d}.png": [] for number in range(count)}
    for number, row in zip(owner.tolist(), rows, strict=True):
        found[f"field_{number:04d}.png"].append(row)
    return found  # type: ignore[return-value]


def main() -> None:
    """Measure every format and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=1300)
    parser.add_argument("--boxes", type=int, default=80000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    fields = draw(options.fields, options.boxes)
    assert set(WRITERS) == set(FORMATS), "a format has no row"
    print("| format | files | boxes or points read | seconds | of them on a core |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place) / "picture.png"
        Image.new("RGB", SIZE, "pink").save(picture)
        for name, write in WRITERS.items():
            folder = Path(place) / name
            folder.mkdir()
            for field in fields:
                os.link(picture, folder / field)
            write(folder, fields)
            taken, used, found = [], [], cellscan.load_fields(folder)
            for _ in range(options.runs):
                start, before = time.perf_counter(), time.process_time()
                found = cellscan.load_fields(folder)
                taken.append(time.perf_counter() - start)
                used.append(time.process_time() - before)
            assert (found.format, len(found)) == (name, options.fields)
            count = sum(map(len, found.boxes)) + sum(map(len, found.points))
            files = sum(path.is_file() and path.suffix != ".png" for path in folder.rglob("*"))
            numbers = f"{statistics.median(taken):.2f} | {statistics.median(used):.2f}"
            print(f"| {FORMATS[name].title} | {files:,} | {count:,} | {numbers} |", flush=True)
    from importlib.metadata import version

    print(
        f"\ncellscan {version('cellscan')}, numpy {version('numpy')}, pillow {version('pillow')}; "
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
