"""Preprocessing of images for a network."""

import jax.numpy as jnp
import numpy as np
import pytest

import cellscan
from cellscan.preprocessing import Normalization, apply_background, find_background, prepare


def disc(size: int = 32, radius: float = 11, value: float = 0.7) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    image = np.zeros((size, size, 3), np.float32)
    image[np.hypot(x, y) < radius] = [value, 0.5, 0.6]
    return image


def test_background_of_a_disc_grows_by_one_pixel() -> None:
    found = np.asarray(find_background(jnp.asarray(disc())[None]))[0]
    black = disc().max(-1) == 0
    assert found[black].all()
    rim = found & ~black
    assert 0 < rim.sum() < 120
    assert not found[10:22, 10:22].any()


def test_filled_takes_the_mean_colour_of_the_cell() -> None:
    out = np.asarray(apply_background(jnp.asarray(disc())[None], "fill"))[0]
    assert np.allclose(out, [0.7, 0.5, 0.6], atol=1e-6)


def test_no_background_stays_bit_for_bit() -> None:
    image = np.random.default_rng(0).integers(40, 256, (2, 24, 24, 3), dtype=np.uint8)
    assert np.array_equal(prepare(jnp.asarray(image), "fill"), prepare(jnp.asarray(image), "keep"))
    assert (np.asarray(prepare(jnp.asarray(image), "silhouette")) == 1).all()


def test_a_bite_round_a_corner_is_found() -> None:
    image = np.full((32, 32, 3), 0.7, np.float32)
    image[:, 0] = 0  # a black frame on the left, a passage, and a corner that no row or column sees into
    image[8, :12] = 0
    image[8:13, 12] = 0
    image[12, 12:16] = 0
    found = np.asarray(find_background(jnp.asarray(image)[None]))[0]
    assert found[image.max(-1) == 0].all()
    assert np.allclose(apply_background(jnp.asarray(image)[None], "fill"), 0.7, atol=1e-6)


def test_dark_spots_inside_are_kept() -> None:
    image = disc()
    image[15:17, 15:17] = 0.02
    found = np.asarray(find_background(jnp.asarray(image)[None]))[0]
    assert not found[14:18, 14:18].any()


def test_an_all_black_image_stays_black_and_finite() -> None:
    for background in ("keep", "fill", "silhouette"):
        out = np.asarray(prepare(jnp.zeros((1, 16, 16, 3), jnp.uint8), background))
        assert not out.any()


def test_silhouette_knows_nothing_but_the_silhouette() -> None:
    a, b = (np.asarray(apply_background(jnp.asarray(disc(value=v))[None], "silhouette")) for v in (0.4, 0.9))
    assert np.array_equal(a, b)
    assert set(np.unique(a)) == {0.0, 1.0}


def test_normalization() -> None:
    out = Normalization((0.5, 0.4, 0.3), (0.5, 0.2, 0.1))(jnp.full((1, 2, 2, 3), 0.6))
    assert np.allclose(out[0, 0, 0], [0.2, 1.0, 3.0], atol=1e-5)


@pytest.mark.parametrize("background", ["Filled", "", None])
def test_unknown_backgrounds(background) -> None:
    with pytest.raises(cellscan.ArgumentError, match="'keep', 'fill', 'silhouette'"):
        cellscan.Classifier(background=background)
