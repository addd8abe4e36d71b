"""Options do what they say, or are refused."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cellscan
from cellscan import Recipe
from cellscan.preprocessing import find_background
from cellscan.tasks.augment import make_augment, random_background, turn
from cellscan.tasks.recipe import class_weights, cross_entropy, make_optimizer, make_rates


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": 0}, {"learning_rate": -1}, {"schedule": "linear"}, {"weight_decay": -1}, {"clip_norm": 0},
        {"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"ema": 1.0}, {"ema": 0}, {"dtype": "float16"},
        {"patience": 0}, {"monitor": "f1"}, {"augment": "mild"}, {"class_weight": "even"},
        {"background": "black"}, {"mixup": -0.1}, {"learning_rate": "fast"}, {"learning_rate": float("nan")},
        {"learning_rate": float("inf")}, {"class_weight": [1, 2]}, {"patience": 1.5}, {"ema": True},
        {"weight_decay": None},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options(bad) -> None:
    with pytest.raises(cellscan.ArgumentError, match=next(iter(bad))):
        Recipe(**bad)


def test_recipe_is_frozen_and_becomes_json() -> None:
    import json

    recipe = Recipe(optimizer=optax.sgd(0.1), loss=cross_entropy(), class_weight={"a": 1})
    with pytest.raises(AttributeError):
        recipe.dtype = "bfloat16"  # type: ignore[misc]
    plain = json.loads(json.dumps(recipe.to_dict()))
    assert plain["optimizer"] == "own"
    assert plain["class_weight"] == {"a": 1.0}
    assert Recipe(augment=random_background).to_dict()["augment"] == "random_background"


def rates(recipe: Recipe, steps: int) -> list[float]:
    params = {"k": jnp.ones((2, 2))}
    state, sizes = make_optimizer(recipe, 0.0).init(params), []
    for rate in make_rates(recipe, steps):
        optimizer = make_optimizer(recipe, rate)
        updates, state = optimizer.update({"k": jnp.ones((2, 2))}, state, params)
        sizes.append(float(jnp.abs(updates["k"]).max()))  # type: ignore[index]
    return sizes


def test_schedules() -> None:
    common: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.0}
    assert np.allclose(rates(Recipe(schedule="constant", **common), 8), 0.1, rtol=1e-3)
    cosine = rates(Recipe(schedule="cosine", **common), 20)
    assert np.isclose(cosine[0], 0.1, rtol=1e-3)
    assert all(a > b for a, b in itertools.pairwise(cosine))
    cycle = rates(Recipe(schedule="one_cycle", **common), 40)
    assert np.argmax(cycle) == 10
    assert np.isclose(max(cycle), 0.1, rtol=1e-3)
    assert cycle[-1] < 0.001
    assert len(rates(Recipe(), 1)) == 1


def test_weight_decay_spares_vectors_and_clipping_clips() -> None:
    optimizer = make_optimizer(Recipe(weight_decay=0.5), 0.1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert np.allclose(updates["kernel"], -0.05)  # type: ignore[index]
    assert np.allclose(updates["bias"], 0)  # type: ignore[index]
    norms = []
    for clip in (1.0, None):
        optimizer = make_optimizer(Recipe(clip_norm=clip), 0.1)
        state = optimizer.init(params)
        _, state = optimizer.update({"kernel": 50 * jnp.ones((2, 2)), "bias": jnp.zeros(2)}, state, params)
        moments = [leaf for leaf in jax.tree.leaves(state) if jnp.ndim(leaf) == 2]
        norms.append(float(jnp.linalg.norm(moments[0])))
    assert np.isclose(norms[0], 0.1, rtol=1e-3)
    assert np.isclose(norms[1], 10.0, rtol=1e-3)


def test_label_smoothing_by_hand() -> None:
    logits = jnp.array([[2.0, 0.0]])
    p = np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum()
    want = -(0.95 * np.log(p[0]) + 0.05 * np.log(p[1]))
    assert np.isclose(cross_entropy(0.1)(logits, jnp.array([0]))[0], want, rtol=1e-5)


def test_class_weights() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    names = ("a", "b")
    assert class_weights(Recipe(), labels, names) is None
    balanced = class_weights(Recipe(class_weight="balanced"), labels, names)
    assert balanced is not None
    assert np.allclose(balanced, [2 / 3, 2])
    given = class_weights(Recipe(class_weight={"A": 1, "b": 3}), labels, names)
    assert given is not None
    assert np.isclose(given[labels].mean(), 1)
    assert np.isclose(given[1] / given[0], 3)
    for wrong in ({"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0}):
        with pytest.raises(cellscan.ArgumentError, match="class_weight"):
            class_weights(Recipe(class_weight=wrong), labels, names)


def test_turn_reaches_all_eight_symmetries_and_nothing_else() -> None:
    image = np.arange(27.0).reshape(3, 3, 3)
    allowed = {np.rot90(form, k).tobytes() for form in (image, image[:, ::-1]) for k in range(4)}
    out = np.asarray(turn(jax.random.key(0), jnp.asarray(np.repeat(image[None], 200, 0))), np.float64)
    assert {one.tobytes() for one in out} == allowed


@pytest.mark.parametrize(("name", "least", "most"), [("small", 2.0, 4.0), ("strong", 4.0, 20.0)])
def test_colour_changes_by_as_much_as_said(name, least, most) -> None:
    augment = make_augment(name)
    assert augment is not None
    images = jnp.full((300, 4, 4, 3), 0.5).at[:, :2].set(0.4)
    out = np.asarray(augment(jax.random.key(0), images))
    assert out.min() >= 0
    assert out.max() <= 1
    spread = 100 * out.mean((1, 2, 3)).std()
    assert least < spread < most
    assert np.array_equal(out, augment(jax.random.key(0), images))
    assert len({round(float(v), 5) for v in out.mean((1, 2, 3))}) > 250  # a draw for every image


def test_random_background_changes_the_background_and_nothing_else() -> None:
    cells = cellscan.synthetic_cells(24, seed=0)
    images = jnp.asarray(cells.images(48)[:], jnp.float32) / 255
    outside = np.asarray(find_background(images))
    varied = np.asarray(random_background(jax.random.key(0), images))
    assert np.array_equal(varied[~outside], np.asarray(images)[~outside])
    assert (varied[outside].max(-1) > 32 / 255).mean() > 0.99  # nothing black is left
    again = np.asarray(random_background(jax.random.key(1), images))
    assert not np.array_equal(again[outside], varied[outside])
    plain = [np.ptp(image[mask], axis=0).max() < 1e-6 for image, mask in zip(varied, outside, strict=True)]
    assert 0 < sum(plain) < len(plain)  # in some a neighbour lies, in some not
    field = images * 0.5 + 0.4  # no background
    assert np.array_equal(random_background(jax.random.key(0), field), field)
