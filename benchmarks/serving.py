"""Requests to examples/serve.py: throughput, latency and memory, with malformed and oversized uploads among them.

    python benchmarks/serving.py

The benchmark starts uvicorn on 127.0.0.1 with one worker and with two, and sends 2,000 requests from eight threads: of
every 40, two are malformed and one is too large. It needs fastapi and uvicorn.
"""

import argparse
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
from accuracy import versions
from PIL import Image

import cellscan

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_BYTES = 1_000_000
CLIENTS = 8


def make_bodies() -> list[tuple[bytes, int]]:
    """Return 40 bodies, each with the status that the server must answer."""
    bodies = []
    for cell in cellscan.synthetic_cells(37, seed=0):
        file = io.BytesIO()
        Image.fromarray(cell.image).save(file, "PNG")
        bodies.append((file.getvalue(), 200))
    bodies[10:10] = [(b"no image", 422), (bodies[0][0][:100], 422), (b"\0" * (MAX_BYTES + 1), 413)]
    return bodies


def rss(pid: int) -> float:
    """Return the resident memory of a process and its descendants in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(rss(int(child)) for child in children)


def send(port: int, share: list[tuple[bytes, int]]) -> list[float]:
    """Send requests one after another over one connection; return the seconds of each."""
    connection, seconds = http.client.HTTPConnection("127.0.0.1", port, timeout=120), []
    for body, expected in share:
        start = time.perf_counter()
        connection.request("POST", "/predict", body)
        answer = connection.getresponse()
        text = answer.read()
        seconds.append(time.perf_counter() - start)
        assert answer.status == expected, (answer.status, expected, text)
        assert "label_name" in json.loads(text) or expected != 200
    connection.close()
    return seconds


def wait_until_open(port: int, server: subprocess.Popen[bytes], workers: int) -> None:
    """Wait until every worker has started; only then does a burst of requests meet all of them."""
    while server.poll() is None:
        try:
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda _: send(port, [(b"no image", 422)]), range(4 * workers)))
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"uvicorn stopped with exit code {server.returncode}")


def measure(workers: int, count: int) -> str:
    """Return the row of a number of workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(REPOSITORY / "examples"), "serve:app",
         "--port", str(port), "--workers", str(workers), "--log-level", "warning"],
        env=os.environ | {"CELLSCAN_MAX_BYTES": str(MAX_BYTES)},
    )  # fmt: skip
    try:
        wait_until_open(port, server, workers)
        bodies = make_bodies()
        requests = [bodies[number % len(bodies)] for number in range(count)]
        before = rss(server.pid)
        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            shares = pool.map(lambda client: send(port, requests[client::CLIENTS]), range(CLIENTS))
            seconds = np.array([value for share in shares for value in share])
        took = time.perf_counter() - start
        after = rss(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)) * 1000
    return f"| {workers} | {count / took:,.0f} | {p50:.0f}, {p95:.0f}, {p99:.0f} | {before:,.0f}, {after:,.0f} |"


def main() -> None:
    """Measure one and two workers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    args = parser.parse_args()
    print("| workers | requests/s | latency in ms: p50, p95, p99 | MB before, after |")
    print("| --- | --- | --- | --- |")
    for workers in (1, 2):
        print(measure(workers, args.requests), flush=True)
    print(f"\n{versions()}; fastapi {version('fastapi')}, uvicorn {version('uvicorn')}, {CLIENTS} clients")


if __name__ == "__main__":
    main()
