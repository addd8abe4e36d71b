"""All figures of the library. The functions take arrays and names, and depend on no other module of the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#2c6fbb", "#d9722b", "#8a8a8a"


def plot_cells(shown: Mapping[str, Sequence[tuple[np.ndarray, str]]], rows: int, columns: int) -> Figure:
    """Draw cells in `rows` rows per class, with the patient as the title of each cell.

    `shown` maps the name of a class to images (H, W, 3) and patients.
    """
    classes = len(shown)
    figure, axes = plt.subplots(
        rows * classes,
        columns,
        figsize=(1.15 * columns, 1.3 * rows * classes + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for label, (name, cells) in enumerate(shown.items()):
        for number in range(rows * columns):
            axis = axes[label * rows + number // columns, number % columns]
            axis.set_axis_off()
            if number < len(cells):
                image, patient = cells[number]
                axis.imshow(image)
                axis.set_title(patient or " ", fontsize=7, color=_GREY, pad=2)
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


def plot_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the loss and the accuracy of training and validation by epoch; for a detector, the loss and its parts."""
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


def plot_report(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    classes: Sequence[int],
    confusion: np.ndarray,
    metrics: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    threshold: float | None,
    bins: np.ndarray,
    patients: np.ndarray | None,
    rule: float | None,
) -> Figure:
    """Draw the confusion matrix, the ROC, precision-recall and reliability curves, and the patients.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, K) float
    class_names : sequence of str
    classes : sequence of int
        Classes whose curves are drawn. The reliability is that of the first one.
    confusion : (K, K) int
    metrics, intervals : dict
        Metrics for the titles and for the point at the threshold, and their intervals, by name.
    threshold : float or None
        None draws no point.
    bins : (B, 4) float
        Mean probability, observed share and its interval, from `cellscan.evaluate.reliability.reliability`.
    patients : (P, 2) float or None
        One row per patient: the truth (0 or 1) and the share of cells called positive. None if patients are unknown.
    rule : float or None
        Share at and above which a patient is called positive.
    """
    layout: Any = [["confusion", "roc", "recall"], ["reliability", "patients", "patients"]]
    figure, axes = plt.subplot_mosaic(layout, figsize=(13.5, 8), layout="constrained")
    titles = {name: f"{metrics[name]:.4f}{_interval_text(intervals[name])}" for name in intervals}
    _draw_confusion(axes["confusion"], confusion, class_names)
    for k in classes:
        colour = _BLUE if len(classes) == 1 else None
        _draw_curves(axes["roc"], axes["recall"], labels == k, probabilities[:, k], class_names[k], colour)
    if threshold is not None and not np.isnan(metrics["sensitivity"] + metrics["specificity"]):
        _draw_threshold(axes["roc"], axes["recall"], threshold, metrics)
    axes["roc"].plot([0, 1], [0, 1], "--", color=_GREY, lw=1)
    axes["roc"].set(xlabel="1 - specificity", ylabel="sensitivity")
    axes["recall"].set(xlabel="sensitivity (recall)", ylabel="precision", ylim=(0, 1.03))
    axes["roc"].set_title(f"ROC AUC {titles['roc_auc']}", fontsize=10)
    axes["recall"].set_title(f"average precision {titles['average_precision']}", fontsize=10)
    for name in ("roc", "recall"):
        if axes[name].get_legend_handles_labels()[0]:
            axes[name].legend(frameon=False, loc="lower center")
    _draw_reliability(axes["reliability"], bins, class_names[classes[0]])
    axes["reliability"].set_title(f"calibration error {titles['calibration_error']}", fontsize=10)
    _draw_patients(axes["patients"], patients, rule)
    for name in ("roc", "recall", "reliability", "patients"):
        axes[name].spines[["top", "right"]].set_visible(False)
    return figure


def _interval_text(ends: tuple[float, float]) -> str:
    low, high = ends
    return "" if np.isnan(low) else f" ({low:.4f} to {high:.4f})"


def _draw_confusion(axis: Axes, confusion: np.ndarray, class_names: Sequence[str]) -> None:
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, f"{count:,}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
    ticks = range(len(class_names))
    axis.set_xticks(ticks, class_names)
    axis.set_yticks(ticks, class_names, rotation=90, va="center")
    axis.set(xlabel="predicted class", ylabel="annotated class")


def _draw_curves(roc: Axes, recall: Axes, truth: np.ndarray, scores: np.ndarray, name: str, colour: str | None) -> None:
    """Draw the ROC and the precision-recall curve of a class if there are cells of this class and of others."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    if 0 < truth.sum() < len(truth):
        false_rate, true_rate, _ = roc_curve(truth, scores)
        roc.plot(false_rate, true_rate, color=colour, label=name)
        precision, sensitivity, _ = precision_recall_curve(truth, scores)
        recall.plot(sensitivity, precision, color=colour, label=name)


def _draw_threshold(roc: Axes, recall: Axes, threshold: float, metrics: Mapping[str, float]) -> None:
    label = f"threshold {threshold:.3g}"
    roc.plot(1 - metrics["specificity"], metrics["sensitivity"], "o", color=_ORANGE, label=label)
    recall.plot(metrics["sensitivity"], metrics["precision"], "o", color=_ORANGE, label=label)
    prevalence = metrics["prevalence"]
    recall.axhline(prevalence, ls="--", color=_GREY, lw=1, label=f"prevalence in this set {prevalence:.2f}")


def _draw_reliability(axis: Axes, bins: np.ndarray, name: str) -> None:
    """Draw the observed share against the predicted probability, with intervals."""
    for middle, share, low, high in bins:
        axis.plot(middle, share, "o", color=_BLUE, ms=5)
        if not np.isnan(low):
            axis.plot([middle, middle], [low, high], color=_BLUE, lw=1.5)
    axis.plot([0, 1], [0, 1], "--", color=_GREY, lw=1)
    axis.set(xlabel=f"P({name}), mean of a bin", ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _draw_patients(axis: Axes, patients: np.ndarray | None, rule: float | None) -> None:
    """Draw the share of positive cells of each patient: healthy donors, then infected patients, in rising order."""
    if patients is None:
        axis.text(0.5, 0.5, "patients unknown", ha="center", va="center", color=_GREY, transform=axis.transAxes)
        axis.set_axis_off()
        return
    truth, share = patients[np.lexsort(patients.T[::-1])].T
    ranks = np.arange(len(truth))
    for label, chosen, colour in (("healthy donors", truth == 0, _BLUE), ("infected patients", truth == 1, _ORANGE)):
        axis.plot(ranks[chosen], share[chosen], "o", color=colour, ms=4, label=f"{label} ({chosen.sum()})")
    if rule is not None:
        axis.axhline(rule, ls="--", color=_GREY, lw=1, label=f"rule {rule:.3g}")
    axis.set(xlabel="patients, ordered", ylabel="share of cells called positive", ylim=(-0.03, 1.03))
    axis.set_title("not the parasitemia: the publisher selected the cells", fontsize=10)
    axis.legend(frameon=False, loc="upper left")


def plot_images(shown: Sequence[tuple[np.ndarray, str]]) -> Figure:
    """Draw images (H, W, 3) with their titles, eight per row."""
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.6 * columns, 1.95 * rows + 0.3), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (image, title) in zip(axes.flat, shown, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=7)
    return figure


def plot_explanations(shown: Sequence[tuple[str, np.ndarray, np.ndarray, str]]) -> Figure:
    """Draw explanations, one per row: the image, the map, and the map over the image.

    `shown` has the name, the image (H, W, 3), the map (H, W) in [0, 1] and the class of each explanation.
    """
    figure, axes = plt.subplots(
        len(shown), 3, figsize=(6.6, 2.3 * len(shown) + 0.2), squeeze=False, layout="constrained"
    )
    for row, (name, image, heat, label_name) in zip(axes, shown, strict=True):
        for axis in row:
            axis.set_axis_off()
        row[0].imshow(image)
        row[0].set_title(name if len(name) <= 28 else f"…{name[-27:]}", fontsize=7, color=_GREY)
        row[1].imshow(heat, cmap="magma", vmin=0, vmax=1)
        row[1].set_title(f"evidence for {label_name}", fontsize=8)
        row[2].imshow(image)
        row[2].imshow(heat, cmap="magma", vmin=0, vmax=1, alpha=0.8 * heat)
        row[2].contour(heat, levels=[0.5], colors="white", linewidths=0.8)
    return figure


def plot_study(
    folds: Sequence[int],
    metrics: Mapping[str, Sequence[float]],
    *,
    pooled: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> Figure:
    """Draw the metrics of every member by fold, their mean, and the pooled metric with its interval."""
    figure, axes = plt.subplots(1, len(metrics), figsize=(3.2 * len(metrics), 3.6), squeeze=False, layout="constrained")
    for axis, (name, values) in zip(axes[0], metrics.items(), strict=True):
        mean = np.mean(values)
        axis.plot(folds, values, "o", color=_BLUE, ms=5)
        axis.axhline(mean, color=_BLUE, lw=1, label=f"mean {mean:.4f}")
        low, high = intervals[name]
        axis.axhspan(low, high, color=_ORANGE, alpha=0.15, lw=0, label="pooled, 95 % over patients")
        axis.axhline(pooled[name], color=_ORANGE, lw=1)
        axis.set(xlabel="fold", title=name.replace("_", " "))
        axis.set_xticks(np.unique(folds))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, loc="best")
    return figure


def plot_fields(
    shown: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]], class_names: Sequence[str]
) -> Figure:
    """Draw fields with their boxes.

    `shown` has the name, the image, the boxes, the labels, and the scores or None of each field.
    """
    from matplotlib.patches import Patch, Rectangle

    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    height, width = shown[0][1].shape[:2]
    size = (5.2 * columns, 5.2 * rows * height / width + 0.5)
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
    """Return one colour per class; of two classes, the last has the more conspicuous colour."""
    return [_BLUE, _ORANGE][:count] if count <= 2 else [f"C{number}" for number in range(count)]


def plot_detection(
    class_names: Sequence[str],
    curves: Sequence[np.ndarray],
    ap50: Sequence[float],
    truth: np.ndarray,
    counted: np.ndarray,
    count_error: float,
) -> Figure:
    """Draw the precision-recall curve (R, 2) of each class, and the counted and the annotated cells of each field."""
    figure, (curve, counts) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for name, points, area, colour in zip(class_names, curves, ap50, _box_colours(len(class_names)), strict=True):
        known = points[:, 1] > -1
        curve.plot(points[known, 0], points[known, 1], color=colour, label=f"{name}, AP50 {area:.3f}")
    curve.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="IoU of at least 0.5")
    curve.legend(loc="lower left", frameon=False, fontsize=9)
    largest = max(int(truth.max(initial=1)), int(counted.max(initial=1)))
    counts.plot([0, largest], [0, largest], color=_GREY, lw=1, ls="--")
    counts.scatter(truth, counted, s=14, alpha=0.7, color=_BLUE)
    counts.set(
        xlabel="cells annotated", ylabel="cells counted", title=f"one point per field, mean error {count_error:.1%}"
    )
    return figure


def plot_smears(rows: Sequence[tuple[str, float, float | None, tuple[float, float] | None]]) -> Figure:
    """Draw the share of infected red cells of every smear.

    A row has the name, the apparent share, and the parasitemia and its interval, either of which may be None.
    """
    figure, axis = plt.subplots(figsize=(6.4, 1.1 + 0.34 * len(rows)), layout="constrained")
    for number, (_, apparent, parasitemia, interval) in enumerate(rows):
        if parasitemia is None:
            axis.plot(100 * apparent, number, "o", mfc="none", color="0.4")
            continue
        if interval is not None:
            axis.plot([100 * end for end in interval], [number, number], color="C0")
        axis.plot(100 * parasitemia, number, "o", color="C0")
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("infected red cells, %\nfilled: parasitemia and 95 % interval; hollow: apparent share")
    return figure
