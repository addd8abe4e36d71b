"""Validation that leaves out one laboratory at a time."""

import numpy as np
import pytest

import cellscan


@pytest.fixture(scope="module")
def fields() -> cellscan.FieldDataset:
    return cellscan.synthetic_fields(5, seed=0, size=(96, 128)).with_groups(laboratories=["A", "B", "A", "C", "B"])


def test_every_laboratory_is_left_out_once_and_kept_detectors_are_not_trained_again(fields, tmp_path) -> None:
    asked = []

    def train(others: cellscan.FieldDataset) -> cellscan.Detector:
        asked.append(sorted(set(others.laboratories.tolist())))
        return cellscan.Detector(image_size=(96, 128), seed=len(asked))

    study = cellscan.leave_one_laboratory_out(fields, train, checkpoint=tmp_path / "kept", progress=False)
    assert asked == [["B", "C"], ["A", "C"], ["A", "B"]]
    assert study.names == ("A", "B", "C")
    assert [len(report.truth) for report in study] == [2, 2, 1]
    assert [det.card.seed for det in study.detectors] == [1, 2, 3]
    (kept,) = (tmp_path / "kept").glob("1-B-*.safetensors")
    kept.unlink()
    again = cellscan.leave_one_laboratory_out(fields, train, checkpoint=tmp_path / "kept", progress=False)
    assert asked[3:] == [["A", "C"]]
    assert [det.card.seed for det in again.detectors] == [1, 4, 3]
    assert again[0].to_dict() == study[0].to_dict()
    assert study[1:].names == ("B", "C")
    assert study[-1] is study.reports[2]
    new = cellscan.synthetic_fields(6, seed=0, size=(96, 128))[5:].with_groups(laboratories=["C"])
    more = cellscan.concat([fields, new])
    cellscan.leave_one_laboratory_out(more, train, checkpoint=tmp_path / "kept", progress=False)
    assert asked[4:] == [["B", "C"], ["A", "C"]]  # C was left out, so its detector is the same
    lines = str(study).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["A", "B", "C"]
    assert len({len(line) for line in lines[:4]}) == 1
    study.to_csv(tmp_path / "study.csv")
    assert len((tmp_path / "study.csv").read_text().splitlines()) == 1 + 3 * 2


def test_what_cannot_be_left_out_says_why(fields) -> None:
    def train(others: cellscan.FieldDataset) -> cellscan.Detector:
        raise AssertionError("nothing was to be trained")

    with pytest.raises(cellscan.DataError, match="of 1 laboratories \\(A\\)"):
        cellscan.leave_one_laboratory_out(fields.select([0, 2]), train)
    with pytest.raises(cellscan.DataError, match="laboratory is not known"):
        cellscan.leave_one_laboratory_out(cellscan.synthetic_fields(2, seed=0), train)
    with pytest.raises(cellscan.ArgumentError, match="FieldDataset"):
        cellscan.leave_one_laboratory_out(np.zeros(3), train)  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match="train is 3"):
        cellscan.leave_one_laboratory_out(fields, 3)  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match="train returned 5"):
        cellscan.leave_one_laboratory_out(fields, lambda others: 5)  # type: ignore[arg-type, return-value]


def test_errors_are_measured_at_thresholds_that_stay(fields) -> None:
    det = cellscan.Detector(image_size=(96, 128), seed=0)
    det.thresholds = (0.3, 0.2)
    s, f = det.measure_errors(fields, source="here", progress=False)
    rules = det.card.detection
    assert rules is not None
    assert det.thresholds == (0.3, 0.2)
    assert (rules.sensitivity, rules.false_positive_rate) == (s, f)
    assert len(rules.outcomes) == len(fields)
    assert rules.likeness is not None
    assert rules.likeness.source == "here"
    without = cellscan.Classifier(image_size=16, class_names=("a", "b"))
    for call in (det.choose_threshold, det.measure_errors):
        with pytest.raises(cellscan.ArgumentError, match="no positive class"):
            call(fields, classifier=without)
    one = cellscan.Detector(image_size=(96, 128), class_names=("cell",))
    with pytest.raises(cellscan.ArgumentError, match="two classes"):
        one.measure_errors(fields)
