"""Set-up of all tests and doctests: a temporary pixel cache, a shared cache of compiled programs, and no windows."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["CELLSCAN_CACHE"] = tempfile.mkdtemp(prefix="cellscan-tests-")
os.environ["MPLBACKEND"] = "Agg"
# The workers of a run, the processes that tests start and later runs share this cache; `make clean` removes it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compiling without LLVM's optimisations takes a third of the time, and tests run most programs only a few times. The
# benchmarks and the gallery use the default optimisations, as users do.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"

import hypothesis
import pytest
from _pytest.doctest import DoctestItem

# The same examples in every run, so that a change does not fail because of an example that no run had before. With
# CELLSCAN_RANDOM_EXAMPLES=1 they are drawn anew: run this before a release, and keep what it finds as an @example.
hypothesis.settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("CELLSCAN_RANDOM_EXAMPLES"):
    hypothesis.settings.load_profile("repeatable")

_STUDIES = ("cellscan.study.Study", "cellscan.study.ExternalValidation", "cellscan.evaluate.confident.LabelIssues")
_DETECTORS = (
    "cellscan.confirming.", "cellscan.detector.Detector.", "cellscan.detections.", "cellscan.screening.",
    "cellscan.evaluate.detection.D", "cellscan.laboratories.L",
)  # fmt: skip


_LONGEST = (
    "tests/real",
    "tests/models",
    "tests/test_attacks.py",
    "tests/training",
    "tests/explain",
    "tests/test_odd_calls.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that the workers of a run finish at about the same time."""

    def rank(item: pytest.Item) -> int:
        return next((row for row, name in enumerate(_LONGEST) if item.nodeid.startswith(name)), len(_LONGEST))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Close the figures of a test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _keep_the_cache_of_programs() -> Iterator[None]:
    """Restore JAX's cache folder of compiled programs, which a test may have changed."""
    yield
    if "jax" in sys.modules:
        jax, folder = sys.modules["jax"], os.environ["JAX_COMPILATION_CACHE_DIR"]
        if jax.config.jax_compilation_cache_dir != folder:
            from jax.experimental.compilation_cache import compilation_cache

            jax.config.update("jax_compilation_cache_dir", folder)
            compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def _study(request: pytest.FixtureRequest) -> None:
    """Give the examples of `Study` the study of the example of `cross_validate`, which is trained once."""
    if isinstance(request.node, DoctestItem) and request.node.name.startswith(_STUDIES):
        request.getfixturevalue("doctest_namespace").update(request.getfixturevalue("trained_study"))


@pytest.fixture(autouse=True)
def _detector(request: pytest.FixtureRequest) -> None:
    """Give the examples of detection the detector and the fields of the example of `Detector`."""
    if isinstance(request.node, DoctestItem) and request.node.name.startswith(_DETECTORS):
        request.getfixturevalue("doctest_namespace").update(request.getfixturevalue("trained_detector"))


@pytest.fixture(scope="session")
def trained_detector() -> dict[str, object]:
    """Train a detector for the examples of detection."""
    import cellscan

    fields = cellscan.synthetic_fields(4, seed=0, size=(96, 128))
    det = cellscan.Detector("retinanet_small", image_size=(96, 128), seed=0)
    det.fit(fields, epochs=4, batch_size=2, progress=False)
    det.thresholds = (0.1, 0.1)
    return {"fields": fields, "det": det}


@pytest.fixture(scope="session")
def trained_study() -> dict[str, object]:
    """Train a study for the examples of `Study`."""
    import cellscan

    cells = cellscan.synthetic_cells(200, seed=0, difficulty="easy")
    study = cellscan.cross_validate("small_cnn", cells, folds=2, image_size=16, epochs=2, progress=False)
    return {"cells": cells, "study": study}
