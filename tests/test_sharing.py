"""Objects that are sent to other processes, and the memory that they share."""

import copy
import multiprocessing
import pickle
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import TinyNet, compilations, run_python, tiny_cells

import cellscan


def tiny() -> cellscan.Classifier:
    return cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=18, seed=0)


@pytest.mark.parametrize("make", [tiny, lambda: cellscan.Classifier(image_size=16), cellscan.Classifier.pretrained])
def test_a_classifier_pickles_and_copies_and_shares_its_programs(make) -> None:
    clf, cells = make(), tiny_cells(4)
    expected = clf.predict_proba(cells)
    with compilations() as names:
        for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf), copy.copy(clf)):
            assert np.array_equal(other.predict_proba(cells), expected)
            assert (other.card.kind(), other.card.patient_hashes) == (clf.card.kind(), clf.card.patient_hashes)
            assert other.novelty_threshold == clf.novelty_threshold
    assert "predict" not in names
    if clf.novelty_threshold is None:
        other.fit(cells, epochs=1, batch_size=2, progress=False)
        assert np.array_equal(clf.predict_proba(cells), expected)


def test_a_detector_pickles() -> None:
    det = cellscan.Detector("retinanet_small", image_size=(64, 64))
    other = pickle.loads(pickle.dumps(det))
    image = np.zeros((64, 64, 3), np.uint8)
    assert np.array_equal(
        other.predict(image, score_threshold=0.05)[0].boxes, det.predict(image, score_threshold=0.05)[0].boxes
    )


def test_a_pickle_works_in_another_process(tmp_path) -> None:
    """Where texts have another hash: a network is known again by its structure, and its program is shared."""
    clf, cells = cellscan.Classifier(image_size=16, seed=0), tiny_cells(4)
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps((clf, cells)))
    code = f"""
import pickle, numpy as np, cellscan
clf, cells = pickle.load(open({str(tmp_path / "clf.pickle")!r}, "rb"))
mine = cellscan.Classifier(image_size=16, seed=1)
print(clf._task == mine._task, hash(clf._task) == hash(mine._task), clf.predict_proba(cells, progress=False)[0, 0])
"""
    same, alike, value = run_python(code).split()
    assert (same, alike) == ("True", "True")
    assert float(value) == pytest.approx(float(clf.predict_proba(cells)[0, 0]), abs=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_says_at_once_that_it_would_hang() -> None:
    clf = tiny()
    image = np.zeros((18, 18, 3), np.uint8)

    def child(out) -> None:
        calls = (
            lambda: clf.predict(image, progress=False),
            lambda: cellscan.Classifier(image_size=16),
            lambda: clf.fit(tiny_cells(), epochs=1, progress=False),
        )
        for call in calls:
            try:
                call()
                out.put("computed")
            except cellscan.CellscanError as error:
                out.put(str(error))

    context = multiprocessing.get_context("fork")
    out = context.SimpleQueue()
    process = context.Process(target=child, args=(out,))
    process.start()
    messages = [out.get() for _ in range(3)]
    process.join()
    assert all('get_context("spawn")' in text for text in messages), messages


def test_what_a_card_gives_away_is_a_copy() -> None:
    clf = tiny()
    clf.fit(tiny_cells(), epochs=1, progress=False)
    card = clf.card
    assert card.patient_hashes["train"]
    card.patient_hashes["train"].clear()
    card.metrics.clear()
    card.data["train"] = None
    assert len(clf.card.patient_hashes["train"] or []) == 6
    assert clf.card.metrics
    assert "PATIENT OVERLAP" in str(clf.evaluate(tiny_cells()))


class Wide(nnx.Module):
    """A network with a value beyond the range of half a float."""

    def __init__(self) -> None:
        self.scale = nnx.Param(jax.numpy.full(3, 1e5))
        self.head = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(x.mean((1, 2)) * self.scale[...] / 1e5)


def test_half_a_file_keeps_what_half_a_float_cannot(tmp_path) -> None:
    clf, cells = cellscan.Classifier(Wide(), image_size=16), tiny_cells(4)
    clf.save(tmp_path / "float16.safetensors", dtype="float16")
    again = cellscan.Classifier.load(tmp_path / "float16.safetensors", model=Wide())
    assert np.allclose(again.predict_proba(cells), clf.predict_proba(cells), atol=5e-3)


def test_values_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path) -> None:
    net = Wide()
    net.scale[...] = jax.numpy.array([1.0, np.nan, 1.0])
    clf = cellscan.Classifier(net, image_size=16)
    with pytest.raises(cellscan.ModelFileError, match="scale contains values that are not finite"):
        clf.save(tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_detectors_refuse_scores_below_those_that_are_kept() -> None:
    det = cellscan.Detector("retinanet_small", image_size=(64, 64))
    with pytest.raises(cellscan.ArgumentError, match=r"from 0\.05"):
        det.thresholds = (0.01, 0.5)
    for score in (0.01, 1.5, "low"):
        with pytest.raises(cellscan.ArgumentError, match=r"from 0\.05"):
            det.predict(np.zeros((64, 64, 3), np.uint8), score_threshold=score)  # type: ignore[arg-type]


def test_kept_programs_spare_a_second_process_the_compiling(tmp_path) -> None:
    code = f"""
import numpy as np, cellscan, jax
before = jax.config.jax_compilation_cache_dir
assert not before, before
place = cellscan.keep_programs({str(tmp_path / "programs")!r})
heard = []
jax.monitoring.register_event_listener(lambda event, **_: heard.append(event))
cellscan.Classifier(image_size=16).predict_proba(np.zeros((3, 16, 16, 3), np.uint8))
print(sum(event.endswith("compilation_cache/cache_hits") for event in heard) > 0, oct(place.stat().st_mode)[-3:])
"""
    own = {"JAX_COMPILATION_CACHE_DIR": ""}
    assert run_python(code, env=own) == "False 700"
    assert run_python(code, env=own) == "True 700"


def test_a_folder_of_programs_that_others_may_write_to_is_refused(tmp_path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(cellscan.ArgumentError, match="chmod 700"):
        cellscan.keep_programs(place)
    (tmp_path / "file").write_text("")
    with pytest.raises(cellscan.ArgumentError, match="cannot create the folder for programs"):
        cellscan.keep_programs(tmp_path / "file")


def test_the_oldest_programs_go(tmp_path, monkeypatch) -> None:
    import os

    from cellscan.tasks import keeping

    place = tmp_path / "programs"
    place.mkdir(mode=0o700)
    for number in range(5):
        (place / str(number)).write_bytes(bytes(100))
        os.utime(place / str(number), (number, number))
    monkeypatch.setattr(keeping, "LIMIT", 250)
    cellscan.keep_programs(place)
    assert sorted(path.name for path in place.iterdir()) == ["3", "4"]
