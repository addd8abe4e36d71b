"""Checkpoints: what is refused, what goes on, and that it ends with the same bits."""

import errno
import os

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import TinyNet, run_python, tiny_cells

import cellscan
from cellscan import Classifier, Recipe

CELLS = tiny_cells(24, 16)


def classifier(seed: int = 0, **options) -> Classifier:
    return Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, seed=seed, **options)


def fit(clf: Classifier, folder=None, epochs: int = 4, resume: bool = False, recipe: Recipe | None = None, **options):
    options = {"validation": CELLS, "batch_size": 8, "progress": False, **options}
    return clf.fit(CELLS, epochs=epochs, checkpoint=folder, resume=resume, recipe=recipe, **options)


def stop_after(monkeypatch, epochs: int) -> None:
    """Press Ctrl-C while the checkpoint after so many epochs is about to be replaced."""
    from cellscan.training.checkpoint import Checkpoint

    real = Checkpoint.save

    def save(self, at):
        if len(at.records) > epochs:
            raise KeyboardInterrupt
        real(self, at)

    monkeypatch.setattr(Checkpoint, "save", save)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(patience=2, monitor="accuracy", ema=None, mixup=0.3),
        Recipe(optimizer=optax.chain(optax.add_noise(0.01, 0.5, 3), optax.adam(1e-3, mu_dtype=jnp.bfloat16))),
    ],
    ids=["default", "patience", "own optimiser with a key and bfloat16"],
)
def test_it_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch, recipe) -> None:
    alone = classifier()
    expected = fit(alone, recipe=recipe, epochs=6)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit(classifier(), tmp_path / "run", recipe=recipe, epochs=6)
    resumed = classifier()
    history = fit(resumed, tmp_path / "run", recipe=recipe, epochs=6, resume=True)
    assert history["loss"] == expected["loss"]
    assert history["epoch"] == expected["epoch"]
    assert np.array_equal(resumed.predict_proba(CELLS), alone.predict_proba(CELLS))
    assert np.array_equal(resumed.embed(CELLS), alone.embed(CELLS))
    assert resumed.card.epochs == alone.card.epochs
    assert resumed.card.metrics == alone.card.metrics


def test_a_finished_run_returns_at_once_also_with_the_classifier_it_trained(tmp_path, monkeypatch) -> None:
    clf = classifier()
    first = fit(clf, tmp_path, resume=True)  # an empty folder starts
    from cellscan.training import loop

    monkeypatch.setattr(loop, "make_epoch", None)  # nothing may be trained any more
    again = classifier()
    assert fit(again, tmp_path, resume=True)["loss"] == first["loss"]
    assert np.array_equal(again.predict_proba(CELLS), clf.predict_proba(CELLS))
    assert fit(clf, tmp_path, resume=True)["epoch"] == [1, 2, 3, 4]
    assert clf.card.epochs == 4


def test_a_second_training_continues_the_count(tmp_path) -> None:
    clf = classifier()
    fit(clf, tmp_path / "a", epochs=2)
    assert fit(clf, tmp_path / "b", epochs=2)["epoch"] == [3, 4]
    assert fit(clf, tmp_path / "b", epochs=2, resume=True)["epoch"] == [3, 4]


def test_what_is_refused(tmp_path) -> None:
    with pytest.raises(cellscan.ArgumentError, match="pass its folder"):
        classifier().fit(CELLS, resume=True)
    fit(classifier(), tmp_path, epochs=1)
    with pytest.raises(cellscan.ArgumentError, match="resume=True"):
        fit(classifier(), tmp_path, epochs=1)
    for options, message in (
        ({"recipe": Recipe(learning_rate=1e-3)}, "recipe.learning_rate was 0.004 and is 0.001"),
        ({"epochs": 2}, "epochs was 1 and is 2"),
        ({"batch_size": 6}, "recipe.batch_size was 8 and is 6"),
        ({"validation": None}, "validation"),
    ):
        with pytest.raises(cellscan.ArgumentError, match=message):
            fit(classifier(), tmp_path, **{"epochs": 1, "resume": True, **options})
    with pytest.raises(cellscan.ArgumentError, match="seed was 0 and is 1"):
        fit(classifier(seed=1), tmp_path, epochs=1, resume=True)
    with pytest.raises(cellscan.ArgumentError, match="train.hash"):
        classifier().fit(tiny_cells(32, 16), validation=CELLS, batch_size=8, epochs=1, checkpoint=tmp_path, resume=True)
    with pytest.raises(cellscan.ArgumentError, match="architecture was"):
        fit(Classifier(image_size=16), tmp_path, epochs=1, resume=True)
    other = Classifier(TinyNet(rngs=nnx.Rngs(5)), image_size=16, seed=0)
    with pytest.raises(cellscan.ArgumentError, match="other weights"):
        fit(other, tmp_path, epochs=1, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(cellscan.ModelFileError, match="cannot create a folder"):
        fit(classifier(), tmp_path / "file" / "run")


def test_a_damaged_checkpoint_is_refused(tmp_path) -> None:
    fit(classifier(), tmp_path, epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for content in (whole[:-10], flipped, b"", whole.replace(b"cellscan.checkpoint", b"cellscan.checkpaint")):
        path.write_bytes(content)
        with pytest.raises(cellscan.ModelFileError, match="checkpoint.safetensors"):
            fit(classifier(), tmp_path, epochs=1, resume=True)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_is_an_error_that_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, where) -> None:
    real, calls = getattr(os, where), []

    def full(*args):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    clf = classifier()
    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(cellscan.ModelFileError, match=r"No space left.*unchanged"):
            fit(clf, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert clf.card.epochs == 2
    alone, resumed = classifier(), classifier()
    fit(alone)
    assert fit(resumed, tmp_path, resume=True)["epoch"] == [1, 2, 3, 4]
    assert np.array_equal(alone.predict_proba(CELLS), resumed.predict_proba(CELLS))


def test_a_limit_of_the_system_on_file_size_is_met_the_same_way(tmp_path) -> None:
    said = run_python(
        "import resource, cellscan\n"
        "cells = cellscan.synthetic_cells(16, seed=0)\n"
        "clf = cellscan.Classifier(image_size=16)\n"
        "cells.images(16)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        f"try: clf.fit(cells, epochs=1, checkpoint={str(tmp_path)!r}, progress=False)\n"
        "except cellscan.ModelFileError as error: print(error)\n"
    )
    assert "cannot be written" in said
    assert not list(tmp_path.iterdir())
