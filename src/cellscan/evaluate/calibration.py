"""Calibration: the calibration error of probabilities, and the temperature that reduces it."""

from __future__ import annotations

from typing import Any

import numpy as np


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Compute the expected calibration error: the mean gap between confidence and accuracy over bins of equal width.

    Parameters
    ----------
    probabilities : (N, K) float
        Rows sum to 1.
    labels : (N,) int
    bins : int
        Number of bins of the confidence, the probability of the most probable class.

    Returns
    -------
    float
        In [0, 1]; 0 is best. Guo et al. (2017), equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.calibration import expected_calibration_error
    >>> sure = np.array([[0.9, 0.1]] * 10)
    >>> round(expected_calibration_error(sure, np.array([0] * 9 + [1])), 6)  # nine of ten are correct
    0.0
    >>> round(expected_calibration_error(sure, np.array([0] * 5 + [1] * 5)), 6)
    0.4
    """
    gaps = bin_gaps(probabilities, labels, np.zeros(len(labels), int), 1, bins=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bin_gaps(
    probabilities: np.ndarray, labels: np.ndarray, group: np.ndarray, groups: int, *, bins: int = 15
) -> np.ndarray:
    """Compute, for every group and confidence bin, the number of correct cells minus the sum of their confidences.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.calibration import bin_gaps
    >>> bin_gaps(np.array([[0.9, 0.1]]), np.array([0]), np.array([0]), 1, bins=2).round(2).tolist()
    [[0.0, 0.1]]
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    index = group * bins + bin_index
    return np.bincount(index, correct - confidence.astype(np.float64), groups * bins).reshape(groups, bins)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities (N, K) after dividing their logits by `temperature`.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.calibration import apply_temperature
    >>> apply_temperature(np.array([[0.9, 0.1]]), 2.0).round(3).tolist()
    [[0.75, 0.25]]
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
    scaled = np.exp(logits - logits.max(-1, keepdims=True))
    return (scaled / scaled.sum(-1, keepdims=True)).astype(np.float32)


def fit_temperature(members: list[np.ndarray], labels: np.ndarray) -> float:
    """Fit the temperature that minimises the log loss of the averaged members.

    Parameters
    ----------
    members : list of (N, K) float
        Probabilities of each member at temperature 1.
    labels : (N,) int

    Returns
    -------
    float
        In [0.05, 20]. Each member's logits are divided by it before the average. Guo et al. (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.calibration import fit_temperature
    >>> sure = np.array([[0.99, 0.01]] * 10)  # only seven of ten are correct: overconfident
    >>> fit_temperature([sure], np.array([0] * 7 + [1] * 3)) > 3
    True
    """
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(np.stack(members).astype(np.float64), 1e-30))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled = np.exp(scaled - scaled.max(-1, keepdims=True))
        mean = (scaled / scaled.sum(-1, keepdims=True)).mean(0)
        return -float(np.log(np.maximum(mean[np.arange(len(labels)), labels], 1e-12)).mean())

    optimum: Any = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(optimum.x))
