"""Robustness tests of files and processes. Each is seeded and limited, and reports its counts.

    python tests/attacks.py            all of them, about twenty minutes on two cores; prints the table

An attack raises where cellscan fails it. `make test` runs a small part of each, `make test-all` all.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from helpers import TinyNet, random_image, tiny_cells
from PIL import Image

import cellscan
from cellscan.data.images import read_rgb
from cellscan.tensors import read_tensors

KINDS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM")
EPOCHS = 400


def mutate(content: bytes, rng: np.random.Generator, *, first: int | None = None) -> bytes:
    """Change a few bytes, most of them among the `first`, and cut the end off now and then."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 8))):
        end = len(changed) if first is None or rng.random() < 0.3 else min(first, len(changed))
        changed[int(rng.integers(0, end))] = int(rng.integers(0, 256))
    if rng.random() < 0.2:
        changed = changed[: int(rng.integers(0, len(changed)))]
    return bytes(changed)


class Watch:
    """Raise where one attempt takes more than a minute; note how much memory all of them took."""

    def __enter__(self) -> Watch:
        self._before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.megabytes = 0.0
        signal.signal(signal.SIGALRM, self._late)
        return self

    def attempt(self) -> None:
        signal.alarm(60)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        self.megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._before) / 1024
        assert self.megabytes < 1024, f"{self.megabytes:.0f} MB more than before"

    @staticmethod
    def _late(*_: object) -> None:
        raise TimeoutError("one attempt took more than a minute")


def mutate_images(count: int) -> dict[str, Any]:
    """Decode damaged files of every accepted format."""
    rng, outcomes = np.random.default_rng(0), {"read whole": 0, "refused": 0}
    with Watch() as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        for number in range(count):
            whole = io.BytesIO()
            kind = KINDS[number % len(KINDS)]
            Image.fromarray(random_image(number, 24, 24)).save(whole, kind)
            watch.attempt()
            try:
                image = read_rgb(io.BytesIO(mutate(whole.getvalue(), rng)), where="mutant")
            except cellscan.ImageError:
                outcomes["refused"] += 1
            else:
                assert image.dtype == np.uint8
                assert image.ndim == 3
                assert image.shape[-1] == 3
                outcomes["read whole"] += 1
    return {"attack": f"{count:,} mutated image files, {len(KINDS)} formats", **outcomes, "MB more": watch.megabytes}


def mutate_models(count: int, folder: Path) -> dict[str, Any]:
    """Load damaged model files."""
    rng, outcomes = np.random.default_rng(0), {"read whole": 0, "refused": 0}
    clf = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
    clf.save(folder / "whole.safetensors")
    content = (folder / "whole.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    images = np.stack([random_image(seed, 16, 16) for seed in range(4)])
    expected = clf.predict_proba(images)
    with Watch() as watch:
        for _ in range(count):
            path = folder / "mutant.safetensors"
            path.write_bytes(mutate(content, rng, first=header))
            watch.attempt()
            try:
                loaded = cellscan.Classifier.load(path, model=TinyNet(rngs=nnx.Rngs(1)))
            except cellscan.ModelFileError as error:
                assert "mutant.safetensors" in str(error)  # noqa: PT017 - either outcome is right
                outcomes["refused"] += 1
            else:
                assert np.array_equal(loaded.predict_proba(images), expected)
                outcomes["read whole"] += 1
    return {"attack": f"{count:,} mutated model files", **outcomes, "MB more": watch.megabytes}


def mutate_annotations(count: int, folder: Path) -> dict[str, Any]:
    """Read sets of one field whose annotation file is damaged, in every layout that is read."""
    from data.test_fields import LAYOUTS, files_of, write_files

    rng, outcomes = np.random.default_rng(0), {"read": 0, "refused": 0}
    with Watch() as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that are not read
        for number in range(count):
            place = write_files(folder / str(number), files_of(LAYOUTS[number % len(LAYOUTS)]))
            files = sorted(path for path in place.rglob("*") if path.is_file() and path.suffix != ".jpg")
            path = files[int(rng.integers(0, len(files)))]
            path.write_bytes(mutate(path.read_bytes() or b"?", rng))
            watch.attempt()
            try:
                fields = cellscan.load_fields(place, on_error=("raise", "skip")[number % 2])
                fields.targets((64, 64))
            except cellscan.CellscanError:
                outcomes["refused"] += 1
            else:
                for boxes, (width, height) in zip(fields.boxes, fields.sizes, strict=True):
                    assert (boxes >= 0).all()
                    assert (boxes <= (width, height, width, height)).all()
                outcomes["read"] += 1
            shutil.rmtree(place)
    return {
        "attack": f"{count:,} mutated annotation files, {len(LAYOUTS)} layouts",
        **outcomes,
        "MB more": watch.megabytes,
    }


SHARER = """
import hashlib, sys, threading
import cellscan
cells = cellscan.load_folder({folder})
print("reading", flush=True)
found = set()
def read():
    found.add(hashlib.sha256(cells.images({size}, progress=False)[:].tobytes()).hexdigest())
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*sorted(found))
"""


def _cells(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(number, 60, 60)).save(path)


def share_a_cache(rounds: int, folder: Path) -> dict[str, Any]:
    """Build one map from four processes of eight threads each at once, which all must read the same."""
    _cells(folder / "cells", 200)
    expected: set[str] = set()
    for number in range(rounds):
        code = SHARER.format(folder=repr(str(folder / "cells")), size=40 + number)
        env = {**os.environ, "CELLSCAN_CACHE": str(folder / "cache")}
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
            )
            for _ in range(4)
        ]
        said = [child.communicate() for child in children]
        assert not any(child.returncode for child in children), said
        found = {out.splitlines()[-1] for out, _ in said}
        assert len(found) == 1, "processes read different pixels"
        expected |= found
    left = list((folder / "cache").rglob("*.part"))
    assert not left, left
    return {
        "attack": "a cache shared by 4 processes of 8 threads",
        "maps built": len(expected),
        "half-written files": len(left),
    }


def kill_caching(count: int, folder: Path) -> dict[str, Any]:
    """Kill processes while they write a map, and read it afterwards."""
    _cells(folder / "cells", 400)
    cells = cellscan.load_folder(folder / "cells")
    rng, kills = np.random.default_rng(0), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLSCAN_CACHE", str(folder / "cache"))
        while kills < count:
            size = 40 + kills
            code = SHARER.format(folder=repr(str(folder / "cells")), size=size)
            child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.25)))
            child.kill()
            child.communicate()
            kills += 1
            pixels = cells.images(size, progress=False)
            for row in (0, 199, 399):
                assert np.array_equal(pixels[row], read_rgb(cells[row].image, size))
        left = list((folder / "cache").rglob("*.part"))
        assert not left, left
    return {"attack": f"{kills} kills while a map is written", "half-written files": len(left)}


def fill_disks(count: int, folder: Path) -> dict[str, Any]:
    """Write to almost full disks, in a process that may mount file systems; skip if it may not."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not permit mounting a small disk (unshare -rm)")
    code = f"import attacks, pathlib; attacks.write_to_full_disks({count}, pathlib.Path({str(folder)!r}))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert not done.returncode, done.stderr
    return {"attack": f"{count} writings to disks that fill up", **json.loads(done.stdout.splitlines()[-1])}


def write_to_full_disks(count: int, folder: Path) -> None:
    """Write to disks with random free space: the result is readable, or cellscan raises and the old file is unchanged.

    With enough free space, the same call then succeeds. Prints how often each case occurred.
    """
    rng, outcomes = np.random.default_rng(0), {"written": 0, "refused": 0}
    disk = folder / "disk"
    disk.mkdir(parents=True)
    cells = tiny_cells(64, 64)
    clf = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
    bundled, preds = cellscan.Classifier.pretrained(), clf.predict(cells, progress=False)
    _cells(folder / "cells", 40)
    os.environ["CELLSCAN_CACHE"] = str(disk / "cache")

    def train(place: Path) -> None:
        one = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
        one.fit(cells, epochs=3, batch_size=32, checkpoint=place, resume=True, progress=False)

    def map_pixels(place: Path) -> None:
        files, size = cellscan.load_folder(folder / "cells"), 70 + int(place.name) % 60
        assert np.array_equal(files.images(size, progress=False)[39], read_rgb(files[39].image, size))

    def save(place: Path) -> None:
        bundled.save(place)
        assert cellscan.Classifier.load(place).fingerprint == bundled.fingerprint

    def write(place: Path) -> None:
        preds.to_csv(place)
        assert len(place.read_text().splitlines()) == len(preds) + 1

    def fold(place: Path) -> None:
        cells.write_folds(place, 2)
        assert len(list(cells.folds(place))) == 2

    for number in range(count):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
        place, call = disk / str(number), (train, map_pixels, save, write, fold)[number % 5]
        old = f"written before {number}".encode()
        if call in (save, write, fold):
            place.write_bytes(old)
        (disk / "ballast").write_bytes(bytes(4 * 2**20 - 4096 * int(rng.choice([3, 6, 20, 60, 200, 520]))))
        try:
            call(place)
        except cellscan.CellscanError as error:
            outcomes["refused"] += 1
            assert str(error)  # noqa: PT017 - either outcome is right
            assert call in (train, map_pixels) or place.read_bytes() == old
        else:
            outcomes["written"] += 1
        left = [path for path in disk.rglob("*.part")]
        assert not left, (call.__name__, left)
        (disk / "ballast").unlink()
        call(place)
        subprocess.run(["umount", "-l", str(disk)], check=True)
    print(json.dumps(outcomes))


CHILD = """
import hashlib, sys
from flax import nnx
from helpers import TinyNet, tiny_cells
import cellscan, numpy as np
cells = tiny_cells(16, 16)
clf = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=0)
print("training", flush=True)
clf.fit(cells, validation=cells, epochs={epochs}, batch_size=8, checkpoint={folder}, resume=True)
print(hashlib.sha256(clf.predict_proba(cells).tobytes() + clf.embed(cells).tobytes()).hexdigest())
"""


def train_in_process(
    folder: Path, *, epochs: int = EPOCHS, kill_after: float | None = None
) -> tuple[int, str, int, float]:
    """Train in a process that is killed so many seconds after training began.

    Returned are its exit code, its output, its last epoch, and how long it trained.
    """
    code = CHILD.format(epochs=epochs, folder=repr(str(folder)))
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=said, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()  # imports are done, training begins
        start = time.monotonic()
        try:
            child.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            child.kill()
        out, seconds = child.stdout.read(), time.monotonic() - start
        child.stdout.close()
        child.wait()
        said.seek(0)
        text = said.read()
    printed = [int(number) for number in re.findall(r"^epoch +(\d+) of", text, re.M)]
    assert child.returncode in (0, -signal.SIGKILL), text
    return child.returncode, out.strip(), max(printed, default=0), seconds


def epochs_on_disk(folder: Path) -> int:
    """Return how many epochs the checkpoint holds; it must be whole."""
    import json

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    return len(json.loads(read_tensors(path)[0]["cellscan.checkpoint"])["records"])


def kill_trainings(count: int, folder: Path) -> dict[str, Any]:
    """Kill trainings at random moments, resume them, and compare with one that was left alone."""
    code, expected, _, alone = train_in_process(folder / "alone")
    assert code == 0
    tally = {"kills": 0, "before the first epoch": 0, "half-written files": 0, "trainings finished": 0}
    lock = threading.Lock()

    def attack(worker: int) -> None:
        rng, run, before = np.random.default_rng(worker), 0, 0
        while True:
            place = folder / f"killed-{worker}-{run}"
            code, out, printed, _ = train_in_process(place, kill_after=float(rng.uniform(0, alone)))
            found = epochs_on_disk(place)
            assert found >= max(printed, before), f"printed {printed} epochs, had {before}, found {found}"
            with lock:
                if code != 0:
                    tally["kills"] += 1
                    tally["before the first epoch"] += found == 0
                    tally["half-written files"] += len(list(place.glob("*.part")))
                done = tally["kills"] >= count
            before = found
            if code == 0 or done:
                if code != 0:
                    _, out, _, _ = train_in_process(place)
                assert out == expected, "a training that was killed ended with other bits"
                with lock:
                    tally["trainings finished"] += 1
                run, before = run + 1, 0
            if done:
                return

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(attack, range(2)))
    return {"attack": f"{tally.pop('kills')} kills of a training of {EPOCHS} epochs", **tally}


def predict_from_threads(seconds: float) -> dict[str, Any]:
    """Predict from eight threads and compare with one."""
    clf = cellscan.Classifier(image_size=32, seed=0)
    batches = [np.stack([random_image(10 * k + i, 32, 32) for i in range(1 + 9 * k)]) for k in range(8)]
    expected = [clf.predict_proba(batch) for batch in batches]
    end, counts = time.monotonic() + seconds, np.zeros(8, int)

    def work(worker: int) -> None:
        while time.monotonic() < end or not counts[worker]:
            which = (worker + counts[worker]) % 8
            assert np.array_equal(clf.predict_proba(batches[which]), expected[which])
            counts[worker] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    return {"attack": f"eight threads predict for {seconds:g} s", "calls, all the same bits": int(counts.sum())}


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    rows = ["| attack | outcome |", "| --- | --- |"]
    for result in results:
        numbers = {name: value for name, value in result.items() if name != "attack"}
        text = ", ".join(f"{name}: {value:,.0f}" for name, value in numbers.items())
        rows.append(f"| {result['attack']} | {text} |")
    return rows


def main() -> None:
    """Run all attacks and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = [
            mutate_images(5000),
            mutate_models(2000, folder),
            mutate_annotations(2000, folder / "annotations"),
            share_a_cache(20, folder / "shared"),
            kill_caching(50, folder / "killed"),
            fill_disks(200, folder / "full"),
            kill_trainings(200, folder),
            predict_from_threads(60),
        ]
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
