"""Published weights with known answers: a cat, a cup of coffee, and what VGG16 makes of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cellscan


@pytest.fixture(scope="session")
def weights(source) -> Path:
    return source / "weights"


def photograph(name: str, *, antialias: bool = True) -> np.ndarray:
    """Return the middle of one of scikit-image's photographs, (1, 224, 224, 3) in [0, 1].

    Bilinear; with `antialias` as Pillow does it, without as PyTorch does by default.
    """
    import skimage.data

    image = getattr(skimage.data, name)()
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    if antialias:
        resized = np.asarray(Image.fromarray(square).resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    else:
        resized = np.asarray(jax.image.resize(jnp.float32(square), (224, 224, 3), "bilinear", antialias=False))
    return resized[None] / 255


# ImageNet's classes: 285 Egyptian cat, 282 tiger cat, 281 tabby, 967 espresso
ANSWERS = {
    "tf_efficientnet_lite0": {"chelsea": [(285, 0.39), (282, 0.25), (281, 0.21)], "coffee": [(967, 0.84)]},
    "squeezenet1_1": {"chelsea": [(285, 0.59), (281, 0.23), (282, 0.17)], "coffee": [(967, 0.98)]},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_cat_and_coffee_are_recognised(weights, name) -> None:
    net = cellscan.models.create(name, weights=weights / f"{name}_f16.safetensors")
    for image, expected in ANSWERS[name].items():
        logits = np.asarray(
            net(net.normalization(jnp.asarray(photograph(image, antialias=name != "squeezenet1_1")))), np.float64
        )[0]
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-probabilities)
        assert order[: len(expected)].tolist() == [label for label, _ in expected]
        assert np.allclose(probabilities[order[: len(expected)]], [share for _, share in expected], atol=0.006)


def test_vgg16_sees_what_it_should(weights) -> None:
    clf = cellscan.Classifier(
        "vgg16", weights=weights / "vgg16_tv_notop_f16.safetensors", image_size=224, background="keep"
    )
    assert clf.card.weights is not None
    assert (clf.card.weights["source"], clf.card.weights["licence"]) == ("timm/vgg16.tv_in1k", "BSD-3-Clause")
    net = clf.model
    cat, coffee = photograph("chelsea"), photograph("coffee")

    def last(x: np.ndarray) -> jax.Array:  # before the maximum that ends the stage
        y = net.features(clf.card.normalization(jnp.asarray(x)))["stage4"]
        for conv in net.stage5.convs:
            y = jax.nn.relu(conv(y))
        return y

    found = [last(x) for x in (cat, cat[:, :, ::-1], coffee)]
    for features in found:
        assert 0.89 <= float((features == 0).mean()) <= 0.93
    vectors = [np.asarray(features.mean((1, 2))[0]) for features in found]
    vectors = [vector / np.linalg.norm(vector) for vector in vectors]
    assert vectors[0] @ vectors[1] > 0.985
    assert abs(vectors[0] @ vectors[2] - 0.18) < 0.006


def test_normalisation_belongs_to_the_weights(weights) -> None:
    means = {
        name: cellscan.Classifier(name, weights=weights / f"{name}_f16.safetensors").card.normalization.mean[0]
        for name in ANSWERS
    }
    assert means == {"tf_efficientnet_lite0": 0.485, "squeezenet1_1": 123.68 / 255}
    assert cellscan.Classifier("tf_efficientnet_lite0").card.normalization.mean[0] == 0.5
