"""The checkpoint of a training: one safetensors file in a folder, replaced after every epoch.

The file contains everything that the next epoch depends on. A training that was killed at any moment resumes from
its last complete epoch and ends with the same bits as an uninterrupted one. The format does not use pickle. A file
is written under another name and renamed when it is complete, so a partly written file is never read.
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
    """The progress of a training.

    Attributes
    ----------
    state : TrainState
        The state from which the next step continues.
    kept : dict
        The weights that the classifier has now.
    best : dict
        The best weights so far; empty without early stopping.
    best_score, best_epoch
        Score and epoch of the best weights.
    records : list of dict
        The metrics of every epoch.
    finished : bool
        Whether all epochs are done.
    """

    state: TrainState
    kept: Weights
    best: Weights
    best_score: float = -np.inf
    best_epoch: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False


class Checkpoint:
    """The checkpoint file of one training.

    With several processes, only the first one writes.

    Parameters
    ----------
    folder : path
        Folder of the checkpoint; created if it is missing.
    plan : dict
        Everything that determines the training, as JSON values. `load` raises an error for a checkpoint with another
        plan.
    resume : bool
        Whether an existing checkpoint may be used.

    Raises
    ------
    ArgumentError
        If the folder contains a checkpoint and `resume` is False.
    ModelFileError
        If the folder cannot be created.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: dict[str, Any], *, resume: bool) -> None:
        self.path: Path = Path(folder) / NAME
        self._plan: dict[str, Any] = _entries(json.loads(json.dumps(plan)))
        self._writes: bool = jax.process_index() == 0
        self._start = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stale = list(self.path.parent.glob(f"{NAME}.*.part")) if self._writes else []
            for part in stale:  # A killed process leaves a partly written file.
                part.unlink(missing_ok=True)
        except OSError as error:
            raise ModelFileError(f"{folder}: cannot create a folder for checkpoints there ({error})") from error
        if self.path.exists() and not resume:
            raise ArgumentError(
                f"{folder} contains the checkpoint of a training; pass resume=True to continue it, or pass another "
                "folder"
            )

    def load(self, first: Progressed) -> Progressed:
        """Return the progress in the checkpoint, or `first` if there is no checkpoint yet.

        `first` is the progress before the first epoch. Its arrays define the expected names, shapes and types. Its
        weights must be the initial weights of this training, or those in the checkpoint.
        """
        current = hash_weights(first.kept)
        self._start = current
        if not self.path.exists():
            return first
        header, tensors = self._read()
        differ = [
            f"{name} was {header['plan'].get(name)!r} and is {self._plan.get(name)!r}"
            for name in {**header["plan"], **self._plan}
            if header["plan"].get(name) != self._plan.get(name)
        ]
        if not differ and current not in (header["start"], header["kept"]):
            differ = ["it began with other weights"]
        if differ:
            raise ArgumentError(
                f"{self.path} is the checkpoint of another training; pass another folder, or call fit with the "
                "arguments of the first call. Differences:\n  " + "\n  ".join(differ)
            )
        self._start = header["start"]
        expected = _flat(first.state, first.kept, first.best)
        bad = [name for name, leaf in expected.items() if name not in tensors or not _fits(tensors[name], leaf)]
        bad += [name for name in tensors if name not in expected]
        if bad:
            raise ModelFileError(f"{self.path}: these arrays do not fit the training: {', '.join(bad[:10])}")
        leaves = [_as_jax(tensors[name], leaf) for name, leaf in expected.items()]
        structure = jax.tree.structure((first.state, first.kept, first.best))
        state, kept, best = jax.tree.unflatten(structure, leaves)
        done = {name: header[name] for name in ("best_score", "best_epoch", "records", "finished")}
        return Progressed(state, kept, best, **done)

    def save(self, at: Progressed) -> None:
        """Replace the checkpoint; if writing fails, the previous one stays."""
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
            raise ModelFileError(f"{self.path}: this is not a checkpoint of cellscan; pass another folder")
        check_digest(self.path, metadata, tensors)
        header = json.loads(metadata[_ENTRY])
        if header["format"] != FORMAT:
            raise ModelFileError(
                f"{self.path}: has format {header['format']}; this cellscan reads format {FORMAT}. Pass another folder"
            )
        return header, tensors


def _entries(plan: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested entries under dotted names, so that an error message can list the differences."""
    entries: dict[str, Any] = {}
    for name, value in plan.items():
        entries |= _entries(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return entries


def _flat(*trees: Any) -> dict[str, Any]:
    """Return the leaves of the trees by their paths, in order."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_numpy(leaf: jax.Array) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    # The file format has NumPy's built-in types only; others, such as bfloat16, are stored as unsigned integers.
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _fits(array: np.ndarray, leaf: jax.Array) -> bool:
    expected = _as_numpy(leaf)
    return array.shape == expected.shape and array.dtype == expected.dtype


def _as_jax(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.array(array), impl=jax.random.key_impl(leaf))
    return jax.numpy.array(array.view(leaf.dtype))


def hash_weights(weights: Weights) -> str:
    """Return a short hash of the names and values of weights."""
    digest = hashlib.sha256()
    for kind in sorted(weights):
        for name in sorted(weights[kind]):
            digest.update(name.encode() + np.asarray(weights[kind][name]).tobytes())
    return digest.hexdigest()[:32]
