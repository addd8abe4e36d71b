"""The command line: ``cellscan``, or ``python -m cellscan``."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellscan.errors import ArgumentError, CellscanError

if TYPE_CHECKING:
    from cellscan.classifier import Classifier
    from cellscan.data.cells import CellDataset

OK, FAILED, PARTLY = 0, 1, 3
"""Exit codes: done; an error, which is on stderr; done, but some images could not be read. argparse exits with 2."""

_EPILOG = """examples:
  cellscan predict cells/ > predictions.csv          classify cropped cells with the bundled model
  cellscan screen smear/                             count red cells and infected cells over the fields of a smear
  cellscan train cell_images.zip --out model.safetensors
  cellscan evaluate cell_images.zip --model model.safetensors
  cellscan info model.safetensors                    print the card of a model
  cellscan cache --clear                             delete decoded images

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 an error, 2 wrong usage, 3 done, but some
images could not be read. Research use only, not a medical device."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Left out, those of the process.

    Examples
    --------
    >>> from cellscan.cli import main
    >>> main(["predict", "no.png"])
    index,name,label,p_parasitized,p_uninfected,novelty,novel,error
    0,no.png,,,,,,no.png: there is no such file
    3
    """
    args = _make_parser().parse_args(arguments)
    try:
        return args.run(args)
    except CellscanError as error:
        print(error, file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        sys.stderr.close()
        return OK


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellscan",
        description="Classify blood cells, screen smears, train and evaluate classifiers of malaria cells.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_info, model=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}. Research use only, not a medical device.",
            epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.set_defaults(run=run)
        return command

    predict = add("predict", _predict, "classify cropped cells, one line each", "cellscan predict cells/ > cells.csv")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help="files, and folders with their sub-folders")
    predict.add_argument("--model", metavar="FILE", help="file of Classifier.save (default: the bundled classifier)")
    predict.add_argument("--threshold", type=float, help="probability at and above which a cell is positive")
    _add_format(predict, ("csv", "json"))

    screen = add(
        "screen", _screen, "count red cells and infected cells over the fields of a smear, or of many",
        "cellscan screen smear/ --cell-diameter 54",
    )  # fmt: skip
    screen.add_argument("images", nargs="+", metavar="FIELDS", help="files, and folders with their sub-folders")
    screen.add_argument("--detector", metavar="FILE", help="file of Detector.save (default: the bundled detector)")
    second = screen.add_mutually_exclusive_group()
    second.add_argument("--classifier", metavar="FILE", help="file of Classifier.save (default: the bundled one)")
    second.add_argument("--no-classifier", action="store_true", help="count what the detector alone calls infected")
    screen.add_argument("--cell-diameter", default="auto", metavar="PX", help='pixels, "auto" (default) or "none"')
    screen.add_argument("--by", choices=("folder",), help="one smear for each folder (default: all fields are one)")
    _add_format(screen, ("text", "csv", "json"))
    _add_html(screen)

    train = add(
        "train", _train, "train a classifier, and evaluate it on patients that are not in training",
        "cellscan train cell_images.zip --out model.safetensors --epochs 10",
    )  # fmt: skip
    _add_data(train)
    train.add_argument("--out", required=True, metavar="FILE", help="file to write, .safetensors")
    train.add_argument("--network", default="small_cnn", help="see cellscan.list_backbones() (default: %(default)s)")
    train.add_argument("--weights", metavar="FILE", help="pretrained weights of the network")
    train.add_argument("--image-size", type=int, default=64, metavar="PX", help="default: %(default)s")
    train.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    share = "share of the cells to test on (default: %(default)s)"
    train.add_argument("--test", type=float, default=0.2, metavar="SHARE", help=share)
    train.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    train.add_argument("--checkpoint", metavar="FOLDER", help="continue from here if the command was stopped")
    _add_format(train, ("text", "json"))

    evaluate = add(
        "evaluate", _evaluate, "evaluate a classifier on labelled cells",
        "cellscan evaluate cells/ --patients patients.csv --model model.safetensors",
    )  # fmt: skip
    _add_data(evaluate)
    evaluate.add_argument("--model", metavar="FILE", help="file of Classifier.save (default: the bundled classifier)")
    _add_format(evaluate, ("text", "json"))
    _add_html(evaluate)

    info = add("info", _info, "print versions and devices, or the card of a model", "cellscan info model.safetensors")
    info.add_argument("model", nargs="?", metavar="FILE", help="file of Classifier.save or Detector.save")
    cache = add("cache", _cache, "print the cache folder and its size", "cellscan cache --clear")
    cache.add_argument("--clear", action="store_true", help="delete decoded images and unpacked archives")
    return parser


def _add_format(command: argparse.ArgumentParser, choices: tuple[str, ...]) -> None:
    command.add_argument("--format", choices=choices, default=choices[0], help="default: %(default)s")


def _add_html(command: argparse.ArgumentParser) -> None:
    command.add_argument("--html", metavar="FILE", help="also write the result as an HTML file, with pictures")


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", metavar="DATA", help="folder or archive whose sub-folders are the classes")
    command.add_argument("--patients", metavar="CSV", help="file with the header name,patient (NIH names need none)")


def _load_cells(args: argparse.Namespace) -> CellDataset:
    """Return the cells of a folder or an archive; of the NIH set with the patients in its file names."""
    from cellscan.data.loaders import load_folder, load_malaria

    if args.patients is not None:
        return load_folder(args.data, patient=args.patients)
    try:
        return load_malaria(args.data)
    except CellscanError as as_malaria:
        try:
            return load_folder(args.data)
        except CellscanError as error:
            if str(error) == str(as_malaria):
                raise
            raise CellscanError(f"{error}; as the NIH set: {as_malaria}") from error


def _expand(images: Sequence[str]) -> list[str]:
    """Return the files that are named, and those of the folders that are; tell which files are left out."""
    from cellscan.data.images import describe_others, list_folder

    paths: list[str] = []
    for image in images:
        if not Path(image).is_dir():
            paths.append(image)
            continue
        files, others = list_folder(Path(image))
        paths += [str(Path(image, file)) for file in files]
        if others:
            print(describe_others(Path(image), others), file=sys.stderr)
    if not paths:
        raise CellscanError(f"there are no images in {', '.join(images)}")
    return paths


def _write_rows(rows: Sequence[Sequence[object]], kind: str) -> None:
    """Write a header and rows as CSV, or as a JSON list of objects."""
    if kind == "json":
        header, *others = rows
        print(json.dumps([dict(zip(map(str, header), row, strict=True)) for row in others], indent=1))
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)


def _load_classifier(file: str | None) -> Classifier:
    """Return the classifier of a file, or the bundled one."""
    from cellscan.classifier import Classifier

    _keep_programs()
    return Classifier.pretrained() if file is None else Classifier.load(file)


def _predict(args: argparse.Namespace) -> int:
    clf = _load_classifier(args.model)
    if args.threshold is not None:
        clf.threshold = args.threshold
    preds = clf.predict(_expand(args.images), on_error="skip", progress=sys.stderr.isatty())
    _write_rows(preds.rows(), args.format)
    return PARTLY if preds.failed else OK


def _screen(args: argparse.Namespace) -> int:
    from cellscan.classifier import Classifier
    from cellscan.detector import Detector
    from cellscan.screening import screen

    _keep_programs()
    diameter = {"auto": "auto", "none": None}.get(args.cell_diameter, args.cell_diameter)
    if isinstance(diameter, str) and diameter != "auto":
        try:
            diameter = float(diameter)
        except ValueError:
            raise ArgumentError(f'--cell-diameter is {diameter}; expected pixels, "auto" or "none"') from None
    classifier: Any = None if args.no_classifier else "pretrained"
    if args.classifier is not None:
        classifier = Classifier.load(args.classifier)
    smear: Any = screen(
        _expand(args.images), None if args.detector is None else Detector.load(args.detector), classifier=classifier,
        cell_diameter=diameter, by=args.by, on_error="skip", progress=sys.stderr.isatty(),
    )  # fmt: skip
    if args.format == "text":
        print(smear)
    elif args.format == "csv" or args.by:
        _write_rows(smear.rows(), args.format)
        for warning in () if args.by else smear.warnings:  # the table of several smears has a column of warnings
            print(f"Warning: {warning}", file=sys.stderr)
    else:
        names = ("red_cells", "infected", "apparent", "parasitemia", "interval", "limit_of_detection", "warnings")
        print(json.dumps({name: getattr(smear, name) for name in names}, indent=1))
    if args.html is not None:
        smear.to_html(args.html)
    partly = any(one is None or one.failed for one in smear) if args.by else smear.failed
    return PARTLY if partly else OK


def _train(args: argparse.Namespace) -> int:
    from cellscan.classifier import Classifier

    _keep_programs()
    cells = _load_cells(args)
    by = "patient" if cells.has_patients else "cell"
    if by == "cell":
        print("patients are unknown: cells of one patient may be in training and in the test set", file=sys.stderr)
    train, test = cells.split(test=args.test, by=by, seed=args.seed)
    clf = Classifier(args.network, weights=args.weights, image_size=args.image_size, seed=args.seed)
    clf.fit(
        train, epochs=args.epochs, checkpoint=args.checkpoint, resume=args.checkpoint is not None,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    report = clf.evaluate(test, progress=sys.stderr.isatty())
    clf.save(args.out, report=report)
    print(report if args.format == "text" else json.dumps(report.to_dict(), indent=1))
    return OK


def _evaluate(args: argparse.Namespace) -> int:
    clf = _load_classifier(args.model)
    cells = _load_cells(args)
    report = clf.evaluate(cells, progress=sys.stderr.isatty())
    print(report if args.format == "text" else json.dumps(report.to_dict(), indent=1))
    if args.html is not None:
        report.to_html(args.html, cells=cells)
    return OK


def _info(args: argparse.Namespace) -> int:
    from cellscan import card as cards

    if args.model is not None:
        print(cards.to_json(cards.read(args.model)[0]))
        return OK
    import jax

    for name, version in cards.library_versions().items():
        print(f"{name:10} {version}")
    for device in jax.devices():
        print(f"{'device':10} {device.device_kind} ({device.platform}, {device.id})")
    print("Research use only, not a medical device.")
    return OK


def _cache(args: argparse.Namespace) -> int:
    from cellscan.data.cache import cache_folder, clear_cache

    folder = cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    print(f"{folder}: {size / 1e6:,.1f} MB")
    if args.clear:
        print(f"deleted {clear_cache() / 1e6:,.1f} MB")
    return OK


def _keep_programs() -> None:
    """Keep compiled programs for the next command, unless the user has a compilation cache of JAX."""
    from cellscan.tasks.keeping import keep_programs

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        keep_programs()
    except CellscanError as error:
        print(f"compiled programs are not kept: {error}", file=sys.stderr)
