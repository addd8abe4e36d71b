"""`Detector`: finds every cell of a field; the same shape as `Classifier`."""

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
from cellscan.confirming import confirm, name_classifier
from cellscan.data.fields import FieldDataset
from cellscan.data.images import FIT, PIXEL_LIMIT
from cellscan.data.inputs import Images, Item, decode, list_items
from cellscan.data.values import as_list, as_path, check_number, check_seed
from cellscan.detection.anchors import Anchors, fit_anchors
from cellscan.detection.diameter import measure_diameter
from cellscan.detection.ground import find_ground
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
from cellscan.tasks.detection import MIN_SCORE, DetectionTask
from cellscan.tasks.programs import predict, trained_by
from cellscan.tasks.recipe import Recipe, as_recipe, with_rate
from cellscan.training.devices import Examples
from cellscan.training.history import History
from cellscan.training.loop import Call
from cellscan.training.loop import train as run_fit

if TYPE_CHECKING:
    from cellscan.classifier import Classifier

BATCH_SIZES = (1, 8)
"""The only batch sizes that are ever compiled for prediction."""

_PRETRAINED = ("iml_retinanet_small",)


_DEFAULT_CLASSES = ("red blood cell", "infected")
"""Of a detector that was given none, until `fit` takes those of the training set where they are others."""


class Detector:
    """A RetinaNet with everything it needs to find cells in a field: size, anchors, normalisation, classes, thresholds.

    For research use only: not a medical device. The examples of its methods go on from the one here.

    Parameters
    ----------
    model : {"retinanet_small", "retinanet_resnet18", "retinanet_resnet50"}
        ``"retinanet_small"`` has 1.7 million parameters and levels P3 to P5, for two cores; the others are as
        published, on the ResNets of `cellscan.list_backbones()`.
    weights : str or path, optional
        Of a ResNet backbone, as of `cellscan.Classifier`; left out, all weights are fresh.
    image_size : (int, int)
        Height and width, in pixels, that every field is fitted into; each at least 64.
    class_names : sequence of str, optional
        In the order of the labels. Of two, the last is the one that `cellscan.screen` counts as infected. Left out,
        they are ``("red blood cell", "infected")``; where the training set of the first `fit` has others, those of it.
    seed : int
        Of the first weights, the order of fields and the augmentation.

    Raises
    ------
    ArgumentError
        For an unknown name, or too small a size.

    Examples
    --------
    >>> import cellscan
    >>> fields = cellscan.synthetic_fields(4, seed=0, size=(96, 128))
    >>> det = cellscan.Detector("retinanet_small", image_size=(96, 128), seed=0)
    >>> history = det.fit(fields, epochs=4, batch_size=2, progress=False)
    >>> det.thresholds = (0.05, 0.05)
    >>> len(det.predict(fields))
    4
    """

    _open: tuple[str | os.PathLike[str] | None] | None = None
    """The first weights, while `fit` may still take the classes of its training set."""

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
            raise ArgumentError(f"model is {model!r:.80}; expected the name of a detector: {', '.join(PLANS)}")
        if weights is not None:
            as_path("weights", weights)
        plan = find(model)
        size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size,)
        if len(size) != 2 or not all(isinstance(side, (int, np.integer)) and side >= 64 for side in size):
            raise ArgumentError(f"image_size is {image_size!r}; expected a height and a width of 64 pixels or more")
        if size[0] * size[1] > PIXEL_LIMIT:
            raise ArgumentError(f"image_size is {image_size!r}; expected {PIXEL_LIMIT:,} pixels at most")
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
        """What this detector is and how it came about; kept in the file.

        Examples
        --------
        >>> det.card.resize
        {'filter': 'bilinear', 'fit': 'pad'}
        """
        return self._card.copy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the labels.

        Examples
        --------
        >>> det.class_names
        ('red blood cell', 'infected')
        """
        return self._card.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that fields are fitted into, in pixels.

        Examples
        --------
        >>> det.image_size
        (96, 128)
        """
        size = self._card.image_size
        assert isinstance(size, tuple)  # a classifier's is a number
        return size

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Score from which a box counts, a class each; settable.

        Examples
        --------
        >>> det.thresholds
        (0.05, 0.05)
        """
        return self._detection.thresholds

    @thresholds.setter
    def thresholds(self, value: Sequence[float]) -> None:
        given = as_list("thresholds", value)
        if len(given) != len(self.class_names):
            raise ArgumentError(
                f"thresholds is {value!r:.80}; expected a number for each of {', '.join(self.class_names)}"
            )
        found = tuple(check_number(f"thresholds[{row}]", one, MIN_SCORE, 1, "[)") for row, one in enumerate(given))
        unmeasured: dict[str, Any] = {"sensitivity": None, "false_positive_rate": None, "false_positive_sd": None}
        unmeasured |= {"outcomes": (), "likeness": None, "judged_with": None}
        self._card = replace(self._card, detection=replace(self._detection, thresholds=found, **unmeasured))

    @property
    def _detection(self) -> DetectionConfig:
        found = self._card.detection
        assert found is not None
        return found

    @property
    def model(self) -> Any:
        """A copy of the network with the current weights: a `flax.nnx.Module` in evaluation mode.

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
        """Train from the current weights, with a fresh optimiser.

        The first time, anchors are fitted to the boxes of `train`. Thresholds are reset to 0.5.

        Parameters
        ----------
        train : FieldDataset
            With boxes; its classes are matched to `class_names` by name. A detector that was given no `class_names`,
            and is not trained yet, takes those of this set, in their order, where some are not its own. Fields without
            a box are fine. Where not every cell of a class has a box (`FieldDataset.boxed`: it is not complete, has
            points, or the set does not have that class) what is left out is no background: it takes no part in the
            loss of that class.
        validation : FieldDataset, optional
            Its loss is taken after every epoch.
        epochs, batch_size : int
        recipe : Recipe, optional
            What speaks of labels of whole images does not apply: `loss`, `class_weight`, `label_smoothing`, `mixup`,
            `background`. `augment` mirrors fields with their boxes, and changes their colours. `monitor` is ``"loss"``.
        checkpoint, resume, progress
            As of `Classifier.fit`.

        Returns
        -------
        History
            With ``loss``, ``class_loss`` and ``box_loss``.

        Raises
        ------
        ArgumentError, ModelFileError, TrainingError
            As of `Classifier.fit`.
        DataError
            Where there are no boxes, or classes that the detector does not know.

        Examples
        --------
        >>> import cellscan
        >>> fresh = cellscan.Detector("retinanet_small", image_size=(64, 64), seed=0)
        >>> fresh.fit(fields, epochs=1, batch_size=2, progress=False)
        History(epochs=1)
        """
        recipe = as_recipe(recipe)
        call = Call(epochs, batch_size, checkpoint, resume, progress)
        own = recipe.augment if callable(recipe.augment) else None
        given = {"loss": recipe.loss, "class_weight": recipe.class_weight, "mixup": recipe.mixup or None}
        strange = [name for name, value in {**given, "own augment": own}.items() if value is not None]
        if strange:
            raise ArgumentError(f"the recipe's {', '.join(strange)} is for classifiers; leave it out for a detector")
        if recipe.patience is not None and (validation is None or recipe.monitor != "loss"):
            raise ArgumentError('patience needs validation=..., and monitor="loss"')
        self._take_classes(train)
        fields = self._matched(train, "train")
        checked = None if validation is None else self._matched(validation, "validation")
        if not sum(int((said >= 0).sum()) for said in fields.labels):
            raise DataError("there is not one box to train on; expected fields with boxes")
        card, size = self._card, self.image_size
        if card.epochs == 0:
            anchors, diameter = self._fit_anchors(fields), self._typical(fields)
            card = replace(card, detection=replace(self._detection, anchors=anchors, cell_diameter=diameter))
        assert card.detection is not None
        recipe = with_rate(recipe, tuning=True)
        sets = (fields,) if checked is None else (fields, checked)
        most = max(int((~part.boxed()).sum(1).max()) + max(map(len, part.boxes)) for part in sets)
        room = max(-(-most // 32) * 32, 32)
        shown = [Examples(part.images(size, progress=progress), part.targets(size, room)) for part in sets]
        data = {"train": _facts(fields), "validation": None if checked is None else _facts(checked)}
        kept = card.detection
        detection = DetectionConfig(kept.anchors, (0.5,) * len(self.class_names), cell_diameter=kept.cell_diameter)
        after = replace(card.trained_on(np.array([""]), call.options(recipe), data), detection=detection)
        network = self._task.network
        return run_fit(
            call,
            card,
            after,
            trained_by(self._task, recipe),
            self._task,
            self._weights,
            (shown[0], None if checked is None else shown[1]),
            recipe=recipe,
            constants=detection.anchors.boxes(*size),
            keep=lambda kept, card: self._set(network, kept, card),
        )

    def _take_classes(self, train: FieldDataset) -> None:
        """Take the classes of the first training set, where none were given and it has others."""
        names = train.class_names if isinstance(train, FieldDataset) and train.annotated else ()
        if self._open is None or self._card.epochs or {name.casefold() for name in names} <= {*_DEFAULT_CLASSES}:
            return
        network, first = self._task.network, self._weights
        if len(names) != len(self.class_names):
            per_place = self._detection.anchors.per_place
            module, _ = make(
                self._card.architecture, len(names), per_place, weights=self._open[0], seed=self._card.seed
            )
            network, first = Network(module), weights_of(module)
        detection = replace(self._detection, thresholds=(0.5,) * len(names))
        positive = names[-1] if len(names) == 2 else None
        self._set(network, first, replace(self._card, class_names=names, positive_class=positive, detection=detection))

    def _fit_anchors(self, fields: FieldDataset) -> Anchors:
        """Return anchors for the boxes that count."""
        factors = fields.factors(self.image_size)
        scaled = [
            own[said >= 0] * factor for own, said, factor in zip(fields.boxes, fields.labels, factors, strict=True)
        ]
        return fit_anchors(np.concatenate(scaled), find(self._card.architecture).strides)

    def learn_diameter(self, train: FieldDataset) -> float:
        """Keep the diameter of red cells in the fields that this detector was trained on; `fit` does it by itself.

        For files that were saved before it was kept.

        Parameters
        ----------
        train : FieldDataset
            The fields of its training.

        Returns
        -------
        float
            In pixels of the detector's input: the median side of the boxes of the first class.

        Examples
        --------
        >>> import copy
        >>> 20 < copy.copy(det).learn_diameter(fields) < 60
        True
        """
        diameter = self._typical(self._matched(train, "train"))
        self._card = replace(self._card, detection=replace(self._detection, cell_diameter=diameter))
        return diameter

    def _typical(self, fields: FieldDataset) -> float:
        """Return the median side of the boxes of the first class, in pixels of the input; of all where it has none."""
        factors = fields.factors(self.image_size)
        for kinds in (0, slice(0, None)):
            sides = [
                np.sqrt(((own[:, 2:] - own[:, :2]) * factor[:2]).prod(1))[said == 0 if kinds == 0 else said >= 0]
                for own, said, factor in zip(fields.boxes, fields.labels, factors, strict=True)
            ]
            if (joined := np.concatenate(sides)).size:
                break
        return round(float(np.median(joined)), 2)

    def _matched(self, fields: FieldDataset, name: str) -> FieldDataset:
        """Return the fields with labels in the order of this detector's classes."""
        if not isinstance(fields, FieldDataset):
            raise ArgumentError(
                f"{name} is a {type(fields).__name__}; expected a FieldDataset, see cellscan.load_fields"
            )
        if not len(fields):
            raise DataError(f"{name} has no fields; expected at least one")
        if not fields.annotated:
            raise DataError(f"{name} has no boxes: it was read from a folder of images alone")
        mine = {own.casefold(): number for number, own in enumerate(self.class_names)}
        strange = [own for own in fields.class_names if own.casefold() not in mine]
        if strange:
            raise DataError(
                f"{name} has the class {', '.join(strange)}; this detector knows {', '.join(self.class_names)}"
            )
        if fields.class_names == self.class_names:
            return fields
        return fields.relabelled(self.class_names, [mine[own.casefold()] for own in fields.class_names])

    def predict(
        self, images: Images | FieldDataset, *, cell_diameter: float | str | None = "auto",
        score_threshold: float | None = None, on_error: str = "raise", progress: bool = True,
    ) -> FieldDetections:  # fmt: skip
        """Find the cells of one field or many.

        Parameters
        ----------
        images
            A path, a folder, a Pillow image, an array (H, W, 3) or (N, H, W, 3), a `FieldDataset`, or a list or
            generator of single images.
        cell_diameter : "auto", float or None
            Of the red cells, in pixels of the image as it is: fields are rescaled so that they have the diameter that
            the detector was trained at. What is larger than its input then is cut into tiles that overlap, and room
            is filled with the colour of the background; the dark surround of an eyepiece is left out.
            ``"auto"`` estimates it, a field each, by `cellscan.estimate_cell_diameter`; a field where that sees no
            red cells, or that fits the input with cells within a fifth of the trained diameter, is shown as in
            training. None shows every field as in training: fitted into the input, on black.
        score_threshold : float, optional
            Score from which a box is returned; left out, the thresholds of the classes.
        on_error : {"raise", "skip"}
            ``"skip"`` passes over fields that cannot be read, and lists them under ``failed``.
        progress : bool
            Show a bar if it takes longer than two seconds.

        Returns
        -------
        FieldDetections
            A sequence, also for one field.

        Raises
        ------
        ImageError
            Where a field cannot be read.

        Examples
        --------
        >>> import numpy as np
        >>> found = det.predict(np.zeros((480, 640, 3), np.uint8))
        >>> len(found), found[0].size
        (1, (640, 480))
        """
        found: list[Detections] = []
        failed: list[Failure] = []
        options: dict[str, Any] = {"score_threshold": score_threshold, "on_error": on_error, "progress": progress}
        for one in self.stream(images, cell_diameter=cell_diameter, **options):
            (found if isinstance(one, Detections) else failed).append(one)  # type: ignore[arg-type]
        return FieldDetections(tuple(found), tuple(failed), self.class_names)

    def stream(
        self, images: Images | FieldDataset, *, cell_diameter: float | str | None = "auto",
        score_threshold: float | None = None, on_error: str = "raise", progress: bool = True,
    ) -> Iterator[Detections | Failure]:  # fmt: skip
        """Yield what `predict` returns field by field, in bounded memory; failures where they are met.

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
        read = self._reader(check_diameter(cell_diameter))
        open_fields: deque[_Shown] = deque()
        waiting: list[tuple[_Shown, np.ndarray]] = []
        with Progress("detecting", total, show=progress) as bar:
            for item, image in pairs:
                bar.advance(1)
                if isinstance(image, ImageError):
                    if on_error == "raise":
                        raise image
                    yield Failure(item.index, item.name, str(image))
                    continue
                shown, tiles = read(item, image)
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
        """Return what turns an image into the inputs that show it."""
        trained = self._detection.cell_diameter
        if isinstance(cell_diameter, float) and trained is None:
            raise ArgumentError(
                f"cell_diameter is {cell_diameter:g}, but this detector does not know the diameter it was trained at; "
                "leave it out, or train with fit(...)"
            )

        def read(item: Item, image: np.ndarray) -> tuple[_Shown, list[Any]]:
            again: Any = image
            if isinstance(item.image, (str, os.PathLike)) or callable(item.image):
                again = SeenImage(item.image, item.name, zlib.crc32(image))
            if cell_diameter is None:
                tiling = as_trained(image, self.image_size)
                return _Shown(item.name, again, image.shape[1::-1], tiling), tiling.show(image, None)
            ground = find_ground(image)
            try:
                diameter = cell_diameter if isinstance(cell_diameter, float) else measure_diameter(image, ground)[0]
            except DataError:  # no red cells to be seen: shown as in training, and told by the result
                diameter = None
            tiling = plan_tiles(ground, self.image_size, diameter, trained)
            area = float(ground.lit.sum()) / ground.factor**2
            shown = _Shown(
                item.name, again, image.shape[1::-1], tiling, diameter, area, describe_field(ground, diameter)
            )
            return shown, tiling.show(image, ground)

        return read

    def _run(self, batch: list[tuple[_Shown, np.ndarray]]) -> None:
        """Run a batch of tiles, each of which keeps what was found in it."""
        use_jax()
        size = next(size for size in BATCH_SIZES if size >= len(batch))
        pixels = np.zeros((size, *self.image_size, 3), np.uint8)
        for row, (_, image) in enumerate(batch):
            pixels[row] = image
        rows = np.asarray(predict(self._task, (self._weights,), self._anchors, pixels))
        for found, (shown, _) in zip(rows, batch, strict=False):
            shown.rows.append(found)

    def _found(self, shown: _Shown, score_threshold: float | None) -> Detections:
        wanted = np.array(
            self.thresholds if score_threshold is None else [score_threshold] * len(self.class_names), np.float32
        )
        found = shown.tiling.merge(shown.rows, self._detection.iou_threshold)
        labels = found[:, 5].astype(np.int32)
        corners = np.ascontiguousarray(found[:, :4])
        good = found[:, 4] >= wanted[labels]
        good &= (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        return Detections(
            shown.name, shown.whole, corners[good], labels[good], found[good, 4], self.class_names, shown.image,
            shown.diameter, shown.lit_area, shown.appearance,
        )  # fmt: skip

    def evaluate(
        self, fields: FieldDataset, *, cell_diameter: float | str | None = "auto", progress: bool = True
    ) -> DetectionReport:
        """Evaluate the detector on annotated fields, by pycocotools (extra ``detect``).

        Parameters
        ----------
        fields : FieldDataset
            Other fields than in training.
        cell_diameter : "auto", float or None
            As of `predict`.
        progress : bool

        Returns
        -------
        DetectionReport
            Average precision over all scores; F1 and counts at the thresholds.

        Raises
        ------
        ArgumentError, DataError
            As of `fit`.

        Examples
        --------
        >>> report = det.evaluate(fields)
        >>> report.boxes == sum(fields.per_class().values())
        True
        """
        fields = self._matched(fields, "fields")
        found = self.predict(fields, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, progress=progress)
        return evaluate_detections(fields, found, self._detection)

    def choose_threshold(
        self,
        valid: FieldDataset,
        *,
        classifier: Classifier | None = None,
        cell_diameter: float | str | None = "auto",
        source: str = "fields of your own",
        progress: bool = True,
    ) -> tuple[float, ...]:
        """Choose the threshold of each class that gives the best F1, and measure what `screen` corrects by.

        Ten annotated fields of one's own microscope, some cells of them infected, make what `screen` claims one's own:
        its correction, its interval and its limit of detection then rest on them, and hold for fields like them.

        Parameters
        ----------
        valid : FieldDataset
            Fields that `fit` did not see.
        classifier : Classifier, optional
            That confirms infected cells in `screen`: the errors are those of the two together.
        cell_diameter : "auto", float or None
            As of `predict`.
        source : str
            Where the fields are from, in words: what `screen` says of where errors are known.
        progress : bool

        Returns
        -------
        tuple[float, ...]
            One a class. The card also keeps how often a cell of the last class is found, false ones for
            every cell that is none, both field by field, and what the fields look like.

        Examples
        --------
        >>> import copy, cellscan
        >>> len(copy.copy(det).choose_threshold(cellscan.synthetic_fields(4, seed=2)))
        2
        """
        valid = self._matched(valid, "valid")
        found = self.predict(valid, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, progress=progress)
        self._card = replace(self._card, detection=choose_thresholds(valid, found, self._detection))
        if len(self.class_names) == 2:
            self._measure(valid, found, classifier, source)
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
        """Measure at the present thresholds what `screen` corrects by, on fields that chose nothing.

        Parameters
        ----------
        fields : FieldDataset
            Fields that took part neither in `fit` nor in `choose_threshold`, some cells of them infected.
        classifier, cell_diameter, source, progress
            As of `choose_threshold`.

        Returns
        -------
        tuple[float or None, float or None]
            Share of the infected cells that are found, and false calls for each uninfected cell; None where there are
            no such cells. The card keeps both, field by field, and what the fields look like.

        Raises
        ------
        ArgumentError
            Where the detector does not have two classes.
        DataError
            As of `fit`.

        Examples
        --------
        >>> import copy, cellscan
        >>> s, f = copy.copy(det).measure_errors(cellscan.synthetic_fields(4, seed=2))
        >>> s is not None and 0 <= s <= 1
        True
        """
        if len(self.class_names) != 2:
            raise ArgumentError(
                f"the detector knows {', '.join(self.class_names)}; errors are measured of two classes, the second "
                "infected"
            )
        fields = self._matched(fields, "fields")
        found = self.predict(fields, cell_diameter=cell_diameter, score_threshold=MIN_SCORE, progress=progress)
        self._measure(fields, found, classifier, source)
        rules = self._detection
        return rules.sensitivity, rules.false_positive_rate

    def _measure(
        self, fields: FieldDataset, found: FieldDetections, classifier: Classifier | None, source: str
    ) -> None:
        """Keep the error rates of detector and classifier together, and what the fields look like."""
        rules = self._detection
        second = None if classifier is None else name_classifier(classifier)
        judged = [confirm(one, rules, classifier) for one in found]
        rules = replace(measure_errors(fields, judged, rules), judged_with=second)
        described = [one.appearance for one in found if one.appearance]
        rules = replace(rules, likeness=learn_likeness(described, source) if described else None)
        self._card = replace(self._card, detection=rules)

    def save(
        self, path: str | os.PathLike[str], *, report: DetectionReport | None = None, licence: str | None = None,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        """Write one safetensors file: weights and card.

        Parameters
        ----------
        path : path
        report : DetectionReport, optional
            Its metrics go into the card.
        licence : str, optional
            Of the weights.
        dtype : {"float32", "float16"}
            Of the weights in the file. ``"float16"`` halves the file, for results that differ in the third digit.

        Examples
        --------
        >>> import tempfile, pathlib, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "det.safetensors"
        >>> det.save(path, dtype="float16")
        >>> cellscan.Detector.load(path)
        Detector('retinanet_small', image_size=(96, 128), class_names=('red blood cell', 'infected'), epochs=4)
        """
        if not (report is None or isinstance(report, DetectionReport)):
            raise ArgumentError(f"report is {report!r:.80}; expected a DetectionReport, such as evaluate(...) returns")
        cards.save(path, self._card, [self._weights], None if report is None else report.to_dict(), licence, dtype)

    @classmethod
    def pretrained(cls, name: str | None = None) -> Detector:
        """Load a detector that comes with the library; no network is needed.

        For research use only: not a medical device.

        Parameters
        ----------
        name : str, optional
            ``"iml_retinanet_small"``, the only one and the default: `retinanet_small` at 480 x 360 px, trained on
            fields of IML-Malaria (*P. vivax*, thin films). ``card.metrics`` has its metrics, on fields not in training.

        Raises
        ------
        ArgumentError
            For an unknown name.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Detector.pretrained().class_names
        ('red blood cell', 'infected')
        """
        with cards.bundled(name, _PRETRAINED) as path:
            return cls.load(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Detector:
        """Read a file that `save` wrote; nothing is ever unpickled.

        Raises
        ------
        ModelFileError
            Where the file is missing, damaged, foreign, a classifier's, or does not fit.

        Examples
        --------
        >>> import tempfile, pathlib, cellscan
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "det.safetensors"
        >>> det.save(path)
        >>> cellscan.Detector.load(path).card.seed
        0
        """
        card, tensors = cards.read(path)
        if card.detection is None:
            raise ModelFileError(f"{path}: holds a classifier ({card.architecture}); read it with Classifier.load")
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
    """A field on its way: how it is shown, and what was found in its tiles so far."""

    name: str
    image: Any
    whole: tuple[int, int]
    tiling: Tiling
    diameter: float | None = None
    lit_area: float = 0.0
    appearance: tuple[float, ...] = ()
    rows: list[np.ndarray] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return len(self.rows) == len(self.tiling.tiles)


def check_diameter(value: Any) -> float | str | None:
    """Return ``"auto"``, a number of pixels as float, or None."""
    if value is None or (isinstance(value, str) and value == "auto"):
        return value
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and float(value) >= 2:
        return float(value)
    raise ArgumentError(
        f'cell_diameter is {value!r}; expected "auto", the diameter of a red cell in pixels of the image as it is, 2 '
        "or more, or None for fields shown as in training"
    )


def _read(fields: FieldDataset) -> Iterator[tuple[Item, np.ndarray | ImageError]]:
    """Read the images of a data set; each item can read its own again."""
    for index, name in enumerate(fields.names.tolist()):
        again = functools.partial(fields.source.read, int(fields.rows[index]))
        try:
            yield Item(index, name, again), again()
        except ImageError as error:
            yield Item(index, name, again), error


def _facts(fields: FieldDataset) -> dict[str, Any]:
    return {
        "hash": fields.hash(),
        "fields": len(fields),
        "boxes": sum(int((said >= 0).sum()) for said in fields.labels),
    }
