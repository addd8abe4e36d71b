"""Novelty of a classifier: learning it, predicting it, storing it, resetting it."""

import csv
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import random_image, tiny_cells

import cellscan
from cellscan.decisions.novelty import VALUES, learn
from cellscan.models.network import Network


class Mute(nnx.Module):
    """Somebody's own network without features."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(x.mean((1, 2)))


@pytest.fixture(scope="module")
def knowing() -> tuple[cellscan.Classifier, cellscan.CellDataset]:
    cells = cellscan.synthetic_cells(1000, seed=0)
    train, other = cells.split(test=0.2, seed=0)
    clf = cellscan.Classifier(image_size=16, seed=0)
    clf.learn_novelty(train, progress=False)
    return clf, other


def test_a_gaussian_of_known_shape() -> None:
    """With as many axes as features the distance is that of Mahalanobis, and its square is a chi-square's."""
    from scipy.stats import chi2

    rng = np.random.default_rng(0)
    features = rng.standard_normal((20_000, 4)).astype(np.float32) @ np.array(
        [[3, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, 1]], np.float32
    )
    novelty = learn(features, np.repeat([str(i) for i in range(20)], 1000))
    assert novelty.threshold == pytest.approx(chi2.ppf(0.99, 4) ** 0.5, rel=0.03)
    assert (novelty.cells, novelty.patients) == (20_000, 20)


def test_the_threshold_is_chosen_on_patients_left_out() -> None:
    """Every patient has a place of its own, so that a Gaussian which saw it would find it familiar."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(10), 200)
    features = (rng.normal(0, 5, (10, 6))[owner] + rng.standard_normal((2000, 6))).astype(np.float32)
    by_patient = learn(features, owner.astype(str))
    by_cell = learn(features, np.full(2000, ""))
    assert by_patient.threshold > 1.1 * by_cell.threshold
    assert by_cell.patients == 0


def test_photographs_noise_and_plain_colours_are_novel(knowing) -> None:
    clf, other = knowing
    assert clf.predict(other, progress=False).novel.mean() < 0.1
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (50, 40, 40, 3), dtype=np.uint8)
    plain = np.broadcast_to(rng.integers(0, 256, (50, 1, 1, 3), dtype=np.uint8), (50, 40, 40, 3))
    assert clf.predict(noise, progress=False).novel.mean() >= 0.8  # of 16 px, by drawn weights
    assert clf.predict(plain, progress=False).novel.mean() >= 0.8


def test_predictions_say_it(knowing, tmp_path) -> None:
    clf, other = knowing
    preds = clf.predict([random_image(), other[0].image, "no.png"], on_error="skip", progress=False)
    assert preds.novelty.dtype == np.float32
    assert preds.novel.tolist() == (preds.novelty > clf.novelty_threshold).tolist()
    assert (preds[0].novelty, preds[0].novel) == (preds.novelty[0], True)
    assert preds[:1].novel.tolist() == [True]
    assert f"{preds.novel.sum()} novel (unlike the training cells); 1 could not be read" in repr(preds)
    preds.to_csv(tmp_path / "out.csv")
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["novel"] == "1"
    assert float(rows[0]["novelty"]) == pytest.approx(preds.novelty[0], rel=1e-3)
    assert (rows[2]["novel"], rows[2]["error"] != "") == ("", True)
    plain = cellscan.Classifier(image_size=16, seed=0)
    assert np.array_equal(plain.predict_proba(other, progress=False), clf.predict(other, progress=False).probabilities)
    assert plain.predict(other, progress=False).novel is None
    assert plain.novelty_threshold is None
    assert clf.predict(other, tta=True, progress=False).novel.mean() < 0.1


def test_it_is_kept_in_the_file_and_forgotten_by_fit(knowing, tmp_path) -> None:
    clf, other = knowing
    clf.save(tmp_path / "m.safetensors")
    again = cellscan.Classifier.load(tmp_path / "m.safetensors")
    assert again.novelty_threshold == clf.novelty_threshold
    before, after = (c.predict(other, progress=False).novelty for c in (clf, again))
    assert before is not None
    assert after is not None
    assert np.array_equal(before, after)
    assert cellscan.Classifier.ensemble([again, again]).novelty_threshold is None
    again.fit(other, epochs=1, progress=False)
    assert again.novelty_threshold is None


def test_of_an_ensemble_the_first_member_looks() -> None:
    both = cellscan.Classifier.ensemble([cellscan.Classifier(image_size=16, seed=seed) for seed in range(2)])
    cells = cellscan.synthetic_cells(720, seed=0)
    both.learn_novelty(cells, progress=False)
    first, second = both.members
    seen, alone = (clf.predict(cells, progress=False).novelty for clf in (both, first))
    assert seen is not None
    assert alone is not None
    assert np.allclose(seen, alone, rtol=1e-4)
    assert second.novelty_threshold is None  # another network has other features


def test_a_damaged_entry_is_refused(tmp_path) -> None:
    clf = cellscan.Classifier(image_size=16, seed=0)
    four, three, two = (np.zeros(count, np.float32) for count in (4, 3, 2))
    short = cellscan.Novelty(1.0, 9, 9, four, three, np.zeros((4, 2), np.float16), two, 1.0)
    clf._card = replace(clf.card, novelty=short)
    clf.save(tmp_path / "m.safetensors")
    with pytest.raises(cellscan.ModelFileError, match="do not fit each other"):
        cellscan.Classifier.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", [backbone.name for backbone in cellscan.list_backbones()])
def test_it_is_small(name: str) -> None:
    clf = cellscan.Classifier(name, image_size=75, seed=0)
    network = Network(clf.model)
    width = jax.eval_shape(network.feature_statistics, network.shapes(), np.zeros((1, 75, 75, 3), np.float32)).shape[-1]
    kept = min(VALUES // width, width - 1)
    line, basis, variances = (np.zeros(shape, np.float32) for shape in (width, (width, kept), kept))
    basis = basis.astype(np.float16)
    assert sum(array.nbytes for array in (line, line, basis, variances)) < 750_000


def test_what_cannot_be_learned() -> None:
    clf = cellscan.Classifier(image_size=16, seed=0)
    with pytest.raises(cellscan.DataError, match="48 cells are too few.*230 features.*at least 460 cells"):
        clf.learn_novelty(tiny_cells(48), progress=False)
    with pytest.raises(cellscan.ArgumentError, match="expected a CellDataset"):
        clf.learn_novelty([random_image()])  # pyright: ignore[reportArgumentType]

    own = cellscan.Classifier(Mute(rngs=nnx.Rngs(0)), image_size=16)
    with pytest.raises(cellscan.ArgumentError, match="has no method features"):
        own.learn_novelty(tiny_cells(48), progress=False)


def test_outlier_scores_find_the_odd_ones_of_a_batch_of_another_stain(knowing) -> None:
    clf, _ = knowing
    cells = cellscan.synthetic_cells(120, seed=5, difficulty="easy")
    stained = [np.clip(cell.image.astype(int) * (0.6, 1.1, 0.7), 0, 255).astype(np.uint8) for cell in cells]
    odd = [np.full((60, 60, 3), colour, np.uint8) for colour in ((90, 40, 120), (30, 30, 90), (200, 220, 90))]
    scores = clf.outlier_scores([*stained, *odd], progress=False)
    assert scores.shape == (123,)
    assert set(np.argsort(-scores)[:3].tolist()) == {120, 121, 122}
    with pytest.raises(cellscan.DataError, match="29 images are too few"):
        clf.outlier_scores(stained[:29], progress=False)
    with pytest.raises(cellscan.ArgumentError, match="learn_novelty"):
        cellscan.Classifier(image_size=16).outlier_scores(stained, progress=False)


def test_predictions_say_once_that_a_whole_batch_differs(knowing) -> None:
    sentence = "Most of this batch differs from the training cells"
    clf, known = knowing
    plain = np.full((40, 40, 3), (20, 90, 20), np.uint8)
    assert sentence in repr(clf.predict([plain] * 20, progress=False))
    assert sentence not in repr(clf.predict([plain] * 19, progress=False))
    assert sentence not in repr(clf.predict(known[:40], progress=False))
