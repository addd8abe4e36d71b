"""Detects a process that was forked after JAX had run in its parent: a computation with JAX would hang there."""

from __future__ import annotations

import os

from cellscan.errors import CellscanError

_runs = False
_forked = False


def use_jax() -> None:
    """Record that this process uses JAX; raise `CellscanError` if its parent used JAX before the fork.

    JAX would hang in such a process.
    """
    global _runs
    if _forked:
        raise CellscanError(
            "this process was forked from a process that had already used JAX, so a computation here would hang. "
            'Start workers with multiprocessing.get_context("spawn") or "forkserver", or with joblib\'s loky. Or '
            "create or load the model in each worker, and not in the parent (gunicorn: without --preload)"
        )
    _runs = True


def _after_fork() -> None:
    global _forked
    _forked = _forked or _runs


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
