"""Anything that holds images -> a stream of decoded batches, in bounded memory."""

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

from cellscan.data.cells import CellDataset
from cellscan.data.images import ImageLike, Size, image_files, read_rgb
from cellscan.data.pixels import Pixels
from cellscan.errors import ArgumentError, ImageError

Images: TypeAlias = "ImageLike | CellDataset | Pixels | Iterable[ImageLike]"
"""One image or many: see `cellscan.Classifier.predict`."""

_AHEAD = 16
"""Images that are decoded before they are needed."""


@dataclass(frozen=True)
class Item:
    """One image of the input: its position, a name, and the thing itself."""

    index: int
    name: str
    image: Any


def list_items(images: Images) -> tuple[Iterable[Item], int | None]:
    """Return the images one by one, and how many there are where that is known."""
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if not path.is_dir():
            return [Item(0, os.fspath(images), images)], 1
        files = image_files(path)
        if not files:
            raise ImageError(f"{path}: there are no images in this folder (png, jpg, tif, bmp, gif, webp, avif, ppm)")
        return [Item(i, file, path / file) for i, file in enumerate(files)], len(files)
    if isinstance(images, Image.Image):
        return [Item(0, str(getattr(images, "filename", "") or "image 0"), images)], 1
    if isinstance(images, CellDataset):
        raise ArgumentError("a CellDataset inside another container; pass it alone, or join sets with concat")
    if isinstance(images, Pixels) or (hasattr(images, "__array__") and hasattr(images, "ndim")):
        many = images if isinstance(images, Pixels) else np.asarray(images)
        if many.ndim != 4:
            return [Item(0, "image 0", many)], 1
        return (Item(i, f"image {i}", image) for i, image in enumerate(many)), len(many)
    if isinstance(images, Iterable) and not isinstance(images, (bytes, bytearray, dict)):
        total = len(images) if hasattr(images, "__len__") else None  # type: ignore[arg-type]
        return (Item(i, _name(i, image), image) for i, image in enumerate(images)), total
    raise ArgumentError(
        f"{type(images).__name__} holds no images that cellscan knows; expected a path, a folder, a Pillow image, "
        "an array (H, W, 3) or (N, H, W, 3), a CellDataset, or a list or generator of single images"
    )


def _name(index: int, image: Any) -> str:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return str(getattr(image, "filename", "") or f"image {index}")


def decode(items: Iterable[Item], size: Size | None) -> Iterator[tuple[Item, np.ndarray | ImageError]]:
    """Decode a little ahead of the reader, on all cores; an image that fails comes as its error.

    Without a size, images come at their own.
    """

    def read(item: Item) -> np.ndarray | ImageError:
        try:
            if not isinstance(item.image, (str, os.PathLike, Image.Image)) and not hasattr(item.image, "__array__"):
                raise ImageError(
                    f"{item.name}: a {type(item.image).__name__} is no image; "
                    "expected a path, a Pillow image or an array"
                )
            return read_rgb(item.image, size, where=item.name)
        except ImageError as error:
            return error

    if isinstance(items, list) and len(items) == 1:
        yield items[0], read(items[0])
        return
    waiting: deque[tuple[Item, Future[np.ndarray | ImageError]]] = deque()
    with ThreadPoolExecutor() as pool:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) >= _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
