"""`Classifier`: one object that is trained, predicts, evaluates, and is saved."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cellscan import card as cards
from cellscan.card import Card
from cellscan.data.cells import CellDataset
from cellscan.data.images import PIXEL_LIMIT
from cellscan.data.inputs import Images
from cellscan.data.joining import match_labels
from cellscan.data.reading import Reading
from cellscan.data.values import as_list, check_number, check_seed
from cellscan.decisions.conformal import Conformal, fit_quantile, label_sets, scores_of
from cellscan.decisions.decision import Decision, decide
from cellscan.decisions.novelty import Axes, axes_of, distance_in_batch, learn
from cellscan.errors import ArgumentError, DataError, ModelFileError, check_choice, check_names
from cellscan.evaluate.calibration import fit_temperature
from cellscan.evaluate.report import PatientOverlap, Report, make_report
from cellscan.evaluate.thresholds import choose, choose_rule
from cellscan.explain import METHODS, Explanations, explain
from cellscan.export import export
from cellscan.inference import SYMMETRIES, Ran, apply_symmetry, average_symmetries, run_images
from cellscan.models.network import Network, weights_of
from cellscan.models.pretrained import Loaded
from cellscan.models.registry import build, find
from cellscan.predictions import Predictions
from cellscan.preprocessing import BACKGROUNDS, Normalization
from cellscan.tasks.batches import Forward, batches, run_all, run_batch
from cellscan.tasks.classification import ClassificationTask, Settings, embed, feature_statistics
from cellscan.tasks.programs import Members, predict, trained_by
from cellscan.tasks.recipe import Recipe, as_recipe, class_weights, with_rate
from cellscan.training.checkpoint import hash_weights
from cellscan.training.devices import Examples
from cellscan.training.frozen import make_frozen
from cellscan.training.history import History
from cellscan.training.loop import Call
from cellscan.training.loop import train as run_fit
from cellscan.training.vectorized import SMALL, run_vectorized, unstack

if TYPE_CHECKING:
    from flax import nnx

_PRETRAINED = ("malaria_squeezenet",)


_BATCH_FOR_OUTLIERS = 30
"""Images from which their median and spread mean something."""

_DEFAULT_CLASSES = ("parasitized", "uninfected")
"""Of a classifier that was given none, until `fit` takes those of the training set."""


class Classifier:
    """A network with everything it needs to predict an image: size, background, normalisation, classes, threshold.

    For research use only: not a medical device.

    Parameters
    ----------
    model : str or flax.nnx.Module
        A name of `cellscan.list_backbones()`, which gets a new head; or your own module, which is called
        with (N, S, S, 3) float32 in [-1, 1] and returns (N, K) logits. It is copied; if it has a method
        ``features(x)`` that returns a dictionary with ``"pre_logits"``, `embed` works.
    weights : str or path, optional
        Published weights for all but the head: ``"imagenet"``, downloaded once (extra ``hub``);
        ``"hf://owner/name"``; or the path of a .safetensors file with the names of timm. The normalisation
        that they expect comes with them. Left out, weights are fresh.
    image_size : int
        Side of the square that every image is stretched to, in pixels; each network has its least.
    background : {"fill", "keep", "silhouette"}
        What the network is shown. ``"fill"``: the black background takes the cell's mean colour, and
        an image without background stays as it is. ``"keep"``: as stored. ``"silhouette"``: the silhouette
        alone, a baseline. A network that is shown the black background is right on these cells and
        calls nearly every cell of another laboratory parasitized.
    class_names : sequence of str, optional
        In the order of the network's outputs. Left out, the first `fit` takes those of its training set, however
        many; until then they are ``("parasitized", "uninfected")``.
    positive_class : str, optional
        The class that threshold, sensitivity and specificity speak of. Left out, it is ``"parasitized"`` where there
        is one; with two other classes there is none until the attribute `positive_class` is set.
    seed : int
        Of the first weights, the order of images and the augmentation.

    Raises
    ------
    ArgumentError
        For an unknown name, too small a size, or a module that does not give one logit a class.
    ModelFileError
        Where the published weights are not there, or do not fit; everything that does not is named.

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
                positive_class = None  # it is one of those that `fit` takes
        class_names = check_names("class_names", class_names, 2)
        check_choice("background", background, BACKGROUNDS)
        least = find(model).least_size if isinstance(model, str) else 8
        if isinstance(image_size, bool) or not isinstance(image_size, (int, np.integer)) or image_size < least:
            what = f"{model} takes" if isinstance(model, str) else "expected"
            raise ArgumentError(f"image_size is {image_size!r}; {what} a whole number of pixels, {least} or more")
        if image_size**2 > PIXEL_LIMIT:
            raise ArgumentError(f"image_size is {image_size}; an image has at most {PIXEL_LIMIT:,} pixels")
        loaded = Loaded(Normalization())
        if isinstance(model, str):
            module, loaded = build(model, len(class_names), weights=weights, seed=check_seed(seed), pooled=True)
        elif weights is not None:
            raise ArgumentError("weights are for a network with a name; your own module brings its own: leave them out")
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
        """What this classifier is and how it came about; kept in the file.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).card.resize
        {'filter': 'bilinear', 'fit': 'stretch'}
        """
        return self._card.copy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the columns of `predict_proba`.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).class_names
        ('parasitized', 'uninfected')
        """
        return self._card.class_names

    @property
    def positive_class(self) -> str | None:
        """The class that the threshold speaks of; None where there is none; settable.

        Another class takes threshold and patient rule away, which were chosen for the old one.

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
        assert isinstance(size, int)  # a detector's is a pair
        return size

    @property
    def threshold(self) -> float | None:
        """P(positive class) from which a cell is positive; settable; None unless one of two classes is positive.

        A new threshold takes the patient rule away, which was chosen for the old one.

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
                f"with {len(self.class_names)} classes the label is the likeliest; there is no threshold"
            )
        self._two_classes("a threshold")
        self._card = replace(self._card, decision=replace(self._card.decision, threshold=value, patient_rule=None))

    @property
    def fingerprint(self) -> str:
        """Hash of the weights: two classifiers of one kind with the same one predict alike, up to their decisions.

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

        An ensemble has several: see `members`.

        Examples
        --------
        >>> import cellscan, jax.numpy as jnp
        >>> cellscan.Classifier(image_size=32).model(jnp.zeros((1, 32, 32, 3))).shape
        (1, 2)
        """
        if len(self._members) != 1:
            raise ArgumentError(
                f"an ensemble of {len(self._members)} networks is no single one; take .members[0].model"
            )
        return self._task.network.module(self._members[0])

    @property
    def members(self) -> tuple[Classifier, ...]:
        """The networks whose probabilities are averaged, a classifier each, with this one's card.

        Examples
        --------
        >>> import cellscan
        >>> len(cellscan.Classifier(image_size=32).members)
        1
        """
        first = replace(self._card, n_members=1)
        others = replace(first, novelty=None)  # what is novel is known of the first one's features
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
        """Join classifiers into one that averages their probabilities.

        Parameters
        ----------
        members : sequence of Classifier
            Of one architecture, size, background, normalisation and classes. Temperature, threshold and rules
            are reset. Its patient overlap is known where all members come from one
            `cellscan.cross_validate`; of others the patients count as unknown.

        Raises
        ------
        ArgumentError
            Where they differ, saying in what.

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
            raise ArgumentError("there are no members; expected at least one classifier")
        if not all(isinstance(member, Classifier) for member in members):
            raise ArgumentError(f"members is {members!r:.80}; expected classifiers")
        first = members[0].card
        kinds = [m.card.kind() for m in members]
        differ = [name for name, value in kinds[0].items() if any(kind[name] != value for kind in kinds)]
        if differ:
            raise ArgumentError(f"the members differ in {', '.join(differ)}; expected the same of all")
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
        """Print the network: its parts, the shapes they give for one image, and their parameters.

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
        """Train from the current weights, with a fresh optimiser, on all devices that JAX has.

        Temperature, threshold, label sets and patient rule are reset: they were chosen for other weights.

        Stopped by Ctrl-C, the classifier keeps the last whole epoch, and so does the checkpoint.

        Parameters
        ----------
        train : CellDataset
            Its classes are matched to `class_names` by name, case-folded. A classifier that was given no
            `class_names`, and is not trained yet, takes those of this set, in their order.
        validation : CellDataset, optional
            Evaluated after every epoch; use other patients than in `train`.
        epochs, batch_size : int
            Each at least 1. Every epoch shows every image, in a new order; the last batch is filled
            up with images of the same epoch.
        recipe : Recipe, optional
            How to train.
        checkpoint : path, optional
            A folder of this training's own; its state is written there after every epoch, whole or not
            at all.
        resume : bool
            Go on where the checkpoint stands; call `fit` as the first time otherwise. A training that
            was killed and resumed ends, on the same machine, with the same bits as one that was not.
            Without a checkpoint it starts; where all epochs are done, it returns at once.
        progress : bool
            A bar on a terminal, a line an epoch elsewhere.

        Returns
        -------
        History
            The learning curve, of all epochs since the training began.

        Raises
        ------
        ArgumentError
            Where the checkpoint folder is in use and `resume` is False, or holds a training with another
            recipe, data set or network; every difference is named.
        DataError
            Where classes do not match, or `train` has one class only.
        ModelFileError
            Where the checkpoint is damaged or cannot be written; the one before it stays.
        TrainingError
            Where the loss is no longer finite; the last good weights are kept.

        Examples
        --------
        >>> import cellscan
        >>> cells = cellscan.synthetic_cells(80, seed=0)
        >>> clf = cellscan.Classifier(image_size=32, seed=0)
        >>> clf.fit(cells, epochs=1, recipe=cellscan.Recipe(augment="none"), progress=False)
        History(epochs=1)
        """
        recipe = as_recipe(recipe)
        call = Call(epochs, batch_size, checkpoint, resume, progress)
        if recipe.patience is not None and validation is None:
            raise ArgumentError("the recipe's patience watches a validation set; pass validation=...")
        if len(self._members) != 1:
            raise ArgumentError("an ensemble cannot be trained further; train its members")
        self._take_classes(train)
        examples = self._examples(train, "train", progress)
        if len(np.unique(examples.labels)) < 2:
            raise DataError(
                f"all {len(train)} cells to train on are {train[0].label_name!r}; expected at least two classes"
            )
        checked = None if validation is None else self._examples(validation, "validation", progress)
        if recipe.monitor == "roc_auc" and recipe.patience and (checked is None or self._card.positive is None
                                                                or len(np.unique(checked.labels)) < 2):  # fmt: skip
            raise ArgumentError('monitor "roc_auc" needs a positive class, and both classes in the validation set')
        network, (weights,), data = self._task.network, self._members, {"train": train.to_dict(), "validation": None}
        task, recipe = self._trained_by(recipe)
        frozen = make_frozen(task, self._task, weights, next(batches(examples.pixels)))
        if validation is not None:
            data["validation"] = validation.to_dict()
        after = self._card.trained_on(train.patients, call.options(recipe), data)
        plan: dict[str, Any] = {}
        if checkpoint is not None:  # else nobody asks, and it takes reading every file
            plan["rows"] = [part.fingerprint() for part in (train, validation) if part is not None]
            if frozen is not None:
                plan["backbone"] = frozen.digest()
        if validation is not None:
            after = after.with_patients("validation", validation.patients)
        constants = class_weights(recipe, examples.labels, self.class_names)
        sets = examples, checked
        if frozen is None:
            return run_fit(
                call, self._card, after, task, self._task, weights, sets, recipe=recipe, constants=constants,
                keep=lambda kept, card: self._set(network, (kept,), card), plan=plan,
            )  # fmt: skip
        return run_fit(
            call, self._card, after, frozen.task, frozen.predict_task, frozen.head, sets, recipe=recipe,
            constants=constants, keep=lambda kept, card: self._set(network, (frozen.join(kept),), card),
            features=frozen.features, plan=plan,
        )  # fmt: skip

    def _take_classes(self, train: CellDataset) -> None:
        """Take the classes of the first training set, where none were given; more or fewer ask for another head."""
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
        """Return the task as a recipe trains it, and the recipe with its learning rate."""
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
        """Predict images; safe to call from several threads.

        Images are stretched to `image_size` by the same rule as in training, however they come.

        Parameters
        ----------
        images : image, or many
            A path, a Pillow image, an array (H, W, 3) or (N, H, W, 3) of uint8, uint16 or floats in
            [0, 1]; a `CellDataset`; a folder, searched with its sub-folders; or a list or generator
            of single images, mixed as they come. A generator is read as it goes, in bounded memory.
        tta : bool, optional
            Test-time augmentation: average the probabilities over the square's eight symmetries, for
            eight times the work. Left out, as temperature, threshold, sets and rule were chosen (``False`` where
            none was); another value than theirs warns.
        on_error : {"raise", "skip"}
            ``"skip"``: an image that cannot be read is noted in `Predictions.failed`.
        progress : bool
            Show a bar if it takes longer than two seconds.
        reading : Reading, optional
            Page, channel and window of images that do not say them, as they were stated for the training set. A
            `CellDataset` has its own.

        Returns
        -------
        Predictions
            Always a sequence, also for one image.

        Raises
        ------
        ImageError
            Where an image cannot be read, under ``on_error="raise"``.

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
        """Return what runs on a batch of images: probabilities, and novelty where axes are given."""
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
            In [0, 1], rows sum to 1; columns in the order of `class_names`.

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
        """Return the last features of every image, before the head.

        Parameters
        ----------
        images, progress, reading
            As in `predict`.

        Returns
        -------
        (N, D) float32

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
        """Show what speaks for a label, pixel by pixel.

        A map says where the network looks, not whether it is right, and not why a cell is infected.

        Parameters
        ----------
        images
            As in `predict`; all of them are kept at their own size.
        method : {"integrated_gradients", "gradcam", "occlusion"}
            ``"integrated_gradients"``: the gradient of the label's logit along the way from an image that is
            everywhere of this one's mean colour; of the three it finds synthetic parasites best.
            ``"gradcam"``: the last features that have a place, weighted by the gradient; coarse, and the quickest.
            ``"occlusion"``: what the logit loses where a window takes the mean colour; coarse, and needs no gradient.
        label : str, optional
            The class to explain; left out, that which `predict` gives each image.
        progress, reading
            As in `predict`.

        Returns
        -------
        Explanations
            A sequence of `Explanation`, in the order of the images.

        Raises
        ------
        ArgumentError
            For an unknown method or class; and for ``"gradcam"`` of your own module without spatial features.
        ImageError
            Where an image cannot be read.

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
        """Count every cell once, with 95 % intervals by bootstrap over patients.

        Parameters
        ----------
        cells : CellDataset
            Its classes are matched by name, case-folded; its patients should be new to the classifier,
            and the report says in its first line whether they are.
        without : sequence of str, optional
            Names of cells to leave out, such as those whose label experts dispute; names of other cells
            are passed over.
        tta, progress
            As in `predict`.

        Returns
        -------
        Report

        Raises
        ------
        DataError
            Where classes do not match.

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
        """Fit the temperature, so that probabilities mean what they say; labels at 0.5 stay as they are.

        Threshold, label sets and patient rule are reset: they were chosen for other probabilities.

        Parameters
        ----------
        cells : CellDataset
            Of patients that are neither in the training nor in the validation set, nor in the test set.
        tta : bool, optional
            Test-time augmentation, as in `predict`. Left out, as the other parts of the decision were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The temperature, kept in the card: below 1 the network was not sure enough, above 1 too sure.
            Guo et al. (2017).

        Raises
        ------
        DataError
            Where patients overlap with those of `fit`, saying how many; or all cells are of one class.

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
        alone = [
            run_all(forward, (apply_symmetry(batch, symmetry) for batch in batches(pixels))).probabilities
            for forward in (functools.partial(predict, self._task, (member,), Settings()) for member in self._members)
            for symmetry in (SYMMETRIES if decision.tta else SYMMETRIES[:1])
        ]
        return self._choose(cells, replace(decision, temperature=fit_temperature(alone, labels))).temperature

    def choose_threshold(
        self,
        cells: CellDataset,
        *,
        sensitivity: float | None = None,
        specificity: float | None = None,
        tta: bool | None = None,
        progress: bool = True,
    ) -> float:
        """Choose the operating point of a cell; the patient rule is reset.

        Parameters
        ----------
        cells : CellDataset
            As in `calibrate`.
        sensitivity, specificity : float, optional
            Exactly one of them, in (0, 1]: the highest threshold that reaches this sensitivity over these cells,
            or the lowest that reaches this specificity.
        tta : bool, optional
            Test-time augmentation, as in `predict`. Left out, as the other parts of the decision were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The threshold, kept in the card.

        Raises
        ------
        DataError
            As in `calibrate`, and where the class in question is missing.

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
        sick = labels == positive
        value = choose(scores[sick], scores[~sick], sensitivity=sensitivity, specificity=specificity, what=kinds)
        if sensitivity is not None:  # probabilities may be 1 to the last bit; the line below them keeps its word too
            value = min(value, float(np.nextafter(np.float32(1), np.float32(0))))
        if value >= 1:
            raise DataError(
                f"the scores leave no threshold below 1 for sensitivity {sensitivity}, specificity {specificity}"
            )
        return self._choose(cells, replace(decision, threshold=value)).threshold

    def conformalize(
        self, cells: CellDataset, *, alpha: float = 0.1, tta: bool | None = None, progress: bool = True
    ) -> float:
        """Let `predict` return sets of labels that lack the true one for a share `alpha` of cells at most.

        The share is that of a random cell of a new patient, and holds whatever the network is worth: patients
        are exchangeable, cells of one patient are not independent. Lee, Barber and Willett (2023).

        Parameters
        ----------
        cells : CellDataset
            As in `calibrate`; of at least ceil(1 / alpha) - 1 patients.
        alpha : float
            In (0, 1).
        tta : bool, optional
            Test-time augmentation, as in `predict`. Left out, as the other parts of the decision were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            A label belongs to the set where 1 minus its probability is at most this; kept in the card.

        Raises
        ------
        DataError
            As in `calibrate`; where patients are unknown, or too few, saying how many are needed.

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
        """Choose the share of positive cells from which a patient counts as infected.

        In truth a patient is infected where any of its cells is labelled positive.

        Parameters
        ----------
        cells : CellDataset
            As in `calibrate`.
        sensitivity, specificity : float, optional
            Exactly one of them, in (0, 1]: over these infected patients, or over these healthy donors.
        tta : bool, optional
            Test-time augmentation, as in `predict`. Left out, as the other parts of the decision were chosen.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The share, kept in the card.

        Raises
        ------
        DataError
            As in `calibrate`; where patients are unknown, or none of the kind in question is there.

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
        called = self._decide(self._probabilities(cells, decision, progress))
        rule = choose_rule(labels == positive, called == positive, cells.patients, sensitivity, specificity)
        self._choose(cells, replace(decision, patient_rule=rule))
        return rule

    @property
    def novelty_threshold(self) -> float | None:
        """Distance from familiar cells above which an image is novel; None before `learn_novelty`.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Classifier(image_size=32).novelty_threshold is None
        True
        """
        return None if self._card.novelty is None else self._card.novelty.threshold

    def learn_novelty(self, cells: CellDataset, *, progress: bool = True) -> float:
        """Learn what familiar cells look like, so that `predict` says which images are not like them.

        An image's novelty is the Mahalanobis distance of its colours and of the means of the network's stages, but
        the last, to those of `cells` (Lee et al., 2018). The threshold is the distance that 99 of 100 cells pass,
        of patients who are left out in turn. It says "not like these": another stain or microscope is novel too,
        and a cell that is not novel may still be misclassified. Of an ensemble the first member looks. `fit`
        forgets it.

        Parameters
        ----------
        cells : CellDataset
            Those trained on, or others of their kind; at least twice as many as the features that the network
            has of an image (230 for ``"small_cnn"``). Their labels do not matter.
        progress : bool
            As in `predict`.

        Returns
        -------
        float
            The threshold, kept in the card with what was learned.

        Raises
        ------
        DataError
            For too few cells, saying how many are needed.
        ArgumentError
            Where your own module has no method ``features(x)``.

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
        """Return how far each image is from the others of the same batch, such as white cells among red cells.

        The novelty of `predict` measures the distance from the cells of training, so that it flags a whole batch of
        another stain. This score measures the distance from the median of the batch, in the same features. It needs
        `learn_novelty`, or a bundled classifier. There is no threshold: sort by the score and look at the highest.

        Parameters
        ----------
        images, progress, reading
            As in `predict`; 30 images or more, most of which are of one kind.

        Returns
        -------
        (N,) float32
            Mahalanobis distances, 0 or more.

        Raises
        ------
        ArgumentError
            Before `learn_novelty`.
        DataError
            For fewer than 30 images.
        ImageError
            Where an image cannot be read.

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
                f"{what} needs to know which of {self.class_names} is positive; say so first, such as "
                f"clf.positive_class = {self.class_names[1]!r}"
            )
        return self._card.positive

    def _new_labels(self, cells: CellDataset, what: str, *, patients: bool = False) -> np.ndarray:
        """Return labels of cells of patients that `fit` did not see, or refuse."""
        labels = self._labels(cells, "calibration")
        count, overlap = self._card.count_overlap(cells.patients)
        if patients and not count:
            raise DataError(f"the patients of these cells are unknown; {what} needs them. Load cells with patient=...")
        if overlap["train"] or overlap["validation"]:
            raise DataError(
                f"{overlap['train']} of these {count} patients are in training and {overlap['validation']} in "
                f"validation; {what} is chosen on patients of neither. Set some apart with cells.split(...)"
            )
        return labels

    def _probabilities(self, cells: CellDataset, decision: Decision, progress: bool) -> np.ndarray:
        """Return probabilities by which a part of this decision is chosen."""
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
        """Write weights and card to one safetensors file, whole or not at all.

        Parameters
        ----------
        path : path
            Overwritten where it exists.
        report : Report, optional
            Its metrics and intervals go into the card.
        licence : str, optional
            Of the weights, such as ``"Apache-2.0"``.
        dtype : {"float32", "float16"}
            Of the weights in the file. ``"float16"`` halves the file, for probabilities that differ in the third digit.

        Examples
        --------
        >>> import tempfile, pathlib, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> cellscan.Classifier(image_size=32).save(path, licence="Apache-2.0")
        >>> cellscan.Classifier.load(path).card.licence
        'Apache-2.0'
        """
        if not (report is None or isinstance(report, Report)):
            raise ArgumentError(f"report is {report!r:.80}; expected a Report, such as evaluate(...) returns")
        cards.save(path, self._card, self._members, None if report is None else report.to_dict(), licence, dtype)

    def export(self, path: str | os.PathLike[str], *, platforms: Sequence[str] = ("cpu", "cuda")) -> None:
        """Write a program that runs without this library: RGB uint8 (N, S, S, 3) in, probabilities (N, K) out.

        Background, normalisation, temperature and the average over members are inside; any N goes. What stays
        outside, decoding and the resize rule, stands in a script beside the file, such as ``model.onnx.py``:
        it runs the file on images without this library. The card goes into an ONNX file's metadata under
        ``cellscan``, and into ``model.stablehlo.json`` beside a StableHLO file. Threshold, label sets and novelty
        are in the card alone.

        Parameters
        ----------
        path : path
            Both need the extra ``export``. ``.onnx``: for ONNX runtimes; on Python 3.12 or newer. ``.stablehlo``: for a
            process that has flatbuffers and JAX, of this version or up to half a year newer. Overwritten where it
            exists.
        platforms : sequence of str
            Of a StableHLO file.

        Raises
        ------
        ArgumentError
            For another suffix.
        MissingExtraError
            Where what writes such a file is not installed.
        ModelFileError
            Where the file cannot be written.

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
        chosen = as_list("platforms", platforms)
        for one in chosen or [None]:
            check_choice("platforms", one, known)
        export(path, self._task, self._members, self._card, tuple(chosen))

    @classmethod
    def pretrained(cls, name: str | None = None) -> Classifier:
        """Load a classifier that comes with the library; no network is needed.

        For research use only: not a medical device.

        Parameters
        ----------
        name : str, optional
            ``"malaria_squeezenet"``, the only one and the default: SqueezeNet 1.1 from ImageNet at 96 px, fine-tuned
            on the NIH malaria cells. ``card.metrics`` has its metrics, on patients and fields not in training.

        Raises
        ------
        ArgumentError
            For an unknown name.

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
    def load(cls, path: str | os.PathLike[str], *, model: nnx.Module | None = None) -> Classifier:
        """Read a file that `save` wrote; nothing is ever unpickled.

        Parameters
        ----------
        path : path
            The file.
        model : flax.nnx.Module, optional
            Needed where the classifier was built on your own module: one of the same shape, whose
            weights are replaced.

        Raises
        ------
        ModelFileError
            Where the file is missing, damaged, foreign, or made by a newer cellscan, or its tensors do
            not fit the network; every one that does not is named.

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
        card, tensors = cards.read(path)
        if card.detection is not None:
            raise ModelFileError(f"{path}: holds a detector ({card.architecture}); read it with Detector.load")
        own = card.architecture.startswith("own:")
        if own and model is None:
            raise ModelFileError(
                f"{path}: made with a network of its own ({card.architecture[4:]}); pass one of the same shape: "
                "Classifier.load(path, model=...)"
            )
        if not own and model is not None:
            raise ModelFileError(f"{path}: made with {card.architecture!r}; leave model= out")
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
    """What a classifier was made with, for the `fit` that takes the classes of its training set."""

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
    """Make classifiers that differ in their seed alone, and hash patients alike, so that an ensemble knows them."""
    salt = cards.new_salt()
    members = [Classifier(model, seed=seed, **options) for seed in seeds]
    for clf in members:
        clf._card = replace(clf.card, salt=salt)
    return members


def are_small(members: Sequence[Classifier]) -> bool:
    """Return whether these are vectorized where nothing else is said: on one accelerator, and not too large."""
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
    """Train all members as one program, each on its rows of the cells, and let each take its weights.

    Members are as `make_members` gives them.
    """
    first, shown = members[0], [cells.select(own) for own in rows]
    task, recipe = first._trained_by(recipe)
    options = call.options(recipe)
    after = [
        clf.card.trained_on(part.patients, options, {"train": part.to_dict(), "validation": None})
        for clf, part in zip(members, shown, strict=True)
    ]
    plan: dict[str, Any] = {**first.card.kind(), "recipe": options}
    plan |= {f"member{place}": {"seed": card.seed, **card.data} for place, card in enumerate(after)}
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
        for place, (clf, card) in enumerate(zip(members, after, strict=True)):
            record: dict[str, Any] = dict(at.records[-1])
            last = {name: record[name][place] for name in ("loss", "accuracy")}
            card = replace(card, epochs=len(at.records), metrics={"fit": {"epoch": len(at.records), **last}})
            clf._set(clf._task.network, (unstack(at.kept, place),), card)
