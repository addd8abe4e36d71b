"""The smallest possible command line: ``python -m cellscan``, and ``python -m cellscan predict IMAGES...``."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from cellscan.errors import CellscanError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print versions and devices, or predict images as CSV on standard output; return the exit status.

    Status 1: an image could not be read, and its line says why; or the model file could not.

    Examples
    --------
    >>> from cellscan.__main__ import main
    >>> main(["predict", "no.png"])
    index,name,label,p_parasitized,p_uninfected,novelty,novel,error
    0,no.png,,,,,,no.png: there is no such file
    1
    """
    parser = argparse.ArgumentParser(
        prog="python -m cellscan",
        description="Blood-cell images in, honest classifiers out. Research use only, not a medical device.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    predict = commands.add_parser("predict", help="classify cropped cells, one line of CSV each, on standard output")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="files, and folders with their sub-folders")
    predict.add_argument("--model", help="a file of Classifier.save; left out, the bundled model")
    args = parser.parse_args(arguments)
    try:
        return _info() if args.command is None else _predict(args.images, args.model)
    except CellscanError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has enough, such as head
        sys.stderr.close()
        return 0


def _info() -> int:
    import jax

    from cellscan.card import library_versions

    for name, version in library_versions().items():
        print(f"{name:10} {version}")
    for device in jax.devices():
        print(f"{'device':10} {device.device_kind} ({device.platform}, {device.id})")
    print("Research use only, not a medical device.")
    return 0


def _predict(images: Sequence[str], model: str | None) -> int:
    from cellscan.classifier import Classifier
    from cellscan.data.images import image_files

    _keep_programs()
    clf = Classifier.pretrained() if model is None else Classifier.load(model)
    paths: list[str] = []
    for image in images:
        paths += [str(Path(image, file)) for file in image_files(Path(image))] if Path(image).is_dir() else [image]
    if not paths:
        raise CellscanError(f"there are no images in {', '.join(images)}")
    preds = clf.predict(paths, on_error="skip", progress=sys.stderr.isatty())
    csv.writer(sys.stdout, lineterminator="\n").writerows(preds.rows())
    return 1 if preds.failed else 0


def _keep_programs() -> None:
    """Keep programs, unless the user has a cache of JAX's or wants none; without a folder the answer is only later."""
    import os

    from cellscan.tasks.keeping import keep_programs

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        keep_programs()
    except CellscanError as error:
        print(f"compiled programs are not kept: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
