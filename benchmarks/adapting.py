"""Adapt the bundled models to a laboratory that was left out of their training, with few annotated fields of it.

    python benchmarks/adapting.py --data FOLDER --out FOLDER [--laboratory IML]

Run `several_laboratories.py` with the same --out first; its detector was trained without the laboratory. For 5, 10, 20
and 40 annotated fields, the models are trained further as the page "Your own microscope" describes it: the detector on
mosaics of three fifths of the fields; if these have infected cells, the classifier on their cells, on cells of fields
that are composed in their colours, and on NIH cells. The other fields choose the thresholds; if they have no infected
cells, all annotated fields do. The script prints the metrics on test fields, for infected cells also with the
classifier as it was, and, for what the models had learned before, the average precision on another laboratory and the
accuracy on NIH cells of patients that were in the first training of the classifier, not in this one. Results are stored
in a JSON file; those that are already there are not measured again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import versions
from several_laboratories import CROP_SCALE, DIAMETERS, LABORATORIES, load, test_fields

import cellscan

COUNTS = (0, 5, 10, 20, 40)
CLASSES = {"red blood cell": "uninfected", "infected": "parasitized"}


def make_cells(fields: cellscan.FieldDataset, cells: cellscan.CellDataset) -> cellscan.CellDataset:
    """Return cells to train the classifier on: of annotated fields, of composed fields in their colours, and of NIH.

    There are few infected cells in the annotated fields, so they are repeated. The composed fields show many other
    infected cells in these colours; without them, the classifier would learn that cells of this laboratory are healthy.
    """
    composed = cellscan.compose_fields(
        cells, 100, cell_diameter=(60, 90), size=(540, 720), infected_share=0.4, style=fields, progress=False
    )
    own, drawn = (
        part.crops(scale=CROP_SCALE, max_per_class=most).rename_classes(CLASSES)
        for part, most in ((fields, 50), (composed, 12))
    )
    infected = own[own.labels == own.class_names.index("parasitized")]
    return cellscan.concat([cells[::10], drawn, own, *[infected] * 10])


def adapt(
    det: cellscan.Detector,
    clf: cellscan.Classifier,
    fields: cellscan.FieldDataset,
    cells: cellscan.CellDataset,
    args: argparse.Namespace,
) -> None:
    """Train the models further on annotated fields."""
    mosaics = cellscan.mosaic_fields(fields, args.mosaics, cell_diameter=DIAMETERS)
    det.fit(mosaics, epochs=args.epochs, recipe=cellscan.Recipe(learning_rate=args.rate), progress=False)
    if fields.per_class()["infected"]:
        clf.fit(make_cells(fields, cells), epochs=2, recipe=cellscan.Recipe(learning_rate=1e-3), progress=False)


def measure(
    det: cellscan.Detector, clf: cellscan.Classifier, valid: cellscan.FieldDataset | None, test: cellscan.FieldDataset
) -> tuple[float, float]:
    """Choose the thresholds, if there are fields for it; return AP50 and F1 of infected cells with the classifier."""
    if valid is not None:
        det.choose_threshold(valid, classifier=clf, progress=False)
    report = det.evaluate(test, classifier=clf, progress=False)
    return report.ap50_per_class[1], report.f1_per_class[1]


def main() -> None:
    """Measure the results that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--laboratory", choices=LABORATORIES, default="IML")
    parser.add_argument("--mosaics", type=int, default=60)
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
            valid, before, joint = None, (float("nan"),) * 2, (float("nan"),) * 2
            if count:
                apart, fields = local[order[: 2 * count // 5]], local[order[2 * count // 5 : count]]
                adapt(det, clf, fields, cells, args)
                valid = apart if apart.per_class()["infected"] else local[order[:count]]
            seconds = time.monotonic() - start
            if infected:
                before = measure(det, cellscan.Classifier.pretrained(), valid, test)
                joint = measure(det, clf, valid, test) if count else before
            report, elsewhere = det.evaluate(test, progress=False), det.evaluate(test_fields(args.data, other))
            known[str(count)] = {
                "AP50": report.ap50_per_class, "F1": report.f1_per_class, "count error": report.count_error,
                f"AP50 red {other}": elsewhere.ap50_per_class[0], "seconds": seconds, "joint before": before,
                "joint": joint, "NIH": clf.evaluate(kept, progress=False).accuracy if infected else float("nan"),
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
                f"    infected, with the classifier: AP50 {row['joint'][0]:.3f}, F1 {row['joint'][1]:.3f}, as it was "
                f"{row['joint before'][0]:.3f}, {row['joint before'][1]:.3f}; accuracy on {len(kept):,} NIH cells "
                f"{row['NIH']:.4f}",
                flush=True,
            )
    print(f"{len(test)} test fields of {args.laboratory}\n{versions()}")


if __name__ == "__main__":
    main()
