"""Publishing a model on the Hugging Face hub: its file, and its card as the README of the repository."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellscan import card as cards
from cellscan import hub
from cellscan.card import Card
from cellscan.data.values import check_flag
from cellscan.errors import ArgumentError

_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "unlicense",
    "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail",
)  # fmt: skip
"""Licences that the hub knows by these names; others become ``other`` with their text."""


def publish(address: str, save: Callable[[Path], None], *, private: bool, token: str | None) -> str:
    """Save a model and write its file and its README to a repository in one commit; return the address of this version.

    Parameters
    ----------
    address : str
        As in `Classifier.push_to_hub`.
    save : callable
        Function that writes the model file to a path.
    private, token
        As in `Classifier.push_to_hub`.
    """
    target, private = hub.parse_address(address), check_flag("private", private)
    if not (token is None or isinstance(token, str)):
        raise ArgumentError(f"token is a {type(token).__name__}; expected a text, or None for the stored token")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path)
        card, data = cards.read(path)[0], path.read_bytes()
    files = {target.file: data, "README.md": make_readme(card, target).encode()}
    commit = hub.upload(target, files, private=private, token=token)
    return str(hub.Address(target.repository, commit, target.file))


def make_readme(card: Card, address: hub.Address) -> str:
    """Return the README of a repository: metadata of the hub in YAML, then the card as tables."""
    kind = "Classifier" if card.detection is None else "Detector"
    metrics = _metrics(card)
    tags = ["malaria", "microscopy", "medical-imaging", "jax", "cellscan"]
    metadata: dict[str, Any] = {
        "library_name": "cellscan",
        "pipeline_tag": "image-classification" if kind == "Classifier" else "object-detection",
        "tags": tags,
    }
    if card.licence.casefold() in _LICENCES:
        metadata["license"] = card.licence.casefold()
    elif not card.licence.startswith("not stated"):
        metadata |= {"license": "other", "license_name": card.licence}
    if metrics:
        metadata["metrics"] = [name for name, _, _ in metrics]
    # JSON is YAML, so no text of a card can break the metadata.
    header = "\n".join(f"{name}: {json.dumps(value)}" for name, value in metadata.items())
    own = ", model=...)  # your module, of the same shape" if card.architecture.startswith("own:") else ")"
    what = (
        "classifies images of single cells" if kind == "Classifier" else "finds the cells of a field of view"
    )  # fmt: skip
    sections = [
        f"---\n{header}\n---",
        f"# {address.repository.split('/')[1]}",
        f"**Research use only. Not a medical device.** This model {what}. It makes no statement about a patient.",
        f'```python\nimport cellscan  # pip install "cellscan[hub]"\n\n'
        f'model = cellscan.{kind}.load("{address}"{own}\nprint(model.predict("folder"))\n```',
        "## Description",
        _table(["", ""], _describe(card)),
        "## Evaluation",
        *_evaluation(card, metrics),
        "## Limits",
        "- The metrics hold for images like those of the test set. Measure the errors on images of your own "
        "laboratory before you use the predictions: stain, microscope, species and margins matter.\n"
        "- A threshold does not transfer to another laboratory; choose it on annotated images of your own.\n"
        "- The file contains salted hashes of the patients of the training. Whoever guesses a patient id can check "
        "the guess.",
    ]
    return "\n\n".join(sections) + "\n"


def _describe(card: Card) -> list[list[str]]:
    size = card.image_size
    side = f"{size} x {size}" if isinstance(size, int) else f"{size[1]} x {size[0]}"
    rows = [
        ["network", card.architecture + (f", {card.n_members} members" if card.n_members > 1 else "")],
        ["input", f'{side} px, background "{card.background}"'],
        ["classes", ", ".join(card.class_names)],
    ]
    if card.positive_class is not None:
        rows.append(["positive class", card.positive_class])
    if card.detection is not None:
        scores = ", ".join(f"{threshold:.3f}" for threshold in card.detection.thresholds)
        rows.append(["score thresholds, in the order of the classes", scores])
    else:
        rows.append(["threshold, temperature", f"{card.decision.threshold:.3f}, {card.decision.temperature:.3f}"])
        rows.append(["novelty", "not fitted" if card.novelty is None else f"fitted on {card.novelty.cells:,} cells"])
    weights = card.weights or {}
    rows.append(["initial weights", " ".join(str(weights[k]) for k in ("source", "licence") if weights.get(k))])
    rows[-1][1] = rows[-1][1] or "random"
    for part, entries in card.data.items():
        if entries:
            rows.append([f"{part} set", ", ".join(f"{k} {v}" for k, v in entries.items() if v is not None)])
    rows.append(["training", f"{card.epochs} epochs, seed {card.seed}"])
    rows.append(["licence", card.licence])
    rows.append(["versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())])
    return rows


def _metrics(card: Card) -> list[tuple[str, float, list[float] | None]]:
    """Return name, value and interval of the metrics of the report in a card; those that are undefined are left out."""
    report = card.metrics.get("report") or {}
    entries = report.get("metrics", report)
    names = ("ap", "ap50", "ap75", "ar", "count_error") if card.detection is not None else tuple(entries)
    found = []
    for name in names:
        entry = entries.get(name)
        value, ends = (entry.get("value"), entry.get("interval")) if isinstance(entry, dict) else (entry, None)
        if isinstance(value, (int, float)):
            found.append((name, float(value), ends))
    return found


def _evaluation(card: Card, metrics: list[tuple[str, float, list[float] | None]]) -> list[str]:
    if not metrics:
        return ["This file contains no report. `push_to_hub(..., report=model.evaluate(test))` stores one."]
    report = card.metrics["report"]
    facts = [f"{report[name]:,} {name}" for name in ("cells", "patients", "fields", "boxes") if report.get(name)]
    facts += [str(report[name]) for name in ("patient_overlap", "split") if report.get(name)]
    over = f"95 % interval over {report['interval_over']}" if report.get("interval_over") else "95 % interval"
    rows = [
        [name.replace("_", " "), f"{value:.4f}", f"{ends[0]:.4f} to {ends[1]:.4f}" if ends and None not in ends else ""]
        for name, value, ends in metrics
    ]
    return [f"Test set: {'; '.join(facts)}.", _table(["metric", "value", over], rows)]


def _table(header: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])
