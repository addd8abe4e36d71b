"""The model file: one safetensors file with the weights, and a JSON card in its header.

Tensors are named ``<member>.params.<path>`` and ``<member>.stats.<path>``; a single network is
member 0. The arrays of the novelty model are named ``novelty.<name>``. The card is stored under the metadata
key ``cellscan`` and contains a format number. Reading a file of another format raises an error; unknown entries
of the same format are ignored. The metadata also contain a digest of card and tensors, so that a damaged file
raises an error. The format does not use pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellscan import hub
from cellscan.data.images import FIT, RESIZE
from cellscan.data.values import as_path
from cellscan.decisions.conformal import Conformal
from cellscan.decisions.decision import Decision
from cellscan.decisions.novelty import Novelty
from cellscan.detection.anchors import Anchors
from cellscan.detection.likeness import Likeness
from cellscan.detection.rules import DetectionConfig
from cellscan.errors import ArgumentError, ModelFileError, check_choice
from cellscan.preprocessing import Normalization
from cellscan.tensors import check_digest, read_tensors, write_tensors

FORMAT = 2
_PARTS = ("train", "validation", "decision")
_KIND = {"kind": True}
"""Metadata of the fields that `Card.kind` returns. To add an option to a classifier, add such a field and use it."""


@dataclass(frozen=True)
class Card:
    """A description of a classifier or detector and of its training: the content of a model file except the weights.

    Attributes
    ----------
    architecture : str
        A name from `cellscan.list_backbones()`, or ``own:<class>`` for a user's own module.
    class_names : tuple[str, ...]
        Class names in the order of the network's outputs.
    positive_class : str or None
        The class to which the threshold refers.
    image_size : int or (int, int)
        Classifier: side of the square input in pixels. Detector: height and width.
    background : str
        How the background of a cell is treated, see `Classifier`; ``"field"`` for a detector.
    resize : dict
        The resize rule.
    normalization : Normalization
        Normalisation of images in [0, 1].
    n_members : int
        Number of networks whose probabilities are averaged.
    decision : Decision
        Temperature, threshold, label sets and patient rule.
    epochs : int
        Number of epochs trained so far.
    seed : int
        Seed of the weight initialisation, the shuffling and the augmentation.
    recipe : dict or None
        Recipe of the last `fit`; None before it.
    data : dict
        Hashes and sizes of the training and validation sets, and how they were split.
    salt : str
        Salt of the patient hashes.
    patient_hashes : dict
        Salted hashes of the patients used for ``"train"``, ``"validation"`` and ``"decision"``, never their ids.
        None instead of a list means that the patients were unknown. Hashes of files with different salts cannot
        be compared, but whoever has the file and guesses a patient id can check the guess.
    metrics : dict
        The metrics of the last epoch under ``"fit"``; a saved report under ``"report"``.
    versions : dict[str, str]
        Versions of Python and of the libraries.
    weights : dict or None
        Source, licence, revision and SHA-256 of the published weights that training started from; None for random
        weights.
    detection : DetectionConfig or None
        Configuration of a detector; None for a classifier.
    novelty : Novelty or None
        The novelty model; None before `Classifier.learn_novelty`.
    licence : str
        Licence of these weights.
    format : int
        Format number of the file.

    Examples
    --------
    >>> import cellscan
    >>> card = cellscan.Classifier(image_size=32).card
    >>> card.architecture, card.decision.threshold, card.background
    ('small_cnn', 0.5, 'fill')
    """

    architecture: str = field(metadata=_KIND)
    class_names: tuple[str, ...] = field(metadata=_KIND)
    positive_class: str | None = field(metadata=_KIND)
    image_size: int | tuple[int, int] = field(metadata=_KIND)
    background: str = field(metadata=_KIND)
    resize: dict[str, str] = field(default_factory=lambda: dict(RESIZE), metadata=_KIND)
    normalization: Normalization = field(default_factory=Normalization, metadata=_KIND)
    n_members: int = 1
    decision: Decision = field(default_factory=Decision)
    epochs: int = 0
    seed: int = 0
    recipe: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    salt: str = field(default_factory=lambda: new_salt())
    patient_hashes: dict[str, list[str] | None] = field(default_factory=lambda: {part: [] for part in _PARTS})
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Any] | None = None
    detection: DetectionConfig | None = None
    novelty: Novelty | None = None
    licence: str = "not stated"
    format: int = FORMAT

    def copy(self) -> Card:
        """Return a copy of the card whose dictionaries can be changed without changing this card.

        Examples
        --------
        >>> import cellscan
        >>> card = cellscan.Classifier(image_size=32).card
        >>> card.copy() == card
        True
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(self, **{name: deepcopy(value) for name, value in values.items() if isinstance(value, dict)})

    def kind(self) -> dict[str, Any]:
        """Return the entries that must be equal for members of an ensemble, and for a checkpoint and its training.

        The entries of a detector include its anchors.

        Examples
        --------
        >>> import cellscan
        >>> list(cellscan.Classifier(image_size=32).card.kind())
        ['architecture', 'class_names', 'positive_class', 'image_size', 'background', 'resize', 'normalization']
        """
        plain = asdict(replace(self, novelty=None))
        entries = {entry.name: plain[entry.name] for entry in fields(self) if entry.metadata.get("kind")}
        return entries if self.detection is None else {**entries, "anchors": plain["detection"]["anchors"]}

    @property
    def positive(self) -> int | None:
        """Index of the positive class in `class_names`, or None.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).card.positive
        0
        """
        return None if self.positive_class is None else self.class_names.index(self.positive_class)

    def hash_patients(self, patients: np.ndarray) -> list[str] | None:
        """Return the sorted, salted hashes of the distinct patients; None if a patient is unknown.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card
        >>> len(card.hash_patients(np.array(["C1", "C1", "C2"])) or [])
        2
        """
        distinct = set(patients.tolist())
        if not distinct or "" in distinct:
            return None
        return sorted(map(self._hash, distinct))

    def with_patients(self, part: str, patients: np.ndarray) -> Card:
        """Return a copy of the card in which a list of patients also contains the given patients, as hashes.

        Parameters
        ----------
        part : {"train", "validation", "decision"}
            The list: patients of the training, of the validation, or of the cells on which the decision was chosen.
        patients : (N,) array of str
            The patients. If one of them is unknown (``""``), or there are none, the list becomes None.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.with_patients("train", np.array(["C1"]))
        >>> len(card.patient_hashes["train"] or [])
        1
        """
        before, new = self.patient_hashes[part], self.hash_patients(patients)
        joined = None if before is None or new is None else sorted({*before, *new})
        return replace(self, patient_hashes={**self.patient_hashes, part: joined})

    def trained_on(self, patients: np.ndarray, recipe: dict[str, Any], data: dict[str, Any]) -> Card:
        """Return the card after a training on these patients.

        The decision and the novelty model are reset, because they belong to the previous weights.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.trained_on(np.array(["C1"]), {}, {})
        >>> len(card.patient_hashes["train"] or [])
        1
        """
        card = self.with_patients("train", patients)
        return replace(
            card,
            recipe=recipe,
            data=data,
            decision=Decision(),
            novelty=None,
            patient_hashes={**card.patient_hashes, "decision": []},
            versions=library_versions(),
        )

    def find_overlap(self, patients: np.ndarray) -> dict[str, frozenset[str] | None]:
        """Return which of these patients are in each part; None if these patients, or those of the part, are unknown.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.with_patients("train", np.array(["C1"]))
        >>> card.find_overlap(np.array(["C1", "C2", "C2"]))["train"]
        frozenset({'C1'})
        """
        if self.hash_patients(patients) is None:
            return dict.fromkeys(_PARTS)
        by_hash = {self._hash(patient): patient for patient in set(patients.tolist())}
        known = {part: self.patient_hashes[part] for part in _PARTS}
        return {
            part: None if hashes is None else frozenset(by_hash[digest] for digest in hashes if digest in by_hash)
            for part, hashes in known.items()
        }

    def _hash(self, patient: str) -> str:
        return hashlib.sha256(f"{self.salt}:{patient}".encode(errors="surrogateescape")).hexdigest()[:16]

    def count_overlap(self, patients: np.ndarray) -> tuple[int, dict[str, int | None]]:
        """Return the number of distinct patients, and the number of them in each part.

        The first number is 0 if a patient is unknown. The number of a part is None if its patients, or these, are
        unknown.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.with_patients("train", np.array(["C1"]))
        >>> card.count_overlap(np.array(["C1", "C2", "C2"]))
        (2, {'train': 1, 'validation': 0, 'decision': 0})
        """
        overlap = self.find_overlap(patients)
        count = 0 if self.hash_patients(patients) is None else len(set(patients.tolist()))
        return count, {part: None if shared is None else len(shared) for part, shared in overlap.items()}


def new_salt() -> str:
    """Return a random salt for patient hashes."""
    return secrets.token_hex(8)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a card records."""
    import platform
    from importlib.metadata import version

    result = {name: version(name) for name in ("jax", "flax", "optax", "numpy", "pillow")}
    return {"cellscan": version("cellscan"), "python": platform.python_version(), **result}


def save(
    path: str | os.PathLike[str],
    card: Card,
    members: Sequence[dict[str, Any]],
    report: dict[str, Any] | None,
    licence: str | None,
    dtype: str,
) -> None:
    """Write the file of a classifier or a detector, with report and licence in its card.

    If writing fails, no partial file is left.
    """
    target = as_path("path", path)
    check_choice("dtype", dtype, ("float32", "float16"))
    if not (licence is None or isinstance(licence, str)):
        raise ArgumentError(f"licence is {licence!r:.80}; expected a text such as 'Apache-2.0'")
    card = replace(card, versions=card.versions or library_versions())
    if report is not None:
        card = replace(card, metrics={**card.metrics, "report": report})
    if licence is not None:
        card = replace(card, licence=licence)
    tensors = {
        f"{number}.{kind}.{name}": _stored(np.asarray(leaf), dtype, f"{kind} {name}")
        for number, weights in enumerate(members)
        for kind, leaves in weights.items()
        for name, leaf in leaves.items()
    }
    write(target, card, tensors)


def _stored(leaf: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Return an array in the type of the file: float16 if requested and if all values are in its range."""
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise ModelFileError(f"{name} contains values that are not finite, so it is not saved; train the model again")
    narrow = dtype == "float16" and leaf.dtype == np.float32 and np.abs(leaf).max(initial=0) <= np.finfo(np.float16).max
    return leaf.astype(np.float16) if narrow else leaf


def write(path: str | os.PathLike[str], card: Card, tensors: dict[str, np.ndarray]) -> None:
    """Write card and tensors; if writing fails, no partial file is left."""
    arrays = {} if card.novelty is None else {f"novelty.{name}": getattr(card.novelty, name) for name in _NOVELTY}
    write_tensors(Path(path), {**tensors, **arrays}, {"cellscan": to_json(card)})


_NOVELTY = {"mean": np.float32, "scale": np.float32, "basis": np.float16, "variances": np.float32}
"""The arrays of a `Novelty`, and their types."""


def to_json(card: Card) -> str:
    """Return a card as JSON, without the arrays of `novelty`, which are tensors of the file."""
    plain = asdict(replace(card, novelty=None))
    if card.novelty is not None:
        values = {entry.name: getattr(card.novelty, entry.name) for entry in fields(Novelty)}
        plain["novelty"] = {name: value for name, value in values.items() if name not in _NOVELTY}
    return json.dumps(plain)  # The default, ASCII, also encodes names with bytes that are not valid UTF-8.


@contextlib.contextmanager
def bundled(name: str | None, known: tuple[str, ...]) -> Iterator[Path]:
    """Give the path of the file of a bundled model; without a name, of the first of the known ones."""
    from importlib.resources import as_file, files

    name = known[0] if name is None else name
    check_choice("name", name, known)
    with as_file(files("cellscan").joinpath("weights", f"{name}.safetensors")) as path:
        yield path


def read(path: str | os.PathLike[str], token: str | None = None) -> tuple[Card, dict[str, np.ndarray]]:
    """Read card and tensors of a file, or of an address on the Hugging Face hub.

    Raise `ModelFileError` with the reason if the file cannot be used.
    """
    if not hub.is_address(path):
        return _read(as_path("path", path))
    target = hub.download(hub.parse_address(path), token)
    try:
        return _read(target)
    except ModelFileError as error:
        raise ModelFileError(
            f"{path}: {error}. To download it again, delete {os.path.realpath(target)}; if that does not help, the "
            "file in the repository is damaged"
        ) from error


def _read(target: Path) -> tuple[Card, dict[str, np.ndarray]]:
    if not target.exists():
        raise ModelFileError(f"{target}: there is no such file")
    metadata, tensors = read_tensors(target)
    card = _parse(metadata.get("cellscan"), target, tensors)
    check_digest(target, metadata, tensors)
    return card, {name: tensor for name, tensor in tensors.items() if not name.startswith("novelty.")}


def _parse(text: str | None, target: Path, tensors: dict[str, np.ndarray]) -> Card:
    if text is None:
        raise ModelFileError(
            f"{target}: a safetensors file without a cellscan card, so cellscan did not write it; expected a file that "
            "save(...) wrote"
        )
    try:
        raw = json.loads(text)
        number = raw["format"]
        if number > FORMAT:
            raise ModelFileError(
                f"{target}: made by a newer cellscan ({raw.get('versions', {}).get('cellscan', 'version unknown')}, "
                f"format {number}; this version reads up to {FORMAT}). Upgrade: pip install -U cellscan"
            )
        if number < FORMAT:
            raise ModelFileError(
                f"{target}: has format {number}, from before the first release; this cellscan reads format {FORMAT}. "
                "Train and save the model again"
            )
        known = {f.name: raw[f.name] for f in fields(Card) if f.name in raw}
        known["class_names"] = tuple(map(str, raw["class_names"]))
        mean, std = (raw["normalization"][key] for key in ("mean", "std"))
        known["normalization"] = Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        decision = {f.name: raw["decision"][f.name] for f in fields(Decision) if f.name in raw["decision"]}
        if decision.get("conformal") is not None:
            conformal = decision["conformal"]
            decision["conformal"] = Conformal(alpha=float(conformal["alpha"]), quantile=float(conformal["quantile"]))
        known["decision"] = Decision(**decision)
        if isinstance(raw["image_size"], list):
            height, width = map(int, raw["image_size"])
            known["image_size"] = (height, width)
        if raw.get("detection") is not None:
            known["detection"] = _parse_detection(raw["detection"])
        if raw.get("novelty") is not None:
            known["novelty"] = _parse_novelty(raw["novelty"], tensors)
        known["patient_hashes"] = {part: raw["patient_hashes"].get(part, []) for part in _PARTS}
        card = Card(**known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{target}: the card is damaged ({type(error).__name__}: {error})") from error
    rule = RESIZE if card.detection is None else FIT
    if card.resize != rule:
        raise ModelFileError(f"{target}: made for the resize rule {card.resize}; this cellscan resizes with {rule}")
    return card


def _parse_detection(raw: dict[str, Any]) -> DetectionConfig:
    known = {f.name: raw[f.name] for f in fields(DetectionConfig) if f.name in raw}
    anchors = raw["anchors"]
    known["anchors"] = Anchors(tuple(anchors["strides"]), float(anchors["size"]), tuple(map(float, anchors["ratios"])))
    known["thresholds"] = tuple(map(float, raw["thresholds"]))
    known["outcomes"] = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in raw.get("outcomes", ()))
    if (likeness := raw.get("likeness")) is not None:
        low, high = tuple(map(float, likeness["low"])), tuple(map(float, likeness["high"]))
        known["likeness"] = Likeness(str(likeness["source"]), int(likeness["fields"]), low, high)
    return DetectionConfig(**known)


def _parse_novelty(raw: dict[str, Any], tensors: dict[str, np.ndarray]) -> Novelty:
    arrays = {name: tensors[f"novelty.{name}"] for name in _NOVELTY}
    wrong = [f"{name} of {array.dtype}" for name, array in arrays.items() if array.dtype != _NOVELTY[name]]
    mean, scale, basis, variances = arrays.values()
    if wrong or not (mean.shape == scale.shape == basis.shape[:1] and basis.shape[1:] == variances.shape):
        raise ValueError(f"the arrays of novelty do not fit each other {', '.join(wrong)}".rstrip())
    return Novelty(
        **arrays, threshold=float(raw["threshold"]), cells=int(raw["cells"]), patients=int(raw["patients"]),
        rest=float(raw["rest"]),
    )  # fmt: skip
