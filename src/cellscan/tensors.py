"""Atomic writing of files, and safetensors files with a checksum. The library never unpickles a file."""

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
    """Write a safetensors file atomically: an existing file stays unchanged until the new one is complete."""
    from safetensors.numpy import save

    # safetensors writes strided arrays as if they were contiguous, so their values would be wrong.
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    metadata = {**metadata, _DIGEST: _digest(contiguous, metadata)}
    write_whole(target, save(contiguous, metadata=metadata))


def write_whole(target: Path, data: bytes, *, error: type[CellscanError] = ModelFileError) -> None:
    """Write a file atomically: an existing file stays unchanged until the new one is complete.

    The function writes all files: models, checkpoints and CSV (encoded by the caller). Several threads and processes
    may write the same file; it then contains the complete data of one of them.

    Parameters
    ----------
    target : Path
        A link is followed. A target that is not a regular file, such as ``/dev/stdout``, is written to directly.
    data : bytes
        Contents of the file.
    error : type of CellscanError
        Class of the error that is raised if the file cannot be written.
    """
    try:
        target = Path(os.path.realpath(target))
        if target.is_dir():
            raise error(f"{target}: this is a folder; expected the path of a file")
        if not target.parent.is_dir():
            raise error(f"{target}: there is no folder {target.parent}; create it first")
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        # The name is random because threads share a process id, and cut because a name has at most 255 bytes.
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
            f"{target}: the file cannot be written ({problem}). An existing file is unchanged. "
            "Free some disk space, or choose another folder"
        ) from problem


def read_tensors(target: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Read the metadata and the tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(target, framework="np") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{target}: this is not a complete safetensors file ({error}). Pickled models (.pkl, .pth) and Keras files "
            "are not supported"
        ) from error


def check_digest(target: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    """Raise `ModelFileError` if the contents differ from what `write_tensors` wrote, even by a single bit."""
    others = {name: text for name, text in metadata.items() if name != _DIGEST}
    if metadata.get(_DIGEST) != _digest(tensors, others):
        raise ModelFileError(
            f"{target}: the file is damaged: its digest (SHA-256) does not match its contents; copy it again"
        )


def _digest(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
