"""The model file: one safetensors file with the weights, and a JSON card in its header.

Tensors are named ``<member>.params.<path>`` and ``<member>.stats.<path>``; a single network is
member 0. The card stands under the metadata key ``cellscan`` and carries a format number: a file of
a newer format is refused, unknown entries of the same format are passed over. A digest of card and
tensors stands beside it: a damaged file is refused. Nothing is ever unpickled.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellscan.data.images import FIT, RESIZE
from cellscan.detection.anchors import Anchors
from cellscan.errors import ArgumentError, ModelFileError, check_choice
from cellscan.tensors import check_digest, read_tensors, write_tensors
from cellscan.views import Normalization

FORMAT = 1
_PARTS = ("train", "validation", "decision")


class Conformal(NamedTuple):
    """How far a label may be off and still belong to the set of a cell.

    Attributes
    ----------
    alpha : float
        How often the set of a random cell of a new patient may lack the true label.
    quantile : float
        A label belongs to the set where 1 minus its probability is at most this.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Conformal(alpha=0.1, quantile=0.3).alpha
    0.1
    """

    alpha: float
    quantile: float


@dataclass(frozen=True)
class Decision:
    """How probabilities become labels, sets of labels, and patients called infected.

    Attributes
    ----------
    temperature : float
        Logits are divided by it before the softmax, above 0 (Guo et al., 2017).
    threshold : float
        P(positive class) from which a cell is positive, in (0, 1). Used with two classes.
    conformal : Conformal or None
        Which labels belong to the set of a cell.
    patient_rule : float or None
        Share of positive cells from which a patient counts as infected, in (0, 1].

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Decision().threshold
    0.5
    """

    temperature: float = 1.0
    threshold: float = 0.5
    conformal: Conformal | None = None
    patient_rule: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ArgumentError(f"threshold is {self.threshold!r}; expected a number in (0, 1)")
        if not self.temperature > 0:
            raise ArgumentError(f"temperature is {self.temperature!r}; expected a number above 0")
        if self.patient_rule is not None and not 0 < self.patient_rule <= 1:
            raise ArgumentError(f"patient_rule is {self.patient_rule!r}; expected a share in (0, 1], or None")


@dataclass(frozen=True, eq=False)
class Novelty:
    """What familiar cells look like to a network, and how far from that an image is novel.

    A Gaussian of the roots of colours and of the mean of every stage but the last, with `basis` as its widest axes
    and one variance for all others (Tipping and Bishop, 1999); an image's novelty is its Mahalanobis distance (Lee et
    al., 2018).

    Attributes
    ----------
    threshold : float
        Distance above which an image is novel: 99 of 100 cells pass, of patients whom the Gaussian has not seen.
    cells, patients : int
        That it was learned from; 0 patients where they were unknown.
    mean, scale : numpy.ndarray
        (D,) float32, of the features.
    basis : numpy.ndarray
        (D, k) float16, its columns of length 1.
    variances : numpy.ndarray
        (k,) float32, along the columns.
    rest : float
        Variance across them.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(800, seed=0)
    >>> clf = cellscan.Classifier(image_size=16, seed=0)
    >>> threshold = clf.learn_novelty(cells)
    >>> clf.card.novelty  # doctest: +ELLIPSIS
    Novelty(threshold=..., cells=800, patients=20, features=230)
    """

    threshold: float
    cells: int
    patients: int
    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    variances: np.ndarray
    rest: float

    def __repr__(self) -> str:
        known = f"cells={self.cells}, patients={self.patients}, features={len(self.mean)}"
        return f"Novelty(threshold={self.threshold:.4g}, {known})"


@dataclass(frozen=True)
class Detection:
    """How what a detector says of its anchors becomes boxes; printed with every score.

    Attributes
    ----------
    anchors : Anchors
        What boxes are written relative to.
    thresholds : tuple[float, ...]
        Score from which a box counts, a class each, in (0, 1).
    overlap : float
        Intersection over union from which a box is suppressed by a better one of its class.
    most : int
        Boxes of a field at most.
    sensitivity, false_positive_rate, false_positive_sd : float or None
        Of the last class, measured by `Detector.choose_threshold`: share of its cells that are found; false ones for
        every cell that is none; and the standard deviation of that over fields.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Detector("retinanet_small", image_size=(64, 64)).card.detection.thresholds
    (0.5, 0.5)
    """

    anchors: Anchors
    thresholds: tuple[float, ...]
    overlap: float = 0.5
    most: int = 400
    sensitivity: float | None = None
    false_positive_rate: float | None = None
    false_positive_sd: float | None = None


@dataclass(frozen=True)
class Card:
    """What a classifier or a detector is and how it came about; everything in a model file but the weights.

    Attributes
    ----------
    architecture : str
        A name of `cellscan.list_backbones()`, or ``own:<class>`` for somebody's own module.
    class_names : tuple[str, ...]
        In the order of the network's outputs.
    positive_class : str or None
        The class that the threshold speaks of.
    image_size : int or (int, int)
        Side of the square input, in pixels; height and width of a detector's.
    view : str
        What the network is shown; ``"field"`` of a detector.
    resize : dict
        The resize rule.
    normalization : Normalization
        Of images in [0, 1].
    members : int
        Networks whose probabilities are averaged.
    decision : Decision
        Temperature, threshold, label sets and the patient rule.
    epochs : int
        Epochs trained so far.
    seed : int
        Of weights, order and augmentation.
    recipe : dict or None
        Of the last `fit`.
    data : dict
        Hashes and sizes of what it was trained on, and how that was split.
    salt : str
        Of the patient hashes.
    seen : dict
        Hashes of the patients in ``"train"`` and ``"validation"``, and of those by which a ``"decision"``
        was chosen; never an id. None in place of a list: the patients were unknown. The salt keeps hashes of
        different files apart; whoever has the file and guesses an id can check the guess.
    metrics : dict
        The last epoch's figures under ``"fit"``; a report under ``"report"`` where one was saved.
    versions : dict[str, str]
        Of Python and the libraries.
    weights : dict or None
        Where the first weights came from: source, licence, revision and SHA-256 of the file; None where they
        were drawn.
    detection : Detection or None
        Of a detector; None of a classifier.
    novelty : Novelty or None
        What familiar cells look like; None before `Classifier.learn_novelty`.
    licence : str
        Of these weights.
    format : int
        Of the file.

    Examples
    --------
    >>> import cellscan
    >>> card = cellscan.Classifier(image_size=32).card
    >>> card.architecture, card.decision.threshold, card.view
    ('small_cnn', 0.5, 'filled')
    """

    architecture: str
    class_names: tuple[str, ...]
    positive_class: str | None
    image_size: int | tuple[int, int]
    view: str
    resize: dict[str, str] = field(default_factory=lambda: dict(RESIZE))
    normalization: Normalization = field(default_factory=Normalization)
    members: int = 1
    decision: Decision = field(default_factory=Decision)
    epochs: int = 0
    seed: int = 0
    recipe: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    salt: str = field(default_factory=lambda: new_salt())
    seen: dict[str, list[str] | None] = field(default_factory=lambda: {part: [] for part in _PARTS})
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Any] | None = None
    detection: Detection | None = None
    novelty: Novelty | None = None
    licence: str = "not stated"
    format: int = FORMAT

    def hash_patients(self, patients: np.ndarray) -> list[str] | None:
        """Return the salted hashes of distinct patients, sorted; None where they are unknown.

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
        return sorted(hashlib.sha256(f"{self.salt}:{patient}".encode()).hexdigest()[:16] for patient in distinct)

    def with_seen(self, part: str, patients: np.ndarray) -> Card:
        """Return the card with these patients added to ``"train"``, ``"validation"`` or ``"decision"``.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.with_seen("train", np.array(["C1"]))
        >>> len(card.seen["train"] or [])
        1
        """
        before, new = self.seen[part], self.hash_patients(patients)
        joined = None if before is None or new is None else sorted({*before, *new})
        return replace(self, seen={**self.seen, part: joined})

    def trained_on(self, patients: np.ndarray, recipe: dict[str, Any], data: dict[str, Any]) -> Card:
        """Return the card after a training on these patients; decisions, chosen for other weights, are reset.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.trained_on(np.array(["C1"]), {}, {})
        >>> len(card.seen["train"] or [])
        1
        """
        card = self.with_seen("train", patients)
        return replace(
            card,
            recipe=recipe,
            data=data,
            decision=Decision(),
            novelty=None,
            seen={**card.seen, "decision": []},
            versions=library_versions(),
        )

    def count_seen(self, patients: np.ndarray) -> tuple[int, dict[str, int | None]]:
        """Return how many patients these are, and how many of them each part has seen.

        0 patients means that they are unknown; None, that those of that part were.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> card = cellscan.Classifier(image_size=32).card.with_seen("train", np.array(["C1"]))
        >>> card.count_seen(np.array(["C1", "C2", "C2"]))
        (2, {'train': 1, 'validation': 0, 'decision': 0})
        """
        hashes = self.hash_patients(patients)
        if hashes is None:
            return 0, dict.fromkeys(_PARTS)
        known = {part: self.seen[part] for part in _PARTS}
        return len(hashes), {part: None if ids is None else len(set(ids) & set(hashes)) for part, ids in known.items()}


def new_salt() -> str:
    """Return a salt for patient hashes."""
    return secrets.token_hex(8)


def library_versions() -> dict[str, str]:
    """Return the versions that a card keeps."""
    import platform
    from importlib.metadata import version

    from cellscan import __version__

    found = {name: version(name) for name in ("jax", "flax", "optax", "numpy", "pillow")}
    return {"cellscan": __version__, "python": platform.python_version(), **found}


def save(
    path: str | os.PathLike[str],
    card: Card,
    members: Sequence[dict[str, Any]],
    report: dict[str, Any] | None,
    licence: str | None,
    half: bool,
) -> None:
    """Write the file of a classifier or a detector, whole or not at all; report and licence go into its card."""
    card = replace(card, versions=card.versions or library_versions())
    if report is not None:
        card = replace(card, metrics={**card.metrics, "report": report})
    if licence is not None:
        card = replace(card, licence=licence)
    tensors = {
        f"{number}.{kind}.{name}": np.asarray(leaf, np.float16 if half and leaf.dtype == np.float32 else None)
        for number, weights in enumerate(members)
        for kind, leaves in weights.items()
        for name, leaf in leaves.items()
    }
    write(path, card, tensors)


def write(path: str | os.PathLike[str], card: Card, tensors: dict[str, np.ndarray]) -> None:
    """Write card and tensors, whole or not at all."""
    write_tensors(Path(path), tensors, {"cellscan": to_json(card)})


def to_json(card: Card) -> str:
    """Return a card as a file has it; arrays are base64 of their bytes."""
    return json.dumps(asdict(card), ensure_ascii=False, default=_pack)


def _pack(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "base64": data}


def _unpack(raw: dict[str, Any], dtype: str) -> np.ndarray:
    if raw["dtype"] != dtype:
        raise ValueError(f"an array of {raw['dtype']}, expected {dtype}")
    return np.frombuffer(base64.b64decode(raw["base64"], validate=True), dtype).reshape(raw["shape"])


@contextlib.contextmanager
def bundled(name: str | None, known: tuple[str, ...]) -> Iterator[Path]:
    """Give the path of a file that comes with the library; the first of those known where none is named."""
    from importlib.resources import as_file, files

    check_choice("name", name or known[0], known)
    with as_file(files("cellscan").joinpath("weights", f"{name or known[0]}.safetensors")) as path:
        yield path


def read(path: str | os.PathLike[str]) -> tuple[Card, dict[str, np.ndarray]]:
    """Read card and tensors, or say what is wrong with the file."""
    target = Path(path)
    if not target.exists():
        raise ModelFileError(f"{target}: there is no such file")
    metadata, tensors = read_tensors(target)
    card = _parse(metadata.get("cellscan"), target)
    check_digest(target, metadata, tensors)
    return card, tensors


def _parse(text: str | None, target: Path) -> Card:
    if text is None:
        raise ModelFileError(
            f"{target}: a safetensors file, but without cellscan's card; was it saved by something else?"
        )
    try:
        raw = json.loads(text)
        number = raw["format"]
        if number > FORMAT:
            raise ModelFileError(
                f"{target}: made by a newer cellscan ({raw.get('versions', {}).get('cellscan', 'version unknown')}, "
                f"format {number}; this one reads up to {FORMAT}). Upgrade: pip install -U cellscan"
            )
        known = {f.name: raw[f.name] for f in fields(Card) if f.name in raw}
        known["class_names"] = tuple(map(str, raw["class_names"]))
        mean, std = (raw["normalization"][key] for key in ("mean", "std"))
        known["normalization"] = Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        decision = {f.name: raw["decision"][f.name] for f in fields(Decision) if f.name in raw["decision"]}
        if decision.get("conformal") is not None:
            decision["conformal"] = Conformal(*map(float, decision["conformal"]))
        known["decision"] = Decision(**decision)
        if isinstance(raw["image_size"], list):
            height, width = map(int, raw["image_size"])
            known["image_size"] = (height, width)
        if raw.get("detection") is not None:
            known["detection"] = _parse_detection(raw["detection"])
        if raw.get("novelty") is not None:
            known["novelty"] = _parse_novelty(raw["novelty"])
        known["seen"] = {part: raw["seen"].get(part, []) for part in _PARTS}
        card = Card(**known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{target}: the card is damaged ({type(error).__name__}: {error})") from error
    rule = RESIZE if card.detection is None else FIT
    if card.resize != rule:
        raise ModelFileError(f"{target}: made for the resize rule {card.resize}, this cellscan has {rule}")
    return card


def _parse_detection(raw: dict[str, Any]) -> Detection:
    known = {f.name: raw[f.name] for f in fields(Detection) if f.name in raw}
    anchors = raw["anchors"]
    known["anchors"] = Anchors(tuple(anchors["strides"]), float(anchors["size"]), tuple(map(float, anchors["ratios"])))
    known["thresholds"] = tuple(map(float, raw["thresholds"]))
    return Detection(**known)


def _parse_novelty(raw: dict[str, Any]) -> Novelty:
    mean, scale, basis, variances = (
        _unpack(raw[name], dtype)
        for name, dtype in (("mean", "float32"), ("scale", "float32"), ("basis", "float16"), ("variances", "float32"))
    )
    if not (mean.shape == scale.shape == basis.shape[:1] and basis.shape[1:] == variances.shape):
        raise ValueError("novelty's arrays do not fit each other")
    return Novelty(
        float(raw["threshold"]), int(raw["cells"]), int(raw["patients"]), mean, scale, basis, variances,
        float(raw["rest"]),
    )  # fmt: skip
