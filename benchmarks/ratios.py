"""Ratios of times that one run measures, for comparison with those of the last release.

    python benchmarks/ratios.py                          # writes benchmarks/ratios.json
    python benchmarks/ratios.py --compare OLD.json       # compares benchmarks/ratios.json with an older one

Each row divides two numbers of cellscan, so that it depends little on the machine. Both are medians over --rounds
processes, which run alternately. A higher ratio is better. `--compare` fails if a ratio is less than the old one
divided by --tolerance.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from speed import measure

FILE = Path(__file__).parent / "ratios.json"


class Row(NamedTuple):
    """Two tasks of `contenders/with_cellscan.py`; the ratio is the second value divided by the first one."""

    title: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    xla: bool = False
    """Whether the second task uses XLA's own convolutions."""
    more: bool = False
    """Whether a higher value is better; the ratio is then the first value divided by the second one."""


TRAIN = ("train", "small_cnn")
TUNE = ("tune", "mobilenetv2_100", "96", "32")
FORWARD = ("forward", "resnet50", "96", "1")
ROWS = (
    Row("own convolutions, times as fast as XLA's: training, small_cnn", TRAIN, TRAIN, True, True),
    Row("the same: fine-tuning, mobilenetv2_100, 96 px", TUNE, TUNE, True),
    Row("the same: forward, resnet50, 96 px, batch 1", FORWARD, FORWARD, True),
    Row("share of the network in predict of one image, small_cnn", ("one", "small_cnn"), ("bare", "small_cnn")),
)


def run(rounds: int) -> dict[str, Any]:
    """Measure all rows, and print each."""
    ratios, versions = {}, ""
    for row in ROWS:
        values: tuple[list[float], list[float]] = [], []
        for _ in range(rounds):
            for number, task in enumerate((row.first, row.second)):
                settings = {"CELLSCAN_CONVOLUTIONS": "xla" if row.xla and number else "own"}
                value, versions = measure(sys.executable, "cellscan", task, settings)
                values[number].append(value)
        first, second = map(statistics.median, values)
        ratios[row.title] = round(first / second if row.more else second / first, 3)
        print(f"{ratios[row.title]:8.2f}  {row.title}", flush=True)
    hardware = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"hardware": hardware, "versions": versions, "rounds": rounds, "ratios": ratios}


def find_slower(new: dict[str, float], old: dict[str, float], tolerance: float) -> list[str]:
    """Return a line for each ratio of both runs that is less than the old one divided by the tolerance."""
    return [
        f"{title}: {new[title]:.2f}, before {value:.2f}"
        for title, value in old.items()
        if title in new and new[title] < value / tolerance
    ]


def main() -> None:
    """Measure, or compare two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compare", type=Path, metavar="OLD", help="a file of an earlier release")
    parser.add_argument("--tolerance", type=float, default=1.3)
    args = parser.parse_args()
    if args.compare is None:
        FILE.write_text(json.dumps(run(args.rounds), indent=1) + "\n")
        return
    new, old = (json.loads(path.read_text()) for path in (FILE, args.compare))
    slower = find_slower(new["ratios"], old["ratios"], args.tolerance)
    print("\n".join(slower) or f"no ratio is lower than in {old['versions']}, within a factor of {args.tolerance}")
    sys.exit(bool(slower))


if __name__ == "__main__":
    main()
