"""The exceptions of cellscan: one base class, and a subclass for each kind of problem."""

import importlib
from typing import Any


class CellscanError(Exception):
    """Base class of all errors that cellscan raises deliberately.

    The message contains what was given, what was expected, and what to do next.

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
    """An argument has an invalid value.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Recipe(augment="wild")
    Traceback (most recent call last):
    ...
    cellscan.errors.ArgumentError: augment is 'wild'; expected one of 'none', 'small', 'strong'
    """


class ImageError(CellscanError, ValueError):
    """An image is missing, damaged, empty or too large, or the library has no conversion for its pixel format.

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
    """A data set, a split or a mapping of patients is inconsistent or insufficient.

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
    """A model file is missing or damaged, or was written by another program or a newer cellscan.

    Examples
    --------
    >>> import cellscan
    >>> cellscan.Classifier.load("missing.safetensors")
    Traceback (most recent call last):
    ...
    cellscan.errors.ModelFileError: missing.safetensors: there is no such file
    """


class TrainingError(CellscanError, RuntimeError):
    """Training cannot continue because the loss or a gradient is no longer finite.

    The classifier keeps the last finite weights.

    Examples
    --------
    >>> import cellscan
    >>> issubclass(cellscan.TrainingError, RuntimeError)
    True
    """


class MissingExtraError(CellscanError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it.

    Examples
    --------
    >>> import cellscan
    >>> issubclass(cellscan.MissingExtraError, ImportError)
    True
    """


def import_extra(module: str, extra: str, what: str, more: str = "") -> Any:
    """Import a package of an extra, or raise `MissingExtraError` with the command that installs the extra.

    Parameters
    ----------
    module : str
        The package, or a module of it.
    extra : str
        Name of the extra, as in ``pip install 'cellscan[extra]'``.
    what : str
        What needs the package, the first words of the message.
    more : str
        The end of the message, after the command.

    Examples
    --------
    >>> from cellscan.errors import import_extra
    >>> import_extra("no_such_package", "hub", "downloading")
    Traceback (most recent call last):
    ...
    cellscan.errors.MissingExtraError: downloading needs no_such_package: pip install 'cellscan[hub]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtraError(f"{what} needs {package}: pip install 'cellscan[{extra}]'{more}") from error


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ArgumentError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:  # `in` raises an error of NumPy's for an array
        raise ArgumentError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_names(name: str, value: object, least: int) -> tuple[str, ...]:
    """Return names as a tuple, or raise `ArgumentError` if there are too few, or two differ in case at most."""
    enough = isinstance(value, (list, tuple)) and len(value) >= least
    if not enough or not all(isinstance(text, str) and text for text in value):  # type: ignore[union-attr]
        expected = "one name" if least == 1 else "two names"
        raise ArgumentError(f"{name} is {value!r}; expected at least {expected}")
    names: tuple[str, ...] = tuple(value)  # type: ignore[arg-type]
    if len({text.casefold() for text in names}) < len(names):
        raise ArgumentError(f"{name} is {names}; the names must differ in more than case")
    return names
