"""`Detector` and `screen`: training, detection, evaluation, saving and errors."""

import copy
import json
import math
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from helpers import random_image
from PIL import Image

import cellscan
from cellscan.confirming import add_evidence, confirm, name_classifier, rules_with
from cellscan.detection.anchors import Anchors
from cellscan.detection.likeness import Likeness
from cellscan.detection.rules import DetectionConfig
from cellscan.detection.tiling import Tiling
from cellscan.evaluate.detection import choose_thresholds, evaluate_detections, measure_errors, once
from cellscan.training.checkpoint import hash_weights

SIZE = (96, 128)


@pytest.fixture(scope="module")
def fields() -> cellscan.FieldDataset:
    return cellscan.synthetic_fields(36, seed=0, size=(192, 256), difficulty="easy")


@pytest.fixture(scope="module")
def trained(fields) -> cellscan.Detector:
    det = cellscan.Detector("retinanet_small", image_size=SIZE, seed=0)
    det.fit(fields, epochs=6, batch_size=4, recipe=cellscan.Recipe(learning_rate=3e-3), progress=False)
    return det


def perfect(fields: cellscan.FieldDataset, *, score: float = 0.9) -> list[cellscan.Detections]:
    found = []
    for one in (fields[index] for index in range(len(fields))):
        real = one.labels >= 0
        scores = np.full(int(real.sum()), score, np.float32)
        size = (one.image.shape[1], one.image.shape[0])
        found.append(
            cellscan.Detections(
                one.name, size, one.boxes[real], one.labels[real], scores, fields.class_names, one.image
            )
        )
    return found


RULES = DetectionConfig(Anchors((8, 16, 32)), (0.5, 0.5))


def test_it_learns_where_cells_are(trained, fields) -> None:
    test = cellscan.synthetic_fields(6, seed=9, size=(192, 256), difficulty="easy")
    report = trained.evaluate(test)
    assert report.ap50_per_class[0] > 0.7
    assert trained.card.detection is not None
    assert trained.card.detection.anchors != Anchors((8, 16, 32))  # fitted
    assert "Research use only" in str(report)
    json.dumps(report.to_dict())


def test_boxes_come_in_the_pixels_of_the_field(trained) -> None:
    image = cellscan.synthetic_fields(1, seed=9, size=(192, 256), difficulty="easy")[0].image
    small = trained.predict(image, score_threshold=0.3)[0]
    large = trained.predict(np.asarray(Image.fromarray(image).resize((512, 384))), score_threshold=0.3)[0]
    assert large.size == (512, 384)
    for box in small.boxes[:5]:
        assert np.abs(large.boxes - 2 * box).max(1).min() < 8
    wide = np.pad(image, ((0, 0), (0, 128), (0, 0)))
    assert trained.predict(wide, score_threshold=0.3)[0].boxes[:, 2].max() <= 384


def test_large_fields_are_cut_into_tiles_and_not_shrunk(trained) -> None:
    image = cellscan.synthetic_fields(1, seed=9, size=(192, 256), difficulty="easy")[0].image
    alone = trained.predict(image, score_threshold=0.3)[0]
    many = np.tile(image, (3, 3, 1))
    cut, given, shrunk = (
        trained.predict(many, cell_diameter=mode, score_threshold=0.3)[0] for mode in ("auto", 50, None)
    )
    for one in (cut, given):
        assert 0.6 < len(one) / (9 * len(alone)) < 1.4  # neighbours stand where a frame was
        assert one.boxes.max() > 500
    assert len(shrunk) < 0.5 * len(cut)
    assert cut.cell_diameter is not None
    assert 40 < cut.cell_diameter < 60
    assert given.cell_diameter == 50
    assert shrunk.cell_diameter is None
    together = trained.predict([image, many, image], cell_diameter=50, score_threshold=0.3)
    assert [len(one) for one in together] == [len(alone), len(given), len(alone)]
    white = trained.predict(np.full((192, 256, 3), 255, np.uint8))[0]
    assert white.cell_diameter is None
    for wrong in (0, -3, "large", float("nan"), True):
        with pytest.raises(cellscan.ArgumentError, match="cell_diameter"):
            trained.predict(image, cell_diameter=wrong)
    with pytest.raises(cellscan.ArgumentError, match="tiles"):
        trained.predict(np.zeros((3000, 4000, 3), np.uint8) + 90, cell_diameter=2)
    with pytest.raises(cellscan.ArgumentError, match="does not contain the diameter"):
        cellscan.Detector(image_size=(64, 64)).predict(image, cell_diameter=50)


def test_both_have_to_say_so() -> None:
    one = perfect(cellscan.synthetic_fields(2, seed=3, size=(576, 768)))[1]
    one = one[~one.cut]
    infected = int((one.labels == 1).sum())
    assert infected > 1

    class Second(cellscan.Classifier):
        answer = 0

        def predict(self, images, **_) -> Any:
            labels = np.full(len(images), self.answer)
            return type("Said", (), {"labels": labels, "probabilities": np.eye(2)[labels]})()

    clf = Second(image_size=16, seed=0)
    both = confirm(one, RULES, clf)
    assert int((both.labels == 1).sum()) == infected
    clf.answer = 1
    none = confirm(one, RULES, clf)
    assert len(none) == len(both)
    assert not none.labels.any()
    assert int((confirm(one, RULES, None).labels == 1).sum()) == infected


def key_of(image: np.ndarray) -> bytes:
    """Return bytes that are the same for all symmetries of an image."""
    return np.sort(image.reshape(-1, 3), 0).tobytes()


class Scorer(cellscan.Classifier):
    """Gives crops of infected cells a high probability, and the others a low one; knows them by their pixels."""

    def __init__(self, table: dict[bytes, float]) -> None:
        super().__init__(image_size=16, class_names=("uninfected", "infected"), positive_class="infected", seed=0)
        self.table = table

    def predict(self, images, **_) -> Any:
        infected = np.array([self.table[key_of(image)] for image in images])
        return type("Said", (), {"probabilities": np.stack([1 - infected, infected], 1), "labels": infected >= 0.5})()


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_the_joint_score_decides_if_its_threshold_was_chosen(scale) -> None:
    one = perfect(cellscan.synthetic_fields(2, seed=3, size=(384, 512)))[1]
    one = one[~one.cut]
    one = replace(one, labels=np.ones(len(one), np.int32), scores=np.linspace(0.06, 0.94, len(one), dtype=np.float32))
    odds = 1 - 0.8 * one.scores.astype(float) - 0.05  # the weaker the detector, the surer the classifier
    clf = Scorer(dict(zip((key_of(crop.image) for crop in one.crops(scale=scale)), odds.tolist(), strict=True)))
    own = replace(RULES, joint_threshold=0.55, measured_with=name_classifier(clf), crop_scale=scale)
    expected = ((one.scores / (1 - one.scores)) ** 2 * odds / (1 - odds)) ** (1 / 3)  # its own score for a cell, too
    joint = add_evidence(one, clf, scale).scores
    assert np.allclose(joint / (1 - joint), expected, rtol=1e-3)
    cells = confirm(one, rules_with(name_classifier(clf), own), clf)
    infected = joint >= 0.55
    assert 0 < infected.sum() < len(one)
    assert (cells.labels == 1).sum() == infected.sum()
    assert len(cells) == (infected | (one.scores >= 0.5)).sum()  # a cell stays one if the classifier disagrees
    both = confirm(one, rules_with(name_classifier(clf), replace(own, measured_with="another")), clf)
    assert (both.labels == 1).sum() == ((one.scores >= 0.5) & (odds >= 0.5)).sum()


@pytest.mark.parametrize("scale", [None, 0.8])
def test_the_joint_threshold_is_chosen_evaluated_and_saved(trained, tmp_path, scale) -> None:
    fields = cellscan.synthetic_fields(8, seed=5, size=(192, 256), difficulty="easy")
    table: dict[bytes, float] = {}
    clf = Scorer(table)
    for found, boxes, labels in zip(
        trained.predict(fields, score_threshold=0.05), fields.boxes, fields.labels, strict=True
    ):
        for crop, box in zip(found.crops(scale=scale or 1.0), found.boxes, strict=True):
            middle = (box[:2] + box[2:]) / 2
            inside = ((boxes[:, :2] < middle) & (middle < boxes[:, 2:])).all(1)
            table[key_of(crop.image)] = 0.9 if (labels[inside] == 1).any() else 0.1
    det = copy.copy(trained)
    with pytest.raises(cellscan.ArgumentError, match="no joint threshold"):
        det.evaluate(fields, classifier=clf)
    det.choose_threshold(fields, classifier=clf, crop_scale=scale)
    rules = det.card.detection
    assert rules is not None
    assert rules.joint_threshold is not None
    assert rules.crop_scale == (scale or 1.0)
    alone, together = det.evaluate(fields), det.evaluate(fields, classifier=clf)
    assert together.ap50_per_class[0] == alone.ap50_per_class[0]
    assert together.ap50_per_class[1] > alone.ap50_per_class[1]
    assert together.detection.thresholds[1] == rules.joint_threshold
    assert together.f1_per_class[1] >= alone.f1_per_class[1]
    det.save(tmp_path / "det.safetensors")
    assert cellscan.Detector.load(tmp_path / "det.safetensors").card.detection == rules
    smear = cellscan.screen(fields, det, classifier=clf)
    assert smear.red_cells == together.found.sum()
    det.thresholds = rules.thresholds
    assert det.card.detection is not None
    assert det.card.detection.joint_threshold is None


def test_a_threshold_can_be_chosen_for_few_false_detections(trained) -> None:
    fields = cellscan.synthetic_fields(8, seed=5, size=(192, 256), difficulty="easy")
    rng = np.random.default_rng(0)
    found = []
    for one in perfect(fields):  # Every cell is called infected; infected ones have higher scores.
        scores = np.clip(rng.normal(0.35 + 0.3 * one.labels, 0.12), 0.06, 0.95).astype(np.float32)
        found.append(replace(one, labels=np.ones(len(one), np.int32), scores=scores))
        found[-1] = replace(
            found[-1], boxes=np.r_[one.boxes, one.boxes[:1]], labels=np.r_[found[-1].labels, np.int32(0)],
            scores=np.r_[scores, np.float32(0.9)],
        )  # fmt: skip
    seen = []
    for largest in (0.005, 0.05, 0.3):
        rules = choose_thresholds(fields, found, RULES, largest)
        cells = [replace(one, labels=one.labels * (one.scores >= rules.thresholds[1])) for one in found]
        called = [cell[(cell.labels == 1) & ~cell.cut] for cell in cells]
        rate = measure_errors(fields, called, rules).false_positive_rate
        assert rate is not None
        assert rate <= largest
        seen.append((rules.thresholds[1], rate))
    assert seen[0][0] > seen[1][0] > seen[2][0]
    assert seen[0][1] < seen[1][1] < seen[2][1]
    for wrong in (0, -0.1, 1.5, "few", True):
        with pytest.raises(cellscan.ArgumentError, match="max_false_positive_rate"):
            copy.copy(trained).choose_threshold(fields, max_false_positive_rate=wrong)
    healthy = fields.drop_classes(["infected"]).add_classes(["infected"])
    chosen = choose_thresholds(healthy, found, RULES, 0.0001).thresholds[1]
    highest = max(one.scores[(one.labels == 1) & ~one.cut].max() for one in found)
    assert chosen > highest  # not one false detection is allowed
    with pytest.raises(cellscan.DataError, match="no box is annotated as 'infected'.*or pass max_false_positive_rate"):
        choose_thresholds(healthy, found, RULES)


def test_everything_that_holds_fields_gives_the_same(trained, tmp_path) -> None:
    fields = cellscan.synthetic_fields(3, seed=9, size=(192, 256), difficulty="easy")
    for index in range(3):
        Image.fromarray(fields[index].image).save(tmp_path / f"{index}.png")
    ways = [
        fields,
        tmp_path,
        [tmp_path / f"{index}.png" for index in range(3)],
        np.stack([fields[index].image for index in range(3)]),
        (Image.fromarray(fields[index].image) for index in range(3)),
        cellscan.load_fields(tmp_path),
    ]
    first = trained.predict(ways[0])
    assert len(first) == 3
    for way in ways[1:]:
        for one, other in zip(first, trained.predict(way), strict=True):
            assert np.array_equal(one.boxes, other.boxes)
            assert np.array_equal(one.labels, other.labels)
    alone = trained.predict(tmp_path / "0.png")[0]  # another batch size
    assert np.allclose(alone.boxes, first[0].boxes, atol=0.01)


def test_one_bad_field_is_told_and_the_rest_goes_on(trained, tmp_path) -> None:
    Image.fromarray(random_image(0, 96, 128)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(cellscan.ImageError, match=r"bad\.png"):
        trained.predict(tmp_path)
    found = trained.predict(tmp_path, on_error="skip")
    assert [failure.name for failure in found.failed] == ["bad.png"]
    assert len(found) == 1


def test_a_saved_detector_finds_the_same(trained, fields, tmp_path) -> None:
    trained.save(tmp_path / "det.safetensors", report=trained.evaluate(fields.select([0])), licence="CC0")
    again = cellscan.Detector.load(tmp_path / "det.safetensors")
    one, other = (det.predict(fields[0].image, score_threshold=0.1)[0] for det in (trained, again))
    assert np.array_equal(one.boxes, other.boxes)
    assert again.card == trained.card or again.card.metrics["report"]["fields"] == 1
    trained.save(tmp_path / "float16.safetensors", dtype="float16")
    narrow = cellscan.Detector.load(tmp_path / "float16.safetensors").predict(fields[0].image, score_threshold=0.3)[0]
    assert (tmp_path / "float16.safetensors").stat().st_size < 0.6 * (tmp_path / "det.safetensors").stat().st_size
    assert abs(len(narrow) - len(trained.predict(fields[0].image, score_threshold=0.3)[0])) <= 2
    with pytest.raises(cellscan.ModelFileError, match=r"Detector\.load"):
        cellscan.Classifier.load(tmp_path / "det.safetensors")
    cellscan.Classifier(image_size=16).save(tmp_path / "clf.safetensors")
    with pytest.raises(cellscan.ModelFileError, match=r"Classifier\.load"):
        cellscan.Detector.load(tmp_path / "clf.safetensors")


def test_a_resumed_training_is_the_same_training(fields, tmp_path) -> None:
    some, recipe = fields.select([0, 1, 2, 3]), cellscan.Recipe(learning_rate=1e-3)

    def fit(det: cellscan.Detector, **options) -> cellscan.History:
        return det.fit(some, validation=some, epochs=2, batch_size=2, recipe=recipe, progress=False, **options)

    whole = cellscan.Detector(image_size=(64, 64), seed=0)
    history = fit(whole)
    assert set(history) >= {"loss", "class_loss", "box_loss", "validation_loss"}
    assert len(history.plot().axes) == 3
    saved = cellscan.Detector(image_size=(64, 64), seed=0)
    fit(saved, checkpoint=tmp_path)
    again = cellscan.Detector(image_size=(64, 64), seed=0)
    assert fit(again, checkpoint=tmp_path, resume=True)["loss"] == history["loss"]  # finished: returns at once
    image = some[0].image
    found = [det.predict(image, score_threshold=0.05)[0].boxes for det in (whole, saved, again)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    with pytest.raises(cellscan.ArgumentError, match="seed was 0 and is 1"):
        fit(cellscan.Detector(image_size=(64, 64), seed=1), checkpoint=tmp_path, resume=True)


def strict(text: str) -> object:
    """Read JSON as RFC 8259 has it, without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_metrics_without_meaning_are_null_and_not_a_number_in_words() -> None:
    boxes = np.array([[10, 10, 40, 40]])
    fields = cellscan.FieldDataset.from_arrays(
        [random_image(0, 100, 100)], [boxes], [[0]], class_names=("red blood cell", "infected")
    )
    found = perfect(fields)
    for report in (
        evaluate_detections(fields, found, RULES),
        evaluate_detections(fields.select([0]), [found[0][[]]], RULES),
        evaluate_detections(fields, found, replace(RULES, sensitivity=float("nan"), false_positive_sd=float("inf"))),
    ):
        plain = strict(json.dumps(report.to_dict()))
        assert isinstance(plain, dict)
        assert plain["ap50_per_class"][1] is None
        assert plain["f1_per_class"][1] is None
        assert plain["rules"]["sensitivity"] is None
        assert plain["rules"]["false_positive_sd"] is None
        assert "nan" not in str(report)
        assert "n/a" in str(report)
    sick = cellscan.FieldDataset.from_arrays(
        [random_image(0, 100, 100)] * 2, [boxes] * 2, [[1], [1]], class_names=("red blood cell", "infected")
    )
    with pytest.raises(cellscan.DataError, match="annotated as 'red blood cell'"):
        choose_thresholds(sick, perfect(sick), RULES)


def test_parts_of_detections_are_like_parts_of_predictions(trained) -> None:
    fields = cellscan.synthetic_fields(3, seed=9, size=(192, 256), difficulty="easy")
    found = trained.predict(["no.png", *(one.image for one in fields)], on_error="skip", score_threshold=0.05)
    assert [failure.name for failure in found.failed] == ["no.png"]
    for which, rows in (
        (slice(1, 3), [1, 2]), ([0, -1], [0, 2]), (np.array([False, True, False]), [1]), ([], [])
    ):  # fmt: skip
        part = found[which]
        assert isinstance(part, cellscan.FieldDetections)
        assert [one is found[row] for one, row in zip(part, rows, strict=True)] == [True] * len(rows)
        assert part.failed == found.failed
    assert found[-1] is found[2]
    with pytest.raises(IndexError):
        found[3]
    one = found[0]
    assert len(one[:2]) == min(2, len(one))
    for which in ([0.5], True, [len(one)], "a"):
        with pytest.raises(cellscan.ArgumentError):
            one[which]


def test_detections_are_written_whole_or_not_at_all(tmp_path, fields) -> None:
    found = cellscan.FieldDetections(tuple(perfect(fields.select([0, 1]))), (), fields.class_names)
    found.to_csv(tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + sum(map(len, found))
    smear = cellscan.screen(fields, Fake(fields.select([0, 1]), 0, 0))
    for write in (found.to_csv, found[0].to_csv, smear.to_csv):
        with pytest.raises(cellscan.CellscanError, match="no folder"):
            write(tmp_path / "no" / "a.csv")


def test_perfect_detections_score_one_and_false_ones_less(fields) -> None:
    some = fields.select(np.arange(8))
    found = perfect(some)
    report = evaluate_detections(some, found, RULES)
    assert math.isclose(report.ap, 1.0, abs_tol=1e-9)
    assert math.isclose(report.ap50, 1.0, abs_tol=1e-9)
    assert report.f1_per_class == (1.0, 1.0)
    assert report.count_error < 0.05  # cells that overlap by more than a half count once
    worse = [one[np.arange(len(one)) % 2 == 0] for one in found]
    half = evaluate_detections(some, worse, RULES)
    assert 0.4 < half.ap50_per_class[0] < 0.6
    assert half.count_error > 0.4
    none = [one[np.zeros(len(one), bool)] for one in found]
    assert evaluate_detections(some, none, RULES).ap50 == 0


def test_ignored_boxes_count_neither_way() -> None:
    boxes = np.array([[10, 10, 40, 40], [60, 60, 90, 90]])
    fields = cellscan.FieldDataset.from_arrays(
        [random_image(0, 100, 100)], [boxes], [np.array([0, -2])], class_names=("cell",)
    )
    both = cellscan.Detections(
        "a", (100, 100), fields.boxes[0], np.zeros(2, np.int32), np.array([0.9, 0.95], np.float32), ("cell",), None
    )
    rules = DetectionConfig(Anchors((8,)), (0.5,))
    for found in (both, both[np.array([0])]):
        report = evaluate_detections(fields, [found], rules)
        assert math.isclose(report.ap, 1.0, abs_tol=1e-9)
        assert report.f1_per_class == (1.0,)
        assert report.truth.tolist() == [1]


def test_ignored_boxes_are_not_what_anchors_are_fitted_to() -> None:
    boxes = np.array([[10, 10, 30, 30], [50, 10, 70, 30], [0, 40, 128, 44], [0, 50, 128, 54], [0, 60, 128, 64]])
    fields = cellscan.FieldDataset.from_arrays(
        [random_image(0, 96, 128)], [boxes], [[0, 0, -2, -2, -2]], class_names=("red blood cell", "infected")
    )
    det = cellscan.Detector(image_size=SIZE, seed=0)
    det.fit(fields, epochs=1, batch_size=1, progress=False)
    assert det.card.detection is not None
    assert det.card.detection.anchors.ratios == (1.0, 1.0, 1.0)


def test_thresholds_of_best_f1_and_the_rates_that_follow(fields) -> None:
    some = fields.select(np.arange(20))
    infected = sum(int((said == 1).sum()) for said in some.labels)
    assert infected >= 4
    found = []
    for number, one in enumerate(perfect(some)):
        scores = np.where(one.labels == 1, 0.4, 0.8).astype(np.float32)
        if number == 0:  # one red cell is called infected, surely
            wrong = np.flatnonzero((one.labels == 0) & ~one.cut)[:1]
            labels = one.labels.copy()
            labels[wrong] = 1
            scores[wrong] = 0.45
            one = cellscan.Detections(one.name, one.size, one.boxes, labels, scores, one.class_names, one.image)
        else:
            one = cellscan.Detections(one.name, one.size, one.boxes, one.labels, scores, one.class_names, one.image)
        found.append(one)
    rules = choose_thresholds(some, found, RULES)
    rules = measure_errors(some, [one[once(one, rules)] for one in found], rules)
    assert rules.thresholds[0] < 0.8
    assert rules.thresholds[1] < 0.4
    red = sum(int(((said == 0) & ~one.cut).sum()) for said, one in zip(some.labels, perfect(some), strict=True))
    assert rules.sensitivity == 1.0
    assert math.isclose(rules.false_positive_rate or 0, 1 / red)


def test_a_cell_that_is_both_is_infected_once() -> None:
    boxes = np.array([[20, 20, 30, 30], [21, 20, 31, 30], [50, 50, 60, 60]], np.float32)
    found = cellscan.Detections(
        "a", (100, 100), boxes, np.array([0, 1, 0], np.int32), np.array([0.9, 0.6, 0.8], np.float32),
        ("red blood cell", "infected"), None,
    )  # fmt: skip
    assert once(found, RULES).tolist() == [False, True, True]
    assert once(found, DetectionConfig(Anchors((8,)), (0.5, 0.7))).tolist() == [True, False, True]


class Fake(cellscan.Detector):
    """A detector that returns the annotated boxes, with the given rates of errors."""

    def __init__(self, fields: cellscan.FieldDataset, miss: float, wrong: float, seed: int = 0) -> None:
        super().__init__(image_size=(64, 64))
        self._truth, self._rates, self._rng = perfect(fields), (miss, wrong), np.random.default_rng(seed)

    def stream(self, images, **_):
        for one in self._truth:
            draw = self._rng.random(len(one))
            labels = np.where(one.labels == 1, draw >= self._rates[0], draw < self._rates[1]).astype(np.int32)
            yield replace(one.with_labels(labels), cell_diameter=50.0, appearance=(0.5,) * 8)


LIKE = Likeness("here", 10, (0.0,) * 8, (1.0,) * 8)
KNOWN = {
    "sensitivity": 0.7, "false_positive_rate": 0.04, "false_positive_sd": 0.05, "likeness": LIKE,
    "outcomes": ((70, 100, 40, 1000),) * 40,
}  # fmt: skip


Kind = TypeVar("Kind", bound=cellscan.Detector)


def with_rules(det: Kind, **rules) -> Kind:
    assert det.card.detection is not None
    det._card = replace(det.card, detection=replace(det.card.detection, **rules))
    return det


def test_screening_corrects_what_was_measured() -> None:
    fields = cellscan.synthetic_fields(20, seed=3, size=(384, 512))
    cells = [replace(one, cell_diameter=50.0) for one in perfect(fields)]
    whole = [one[~one.cut] for one in cells]
    truth = sum(int((one.labels == 1).sum()) for one in whole) / sum(map(len, whole))
    det = Fake(fields, miss=0.3, wrong=0.04)
    plain = cellscan.screen(fields, det, classifier=None)
    assert not plain.corrected
    assert plain.parasitemia is None
    assert plain.interval is None
    assert plain.limit_of_detection is None
    assert str(plain).startswith("Warning: Error rates were not measured")
    smear = cellscan.screen(
        fields, with_rules(det, **KNOWN), classifier=None, minimum_cells=100, red_cells_per_microlitre=5e6
    )
    assert smear.interval is not None
    assert smear.parasitemia is not None
    assert not smear.warnings
    low, high = smear.interval
    assert low <= truth <= high
    assert abs(smear.parasitemia - truth) < abs(plain.apparent - truth) + 0.01
    assert math.isclose(smear.parasitemia, (smear.apparent - 0.04) / 0.66)
    assert smear.enough
    assert smear.per_microlitre == smear.parasitemia * 5e6
    assert smear.red_cells == sum(one.red_cells for one in smear.fields)
    assert smear.limit_of_detection is not None
    assert 0 < smear.limit_of_detection < 0.1
    few = cellscan.screen(fields, det, classifier=None)
    assert not few.enough
    assert few.warnings == ("Not enough cells: fewer than 5,000 red cells; count more fields.",)
    assert str(few).startswith("Warning: Not enough cells")
    assert len(smear.plot().axes) == 4


def test_one_field_gives_no_interval() -> None:
    fields = cellscan.synthetic_fields(3, seed=0, size=(900, 1200))
    smear = cellscan.screen(fields, with_rules(Fake(fields.select([0]), 0, 0), **KNOWN), classifier=None)
    assert smear.interval is None
    assert "(95 % over fields n/a: one field)" in str(smear)
    assert "nan" not in str(smear)
    smear = cellscan.screen(fields, with_rules(Fake(fields, 0, 0), **KNOWN), classifier=None)
    assert smear.interval is not None
    low, high = smear.interval
    assert smear.parasitemia is not None
    assert low <= smear.parasitemia <= high


def test_what_is_not_known_of_errors_widens_the_interval() -> None:
    fields = cellscan.synthetic_fields(40, seed=3, size=(192, 256))
    widths = []
    for outcomes in (((7000, 10000, 4000, 100000),) * 40, ((70, 100, 40, 1000),) * 40, ((7, 10, 4, 100),) * 3):
        det = with_rules(Fake(fields, 0.3, 0.04), **{**KNOWN, "outcomes": outcomes})
        low, high = cellscan.screen(fields, det, classifier=None).interval or (0, 0)
        widths.append(high - low)
    assert widths[0] < 1.2 * widths[1] < widths[2]


def test_claims_need_errors_known_for_fields_like_these() -> None:
    fields = cellscan.synthetic_fields(6, seed=3, size=(480, 640))
    clf = cellscan.Classifier(image_size=16, seed=0)

    def said(options: dict, **rules) -> str:
        det = with_rules(Fake(fields, 0, 0), **{**KNOWN, **rules})
        smear = cellscan.screen(fields, det, minimum_cells=1, **options)
        assert (smear.parasitemia is None) == bool(smear.warnings)
        return " ".join(smear.warnings)

    alone: dict = {"classifier": None}
    before = name_classifier(clf)
    assert said(alone) == ""
    far = replace(LIKE, source="A", low=(0, 0, 0.6, 0, 0, 0, 0.6, 0))
    assert "known from A only; these fields differ in stain and cell size. The apparent" in said(alone, likeness=far)
    assert "does not describe the fields" in said(alone, likeness=None)
    assert "not valid for the classification in this call" in said({"classifier": clf})
    assert "not valid for the classification in this call" in said(alone, measured_with="another")
    assert said({"classifier": clf}, measured_with=name_classifier(clf)) == ""
    assert "as often as infected ones" in said(alone, sensitivity=0.01)
    assert "false-positive rate alone gives" in said(alone, outcomes=((70, 100, 400, 1000),) * 40)
    assert "measured on fewer than two fields" in said(alone, outcomes=((70, 100, 40, 1000),))
    healthy = said(alone, sensitivity=None)
    assert "no annotated cell was infected; 4.00% of the uninfected cells were called infected. The app" in healthy
    assert "than the measured sensitivity of 4.50% permits" in said(alone, sensitivity=0.045)
    nothing = cellscan.screen(fields, with_rules(Fake(fields, 1, 0), **{**KNOWN, "likeness": far}), classifier=None)
    assert nothing.warnings[0].endswith("and cell size. No cell is called infected; infected cells may be missed.")
    clf._card = replace(clf.card, decision=replace(clf.card.decision, temperature=2.0))
    assert "not valid for the classification" in said({"classifier": clf}, measured_with=before)
    clf = cellscan.Classifier(image_size=16, seed=0)
    clf.positive_class = "uninfected"
    assert "not valid for the classification" in said({"classifier": clf}, measured_with=before)


def test_a_claim_tells_which_fields_it_should_not_include(monkeypatch) -> None:
    fields = cellscan.synthetic_fields(6, seed=3, size=(480, 640))
    det = with_rules(Fake(fields, 0, 0), **KNOWN)
    for number, (appearance, diameter) in enumerate([((*(0.5,) * 6, 2.0, 0.5), 50.0), ((np.nan,) * 8, None)]):
        det._truth[number] = replace(det._truth[number], appearance=appearance, cell_diameter=diameter, lit_area=1.0)

    det._truth[2:] = [replace(one, appearance=(0.5,) * 8, cell_diameter=50.0, lit_area=1.0) for one in det._truth[2:]]
    monkeypatch.setattr(det, "stream", lambda images, **_: iter(det._truth))
    smear = cellscan.screen(fields, det, classifier=None, minimum_cells=1)
    assert smear.parasitemia is not None
    assert len(smear.warnings) == 2
    assert smear.warnings[0].startswith("1 of 6 fields, the first 'synthetic_0001.png', show no red cells")
    assert smear.warnings[1].startswith("2 of 6 fields differ from those of here")


def test_a_field_that_occurs_twice_gives_no_claim() -> None:
    fields = cellscan.synthetic_fields(6, seed=3, size=(480, 640))
    det = with_rules(Fake(fields, 0, 0), **KNOWN)
    det._truth.append(replace(det._truth[2], name="copy.png"))
    smear = cellscan.screen(fields, det, classifier=None, minimum_cells=1)
    assert (smear.parasitemia, smear.interval, smear.limit_of_detection) == (None, None, None)
    assert smear.warnings[0].startswith("No claim: 1 of 7 fields, the first 'copy.png', have the same pixels")
    table = cellscan.screen("a folder", det, classifier=None, minimum_cells=1, by=["a"] * 6 + ["b"])
    first = table[0]
    assert first is not None
    assert first.parasitemia is not None


def test_fields_of_several_patients_are_not_pooled_without_a_word() -> None:
    fields = cellscan.synthetic_fields(6, seed=3, size=(480, 640)).with_groups(patients=["a", "b"] * 3)
    det = with_rules(Fake(fields, 0, 0), **KNOWN)
    (warning,) = cellscan.screen(fields, det, classifier=None, minimum_cells=1).warnings
    assert warning == 'The fields are of 2 patients, counted together; for a report of each, pass by="patient".'
    reports = cellscan.screen(fields, det, classifier=None, minimum_cells=1, by="patient")
    assert [report.warnings for report in reports if report is not None] == [(), ()]


def screen_counts(infected: int, red: int, count: int, **rules) -> cellscan.SmearReport:
    """Return the report of `count` fields, each with so many red and infected cells, at most 400."""
    x, y = np.mgrid[:20, :20].reshape(2, -1)[:, :red].astype(np.float32) * 10
    images = [np.full((220, 220, 3), number, np.uint8) for number in range(count)]
    boxes, labels = np.stack([x, y, x + 9, y + 9], 1) + 10, (np.arange(red) < infected).astype(int)
    names = ("red blood cell", "infected")
    fields = cellscan.FieldDataset.from_arrays(images, [boxes] * count, [labels] * count, class_names=names)
    det = with_rules(Fake(fields, 0, 0), **{**KNOWN, "false_positive_sd": 0.0, **rules})
    return cellscan.screen(fields, det, classifier=None, minimum_cells=1)


@pytest.mark.parametrize("infected", [0, 1])
def test_an_interval_is_as_wide_as_the_counts_permit(infected) -> None:
    """The expected intervals are those of Jeffreys for 0 and for 3 of 300 cells, divided by the sensitivity."""
    smear = screen_counts(infected, 100, 3, false_positive_rate=0.0, outcomes=((70, 100, 0, 1000),) * 40)
    assert smear.parasitemia == pytest.approx(infected / 100 / 0.7)
    assert smear.interval == pytest.approx(np.array([(0.0, 0.0083), (0.0029, 0.0264)][infected]) / 0.7, abs=0.002)
    assert smear.limit_of_detection == pytest.approx(1 / 300 / 0.7)


def test_rates_that_may_be_equal_do_not_limit_the_parasitemia() -> None:
    rates: dict = {"sensitivity": 0.25, "false_positive_rate": 0.2, "outcomes": ((1, 4, 20, 100),) * 2}
    smear = screen_counts(22, 100, 10, **rates)
    assert smear.interval == (0.0, 1.0)
    assert smear.limit_of_detection == 1.0


def test_the_limit_of_detection_includes_the_uncertainty_of_the_false_positive_rate() -> None:
    few, many = (
        screen_counts(40, 400, 9, outcomes=outcomes).limit_of_detection
        for outcomes in (((7, 10, 4, 100),) * 2, ((7000, 10000, 400000, 10000000),) * 2)
    )
    noise = math.sqrt(0.04 * 0.96 / 3600)
    assert many == pytest.approx(2 * noise / 0.66, rel=0.01)
    assert few == pytest.approx(2 * math.hypot(noise, math.sqrt(0.0425 * 0.9575 / 201)) / 0.66, rel=0.1)


def test_training_loses_what_was_measured_and_keeps_the_size_of_crops(fields) -> None:
    kept = {"crop_scale": 0.8, "max_detections": 50, "iou_threshold": 0.4}
    measured = {"thresholds": (0.2, 0.3), "joint_threshold": 0.6, "measured_with": "one"}
    det = with_rules(cellscan.Detector(image_size=(64, 64)), **KNOWN, **measured, **kept)
    det.fit(fields, epochs=1, batch_size=2, progress=False)
    rules = det.card.detection
    assert rules is not None
    assert rules == DetectionConfig(rules.anchors, (0.5, 0.5), cell_diameter=rules.cell_diameter, **kept)


def test_another_diameter_of_the_training_cells_loses_the_error_rates(fields) -> None:
    det = with_rules(cellscan.Detector(image_size=(64, 64)), **KNOWN)
    diameter = det.learn_diameter(fields)
    assert det.card.detection is not None
    assert det.card.detection.sensitivity is None
    assert not det.card.detection.outcomes
    with_rules(det, **KNOWN)
    assert det.learn_diameter(fields) == diameter
    assert det.card.detection is not None
    assert det.card.detection.sensitivity == 0.7


def test_a_field_of_too_many_tiles_can_be_skipped(fields, monkeypatch) -> None:
    det = with_rules(cellscan.Detector(image_size=(64, 64)), cell_diameter=45.0)
    monkeypatch.setattr("cellscan.detector.measure_diameter", lambda *_: (2.0, 0.0))
    image = np.full((1500, 2000, 3), 200, np.uint8)
    (failure,) = det.predict(image, on_error="skip", progress=False).failed
    assert "expected at most 1,000" in failure.reason
    with pytest.raises(cellscan.ImageError, match="image 0: cells of 2 pixels"):
        det.predict(image, progress=False)
    with pytest.raises(cellscan.ArgumentError, match="cells of 2 pixels"):
        det.predict(image, cell_diameter=2, progress=False)


def test_a_call_hashes_the_weights_of_its_classifier_once(monkeypatch) -> None:
    fields = cellscan.synthetic_fields(6, seed=3, size=(192, 256))
    det, clf, calls = Fake(fields, 0, 0), cellscan.Classifier(image_size=16, seed=0), []

    def counted(weights) -> str:
        calls.append(1)
        return hash_weights(weights)

    monkeypatch.setattr("cellscan.classifier.hash_weights", counted)
    assert cellscan.screen(fields, det, classifier=clf).red_cells
    assert len(calls) == 1
    det.choose_threshold(fields, classifier=clf, progress=False)
    assert len(calls) == 2
    det.measure_errors(fields, classifier=clf, progress=False)
    assert len(calls) == 3
    assert det.card.detection is not None
    assert det.card.detection.measured_with == name_classifier(clf)


def test_a_failed_field_moves_no_other_to_another_smear(trained, tmp_path) -> None:
    fields = cellscan.synthetic_fields(4, seed=9, size=(192, 256), difficulty="easy")
    for index in range(4):
        Image.fromarray(fields[index].image).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes(b"nothing")
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    table = cellscan.screen(paths, trained, classifier=None, by=["a", "a", "b", "b"], on_error="skip")
    assert [[one.name[-5:] for one in report.fields] for report in table if report is not None] == [
        ["0.png"],
        ["2.png", "3.png"],
    ]
    first = table[0]
    assert first is not None
    assert "1.png" in first.warnings[-1]
    assert [row[:3] for row in first.rows()[2:]] == [[str(paths[1]), "", ""]]
    assert first.rows()[2][3] == first.failed[0].reason


def test_many_smears_are_a_table(tmp_path) -> None:
    fields = cellscan.synthetic_fields(9, seed=3, size=(192, 256))
    slides = ["a", "b", "c"] * 3
    names = fields.names.tolist()
    det = with_rules(Fake(fields, 0, 0), **KNOWN)
    tables = [
        cellscan.screen(fields, det, classifier=None, by=by)
        for by in (slides, dict(zip(names, slides, strict=True)), lambda name: slides[names.index(name)])
    ]
    for table in tables:
        assert table.names == ("a", "b", "c")
        assert [len(one.fields) for one in table if one is not None] == [3, 3, 3]
        assert str(table) == str(tables[0])
    tables[0].to_csv(tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 4
    assert len(tables[0].plot().axes) == 1
    assert str(cellscan.screen(fields.with_groups(slides=slides), det, classifier=None, by="slide")) == str(tables[0])
    with pytest.raises(cellscan.DataError, match="its slide is not known"):
        cellscan.screen(fields, det, classifier=None, by="slide")
    with pytest.raises(cellscan.ArgumentError, match="requires a FieldDataset"):
        cellscan.screen([one.image for one in fields], det, classifier=None, by="slide")
    with pytest.raises(cellscan.ArgumentError, match="2 entries"):
        cellscan.screen(fields, det, classifier=None, by=["a", "b"])
    with pytest.raises(cellscan.DataError, match="no entry"):
        cellscan.screen(fields, det, classifier=None, by={})
    for missing in (None, float("nan"), ""):
        listed: Any = ["a"] * 8 + [missing]
        with pytest.raises(cellscan.DataError, match="expected the name of its smear"):
            cellscan.screen(fields, det, classifier=None, by=listed)
    det._truth.pop()
    with pytest.raises(cellscan.ArgumentError, match="by has 9 entries for fewer fields"):
        cellscan.screen("a folder", det, classifier=None, by=slides)
    det._truth.clear()
    with pytest.raises(cellscan.DataError, match="there are no fields"):
        cellscan.screen([], det, classifier=None, by=[])


def test_the_folders_of_a_study_are_smears(fields, trained, tmp_path) -> None:
    paths = [tmp_path / name for name in ("a/1.png", "a/2.png", "b/1.png", "c.png")]
    for path, one in zip(paths, fields, strict=False):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(one.image).save(path)
    table = cellscan.screen(tmp_path, trained, classifier=None, by="folder")
    assert sorted(table.names) == [".", "a", "b"]
    listed = cellscan.screen(paths[:3], trained, classifier=None, by="folder")
    assert listed.names == ((tmp_path / "a").as_posix(), (tmp_path / "b").as_posix())
    with pytest.raises(cellscan.DataError, match="no folder in its name; pass paths"):
        cellscan.screen([one.image for one in fields], trained, classifier=None, by="folder")


def test_what_screening_refuses(fields, trained) -> None:
    for options in (
        {"minimum_cells": 0}, {"minimum_cells": "a"}, {"red_cells_per_microlitre": -1},
        {"red_cells_per_microlitre": float("nan")}, {"red_cells_per_microlitre": "5e6"}, {"seed": -1}, {"seed": None},
    ):  # fmt: skip
        with pytest.raises(cellscan.ArgumentError, match="expected"):
            cellscan.screen(fields, trained, classifier=None, **options)  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match=r"expected a cellscan\.Detector"):
        cellscan.screen(fields, cellscan.Classifier(image_size=32))  # type: ignore[call-overload]
    with pytest.raises(cellscan.ArgumentError, match=r"expected a cellscan\.Classifier"):
        cellscan.screen(fields, trained, classifier="other")
    with pytest.raises(cellscan.DataError, match="none of the 2 fields could be read"):
        cellscan.screen(["no.png", "none.png"], trained, classifier=None, on_error="skip")


def test_a_smear_is_refused_if_most_detections_lie_on_empty_background(monkeypatch) -> None:
    image = np.full((384, 512, 3), 220, np.uint8)
    truth = cellscan.synthetic_fields(1, seed=0, size=(192, 256))
    image[:192, :256] = truth[0].image
    cells = truth.boxes[0]
    empty = np.array([[x, y, x + 40, y + 40] for x in range(260, 460, 20) for y in range(200, 340, 20)], np.float32)
    boxes = np.concatenate([cells, empty, empty])
    scores = np.repeat(np.array([0.9, 0.8, 0.1], np.float32), [len(cells), len(empty), len(empty)])
    rows = np.concatenate([boxes, scores[:, None], np.zeros((len(boxes), 1))], 1).astype(np.float32)
    monkeypatch.setattr(Tiling, "merge", lambda *_: rows)
    det = cellscan.Detector(image_size=(64, 64))
    for threshold in (None, 0.05, 0.85):  # The share is that of the detector's own thresholds.
        (found,) = det.predict(image, score_threshold=threshold, progress=False)
        assert found.on_background == pytest.approx(len(empty) / (len(cells) + len(empty)))
    with pytest.raises(cellscan.DataError, match="detected cells lie on empty background"):
        cellscan.screen(image, det, classifier=None, progress=False)
    # If they are at most half of all, they are left out.
    rows = rows[rows[:, 4] > 0.5][: 2 * len(cells)]
    (found,) = det.predict(image, progress=False)
    assert found.on_background == 0.5
    np.testing.assert_array_equal(found.boxes, cells)
    rows = rows[: len(cells)]
    assert det.predict(image, progress=False)[0].on_background == 0


def test_what_is_refused(fields, trained) -> None:
    for size in ((32, 64), 64, (64,), ("a", "b")):
        with pytest.raises(cellscan.ArgumentError, match="image_size"):
            cellscan.Detector(image_size=size)  # type: ignore[arg-type]
    det = cellscan.Detector(image_size=(64, 64), class_names=fields.class_names)
    with pytest.raises(cellscan.ArgumentError, match="mixup is for classifiers"):
        det.fit(fields, recipe=cellscan.Recipe(mixup=0.2))
    with pytest.raises(cellscan.ArgumentError, match="expected a FieldDataset"):
        det.fit(cellscan.synthetic_cells(8))  # type: ignore[arg-type]
    empty = cellscan.FieldDataset.from_arrays(
        [random_image()], [np.zeros((0, 4))], [np.zeros(0)], class_names=("red blood cell",)
    )
    with pytest.raises(cellscan.DataError, match="no boxes with a class"):
        det.fit(empty)
    other = cellscan.FieldDataset.from_arrays(
        [random_image()], [np.array([[1, 1, 9, 9]])], [np.array([0])], class_names=("WBC",)
    )
    with pytest.raises(cellscan.DataError, match="has the class WBC"):
        det.fit(other)
    names, healthy = fields.class_names, np.zeros(len(fields.boxes[0]), int)
    well = cellscan.FieldDataset.from_arrays([fields[0].image], [fields.boxes[0]], [healthy], class_names=names)
    with pytest.raises(cellscan.DataError, match="annotated as 'infected'"):
        trained.choose_threshold(well)
    with pytest.raises(cellscan.ArgumentError, match="two classes"):
        cellscan.screen(fields, cellscan.Detector(class_names=("a", "b", "c"), image_size=(64, 64)))
    with pytest.raises(cellscan.DataError, match="no whole cell was found"):
        cellscan.screen(random_image(0, 64, 64), det, classifier=None)
    with pytest.raises(cellscan.ArgumentError, match="thresholds"):
        det.thresholds = (0.5, 1.5)


def test_what_was_detected_is_cut_from_the_image_that_was_seen(trained, fields, tmp_path) -> None:
    """A loop over a camera may write every picture to one file."""
    path = tmp_path / "frame.png"

    def frames():
        for number in range(2):
            Image.fromarray(fields[number].image).save(path)
            yield path

    first, last = trained.predict(frames(), score_threshold=0.05)
    assert np.array_equal(last.pixels(), fields[1].image)
    with pytest.raises(cellscan.ImageError, match="has changed since"):
        first.crops()


def test_crops_show_a_part_of_their_boxes() -> None:
    found = perfect(cellscan.synthetic_fields(1, seed=3, size=(192, 256)))[0]
    found = replace(
        found,
        boxes=np.array([[10, 20, 30, 60], [0, 0, 1, 1]], np.float32),
        labels=found.labels[:2],
        scores=found.scores[:2],
    )
    small, tiny = found.crops(scale=0.5)
    assert np.array_equal(small.image, found.pixels()[30:50, 15:25])
    assert tiny.image.shape == (1, 1, 3)
    for wrong in (0, 1.1, float("nan")):
        with pytest.raises(cellscan.ArgumentError, match="scale"):
            found.crops(scale=wrong)


def test_detections_of_a_file_are_saved_with_the_file_itself(trained, fields, tmp_path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(fields[0].image).save(path)
    found = trained.predict([path], score_threshold=0.05)
    found.save(tmp_path / "set", format="coco")
    (copy,) = (tmp_path / "set").rglob("a.jpg")
    assert copy.read_bytes() == path.read_bytes()
    Image.fromarray(fields[1].image).save(path)
    with pytest.raises(cellscan.ImageError, match="has changed since"):
        found.save(tmp_path / "other", format="coco")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("names", [("healthy", "ring"), ("cell", "ring", "platelet")])
def test_the_first_fit_takes_the_classes_of_its_set(names) -> None:
    fields = cellscan.synthetic_fields(2, seed=0, size=(96, 96))
    fields = fields.rename_classes({"red blood cell": names[0], "infected": names[1]})
    fields = fields.add_classes(names[2:]) if names[2:] else fields
    det = cellscan.Detector("retinanet_small", image_size=(64, 64), seed=0)
    det.fit(fields, epochs=1, batch_size=2, progress=False)
    assert det.class_names == names
    assert det.thresholds == (0.5,) * len(names)
    assert det.card.positive_class == ("ring" if len(names) == 2 else None)
    assert len(det.predict(fields, progress=False)) == 2
    with pytest.raises(cellscan.DataError, match="classes of this detector are"):
        det.fit(fields.rename_classes({names[0]: "other"}), epochs=1, progress=False)
