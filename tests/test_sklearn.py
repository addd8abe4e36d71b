"""The estimators of `cellscan.sklearn`: scikit-learn's checks, errors, and the page of the documentation."""

import contextlib
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, random_image, run_python, write_cells
from pages import run_blocks, without_numbers
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

import cellscan
import cellscan.sklearn
from cellscan.sklearn import CellClassifier, CellEmbedder

SIZE = 8


class Nearest:
    """Has the methods of `cellscan.Classifier` that the estimators call; compiles nothing and is trained at once."""

    image_size = SIZE

    def __init__(self, model: str = "", *, class_names: Any = ("a", "b"), seed: int = 0, **options: Any) -> None:
        self.class_names, self.seed, self.options = class_names, seed, options

    @classmethod
    def pretrained(cls) -> "Nearest":
        return cls()

    def fit(self, cells: cellscan.CellDataset, **options: Any) -> cellscan.History:
        self.options |= options
        features = self.embed([cell.image for cell in cells])
        self.means = np.stack([features[cells.labels == label].mean(0) for label in range(len(self.class_names))])
        return cellscan.History([])

    def predict(self, images: Any, *, tta: bool, progress: bool) -> Any:
        p = self.predict_proba(images, tta=tta, progress=progress)
        labels = p.argmax(1).astype(np.int32)
        names = ("",) * len(p)
        return cellscan.Predictions(labels, p, np.arange(len(p)), names, (), tuple(self.class_names), None)

    def predict_proba(self, images: Any, *, tta: bool, progress: bool) -> np.ndarray:
        distances = np.square(self.embed(images)[:, None] - self.means).sum(2)
        scores = np.exp(distances.min(1, keepdims=True) - distances)
        return (scores / scores.sum(1, keepdims=True)).astype(np.float32)

    def embed(self, images: Any, *, progress: bool = False) -> np.ndarray:
        return np.stack([np.asarray(image) for image in images])[:, 0, :, 0].astype(np.float32) / 32


def draw(rows: np.ndarray) -> np.ndarray:
    """Return one image per row of numbers, with a column of pixels for each of the first numbers."""
    values = np.zeros((len(rows), SIZE))
    values[:, : rows.shape[1]] = rows[:, :SIZE]
    grey = np.rint(255 / (1 + np.exp(-values / 3)))
    return np.broadcast_to(grey[:, None, :, None], (len(rows), SIZE, SIZE, 3)).astype(np.uint8)


class RowClassifier(CellClassifier):
    """Takes the tables of numbers that scikit-learn's checks pass."""

    def fit(self, X: Any, y: Any) -> Self:
        if y is not None:
            rows, y = validate_data(self, X, y)
            X = draw(np.asarray(rows))
        return super().fit(X, y)

    def predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict(draw(np.asarray(validate_data(self, X, reset=False))))

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(draw(np.asarray(validate_data(self, X, reset=False))))

    def __sklearn_tags__(self) -> Any:
        return table_tags(super().__sklearn_tags__())


class RowEmbedder(CellEmbedder):
    """Takes the tables of numbers that scikit-learn's checks pass."""

    def fit(self, X: Any = None, y: Any = None) -> Self:
        validate_data(self, X)
        return super().fit(X, y)

    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().transform(draw(np.asarray(validate_data(self, X, reset=False))))

    def __sklearn_tags__(self) -> Any:
        return table_tags(super().__sklearn_tags__())


def table_tags(tags: Any) -> Any:
    assert not tags.input_tags.two_d_array
    tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
    return tags


@pytest.mark.parametrize("estimator", [RowClassifier(), RowEmbedder()], ids=lambda estimator: type(estimator).__name__)
def test_the_checks_of_scikit_learn(estimator, monkeypatch) -> None:
    monkeypatch.setattr(cellscan.sklearn, "Classifier", Nearest)
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = [f"{one['check_name']}: {one['exception']!r:.300}" for one in results if one["status"] == "failed"]
    assert not failed, "\n".join(failed)
    assert sum(one["status"] == "passed" for one in results) > 30


def test_tables_of_numbers_are_skipped_by_the_checks() -> None:
    with pytest.warns(SkipTestWarning, match="CellClassifier"):
        assert check_estimator(CellClassifier(), on_skip=None) is not None
    assert is_classifier(CellClassifier())


def test_parameters_reach_the_classifier(monkeypatch) -> None:
    monkeypatch.setattr(cellscan.sklearn, "Classifier", Nearest)
    recipe = cellscan.Recipe(augment="none")
    given = CellClassifier(weights="imagenet", background="keep", epochs=3, batch_size=5, recipe=recipe, seed=7)
    estimator: Any = clone(given)
    assert estimator.recipe == recipe
    fitted: Any = estimator.fit([random_image(0), random_image(1)], ["x", "y"]).classifier_
    assert fitted.seed == 7
    assert fitted.class_names == ["x", "y"]
    assert fitted.options == {
        "weights": "imagenet", "image_size": 64, "background": "keep", "epochs": 3, "batch_size": 5, "recipe": recipe,
        "progress": False,
    }  # fmt: skip


@pytest.fixture
def images() -> np.ndarray:
    return np.stack([np.full((SIZE, SIZE, 3), 40 * number, np.uint8) for number in (1, 5, 1, 5, 1, 5)])


def test_samples_of_every_form(images, monkeypatch) -> None:
    monkeypatch.setattr(cellscan.sklearn, "Classifier", Nearest)
    y = ["well", "sick"] * 3
    cells = cellscan.CellDataset.from_arrays(images, [0, 1] * 3, patients=list("aabbcc"))
    for X in (images, list(images), cells, list(cells), cells.images(SIZE)):
        assert CellClassifier().fit(X, y).predict(images).tolist() == y
        out = cross_val_predict(CellClassifier(), X, y, groups=cells.patients, cv=GroupKFold(3))
        assert np.asarray(out).tolist() == y


def test_paths_of_a_data_frame(tmp_path) -> None:
    root = write_cells(tmp_path, {"a": ["1.png", "2.png"], "b": ["3.png", "4.png"]})
    cells = cellscan.load_folder(root)
    frame: pd.DataFrame = cells.to_dataframe()
    estimator = CellClassifier(image_size=16, epochs=1, batch_size=4).fit(frame["file"], frame["class"])
    assert estimator.classifier_.class_names == ("a", "b")
    assert estimator.history_["epoch"] == [1]
    p = estimator.predict_proba(frame["file"])
    again: Any = clone(estimator)
    again.fit(frame["file"], frame["class"])
    for one, X in ((estimator, cells), (estimator, [Path(file) for file in frame["file"]]), (again, frame["file"])):
        assert np.allclose(p, one.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 12)), [0, 1, 0, 1], r"X has the shape \(4, 12\); .*X.reshape\(-1, height, width, 3\)"),
        ("a.png", [0], "X is 'a.png', a single image"), (3, [0], "X is a int"),
        (pd.DataFrame({"file": ["a.png"]}), [0], r"X is a data frame; .* X\['file'\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), None, "requires y to be passed, but the target y is None"),
        (np.zeros((2, 8, 8, 3), np.uint8), ["a", "a"], "y has 1 class, 'a'; expected two or more"),
        (np.zeros((2, 8, 8, 3), np.uint8), ["a", "b", "a"], "got 2 images, 3 labels"),
        (np.zeros((2, 8, 8, 3), np.uint8), ["a", "A"], "not distinct"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted(X, y, message) -> None:
    with pytest.raises(cellscan.CellscanError, match=message):
        CellClassifier().fit(X, y)


def test_errors_before_fit(images) -> None:
    for call in (CellClassifier().predict, CellClassifier().predict_proba, CellEmbedder().transform):
        with pytest.raises(NotFittedError):
            call(images)
    with pytest.raises(NotFittedError):
        CellEmbedder().get_feature_names_out()
    with pytest.raises(cellscan.ArgumentError, match="classifier is 'resnet'; expected a cellscan.Classifier"):
        CellEmbedder("resnet").fit()


def test_features_as_a_data_frame(images, monkeypatch) -> None:
    monkeypatch.setattr(cellscan.sklearn, "Classifier", Nearest)
    embedder = CellEmbedder()
    assert embedder.fit_transform(images).dtype == np.float32
    frame = embedder.set_output(transform="pandas").fit_transform(images)
    assert list(frame) == [f"cellembedder{number}" for number in range(SIZE)]


def test_scikit_learn_is_imported_on_demand() -> None:
    code = "import sys, cellscan; before = 'sklearn' in sys.modules; cellscan.sklearn.CellClassifier(); print(before)"
    assert run_python(code) == "False"


def test_the_page_prints_what_it_says(tmp_path) -> None:
    with contextlib.chdir(tmp_path):
        outputs = run_blocks(REPOSITORY / "docs" / "scikit_learn.md")
    assert len(outputs) == 5
    for said, printed in outputs:
        assert without_numbers(printed) == without_numbers(said)
    assert cellscan.Classifier.load(tmp_path / "model.safetensors").class_names == ("parasitized", "uninfected")
