"""The checkpoint of a training: one safetensors file in a folder, replaced whole after every epoch.

It holds everything that the next epoch depends on, so that a training that was killed at any moment
goes on from its last whole epoch and ends with the same bits as one that was not. Nothing is
pickled; a file that is half written is never under the name that is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cellscan.errors import ArgumentError, ModelFileError
from cellscan.models.network import Weights
from cellscan.tasks.programs import TrainState
from cellscan.tensors import check_digest, read_tensors, write_tensors

NAME = "checkpoint.safetensors"
FORMAT = 1
_ENTRY = "cellscan.checkpoint"


@dataclass
class Progressed:
    """How far a training has come.

    Attributes
    ----------
    state : TrainState
        To go on from.
    kept : dict
        The weights that a classifier holds now.
    best : dict
        The best weights so far, where early stopping watches; else empty.
    best_score, best_epoch
        Of those.
    records : list of dict
        One an epoch.
    finished : bool
        No epoch is left.
    """

    state: TrainState
    kept: Weights
    best: Weights
    best_score: float = -np.inf
    best_epoch: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False


class Checkpoint:
    """One training's place on disk.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    plan : dict
        Everything that decides how the training goes, as JSON values. A checkpoint of another plan
        is refused.
    resume : bool
        Whether a checkpoint that is there may be used.

    Of several processes the first one writes.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: dict[str, Any], *, resume: bool) -> None:
        self.path: Path = Path(folder) / NAME
        self._plan: dict[str, Any] = _entries(json.loads(json.dumps(plan)))
        self._writes: bool = jax.process_index() == 0
        self._start = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stale = list(self.path.parent.glob(f"{NAME}.*.part")) if self._writes else []
            for part in stale:  # what a killed process left half written
                part.unlink(missing_ok=True)
        except OSError as error:
            raise ModelFileError(f"{folder}: no folder for checkpoints can be made there ({error})") from error
        if self.path.exists() and not resume:
            raise ArgumentError(
                f"{folder} holds the checkpoint of a training; pass resume=True to go on, or name another folder"
            )

    def load(self, first: Progressed) -> Progressed:
        """Return how far the training came; `first` itself where there is no checkpoint yet.

        `first` is the very beginning: its arrays say which names, shapes and types are expected, and its
        weights must be those that this training began with, or those that it had come to.
        """
        here = hash_weights(first.kept)
        self._start = here
        if not self.path.exists():
            return first
        header, tensors = self._read()
        differ = [
            f"{name} was {header['plan'].get(name)!r} and is {self._plan.get(name)!r}"
            for name in {**header["plan"], **self._plan}
            if header["plan"].get(name) != self._plan.get(name)
        ]
        if not differ and here not in (header["start"], header["kept"]):
            differ = ["it began with other weights"]
        if differ:
            raise ArgumentError(
                f"{self.path} is the checkpoint of another training; name another folder, or call fit as the first "
                "time:\n  " + "\n  ".join(differ)
            )
        self._start = header["start"]
        wanted = _flat(first.state, first.kept, first.best)
        bad = [name for name, leaf in wanted.items() if name not in tensors or not _fits(tensors[name], leaf)]
        bad += [name for name in tensors if name not in wanted]
        if bad:
            raise ModelFileError(f"{self.path}: these arrays do not fit the training: {', '.join(bad[:10])}")
        leaves = [_as_jax(tensors[name], leaf) for name, leaf in wanted.items()]
        structure = jax.tree.structure((first.state, first.kept, first.best))
        state, kept, best = jax.tree.unflatten(structure, leaves)
        done = {name: header[name] for name in ("best_score", "best_epoch", "records", "finished")}
        return Progressed(state, kept, best, **done)

    def save(self, at: Progressed) -> None:
        """Replace the checkpoint, whole or not at all."""
        if not self._writes:
            return
        header = {
            "format": FORMAT,
            "plan": self._plan,
            "start": self._start,
            "kept": hash_weights(at.kept),
            "records": at.records,
            "best_score": at.best_score,
            "best_epoch": at.best_epoch,
            "finished": at.finished,
        }
        tensors = {name: _as_numpy(leaf) for name, leaf in _flat(at.state, at.kept, at.best).items()}
        write_tensors(self.path, tensors, {_ENTRY: json.dumps(header)})

    def _read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        metadata, tensors = read_tensors(self.path)
        if _ENTRY not in metadata:
            raise ModelFileError(f"{self.path}: this is no checkpoint of cellscan; name another folder")
        check_digest(self.path, metadata, tensors)
        header = json.loads(metadata[_ENTRY])
        if header["format"] != FORMAT:
            raise ModelFileError(f"{self.path}: of format {header['format']}; this cellscan reads {FORMAT}")
        return header, tensors


def _entries(plan: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested entries under dotted names, so that a difference can be named."""
    entries: dict[str, Any] = {}
    for name, value in plan.items():
        entries |= _entries(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return entries


def _flat(*trees: Any) -> dict[str, Any]:
    """Return the leaves by the path that leads to them, in order."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_numpy(leaf: jax.Array) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    # NumPy's own types are what the file format knows; others, such as bfloat16, travel as their bytes
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _fits(array: np.ndarray, leaf: jax.Array) -> bool:
    wanted = _as_numpy(leaf)
    return array.shape == wanted.shape and array.dtype == wanted.dtype


def _as_jax(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.array(array), impl=jax.random.key_impl(leaf))
    return jax.numpy.array(array.view(leaf.dtype))


def hash_weights(weights: Weights) -> str:
    """Return a short hash of names and values."""
    digest = hashlib.sha256()
    for kind in sorted(weights):
        for name in sorted(weights[kind]):
            digest.update(name.encode() + np.asarray(weights[kind][name]).tobytes())
    return digest.hexdigest()[:32]
