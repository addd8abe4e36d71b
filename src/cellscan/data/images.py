"""Whatever holds an image -> RGB uint8, and the one resize rule of the library.

Conversions: EXIF orientation is applied; grey and palette images become RGB; transparent pixels lie
on black, as what surrounds a cell does; 16-bit greys are scaled by 255 / 65535; CMYK goes through
Pillow; float images must lie in [0, 1]. Of an image with several frames the first counts.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps

from cellscan.errors import ImageError

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Any"
"""One image: a path, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""

RESIZE = {"filter": "bilinear", "fit": "stretch"}
"""The one resize rule, as a card states it: Pillow's antialiased bilinear filter, both sides stretched."""

FIT = {"filter": "bilinear", "fit": "pad"}
"""Of whole fields: the same filter, both sides by one factor, black to the right or below where room is left."""

Size: TypeAlias = "int | tuple[int, int]"
"""Side of a square that is stretched to; or height and width that is fitted into."""

PIXEL_LIMIT = 80_000_000
"""Images with more pixels are refused before they are decoded."""

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".avif", ".ppm"))
_FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM")


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def fitted(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of an image that is fitted into `size`, which is height and width.

    Examples
    --------
    >>> from cellscan.data.images import fitted
    >>> fitted(1280, 960, (360, 600))
    (480, 360)
    """
    scale = min(size[1] / width, size[0] / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def read_rgb(image: ImageLike, size: Size | None = None, *, where: str | None = None) -> np.ndarray:
    """Return `image` as (H, W, 3) uint8, at its own size or resized as `Size` says.

    `where` names the image in errors; a path names itself. `ImageError` says what is wrong.
    """
    if isinstance(image, (str, os.PathLike)):
        where = where or os.fspath(image)
    return _decode(image, size, where or "image")


def read_header(file: Any) -> tuple[int, int, str]:
    """Return width and height, as `read_rgb` will have them, and format of an image file, without decoding it."""
    with Image.open(file, formats=_formats()) as image:
        width, height = image.size
        # Of the base class: a PNG's own method decodes the image in search of a block behind it. A TIFF's size has
        # been turned by Pillow already.
        if image.format != "TIFF" and Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) >= 5:  # by a quarter
            width, height = height, width
        return width, height, image.format or "unknown"


def _decode(image: ImageLike, size: Size | None, where: str) -> np.ndarray:
    opened = None
    try:
        if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
            opened = image = _open(image, where)
        if isinstance(image, Image.Image):
            rgb = _pil_to_rgb(image, where)
        else:
            rgb = Image.fromarray(array_to_rgb(image, where))
        if size is None:
            return np.asarray(rgb)
        wanted = (size, size) if isinstance(size, int) else fitted(*rgb.size, size)
        if rgb.size != wanted:
            rgb = rgb.resize(wanted, Image.Resampling.BILINEAR)
        array = np.asarray(rgb)
        if not isinstance(size, int) and wanted != size[::-1]:
            array = np.pad(array, ((0, size[0] - wanted[1]), (0, size[1] - wanted[0]), (0, 0)))
        return array
    except ImageError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise ImageError(f"{where}: {_reason(error)}") from error
    finally:
        if opened is not None:
            opened.close()


def _open(file: Any, where: str) -> Image.Image:
    if isinstance(file, (str, os.PathLike)):
        path = Path(file)
        if not path.exists():
            raise ImageError(f"{where}: there is no such file")
        if path.is_dir():
            raise ImageError(f"{where}: this is a folder; expected an image file")
        if path.stat().st_size == 0:
            raise ImageError(f"{where}: the file is empty (0 bytes)")
    return Image.open(file, formats=_formats())


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"this is not an image of a known format ({', '.join(_formats())})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"the image has too many pixels; the limit is {PIXEL_LIMIT:,}"
    return f"the image cannot be decoded ({type(error).__name__}: {error}); is the file whole?"


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > PIXEL_LIMIT:
        raise ImageError(f"{where}: {width} x {height} pixels; the limit is {PIXEL_LIMIT:,}. Crop or shrink it first")
    if width == 0 or height == 0:
        raise ImageError(f"{where}: the image has no pixels ({width} x {height})")


def _pil_to_rgb(image: Image.Image, where: str) -> Image.Image:
    _check_size(*image.size, where)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(array_to_rgb(np.asarray(image), where, wide=True))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return image.convert("RGB")


def array_to_rgb(array: Any, where: str, *, wide: bool = False) -> np.ndarray:
    """Convert one image held in an array to (H, W, 3) uint8.

    `wide` allows the signed integers that Pillow uses for 16-bit files.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        hint = " (channels come last: array.transpose(1, 2, 0))" if array.ndim == 3 else ""
        raise ImageError(f"{where}: an array of shape {array.shape}; expected (H, W, 3){hint}")
    _check_size(array.shape[1], array.shape[0], where)
    array = _to_uint8(array, where, wide)
    if array.shape[-1] == 4:
        alpha = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * alpha + 127) // 255).astype(np.uint8)
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array)


def _to_uint8(array: np.ndarray, where: str, wide: bool) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16 or (wide and array.dtype.kind in "iu"):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 65535:
            raise ImageError(f"{where}: integers from {low} to {high}; expected 16-bit values, 0 to 65535")
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            raise ImageError(
                f"{where}: floats from {low:.4g} to {high:.4g}; expected values in [0, 1]. "
                "For values from 0 to 255 pass array.astype('uint8')"
            )
        return np.rint(array * 255.0).astype(np.uint8)
    raise ImageError(
        f"{where}: an array of dtype {array.dtype}; expected uint8, uint16 or floats in [0, 1]. "
        "For integers from 0 to 255 pass array.astype('uint8')"
    )


def is_image_name(path: str) -> bool:
    """Whether a path with slashes names an image that counts: hidden parts and `__MACOSX` do not."""
    parts = path.split("/")
    return os.path.splitext(parts[-1])[1].lower() in SUFFIXES and not any(
        p.startswith((".", "__MACOSX")) for p in parts
    )


def image_files(folder: Path) -> list[str]:
    """Return the image files under `folder`, sorted, as paths with slashes relative to it."""
    found: list[str] = []
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        below = os.path.relpath(base, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        found += [f"{prefix}{name}" for name in files if is_image_name(name)]
    return sorted(found)
