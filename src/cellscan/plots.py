"""Every picture of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt

from cellscan.data.images import read_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cellscan.data.cells import CellDataset
    from cellscan.evaluate.report import Report
    from cellscan.training.history import History

_BLUE, _ORANGE, _GREY = "#2c6fbb", "#d9722b", "#8a8a8a"


def plot_cells(cells: CellDataset, rows: int, columns: int, size: int | None, seed: int) -> Figure:
    """Draw `rows` rows of `columns` random cells for each class."""
    rng = np.random.default_rng(seed)
    classes = len(cells.class_names)
    figure, axes = plt.subplots(
        rows * classes,
        columns,
        figsize=(1.15 * columns, 1.3 * rows * classes + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for label, name in enumerate(cells.class_names):
        found = np.flatnonzero(cells.labels == label)
        chosen = rng.choice(found, min(len(found), rows * columns), replace=False)
        for place in range(rows * columns):
            axis = axes[label * rows + place // columns, place % columns]
            axis.set_axis_off()
            if place < len(chosen):
                cell = cells[int(chosen[place])]
                axis.imshow(cell.image if size is None else read_rgb(cell.image, size))
                axis.set_title(cell.patient or " ", fontsize=7, color=_GREY, pad=2)
        axes[label * rows, 0].text(
            0,
            1.28,
            name,
            transform=axes[label * rows, 0].transAxes,
            fontsize=10,
            fontweight="bold",
            va="bottom",
        )
    return figure


def plot_history(history: History) -> Figure:
    """Draw loss and accuracy by epoch, training and validation."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(history["epoch"], history[name], "o-", color=_BLUE, ms=4, label="training (augmented)")
        if f"validation_{name}" in history:
            axis.plot(history["epoch"], history[f"validation_{name}"], "s-", color=_ORANGE, ms=4, label="validation")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return figure


def plot_report(report: Report) -> Figure:
    """Draw the confusion matrix, and the ROC curve of the positive class (of each class, if more than two)."""
    from sklearn.metrics import roc_curve

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    share = report.confusion / np.maximum(report.confusion.sum(1, keepdims=True), 1)
    left.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(report.confusion):
        colour = "white" if share[row, column] > 0.5 else "black"
        left.text(column, row, f"{count:,}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
    ticks = range(len(report.class_names))
    left.set_xticks(ticks, report.class_names)
    left.set_yticks(ticks, report.class_names, rotation=90, va="center")
    left.set(xlabel="called", ylabel="truth as labelled")
    classes = [report.positive_class] if len(report.class_names) == 2 and report.positive_class else report.class_names
    for name in classes:
        index = report.class_names.index(str(name))
        truth = report.labels == index
        if 0 < truth.sum() < len(truth):
            false_rate, true_rate, _ = roc_curve(truth, report.probabilities[:, index])
            right.plot(false_rate, true_rate, color=_BLUE if len(classes) == 1 else None, label=str(name))
    if report.threshold is not None and not np.isnan(report.sensitivity + report.specificity):
        label = f"threshold {report.threshold:.3g}"
        right.plot(1 - report.specificity, report.sensitivity, "o", color=_ORANGE, label=label)
    right.plot([0, 1], [0, 1], "--", color=_GREY, lw=1)
    low, high = report.interval["roc_auc"]
    right.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    interval = "" if np.isnan(low) else f" ({low:.4f} to {high:.4f})"
    right.set_title(f"ROC AUC {report.roc_auc:.4f}{interval}", fontsize=10)
    if right.get_legend_handles_labels()[0]:
        right.legend(frameon=False, loc="lower right")
    right.spines[["top", "right"]].set_visible(False)
    return figure
