"""A small part of every robustness test; `make test-all` runs them in full."""

import attacks


def test_mutated_images_are_read_whole_or_refused() -> None:
    result = attacks.mutate_images(400)
    assert result["read whole"] + result["refused"] == 400
    assert result["refused"] > 50


def test_mutated_models_are_read_whole_or_refused(tmp_path) -> None:
    result = attacks.mutate_models(60, tmp_path)
    assert result["read whole"] + result["refused"] == 60
    assert result["refused"] > 50


def test_mutated_annotations_are_read_or_refused(tmp_path) -> None:
    result = attacks.mutate_annotations(110, tmp_path)
    assert result["read"] + result["refused"] == 110
    assert result["refused"] > 20


def test_a_cache_is_shared_by_threads_and_processes(tmp_path) -> None:
    assert attacks.share_a_cache(1, tmp_path)["maps built"] == 1


def test_a_map_that_was_being_written_is_written_anew(tmp_path) -> None:
    assert attacks.kill_caching(3, tmp_path)["half-written files"] == 0


def test_a_full_disk_keeps_what_was_there(tmp_path) -> None:
    result = attacks.fill_disks(15, tmp_path)
    assert result["written"] + result["refused"] == 15
    assert result["refused"] > 3


def test_killed_trainings_lose_no_epoch_and_end_with_the_same_bits(tmp_path) -> None:
    result = attacks.kill_trainings(4, tmp_path)
    assert result["trainings finished"] >= 2


def test_threads_give_the_same_bits() -> None:
    assert attacks.predict_from_threads(2)["calls, all the same bits"] >= 8
