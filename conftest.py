"""Set-up of every test and doctest: a pixel cache of their own, and no window."""

import os
import sys
import tempfile
from collections.abc import Iterator

os.environ["CELLSCAN_CACHE"] = tempfile.mkdtemp(prefix="cellscan-tests-")
os.environ["MPLBACKEND"] = "Agg"

import pytest


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Close what a test drew."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
