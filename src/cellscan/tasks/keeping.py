"""Compiled programs kept on disk, so that the next process need not compile them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cellscan.data.cache import cache_folder
from cellscan.data.values import as_path
from cellscan.errors import ArgumentError

LIMIT = 2**29
"""Bytes of programs, from which the oldest go."""


def keep_programs(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keep the programs that JAX compiles from now on, and take those that were kept; for this process alone.

    The command line does so by itself; importing the library does not. A program is known by what it computes, the
    versions of JAX and XLA and the device, so a changed library never gets an old one. `CELLSCAN_CACHE` moves the
    folder; it may be deleted at any time.

    Parameters
    ----------
    folder : path, optional
        Left out, ``programs`` in the library's cache folder. A process runs what it finds there, so the folder must
        belong to you, and nobody else may write to it or read it; it is made so.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ArgumentError
        Where the folder belongs to somebody else or is open to others, or cannot be made.

    Examples
    --------
    >>> import tempfile, cellscan
    >>> cellscan.keep_programs(tempfile.mkdtemp()).is_dir()
    True
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    place = (cache_folder() / "programs" if folder is None else as_path("folder", folder)).expanduser().absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
            raise ArgumentError(
                f"{place} belongs to another user or is open to others (mode {status.st_mode & 0o777:o}), and what "
                f"lies there is run. Make it yours alone: chmod 700 {place}; or name another folder"
            )
        _forget_the_oldest(place)
    except OSError as error:
        raise ArgumentError(f"{place}: no folder for programs can be made there ({error}); name another") from error
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # JAX decides once a process whether it has one
    return place


def _forget_the_oldest(place: Path) -> None:
    found = []
    for entry in place.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may be tidying too
            status = entry.stat()
            found.append((status.st_mtime, status.st_size, entry))
    total = sum(size for _, size, _ in found)
    for _, size, entry in sorted(found):
        if total <= LIMIT:
            return
        entry.unlink(missing_ok=True)
        total -= size
