"""Judge more images than one process can, with Ray Data: a folder tree in, Parquet out.

    pip install 'ray[data]'
    python examples/many_images_with_ray.py FOLDER OUT                        the model that comes along, two workers
    python examples/many_images_with_ray.py FOLDER OUT --model model.safetensors --workers 8 --gpus 1

Every worker loads the model once. Images that cannot be read have a row with the reason. A second run skips images that
OUT has a row of. Research use only, not a medical device.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import cellscan
from cellscan.data.images import image_files


class Judge:
    """A worker: paths in, a row each out."""

    def __init__(self, model: str | None) -> None:
        self.clf = cellscan.Classifier.load(model) if model else cellscan.Classifier.pretrained()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        paths = [str(path) for path in batch["path"]]
        preds = self.clf.predict(paths, on_error="skip", progress=False)
        rows: dict[str, list[Any]] = {"path": paths, "label": [""] * len(paths), "error": [""] * len(paths)}
        chances = np.full((len(paths), len(preds.class_names)), np.nan, np.float32)
        chances[preds.indices] = preds.probabilities
        for index, name in zip(preds.indices, preds.label_names, strict=True):
            rows["label"][index] = name
        for failure in preds.failed:
            rows["error"][failure.index] = failure.reason
        columns = {f"p_{name}": column for name, column in zip(preds.class_names, chances.T, strict=True)}
        return {name: np.array(values) for name, values in rows.items()} | columns


def main() -> None:
    """Judge what is new."""
    import pyarrow.dataset
    import ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="a file of Classifier.save; left out, the model that comes along")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    args = parser.parse_args()
    files = [str(args.folder.resolve() / name) for name in image_files(args.folder)]
    args.out.mkdir(parents=True, exist_ok=True)
    done: set[str] = set()
    if any(args.out.glob("*.parquet")):
        done = set(pyarrow.dataset.dataset(args.out).to_table(columns=["path"])["path"].to_pylist())
    new = [path for path in files if path not in done]
    print(f"{len(files):,} images, {len(files) - len(new):,} of them done")
    if not new:
        return
    start = time.monotonic()
    ray.init(log_to_driver=False)
    rows = ray.data.from_items(
        [{"path": path} for path in new], override_num_blocks=max(args.workers, len(new) // 2000)
    )
    rows.map_batches(
        Judge,
        fn_constructor_args=(None if args.model is None else str(Path(args.model).resolve()),),
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        batch_size=512,
        num_gpus=args.gpus or None,
    ).write_parquet(str(args.out.resolve()))
    spent = time.monotonic() - start
    print(f"{len(new):,} judged in {spent:.0f} s, {len(new) / spent:,.0f} images/s, by {args.workers} workers")


if __name__ == "__main__":
    main()
