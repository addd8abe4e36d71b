"""Speed compared with PyTorch and Keras: the same networks, batches and threads, in alternating processes.

    python benchmarks/speed.py --torch PYTHON --keras PYTHON
    python benchmarks/speed.py --torch PYTHON --keras PYTHON --backbones
    python benchmarks/speed.py --torch PYTHON --fields
    python benchmarks/speed.py --torch PYTHON --keras PYTHON --programs
    python benchmarks/speed.py --torch PYTHON --gpu

PYTHON is the interpreter of an environment with PyTorch and Pillow, or with Keras and JAX. A library without its
argument is left out. Every number is the median over --rounds processes per library, which run alternately. A ratio
above 1 means that cellscan is that many times as fast.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

import cellscan

HERE = Path(__file__).parent / "contenders"
# Title, arguments of the task, whether a higher number is better, libraries.
ROWS = (
    ("train, plain net, images/s", ("train", "plain"), True, ("cellscan", "torch", "keras")),
    ("train, small_cnn, images/s", ("train", "small_cnn"), True, ("cellscan", "torch")),
    ("one array, plain net, predict, ms", ("one", "plain"), False, ("cellscan", "torch", "keras")),
    ("one array, plain net, jitted call alone, ms", ("bare", "plain"), False, ("cellscan",)),
    ("one array, small_cnn, predict, ms", ("one", "small_cnn"), False, ("cellscan", "torch")),
    ("one array, small_cnn, jitted call alone, ms", ("bare", "small_cnn"), False, ("cellscan",)),
    ("2,000 PNG files, small_cnn, images/s", ("files", "{folder}"), True, ("cellscan", "torch")),
)

BACKBONES = tuple(
    (f"{net}, {size} px, {title}, ms", (task, net, size, count), False, ("cellscan", "torch", "keras"))
    for net, size in (("resnet50", "96"), ("vgg16", "64"))
    for task, count, title in (
        ("forward", "1", "forward, batch 1"),
        ("forward", "32", "forward, batch 32"),
        ("tune", "32", "fine-tuning step, batch 32"),
    )
)

FIELDS = (
    ("retinanet_small, 480 x 360, network, batch 1, ms", ("detect", "1"), False, ("cellscan", "torch")),
    ("retinanet_small, 480 x 360, network, batch 8, ms", ("detect", "8"), False, ("cellscan", "torch")),
    ("the same with boxes suppressed, batch 1, ms", ("detect", "1", "boxes"), False, ("cellscan",)),
    ("the same with boxes suppressed, batch 8, ms", ("detect", "8", "boxes"), False, ("cellscan",)),
    ("training step, batch 1, ms", ("detect_step", "1"), False, ("cellscan", "torch")),
    ("training step, batch 8, ms", ("detect_step", "8"), False, ("cellscan", "torch")),
    ("suppression of 10,000 boxes, 300 kept, ms", ("suppression",), False, ("cellscan",)),
)
"""The loss of PyTorch's step is the mean square of the outputs; that of cellscan matches anchors, as in RetinaNet."""

PROGRAMS = (
    ("fresh process to its first answer, plain net, s", ("first_answer",), False, ("cellscan", "torch", "keras")),
    ("first prediction of a first classifier, small_cnn, 32 px, s", ("nth_predict", "1"), False, ("cellscan",)),
    ("first prediction of a second one, s", ("nth_predict", "2"), False, ("cellscan",)),
    ("a short fit of a first classifier, over its steps, s", ("nth_fit", "1"), False, ("cellscan",)),
    ("a short fit of a second one, over its steps, s", ("nth_fit", "2"), False, ("cellscan",)),
    ("a second fit of one classifier, longer, over its steps, s", ("nth_fit", "again"), False, ("cellscan",)),
    ("five folds of unequal size, programs of a step", ("folds",), False, ("cellscan",)),
    ("python -m cellscan predict one.png, nothing kept yet, s", ("command", "cold"), False, ("cellscan",)),
    ("python -m cellscan predict one.png, the second time, s", ("command", "warm"), False, ("cellscan",)),
)
"""Rows that measure compilation; PyTorch runs eagerly."""

ON_A_GPU = tuple(
    (f"train, {net}, bfloat16, batch {size}, images/s", ("epoch", net, "bfloat16", size), True, ("cellscan", "torch"))
    for net in ("plain", "small_cnn")
    for size in ("64", "512")
)
ON_A_GPU += (
    ("small_cnn, a training step of batch 512, GFLOP", ("count", "small_cnn", "512"), False, ("cellscan",)),
    ("bfloat16 product of 8192 x 8192 matrices, TFLOP/s", ("rate",), True, ("cellscan",)),
)
ON_A_GPU += tuple(
    (
        f"{net}, 224 px, {task}, bfloat16, batch 256, ms",
        (task, net, "224", "256", "bfloat16"),
        False,
        ("cellscan", "torch"),
    )
    for net in ("resnet50", "vgg16")
    for task in ("forward", "tune")
)


def measure(
    python: str, contender: str, arguments: tuple[str, ...], settings: dict[str, str] | None = None
) -> tuple[float, str]:
    """Run one task in a new process, with additional environment variables."""
    command = [python, str(HERE / f"with_{contender}.py"), *arguments]
    env = {**os.environ, **(settings or {}), "STARTED": str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return result["value"], result["versions"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="interpreter with PyTorch")
    parser.add_argument("--keras", help="interpreter with Keras on JAX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="the rows for a GPU, beside torch.compile")
    parser.add_argument("--backbones", action="store_true", help="the rows of pretrained networks; PyTorch needs timm")
    parser.add_argument("--fields", action="store_true", help="the rows of RetinaNet")
    parser.add_argument("--programs", action="store_true", help="the rows of compiling")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of rows")
    args = parser.parse_args()
    tables = {"gpu": ON_A_GPU, "backbones": BACKBONES, "fields": FIELDS, "programs": PROGRAMS}
    rows = next((table for name, table in tables.items() if getattr(args, name)), ROWS)
    chosen = rows if args.only is None else [rows[number] for number in args.only]
    pythons = {"cellscan": sys.executable, "torch": args.torch, "keras": args.keras}
    versions: dict[str, str] = {}
    print("| task | cellscan | PyTorch | Keras | times PyTorch | times Keras |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(cellscan.synthetic_cells(2000, seed=0).images(130)):
            Image.fromarray(image).save(f"{folder}/{number}.png")
        for title, arguments, more, contenders in chosen:
            found: dict[str, list[float]] = {name: [] for name in contenders if pythons[name]}
            for _ in range(args.rounds):
                for name in found:
                    filled = tuple(text.format(folder=folder) for text in arguments)
                    value, versions[name] = measure(pythons[name], name, filled)
                    found[name].append(value)
            middle = {name: statistics.median(values) for name, values in found.items()}
            columns = [f"{middle[name]:,.2f}" if name in middle else "" for name in pythons]
            ratios = [middle["cellscan"] / middle[name] if name in middle else None for name in ("torch", "keras")]
            columns += ["" if ratio is None else f"{ratio if more else 1 / ratio:.2f}" for ratio in ratios]
            print(f"| {title} | {' | '.join(columns)} |", flush=True)
    print(f"\n{'; '.join(versions.values())}; {platform.machine()}, medians of {args.rounds} processes in turn")


if __name__ == "__main__":
    main()
