"""Every picture of the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt

from cellscan.data.images import read_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cellscan.data.cells import CellDataset
    from cellscan.evaluate.confident import Suspects
    from cellscan.evaluate.detection import DetectionReport
    from cellscan.evaluate.report import Report
    from cellscan.explain import Explanation
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
    """Draw loss and accuracy by epoch, training and validation; of a detector, the loss and its parts."""
    names = [name for name in ("loss", "accuracy", "class_loss", "box_loss") if name in history]
    figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.4), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        axis.plot(history["epoch"], history[name], "o-", color=_BLUE, ms=4, label="training (augmented)")
        if f"validation_{name}" in history:
            axis.plot(history["epoch"], history[f"validation_{name}"], "s-", color=_ORANGE, ms=4, label="validation")
        axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return figure


def plot_report(report: Report) -> Figure:
    """Draw confusion matrix, ROC, precision-recall, reliability and patients; curves are of the positive class."""
    layout: Any = [["confusion", "roc", "recall"], ["reliability", "patients", "patients"]]
    figure, axes = plt.subplot_mosaic(layout, figsize=(13.5, 8), layout="constrained")
    _draw_confusion(axes["confusion"], report)
    _draw_curves(axes["roc"], axes["recall"], report)
    _draw_reliability(axes["reliability"], report)
    _draw_patients(axes["patients"], report)
    for name in ("roc", "recall", "reliability", "patients"):
        axes[name].spines[["top", "right"]].set_visible(False)
    return figure


def _draw_confusion(axis: Axes, report: Report) -> None:
    share = report.confusion / np.maximum(report.confusion.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(report.confusion):
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, f"{count:,}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
    ticks = range(len(report.class_names))
    axis.set_xticks(ticks, report.class_names)
    axis.set_yticks(ticks, report.class_names, rotation=90, va="center")
    axis.set(xlabel="called", ylabel="truth as labelled")


def _interval(report: Report, name: str) -> str:
    low, high = report.interval[name]
    return f"{getattr(report, name):.4f}" + ("" if np.isnan(low) else f" ({low:.4f} to {high:.4f})")


def _classes(report: Report) -> list[str]:
    two = len(report.class_names) == 2 and report.positive_class
    return [str(report.positive_class)] if two else list(report.class_names)


def _draw_curves(roc: Axes, recall: Axes, report: Report) -> None:
    from sklearn.metrics import precision_recall_curve, roc_curve

    classes = _classes(report)
    for name in classes:
        index = report.class_names.index(name)
        truth, scores = report.labels == index, report.probabilities[:, index]
        colour = _BLUE if len(classes) == 1 else None
        if 0 < truth.sum() < len(truth):
            false_rate, true_rate, _ = roc_curve(truth, scores)
            roc.plot(false_rate, true_rate, color=colour, label=name)
            precision, reached, _ = precision_recall_curve(truth, scores)
            recall.plot(reached, precision, color=colour, label=name)
    if report.threshold is not None and not np.isnan(report.sensitivity + report.specificity):
        label = f"threshold {report.threshold:.3g}"
        roc.plot(1 - report.specificity, report.sensitivity, "o", color=_ORANGE, label=label)
        recall.plot(report.sensitivity, report.precision, "o", color=_ORANGE, label=label)
        recall.axhline(report.prevalence, ls="--", color=_GREY, lw=1, label=f"prevalence here {report.prevalence:.2f}")
    roc.plot([0, 1], [0, 1], "--", color=_GREY, lw=1)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity")
    recall.set(xlabel="sensitivity (recall)", ylabel="precision", ylim=(0, 1.03))
    roc.set_title(f"ROC AUC {_interval(report, 'roc_auc')}", fontsize=10)
    recall.set_title(f"average precision {_interval(report, 'average_precision')}", fontsize=10)
    for axis in (roc, recall):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, loc="lower center")


def _draw_reliability(axis: Axes, report: Report, bins: int = 10) -> None:
    """Draw how often a probability comes true, with intervals over patients."""
    from cellscan.evaluate.bootstrap import draw_weights, interval

    name = _classes(report)[0]
    index = report.class_names.index(name)
    scores, truth = report.probabilities[:, index].astype(np.float64), report.labels == index
    known = report.interval_over == "patients"
    weights, group = draw_weights(report.cell_patients if known else np.arange(len(truth)), 500, 0)
    which = np.minimum((scores * bins).astype(int), bins - 1)
    for number in np.unique(which):
        here = which == number
        size = np.bincount(group[here], minlength=weights.shape[1])
        hits = np.bincount(group[here], truth[here], weights.shape[1])
        with np.errstate(invalid="ignore"):
            low, high = interval(weights @ hits / (weights @ size))
        middle = scores[here].mean()
        axis.plot(middle, truth[here].mean(), "o", color=_BLUE, ms=5)
        if not np.isnan(low) and weights.shape[1] > 1:
            axis.plot([middle, middle], [low, high], color=_BLUE, lw=1.5)
    axis.plot([0, 1], [0, 1], "--", color=_GREY, lw=1)
    axis.set(xlabel=f"P({name}), mean of a bin", ylabel="how often it is", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set_title(f"calibration error {_interval(report, 'calibration_error')}", fontsize=10)


def _draw_patients(axis: Axes, report: Report) -> None:
    """Draw every patient's share of positive cells, lowest first."""
    if not report.seen.patients or report.positive_class is None or len(report.class_names) != 2:
        axis.text(0.5, 0.5, "patients unknown", ha="center", va="center", color=_GREY, transform=axis.transAxes)
        axis.set_axis_off()
        return
    rows = sorted(report.patients, key=lambda row: (row.truth, row.share))
    places = np.arange(len(rows))
    truth, share = np.array([row.truth for row in rows]), np.array([row.share for row in rows])
    for label, chosen, colour in (("healthy donors", ~truth, _BLUE), ("infected patients", truth, _ORANGE)):
        axis.plot(places[chosen], share[chosen], "o", color=colour, ms=4, label=f"{label} ({chosen.sum()})")
    if report.patients.rule is not None:
        axis.axhline(report.patients.rule, ls="--", color=_GREY, lw=1, label=f"rule {report.patients.rule:.3g}")
    axis.set(xlabel="patients, ordered", ylabel="share of cells called positive", ylim=(-0.03, 1.03))
    axis.set_title("not the parasitemia: the publisher chose the cells", fontsize=10)
    axis.legend(frameon=False, loc="upper left")


def plot_suspects(suspects: Suspects, count: int) -> Figure:
    """Draw the cells whose label is contradicted most, as stored."""
    shown = suspects[:count]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.6 * columns, 1.95 * rows + 0.3), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, suspect, row in zip(axes.flat, shown, suspects.rows, strict=False):
        axis.imshow(suspects.cells[int(row)].image)
        axis.set_title(f"labelled {suspect.label_name}\nP = {suspect.probability:.3f}, {suspect.patient}", fontsize=7)
    return figure


def plot_explanations(shown: Sequence[Explanation]) -> Figure:
    """Draw images, maps, and one over the other, a row each."""
    figure, axes = plt.subplots(
        len(shown), 3, figsize=(6.6, 2.3 * len(shown) + 0.2), squeeze=False, layout="constrained"
    )
    for row, why in zip(axes, shown, strict=True):
        for axis in row:
            axis.set_axis_off()
        name = why.name if len(why.name) <= 28 else f"…{why.name[-27:]}"
        row[0].imshow(why.image)
        row[0].set_title(name, fontsize=7, color=_GREY)
        row[1].imshow(why.map, cmap="magma", vmin=0, vmax=1)
        row[1].set_title(f"speaks for {why.label_name}", fontsize=8)
        row[2].imshow(why.image)
        row[2].imshow(why.map, cmap="magma", vmin=0, vmax=1, alpha=0.8 * why.map)
        row[2].contour(why.map, levels=[0.5], colors="white", linewidths=0.8)
    return figure


def plot_study(folds: Sequence[int], reports: Sequence[Report], pooled: Report) -> Figure:
    """Draw the figures of every member by its fold, their mean, and the pooled figure with its interval."""
    names = ("accuracy", "balanced_accuracy", "roc_auc", "calibration_error")
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.6), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        values = np.array([getattr(report, name) for report in reports])
        axis.plot(folds, values, "o", color=_BLUE, ms=5)
        axis.axhline(values.mean(), color=_BLUE, lw=1, label=f"mean {values.mean():.4f}")
        low, high = pooled.interval[name]
        axis.axhspan(low, high, color=_ORANGE, alpha=0.15, lw=0, label="pooled, 95 % over patients")
        axis.axhline(getattr(pooled, name), color=_ORANGE, lw=1)
        axis.set(xlabel="fold", title=name.replace("_", " "))
        axis.set_xticks(np.unique(folds))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, loc="best")
    return figure


def plot_fields(
    shown: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]], class_names: Sequence[str]
) -> Figure:
    """Draw fields with their boxes: name, image, boxes, labels, and scores or None of each."""
    from matplotlib.patches import Patch, Rectangle

    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    high, wide = shown[0][1].shape[:2]
    size = (5.2 * columns, 5.2 * rows * high / wide + 0.5)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    axes = grid.ravel()
    colours = _box_colours(len(class_names))
    for axis, (name, image, boxes, labels, scores) in zip(axes, shown, strict=False):
        axis.imshow(image)
        counts = [f"{other} {(labels == k).sum()}" for k, other in enumerate(class_names)]
        axis.set_title(f"{name}: {', '.join(counts)}", fontsize=9)
        for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            last = label == len(class_names) - 1
            colour = colours[label] if label >= 0 else "black"
            left, top, right, bottom = box
            axis.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, lw=2 if last else 1)
            )
            if last and scores is not None and len(class_names) > 1:
                axis.text(left, top - 2, f"{scores[number]:.2f}", color=colour, fontsize=7, va="bottom", clip_on=True)
    for axis in axes:
        axis.set_axis_off()
    for axis in axes[len(shown) :]:
        axis.remove()
    handles = [
        Patch(edgecolor=colour, facecolor="none", label=name) for colour, name in zip(colours, class_names, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _box_colours(count: int) -> list[str]:
    """Return a colour a class; of two, the last is the one that stands out."""
    return [_BLUE, _ORANGE][:count] if count <= 2 else [f"C{number}" for number in range(count)]


def plot_detection(report: DetectionReport) -> Figure:
    """Draw precision against recall a class, and counted against annotated cells."""
    figure, (curve, counts) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for name, points, ap50, colour in zip(
        report.class_names, report.curves, report.ap50_per_class, _box_colours(len(report.class_names)), strict=True
    ):
        known = points[:, 1] > -1
        curve.plot(points[known, 0], points[known, 1], color=colour, label=f"{name}, AP50 {ap50:.3f}")
    curve.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="overlap from 0.5")
    curve.legend(loc="lower left", frameon=False, fontsize=9)
    most = max(int(report.truth.max(initial=1)), int(report.found.max(initial=1)))
    counts.plot([0, most], [0, most], color=_GREY, lw=1, ls="--")
    counts.scatter(report.truth, report.found, s=14, alpha=0.7, color=_BLUE)
    counts.set(
        xlabel="cells annotated", ylabel="cells counted", title=f"a field each, mean error {report.count_error:.1%}"
    )
    return figure
