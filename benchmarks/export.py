"""Exported files compared with `predict_proba`: largest difference, and images per second.

    python benchmarks/export.py DATA --lite0 tf_efficientnet_lite0.safetensors

The benchmark uses 500 real cells and four classifiers: the bundled model, an ensemble of two, `small_cnn` with random
weights, and EfficientNet-Lite0 with published weights and a new head.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from accuracy import versions

import cellscan

BATCH = 64


def rate(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the predictions, and the images per second in batches: the best of three rounds."""
    run(images[:BATCH])
    spent, rows = [], []
    for _ in range(3):
        start = time.perf_counter()
        rows = [run(images[at : at + BATCH]) for at in range(0, len(images) // BATCH * BATCH, BATCH)]
        spent.append(time.perf_counter() - start)
    return np.concatenate(rows), len(images) // BATCH * BATCH / min(spent)


def main() -> None:
    """Export, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--lite0", type=Path, required=True)
    args = parser.parse_args()
    import onnxruntime

    cells = cellscan.load_malaria(args.data)
    cells = cells.select(np.random.default_rng(0).choice(len(cells), 500, replace=False))
    one = cellscan.Classifier.pretrained()
    classifiers = {
        "SqueezeNet 1.1, 96 px": one,
        "two of it": cellscan.Classifier.ensemble([one, one]),
        "small_cnn, 64 px": cellscan.Classifier("small_cnn", image_size=64, seed=0),
        "EfficientNet-Lite0, 112 px": cellscan.Classifier("tf_efficientnet_lite0", weights=args.lite0, image_size=112),
    }
    print("| network | greatest difference: ONNX, StableHLO | images/s: predict_proba, ONNX, StableHLO |")
    print("| --- | --- | --- |")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, clf in classifiers.items():
        with tempfile.TemporaryDirectory() as folder:
            onnx, hlo = Path(folder) / "m.onnx", Path(folder) / "m.stablehlo"
            clf.export(onnx)
            clf.export(hlo)
            session = onnxruntime.InferenceSession(str(onnx), options)
            program = jax.jit(jax.export.deserialize(bytearray(hlo.read_bytes())).call)
        images = np.asarray(cells.images(clf.image_size))
        ours, a = rate(lambda x, clf=clf: clf.predict_proba(x, progress=False), images)
        theirs, b = rate(lambda x, s=session: np.asarray(s.run(None, {"images": x})[0]), images)
        again, c = rate(lambda x, p=program: np.asarray(p(x)), images)
        off = f"{np.abs(theirs - ours).max():.1e}, {np.abs(again - ours).max():.1e}"
        print(f"| {name} | {off} | {a:,.0f}, {b:,.0f}, {c:,.0f} |", flush=True)
    print(f"\n{versions()}; onnxruntime {version('onnxruntime')}, jax2onnx {version('jax2onnx')}")


if __name__ == "__main__":
    main()
