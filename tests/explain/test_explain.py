"""Maps that are right: equal to captum's, complete, on the parasite, and gone with the weights."""

import json

import jax
import numpy as np
import pytest
from captum_oracle import LABEL, REFERENCE, SmallNet, images
from helpers import TinyNet, random_image, tiny_cells
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

import cellscan
from cellscan.data.images import read_rgb
from cellscan.explain import METHODS, cam
from cellscan.models.network import Network


@pytest.fixture(scope="module")
def trained() -> cellscan.Classifier:
    """A network that has learned to see parasites of synthetic cells."""
    clf = cellscan.Classifier("small_cnn", image_size=48, seed=0)
    clf.fit(cellscan.synthetic_cells(1200, seed=1, difficulty="easy"), epochs=3, progress=False)
    return clf


@pytest.fixture(scope="module")
def infected(trained) -> cellscan.CellDataset:
    """Synthetic cells with a parasite that the network calls right."""
    cells = cellscan.synthetic_cells(80, seed=2, difficulty="easy")
    called = trained.predict(cells, progress=False).labels
    assert (called == cells.labels).mean() > 0.9
    return cells.select(np.flatnonzero((cells.labels == 0) & (called == 0)))


@pytest.mark.parametrize("method", METHODS)
def test_maps_equal_captum(method: str) -> None:
    clf = cellscan.Classifier(SmallNet(), image_size=16, background="keep")
    why = clf.explain(images(), method=method, label=clf.class_names[LABEL], progress=False)
    expected = np.array(json.loads(REFERENCE.read_text())[method])
    assert np.abs(expected).max() > 1e-3
    for found, wanted in zip(why, expected, strict=True):
        assert np.abs(found.values - wanted).max() < 1e-4


def test_pointing_game(trained, infected) -> None:
    """The highest point lies on the parasite, or within three pixels of it; benchmarks/explain.py has every method."""
    assert infected.masks is not None
    hits = []
    for why, mask in zip(trained.explain(infected, progress=False), infected.masks, strict=True):
        place = np.unravel_index(why.map.argmax(), why.map.shape)
        hits.append(np.asarray(distance_transform_edt(~mask))[place] <= 3)
    assert np.mean(hits) >= 0.9


def test_integrated_gradients_add_up(trained, infected) -> None:
    for why in trained.explain(infected.select(range(12)), progress=False):
        rise = why.output - why.baseline
        assert abs(why.values.sum() - rise) < 0.02 * abs(rise)


@pytest.mark.parametrize("method", METHODS)
def test_maps_change_with_the_weights(trained, infected, method: str) -> None:
    """Adebayo et al. (2018): weights are drawn anew from the head down, and the map goes with them."""
    cells = infected.select(range(8))
    fresh = cellscan.Classifier("small_cnn", image_size=48, seed=9)
    before = trained.explain(cells, method=method, label="parasitized", progress=False)
    weights = {kind: dict(leaves) for kind, leaves in trained._members[0].items()}
    for part in ("head", "stage4", "stage3", "stage2", "stage1", "stem_norm", "stem"):
        for name, leaf in fresh._members[0]["params"].items():
            if name.split(".")[0] == part:
                weights["params"][name] = leaf
    drawn = cellscan.Classifier._with(trained._task.network, (weights,), trained.card)
    after = drawn.explain(cells, method=method, label="parasitized", progress=False)
    inside = [read_rgb(cell.image, 48).any(-1) for cell in cells]
    ranks = [spearmanr(a.values[m], b.values[m]).statistic for a, b, m in zip(before, after, inside, strict=True)]
    assert abs(np.mean(ranks)) < 0.3


def test_an_ensemble_has_the_mean_of_its_members() -> None:
    members = [cellscan.Classifier(image_size=16, seed=seed) for seed in range(2)]
    both = cellscan.Classifier.ensemble(members)
    image = random_image()
    one, two, mean = (
        clf.explain(image, method="gradcam", label="parasitized", progress=False)[0] for clf in (*members, both)
    )
    assert np.allclose((one.values + two.values) / 2, mean.values, atol=1e-5)
    assert mean.output == pytest.approx((one.output + two.output) / 2, abs=1e-5)


@pytest.mark.parametrize("name", [backbone.name for backbone in cellscan.list_backbones()])
def test_every_backbone_has_a_gradcam(name: str) -> None:
    network = Network(cellscan.models.create(name, 2))
    x = jax.ShapeDtypeStruct((1, 75, 75, 3), np.float32)
    found = jax.eval_shape(lambda weights, x: cam(network, weights, x, 1), network.shapes(), x)
    assert found.shape == (1, 75, 75)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_a_map_is_as_large_as_the_image(name: str) -> None:
    clf = cellscan.Classifier(name, image_size=33, seed=0)
    why = clf.explain(random_image(3, 40, 60), method="gradcam", label="uninfected", progress=False)[0]
    assert why.map.shape == (40, 60)
    assert why.map.dtype == np.float32
    assert 0 <= why.map.min() <= why.map.max() <= 1
    assert why.values.shape == (33, 33)


def test_anything_that_holds_images(tmp_path) -> None:
    from PIL import Image

    Image.fromarray(random_image()).save(tmp_path / "a.png")
    clf = cellscan.Classifier(image_size=16, seed=0)
    by_path, by_array = (clf.explain(x, progress=False)[0] for x in ([tmp_path / "a.png"], random_image()))
    assert np.array_equal(by_path.values, by_array.values)
    assert by_path.label == clf.predict(tmp_path / "a.png").labels[0]
    cells = tiny_cells(8)
    why = clf.explain(cells, progress=False)
    assert [w.name for w in why] == cells.names.tolist()
    assert len(why[2:4]) == 2
    assert len(why.plot(3).axes) == 9


def test_what_cannot_be_explained() -> None:
    clf = cellscan.Classifier(image_size=16, seed=0)
    with pytest.raises(cellscan.ArgumentError, match="'gradcam', 'integrated_gradients', 'occlusion'"):
        clf.explain(random_image(), method="lime")
    with pytest.raises(cellscan.ArgumentError, match="'parasitized', 'uninfected'"):
        clf.explain(random_image(), label="sick")
    with pytest.raises(cellscan.ImageError, match="no such file"):
        clf.explain(["no.png"])
    from flax import nnx

    own = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16)
    with pytest.raises(cellscan.ArgumentError, match='"integrated_gradients" or "occlusion"'):
        own.explain(random_image(), method="gradcam")
    assert own.explain(random_image(), method="occlusion", progress=False)[0].map.max() > 0.8
