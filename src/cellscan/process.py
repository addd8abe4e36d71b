"""A process that was forked after JAX had run in its parent: computing in it would wait for ever."""

from __future__ import annotations

import os

from cellscan.errors import CellscanError

_runs = False
_forked = False


def use_jax() -> None:
    """Note that JAX runs in this process; raise where that would hang, because its parent ran it before the fork."""
    global _runs
    if _forked:
        raise CellscanError(
            "this process was forked from one that had used JAX already, so a computation here would wait for ever. "
            'Start workers with multiprocessing.get_context("spawn") or "forkserver", or joblib\'s loky; or make or '
            "load the model in each worker, and nothing of it in the parent (gunicorn: without --preload)"
        )
    _runs = True


def _after_fork() -> None:
    global _forked
    _forked = _forked or _runs


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
