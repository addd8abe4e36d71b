"""Results of `predict`: conversion to NumPy arrays of labels, and selection of parts."""

import copy
import pickle

import numpy as np
import pytest
from sklearn import metrics as sk

import cellscan
from cellscan.predictions import Failure, Predictions

P = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
TRUTH = np.array([0, 1, 1, 1])


@pytest.fixture
def preds() -> Predictions:
    failed = (Failure(4, "e.png", "e.png: there is no such file"),)
    labels = P.argmax(1).astype(np.int32)
    return Predictions(
        labels, P, np.arange(4), ("a.png", "b.png", "c.png", "d.png"), failed, ("parasitized", "uninfected"),
        "parasitized", P > 0.25, P[:, 0], P[:, 0] > 0.5,
    )  # fmt: skip


def test_numpy_and_scikit_learn_see_labels(preds) -> None:
    assert np.array_equal(np.asarray(preds), preds.labels)
    assert np.array(preds, float).dtype == float
    assert (preds == TRUTH).mean() == 0.75
    assert (TRUTH == preds).tolist() == (preds == TRUTH.tolist()).tolist() == [True, True, False, True]
    assert (preds != TRUTH).tolist() == [False, False, True, False]
    assert sk.accuracy_score(TRUTH, preds) == 0.75
    assert sk.confusion_matrix(TRUTH, preds).tolist() == [[1, 0], [1, 2]]
    assert sk.f1_score(TRUTH, preds, pos_label=0) == pytest.approx(2 / 3)
    assert np.bincount(preds).tolist() == [2, 2]
    assert (preds == preds).all()


def test_the_array_of_labels_cannot_change_the_predictions(preds) -> None:
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(preds)[0] = 1
    own = np.array(preds)
    own[:] = 1
    assert preds.labels.tolist() == [0, 1, 0, 1]


def test_names_of_classes_compare_as_names(preds) -> None:
    assert (preds == "parasitized").tolist() == [True, False, True, False]
    assert (preds == np.array(preds.label_names)).all()
    assert (preds == preds.label_names).all()
    with pytest.raises(cellscan.ArgumentError, match="'Parasitized' is not a class"):
        _ = preds == "Parasitized"
    with pytest.raises(cellscan.ArgumentError, match="bool"):
        _ = preds == (TRUTH == 0)
    with pytest.raises(cellscan.ArgumentError, match=r"4 predictions compared with labels of.*1 images could not"):
        _ = preds == np.zeros(5)


@pytest.mark.parametrize(
    ("which", "rows"),
    [
        (slice(1, 3), [1, 2]), (slice(None, None, -1), [3, 2, 1, 0]), ([0, -1], [0, 3]), (np.array([2, 2]), [2, 2]),
        (np.array([True, False, False, True]), [0, 3]), ([], []),
    ],
)  # fmt: skip
def test_parts_are_predictions(preds, which, rows) -> None:
    part = preds[which]
    assert part.names == tuple(preds.names[row] for row in rows)
    for name in ("labels", "probabilities", "indices", "label_sets", "novelty", "novel"):
        assert np.array_equal(getattr(part, name), getattr(preds, name)[rows]), name
    assert part.failed == preds.failed
    assert [one.name for one in part] == list(part.names)


def test_one_by_number(preds) -> None:
    assert preds[-1] == preds[np.int64(3)] == preds[3]
    assert preds[3].label_set == ("parasitized", "uninfected")
    with pytest.raises(IndexError, match="no row 4; there are 4 predictions"):
        preds[4]
    with pytest.raises(cellscan.ArgumentError, match="not an index of 4 predictions"):
        preds[0.5]


def test_a_file_is_written_whole_or_not_at_all(preds, tmp_path) -> None:
    preds.to_csv(tmp_path / "a.csv")
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 6
    with pytest.raises(cellscan.CellscanError, match="no folder"):
        preds.to_csv(tmp_path / "no" / "a.csv")


def test_predictions_are_copied_and_pickled(preds) -> None:
    for other in (copy.deepcopy(preds), pickle.loads(pickle.dumps(preds))):
        assert (other == preds).all()
        assert other.rows() == preds.rows()
