"""Calibration: whether probabilities mean what they say, and the one number that mends them."""

from __future__ import annotations

from typing import Any

import numpy as np


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, over bins of equal width.

    Parameters
    ----------
    probabilities : (N, K) float
        Rows sum to 1.
    labels : (N,) int
    bins : int
        Of the probability of the likeliest class.

    Returns
    -------
    float
        In [0, 1]. Guo et al. (2017), equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.calibration import expected_calibration_error
    >>> sure = np.array([[0.9, 0.1]] * 10)
    >>> round(expected_calibration_error(sure, np.array([0] * 9 + [1])), 6)  # right nine times of ten
    0.0
    >>> round(expected_calibration_error(sure, np.array([0] * 5 + [1] * 5)), 6)
    0.4
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = (np.bincount(which, right, bins) - np.bincount(which, confidence, bins)) / len(labels)
    return float(np.abs(gaps).sum())


def fit_temperature(members: list[np.ndarray], labels: np.ndarray) -> float:
    """Return the temperature under which the averaged members fit the labels best.

    Parameters
    ----------
    members : list of (N, K) float
        Probabilities of each member at temperature 1.
    labels : (N,) int

    Returns
    -------
    float
        In [0.05, 20]; it divides the logits. Guo et al. (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.evaluate.calibration import fit_temperature
    >>> sure = np.array([[0.99, 0.01]] * 10)  # and right seven times of ten: too sure
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

    found: Any = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))
