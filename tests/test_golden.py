"""The bundled models predict for stored images what they predicted when they were bundled.

After a bundled model is replaced: python tests/files/make.py bundled.
"""

import json

import pytest
from files.make import HERE, describe_bundled

import cellscan
from cellscan.data.images import read_rgb
from cellscan.detection.diameter import measure_diameter
from cellscan.detection.ground import find_ground
from cellscan.detection.likeness import describe_field

EXPECTED = json.loads((HERE / "bundled" / "expected.json").read_text())


@pytest.fixture(scope="module")
def found() -> dict:
    return describe_bundled()


def test_the_same_images(found) -> None:
    assert sorted(found) == sorted(EXPECTED)
    assert {row["label"] for name, row in EXPECTED.items() if name.startswith("cell")} == {"parasitized", "uninfected"}
    assert sum(len(row["scores"]) for name, row in EXPECTED.items() if name.startswith("field")) > 5


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("cell")])
def test_the_bundled_classifier(found, name) -> None:
    row, expected = found[name], EXPECTED[name]
    assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    assert row["novelty"] == pytest.approx(expected["novelty"], rel=1e-4)
    assert row["label"] == expected["label"]


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("field")])
def test_the_bundled_detector(found, name) -> None:
    row, expected = found[name], EXPECTED[name]
    assert row["labels"] == expected["labels"]
    assert row["scores"] == pytest.approx(expected["scores"], abs=1e-4)
    assert row["diameter"] == pytest.approx(expected["diameter"], rel=1e-4)
    assert row["appearance"] == pytest.approx(expected["appearance"], rel=1e-4)
    for box, expected_box in zip(row["boxes"], expected["boxes"], strict=True):
        assert box == pytest.approx(expected_box, abs=1e-2)  # pixels


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("field")])
def test_the_analysis_of_a_field_without_a_network(name) -> None:
    """The likeness statistics of the bundled detector are valid only while these numbers stay the same."""
    image = read_rgb(HERE / "bundled" / name)
    ground, expected = find_ground(image), EXPECTED[name]
    diameter, _ = measure_diameter(image, ground)
    assert diameter == pytest.approx(expected["diameter"], rel=1e-4)
    trained = cellscan.Detector.pretrained().card.detection.cell_diameter  # type: ignore[union-attr]
    assert describe_field(image, ground, diameter, trained) == pytest.approx(expected["appearance"], rel=1e-4)
