"""`Detector`: a model that finds the cells of a field, with the same methods as `Classifier` where they apply."""

from __future__ import annotations

import functools
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscan import card as cards
from cellscan.card import Card
from cellscan.confirming import add_evidence, check_classifier, confirm, name_classifier, rules_with
from cellscan.data.fields import FieldDataset
from cellscan.data.images import FIT, PIXEL_LIMIT
from cellscan.data.inputs import Images, Item, decode, list_items
from cellscan.data.values import as_list, as_path, check_number, check_seed
from cellscan.detection.anchors import Anchors, fit_anchors
from cellscan.detection.diameter import measure_diameter
from cellscan.detection.ground import Ground, find_ground, measure_coverage
from cellscan.detection.likeness import describe_field, learn_likeness
from cellscan.detection.rules import DetectionConfig
from cellscan.detection.tiling import Tiling, as_trained, plan_tiles
from cellscan.detections import Detections, FieldDetections, SeenImage
from cellscan.errors import ArgumentError, DataError, ImageError, ModelFileError, check_choice, check_names
from cellscan.evaluate.detection import DetectionReport, choose_thresholds, evaluate_detections, measure_errors
from cellscan.models.network import Network, Weights, weights_of
from cellscan.models.retinanet import PLANS, find, make
from cellscan.predictions import Failure
from cellscan.process import use_jax
from cellscan.progress import Progress
from cellscan.publishing import publish
from cellscan.tasks.detection import MIN_SCORE, DetectionTask
from cellscan.tasks.programs import predict, trained_by
from cellscan.tasks.recipe import Recipe, as_recipe, with_rate
from cellscan.training.devices import Examples
from cellscan.training.history import History
from cellscan.training.loop import Call
from cellscan.training.loop import train as train_epochs

if TYPE_CHECKING:
    from cellscan.classifier import Classifier

BATCH_SIZES = (1, 8)
"""Batch sizes for which prediction is compiled; there are no others."""

_EMPTY = 0.1
"""A box of which a smaller share is darker than the background has no cell. Of the annotated boxes of IML, BCCD and
draaslan, 99.5 % have more than 0.2."""

_MOST_EMPTY = 0.5
"""Largest share of boxes without a cell that are left out. If there are more, their cells may be too pale to be told
from the background; the boxes stay, and `screen` refuses such a smear."""

_PRETRAINED = ("fields_retinanet_small",)


_UNMEASURED: dict[str, Any] = {
    "sensitivity": None, "false_positive_rate": None, "false_positive_sd": None, "outcomes": (), "likeness": None,
    "measured_with": None, "joint_threshold": None,
}  # fmt: skip
"""Values of `DetectionConfig` without error rates, for a detector that would now find other cells."""

_DEFAULT_CLASSES = ("red blood cell", "infected")
"""Class names of a detector that was made without `class_names`, until `fit` takes those of the training set."""


class Detector:
    """A detector of the cells of a field: a RetinaNet with its input size, anchors, normalisation, classes, thresholds.

    `pretrained` returns the bundled detector, which needs no training. Otherwise make a detector, then call `fit`,
    `choose_threshold`, `evaluate` and `predict`. For research use only: not a medical device. The examples of the
    methods continue the example below.

    Parameters
    ----------
    model : {"retinanet_small", "retinanet_resnet18", "retinanet_resnet50"}
        Architecture. ``"retinanet_small"`` has 1.7 million parameters and levels P3 to P5, for computers with two
        cores. The others are the published RetinaNets, on the ResNets of `cellscan.list_backbones()`.
    weights : str or path, optional
        Published weights of a ResNet backbone, as in `cellscan.Classifier`. Default: random weights.
    image_size : (int, int)
        Height and width of the input in pixels, each at least 64. Fields are fitted into it.
    class_names : sequence of str, optional
        Class names in the order of the labels. If there are two, `cellscan.screen` counts the last one as infected.
        Default: ``("red blood cell", "infected")``; if the training set of the first `fit` has other classes, the
        detector takes the classes of that set.
    seed : int
        Seed of the weight initialisation, the shuffling and the augmentation.

    Raises
    ------
    ArgumentError
        If the name is unknown, or `image_size` is too small or too large.

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.synthetic_fields(4, seed=0, size=(96, 128))
    >>> det = cellscan.Detector("retinanet_small", image_size=(96, 128), seed=0)
    >>> history = det.fit(fields, epochs=4, batch_size=2, progress=False)
    >>> det.thresholds = (0.1, 0.1)
    >>> len(det.predict(fields))
    4
    """

    _open: tuple[str | os.PathLike[str] | None] | None = None
    """The argument `weights` in a tuple, as long as `fit` may take the classes of the training set; None otherwise."""

    def __init__(
        self,
        model: str = "retinanet_small",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: tuple[int, int] = (360, 480),
        class_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if class_names is None:
            self._open, class_names = (weights,), _DEFAULT_CLASSES
        names = check_names("class_names", class_names, 1)
        if not isinstance(model, str):
            raise ArgumentError(f"model is {model!r:.80}; expected the name of a detector, one of {', '.join(PLANS)}")
        if weights is not None:
            as_path("weights", weights)
        plan = find(model)
        size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size,)
        if len(size) != 2 or not all(isinstance(side, (int, np.integer)) and side >= 64 for side in size):
            raise ArgumentError(f"image_size is {image_size!r}; expected a height and a width of at least 64 pixels")
        if size[0] * size[1] > PIXEL_LIMIT:
            raise ArgumentError(f"image_size is {image_size!r}; expected at most {PIXEL_LIMIT:,} pixels")
        anchors = Anchors(plan.strides)
        module, loaded = make(model, len(names), anchors.per_place, weights=weights, seed=check_seed(seed))
        card = Card(
            architecture=model,
            class_names=names,
            positive_class=names[-1] if len(names) == 2 else None,
            image_size=(int(size[0]), int(size[1])),
            background="field",
            resize=dict(FIT),
            normalization=loaded.normalization,
            seed=check_seed(seed),
            weights=loaded.record or None,
            detection=DetectionConfig(anchors, (0.5,) * len(names)),
        )
        self._set(Network(module), weights_of(module), card)

    def _set(self, network: Network, weights: Weights, card: Card) -> None:
        detection = card.detection
        assert detection is not None
        self._weights, self._card = weights, card
        self._task = DetectionTask(
            network,
            normalization=card.normalization,
            iou_threshold=detection.iou_threshold,
            max_detections=detection.max_detections,
        )
        self._anchors = detection.anchors.boxes(*self.image_size)

    @property
    def card(self) -> Card:
        """A copy of the card: the architecture, the training and the evaluation of this detector. `save` stores it.

        Examples
        --------
        >>> det.card.resize
        {'filter': 'bilinear', 'fit': 'pad'}
        """
        return self._card.copy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in the order of the labels.

        Examples
        --------
        >>> det.class_names
        ('red blood cell', 'infected')
        """
        return self._card.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input, in pixels.

        Examples
        --------
        >>> det.image_size
        (96, 128)
        """
        size = self._card.image_size
        assert isinstance(size, tuple)  # The card of a classifier has a number here.
        return size

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Score thresholds, one per class, each at least 0.05 and below 1. A box at or above its threshold counts.

        You can set them. The card then loses the error rates that were measured at the previous thresholds.

        Examples
        --------
        >>> det.thresholds
        (0.1, 0.1)
        """
        return self._detection.thresholds

    @thresholds.setter
    def thresholds(self, value: Sequence[float]) -> None:
        entries = as_list("thresholds", value)
        if len(entries) != len(self.class_names):
            raise ArgumentError(
                f"thresholds is {value!r:.80}; expected one number for each of {', '.join(self.class_names)}"
            )
        thresholds = tuple(
            check_number(f"thresholds[{row}]", number, MIN_SCORE, 1, "[)") for row, number in enumerate(entries)
        )
        self._card = replace(self._card, detection=replace(self._detection, thresholds=thresholds, **_UNMEASURED))

    @property
    def _detection(self) -> DetectionConfig:
        detection = self._card.detection
        assert detection is not None
        return detection

    @property
    def model(self) -> Any:
        """A copy of the network with the current weights, as a `flax.nnx.Module` in evaluation mode.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> out = det.model(jnp.zeros((1, 64, 64, 3)))
        >>> out["boxes"].shape
        (1, 756, 4)
        """
        return self._task.network.module(self._weights)

    def __repr__(self) -> str:
        card = self._card
        return (
            f"Detector({card.architecture!r}, image_size={card.image_size}, class_names={card.class_names}, "
            f"epochs={card.epochs})"
        )

    def fit(
        self,
        train: FieldDataset,
        *,
        validation: FieldDataset | None = None,
        epochs: int = 30,
        batch_size: int = 8,
        recipe: Recipe | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> History:
        """Train the detector from its current weights, with a new optimiser.

        The first training also fits the anchors to the boxes of `train`. Every training resets the thresholds to 0.5,
        and the error rates and the joint threshold to None.

        Parameters
        ----------
        train : FieldDataset
            Training set with boxes; fields without a box are allowed. Its classes are matched to `class_names` by
            name, ignoring case. If an untrained detector was made without `class_names`, and this set has other
            classes than the default ones, the detector takes the classes of this set, in their order. In some fields,
            not every cell of a class has a box (`FieldDataset.boxed`): the annotation is not complete, has points, or
            the set does not have the class. There, regions without a box are ignored in the loss of this class; they
            do not count as background.
        validation : FieldDataset, optional
            Validation set; its loss is computed after every epoch.
        epochs, batch_size : int
            Number of epochs and fields per batch, each at least 1.
        recipe : Recipe, optional
            Training options; default ``Recipe()``. A detector accepts no `loss`, `class_weight`, `mixup` or callable
            `augment`, and ignores `label_smoothing` and `background`. `augment` mirrors fields with their boxes and
            changes their colours. `patience` requires `monitor` to be ``"loss"``.
        checkpoint, resume, progress
            As in `Classifier.fit`.

        Returns
        -------
        History
            The learning curve, with ``loss``, ``class_loss`` and ``box_loss``.

        Raises
        ------
        ArgumentError
            If the recipe has an option that a detector does not accept; or as in `Classifier.fit`.
        ModelFileError, TrainingError
            As in `Classifier.fit`.
        DataError
            If there are no boxes, or the set has a class that the detector does not have.

        Examples
        --------
        >>> import cellscan
        >>> fresh = cellscan.Detector("retinanet_small", image_size=(64, 64), seed=0)
        >>> fresh.fit(fields, epochs=1, batch_size=2, progress=False)
        History(epochs=1)
        """
        records = self.fit_epochs(
            train, validation=validation, epochs=epochs, batch_size=batch_size, recipe=recipe, checkpoint=checkpoint,
            resume=resume, progress=progress,
        )  # fmt: skip
        return History(list(records))

    def fit_epochs(
        self,
        train: FieldDataset,
        *,
        validation: FieldDataset | None = None,
        epochs: int = 30,
        batch_size: int = 8,
        recipe: Recipe | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> Iterator[dict[str, float]]:
        """Train like `fit`, as an iterator over the epochs: see `Classifier.fit_epochs`.

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
            As in `fit`.

        Examples
        --------
        >>> import cellscan
        >>> fresh = cellscan.Detector("retinanet_small", image_size=(64, 64), seed=0)
        >>> for record in fresh.fit_epochs(fields, epochs=5, batch_size=2, progress=False):
        ...     break
        >>> fresh.card.epochs
        1
        """
        recipe = as_recipe(recipe)
        call = Call(epochs, batch_size, checkpoint, resume, progress)
        own_augment = recipe.augment if callable(recipe.augment) else None
        given = {"loss": recipe.loss, "class_weight": recipe.class_weight, "mixup": recipe.mixup or None}
        unsupported = [name for name, value in {**given, "callable augment": own_augment}.items() if value is not None]
        if unsupported:
            raise ArgumentError(
                f"the recipe's {', '.join(unsupported)} is for classifiers; use a recipe without it for a detector"
            )
        if recipe.patience is not None and (validation is None or recipe.monitor != "loss"):
            raise ArgumentError(
                "for patience, a detector needs a validation set and the loss as monitor; pass validation=... and "
                'Recipe(patience=..., monitor="loss")'
            )
        self._take_classes(train)
        fields = self._matched(train, "train")
        validation_fields = None if validation is None else self._matched(validation, "validation")
        if not sum(int((labels >= 0).sum()) for labels in fields.labels):
            raise DataError("train has no boxes with a class; expected at least one box to train on")
        card, size = self._card, self.image_size
        if card.epochs == 0:
            anchors, diameter = self._fit_anchors(fields), self._typical(fields)
            card = replace(card, detection=replace(self._detection, anchors=anchors, cell_diameter=diameter))
        assert card.detection is not None
        recipe = with_rate(recipe, tuning=True)
        sets = (fields,) if validation_fields is None else (fields, validation_fields)
        largest = max(int((~part.boxed()).sum(1).max()) + max(map(len, part.boxes)) for part in sets)
        rows = max(-(-largest // 32) * 32, 32)
        examples = [Examples(part.images(size, progress=progress), part.targets(size, rows)) for part in sets]
        data = {
            "train": _facts(fields),
            "validation": None if validation_fields is None else _facts(validation_fields),
        }
        previous = card.detection
        # What was measured belongs to the weights before; how boxes are merged and cells are cropped stays.
        detection = DetectionConfig(
            previous.anchors, (0.5,) * len(self.class_names), iou_threshold=previous.iou_threshold,
            max_detections=previous.max_detections, cell_diameter=previous.cell_diameter,
            crop_scale=previous.crop_scale,
        )  # fmt: skip
        after = replace(card.trained_on(np.array([""]), call.options(recipe), data), detection=detection)
        network = self._task.network
        return train_epochs(
            call,
            card,
            after,
            trained_by(self._task, recipe),
            self._task,
            self._weights,
            (examples[0], None if validation_fields is None else examples[1]),
            recipe=recipe,
            constants=detection.anchors.boxes(*size),
            keep=lambda weights, card: self._set(network, weights, card),
        )

    def _take_classes(self, train: FieldDataset) -> None:
        """Take the classes of the first training set if no `class_names` were given and it has others."""
        names = train.class_names if isinstance(train, FieldDataset) and train.annotated else ()
        if self._open is None or self._card.epochs or {name.casefold() for name in names} <= {*_DEFAULT_CLASSES}:
            return
        network, weights = self._task.network, self._weights
        if len(names) != len(self.class_names):
            per_place = self._detection.anchors.per_place
            module, _ = make(
                self._card.architecture, len(names), per_place, weights=self._open[0], seed=self._card.seed
            )
            network, weights = Network(module), weights_of(module)
        detection = replace(self._detection, thresholds=(0.5,) * len(names))
        positive = names[-1] if len(names) == 2 else None
        self._set(
            network, weights, replace(self._card, class_names=names, positive_class=positive, detection=detection)
        )

    def _fit_anchors(self, fields: FieldDataset) -> Anchors:
        """Return anchors fitted to the boxes of `fields`, without the ignored ones."""
        factors = fields.factors(self.image_size)
        scaled = [
            boxes[labels >= 0] * factor
            for boxes, labels, factor in zip(fields.boxes, fields.labels, factors, strict=True)
        ]
        return fit_anchors(np.concatenate(scaled), find(self._card.architecture).strides)

    def learn_diameter(self, train: FieldDataset) -> float:
        """Measure the diameter of the red cells in the training fields of this detector, and store it in the card.

        Call it for files of older versions, whose card has no diameter. The first `fit` stores the diameter itself.
        With another diameter, fields are rescaled differently, so the card loses the error rates that were measured.

        Parameters
        ----------
        train : FieldDataset
            The fields on which the detector was trained.

        Returns
        -------
        float
            Median side of the boxes of the first class, in pixels of the detector's input. If the first class has no
            boxes, the boxes of all classes are used.

        Raises
        ------
        ArgumentError
            If `train` is not a `FieldDataset`.
        DataError
            If there are no annotations, or the set has a class that the detector does not have.

        Examples
        --------
        >>> import copy
        >>> 20 < copy.copy(det).learn_diameter(fields) < 60
        True
        """
        diameter = self._typical(self._matched(train, "train"))
        if diameter != self._detection.cell_diameter:
            detection = replace(self._detection, cell_diameter=diameter, **_UNMEASURED)
            self._card = replace(self._card, detection=detection)
        return diameter

    def _typical(self, fields: FieldDataset) -> float:
        """Return the median side of the boxes of the first class, or of all classes if it has none, in input pixels."""
        factors = fields.factors(self.image_size)
        for kinds in (0, slice(0, None)):
            sides = [
                np.sqrt(((boxes[:, 2:] - boxes[:, :2]) * factor[:2]).prod(1))[
                    labels == 0 if kinds == 0 else labels >= 0
                ]
                for boxes, labels, factor in zip(fields.boxes, fields.labels, factors, strict=True)
            ]
            if (joined := np.concatenate(sides)).size:
                break
        return round(float(np.median(joined)), 2)

    def _matched(self, fields: FieldDataset, name: str) -> FieldDataset:
        """Return the fields with labels that are indices into the classes of this detector; check the fields first."""
        if not isinstance(fields, FieldDataset):
            raise ArgumentError(
                f"{name} is a {type(fields).__name__}; expected a FieldDataset: use cellscan.load_fields"
            )
        if not len(fields):
            raise DataError(f"{name} has no fields; expected at least one")
        if not fields.annotated:
            raise DataError(
                f"{name} has no annotations: it was read from a folder of images only; expected fields with boxes"
            )
        positions = {class_name.casefold(): number for number, class_name in enumerate(self.class_names)}
        unknown = [class_name for class_name in fields.class_names if class_name.casefold() not in positions]
        if unknown:
            raise DataError(
                f"{name} has the class {', '.join(unknown)}; the classes of this detector are "
                f"{', '.join(self.class_names)}"
            )
        if fields.class_names == self.class_names:
            return fields
        return fields.relabelled(
            self.class_names, [positions[class_name.casefold()] for class_name in fields.class_names]
        )

    def predict(
        self, images: Images | FieldDataset, *, cell_diameter: float | str | None = "auto",
        score_threshold: float | None = None, on_error: str = "raise", progress: bool = True,
    ) -> FieldDetections:  # fmt: skip
        """Find the cells of one field or of many fields.

        Parameters
        ----------
        images : field, or many
            A path, a folder, a Pillow image, an array (H, W, 3) or (N, H, W, 3), RGB, of uint8, uint16 or floats in
            [0, 1]; a `FieldDataset`; or a list or generator of single images, each of any size.
        cell_diameter : "auto", float or None
            Diameter of the red cells in pixels of the original image, at least 2. Fields are rescaled so that their
            red cells have the diameter of the training cells. A rescaled field that is larger than the input is cut
            into overlapping tiles. Padding has the colour of the background, and the dark border of an eyepiece is
            left out. ``"auto"`` estimates the diameter of each field with `cellscan.estimate_cell_diameter`. A field
            is not rescaled to this diameter but fitted into one input, if the estimate finds no red cells, or if the
            cells of the fitted field are within a factor of 1.2 of the trained diameter, or if the card contains no
            trained diameter. None: every field is fitted into the input as in training, with black padding.
        score_threshold : float, optional
            Smallest score of a returned box, at least 0.05 and below 1. Default: the threshold of each class.
        on_error : {"raise", "skip"}
            What happens if a field cannot be read. ``"raise"``: raise `ImageError`. ``"skip"``: add the field to
            `FieldDetections.failed` and continue.
        progress : bool
            Show a progress bar if the prediction takes longer than two seconds.

        Returns
        -------
        FieldDetections
            A sequence with the detections of each field, also for a single field: `Detections.boxes` (n, 4) float32
            xyxy in pixels of the original image, `Detections.labels` (n,) int32, `Detections.scores` (n,) float32.

        Raises
        ------
        ImageError
            If a field cannot be read, or would have more than 1,000 tiles at its estimated diameter, and `on_error` is
            ``"raise"``.
        ArgumentError
            If an argument is invalid; if `cell_diameter` is a number and the card does not contain the diameter of the
            training cells; or if a field would have more than 1,000 tiles at the given diameter.

        Examples
        --------
        >>> import numpy as np
        >>> found = det.predict(np.zeros((480, 640, 3), np.uint8))
        >>> len(found), found[0].size
        (1, (640, 480))
        """
        detected: list[Detections] = []
        failed: list[Failure] = []
        options: dict[str, Any] = {"score_threshold": score_threshold, "on_error": on_error, "progress": progress}
        for result in self.stream(images, cell_diameter=cell_diameter, **options):
            (detected if isinstance(result, Detections) else failed).append(result)  # type: ignore[arg-type]
        return FieldDetections(tuple(detected), tuple(failed), self.class_names)

    def stream(
        self, images: Images | FieldDataset, *, cell_diameter: float | str | None = "auto",
        score_threshold: float | None = None, on_error: str = "raise", progress: bool = True,
    ) -> Iterator[Detections | Failure]:  # fmt: skip
        """Yield the detections of `predict` field by field, in bounded memory.

        Parameters
        ----------
        images, cell_diameter, score_threshold, on_error, progress
            As in `predict`.

        Yields
        ------
        Detections or Failure
            The detections of a field, in the order of the input. A `Failure` comes as soon as the field is read, before
            fields that wait for their batch.

        Raises
        ------
        ArgumentError, ImageError
            As in `predict`.

        Examples
        --------
        >>> sum(1 for _ in det.stream(fields))
        4
        """
        check_choice("on_error", on_error, ("raise", "skip"))
        if score_threshold is not None:
            score_threshold = check_number("score_threshold", score_threshold, MIN_SCORE, 1, "[)")
        if isinstance(images, FieldDataset):
            pairs, total = _read(images), len(images)
        else:
            listed, total = list_items(images)
            pairs = decode(listed, None)
        read = self._reader(_check_diameter(cell_diameter))
        open_fields: deque[_Shown] = deque()
        waiting: list[tuple[_Shown, np.ndarray]] = []
        with Progress("detecting", total, show=progress) as bar:
            for item, image in pairs:
                bar.advance(1)
                try:
                    if isinstance(image, ImageError):
                        raise image
                    shown, tiles = read(item, image)
                except ImageError as error:
                    if on_error == "raise":
                        raise
                    yield Failure(item.index, item.name, str(error))
                    continue
                open_fields.append(shown)
                waiting += [(shown, pixels) for pixels in tiles]
                while len(waiting) >= BATCH_SIZES[-1]:
                    self._run(waiting[: BATCH_SIZES[-1]])
                    waiting = waiting[BATCH_SIZES[-1] :]
                while open_fields and open_fields[0].finished:
                    yield self._found(open_fields.popleft(), score_threshold)
            if waiting:
                self._run(waiting)
            for shown in open_fields:
                yield self._found(shown, score_threshold)

    def _reader(self, cell_diameter: float | str | None) -> Callable[[Item, np.ndarray], tuple[_Shown, list[Any]]]:
        """Return a function that prepares a field: its record, and the input pixels of its tiles."""
        trained = self._detection.cell_diameter
        if isinstance(cell_diameter, float) and trained is None:
            raise ArgumentError(
                f"cell_diameter is {cell_diameter:g}, but the card does not contain the diameter of the training cells;"
                " leave cell_diameter out, train with fit(...), or call learn_diameter(...) with the training fields"
            )

        def read(item: Item, image: np.ndarray) -> tuple[_Shown, list[Any]]:
            source: Any = image
            if isinstance(item.image, (str, os.PathLike)) or callable(item.image):
                source = SeenImage(item.image, item.name, zlib.crc32(image))
            if cell_diameter is None:
                tiling = as_trained(image, self.image_size)
                return _Shown(item.name, source, image.shape[1::-1], tiling), tiling.show(image, None)
            ground = find_ground(image)
            try:
                diameter = cell_diameter if isinstance(cell_diameter, float) else measure_diameter(image, ground)[0]
            except DataError:  # No red cells are visible; the field is fitted into one input, and the result has None.
                diameter = None
            try:
                tiling = plan_tiles(ground, self.image_size, diameter, trained)
            except ArgumentError as error:
                if isinstance(cell_diameter, float):
                    raise
                raise ImageError(f"{item.name}: {error}") from error
            shown = _Shown(
                item.name, source, image.shape[1::-1], tiling, diameter, ground,
                describe_field(image, ground, diameter, trained),
            )  # fmt: skip
            return shown, tiling.show(image, ground)

        return read

    def _run(self, batch: list[tuple[_Shown, np.ndarray]]) -> None:
        """Run the network on a batch of tiles, and add the detections of each tile to the record of its field."""
        use_jax()
        size = next(size for size in BATCH_SIZES if size >= len(batch))
        pixels = np.zeros((size, *self.image_size, 3), np.uint8)
        for row, (_, image) in enumerate(batch):
            pixels[row] = image
        rows = np.asarray(predict(self._task, (self._weights,), self._anchors, pixels))
        for tile_rows, (shown, _) in zip(rows, batch, strict=False):
            shown.rows.append(tile_rows)

    def _found(self, shown: _Shown, score_threshold: float | None) -> Detections:
        merged = shown.tiling.merge(shown.rows, self._detection.iou_threshold)
        labels = merged[:, 5].astype(np.int32)
        boxes = np.ascontiguousarray(merged[:, :4])
        called = merged[:, 4] >= np.array(self.thresholds, np.float32)[labels]
        good = called if score_threshold is None else merged[:, 4] >= np.float32(score_threshold)
        good = good & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        found = Detections(
            shown.name, shown.whole, boxes[good], labels[good], merged[good, 4], self.class_names, shown.image,
            shown.diameter,
        )  # fmt: skip
        if shown.ground is None:
            return found
        empty = measure_coverage(shown.ground, boxes) < _EMPTY
        share = float(empty[called].mean()) if called.any() else 0.0
        return replace(
            found[~empty[good]] if share <= _MOST_EMPTY else found,
            lit_area=float(shown.ground.lit.sum()) / shown.ground.factor**2,
            lit=None if shown.ground.lit.all() else shown.ground.lit,
            appearance=shown.appearance,
            on_background=share,
        )

    def evaluate(
        self,
        fields: FieldDataset,
        *,
        classifier: Classifier | None = None,
        cell_diameter: float | str | None = "auto",
        progress: bool = True,
    ) -> DetectionReport:
        """Compute metrics on annotated fields with pycocotools, which the extra ``detect`` installs.

        Parameters
        ----------
        fields : FieldDataset
            Test set: fields that were not used in training.
        classifier : Classifier, optional
            Classifier with which `choose_threshold` chose the joint threshold. The metrics of the last class are then
            those of the joint scores of detector and classifier.
        cell_diameter, progress
            As in `predict`.

        Returns
        -------
        DetectionReport
            Average precision over all scores; F1 and counts at the thresholds.

        Raises
        ------
        ArgumentError
            If `fields` is not a `FieldDataset`, or the joint threshold was not chosen with this classifier.
        DataError
            If there are no annotations, or the set has a class that the detector does not have.
        MissingExtraError
            If pycocotools is not installed.

        Examples
        --------
        >>> report = det.evaluate(fields)
        >>> report.boxes == sum(fields.per_class().values())
        True
        """
        fields = self._matched(fields, "fields")
        rules = self._detection
        classifier_name = None if classifier is None else name_classifier(check_classifier(classifier))
        if classifier is not None and rules_with(classifier_name, rules).joint_threshold is None:
            raise ArgumentError(
                "the card has no joint threshold of this detector and this classifier; call "
                "choose_threshold(valid, classifier=...) first"
            )
        detected = self.predict(fields, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, progress=progress)
        if classifier is None or rules.joint_threshold is None:
            return evaluate_detections(fields, detected, rules)
        joint = [add_evidence(detections, classifier, rules.crop_scale) for detections in detected]
        cells = [
            confirm(detections, rules, classifier, rescored)
            for detections, rescored in zip(detected, joint, strict=True)
        ]
        rules = replace(rules, thresholds=(*rules.thresholds[:-1], rules.joint_threshold))
        return evaluate_detections(fields, joint, rules, cells)

    def choose_threshold(
        self,
        valid: FieldDataset,
        *,
        classifier: Classifier | None = None,
        max_false_positive_rate: float | None = None,
        crop_scale: float | None = None,
        cell_diameter: float | str | None = "auto",
        source: str = "fields of your own",
        progress: bool = True,
    ) -> tuple[float, ...]:
        """Choose the threshold with the best F1 for each class, and measure the error rates that `screen` corrects for.

        Ten annotated fields of your own microscope, with some infected cells, adapt `screen` to it: the correction,
        the interval and the limit of detection are then computed from the errors on these fields, and are valid for
        fields like these. A detector with other than two classes gets thresholds only. Cells that the border of a
        field cuts are left out, as in `screen`.

        Parameters
        ----------
        valid : FieldDataset
            Fields that were not used in training, with at least one box of each class.
        classifier : Classifier, optional
            Classifier that decides in `screen` together with the detector. Their joint threshold is chosen too, and the
            error rates are those of both in combination.
        max_false_positive_rate : float, optional
            Largest number of false detections of the last class per cell of the other classes, in (0, 1]. The threshold
            of the last class, and the joint threshold, are then the lowest ones with at most this rate on `valid`, and
            the other thresholds stay as they are. Fields without cells of the last class are enough for this, but the
            error rates are then not known. Where the other classes are not annotated completely (see
            `FieldDataset.complete`), detected cells are counted instead.
        crop_scale : float, optional
            Sides of the crops that the classifier receives, as a part of those of their boxes, in (0, 1]; the card
            stores it. Default: that of the card, which is 1 for a new detector and 0.886 for the bundled one, see
            `Detections.crops`. Use 1 for a classifier that was trained on whole boxes.
        cell_diameter, progress
            As in `predict`.
        source : str
            Origin of the fields, in words. `screen` prints it in its warnings.

        Returns
        -------
        tuple[float, ...]
            The thresholds, one per class. The card also stores the error rates: the share of the cells of the last
            class that are detected, and the number of false detections per cell of the other class. It stores the
            counts of each field and the appearance of the fields too.

        Raises
        ------
        ArgumentError
            If `valid` is not a `FieldDataset`, or a number is out of range.
        DataError
            If a class has no box of a whole cell, there are no annotations, or the set has a class that the detector
            does not have.

        Examples
        --------
        >>> import copy, cellscan
        >>> len(copy.copy(det).choose_threshold(cellscan.synthetic_fields(4, seed=2)))
        2
        """
        classifier = None if classifier is None else check_classifier(classifier)
        rate = max_false_positive_rate
        rate = None if rate is None else check_number("max_false_positive_rate", rate, 0, 1, "(]")
        scale = self._detection.crop_scale if crop_scale is None else check_number("crop_scale", crop_scale, 0, 1, "(]")
        valid = self._matched(valid, "valid")
        detected = self.predict(valid, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, progress=progress)
        rules = choose_thresholds(valid, detected, self._detection, rate)
        rules = replace(rules, joint_threshold=None, measured_with=name_classifier(classifier), crop_scale=scale)
        joint = None
        if classifier is not None:
            joint = [add_evidence(detections, classifier, rules.crop_scale) for detections in detected]
            rules = replace(rules, joint_threshold=choose_thresholds(valid, joint, rules, rate).thresholds[-1])
        if len(self.class_names) == 2:
            rules = _measure(valid, detected, classifier, rules, source, joint)
        self._card = replace(self._card, detection=rules)
        return self.thresholds

    def measure_errors(
        self,
        fields: FieldDataset,
        *,
        classifier: Classifier | None = None,
        cell_diameter: float | str | None = "auto",
        source: str = "fields of your own",
        progress: bool = True,
    ) -> tuple[float | None, float | None]:
        """Measure the error rates that `screen` corrects for, at the current thresholds.

        Use fields that were not used to choose the thresholds, so that the rates are not optimistically biased. Cells
        that the border of a field cuts are left out, as in `screen`.

        Parameters
        ----------
        fields : FieldDataset
            Fields that were used neither in `fit` nor in `choose_threshold`, with some infected cells.
        classifier, cell_diameter, source, progress
            As in `choose_threshold`.

        Returns
        -------
        tuple[float or None, float or None]
            Share of the infected cells that are detected, and number of false detections per uninfected cell. A rate is
            None if there are no cells to measure it on. The card stores both rates, the counts of each field, and the
            appearance of the fields.

        Raises
        ------
        ArgumentError
            If the detector does not have two classes, or `fields` is not a `FieldDataset`.
        DataError
            If there are no annotations, or the set has a class that the detector does not have.

        Examples
        --------
        >>> import copy, cellscan
        >>> s, f = copy.copy(det).measure_errors(cellscan.synthetic_fields(4, seed=2))
        >>> s is not None and 0 <= s <= 1
        True
        """
        if len(self.class_names) != 2:
            raise ArgumentError(
                f"the detector has the classes {', '.join(self.class_names)}; expected two classes, the second of them "
                "infected, to measure error rates"
            )
        classifier = None if classifier is None else check_classifier(classifier)
        fields = self._matched(fields, "fields")
        detected = self.predict(fields, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, progress=progress)
        classifier_name = name_classifier(classifier)
        rules = replace(rules_with(classifier_name, self._detection), measured_with=classifier_name)
        rules = _measure(fields, detected, classifier, rules, source)
        self._card = replace(self._card, detection=rules)
        return rules.sensitivity, rules.false_positive_rate

    def save(
        self, path: str | os.PathLike[str], *, report: DetectionReport | None = None, licence: str | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        """Save weights and card to one safetensors file.

        Parameters
        ----------
        path : path
            The file; an existing file is overwritten.
        report : DetectionReport, optional
            A report whose metrics are stored in the card.
        licence : str, optional
            Licence of the weights, such as ``"Apache-2.0"``.
        dtype : {"float32", "float16"}
            Number type of the weights in the file. ``"float16"`` halves the file size; results then differ in the
            third digit.

        Raises
        ------
        ArgumentError
            If an argument is invalid.
        ModelFileError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile, pathlib, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "det.safetensors"
        >>> det.save(path, dtype="float16")
        >>> cellscan.Detector.load(path)
        Detector('retinanet_small', image_size=(96, 128), class_names=('red blood cell', 'infected'), epochs=4)
        """
        if not (report is None or isinstance(report, DetectionReport)):
            raise ArgumentError(f"report is {report!r:.80}; expected a DetectionReport, which evaluate(...) returns")
        cards.save(path, self._card, [self._weights], None if report is None else report.to_dict(), licence, dtype)

    def push_to_hub(
        self, address: str, *, report: DetectionReport | None = None, licence: str | None = None,
        dtype: str = "float32", private: bool = True, token: str | None = None,
    ) -> str:  # fmt: skip
        """Save the detector to a repository on the Hugging Face hub, with its card as the README.

        Parameters
        ----------
        address, private, token
            As in `Classifier.push_to_hub`.
        report, licence, dtype
            As in `save`. Without a licence, nobody may use the weights.

        Returns
        -------
        str
            The address of this version for `load`, such as ``"hf://owner/name@<commit>"``.

        Raises
        ------
        ArgumentError, MissingExtraError, ModelFileError
            As in `Classifier.push_to_hub`.

        Examples
        --------
        >>> det.push_to_hub("owner/name", licence="Apache-2.0")  # doctest: +SKIP
        'hf://owner/name@0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c'
        """
        return publish(
            address, lambda path: self.save(path, report=report, licence=licence, dtype=dtype), private=private,
            token=token,
        )  # fmt: skip

    @classmethod
    def pretrained(cls, name: str | None = None) -> Detector:
        """Load a bundled model; needs no internet connection.

        For research use only: not a medical device.

        Parameters
        ----------
        name : str, optional
            ``"fields_retinanet_small"``, the only bundled detector and the default: `retinanet_small` at 480 x 360 px,
            trained on fields of BCCD and draaslan and on fields composed of NIH cells. ``card.metrics`` contains its
            metrics, together with the bundled classifier, on fields of a laboratory that was not in training.

        Returns
        -------
        Detector
            With the classes ``("red blood cell", "infected")``, its thresholds, and the joint threshold with the
            bundled classifier. The weights are in the package.

        Raises
        ------
        ArgumentError
            If the name is unknown.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Detector.pretrained().class_names
        ('red blood cell', 'infected')
        """
        with cards.bundled(name, _PRETRAINED) as path:
            return cls.load(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, token: str | None = None) -> Detector:
        """Load a detector from a file that `save` wrote, or from the Hugging Face hub, without pickle.

        Parameters
        ----------
        path : path or str
            The file; or an address on the Hugging Face hub, as in `Classifier.load`.
        token : str, optional
            Access token for a private repository. Default: the stored one, of ``hf auth login`` or ``HF_TOKEN``.

        Returns
        -------
        Detector
            With the weights and the card of the file.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged or not from cellscan; if it contains a classifier; or if its tensors do not
            fit the network. On the hub, as in `Classifier.load`.
        ArgumentError, MissingExtraError
            As in `Classifier.load`.

        Examples
        --------
        >>> import tempfile, pathlib, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "det.safetensors"
        >>> det.save(path)
        >>> cellscan.Detector.load(path).card.seed
        0
        """
        card, tensors = cards.read(path, token)
        if card.detection is None:
            raise ModelFileError(f"{path}: contains a classifier ({card.architecture}); load it with Classifier.load")
        try:
            module, _ = make(card.architecture, len(card.class_names), card.detection.anchors.per_place)
        except ArgumentError as error:
            raise ModelFileError(f"{path}: {error}") from error
        network = Network(module)
        (weights,) = network.fill(1, tensors, os.fspath(path))
        detector = cls.__new__(cls)
        detector._set(network, weights, card)
        return detector


@dataclass
class _Shown:
    """Record of a field in prediction: its tiling, and the detections of its tiles so far."""

    name: str
    image: Any
    whole: tuple[int, int]
    tiling: Tiling
    diameter: float | None = None
    ground: Ground | None = None
    appearance: tuple[float, ...] = ()
    rows: list[np.ndarray] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return len(self.rows) == len(self.tiling.tiles)


def _check_diameter(value: Any) -> float | str | None:
    """Return ``"auto"``, a number of pixels as a float, or None; raise `ArgumentError` for other values."""
    if value is None or (isinstance(value, str) and value == "auto"):
        return value
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and float(value) >= 2:
        return float(value)
    raise ArgumentError(
        f'cell_diameter is {value!r}; expected "auto"; or the diameter of a red cell in pixels of the original image, '
        "at least 2; or None to fit every field into the input as in training"
    )


def _read(fields: FieldDataset) -> Iterator[tuple[Item, np.ndarray | ImageError]]:
    """Yield the images of a data set; each item contains a function that reads its image again."""
    for index, name in enumerate(fields.names.tolist()):
        read = functools.partial(fields.source.read, int(fields.rows[index]))
        try:
            yield Item(index, name, read), read()
        except ImageError as error:
            yield Item(index, name, read), error


def _measure(
    fields: FieldDataset,
    found: FieldDetections,
    classifier: Classifier | None,
    rules: DetectionConfig,
    source: str,
    joint: Sequence[Detections] | None = None,
) -> DetectionConfig:
    """Return the rules with the appearance of the fields and the error rates of detector and classifier combined."""
    rescored = [None] * len(found) if joint is None else joint
    confirmed = [
        confirm(detections, rules, classifier, of_both) for detections, of_both in zip(found, rescored, strict=True)
    ]
    appearances = [detections.appearance for detections in found if detections.appearance]
    likeness = learn_likeness(appearances, source) if appearances else None
    return replace(measure_errors(fields, confirmed, rules), likeness=likeness)


def _facts(fields: FieldDataset) -> dict[str, Any]:
    return {
        "hash": fields.hash(),
        "fields": len(fields),
        "boxes": sum(int((labels >= 0).sum()) for labels in fields.labels),
    }
