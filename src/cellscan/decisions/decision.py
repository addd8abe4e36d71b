"""`Decision`: how probabilities become labels, and patients called infected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellscan.decisions.conformal import Conformal
from cellscan.errors import ArgumentError


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


def decide(probabilities: np.ndarray, positive: int | None, threshold: float) -> np.ndarray:
    """Return labels (N,) int32: by the threshold with two classes, else the likeliest.

    Parameters
    ----------
    probabilities : (N, K) float
    positive : int or None
        The class that the threshold speaks of.
    threshold : float
        P(positive class) from which a label is positive.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.decisions.decision import decide
    >>> decide(np.array([[0.4, 0.6], [0.2, 0.8]]), positive=0, threshold=0.3).tolist()
    [0, 1]
    """
    if probabilities.shape[1] != 2 or positive is None:
        return probabilities.argmax(1).astype(np.int32)
    called = probabilities[:, positive] >= np.float32(threshold)
    return np.where(called, positive, 1 - positive).astype(np.int32)
