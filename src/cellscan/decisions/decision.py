"""`Decision`: the rules from probabilities to labels of cells and patients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

import numpy as np

from cellscan.data.values import check_number
from cellscan.decisions.conformal import Conformal
from cellscan.errors import ArgumentError


@dataclass(frozen=True)
class Decision:
    """The rules from probabilities to labels, label sets, and infected patients.

    Attributes
    ----------
    temperature : float
        Divisor of the logits before the softmax, above 0 (Guo et al., 2017).
    threshold : float
        Probability of the positive class at and above which a cell is positive, in (0, 1). Used with two classes.
    conformal : Conformal or None
        The rule for label sets; None without label sets.
    patient_rule : float or None
        Share of positive cells at and above which a patient counts as infected, in (0, 1].
    tta : bool or None
        Whether these values were chosen with test-time augmentation; None if nothing was chosen on cells.

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
    tta: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_number("threshold", self.threshold, 0, 1))
        object.__setattr__(self, "temperature", check_number("temperature", self.temperature, 0, float("inf")))
        if not (self.conformal is None or isinstance(self.conformal, Conformal)):
            raise ArgumentError(f"conformal is {self.conformal!r:.80}; expected a Conformal, or None")
        if self.patient_rule is not None:
            object.__setattr__(self, "patient_rule", check_number("patient_rule", self.patient_rule, 0, 1, "(]"))
        _check_tta(self.tta)

    def choose(self, tta: bool | None, *parts: str) -> Decision:
        """Return a decision with `parts` reset, and with the value of `tta` to use for choosing them.

        Parameters
        ----------
        tta : bool or None
            Test-time augmentation. None: the value of the other parts, or False if there are none.
        *parts : str
            Fields that are about to be chosen; they are reset to their defaults.

        Raises
        ------
        ArgumentError
            If the other parts were chosen with another value of `tta`; one decision cannot mix both.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Decision(temperature=1.5, threshold=0.4, tta=True).choose(None, "threshold")
        Decision(temperature=1.5, threshold=0.5, conformal=None, patient_rule=None, tta=True)
        """
        _check_tta(tta)
        defaults = {entry.name: entry.default for entry in fields(self)}
        rest = replace(self, tta=None, **{part: defaults[part] for part in parts})
        before = None if rest == Decision() else self.tta
        if None not in (before, tta) and before != tta:
            raise ArgumentError(
                f"tta is {tta}, but other parts of the decision were chosen with tta={before}; pass tta={before}, or "
                f"choose all parts again with tta={tta}, starting with calibrate(...), which resets the others"
            )
        return replace(rest, tta=bool(before if tta is None else tta))

    def runs_with(self, tta: bool | None) -> bool:
        """Return whether to predict with test-time augmentation.

        Warns if `tta` differs from the value with which the decision was chosen.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Decision(threshold=0.4, tta=True).runs_with(None)
        True
        """
        _check_tta(tta)
        if None not in (self.tta, tta) and self.tta != tta:
            warnings.warn(
                f"predicting with tta={tta}, but temperature, threshold, label sets or patient rule were chosen with "
                f"tta={self.tta}; the error rates for which they were chosen may not hold",
                stacklevel=4,
            )
        return bool(self.tta if tta is None else tta)


def _check_tta(tta: object) -> None:
    if not (tta is None or isinstance(tta, (bool, np.bool_))):
        raise ArgumentError(f"tta is {tta!r:.80}; expected True, False or None")


def decide(probabilities: np.ndarray, positive: int | None, threshold: float) -> np.ndarray:
    """Return labels (N,) int32: by the threshold with two classes, otherwise the most probable class.

    Parameters
    ----------
    probabilities : (N, K) float
    positive : int or None
        Index of the class to which the threshold refers.
    threshold : float
        Probability of the positive class at and above which the label is positive.

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
