"""`Classifier`: train, predict, evaluate, explain, save and load a classifier of cells."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cellscan import card as cards
from cellscan.card import Card
from cellscan.data.cells import CellDataset
from cellscan.data.concat import match_labels
from cellscan.data.images import PIXEL_LIMIT
from cellscan.data.inputs import Images
from cellscan.data.reading import Reading
from cellscan.data.values import as_list, check_number, check_seed
from cellscan.decisions.conformal import Conformal, fit_quantile, label_sets, scores_of
from cellscan.decisions.decision import Decision, decide
from cellscan.decisions.novelty import Axes, axes_of, distance_in_batch, learn
from cellscan.errors import ArgumentError, DataError, ModelFileError, check_choice, check_names
from cellscan.evaluate.calibration import fit_temperature
from cellscan.evaluate.patient_overlap import PatientOverlap
from cellscan.evaluate.report import Report, make_report
from cellscan.evaluate.thresholds import choose, choose_rule
from cellscan.explain import METHODS, Explanations, explain
from cellscan.export import export
from cellscan.inference import SYMMETRIES, Ran, apply_symmetry, average_symmetries, run_images
from cellscan.models.network import Network, weights_of
from cellscan.models.pretrained import Loaded
from cellscan.models.registry import build, find
from cellscan.predictions import Predictions
from cellscan.preprocessing import BACKGROUNDS, Normalization
from cellscan.publishing import publish
from cellscan.tasks.batches import Forward, batches, run_all, run_batch
from cellscan.tasks.classification import ClassificationTask, Settings, embed, feature_statistics
from cellscan.tasks.programs import Members, predict, trained_by
from cellscan.tasks.recipe import Recipe, as_recipe, class_weights, with_rate
from cellscan.training.checkpoint import hash_weights
from cellscan.training.devices import Examples
from cellscan.training.frozen import make_frozen
from cellscan.training.history import History
from cellscan.training.loop import Call
from cellscan.training.loop import train as train_epochs
from cellscan.training.vectorized import SMALL, run_vectorized, unstack

if TYPE_CHECKING:
    from flax import nnx

_PRETRAINED = ("malaria_squeezenet",)


_BATCH_FOR_OUTLIERS = 30
"""Images from which their median and spread mean something."""

_DEFAULT_CLASSES = ("parasitized", "uninfected")
"""Classes of a classifier that was made without `class_names`, until `fit` takes those of the training set."""


class Classifier:
    """A classifier of cell images: a network with its preprocessing, its class names and its decision threshold.

    `pretrained` returns the bundled classifier, which needs no training. Otherwise make a classifier, then call `fit`,
    `evaluate` and `predict`. For research use only: not a medical device.

    Parameters
    ----------
    model : str or flax.nnx.Module
        A name from `cellscan.list_backbones()`: that network with a new head. Or your own module: it is called
        with (N, S, S, 3) float32 in [-1, 1] and returns (N, K) logits. The module is copied. `embed` needs a
        method ``features(x)`` that returns a dictionary with the key ``"pre_logits"``.
    weights : str or path, optional
        Published weights for all layers but the head: ``"imagenet"``, downloaded once (needs the extra ``hub``); or a
        .safetensors file with timm's parameter names: its path, or its address on the Hugging Face hub, such as
        ``"hf://owner/name"``, as in `load`. The classifier then uses the normalisation that these weights expect.
        Default: random weights.
    image_size : int
        Side of the square input in pixels. Every image is stretched to this size. Each network has a minimum.
    background : {"fill", "keep", "silhouette"}
        What replaces the black background of a cell image. ``"fill"``: the cell's mean colour; images without a
        black background are unchanged. ``"keep"``: nothing, images are used as stored. ``"silhouette"``: the
        network gets the outline of the cell alone, a baseline. Networks trained with the black background do well
        on the NIH cells, but predicted ``"parasitized"`` for half of the healthy cells of another laboratory.
    class_names : sequence of str, optional
        Class names in the order of the network's outputs. Default: the first `fit` takes the classes of its
        training set, two or more; until then they are ``("parasitized", "uninfected")``.
    positive_class : str, optional
        The class to which threshold, sensitivity and specificity refer. Default: ``"parasitized"`` if it is one of
        the classes; otherwise no class is positive until you set the attribute `positive_class`.
    seed : int
        Seed of the weight initialisation, the shuffling and the augmentation.

    Raises
    ------
    ArgumentError
        If the name is unknown, `image_size` is too small, or the module does not return one logit per class.
    ModelFileError
        If the published weights are missing or do not fit the network; the message lists every mismatch.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(200, seed=0, difficulty="easy")
    >>> train, test = cells.split(test=0.2, seed=0)
    >>> clf = cellscan.Classifier("small_cnn", image_size=32, seed=0)
    >>> history = clf.fit(train, epochs=3, progress=False)
    >>> report = clf.evaluate(test)
    >>> bool(report.accuracy > 0.8)
    True
    """

    _open: _Open | None = None

    def __init__(
        self,
        model: str | nnx.Module = "small_cnn",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int = 64,
        background: str = "fill",
        class_names: Sequence[str] | None = None,
        positive_class: str | None = None,
        seed: int = 0,
    ) -> None:
        if positive_class is not None and not (isinstance(positive_class, str) and positive_class):
            raise ArgumentError(f"positive_class is {positive_class!r:.80}; expected the name of a class")
        if class_names is None:
            self._open = _Open(weights, positive_class)
            class_names = _DEFAULT_CLASSES
            if positive_class is not None and positive_class.casefold() not in _DEFAULT_CLASSES:
                positive_class = None  # The name is checked when `fit` takes the classes of the training set.
        class_names = check_names("class_names", class_names, 2)
        check_choice("background", background, BACKGROUNDS)
        minimum = find(model).least_size if isinstance(model, str) else 8
        if isinstance(image_size, bool) or not isinstance(image_size, (int, np.integer)) or image_size < minimum:
            expected = f"{model} takes" if isinstance(model, str) else "expected"
            raise ArgumentError(f"image_size is {image_size!r}; {expected} a whole number of pixels, {minimum} or more")
        if image_size**2 > PIXEL_LIMIT:
            raise ArgumentError(f"image_size is {image_size}; an image has at most {PIXEL_LIMIT:,} pixels")
        loaded = Loaded(Normalization())
        if isinstance(model, str):
            module, loaded = build(model, len(class_names), weights=weights, seed=check_seed(seed), pooled=True)
        elif weights is not None:
            raise ArgumentError(
                "weights= loads published weights into a named network; your own module has weights already: "
                "leave weights= out"
            )
        else:
            module = model
        network = Network(module)
        members = (weights_of(module),)
        network.check_logits(members[0], int(image_size), len(class_names))
        self._set(
            network,
            members,
            Card(
                architecture=model if isinstance(model, str) else f"own:{network.name}",
                class_names=class_names,
                positive_class=_check_positive(positive_class, class_names),
                image_size=int(image_size),
                background=background,
                normalization=loaded.normalization,
                seed=check_seed(seed),
                weights=loaded.record or None,
            ),
        )

    def _set(self, network: Network, members: Members, card: Card) -> None:
        self._members, self._card = members, card
        self._task = ClassificationTask(network, background=card.background, normalization=card.normalization)

    @property
    def card(self) -> Card:
        """A description of this classifier and of its training, stored in the model file; a copy.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).card.resize
        {'filter': 'bilinear', 'fit': 'stretch'}
        """
        return self._card.copy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in the order of the columns of `predict_proba`.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).class_names
        ('parasitized', 'uninfected')
        """
        return self._card.class_names

    @property
    def positive_class(self) -> str | None:
        """The class to which `threshold` refers, or None; settable.

        Setting another class resets the threshold and the patient rule, which were chosen for the previous class.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).positive_class
        'parasitized'
        >>> clf = cellscan.Classifier(image_size=32, class_names=("healthy", "infected"))
        >>> clf.positive_class = "infected"
        >>> clf.threshold
        0.5
        """
        return self._card.positive_class

    @positive_class.setter
    def positive_class(self, value: str) -> None:
        if not isinstance(value, str):
            raise ArgumentError(f"positive_class is {value!r:.80}; expected one of {self.class_names}")
        chosen = _check_positive(value, self.class_names)
        if chosen != self._card.positive_class:
            decision = replace(self._card.decision, threshold=Decision().threshold, patient_rule=None)
            self._card = replace(self._card, positive_class=chosen, decision=decision)
        if self._open is not None:
            self._open = replace(self._open, positive_class=chosen)

    @property
    def image_size(self) -> int:
        """Side of the square that images are stretched to, in pixels.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).image_size
        32
        """
        size = self._card.image_size
        assert isinstance(size, int)  # A detector's card has a pair here.
        return size

    @property
    def threshold(self) -> float | None:
        """Probability of the positive class at and above which a cell is positive, in (0, 1); settable.

        None unless there are two classes and one of them is positive. Setting a threshold resets the patient rule,
        which was chosen for the previous threshold.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32)
        >>> clf.threshold = 0.3
        >>> clf.threshold
        0.3
        """
        return None if len(self.class_names) != 2 or self._card.positive is None else self._card.decision.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if len(self.class_names) != 2:
            raise ArgumentError(
                f"a classifier with {len(self.class_names)} classes has no threshold: the label is the most probable "
                "class"
            )
        self._two_classes("a threshold")
        self._card = replace(self._card, decision=replace(self._card.decision, threshold=value, patient_rule=None))

    @property
    def fingerprint(self) -> str:
        """Hash of the weights.

        Two classifiers with equal architecture, preprocessing and fingerprint return the same probabilities,
        unless their temperatures differ.

        Examples
        --------
        >>> import cellscan
        >>> one, two = (cellscan.Classifier(image_size=32, seed=3) for _ in range(2))
        >>> one.fingerprint == two.fingerprint
        True
        """
        return "-".join(hash_weights(weights) for weights in self._members)

    @property
    def model(self) -> Any:
        """A copy of the network with the current weights: a `flax.nnx.Module` in evaluation mode.

        An ensemble has several networks and raises `ArgumentError`; use `members`.

        Examples
        --------
        >>> import cellscan, jax.numpy as jnp
        >>> cellscan.Classifier(image_size=32).model(jnp.zeros((1, 32, 32, 3))).shape
        (1, 2)
        """
        if len(self._members) != 1:
            raise ArgumentError(f"this ensemble has {len(self._members)} networks, not one; use .members[0].model")
        return self._task.network.module(self._members[0])

    @property
    def members(self) -> tuple[Classifier, ...]:
        """The members whose probabilities are averaged: one classifier per network, each with a copy of this card.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.Classifier(image_size=32).members)
        1
        """
        first = replace(self._card, n_members=1)
        others = replace(first, novelty=None)  # `learn_novelty` uses the features of the first member only.
        return tuple(
            self._with(self._task.network, (weights,), others if number else first)
            for number, weights in enumerate(self._members)
        )

    @classmethod
    def _with(cls, network: Network, members: Members, card: Card) -> Classifier:
        classifier = cls.__new__(cls)
        classifier._set(network, members, card)
        return classifier

    @classmethod
    def ensemble(cls, members: Sequence[Classifier]) -> Classifier:
        """Join classifiers into one classifier that averages their probabilities.

        Parameters
        ----------
        members : sequence of Classifier
            Classifiers with the same architecture, image size, background, normalisation and classes.

        Returns
        -------
        Classifier
            The ensemble, with the default temperature and threshold, and without label sets, patient rule and
            novelty. It can compute patient overlap if all members come from one `cellscan.cross_validate`;
            otherwise their patients count as unknown.

        Raises
        ------
        ArgumentError
            If the members differ; the message names the properties.

        Examples
        --------
        >>> import cellscan
        >>> one, two = (cellscan.Classifier(image_size=32, seed=seed) for seed in range(2))
        >>> both = cellscan.Classifier.ensemble([one, two])
        >>> both.card.n_members
        2
        """
        members = as_list("members", members)
        if not members:
            raise ArgumentError("members is empty; expected at least one classifier")
        if not all(isinstance(member, Classifier) for member in members):
            raise ArgumentError(f"members is {members!r:.80}; expected a sequence of classifiers")
        first = members[0].card
        kinds = [m.card.kind() for m in members]
        differ = [name for name, value in kinds[0].items() if any(kind[name] != value for kind in kinds)]
        if differ:
            raise ArgumentError(f"the members differ in {', '.join(differ)}; expected equal values for all members")
        hashes: dict[str, list[str] | None] = {}
        for part in first.patient_hashes:
            lists = [m.card.patient_hashes[part] for m in members]
            shared = len({m.card.salt for m in members}) == 1 or not any(lists)
            known = {patient for ids in lists for patient in ids or ()}
            hashes[part] = sorted(known) if shared and None not in lists else None
        card = replace(
            first,
            n_members=sum(m.card.n_members for m in members),
            decision=Decision(),
            novelty=None,
            patient_hashes={**hashes, "decision": []},
            metrics={},
            data={"members": [m.card.data for m in members]},
        )
        return cls._with(members[0]._task.network, tuple(w for m in members for w in m._members), card)

    def __repr__(self) -> str:
        card = self._card
        return (
            f"Classifier({card.architecture!r}, image_size={card.image_size}, background={card.background!r}, "
            f"class_names={card.class_names}, epochs={card.epochs})"
        )

    def summary(self) -> None:
        """Print a table of the network: its parts, their output shapes for one image, and their parameter counts.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).summary()  # doctest: +ELLIPSIS
        small_cnn: 495,554 parameters, input 32 x 32 px, background "fill", classes parasitized, uninfected
        part         shape                parameters
        stem         (16, 16, 32)              3,456
        ...
        """
        card, weights = self._card, self._members[0]
        counts: dict[str, int] = {}
        for name, leaf in weights["params"].items():
            part = name.split(".")[0]
            counts[part] = counts.get(part, 0) + int(leaf.size)
        shapes = self._task.network.stages(weights, self.image_size)
        several = f"{card.n_members} networks of " if card.n_members > 1 else ""
        print(
            f"{card.architecture}: {several}{sum(counts.values()):,} parameters, "
            f"input {card.image_size} x {card.image_size} px, "
            f'background "{card.background}", classes {", ".join(card.class_names)}'
        )
        print(f"{'part':12} {'shape':18} {'parameters':>12}")
        for part in dict.fromkeys([*shapes, *counts]):
            shape = str(shapes[part][1:]) if part in shapes else ""
            print(f"{part:12} {shape:18} {counts.get(part, 0):>12,}")

    def fit(
        self,
        train: CellDataset,
        *,
        validation: CellDataset | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        recipe: Recipe | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> History:
        """Train the classifier from its current weights, with a new optimiser, on all devices of JAX.

        Training resets temperature, threshold, label sets, patient rule and novelty, which belong to the previous
        weights. After Ctrl-C, the classifier and the checkpoint keep the last complete epoch. `fit_epochs` is the same
        as a loop over the epochs.

        Parameters
        ----------
        train : CellDataset
            Training set. Its classes are matched to `class_names` by name, ignoring case. An untrained classifier
            that was made without `class_names` takes the classes of this set, in their order.
        validation : CellDataset, optional
            Validation set, evaluated after every epoch. Its patients should not be in `train`.
        epochs, batch_size : int
            Number of epochs and images per batch, each at least 1. Every epoch uses every image, in a new order.
            The last batch is filled up with images of the same epoch.
        recipe : Recipe, optional
            Training options; default ``Recipe()``.
        checkpoint : path, optional
            Folder for the checkpoint of this training alone. The checkpoint is replaced after every epoch; the file
            on disk is always complete. Default: no checkpoint is written.
        resume : bool
            Continue from the checkpoint in the folder; all other arguments must be the same as in the first call.
            On the same machine, a training that was interrupted and resumed gives the same bits as one that was
            not. If there is no checkpoint yet, the training starts; if all epochs are done, `fit` returns at once.
        progress : bool
            Show a progress bar on a terminal, one line per epoch elsewhere.

        Returns
        -------
        History
            The learning curve of all epochs, including those before a resume.

        Raises
        ------
        ArgumentError
            If `train` or `validation` is not a `CellDataset`, a number is out of range, or the recipe needs a
            validation set; if the classifier is an ensemble; if the checkpoint folder contains a checkpoint and
            `resume` is False; or if the checkpoint belongs to another recipe, data set or network; the message lists
            every difference.
        DataError
            If a set is empty, the classes do not match, or `train` has only one class.
        ImageError
            If an image cannot be read.
        ModelFileError
            If the checkpoint is damaged or cannot be written; the previous checkpoint is kept.
        TrainingError
            If the loss is not finite; the classifier keeps the last finite weights.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> clf.fit(cells, epochs=1, recipe=cellscan.Recipe(augment="none"), progress=False)
        History(epochs=1)
        """
        records = self.fit_epochs(
            train, validation=validation, epochs=epochs, batch_size=batch_size, recipe=recipe, checkpoint=checkpoint,
            resume=resume, progress=progress,
        )  # fmt: skip
        return History(list(records))

    def fit_epochs(
        self,
        train: CellDataset,
        *,
        validation: CellDataset | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        recipe: Recipe | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> Iterator[dict[str, float]]:
        """Train like `fit`, as an iterator over the epochs.

        The loop may evaluate, save or plot the classifier, write to a tracking tool, and end at any epoch. An epoch is
        trained when the loop asks for it; without a loop, nothing is trained.

        Parameters
        ----------
        train, validation, epochs, batch_size, recipe, checkpoint, resume, progress
            As in `fit`.

        Yields
        ------
        dict of float
            The metrics of one epoch, by the names of `History`. With `resume`, the epochs of the checkpoint come first,
            without training.

        Raises
        ------
        ArgumentError, DataError, ModelFileError, TrainingError
            As in `fit`. Errors of the checkpoint are raised with the first epoch; other wrong arguments by the call.

        Notes
        -----
        Before an epoch is yielded, the classifier gets its weights and the checkpoint is written. With the epochs of an
        earlier checkpoint, the classifier has the weights of the last of them. A ``break`` or an exception in the loop
        changes nothing: the classifier keeps these weights, and ``resume=True`` continues from the checkpoint.
        `patience` restores the best weights only if the training ends by itself, as in `fit`. With several processes,
        all must leave the loop after the same epoch.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> for record in clf.fit_epochs(cells, epochs=5, progress=False):
        ...     if record["epoch"] == 2:
        ...         break
        >>> clf.card.epochs
        2
        """
        recipe = as_recipe(recipe)
        call = Call(epochs, batch_size, checkpoint, resume, progress)
        if recipe.patience is not None and validation is None:
            raise ArgumentError("the recipe's patience needs a validation set; pass validation=...")
        if len(self._members) != 1:
            raise ArgumentError("fit cannot train an ensemble; call fit on its members")
        self._take_classes(train)
        examples = self._examples(train, "train", progress)
        if len(np.unique(examples.labels)) < 2:
            raise DataError(
                f"all {len(train)} cells to train on are {train[0].label_name!r}; expected at least two classes"
            )
        validation_examples = None if validation is None else self._examples(validation, "validation", progress)
        if (
            recipe.monitor == "roc_auc"
            and recipe.patience
            and (
                validation_examples is None
                or self._card.positive is None
                or len(np.unique(validation_examples.labels)) < 2
            )
        ):
            raise ArgumentError('monitor "roc_auc" needs a positive class, and both classes in the validation set')
        network, (weights,), data = self._task.network, self._members, {"train": train.to_dict(), "validation": None}
        task, recipe = self._trained_by(recipe)
        frozen = make_frozen(task, self._task, weights, next(batches(examples.pixels)))
        if validation is not None:
            data["validation"] = validation.to_dict()
        after = self._card.trained_on(train.patients, call.options(recipe), data)
        plan: dict[str, Any] = {}
        if checkpoint is not None:  # Only a checkpoint needs the fingerprints, which take reading every file.
            plan["rows"] = [part.fingerprint() for part in (train, validation) if part is not None]
            if frozen is not None:
                plan["backbone"] = frozen.digest()
        if validation is not None:
            after = after.with_patients("validation", validation.patients)
        constants = class_weights(recipe, examples.labels, self.class_names)
        sets = examples, validation_examples
        if frozen is None:
            return train_epochs(
                call, self._card, after, task, self._task, weights, sets, recipe=recipe, constants=constants,
                keep=lambda weights, card: self._set(network, (weights,), card), plan=plan,
            )  # fmt: skip
        return train_epochs(
            call, self._card, after, frozen.task, frozen.predict_task, frozen.head, sets, recipe=recipe,
            constants=constants, keep=lambda head, card: self._set(network, (frozen.join(head),), card),
            features=frozen.features, plan=plan,
        )  # fmt: skip

    def _take_classes(self, train: CellDataset) -> None:
        """Take the classes of the first training set if none were given; rebuild the head if their number differs."""
        if self._open is None or self._card.epochs or not isinstance(train, CellDataset) or not len(train):
            return
        names = train.class_names
        if len(names) < 2:
            raise DataError(
                f"all {len(train)} cells to train on are {train[0].label_name!r}; expected at least two classes"
            )
        positive = _check_positive(self._open.positive_class, names)
        network, members = self._task.network, self._members
        if len(names) != len(self.class_names) and not self._card.architecture.startswith("own:"):
            weights, seed = self._open.weights, self._card.seed
            module, _ = build(self._card.architecture, len(names), weights=weights, seed=seed, pooled=True)
            network, members = Network(module), (weights_of(module),)
        network.check_logits(members[0], self.image_size, len(names))
        self._set(network, members, replace(self._card, class_names=names, positive_class=positive))

    def _trained_by(self, recipe: Recipe) -> tuple[ClassificationTask, Recipe]:
        """Return the task for training with a recipe, and the recipe with its learning rate filled in."""
        task = trained_by(self._task, recipe)
        return task, with_rate(recipe, tuning=self._card.weights is not None and not task.network.head_alone)

    def _examples(self, cells: CellDataset, name: str, progress: bool) -> Examples:
        labels = self._labels(cells, name)
        return Examples(cells.images(self.image_size, progress=progress), labels)

    def _labels(self, cells: CellDataset, name: str) -> np.ndarray:
        if not isinstance(cells, CellDataset):
            raise ArgumentError(
                f"{name} is a {type(cells).__name__}; expected a CellDataset, such as "
                "cellscan.CellDataset.from_arrays(images, labels)"
            )
        if not len(cells):
            raise DataError(f"the {name} set is empty")
        return match_labels(cells, self.class_names)

    def predict(
        self,
        images: Images,
        *,
        tta: bool | None = None,
        on_error: str = "raise",
        progress: bool = True,
        reading: Reading | None = None,
    ) -> Predictions:
        """Predict the class of each image.

        Images of every source are stretched to `image_size` by the rule that training uses. Several threads may
        call this method at once.

        Parameters
        ----------
        images : image, or many
            A path, a Pillow image, or an array (H, W, 3) or (N, H, W, 3), RGB, of uint8, uint16 or floats in
            [0, 1]; a `CellDataset`; a folder, searched with its sub-folders; or a list or generator
            of single images of any of these kinds, each of any size. One image shows one cell. A generator is read
            step by step, in bounded memory.
        tta : bool, optional
            Test-time augmentation: average the probabilities over the eight symmetries of the square, which takes
            eight times as long. Default: the value with which temperature, threshold, label sets and patient rule
            were chosen, or ``False`` if none was chosen. A value that differs from it gives a warning.
        on_error : {"raise", "skip"}
            What happens if an image cannot be read. ``"raise"``: raise `ImageError`. ``"skip"``: add the image to
            `Predictions.failed` and continue.
        progress : bool
            Show a progress bar if the prediction takes longer than two seconds.
        reading : Reading, optional
            Page, channel and intensity window for files that do not specify them; use the values of the training
            set. A `CellDataset` has its own.

        Returns
        -------
        Predictions
            A sequence with one result per image, also for a single image: `Predictions.labels` (N,) int32,
            `Predictions.probabilities` (N, K) float32.

        Raises
        ------
        ArgumentError
            If `images` is of none of these kinds, or `on_error` is neither of the two.
        ImageError
            If an image cannot be read and `on_error` is ``"raise"``.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> preds = clf.predict(["no.png", np.zeros((50, 40, 3), np.uint8)], on_error="skip")
        >>> len(preds), preds.indices.tolist(), preds.failed[0].name
        (1, [1], 'no.png')
        """
        card = self._card
        axes = None if card.novelty is None else axes_of(card.novelty)
        forward = self._averaged(self._forward(axes), tta)
        ran = self._run(forward, images, on_error, progress, reading)
        probabilities, novelty = ran.rows
        conformal = card.decision.conformal
        return Predictions(
            self._decide(probabilities),
            probabilities,
            ran.indices,
            ran.names,
            ran.failed,
            card.class_names,
            card.positive_class,
            None if conformal is None else label_sets(probabilities, conformal.quantile),
            novelty,
            None if card.novelty is None else novelty > card.novelty.threshold,
        )

    def _forward(self, axes: Axes | None = None) -> Forward:
        """Return the function that maps a batch of images to probabilities, and to novelty if axes are given."""
        settings = Settings(np.float32(self._card.decision.temperature), axes)
        return functools.partial(predict, self._task, self._members, settings)

    def _averaged(self, forward: Forward, tta: bool | None) -> Forward:
        return average_symmetries(forward) if self._card.decision.runs_with(tta) else forward

    def _decide(self, probabilities: np.ndarray) -> np.ndarray:
        return decide(probabilities, self._card.positive, self._card.decision.threshold)

    def predict_proba(
        self, images: Images, *, tta: bool | None = None, progress: bool = True, reading: Reading | None = None
    ) -> np.ndarray:
        """Return the probability of every class for every image.

        Parameters
        ----------
        images, tta, progress, reading
            As in `predict`.

        Returns
        -------
        (N, K) float32
            Probabilities in [0, 1]. Each row sums to 1; the columns are in the order of `class_names`.

        Raises
        ------
        ArgumentError
            If `images` is of none of the kinds that `predict` accepts.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> clf.predict_proba(np.zeros((2, 40, 40, 3), np.uint8)).shape
        (2, 2)
        """
        forward = self._averaged(self._forward(), tta)
        return self._run(forward, images, "raise", progress, reading).rows.probabilities

    def embed(self, images: Images, *, progress: bool = True, reading: Reading | None = None) -> np.ndarray:
        """Return the feature vector of every image: the input of the network's last layer.

        Parameters
        ----------
        images, progress, reading
            As in `predict`.

        Returns
        -------
        (N, D) float32
            D depends on the network.

        Raises
        ------
        ArgumentError
            If your own module has no method ``features(x)``.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> clf.embed(np.zeros((2, 40, 40, 3), np.uint8)).shape
        (2, 128)
        """
        return self._run(functools.partial(embed, self._task, self._members), images, "raise", progress, reading).rows

    def _run(
        self, forward: Forward, images: Images, on_error: str, progress: bool, reading: Reading | None = None
    ) -> Ran:
        return run_images(forward, images, self.image_size, on_error=on_error, progress=progress, reading=reading)

    def explain(
        self,
        images: Images,
        *,
        method: str = "integrated_gradients",
        label: str | None = None,
        progress: bool = True,
        reading: Reading | None = None,
    ) -> Explanations:
        """Compute a map of the pixels that contribute to a label.

        Parameters
        ----------
        images
            As in `predict`. All images are held in memory at their original size.
        method : {"integrated_gradients", "gradcam", "occlusion"}
            ``"integrated_gradients"``: the gradient of the label's logit, integrated along the straight path from a
            uniform image of the same mean colour; of the three it finds synthetic parasites best.
            ``"gradcam"``: the last feature maps, weighted by the gradient; coarse, and the fastest.
            ``"occlusion"``: the decrease of the logit when a window is replaced by the mean colour; coarse, needs no
            gradient.
        label : str, optional
            The class to explain. Default: for each image the class that `predict` returns.
        progress, reading
            As in `predict`.

        Returns
        -------
        Explanations
            A sequence of `Explanation`, in the order of the images.

        Raises
        ------
        ArgumentError
            If the method or the class is unknown, or if `method` is ``"gradcam"`` and your own module has no spatial
            features.
        ImageError
            If an image cannot be read.

        Notes
        -----
        A map shows which pixels the network uses. It does not show that the label is right, or why a cell is
        infected.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> clf = cellscan.Classifier.pretrained()
        >>> image = np.full((80, 90, 3), 200, np.uint8)
        >>> why = clf.explain(image, method="integrated_gradients", label="parasitized")
        >>> why[0].map.shape, why[0].label_name
        ((80, 90), 'parasitized')
        """
        card = self._card
        check_choice("method", method, METHODS)
        if label is not None:
            check_choice("label", label, card.class_names)
        forward = self._forward()
        return explain(
            self._task,
            self._members,
            images,
            self.image_size,
            method=method,
            label=None if label is None else card.class_names.index(label),
            decide=lambda small: self._decide(run_batch(forward, small).probabilities),
            class_names=card.class_names,
            progress=progress,
            reading=reading,
        )

    def evaluate(
        self,
        cells: CellDataset,
        *,
        without: Sequence[str] | np.ndarray | None = None,
        tta: bool | None = None,
        progress: bool = True,
    ) -> Report:
        """Compute metrics on labelled cells, with 95 % intervals by bootstrap over patients.

        Every cell counts once.

        Parameters
        ----------
        cells : CellDataset
            Test set. Its classes are matched by name, ignoring case. Its patients should not be in the training or
            validation set; the first line of the report states the patient overlap.
        without : sequence of str, optional
            Names of cells to leave out, such as those whose label experts dispute. Names that are not in `cells`
            are ignored.
        tta, progress
            As in `predict`.

        Returns
        -------
        Report
            The metrics and their intervals. ``print(report)`` shows them as a table; each is an attribute too, such as
            `Report.roc_auc`, with its interval in `Report.interval`.

        Raises
        ------
        ArgumentError
            If `cells` is not a `CellDataset`.
        DataError
            If there are no cells, or the classes do not match.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import cellscan
        >>> report = cellscan.Classifier(image_size=32).evaluate(cellscan.synthetic_cells(80, seed=0))
        >>> print(str(report).splitlines()[0])
        80 cells of 4 patients, no overlap with training or validation
        """
        card = self._card
        labels = self._labels(cells, "test")
        if without is not None:
            cells = cells.without(without)
            labels = self._labels(cells, "test")
        probabilities = self.predict_proba(cells, tta=tta, progress=progress)
        return make_report(
            labels,
            self._decide(probabilities),
            probabilities,
            names=cells.names,
            patients=cells.patients,
            class_names=card.class_names,
            positive=card.positive,
            threshold=self.threshold,
            split="the whole set, not divided" if cells.split_info is None else str(cells.split_info),
            patient_overlap=PatientOverlap.among(cells.patients.tolist(), **card.find_overlap(cells.patients)),
            background=card.background,
            rule=card.decision.patient_rule,
        )

    def calibrate(self, cells: CellDataset, *, tta: bool | None = None, progress: bool = True) -> float:
        """Fit the temperature of the softmax, so that probabilities match observed frequencies (Guo et al., 2017).

        Labels at threshold 0.5 do not change. Threshold, label sets and patient rule are reset, because they were
        chosen for the previous probabilities.

        Parameters
        ----------
        cells : CellDataset
            Calibration set. Its patients must not be in the training or validation set, and should not be in the
            test set.
        tta : bool, optional
            Test-time augmentation, as in `predict`. Default: False.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The temperature, stored in the card. A value below 1 means that the network was underconfident, above 1
            overconfident.

        Raises
        ------
        DataError
            If patients of `cells` were used in `fit` (the message contains their number), or if all cells are of one
            class.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> temperature = clf.calibrate(cellscan.synthetic_cells(80, seed=0))
        >>> clf.card.decision.temperature == temperature
        True
        """
        labels = self._new_labels(cells, "a temperature")
        if len(np.unique(labels)) < 2:
            raise DataError(f"all {len(cells)} cells are {cells[0].label_name!r}; expected at least two classes")
        decision = Decision().choose(tta)
        pixels = cells.images(self.image_size, progress=progress)
        each = [
            run_all(forward, (apply_symmetry(batch, symmetry) for batch in batches(pixels))).probabilities
            for forward in (functools.partial(predict, self._task, (member,), Settings()) for member in self._members)
            for symmetry in (SYMMETRIES if decision.tta else SYMMETRIES[:1])
        ]
        return self._choose(cells, replace(decision, temperature=fit_temperature(each, labels))).temperature

    def choose_threshold(
        self,
        cells: CellDataset,
        *,
        sensitivity: float | None = None,
        specificity: float | None = None,
        tta: bool | None = None,
        progress: bool = True,
    ) -> float:
        """Choose the threshold that reaches a sensitivity or a specificity on these cells.

        The patient rule is reset, because it was chosen for the previous threshold.

        Parameters
        ----------
        cells : CellDataset
            As in `calibrate`.
        sensitivity, specificity : float, optional
            The target, in (0, 1]; pass exactly one of the two. With `sensitivity`, the result is the highest
            threshold that reaches it on these cells; with `specificity`, the lowest.
        tta : bool, optional
            Test-time augmentation, as in `predict`. Default: the value with which the other parts of the decision
            were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The threshold, stored in the card.

        Raises
        ------
        DataError
            As in `calibrate`; or if `cells` contains no cell of the class in question.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> threshold = clf.choose_threshold(cells, sensitivity=0.9)
        >>> clf.evaluate(cells).sensitivity
        0.9
        """
        positive = self._two_classes("a threshold")
        labels = self._new_labels(cells, "a threshold")
        decision = self._card.decision.choose(tta, "threshold", "patient_rule")
        scores = self._probabilities(cells, decision, progress)[:, positive]
        kinds = f"{self.class_names[positive]!r} cells", f"{self.class_names[1 - positive]!r} cells"
        infected = labels == positive
        value = choose(
            scores[infected], scores[~infected], sensitivity=sensitivity, specificity=specificity, what=kinds
        )
        if sensitivity is not None:
            # Probabilities may be exactly 1; the largest float below 1 has the same sensitivity and is a valid value.
            value = min(value, float(np.nextafter(np.float32(1), np.float32(0))))
        if value >= 1:
            raise DataError(
                f"no threshold below 1 reaches sensitivity {sensitivity}, specificity {specificity} on these cells"
            )
        return self._choose(cells, replace(decision, threshold=value)).threshold

    def conformalize(
        self, cells: CellDataset, *, alpha: float = 0.1, tta: bool | None = None, progress: bool = True
    ) -> float:
        """Choose label sets that contain the true label with probability at least 1 - `alpha` (conformal prediction).

        After this call `predict` returns a set for each image. The guarantee holds for a random cell of a new
        patient, however accurate the network is. It assumes that patients are exchangeable; cells of one patient may
        be dependent (Lee, Barber and Willett, 2023).

        Parameters
        ----------
        cells : CellDataset
            As in `calibrate`, from at least ceil(1 / alpha) - 1 patients.
        alpha : float
            The largest probability that a set lacks the true label, in (0, 1).
        tta : bool, optional
            Test-time augmentation, as in `predict`. Default: the value with which the other parts of the decision
            were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The conformal quantile, stored in the card. A set contains each label for which 1 minus its probability
            is at most this value.

        Raises
        ------
        DataError
            As in `calibrate`; or if patients are unknown; or if there are too few, with the number needed.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> cells = cellscan.synthetic_cells(200, seed=0)
        >>> quantile = clf.conformalize(cells, alpha=0.2)
        >>> clf.predict(cells)[0].label_set is None
        False
        """
        alpha = check_number("alpha", alpha, 0, 1)
        labels = self._new_labels(cells, "a conformal set", patients=True)
        decision = self._card.decision.choose(tta, "conformal")
        scores = scores_of(self._probabilities(cells, decision, progress), labels)
        quantile = fit_quantile(scores, cells.patients, alpha)
        self._choose(cells, replace(decision, conformal=Conformal(alpha=alpha, quantile=quantile)))
        return quantile

    def choose_patient_rule(
        self,
        cells: CellDataset,
        *,
        sensitivity: float | None = None,
        specificity: float | None = None,
        tta: bool | None = None,
        progress: bool = True,
    ) -> float:
        """Choose the share of positive cells at and above which a patient counts as infected.

        The reference: a patient is infected if at least one of its cells is labelled positive.

        Parameters
        ----------
        cells : CellDataset
            As in `calibrate`.
        sensitivity, specificity : float, optional
            The target, in (0, 1]; pass exactly one of the two. Sensitivity is measured over the infected patients of
            `cells`, specificity over its uninfected patients.
        tta : bool, optional
            Test-time augmentation, as in `predict`. Default: the value with which the other parts of the decision
            were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The share, stored in the card.

        Raises
        ------
        DataError
            As in `calibrate`; or if patients are unknown, or no patient of the kind in question is in `cells`.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> rule = clf.choose_patient_rule(cellscan.synthetic_cells(200, seed=0), sensitivity=0.9)
        >>> clf.card.decision.patient_rule == rule
        True
        """
        positive = self._two_classes("a patient rule")
        labels = self._new_labels(cells, "a patient rule", patients=True)
        decision = self._card.decision.choose(tta, "patient_rule")
        predicted = self._decide(self._probabilities(cells, decision, progress))
        rule = choose_rule(labels == positive, predicted == positive, cells.patients, sensitivity, specificity)
        self._choose(cells, replace(decision, patient_rule=rule))
        return rule

    @property
    def novelty_threshold(self) -> float | None:
        """Novelty above which an image counts as novel; None before `learn_novelty`.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).novelty_threshold is None
        True
        """
        return None if self._card.novelty is None else self._card.novelty.threshold

    def learn_novelty(self, cells: CellDataset, *, progress: bool = True) -> float:
        """Fit the novelty model, so that `predict` flags images that differ from these cells.

        The novelty of an image is the Mahalanobis distance, in feature space, to the cells of this set (Lee et al.,
        2018). The features are the image's colours and the channel means of every stage of the network except the
        last. The threshold is the distance within which 99 % of the cells lie, for patients left out of the fit in
        turn. An ensemble uses its first member. `fit` removes the novelty model.

        Parameters
        ----------
        cells : CellDataset
            The training cells, or cells of the same kind. At least twice as many cells are needed as the network has
            features (230 for ``"small_cnn"``). Labels are not used.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The threshold, stored in the card together with the fitted Gaussian.

        Raises
        ------
        DataError
            If there are too few cells; the message contains the number needed.
        ArgumentError
            If your own module has no method ``features(x)``.

        Notes
        -----
        A novel image differs from `cells` in any way: another stain or microscope is novel too. A cell that is not
        novel may still be misclassified.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> clf = cellscan.Classifier(image_size=16, seed=0)
        >>> threshold = clf.learn_novelty(cellscan.synthetic_cells(800, seed=0))
        >>> clf.predict(np.zeros((20, 20, 3), np.uint8))[0].novel
        True
        """
        if not isinstance(cells, CellDataset):
            raise ArgumentError(f"cells is a {type(cells).__name__}; expected a CellDataset")
        forward = functools.partial(feature_statistics, self._task, self._members[0])
        features = self._run(forward, cells, "raise", progress).rows
        novelty = learn(features, cells.patients)
        self._card = replace(self._card, novelty=novelty)
        return novelty.threshold

    def outlier_scores(self, images: Images, *, progress: bool = True, reading: Reading | None = None) -> np.ndarray:
        """Return the distance of each image from the other images of the same batch.

        White cells in a batch of red cells, for example, have high scores. The score is the distance from the median
        of the batch, in feature space. The novelty of `predict` is the distance from the training cells in the same
        features; it flags a whole batch if the stain is another. The score needs `learn_novelty`, or a bundled
        classifier. It has no threshold: sort by the score and look at the images with the highest scores.

        Parameters
        ----------
        images, progress, reading
            As in `predict`. At least 30 images, most of them of one kind.

        Returns
        -------
        (N,) float32
            Mahalanobis distances, 0 or more.

        Raises
        ------
        ArgumentError
            Before `learn_novelty`.
        DataError
            If there are fewer than 30 images.
        ImageError
            If an image cannot be read.

        Examples
        --------
        >>> import numpy as np, cellscan
        >>> clf = cellscan.Classifier(image_size=16, seed=0)
        >>> cells = cellscan.synthetic_cells(800, seed=0)
        >>> threshold = clf.learn_novelty(cells)
        >>> batch = [*(cell.image for cell in cells[:40]), np.full((40, 40, 3), (20, 90, 20), np.uint8)]
        >>> int(clf.outlier_scores(batch).argmax())
        40
        """
        novelty = self._card.novelty
        if novelty is None:
            raise ArgumentError(
                "outlier scores need the features of familiar cells; call clf.learn_novelty(cells) first"
            )
        forward = functools.partial(feature_statistics, self._task, self._members[0])
        features = self._run(forward, images, "raise", progress, reading).rows
        if len(features) < _BATCH_FOR_OUTLIERS:
            raise DataError(
                f"{len(features)} images are too few to say which are unlike the others; expected "
                f"{_BATCH_FOR_OUTLIERS} or more"
            )
        return distance_in_batch(axes_of(novelty), features)

    def _two_classes(self, what: str) -> int:
        if len(self.class_names) != 2:
            raise ArgumentError(f"{what} is for two classes; this classifier has {self.class_names}")
        if self._card.positive is None:
            raise ArgumentError(
                f"{what} needs a positive class; set it to one of {self.class_names}, such as "
                f"clf.positive_class = {self.class_names[1]!r}"
            )
        return self._card.positive

    def _new_labels(self, cells: CellDataset, what: str, *, patients: bool = False) -> np.ndarray:
        """Return the labels of the cells; raise `DataError` if their patients were used in `fit`."""
        labels = self._labels(cells, "calibration")
        count, overlap = self._card.count_overlap(cells.patients)
        if patients and not count:
            raise DataError(
                f"the patients of these cells are unknown, but {what} needs them; load the cells with patient=..."
            )
        if overlap["train"] or overlap["validation"]:
            raise DataError(
                f"{overlap['train']} of these {count} patients are in training and {overlap['validation']} in "
                f"validation; {what} needs patients that are in neither. Set some apart with cells.split(...)"
            )
        return labels

    def _probabilities(self, cells: CellDataset, decision: Decision, progress: bool) -> np.ndarray:
        """Return the probabilities with which a part of this decision is chosen."""
        forward = self._forward()
        forward = average_symmetries(forward) if decision.tta else forward
        return self._run(forward, cells, "raise", progress).rows.probabilities

    def _choose(self, cells: CellDataset, decision: Decision) -> Decision:
        self._card = replace(self._card.with_patients("decision", cells.patients), decision=decision)
        return decision

    def save(
        self, path: str | os.PathLike[str], *, report: Report | None = None, licence: str | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        """Save weights and card to one safetensors file.

        If writing fails, no partial file is left.

        Parameters
        ----------
        path : path
            The file; an existing file is overwritten.
        report : Report, optional
            A report whose metrics and intervals are stored in the card.
        licence : str, optional
            Licence of the weights, such as ``"Apache-2.0"``.
        dtype : {"float32", "float16"}
            Number type of the weights in the file. ``"float16"`` halves the file size; probabilities then differ in
            the third digit.

        Raises
        ------
        ArgumentError
            If an argument is invalid.
        ModelFileError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile, pathlib, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> cellscan.Classifier(image_size=32).save(path, licence="Apache-2.0")
        >>> cellscan.Classifier.load(path).card.licence
        'Apache-2.0'
        """
        if not (report is None or isinstance(report, Report)):
            raise ArgumentError(f"report is {report!r:.80}; expected a Report, which evaluate(...) returns")
        cards.save(path, self._card, self._members, None if report is None else report.to_dict(), licence, dtype)

    def push_to_hub(
        self, address: str, *, report: Report | None = None, licence: str | None = None, dtype: str = "float32",
        private: bool = True, token: str | None = None,
    ) -> str:  # fmt: skip
        """Save the classifier to a repository on the Hugging Face hub, with its card as the README.

        One commit replaces the model file and the whole README. Needs the extra ``hub``.

        Parameters
        ----------
        address : str
            ``"owner/name"``, with or without ``hf://`` before it. ``"owner/name@branch"`` writes to a branch, and
            ``"owner/name/file.safetensors"`` to another file than ``model.safetensors``. A missing repository or
            branch is made.
        report, licence, dtype
            As in `save`. Without a licence, nobody may use the weights.
        private : bool
            Whether a new repository is private; an existing one stays as it is. The file contains salted hashes of
            patient ids; make it public only if nobody can guess these ids, or if they are not secret.
        token : str, optional
            Access token with write access. Default: the stored one, of ``hf auth login`` or ``HF_TOKEN``.

        Returns
        -------
        str
            The address of this version for `load`, such as ``"hf://owner/name@<commit>"``.

        Raises
        ------
        ArgumentError
            If an argument is invalid.
        MissingExtraError
            If the extra ``hub`` is not installed.
        ModelFileError
            If there is no permission or no connection. The repository is then unchanged, or new and empty.

        Examples
        --------
        >>> clf.push_to_hub("owner/name", licence="Apache-2.0")  # doctest: +SKIP
        'hf://owner/name@0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c'
        """
        return publish(
            address, lambda path: self.save(path, report=report, licence=licence, dtype=dtype), private=private,
            token=token,
        )  # fmt: skip

    def export(self, path: str | os.PathLike[str], *, platforms: Sequence[str] = ("cpu", "cuda")) -> None:
        """Export the classifier to an ONNX or StableHLO file that runs without this library.

        The exported function takes RGB images (N, S, S, 3) uint8 and returns probabilities (N, K), for any N. It
        contains the background rule, the normalisation, the temperature and the average over members.

        A script beside the file, such as ``model.onnx.py``, contains the rest: it decodes and resizes images and
        runs the file, without this library. The card is stored in the metadata of an ONNX file under the key
        ``cellscan``, or in ``model.stablehlo.json`` beside a StableHLO file. Threshold, label sets and novelty are
        in the card only; the exported function does not apply them.

        Parameters
        ----------
        path : path
            The file; its suffix selects the format. An existing file is overwritten. Both formats need the extra
            ``export``. ``.onnx``: for ONNX runtimes; needs Python 3.12 or newer. ``.stablehlo``: for a process with
            flatbuffers and JAX, of this version or up to half a year newer.
        platforms : sequence of str
            Platforms of a StableHLO file: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.

        Raises
        ------
        ArgumentError
            If the suffix is neither ``.onnx`` nor ``.stablehlo``, or a platform is unknown.
        MissingExtraError
            If the extra ``export`` is not installed.
        ModelFileError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile, jax, numpy as np, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.stablehlo"
        >>> clf = cellscan.Classifier.pretrained()
        >>> clf.export(path)
        >>> images = np.zeros((5, 96, 96, 3), np.uint8)
        >>> out = jax.export.deserialize(path.read_bytes()).call(images)
        >>> bool(np.allclose(out, clf.predict_proba(images), atol=1e-5))
        True
        """
        known = ("cpu", "cuda", "rocm", "tpu")
        chosen = as_list("platforms", platforms, ordered=False)
        for platform in chosen or [None]:
            check_choice("platforms", platform, known)
        export(path, self._task, self._members, self._card, tuple(chosen))

    @classmethod
    def pretrained(cls, name: str | None = None) -> Classifier:
        """Load a bundled model; needs no internet connection.

        For research use only: not a medical device.

        Parameters
        ----------
        name : str, optional
            ``"malaria_squeezenet"``, the only bundled classifier and the default: SqueezeNet 1.1, pretrained on
            ImageNet and fine-tuned on the NIH malaria cells at 96 px. ``card.metrics`` contains its metrics on
            patients and fields that were not used in training.

        Returns
        -------
        Classifier
            With the classes ``("parasitized", "uninfected")``, a fitted temperature, the threshold 0.5 and the novelty
            model. The weights are in the package.

        Raises
        ------
        ArgumentError
            If the name is unknown.

        Examples
        --------
        >>> import cellscan
        >>> clf = cellscan.Classifier.pretrained()
        >>> clf.class_names, clf.image_size
        (('parasitized', 'uninfected'), 96)
        """
        with cards.bundled(name, _PRETRAINED) as path:
            return cls.load(path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, model: nnx.Module | None = None, token: str | None = None
    ) -> Classifier:
        """Load a classifier from a file that `save` wrote, or from the Hugging Face hub, without pickle.

        Parameters
        ----------
        path : path or str
            The file; or an address on the Hugging Face hub, which needs the extra ``hub``: ``"hf://owner/name"`` is the
            file ``model.safetensors`` of a repository, ``"hf://owner/name/file.safetensors"`` another file, and
            ``"hf://owner/name@revision"`` a branch, tag or commit. It is downloaded once.
        model : flax.nnx.Module, optional
            Required if the classifier was built on your own module: a module of the same shape. The loaded
            classifier uses a copy with the weights of the file.
        token : str, optional
            Access token for a private repository. Default: the stored one, of ``hf auth login`` or ``HF_TOKEN``.

        Returns
        -------
        Classifier
            With the weights and the card of the file.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged, not from cellscan, or from a newer cellscan; or if its tensors do
            not fit the network; the message lists those tensors. On the hub: if there is no such repository, revision
            or file, no permission, or no connection.
        ArgumentError, MissingExtraError
            If the address is not valid, or the extra ``hub`` is not installed.

        Examples
        --------
        >>> import tempfile, pathlib, numpy as np, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> clf = cellscan.Classifier(image_size=32, seed=3)
        >>> clf.save(path)
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> bool((cellscan.Classifier.load(path).predict_proba(image) == clf.predict_proba(image)).all())
        True
        """
        card, tensors = cards.read(path, token)
        if card.detection is not None:
            raise ModelFileError(f"{path}: contains a detector ({card.architecture}); load it with Detector.load")
        custom = card.architecture.startswith("own:")
        if custom and model is None:
            raise ModelFileError(
                f"{path}: was saved with a user's own module ({card.architecture[4:]}); pass a module of the same "
                "shape: Classifier.load(path, model=...)"
            )
        if not custom and model is not None:
            raise ModelFileError(f"{path}: was saved with the network {card.architecture!r}; leave model= out")
        try:
            module: Any = model
            if model is None:
                module, _ = build(card.architecture, len(card.class_names), weights=None, seed=0, pooled=True)
            network = Network(module)
            check_names("class_names", card.class_names, 2)
            _check_positive(card.positive_class, card.class_names)
        except ArgumentError as error:
            raise ModelFileError(f"{path}: {error}") from error
        members = network.fill(card.n_members, tensors, os.fspath(path))
        return cls._with(network, members, card)


@dataclass(frozen=True)
class _Open:
    """Constructor arguments, for a `fit` that takes the classes of its training set."""

    weights: str | os.PathLike[str] | None
    positive_class: str | None


def _check_positive(positive_class: str | None, class_names: tuple[str, ...]) -> str | None:
    by_fold = {name.casefold(): name for name in class_names}
    if positive_class is None:
        return by_fold.get("parasitized")
    if not isinstance(positive_class, str) or positive_class.casefold() not in by_fold:
        raise ArgumentError(f"positive_class is {positive_class!r}; expected one of {class_names}")
    return by_fold[positive_class.casefold()]


def make_members(model: str | nnx.Module, seeds: Sequence[int], **options: Any) -> list[Classifier]:
    """Return classifiers that differ only in their seed.

    All use one salt for patient hashes, so that an ensemble of them can compute its patient overlap.
    """
    salt = cards.new_salt()
    members = [Classifier(model, seed=seed, **options) for seed in seeds]
    for clf in members:
        clf._card = replace(clf.card, salt=salt)
    return members


def are_small(members: Sequence[Classifier]) -> bool:
    """Return whether members are vectorized by default: with exactly one accelerator and small networks."""
    size = sum(leaf.size for leaf in members[0]._members[0]["params"].values())
    return jax.device_count() == 1 and jax.default_backend() != "cpu" and size <= SMALL


def fit_vectorized(
    members: Sequence[Classifier],
    cells: CellDataset,
    rows: Sequence[np.ndarray],
    *,
    call: Call,
    recipe: Recipe,
) -> None:
    """Train all members as one program, each on its rows of the cells, and set the weights of each.

    Members must come from `make_members`.
    """
    first, training_sets = members[0], [cells.select(indices) for indices in rows]
    task, recipe = first._trained_by(recipe)
    options = call.options(recipe)
    after = [
        clf.card.trained_on(part.patients, options, {"train": part.to_dict(), "validation": None})
        for clf, part in zip(members, training_sets, strict=True)
    ]
    plan: dict[str, Any] = {**first.card.kind(), "recipe": options}
    plan |= {f"member{number}": {"seed": card.seed, **card.data} for number, card in enumerate(after)}
    if call.checkpoint is not None:
        plan["rows"] = cells.fingerprint()
    for at in run_vectorized(
        task,
        [clf._members[0] for clf in members],
        Examples(cells.images(first.image_size, progress=call.progress), cells.labels),
        rows,
        [clf.card.seed for clf in members],
        recipe=recipe,
        epochs=call.epochs,
        batch_size=call.batch_size,
        class_names=cells.class_names,
        checkpoint=call.open(plan),
        progress=call.progress,
    ):
        for number, (clf, card) in enumerate(zip(members, after, strict=True)):
            record: dict[str, Any] = dict(at.records[-1])
            last = {name: record[name][number] for name in ("loss", "accuracy")}
            card = replace(card, epochs=len(at.records), metrics={"fit": {"epoch": len(at.records), **last}})
            clf._set(clf._task.network, (unstack(at.kept, number),), card)
