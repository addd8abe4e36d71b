"""Cost of the data pipeline: import, first and second load, memory, synthetic cells, and composed fields.

    python benchmarks/data_path.py [DATA]

DATA is the publisher's archive or folder. Without it, only the rows that need no data are printed. Each row is the
median over new processes. The pixel cache is a new, empty folder.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile

IMPORT = """
import time, jax
start = time.perf_counter()
import cellscan
print(time.perf_counter() - start)
"""
GENERATE = """
import time, cellscan
cellscan.synthetic_cells(8)
start = time.perf_counter()
cellscan.synthetic_cells(2000, seed=0, progress=False)
print(time.perf_counter() - start)
"""
LOAD = """
import sys, time, cellscan
cellscan.CellDataset
start = time.perf_counter()
cells = cellscan.load_malaria(sys.argv[1])
loaded = time.perf_counter()
pixels = cells.images(int(sys.argv[2]), progress=False)
pixels[:64].sum()
print(time.perf_counter() - (start if sys.argv[3] == "all" else loaded))
"""
COMPOSE = """
import time, cellscan
fields = cellscan.compose_fields(cellscan.synthetic_cells(400, seed=0), 100, progress=False)
fields = fields.select([row for row, boxes in enumerate(fields.boxes) if 50 <= len(boxes) <= 70])
fields[0].image
start = time.perf_counter()
cells = sum(len(boxes) for boxes, field in zip(fields.boxes, fields) if field.image.any())
print((time.perf_counter() - start) / cells * 60)
"""
MEMORY = """
import re, sys, threading, time, cellscan
peak, done = 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]))
        time.sleep(0.05)
thread = threading.Thread(target=watch)
thread.start()
pixels = cellscan.load_malaria(sys.argv[1]).images(224, progress=False)
for start in range(0, len(pixels), 64):
    pixels[start : start + 64].sum()
done = True
thread.join()
print(peak / 1e6)
"""


def run(code: str, *args: str, cache: str) -> float:
    """Run code in a new process and return the number that it prints."""
    env = {**os.environ, "CELLSCAN_CACHE": cache}
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=env, check=True)
    return float(done.stdout)


def median(code: str, *args: str, cache: str, runs: int = 5) -> float:
    """Return the median over new processes, after one that is not counted."""
    run(code, *args, cache=cache)
    return statistics.median(run(code, *args, cache=cache) for _ in range(runs))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    data = parser.parse_args().data
    print("| what | measured | aim |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as cache:
        print(f"| import cellscan, over import jax | {median(IMPORT, cache=cache):.3f} s | 0.15 s |", flush=True)
        print(f"| generate 2,000 cells | {median(GENERATE, cache=cache, runs=3):.1f} s | 5 s |", flush=True)
        compose = 1000 * median(COMPOSE, cache=cache, runs=3)
        print(f"| an image of a composed field of 60 cells, 480 x 360 px | {compose:.0f} ms | 20 ms |", flush=True)
        if data:
            print(
                f"| all cells at 64 px, the first time | {run(LOAD, data, '64', 'all', cache=cache):.1f} s | 30 s |",
                flush=True,
            )
            again = median(LOAD, data, "64", "images", cache=cache)
            print(f"| `cells.images(64)` after that, in a new process | {again:.2f} s | 0.5 s |", flush=True)
            whole = median(LOAD, data, "64", "all", cache=cache)
            print(f"| `load_malaria` and `images(64)` after that, in a new process | {whole:.2f} s | |", flush=True)
            print(f"| anonymous memory, all cells at 224 px | {run(MEMORY, data, cache=cache):.2f} GB | 0.5 GB |")
    from importlib.metadata import version

    names = ("cellscan", "jax", "numpy", "pillow")
    print(
        f"\n{', '.join(f'{name} {version(name)}' for name in names)}; Python {platform.python_version()}, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
