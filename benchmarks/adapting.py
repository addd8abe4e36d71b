"""Adapt a detector to a laboratory that was left out of its training, with few annotated fields of it.

    python benchmarks/adapting.py --data FOLDER --out FOLDER [--laboratory IML]

Run `several_laboratories.py` with the same --out first; its detector was trained without the laboratory. For 5, 10, 20
and 40 annotated fields, the detector is trained further on mosaics of these fields and on composed fields, which keep
what it knows of infected cells. A fifth of the annotated fields is kept apart to choose the thresholds. The script
prints the metrics on test fields, and the average precision on another laboratory, before and after. Results are stored
in a JSON file; those that are already there are not measured again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import versions
from several_laboratories import DIAMETERS, INFECTED_SHARE, LABORATORIES, load, test_fields

import cellscan

COUNTS = (0, 5, 10, 20, 40)


def adapt(
    det: cellscan.Detector, fields: cellscan.FieldDataset, cells: cellscan.CellDataset, args: argparse.Namespace
) -> None:
    """Train the detector further on annotated fields, and choose its thresholds."""
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
    if fields[:kept].per_class()["infected"]:
        det.choose_threshold(fields[:kept], progress=False)


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
    cells = cellscan.load_malaria(args.data / "cell_images")
    for count in COUNTS:
        if str(count) not in known:
            det, start = cellscan.Detector.load(folder / "detector.safetensors"), time.monotonic()
            if count:
                adapt(det, local[order[:count]], cells, args)
            seconds = time.monotonic() - start
            report, elsewhere = det.evaluate(test, progress=False), det.evaluate(test_fields(args.data, other))
            known[str(count)] = {
                "AP50": report.ap50_per_class, "F1": report.f1_per_class, "count error": report.count_error,
                f"AP50 red {other}": elsewhere.ap50_per_class[0], "seconds": seconds,
            }  # fmt: skip
            file.write_text(json.dumps(known, indent=1))
        row = known[str(count)]
        print(
            f"{count:>3} fields of {args.laboratory}: AP50 {row['AP50'][0]:.3f} / {row['AP50'][1]:.3f}, "
            f"F1 {row['F1'][0]:.3f} / {row['F1'][1]:.3f}, count error {row['count error']:.1%}; "
            f"AP50 red on {other} {row[f'AP50 red {other}']:.3f}; {row['seconds']:.0f} s",
            flush=True,
        )
    print(f"{len(test)} test fields of {args.laboratory}\n{versions()}")


if __name__ == "__main__":
    main()
