"""Slow tests with many cases: `make test-all`."""

import attacks
import pytest

import cellscan

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("difficulty", "epochs", "least"), [("easy", 6, 0.99), ("normal", 5, 0.95)])
def test_small_cnn_learns_synthetic_cells(difficulty, epochs, least) -> None:
    cells = cellscan.synthetic_cells(2000, seed=0, difficulty=difficulty)
    train, test = cells.split(test=0.2, seed=0)
    clf = cellscan.Classifier(seed=0)
    clf.fit(train, epochs=epochs)
    assert clf.evaluate(test).accuracy > least


def test_strong_augmentation_and_bfloat16_still_learn() -> None:
    cells = cellscan.synthetic_cells(1000, seed=0, difficulty="easy")
    train, test = cells.split(test=0.2, seed=0)
    for recipe in (cellscan.Recipe(augment="strong"), cellscan.Recipe(dtype="bfloat16")):
        clf = cellscan.Classifier(image_size=48, seed=0)
        clf.fit(train, epochs=6, recipe=recipe)
        assert clf.evaluate(test).accuracy > 0.9


def test_attacks_in_full(tmp_path) -> None:
    images = attacks.mutate_images(5000)
    models = attacks.mutate_models(2000, tmp_path)
    kills = attacks.kill_trainings(200, tmp_path)
    assert kills["before the first epoch"] < 150  # most of them strike between epochs, or in one
    threads = attacks.predict_from_threads(60)
    print("\n".join(attacks.table([images, models, kills, threads])))
