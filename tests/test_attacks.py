"""A small part of every attack; `make test-all` runs them in full."""

import attacks


def test_mutated_images_are_read_whole_or_refused() -> None:
    result = attacks.mutate_images(400)
    assert result["read whole"] + result["refused"] == 400
    assert result["refused"] > 50


def test_mutated_models_are_read_whole_or_refused(tmp_path) -> None:
    result = attacks.mutate_models(60, tmp_path)
    assert result["read whole"] + result["refused"] == 60
    assert result["refused"] > 50


def test_killed_trainings_lose_no_epoch_and_end_with_the_same_bits(tmp_path) -> None:
    result = attacks.kill_trainings(4, tmp_path)
    assert result["trainings finished"] >= 2


def test_threads_give_the_same_bits() -> None:
    assert attacks.predict_from_threads(2)["calls, all the same bits"] >= 8
