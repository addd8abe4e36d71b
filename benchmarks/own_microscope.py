"""Print the output of the page "Your own microscope".

    python benchmarks/own_microscope.py --data FOLDER

FOLDER contains `cell_images` and `iml_malaria`, unpacked. The 58 test fields of IML (`several_laboratories.py`) were in
the training of neither bundled model. Ten of them are annotated here, 24 are screened, and both models are tested on
the other 24 after further training. The error rates in the card of the bundled detector were measured on this
laboratory, and are removed first.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from accuracy import versions
from adapting import make_cells
from several_laboratories import test_fields

import cellscan


def make_detector() -> cellscan.Detector:
    """Return the bundled detector without error rates."""
    det = cellscan.Detector.pretrained()
    unknown = {"sensitivity": None, "false_positive_rate": None, "false_positive_sd": None, "likeness": None}
    assert det.card.detection is not None
    det._card = replace(det.card, detection=replace(det.card.detection, outcomes=(), **unknown))
    return det


def show(title: str, det: cellscan.Detector, clf: cellscan.Classifier, fields: cellscan.FieldDataset) -> None:
    """Print the line of a table: the detector, and detector and classifier together."""
    alone, both = det.evaluate(fields, progress=False), det.evaluate(fields, classifier=clf, progress=False)
    (red, infected), joint = alone.ap50_per_class, both.ap50_per_class[1]
    print(
        f"{title}: AP50 {red:.3f} / {infected:.3f}, infected with the classifier {joint:.3f}; recall of infected "
        f"{alone.recall_per_class[1]:.3f}, with the classifier {both.recall_per_class[1]:.3f}; precision with the "
        f"classifier {both.precision_per_class[1]:.3f}; error of a count {alone.count_error:.1%}",
        flush=True,
    )


def main() -> None:
    """Follow the page step by step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    fields = test_fields(args.data, "IML")
    rest = [row for row in range(len(fields)) if row % 6]
    annotated, photographs, others = fields[::6], fields[rest[::2]], fields[rest[1::2]]
    labels = np.concatenate(photographs.labels)
    print(f"annotated in the photographs: {(labels == 1).sum()} infected of {(labels >= 0).sum()}")
    sides = np.concatenate([np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) for boxes in photographs.boxes])
    print(f"median diameter of the annotated boxes: {np.median(sides):.0f}")

    det, clf = make_detector(), cellscan.Classifier.pretrained()
    print("\nstep 2")
    smear = cellscan.screen(photographs, det, classifier=clf, progress=False)
    print(smear)
    print("\nstep 3")
    print([round(field.cell_diameter or 0) for field in smear.fields])
    print("\nstep 4")
    print(annotated)
    print("\nstep 5")
    det.choose_threshold(annotated, classifier=clf, source="our microscope", progress=False)
    rules = det.card.detection
    assert rules is not None
    assert rules.sensitivity is not None
    assert rules.false_positive_rate is not None
    print(round(rules.sensitivity, 3), round(rules.false_positive_rate, 5))
    print("\nstep 6")
    print(cellscan.screen(photographs, det, classifier=clf, progress=False))
    print("\nstep 7", flush=True)
    show("bundled models", make_detector(), clf, others)
    train, kept = annotated[:6], annotated[6:]
    start = time.monotonic()
    mosaics = cellscan.mosaic_fields(train, 60, cell_diameter=(40, 60))
    det.fit(mosaics, epochs=4, recipe=cellscan.Recipe(learning_rate=5e-4), progress=False)
    det.choose_threshold(kept, classifier=clf, source="our microscope", progress=False)
    show(f"the detector trained, {(time.monotonic() - start) / 60:.1f} minutes", det, clf, others)
    start = time.monotonic()
    cells = cellscan.load_malaria(args.data / "cell_images")
    training = make_cells(train, cells)
    print(training)
    clf.fit(training, epochs=2, recipe=cellscan.Recipe(learning_rate=1e-3), progress=False)
    det.choose_threshold(kept, classifier=clf, source="our microscope", progress=False)
    show(f"the classifier, too, {(time.monotonic() - start) / 60:.1f} minutes", det, clf, others)
    print(versions())


if __name__ == "__main__":
    main()
