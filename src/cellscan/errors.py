"""The errors of cellscan: one root, and a child for each thing that can be wrong."""


class CellscanError(Exception):
    """Root of every error that cellscan raises on purpose.

    The message says what was given, what was expected, and what to do next.

    Examples
    --------
    >>> import cellscan
    >>> try:
    ...     cellscan.load_folder("no/such/folder")
    ... except cellscan.CellscanError as error:
    ...     print(type(error).__name__)
    DataError
    """


class ArgumentError(CellscanError, ValueError):
    """An argument has a value that the call cannot use.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Recipe(augment="wild")
    Traceback (most recent call last):
    ...
    cellscan.errors.ArgumentError: augment is 'wild'; expected one of 'none', 'small', 'strong'
    """


class ImageError(CellscanError, ValueError):
    """An image is missing, damaged, empty, too large, or of a kind that has no stated conversion.

    Examples
    --------
    >>> import cellscan
    >>> clf = cellscan.Classifier(image_size=32)
    >>> clf.predict("missing.png")
    Traceback (most recent call last):
    ...
    cellscan.errors.ImageError: missing.png: there is no such file
    """


class DataError(CellscanError, ValueError):
    """A data set, a split or a mapping of patients does not hold together.

    Examples
    --------
    >>> import cellscan
    >>> cells = cellscan.synthetic_cells(40, seed=0)
    >>> try:
    ...     cells.folds(50)
    ... except cellscan.DataError as error:
    ...     print(error)
    40 cells cannot fill 50 folds
    """


class ModelFileError(CellscanError, ValueError):
    """A model file is missing, damaged, foreign, or made by a newer cellscan.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Classifier.load("missing.safetensors")
    Traceback (most recent call last):
    ...
    cellscan.errors.ModelFileError: missing.safetensors: there is no such file
    """


class TrainingError(CellscanError, RuntimeError):
    """Training cannot go on: the loss or a gradient is no longer finite.

    The classifier keeps the last good weights.

    Examples
    --------
    >>> import cellscan
    >>> issubclass(cellscan.TrainingError, RuntimeError)
    True
    """


class MissingExtraError(CellscanError, ImportError):
    """What a call needs is not installed; the message names the extra that brings it.

    Examples
    --------
    >>> import cellscan
    >>> issubclass(cellscan.MissingExtraError, ImportError)
    True
    """


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ArgumentError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:  # an array is in nothing, and says so in its own words
        raise ArgumentError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_names(name: str, value: object, least: int) -> tuple[str, ...]:
    """Return names as a tuple, or raise `ArgumentError` unless there are enough, all different in more than case."""
    several = isinstance(value, (list, tuple)) and len(value) >= least
    if not several or not all(isinstance(one, str) and one for one in value):  # type: ignore[union-attr]
        many = "one name" if least == 1 else "two names"
        raise ArgumentError(f"{name} is {value!r}; expected at least {many}")
    names: tuple[str, ...] = tuple(value)  # type: ignore[arg-type]
    if len({one.casefold() for one in names}) < len(names):
        raise ArgumentError(f"{name} is {names}; the names must differ in more than case")
    return names
