"""Helpers that several tests use."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from PIL import Image

import cellscan
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import Report, make_report

REPOSITORY = Path(__file__).resolve().parents[1]


class TinyNet(nnx.Module):
    """Somebody's own network: batch norm, dropout, features."""

    def __init__(self, classes: int = 2, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        return {"pre_logits": jax.nn.relu(self.norm(self.conv(x))).mean((1, 2))}

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop(self.features(x)["pre_logits"]))


def random_image(seed: int = 0, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normal(seed: int, shape: Sequence[int]) -> jax.Array:
    """Draw from a normal distribution, by NumPy: JAX compiles its generator for every shape."""
    return jax.numpy.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def write_cells(root: Path, names: dict[str, list[str]]) -> Path:
    """Write small images root/<class>/<name>, all different."""
    count = 0
    for folder, files in names.items():
        for name in files:
            count += 1
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random_image(count, 20 + count % 5, 24)).save(path)
    return root


def nih_name(patient: int, cell: int) -> str:
    return f"C{patient}P{patient + 10}ThinF_IMG_20150918_144104_cell_{cell}.png"


def tiny_cells(count: int = 48, size: int = 32, patients: int = 6) -> cellscan.CellDataset:
    """Cells whose class is their brightness: a network learns it in seconds."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    light = np.where(labels == 0, 90, 170)[:, None, None, None]
    images = np.clip(light + rng.normal(0, 20, (count, size, size, 3)), 40, 255).astype(np.uint8)
    ids = [f"p{i // 2 % patients}" for i in range(count)]
    return cellscan.CellDataset.from_arrays(images, labels, patients=ids)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Give the list of what JAX compiles inside the block, a name each."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **details: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            name = str(details.get("fun_name", ""))  # such as jit(step) or jit_step, by the version of JAX
            names.append(name.removeprefix("jit_").removeprefix("jit(").removesuffix(")"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + len(names))(1.0)
        assert names, "it does not hear"
        names.clear()
        yield names
    finally:
        jax.monitoring.clear_event_listeners()


def devices_of(count: int) -> dict[str, str]:
    """Return the environment of a process whose JAX sees so many devices."""
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"}


def run_python(code: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run code in a fresh process and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def made_report(labels, scores, patients, **changes) -> Report:
    """Return a report of these probabilities of the first class; patients that are "" are unknown."""
    first = np.asarray(scores)
    known = {patient for patient in patients if patient}
    base = {
        "names": np.array([f"{i}.png" for i in range(len(labels))]), "patients": np.asarray(patients),
        "class_names": ("parasitized", "uninfected"), "positive": 0, "threshold": 0.5, "split": "whole",
        "patient_overlap": PatientOverlap(len(known), 0, 0) if known else PatientOverlap(0, None, None),
        "background": "fill",
    }  # fmt: skip
    probabilities = np.stack([first, 1 - first], 1).astype(np.float32)
    predicted = np.where(first >= 0.5, 0, 1).astype(np.int32)
    return make_report(np.asarray(labels), predicted, probabilities, **{**base, **changes})
