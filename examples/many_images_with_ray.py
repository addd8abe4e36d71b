"""Classify a large number of images in parallel with Ray: reads a folder tree, writes Parquet files.

    pip install ray pyarrow
    python examples/many_images_with_ray.py FOLDER OUT                        bundled model, two workers
    python examples/many_images_with_ray.py FOLDER OUT --model model.safetensors --workers 8 --cpus 4 --gpus 1
    python examples/many_images_with_ray.py FOLDER OUT --workers 0            without Ray, in this process

On a cluster, FOLDER and OUT must be accessible from every machine. An image that cannot be read has a row with the
reason. A second run skips the images that already have a row in OUT. Research use only, not a medical device.
"""

import argparse
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet

import cellscan

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}

PIECE = 512
"""Number of images in one call, and of rows in one file: a multiple of the batch size, one or two seconds of work."""


class Predictor:
    """A worker process. It loads the model once, and writes one file for every piece of the list of images."""

    def __init__(self, model: Path | None, out: Path, cpus: int | None) -> None:
        if cpus is not None:  # JAX reads this variable when it starts. Without it, each worker uses all cores.
            os.environ["PJRT_NPROC"] = str(cpus)
        self.clf = cellscan.Classifier.load(model) if model else cellscan.Classifier.pretrained()
        self.out = out
        self.clf.predict(np.zeros((64, 64, 64, 3), np.uint8), progress=False)  # A full batch compiles the program.

    def predict(self, paths: list[str]) -> int:
        """Write one row per path, and return the number of rows."""
        preds = self.clf.predict(paths, on_error="skip", progress=False)
        label, error = [""] * len(paths), [""] * len(paths)
        probabilities = np.full((len(paths), len(preds.class_names)), np.nan, np.float32)
        probabilities[preds.indices] = preds.probabilities
        for index, name in zip(preds.indices, preds.label_names, strict=True):
            label[index] = name
        for failure in preds.failed:
            error[failure.index] = failure.reason
        columns = {f"p_{name}": column for name, column in zip(preds.class_names, probabilities.T, strict=True)}
        # The name depends on the paths alone, so that a retry overwrites the same file.
        name = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16] + ".parquet"
        table = pyarrow.table({"path": paths, "label": label, "error": error, **columns})
        pyarrow.parquet.write_table(table, self.out / f".{name}")
        (self.out / f".{name}").rename(self.out / name)  # Renaming is atomic, so that no partial file remains.
        return len(paths)


def main() -> None:
    """Classify the images that have no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, help="a file written by Classifier.save; default: the bundled model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores per worker")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs per worker; may be a fraction")
    args = parser.parse_args()
    folder, out, model = args.folder.resolve(), args.out.resolve(), args.model and args.model.resolve()
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    written = [str(path) for path in out.glob("*.parquet")]
    done = set(pyarrow.dataset.dataset(written).to_table(["path"])["path"].to_pylist()) if written else set()
    new = [path for path in files if path not in done]
    print(f"{len(files):,} images, {len(files) - len(new):,} already classified")
    if not new:
        return
    pieces = [new[start : start + PIECE] for start in range(0, len(new), PIECE)]
    start = time.monotonic()
    if args.workers:
        import ray
        from ray.util import ActorPool

        ray.init(log_to_driver=False, include_dashboard=False)
        for kind, needed in (("CPU", args.workers * args.cpus), ("GPU", args.workers * args.gpus)):
            if needed > (available := ray.cluster_resources().get(kind, 0)):
                parser.error(f"{args.workers} workers need {needed:g} {kind}s, but only {available:g} are available")
        # Ray restarts a worker that fails, and its piece is predicted again.
        worker = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, max_restarts=2, max_task_retries=2)(Predictor)
        predictors: list[Any] = [worker.remote(model, out, args.cpus) for _ in range(args.workers)]
        ray.get([predictor.__ray_ready__.remote() for predictor in predictors])
        pool: Any = ActorPool(predictors)
        counts = pool.map_unordered(lambda predictor, piece: predictor.predict.remote(piece), pieces)
    else:
        counts = map(Predictor(model, out, None).predict, pieces)
    ready, total = time.monotonic(), 0
    for count in counts:  # Counts arrive one by one, as pieces are finished.
        total += count
        print(f"\r{total:,} of {len(new):,}", end="", flush=True)
    spent = time.monotonic() - ready
    print(f"\r{total:,} predicted in {spent:.1f} s, {total / spent:,.0f} images/s; started in {ready - start:.1f} s")


if __name__ == "__main__":
    main()
