"""Loads published weights into a network: finds the file, reads its normalisation and checks its tensors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscan.data.cache import cache_folder
from cellscan.errors import ArgumentError, ModelFileError
from cellscan.hub import Address, download, is_address, parse_address
from cellscan.models.keys import Keys
from cellscan.preprocessing import Normalization
from cellscan.tensors import read_tensors

if TYPE_CHECKING:
    from flax import nnx

PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt", ".tar")
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


@dataclass(frozen=True)
class WeightSource:
    """Published weights of a backbone.

    Attributes
    ----------
    name : str
        Name of the repository on the Hugging Face hub, or of the package that contains the weights.
    licence : str or None
        Licence stated by the publisher; None if it is unknown.
    normalization : Normalization
        Normalisation of RGB images in [0, 1] that the weights expect.
    hub : bool
        True if `name` is a repository on the hub.
    revision : str or None
        Commit of the repository; None is the newest.
    fingerprint : str or None
        The first 16 hexadecimal digits of the SHA-256 of the first kernel, as float16 in the layout of cellscan. It
        identifies the weights in a local file of any format. None if it is unknown.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.list_backbones()[1].weights[0].licence
    'BSD-3-Clause'
    """

    name: str
    licence: str | None
    normalization: Normalization
    hub: bool = True
    revision: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Loaded:
    """Normalisation and origin of loaded weights, for the card."""

    normalization: Normalization
    record: dict[str, Any] = field(default_factory=dict)


def load_into(
    module: nnx.Module, weights: str | os.PathLike[str], sources: tuple[WeightSource, ...], keys: Keys | None, *,
    name: str, num_classes: int, new_head: bool,
) -> Loaded:  # fmt: skip
    """Load published weights into a module; after an error the module is unchanged.

    With `new_head`, the last layers in the file are ignored. Without it, they are loaded if they fit. If they do not
    fit, they are ignored if `num_classes` differs from the 1000 classes of ImageNet.
    """
    if keys is None:
        raise ArgumentError(f"there are no published weights for {name}; leave out weights")
    path, source, revision = _find(weights, sources, name, module)
    if path.suffix.lower() in PICKLES:
        raise ModelFileError(
            f"{path}: a pickle can run arbitrary code, so cellscan does not open it. If you trust it, convert it to "
            'safetensors: safetensors.torch.save_file(torch.load("model.pth", weights_only=True), "model.safetensors")'
        )
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file")
    _, tensors = read_tensors(path)
    configured = _configured(path)
    fingerprint = fill(module, tensors, keys, path=str(path), num_classes=num_classes, new_head=new_head)
    if source is None:
        source = next((s for s in sources if s.fingerprint == fingerprint), None)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        "source": path.name if source is None else source.name,
        "licence": None if source is None else source.licence,
        "revision": revision,
        "sha256": digest,
    }
    known = source is not None and source in sources
    normalization = configured or (source or sources[0]).normalization
    if not known and configured is None:
        warnings.warn(
            f"{path}: the normalisation of its images is unknown; using that of {sources[0].name}: mean "
            f"{normalization.mean}, standard deviation {normalization.std}. If the weights need another one, put the "
            "config.json of their repository into the same folder",
            stacklevel=4,
        )
    return Loaded(normalization, record)


def _configured(path: Path) -> Normalization | None:
    """Return the normalisation in timm's ``config.json`` in the folder of a file; None without such a file."""
    config = path.with_name("config.json")
    if not config.is_file():
        return None
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        values = values.get("pretrained_cfg", values)
        mean, std = (tuple(float(value) for value in values[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean {mean}, std {std}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{config}: no normalisation can be read from this file ({type(error).__name__}: {error}); expected "
            '{"pretrained_cfg": {"mean": [...], "std": [...]}} with three numbers each'
        ) from error
    return Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def fill(
    module: nnx.Module, tensors: dict[str, np.ndarray], keys: Keys, *, path: str, num_classes: int, new_head: bool
) -> str:
    """Load published tensors into a module and return their fingerprint.

    All tensors that do not fit the module are reported in one `ModelFileError`.
    """
    from flax import nnx

    state = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    unused = {name for name in tensors if not re.search(keys.ignore, name)}
    if new_head:
        unused = {name for name in unused if not re.search(keys.head, name)}
    wrong, filled, first = [], [], ""
    for parts, variable in state:
        ours = ".".join(map(str, parts))
        theirs = published_name(ours, keys)
        shape, top = variable.shape, ours.startswith("head.")
        if new_head and top:
            continue
        tensor = tensors.get(theirs)
        unused.discard(theirs)
        if tensor is None:
            wrong.append(f"missing {theirs}")
            continue
        value = _turn(tensor, keys)
        if value.shape != shape or value.dtype.kind != "f":
            if not (top and shape[-1] == num_classes != 1000 and value.shape[:-1] == shape[:-1]):
                wrong.append(
                    f"{theirs} is {tensor.dtype} {tensor.shape}; expected floats for the shape {shape} of {ours}"
                )
            continue
        if value.ndim == 4 and value.shape[2] == 3:  # This is the first kernel.
            value = np.ascontiguousarray(value[:, :, ::-1] if keys.bgr else value)
            first = hashlib.sha256(value.astype(np.float16).tobytes()).hexdigest()[:16]
        filled.append((parts, variable.replace(np.asarray(value, np.float32))))
    wrong += [f"unknown {name}" for name in sorted(unused)]
    if wrong:
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise ModelFileError(f"{path}: the tensors do not fit the network:\n  " + "\n  ".join(wrong[:20]) + more)
    import jax

    nnx.update(module, jax.tree.map(jax.numpy.asarray, nnx.from_flat_state(filled)))
    return first


def published_name(ours: str, keys: Keys) -> str:
    """Return the name in a published file of a parameter of cellscan, such as ``stem.conv.kernel``."""
    path, leaf = ours.rsplit(".", 1)
    for pattern, replacement in keys.rules:
        path = re.sub(pattern, replacement if isinstance(replacement, str) else _grouped(replacement), path)
    return f"{path}.{leaf if keys.layout == 'keras' else _LEAVES[leaf]}"


def _grouped(function: Callable[[list[str]], str]) -> Callable[[re.Match[str]], str]:
    return lambda match: function(list(match.groups()))


def _turn(tensor: np.ndarray, keys: Keys) -> np.ndarray:
    """Return a tensor in the layout of cellscan: (H, W, in, out) or (in, out)."""
    if keys.layout == "torch" and tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    return tensor.T if keys.layout == "torch" and tensor.ndim == 2 else tensor


def _find(
    weights: str | os.PathLike[str], sources: tuple[WeightSource, ...], name: str, module: nnx.Module
) -> tuple[Path, WeightSource | None, str | None]:
    """Return the path of the file, and its source and its revision if they are known."""
    if is_address(weights):
        address = parse_address(weights)
        plain = WeightSource(address.repository, None, sources[0].normalization)
        source = next((s for s in sources if s.hub and s.name == address.repository), plain)
    elif weights == "imagenet":
        source = sources[0]
        if not source.hub:
            raise ModelFileError(
                f"the weights of {name} are not on the Hugging Face hub, but in {source.name} ({source.licence}); "
                "convert them to a .safetensors file and pass its path"
            )
        address = Address(source.name, source.revision)
    else:
        if isinstance(weights, str) and not Path(weights).suffix and os.sep not in weights:
            raise ArgumentError(
                f'weights is {weights!r}; expected "imagenet", the path of a .safetensors file, or "hf://owner/name"'
            )
        return Path(weights), None, None
    folder = address.repository.replace("/", "--") + ("" if address.revision is None else f"@{address.revision}")
    cached = cache_folder() / "weights" / folder / address.file
    if cached.is_file():
        return cached, source, address.revision
    path = _download(address, cached, module)
    snapshot = path.parents[len(PurePosixPath(address.file).parts) - 1]
    return path, source, snapshot.name if snapshot.parent.name == "snapshots" else address.revision


def _download(address: Address, cached: Path, module: nnx.Module) -> Path:
    import jax
    from flax import nnx

    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, (nnx.Param, nnx.BatchStat))))
    path = download(
        address,
        instead=f"download https://huggingface.co/{address.repository}/resolve/{address.revision or 'main'}/"
        f"{address.file} (about {4 * count / 1e6:,.0f} MB) and save it as {cached}",
    )
    with contextlib.suppress(ModelFileError):  # Without this file, a warning states the assumed normalisation.
        config = PurePosixPath(address.file).with_name("config.json")
        download(replace(address, file=str(config)))  # The folder is that of the weights.
    return path
