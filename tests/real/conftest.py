"""The real cells, unpacked once into a cache outside the project.

The folder is CELLSCAN_DATA, or ../shared/data beside the repository. If the cells are absent, these
tests are skipped with a message; CELLSCAN_REQUIRE_DATA=1 makes them fail instead.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY


@pytest.fixture(scope="session")
def source() -> Path:
    folder = Path(os.environ.get("CELLSCAN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "unpack.py").exists():
        reason = f"the real cells are not at {folder}; set CELLSCAN_DATA to where unpack.py and the archives are"
        if os.environ.get("CELLSCAN_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def real(source) -> Path:
    """The folder that holds cell_images/, cell_images.zip and the mapping files."""
    import platformdirs

    target = Path(os.environ.get("CELLSCAN_REAL_CACHE", platformdirs.user_cache_dir("cellscan-real-data")))
    command = [sys.executable, str(source / "unpack.py"), str(target), "--only", "cells", "--zip"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return target
