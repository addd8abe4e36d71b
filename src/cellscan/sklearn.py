"""Estimators of scikit-learn: a classifier of cells, and the features of a classifier.

Research use only, not a medical device.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from cellscan.classifier import Classifier
from cellscan.data.cells import Cell, CellDataset
from cellscan.errors import ArgumentError
from cellscan.tasks.recipe import Recipe

if TYPE_CHECKING:
    from flax import nnx

    from cellscan.training.history import History

    # scikit-learn has no types, so type checkers see these methods of its base classes.
    class _Estimator:
        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def __sklearn_tags__(self) -> Any: ...

    class _ClassifierBase(_Estimator):
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    class _TransformerBase(_Estimator):
        def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray: ...
        def get_feature_names_out(self, input_features: Any = None) -> np.ndarray: ...
        def set_output(self, *, transform: str | None = None) -> Self: ...

else:

    class _ClassifierBase(ClassifierMixin, BaseEstimator):
        pass

    class _TransformerBase(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
        pass


__all__ = ["CellClassifier", "CellEmbedder"]


class CellClassifier(_ClassifierBase):
    """A classifier of cell images, as an estimator of scikit-learn.

    For research use only: not a medical device. Every `fit` trains a new `cellscan.Classifier`. Use it where a function
    of scikit-learn expects an estimator: cross-validation, grid search, calibration. scikit-learn does not know the
    patients: pass them as ``groups``, with ``GroupKFold``, so that no patient is in training and in test.

    Parameters
    ----------
    model : str or flax.nnx.Module
        As in `cellscan.Classifier`. Every `fit` of a module of your own starts from its weights.
    weights, image_size, background, seed
        As in `cellscan.Classifier`.
    epochs, batch_size, recipe
        As in `cellscan.Classifier.fit`. The recipe must not set `patience`, because there is no validation set.
    tta : bool
        Test-time augmentation, as in `cellscan.Classifier.predict`.
    progress : bool
        Show the progress of training and prediction.

    Attributes
    ----------
    classes_ : numpy.ndarray
        (K,) the classes: the sorted distinct values of `y`, of the same type. The columns of `predict_proba` are in
        this order.
    classifier_ : Classifier
        The trained classifier, whose class names are the classes as texts. It does not know the patients of training.
    history_ : History
        The learning curve.

    Notes
    -----
    The parameters are checked by `fit`. There is no attribute ``n_features_in_``, because images have different sizes.
    Do not set ``n_jobs`` in the functions of scikit-learn: JAX uses all cores.

    Examples
    --------
    >>> import cellscan
    >>> from cellscan.sklearn import CellClassifier
    >>> cells = cellscan.synthetic_cells(80, seed=0)
    >>> y = [cells.class_names[label] for label in cells.labels]
    >>> estimator = CellClassifier(image_size=32, epochs=1).fit(cells, y)
    >>> estimator.classes_.tolist(), estimator.predict_proba(cells).shape
    (['parasitized', 'uninfected'], (80, 2))
    """

    classes_: np.ndarray
    classifier_: Classifier
    history_: History

    def __init__(
        self,
        model: str | nnx.Module = "small_cnn",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int = 64,
        background: str = "fill",
        epochs: int = 10,
        batch_size: int = 64,
        recipe: Recipe | None = None,
        tta: bool = False,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self.model = model
        self.weights = weights
        self.image_size = image_size
        self.background = background
        self.epochs = epochs
        self.batch_size = batch_size
        self.recipe = recipe
        self.tta = tta
        self.seed = seed
        self.progress = progress

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new classifier.

        Parameters
        ----------
        X : sequence of images
            N images: an array (N, H, W, 3) uint8, or a sequence of arrays, paths or cells, also of different sizes; a
            `CellDataset`; a column of paths of a data frame. All images are held in memory.
        y : sequence
            (N,) the classes, texts or numbers, at least two different ones.

        Returns
        -------
        CellClassifier
            The estimator itself.

        Raises
        ------
        ArgumentError
            If a parameter is invalid, if `X` is not a sequence of images, or if `y` has one class only.
        DataError
            If the lengths differ, or two classes differ in upper and lower case only.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import cellscan
        >>> from cellscan.sklearn import CellClassifier
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> CellClassifier(image_size=32, epochs=1).fit(cells, cells.labels).classes_.tolist()
        [0, 1]
        """
        if y is None:
            raise ArgumentError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        images, y = _listed(X), column_or_1d(y, warn=True)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        names = [str(value) for value in classes.tolist()]
        if len(names) == 1:
            raise ArgumentError(f"y has 1 class, {names[0]!r}; expected two or more")
        cells = CellDataset.from_arrays(images, [names[label] for label in labels], class_names=names)
        classifier = Classifier(
            self.model, weights=self.weights, image_size=self.image_size, background=self.background,
            class_names=names, seed=self.seed,
        )  # fmt: skip
        self.history_ = classifier.fit(
            cells, epochs=self.epochs, batch_size=self.batch_size, recipe=self.recipe, progress=self.progress
        )
        self.classes_, self.classifier_ = classes, classifier
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of every image: (N,) values of `classes_`.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Raises
        ------
        NotFittedError
            Before `fit`; an error of scikit-learn.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import cellscan
        >>> from cellscan.sklearn import CellClassifier
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> estimator = CellClassifier(image_size=32, epochs=1).fit(cells, cells.labels)
        >>> set(estimator.predict(cells)) <= {0, 1}
        True
        """
        check_is_fitted(self)
        predictions = self.classifier_.predict(_images(X), tta=self.tta, progress=self.progress)
        return self.classes_[predictions.labels]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class for every image.

        Parameters
        ----------
        X : sequence of images
            As in `fit`.

        Returns
        -------
        (N, K) float32
            Probabilities in [0, 1]; each row sums to 1. The columns are in the order of `classes_`.

        Raises
        ------
        NotFittedError
            Before `fit`; an error of scikit-learn.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import cellscan
        >>> from cellscan.sklearn import CellClassifier
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> CellClassifier(image_size=32, epochs=1).fit(cells, cells.labels).predict_proba(cells[:3]).shape
        (3, 2)
        """
        check_is_fitted(self)
        return self.classifier_.predict_proba(_images(X), tta=self.tta, progress=self.progress)

    def __sklearn_tags__(self) -> Any:
        return _with_image_tags(super().__sklearn_tags__())


class CellEmbedder(_TransformerBase):
    """The feature vectors of a classifier, as a transformer of scikit-learn, before any estimator.

    For research use only: not a medical device. The transformer is not trained: `fit` ignores images and classes.

    Parameters
    ----------
    classifier : Classifier or "pretrained"
        The classifier whose features are computed. ``"pretrained"``: `cellscan.Classifier.pretrained()`. It was trained
        on the NIH cells, so that a score on these cells is optimistically biased. For them use published weights of
        other images, such as ``cellscan.Classifier("squeezenet1_1", weights="imagenet")``.
    progress : bool
        Show the progress of the computation.

    Attributes
    ----------
    classifier_ : Classifier
        The classifier whose features are computed.

    Examples
    --------
    >>> import cellscan
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from cellscan.sklearn import CellEmbedder
    >>> cells = cellscan.synthetic_cells(40, seed=0)
    >>> classifier = cellscan.Classifier(image_size=32, seed=0)
    >>> pipeline = make_pipeline(CellEmbedder(classifier), LogisticRegression()).fit(cells, cells.labels)
    >>> pipeline.predict(cells).shape
    (40,)
    """

    classifier_: Classifier

    def __init__(self, classifier: Classifier | str = "pretrained", *, progress: bool = False) -> None:
        self.classifier = classifier
        self.progress = progress

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the classifier.

        Parameters
        ----------
        X, y
            Ignored.

        Raises
        ------
        ArgumentError
            If `classifier` is neither a classifier nor ``"pretrained"``.

        Examples
        --------
        >>> from cellscan.sklearn import CellEmbedder
        >>> CellEmbedder().fit().classifier_.image_size
        96
        """
        if isinstance(self.classifier, Classifier):
            self.classifier_ = self.classifier
        elif self.classifier == "pretrained":
            self.classifier_ = Classifier.pretrained()
        else:
            raise ArgumentError(
                f"classifier is {self.classifier!r:.80}; expected a cellscan.Classifier, or 'pretrained'"
            )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the feature vector of every image, as `cellscan.Classifier.embed`.

        Parameters
        ----------
        X : sequence of images
            As in `CellClassifier.fit`.

        Returns
        -------
        (N, D) float32
            D depends on the network. A data frame if ``set_output(transform="pandas")`` was called.

        Raises
        ------
        NotFittedError
            Before `fit`; an error of scikit-learn.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import cellscan
        >>> from cellscan.sklearn import CellEmbedder
        >>> embedder = CellEmbedder(cellscan.Classifier(image_size=32, seed=0))
        >>> embedder.fit_transform(cellscan.synthetic_cells(8, seed=0)).shape
        (8, 128)
        """
        check_is_fitted(self)
        return self.classifier_.embed(_images(X), progress=self.progress)

    @property
    def _n_features_out(self) -> int:
        """The number of features, for the names that `get_feature_names_out` returns."""
        size = self.classifier_.image_size
        return self.classifier_.embed(np.zeros((1, size, size, 3), np.uint8), progress=False).shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = _with_image_tags(super().__sklearn_tags__())
        tags.transformer_tags.preserves_dtype = []  # The features are float32 for every type of images.
        return tags


def _with_image_tags(tags: Any) -> Any:
    """Return the tags of an estimator of images: sequences of paths, but no table of numbers."""
    tags.input_tags.two_d_array = False
    tags.input_tags.one_d_array = tags.input_tags.string = True
    return tags


def _images(X: Any) -> Any:
    """Return the samples as `Classifier.predict` takes them. A data set keeps its decoded images."""
    return X if isinstance(X, CellDataset) else _listed(X)


def _listed(X: Any) -> list[Any]:
    """Return the samples as a list of single images, or raise `ArgumentError`."""
    expected = "expected images (n, height, width, 3) uint8, or a list of images or of paths"
    if isinstance(X, (str, bytes, os.PathLike)):
        raise ArgumentError(f"X is {X!r:.80}, a single image; {expected}")
    if hasattr(X, "columns"):
        raise ArgumentError(f"X is a data frame; {expected}, such as the column of the paths: X['file']")
    if len(getattr(X, "shape", ())) == 2:
        raise ArgumentError(
            f"X has the shape {tuple(X.shape)}; {expected}. Give flattened images their shape again, such as "
            "X.reshape(-1, height, width, 3)"
        )
    try:
        return [image.image if isinstance(image, Cell) else image for image in X]
    except TypeError as error:
        raise ArgumentError(f"X is a {type(X).__name__}; {expected}") from error
