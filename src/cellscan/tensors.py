"""Files written whole or not at all; safetensors known to be what was written. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from cellscan.errors import CellscanError, ModelFileError

_DIGEST = "cellscan.sha256"


def write_tensors(target: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all: what stood there before stays until the new one is complete."""
    from safetensors.numpy import save

    # safetensors writes strided arrays as if they were whole, and so wrongly
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    metadata = {**metadata, _DIGEST: _digest(whole, metadata)}
    write_whole(target, save(whole, metadata=metadata))


def write_whole(target: Path, data: bytes, *, error: type[CellscanError] = ModelFileError) -> None:
    """Write a file whole or not at all: what stood there before stays until the new one is complete.

    Any file: models, checkpoints, CSV (encoded by the caller). Several threads and processes may write the same
    one; it then holds what one of them wrote.

    Parameters
    ----------
    target : Path
        A link is followed. What is no regular file, such as ``/dev/stdout``, is written to directly.
    data : bytes
    error : type of CellscanError
        What is raised where the file cannot be written.
    """
    try:
        target = Path(os.path.realpath(target))
        if target.is_dir():
            raise error(f"{target}: this is a folder; name a file in it")
        if not target.parent.is_dir():
            raise error(f"{target}: there is no folder {target.parent}; make it first")
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        # Unique for each write: threads share a process id. Cut, because a name has at most 255 bytes.
        part = target.with_name(f"{target.name[:50]}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            with open(part, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name
        if isinstance(problem, CellscanError):
            raise
        raise error(
            f"{target}: the file cannot be written ({problem}); what stood there before is untouched. "
            "Free some space, or name another folder"
        ) from problem


def read_tensors(target: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Read metadata and tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(target, framework="np") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{target}: this is no whole safetensors file ({error}). Pickled models (.pkl, .pth) and Keras files "
            "are never opened"
        ) from error


def check_digest(target: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    """Raise unless these are the bytes that `write_tensors` wrote: a flipped bit is an error, not another result."""
    others = {name: text for name, text in metadata.items() if name != _DIGEST}
    if metadata.get(_DIGEST) != _digest(tensors, others):
        raise ModelFileError(f"{target}: the file is damaged: its digest (SHA-256) is not that of its contents")


def _digest(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
