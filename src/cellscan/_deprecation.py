"""The warning that a deprecated name or argument gives; the policy is in docs/releasing.md."""

from __future__ import annotations

import warnings


def deprecated(name: str, instead: str, removed_in: str, *, stacklevel: int = 3) -> None:
    """Warn that something is deprecated; called where it is used.

    Parameters
    ----------
    name : str
        What is deprecated, as it is written: ``"Classifier.predict(tta=)"``.
    instead : str
        What to write now.
    removed_in : str
        The first release without it, such as ``"0.3"``.
    stacklevel : int
        Stack level of the caller that the warning names; 3 is the caller of the function that calls this one.

    Examples
    --------
    >>> import warnings
    >>> from cellscan._deprecation import deprecated
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     deprecated("load(fast=)", "load(cache=)", "0.3")
    >>> print(caught[0].message)
    load(fast=) is deprecated and will be removed in cellscan 0.3; use load(cache=) instead
    """
    warnings.warn(
        f"{name} is deprecated and will be removed in cellscan {removed_in}; use {instead} instead",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
