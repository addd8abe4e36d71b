"""What the contenders of `benchmarks/speed.py` share: the tasks, the data, and how a time is taken."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH, SIZE, STEPS, WARM = 64, 64, 15, 4


def batch(count: int = BATCH, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return random images (N, S, S, 3) uint8 and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), rng.integers(0, 2, count).astype(np.int32)


def seconds(call: Callable[[], Any], *, times: int = STEPS, warm: int = WARM) -> float:
    """Return the median time of a call, after some that are not counted."""
    found = []
    for number in range(warm + times):
        start = time.perf_counter()
        call()
        if number >= warm:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def since_start() -> float:
    """Return seconds since `speed.py` started this process: the interpreter and every import are in it."""
    return time.time() - float(os.environ["STARTED"])


def answer(tasks: dict[str, Callable[..., float]], versions: str) -> None:
    """Run the task named on the command line, on what stands behind it, and print its number."""
    name, *rest = sys.argv[1:]
    print(json.dumps({"value": tasks[name](*rest), "versions": versions}))
