"""Anchors, matching, losses and suppression, each beside an independent reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cellscan
from cellscan.data.shapes import NOT_ANNOTATED
from cellscan.detection.anchors import SCALES, Anchors, decode, encode, fit_anchors, overlaps
from cellscan.detection.suppression import select, suppress
from cellscan.detection.targets import detection_loss, focal_loss, match, smooth_l1
from cellscan.tasks.augment import augment_fields

SEEDS = st.integers(0, 10_000)


def random_boxes(rng: np.random.Generator, count: int, side: float = 100) -> np.ndarray:
    corner = rng.uniform(0, side, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], 1).astype(np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared)


def test_anchors_by_hand() -> None:
    boxes = Anchors((8, 16), size=32.0, ratios=(0.25, 1.0)).boxes(16, 24)
    assert len(boxes) == 6 * (2 * 3 + 1 * 2)  # 2 x 3 places of stride 8, 1 x 2 of stride 16
    # The first place is the middle of the first eight pixels; ratio 1/4 makes 32 px of area 64 x 16.
    assert boxes[0].tolist() == [4 - 32, 4 - 8, 4 + 32, 4 + 8]
    assert boxes[1].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]
    for row, scale in ((3, 1.259921), (5, 1.587401)):  # an octave in three steps
        half = 16 * scale
        assert np.allclose(boxes[row], [4 - half, 4 - half, 4 + half, 4 + half])
    assert boxes[6].tolist() == [12 - 32, 4 - 8, 12 + 32, 4 + 8]  # one place to the right
    assert boxes[36].tolist() == [8 - 64, 8 - 16, 8 + 64, 8 + 16]  # the next level: twice the size
    assert boxes.dtype == np.float32


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_what_is_encoded_is_decoded(seed) -> None:
    rng = np.random.default_rng(seed)
    boxes, anchors = random_boxes(rng, 8), random_boxes(rng, 8)
    assert np.allclose(decode(encode(jnp.asarray(boxes), jnp.asarray(anchors)), jnp.asarray(anchors)), boxes, atol=1e-2)
    assert np.isfinite(decode(jnp.full((1, 4), 1e4), jnp.asarray(anchors[:1]))).all()


def test_anchors_are_fitted_to_boxes() -> None:
    rng = np.random.default_rng(0)
    side = rng.normal(31, 2, (200, 1))
    boxes = np.concatenate([np.zeros((200, 2)), side, side * 1.1], 1)
    anchors = fit_anchors(boxes, (8, 16, 32))
    best = np.asarray(overlaps(jnp.asarray(boxes, jnp.float32), jnp.asarray(_centred(anchors)))).max(1)
    plain = np.asarray(overlaps(jnp.asarray(boxes, jnp.float32), jnp.asarray(_centred(Anchors((8, 16, 32)))))).max(1)
    assert best.mean() > 0.9
    assert best.mean() > plain.mean()
    with pytest.raises(cellscan.ArgumentError, match="no boxes"):
        fit_anchors(np.zeros((0, 4)), (8,))


def squares(*sides: float) -> np.ndarray:
    return np.array([[3, 5, 3 + side, 5 + side] for side in sides])


def test_the_size_of_anchors_is_the_best_in_an_octave() -> None:
    top = SCALES[-1]
    assert fit_anchors(squares(20), (8,)).size == 20  # 2.5 strides
    assert fit_anchors(squares(40 * top), (8,)).size == 40
    assert fit_anchors(squares(15), (8,)).size == 20
    assert fit_anchors(squares(500), (8,)).size == 40
    assert fit_anchors(squares(80 * top), (8, 16)).size == 40  # the second level has twice the size
    sides = np.random.default_rng(0).normal(33, 1.5, 300)
    grid = np.linspace(20, 40, 500)
    ratio = grid[:, None, None] * np.array(SCALES) / sides[:, None]
    mean = (np.minimum(ratio, 1 / ratio) ** 2).max(-1).mean(-1)  # IoU of two squares with the same middle
    found = fit_anchors(squares(*sides), (8,)).size
    assert np.interp(found, grid, mean) > mean.max() - 0.01
    assert found == round(found, 2)


def test_large_boxes_have_the_anchors_of_a_higher_level() -> None:
    size = fit_anchors(np.array([[0, 0, 110, 110]]), (8, 16, 32)).size
    sides = [size * 2**level * scale for level in range(3) for scale in SCALES]
    assert min(abs(side - 110) for side in sides) < 2


def test_the_ratios_of_anchors_are_percentiles() -> None:
    heights = 30 * np.geomspace(0.5, 2, 101)
    boxes = np.stack([np.full(101, 7.0), np.full(101, 9.0), np.full(101, 37.0), 9 + heights], 1)
    ratios = fit_anchors(boxes, (8, 16)).ratios
    assert ratios == tuple(round(2.0**power, 3) for power in (-0.8, 0, 0.8))  # the 10th, 50th and 90th


def test_limits_of_codes_and_boxes_without_area() -> None:
    anchor = jnp.asarray([[0.0, 0, 16, 32]])
    decoded = np.asarray(decode(jnp.asarray([[0.0, 0, 9, 9]]), anchor))[0]
    assert np.allclose(decoded, [8 - 500, 16 - 1000, 8 + 500, 16 + 1000], rtol=1e-4)
    assert np.allclose(encode(jnp.asarray([[8.0, 16, 8, 16]]), anchor), [[0, 0, *np.log([1e-3 / 16, 1e-3 / 32])]])
    boxes = jnp.asarray([[0.0, 0, 0, 0], [5, 5, 5, 9], [4, 4, 2, 2], [0, 0, 10, 10]])
    assert np.asarray(overlaps(boxes, boxes)).tolist() == np.diag([0.0, 0, 0, 1]).tolist()
    narrow = jnp.asarray([[2.0, 7, 2.5, 9], [2, 7, 4, 7.5]])  # sides below one pixel
    assert np.allclose(overlaps(narrow, narrow), [[1, 1 / 7], [1 / 7, 1]])


def _centred(anchors: Anchors) -> np.ndarray:
    boxes = anchors.boxes(1, 1)
    return boxes - np.tile(boxes[:, :2], 2)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(0, 12), st.integers(0, 3))
def test_matching_beside_brute_force(seed, count, ignored) -> None:
    rng = np.random.default_rng(seed)
    anchors = random_boxes(rng, 60)
    boxes = np.zeros((16, 4), np.float32)
    labels = np.full(16, -1)
    boxes[: count + ignored] = random_boxes(rng, count + ignored)
    labels[:count] = rng.integers(0, 3, count)
    labels[count : count + ignored] = -2
    said, rows = jax.jit(match)(jnp.asarray(anchors), jnp.asarray(boxes), jnp.asarray(labels))
    table = np.array([[iou(a, b) for b in boxes[:count]] for a in anchors]).reshape(60, count)
    forced = {int(table[:, k].argmax()) for k in range(count) if table[:, k].max() > 0}
    for a in range(60):
        best = table[a].max() if count else 0.0
        if best >= 0.5:
            assert said[a] == labels[table[a].argmax()]
            assert rows[a] == table[a].argmax()
        elif a in forced:
            assert said[a] >= 0
            assert table[:, int(rows[a])].argmax() == a
            assert said[a] == labels[int(rows[a])]
        elif best >= 0.4:
            assert said[a] == -2
        else:
            inside = [_share(anchors[a], b) for b in boxes[count : count + ignored]]
            assert said[a] == (-2 if max(inside, default=0) > 0.5 else -1)
    assert {k for k in range(count) if table[:, k].max() > 0} >= set(np.asarray(rows)[np.asarray(said) >= 0].tolist())


def test_matching_at_its_thresholds() -> None:
    """Beside its best anchor, a box has anchors with an IoU of 0.5, 0.4 and below."""
    anchors = jnp.asarray([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 25], [0, 0, 10, 26], [50, 0, 60, 10]])
    boxes, labels = jnp.asarray([[0.0, 0, 10, 10], [55, 0, 99, 10]]), jnp.asarray([3, -2])
    said, rows = match(anchors, boxes, labels)
    assert said.tolist() == [3, 3, -2, -1, -1]  # the last lies in an ignored box by half, not by more
    assert rows[:2].tolist() == [0, 0]
    far, _ = match(anchors[1:], jnp.asarray([[0.0, 0, 2, 2], [80, 80, 90, 90]]), jnp.asarray([1, 1]))
    assert far.tolist() == [1, -1, -1, -1]  # the best anchor, although it is a bad one; none without any overlap


def _share(anchor: np.ndarray, box: np.ndarray) -> float:
    sides = np.minimum(anchor[2:], box[2:]) - np.maximum(anchor[:2], box[:2])
    return float(np.prod(np.maximum(sides, 0)) / np.prod(anchor[2:] - anchor[:2]))


def test_focal_loss_is_optax_and_smooth_l1_is_hubers() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 4, (50, 3)).astype(np.float32), rng.integers(0, 2, (50, 3)).astype(np.float32)
    theirs = optax.losses.sigmoid_focal_loss(jnp.asarray(logits), jnp.asarray(targets), alpha=0.25, gamma=2.0)
    assert np.allclose(focal_loss(jnp.asarray(logits), jnp.asarray(targets)), theirs, atol=1e-5)
    off = jnp.asarray(rng.normal(0, 1, 50), jnp.float32)
    assert np.allclose(smooth_l1(off), optax.losses.huber_loss(off, delta=1 / 9) * 9, atol=1e-5)


def test_the_loss_of_a_batch_by_hand() -> None:
    anchors = jnp.asarray([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    targets = np.full((1, 2, 5), -1.0, np.float32)
    targets[0, 0] = [0, 0, 10, 10, 1]
    outputs = {"classes": jnp.zeros((1, 2, 2)), "boxes": jnp.zeros((1, 2, 4)).at[0, 0, 0].set(1.0)}
    loss, parts = detection_loss(outputs, anchors, jnp.asarray(targets))
    entropy = np.log(2) / 4
    assert np.isclose(parts["class_loss"], 0.25 * entropy + 3 * 0.75 * entropy, atol=1e-5)
    assert np.isclose(parts["box_loss"], 1 - 1 / 18, atol=1e-5)
    assert np.isclose(loss, parts["class_loss"] + parts["box_loss"])
    twice = {name: jnp.concatenate([part, part]) for name, part in outputs.items()}
    _, of_two = detection_loss(twice, anchors, jnp.asarray(np.concatenate([targets, targets])))
    for name, part in parts.items():  # divided by the number of positive anchors
        assert np.isclose(of_two[name], part)
    empty, _ = detection_loss(outputs, anchors, jnp.full((1, 2, 5), -1.0))  # a field without a box
    assert np.isfinite(empty)


def test_the_loss_of_background_in_which_a_class_is_not_annotated() -> None:
    anchors = jnp.asarray([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    targets = np.full((1, 4, 5), -1.0, np.float32)
    targets[0, 0] = [0, 0, 10, 10, 0]
    targets[0, 2, 4] = NOT_ANNOTATED - 1
    outputs = {"classes": jnp.zeros((1, 2, 3)), "boxes": jnp.ones((1, 2, 4))}
    _, parts = detection_loss(outputs, anchors, jnp.asarray(targets))
    # The positive anchor has three classes; the background has classes 0 and 2 only.
    assert np.isclose(parts["class_loss"], (0.25 + (2 + 2) * 0.75) * np.log(2) / 4, atol=1e-5)
    assert np.isclose(parts["box_loss"], 4 * (1 - 1 / 18), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 60), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_beside_brute_force(seed, count, overlap) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 60), np.zeros(60, np.float32)
    scores[:count] = rng.permutation(count) + 1  # no ties
    found = _suppress(overlap)(jnp.asarray(boxes), jnp.asarray(scores))
    left, kept = [int(row) for row in np.argsort(-scores) if scores[row] > 0], []
    while left:
        kept.append(left.pop(0))
        left = [row for row in left if iou(boxes[kept[-1]], boxes[row]) <= overlap]
    assert found.tolist() == (kept + [-1] * 40)[:40]


@functools.lru_cache
def _suppress(overlap: float):
    return jax.jit(functools.partial(suppress, iou_threshold=overlap, max_detections=40))


def test_suppression_at_its_thresholds() -> None:
    boxes = jnp.asarray([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 9]])
    scores = jnp.asarray([0.9, 0.8, 0.7])
    assert suppress(boxes, scores, iou_threshold=0.5, max_detections=3).tolist() == [0, 1, -1]  # an IoU of 0.5 stays
    assert suppress(boxes, scores, iou_threshold=0.95, max_detections=2).tolist() == [0, 1]
    thin = jnp.asarray([[0.0, 0, 1, 100], [50, 0, 51, 100], [100, 0, 200, 1], [100, 50, 200, 51]])
    assert suppress(thin, jnp.ones(4), iou_threshold=0.1, max_detections=4).tolist() == [0, 1, 2, 3]
    apart = jnp.asarray([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])

    def chosen(classes, boxes, score_threshold, candidates, iou_threshold=0.5) -> np.ndarray:
        rules = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
        return np.asarray(select(classes, boxes, **rules, candidates=candidates, max_detections=3))

    assert np.allclose(chosen(scores[:, None], apart, 0.8, 9)[:, 4], [0.9, 0.8, 0])  # equal to the threshold counts
    assert np.allclose(chosen(scores[:, None], apart, 0.1, 2)[:, 4], [0.9, 0.8, 0])
    for shift in (-200.0, -5.0, 0.0, 300.0):  # classes stay apart wherever the boxes lie
        found = chosen(jnp.asarray([[0.9, 0.8]]), apart[:1] + shift, 0.1, 9, 0.01)
        assert found[:, 5].tolist() == [0, 1, 0]
        assert (found[:2, :4] == np.asarray(apart[0] + shift)).all()


def test_classes_are_suppressed_apart() -> None:
    boxes = jnp.asarray([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])
    classes = jnp.asarray([[0.9, 0.0], [0.8, 0.7], [0.02, 0.3]])
    found = np.asarray(select(classes, boxes, score_threshold=0.05, iou_threshold=0.5, candidates=6, max_detections=5))
    assert found[:, 5].tolist()[:3] == [0, 1, 1]
    assert np.allclose(found[:3, 4], [0.9, 0.7, 0.3])
    assert found[0, :4].tolist() == [0, 0, 10, 10]
    assert (found[3:] == 0).all()


def test_in_a_crowd_no_cell_is_crowded_out() -> None:
    from cellscan.tasks.detection import CANDIDATES

    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:15, 0:20] * 40.0
    corner = np.repeat(np.c_[x.ravel(), y.ravel()], 30, 0)  # 300 cells, thirty anchors about each
    corner = corner + rng.uniform(-2, 2, corner.shape)
    boxes = np.concatenate([corner, corner + 30], 1).astype(np.float32)
    scores = np.repeat(np.linspace(0.99, 0.06, 300), 30).astype(np.float32)
    found = np.asarray(
        select(
            jnp.asarray(scores[:, None]),
            jnp.asarray(boxes),
            score_threshold=0.05,
            iou_threshold=0.5,
            candidates=CANDIDATES,
            max_detections=400,
        )
    )
    assert (found[:, 4] > 0).sum() == 300


@pytest.mark.parametrize("name", ["none", "small", "strong"])
def test_boxes_move_with_the_image(name) -> None:
    image = np.zeros((8, 60, 80, 3), np.float32)
    image[:, 10:30, 40:70] = 1.0
    targets = np.full((8, 3, 5), -1, np.float32)
    targets[:, :, :4] = 0
    targets[:, 0] = [40, 10, 70, 30, 1]
    images, moved = jax.jit(functools.partial(augment_fields, name))(
        jax.random.key(2), jnp.asarray(image), jnp.asarray(targets)
    )
    assert images.shape == image.shape
    assert (moved[:, 1:, 4] == -1).all()
    places = set()
    for one, (left, top, right, bottom, label) in zip(np.asarray(images), np.asarray(moved[:, 0]), strict=True):
        bright = one.max(-1) > 0.5 * one.max()
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(found - np.array([left, top, right, bottom])).max() < 1.6
        assert label == 1 or (name == "strong" and (right - left) * (bottom - top) < 0.5 * 600 * (4 / 3) ** 2)
        places.add(tuple(found))
    assert len(places) == 1 if name == "none" else len(places) > 2
