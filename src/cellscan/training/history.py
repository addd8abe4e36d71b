"""`History`: the metrics of every epoch of a `fit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cellscan.data.tables import Column, make_frame
from cellscan.errors import ArgumentError
from cellscan.notebook import as_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class History(Mapping[str, list[float]]):
    """The metrics of every epoch, by name: ``history["validation_accuracy"]`` is a list with one value per epoch.

    The names are ``epoch``, ``loss`` and ``accuracy`` (means over the augmented batches of the epoch),
    ``images_per_second`` and ``seconds``. With a validation set there are also ``validation_loss``,
    ``validation_accuracy`` and, with two classes, ``validation_roc_auc``. A detector has ``class_loss`` and
    ``box_loss`` instead of accuracies.

    Parameters
    ----------
    records : list of dict
        One dictionary of metrics per epoch.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> clf = cellscan.Classifier(image_size=32, seed=0)
    >>> history = clf.fit(cells, epochs=2, progress=False)
    >>> history["epoch"], len(history["loss"])
    ([1, 2], 2)
    """

    def __init__(self, records: list[dict[str, float]]) -> None:
        self.records: list[dict[str, float]] = records

    def __getitem__(self, name: str) -> list[float]:
        values = [record[name] for record in self.records if name in record]
        if not values:
            raise KeyError(name)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for record in self.records for name in record))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __str__(self) -> str:
        last = int(self.records[-1]["epoch"]) if self.records else 0
        return "\n".join(describe(record, last) for record in self.records) or "no epochs"

    def __repr__(self) -> str:
        return f"History(epochs={len(self.records)})"

    def _repr_html_(self) -> str:
        names = list(self)
        rows = [[f"{record[name]:.5g}" if name in record else "" for name in names] for record in self.records]
        return as_table(repr(self), [name.replace("_", " ") for name in names], rows)

    def to_dataframe(self) -> DataFrame:
        """Return a data frame of pandas with one row per epoch and one column per metric.

        ``epoch`` is int64. The metrics are float64, and NaN in epochs that do not have them.

        Raises
        ------
        MissingExtraError
            If the extra ``dataframe`` is not installed.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> history = clf.fit(cellscan.synthetic_cells(80, seed=0), epochs=2, progress=False)
        >>> history.to_dataframe()[["epoch", "loss"]].shape
        (2, 2)
        """
        columns = {name: [record.get(name) for record in self.records] for name in self}
        return make_frame({k: Column(v, "whole" if k == "epoch" else "number") for k, v in columns.items()})

    def plot(self) -> Figure:
        """Plot the learning curve: loss and accuracy by epoch; for a detector, the loss and its two parts.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> len(clf.fit(cells, epochs=1, progress=False).plot().axes)
        2
        """
        if not self.records:
            raise ArgumentError("the history has no epochs to plot; call fit with at least one")
        from cellscan.plots import plot_history

        return plot_history(self)


def describe(record: dict[str, Any], last: int) -> str:
    """Return the progress line of one epoch."""
    names = {"roc_auc": "ROC AUC"}

    def listed(prefix: str) -> str:
        rest = {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}
        skipped = ("epoch", "seconds", "images_per_second")
        return ", ".join(
            f"{names.get(name, name.replace('_', ' '))} {value:.4f}"
            for name, value in rest.items()
            if name not in skipped and not name.startswith("validation_")
        )

    text = f"epoch {record['epoch']:>3} of {last}: {listed('')}"
    if any(name.startswith("validation_") for name in record):
        text += f" | validation {listed('validation_')}"
    return f"{text} | {record['images_per_second']:,.0f} images/s"
