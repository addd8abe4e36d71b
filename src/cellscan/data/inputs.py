"""Decode images of any form, one after another, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from cellscan.data.cells import Cell, CellDataset
from cellscan.data.images import ImageLike, Size, list_folder, read_file, read_rgb, warn_of_others, with_patience
from cellscan.data.pixels import Pixels
from cellscan.data.reading import AS_STORED, Reading, check_reading
from cellscan.errors import ArgumentError, CellscanError, ImageError

Images: TypeAlias = "ImageLike | Cell | CellDataset | Pixels | Iterable[ImageLike | Cell]"
"""One image or many: see `cellscan.Classifier.predict`."""

_AHEAD = 16
"""Number of images that are decoded in advance."""


@dataclass(frozen=True)
class Item:
    """One image of the input.

    Attributes
    ----------
    index : int
        Position in the input.
    name : str
        Name for results and error messages.
    image : Any
        The image as it was given.
    once : bool
        Whether it comes from an iterator. Its next step may change the image: a loop over a camera may write every
        picture to the same array, or to the same file.
    """

    index: int
    name: str
    image: Any
    once: bool = False


def list_items(images: Images) -> tuple[Iterable[Item], int | None]:
    """Return the images one by one, and their number if it is known."""
    if isinstance(images, (str, os.PathLike)):
        path = Path(os.fsdecode(images))
        if not path.is_dir():
            return [_item(0, images)], 1
        files, others = list_folder(path)
        warn_of_others(path, others)
        if not files:
            raise ImageError(f"{path}: there are no images in this folder (png, jpg, tif, bmp, gif, webp, avif, ppm)")
        return [Item(i, file, path / file) for i, file in enumerate(files)], len(files)
    if isinstance(images, CellDataset):
        raise ArgumentError("got a CellDataset inside another container; pass it alone, or join sets with concat")
    if _is_one(images):
        return [_item(0, images)], 1
    many: Any = images
    if not isinstance(many, Pixels) and hasattr(many, "__array__") and hasattr(many, "ndim"):
        many = _as_array(many)
        if many.dtype.kind in "USO" and many.ndim <= 1:  # This is an array of paths or other objects.
            many = many.tolist() if many.ndim else [many.item()]
            many = [os.fsdecode(path) for path in many] if np.asarray(images).dtype.kind == "S" else many
        elif many.ndim != 4:
            return [Item(0, "image 0", many)], 1
    if isinstance(many, (set, frozenset)):
        raise ArgumentError(
            "images is a set, whose order changes from run to run; expected a list, such as sorted(images)"
        )
    if isinstance(many, Iterable) and not isinstance(many, dict):
        total = len(many) if hasattr(many, "__len__") else None  # type: ignore[arg-type]
        once = isinstance(many, Iterator)
        return (_item(i, image, once) for i, image in enumerate(many)), total
    raise ArgumentError(
        f"images is a {type(images).__name__}; expected a path, a folder, an encoded image as bytes or an open file, "
        "a Pillow image, an array (H, W, 3) or (N, H, W, 3), a cell, a CellDataset, or a list or generator of single "
        "images"
    )


def reading_of(images: Images, reading: Reading | None) -> Reading:
    """Return the checked reading; raise `ArgumentError` if one is given for images that are already loaded."""
    checked = check_reading(reading)
    if checked != AS_STORED and (isinstance(images, (CellDataset, Pixels)) or _is_cell(images)):
        raise ArgumentError(
            f"reading is {checked}, but a {type(images).__name__} was read when it was loaded; "
            "pass the reading there, such as load_folder(dir, reading=...)"
        )
    return checked


def _is_one(image: Any) -> bool:
    return isinstance(image, (bytes, bytearray, memoryview, Image.Image)) or hasattr(image, "read") or _is_cell(image)


def _is_cell(image: Any) -> bool:
    """Whether this is a cell or a field."""
    return isinstance(getattr(image, "image", None), np.ndarray) and isinstance(getattr(image, "name", None), str)


def _as_array(images: Any) -> np.ndarray:
    try:
        return np.asarray(images)
    except Exception as error:  # Arrays of other libraries, on other devices, raise many types of errors.
        raise ArgumentError(
            f"this {type(images).__name__} cannot be converted to a NumPy array ({error}); expected an array in the "
            "memory of the CPU"
        ) from error


def _item(index: int, image: Any, once: bool = False) -> Item:
    if _is_cell(image):
        return Item(index, image.name, image.image, once)
    if isinstance(image, (str, os.PathLike)):
        return Item(index, os.fsdecode(image), image, once)
    names = (getattr(image, name, None) for name in ("filename", "name"))
    return Item(index, next((name for name in names if isinstance(name, str) and name), f"image {index}"), image, once)


def decode(
    items: Iterable[Item], size: Size | None, reading: Reading = AS_STORED
) -> Iterator[tuple[Item, np.ndarray | ImageError]]:
    """Yield the decoded images in order, decoding some in advance on all cores; failed images yield their error.

    Without a size, images keep their stored size. The pixels of each item, or the bytes of its file, are copied before
    the next item is requested.
    """

    def read(item: Item, copied: Any) -> np.ndarray | ImageError:
        try:
            if isinstance(copied, ImageError):
                return copied
            read_already = isinstance(item.image, Image.Image)
            return read_rgb(copied, size, where=item.name, reading=AS_STORED if read_already else reading)
        except ImageError as error:
            return error

    if isinstance(items, list) and len(items) == 1:
        yield items[0], read(items[0], _take(items[0], reading))
        return
    waiting: deque[tuple[Item, Future[np.ndarray | ImageError]]] = deque()
    with ThreadPoolExecutor() as pool:
        for item in items:
            waiting.append((item, pool.submit(read, item, _take(item, reading))))
            if len(waiting) >= _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _take(item: Item, reading: Reading) -> Any:
    """Return an image in a form that other code cannot change, or an `ImageError` if it is not an image."""
    image = item.image
    try:
        if isinstance(image, (str, os.PathLike)):
            return _bytes_of(image) if item.once else image
        if isinstance(image, (bytes, bytearray, memoryview)):
            return bytes(image)
        if isinstance(image, Image.Image):  # The caller may move it to another frame, or close its file.
            return read_rgb(image, where=item.name, reading=reading)
        if hasattr(image, "read"):
            return read_file(image, item.name)
        if hasattr(image, "__array__"):
            return with_patience(lambda: np.array(image), item.name)
    except CellscanError as error:
        if not isinstance(error, ImageError):
            raise
        return error
    except Exception as error:  # Arrays of other libraries, on other devices, raise many types of errors.
        return ImageError(
            f"{item.name}: this {type(image).__name__} cannot be converted to a NumPy array ({error}); expected an "
            "array in the memory of the CPU"
        )
    return ImageError(
        f"{item.name}: a {type(image).__name__} is not an image; expected a path, bytes, an open file, a Pillow image, "
        "an array or a cell"
    )


def _bytes_of(path: str | os.PathLike[str]) -> Any:
    try:
        return with_patience(Path(path).read_bytes, os.fsdecode(path)) or path
    except (OSError, ValueError) as error:
        if isinstance(error, CellscanError):
            raise
        return path  # Decoding the path raises an error with the reason.
