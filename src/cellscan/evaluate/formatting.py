"""Metrics as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def metric_text(value: float, digits: int = 4) -> str:
    """Return a metric as text; an undefined one is ``n/a``.

    Examples
    --------
    >>> from cellscan.evaluate.formatting import metric_text
    >>> metric_text(0.96548), metric_text(0.96548, 3), metric_text(float("nan"))
    ('0.9655', '0.965', 'n/a')
    """
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def interval_text(ends: tuple[float, float]) -> str:
    """Return an interval as text; an undefined one is ``n/a``.

    Examples
    --------
    >>> from cellscan.evaluate.formatting import interval_text
    >>> interval_text((0.9, 0.97))
    '0.9000 to 0.9700'
    """
    return "n/a" if math.isnan(ends[0]) else f"{ends[0]:.4f} to {ends[1]:.4f}"


def as_json(value: Any) -> Any:
    """Return a value as strict JSON: numbers that are not finite become null, and tuples become lists.

    Examples
    --------
    >>> from cellscan.evaluate.formatting import as_json
    >>> as_json({"ap": float("nan"), "sizes": (1, 2)})
    {'ap': None, 'sizes': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
