"""Adapt the bundled models to a laboratory that was left out of their training, with few annotated fields of it.

    python benchmarks/adapting.py --data FOLDER --out FOLDER [--laboratory IML]

Run `several_laboratories.py` with the same --out first; its detector was trained without the laboratory. For 5, 10, 20
and 40 annotated fields, the detector is trained further on mosaics of these fields and on composed fields, which keep
what it knows of infected cells. A fifth of the annotated fields is kept apart to choose the thresholds; if it has no
infected cells, all annotated fields choose them. If there are infected cells, the classifier is trained further, too:
on cells of the fields, on cells of fields that are composed in their colours, and on NIH cells. The script prints the
metrics on test fields and, before and after, the average precision on another laboratory and the accuracy on NIH cells
of patients that were in the first training of the classifier, not in this one. Results are stored in a JSON file; those
that are already there are not measured again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import versions
from several_laboratories import CROP_SCALE, DIAMETERS, INFECTED_SHARE, LABORATORIES, load, test_fields

import cellscan

COUNTS = (0, 5, 10, 20, 40)
CLASSES = {"red blood cell": "uninfected", "infected": "parasitized"}
NIH_CELLS, LOCAL_CELLS, LOCAL_INFECTED, COMPOSED_FIELDS = 2000, 300, 150, 100


def make_cells(fields: cellscan.FieldDataset, cells: cellscan.CellDataset) -> cellscan.CellDataset:
    """Return cells to train the classifier on: of annotated fields, of composed fields in their colours, and of NIH.

    There are few infected cells in the annotated fields, so they are repeated. The composed fields show many other
    infected cells in these colours; without them, the classifier would learn that cells of this laboratory are healthy.
    """
    composed = cellscan.compose_fields(
        cells, COMPOSED_FIELDS, cell_diameter=(60, 90), size=(540, 720), infected_share=0.4, style=fields, seed=1,
        progress=False,
    )  # fmt: skip
    sets = [cells.select(np.random.default_rng(0).choice(len(cells), NIH_CELLS, replace=False))]
    for scale in (1.0, CROP_SCALE):
        local = fields.crops(scale=scale, max_per_class=max(LOCAL_CELLS // len(fields), 1))
        infected = np.flatnonzero(local.labels == local.class_names.index("infected"))
        repeated = np.tile(infected, LOCAL_INFECTED // max(len(infected), 1))
        sets += [local, local.select(repeated), composed.crops(scale=scale, max_per_class=6)]
    return cellscan.concat([sets[0], *[part.rename_classes(CLASSES) for part in sets[1:]]])


def adapt(
    det: cellscan.Detector,
    clf: cellscan.Classifier,
    fields: cellscan.FieldDataset,
    cells: cellscan.CellDataset,
    args: argparse.Namespace,
) -> None:
    """Train the models further on annotated fields, and choose the thresholds."""
    kept = max(len(fields) // 5, 1)
    mosaics = cellscan.mosaic_fields(fields[kept:], args.mosaics, cell_diameter=DIAMETERS, margin=0.3, seed=0)
    composed = cellscan.compose_fields(
        cells,
        args.mosaics // 2,
        cell_diameter=DIAMETERS,
        infected_share=INFECTED_SHARE,
        style=fields,
        seed=0,
        progress=False,
    )
    recipe = cellscan.Recipe(learning_rate=args.rate)
    det.fit(cellscan.concat([mosaics, composed]), epochs=args.epochs, batch_size=8, recipe=recipe, progress=False)
    if fields[kept:].per_class()["infected"]:
        clf.fit(make_cells(fields[kept:], cells), epochs=2, recipe=cellscan.Recipe(learning_rate=1e-3), progress=False)
    if fields.per_class()["infected"]:
        apart = fields[:kept]
        det.choose_threshold(apart if apart.per_class()["infected"] else fields, classifier=clf, progress=False)


def main() -> None:
    """Measure the results that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--laboratory", choices=LABORATORIES, default="IML")
    parser.add_argument("--mosaics", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5e-4)
    args = parser.parse_args()
    folder = args.out / f"without-{args.laboratory}"
    file = folder / "adapting.json"
    known: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    local = load(args.data, args.laboratory)[0]
    order = np.random.default_rng(0).permutation(len(local))
    test = test_fields(args.data, args.laboratory)
    other = "draaslan" if args.laboratory != "draaslan" else "BCCD"
    infected = test.per_class()["infected"] > 0
    cells, kept = cellscan.load_malaria(args.data / "cell_images").split(test=0.15, by="patient", seed=0)
    for count in COUNTS:
        if str(count) not in known:
            det, start = cellscan.Detector.load(folder / "detector.safetensors"), time.monotonic()
            clf = cellscan.Classifier.pretrained()
            if count:
                adapt(det, clf, local[order[:count]], cells, args)
            seconds = time.monotonic() - start
            report, elsewhere = det.evaluate(test, progress=False), det.evaluate(test_fields(args.data, other))
            known[str(count)] = {
                "AP50": report.ap50_per_class, "F1": report.f1_per_class, "count error": report.count_error,
                f"AP50 red {other}": elsewhere.ap50_per_class[0], "seconds": seconds,
            }  # fmt: skip
            if infected:
                joint = det.evaluate(test, classifier=clf, progress=False)
                known[str(count)] |= {
                    "AP50 joint": joint.ap50_per_class[1], "F1 joint": joint.f1_per_class[1],
                    "NIH": clf.evaluate(kept, progress=False).accuracy,
                }  # fmt: skip
            file.write_text(json.dumps(known, indent=1))
        row = known[str(count)]
        print(
            f"{count:>3} fields of {args.laboratory}: AP50 {row['AP50'][0]:.3f} / {row['AP50'][1]:.3f}, "
            f"F1 {row['F1'][0]:.3f} / {row['F1'][1]:.3f}, count error {row['count error']:.1%}; "
            f"AP50 red on {other} {row[f'AP50 red {other}']:.3f}; {row['seconds']:.0f} s",
            flush=True,
        )
        if infected:
            print(
                f"    infected, with the classifier: AP50 {row['AP50 joint']:.3f}, F1 {row['F1 joint']:.3f}; "
                f"accuracy on {len(kept):,} NIH cells {row['NIH']:.4f}",
                flush=True,
            )
    print(f"{len(test)} test fields of {args.laboratory}\n{versions()}")


if __name__ == "__main__":
    main()
