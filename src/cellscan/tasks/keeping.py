"""`keep_programs`: a disk cache of compiled programs for later processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cellscan.data.cache import cache_folder
from cellscan.data.values import as_path
from cellscan.errors import ArgumentError

LIMIT = 2**29
"""Maximum size of the cache in bytes; the oldest programs are deleted above it."""


def keep_programs(folder: str | os.PathLike[str] | None = None) -> Path:
    """Cache the programs that JAX compiles on disk, so that later processes do not compile them again.

    The setting applies to this process from now on. The command line turns the cache on; ``import cellscan`` does not.

    Parameters
    ----------
    folder : path, optional
        Folder of the cache. Default: ``programs`` in the library's cache folder, which the environment variable
        `CELLSCAN_CACHE` sets. Programs in the folder are executed, so it must belong to you, and no other user may
        have access; a new folder gets these permissions.

    Returns
    -------
    pathlib.Path
        The folder. You may delete it at any time.

    Raises
    ------
    ArgumentError
        If the folder belongs to another user or is open to others, or cannot be created.

    Notes
    -----
    A cached program is identified by its computation, the versions of JAX and XLA, and the device. A changed library
    therefore never runs an outdated program.

    Examples
    --------
    >>> import tempfile, cellscan
    >>> cellscan.keep_programs(tempfile.mkdtemp()).is_dir()
    True
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    path = (cache_folder() / "programs" if folder is None else as_path("folder", folder)).expanduser().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
            raise ArgumentError(
                f"{path} belongs to another user or is open to others (mode {status.st_mode & 0o777:o}), but programs "
                f"in it are executed. Restrict it to yourself: chmod 700 {path}; or pass another folder"
            )
        _delete_oldest(path)
    except OSError as error:
        raise ArgumentError(f"{path}: cannot create the folder for programs ({error}); pass another folder") from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # JAX reads the setting once per process, unless the cache is reset.
    return path


def _delete_oldest(folder: Path) -> None:
    files = []
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # Another process may delete files at the same time.
            status = entry.stat()
            files.append((status.st_mtime, status.st_size, entry))
    total = sum(size for _, size, _ in files)
    for _, size, entry in sorted(files):
        if total <= LIMIT:
            return
        entry.unlink(missing_ok=True)
        total -= size
