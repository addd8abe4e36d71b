"""Convert images of any form to RGB uint8, and resize them by the one rule of the library.

Conversions:

- EXIF orientation is applied.
- Grey and palette images become RGB; Pillow converts CMYK.
- Transparent pixels become black, as the background of the NIH cells.
- 16-bit grey values are scaled by 255 / 65535. Images that use less than a sixteenth of that range are refused,
  because they would become black.
- TIFFs in which zero is white are inverted.
- Float images must have values in [0, 1], some of them above 1/16: values that were divided by 255 twice are refused.
- The first frame of an animation is read. A TIFF with several pages of one size is refused, because its pages may be
  channels; a `Reading` defines page, channel and window.
- Slides are refused.

Failures of the machine (no memory, too many open files, a disk that does not answer) are not errors of the image: the
call is repeated, and then raises `DataError`, never `ImageError`.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

from cellscan.data.reading import AS_STORED, Reading, through_window
from cellscan.data.tiffs import Page, choose_page, foreign, has_tifffile, is_tiff, read_page
from cellscan.errors import CellscanError, DataError, ImageError, MissingExtraError

T = TypeVar("T")

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Any"
"""One image: a path, an encoded file as bytes or as an open binary file, a Pillow image, or an array (H, W),
(H, W, 1), (H, W, 3) or (H, W, 4)."""

RESIZE = {"filter": "bilinear", "fit": "stretch"}
"""The resize rule for cells, as stored in cards: Pillow's antialiased bilinear filter, both sides stretched."""

FIT = {"filter": "bilinear", "fit": "pad"}
"""The resize rule for fields: the same filter, both sides scaled by one factor, black padding on the right or below."""

Size: TypeAlias = "int | tuple[int, int]"
"""Side of the square to which an image is stretched; or the height and width into which it is fitted."""

PIXEL_LIMIT = 80_000_000
"""Images with more pixels are refused before they are decoded."""

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".webp",
     ".avif", ".ppm", ".pgm", ".pbm", ".pnm")
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "DIB", "GIF", "WEBP", "AVIF", "PPM")
_LITTER = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))

_MACHINE = frozenset(
    getattr(errno, name)
    for name in ("EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EBUSY", "EINTR", "EIO", "ESTALE", "ETIMEDOUT", "ENOLCK",
                 "EREMOTEIO", "ENETDOWN", "ENETUNREACH", "ENOTCONN", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH")
    if hasattr(errno, name)
)  # fmt: skip
"""Error numbers of failures of the machine or its network, not of a file."""


def _is_of_the_machine(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE)


def with_patience(call: Callable[[], T], where: str) -> T:
    """Return the result of `call`; repeat it if the machine fails, and raise `DataError` after three failures."""
    for pause in (0.05, 0.5, None):
        try:
            return call()
        except (OSError, MemoryError) as error:
            if not _is_of_the_machine(error):
                raise
            if pause is None:
                raise DataError(
                    f"{where}: the machine failed three times ({type(error).__name__}: {error}); the image may be "
                    "intact. Free memory, close files (or allow more: ulimit -n), wait for the disk, and call again"
                ) from error
            time.sleep(pause)
    raise AssertionError


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def fitted(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height of an image after fitting it into `size`, which is (height, width).

    Examples
    --------
    >>> from cellscan.data.images import fitted
    >>> fitted(1280, 960, (360, 600))
    (480, 360)
    """
    scale = min(size[1] / width, size[0] / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def read_rgb(
    image: ImageLike, size: Size | None = None, *, where: str | None = None, reading: Reading = AS_STORED
) -> np.ndarray:
    """Return `image` as a new array (H, W, 3) uint8, at its stored size or resized as `Size` describes.

    `where` names the image in error messages; the default is its path. Raises `ImageError` if the image cannot be read,
    and `DataError` if the machine fails.
    """
    if isinstance(image, (str, os.PathLike)):
        where = where or os.fspath(image)
    where = where or "image"
    if hasattr(image, "read"):
        image = read_file(image, where)
    return with_patience(lambda: _decode(image, size, where, reading), where)


def read_file(file: Any, where: str) -> bytes:
    """Return all bytes of an open binary file, from its start."""
    try:
        if hasattr(file, "seek"):
            file.seek(0)
    except (OSError, ValueError):  # A pipe cannot seek.
        pass
    try:
        data = with_patience(file.read, where)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise ImageError(f"{where}: the open file cannot be read ({error})") from error
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if hasattr(data, "close"):
        data.close()  # Closing a coroutine avoids the warning that it was never awaited.
    raise ImageError(
        f"{where}: read() of this {type(file).__name__} returns a {type(data).__name__}; expected bytes. Open the file "
        'with open(path, "rb"); for an upload with an async read(), pass await upload.read(), or upload.file'
    )


def read_header(file: Any) -> tuple[int, int, str]:
    """Return width, height and format of an image file without decoding it; the size is that of `read_rgb`."""
    with Image.open(file, formats=_formats()) as image:
        width, height = image.size
        # This calls the method of the base class, because that of PNG files decodes the image in search of a later
        # block. Orientations from 5 swap the sides; Pillow has already swapped those of a TIFF.
        if image.format != "TIFF" and Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) >= 5:
            width, height = height, width
        return width, height, image.format or "unknown"


def _decode(image: ImageLike, size: Size | None, where: str, reading: Reading) -> np.ndarray:
    opened, stated = None, reading
    try:
        if isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)):
            file = image
            image = opened = _open(file, where, reading)
            if isinstance(opened, Image.Image):
                image, reading = _page_of(opened, file, where, reading)
        elif reading.page is not None:
            instead = "the Pillow image after image.seek(page)" if isinstance(image, Image.Image) else "array[page]"
            raise ImageError(
                f"{where}: reading has page {reading.page}, but this image is not a file; leave the page out and pass "
                f"{instead}"
            )
        if isinstance(image, Image.Image):
            rgb = _pil_to_rgb(image, where, reading)
        elif isinstance(image, Page):
            rgb = Image.fromarray(_page_to_rgb(image, where, reading))
        else:
            rgb = Image.fromarray(array_to_rgb(image, where, reading=reading))
        if size is None:
            return np.asarray(rgb)
        resized = (size, size) if isinstance(size, int) else fitted(*rgb.size, size)
        if rgb.size != resized:
            rgb = rgb.resize(resized, Image.Resampling.BILINEAR)
        array = np.asarray(rgb)
        if not isinstance(size, int) and resized != size[::-1]:
            array = np.pad(array, ((0, size[0] - resized[1]), (0, size[1] - resized[0]), (0, 0)))
        return array
    except MissingExtraError as error:
        if stated != AS_STORED:
            raise
        # Without a reading, this is a file that cannot be read, not a feature that needs an extra.
        raise ImageError(str(error)) from error
    except CellscanError:
        raise
    except Exception as error:  # Decoders raise many types of errors for damaged bytes.
        if _is_of_the_machine(error):
            raise
        raise ImageError(f"{where}: {_reason(error, where)}") from error
    finally:
        if isinstance(opened, Image.Image):
            opened.close()


def _open(file: Any, where: str, reading: Reading) -> Image.Image | Page:
    """Open a file with Pillow, or else a page of a TIFF with tifffile, if it is installed or the reading needs it."""
    try:
        return _open_pillow(file, where)
    except Image.UnidentifiedImageError:
        if foreign(where) or not is_tiff(file) or not (reading.chooses or has_tifffile()):
            raise
    return read_page(file, reading, where, PIXEL_LIMIT)


def _page_of(image: Image.Image, file: Any, where: str, reading: Reading) -> tuple[Image.Image | Page, Reading]:
    """Return the page of an open file that `reading` selects, and the part of `reading` that remains to be applied."""
    if foreign(where):
        raise ImageError(f"{where}: {foreign(where)}")
    if image.format != "TIFF":
        if reading.page:
            raise ImageError(
                f"{where}: reading has page {reading.page}, but this is a {image.format}; only a TIFF has pages"
            )
        return image, reading
    page, reading = choose_page(image, file, reading, where, PIXEL_LIMIT)
    if isinstance(page, Image.Image) and _is_wide_colour(page) and (reading.window is not None or _is_planar(page)):
        return read_page(file, replace(reading, page=page.tell()), where, PIXEL_LIMIT), reading
    return page, reading


def _open_pillow(file: Any, where: str) -> Image.Image:
    if isinstance(file, (bytes, bytearray, memoryview)):
        if not len(file):
            raise ImageError(f"{where}: the file is empty (0 bytes)")
        return Image.open(io.BytesIO(file), formats=_formats())
    path = Path(file)
    if not path.exists():
        raise ImageError(f"{where}: there is no such file")
    if path.is_dir():
        raise ImageError(f"{where}: this is a folder; expected an image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{where}: the file is empty (0 bytes)")
    return Image.open(path, formats=_formats())


def _reason(error: Exception, where: str) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        if foreign(where):
            return foreign(where)
        return f"this is not an image of a known format ({', '.join(_formats())})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"the image has too many pixels; the limit is {PIXEL_LIMIT:,}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the file cannot be read ({error.strerror})"
    return f"the image cannot be decoded ({type(error).__name__}: {error}); is the file whole?"


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > PIXEL_LIMIT:
        raise ImageError(f"{where}: {width} x {height} pixels; the limit is {PIXEL_LIMIT:,}. Crop or shrink it first")
    if width == 0 or height == 0:
        raise ImageError(f"{where}: the image has no pixels ({width} x {height})")


def _is_wide_colour(image: Image.Image) -> bool:
    """Whether a file has more than eight bits for each colour; Pillow reads the upper eight only."""
    sixteen = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3)
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 1)
    sixteen = sixteen or (bits[0] if isinstance(bits, tuple) else bits) > 8
    return sixteen and image.mode != "F" and not image.mode.startswith("I")


def _is_planar(image: Image.Image) -> bool:
    """Whether a TIFF stores each colour as a plane; Pillow reads these correctly only with eight bits."""
    return getattr(image, "tag_v2", {}).get(ExifTags.Base.PlanarConfiguration) == 2


def _pil_to_rgb(image: Image.Image, where: str, reading: Reading) -> Image.Image:
    _check_size(*image.size, where)
    # Both come from the tags of the file, which Pillow drops when it loads or rotates the image.
    tags: Any = getattr(image, "tag_v2", {})
    sixteen = _is_wide_colour(image)
    if sixteen and _is_planar(image):
        raise ImageError(
            f"{where}: this TIFF has a plane of 16 bits for each colour, which Pillow reads wrong; pass its path"
        )
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        if image.format == "TIFF":
            _load_unmapped(image)
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        bits, white = _depth(tags)
        if white and not image.mode.startswith("I;16"):
            raise ImageError(
                f"{where}: this is a TIFF of {bits} bits in which zero is white; save it with 8 or 16 bits"
            )
        return Image.fromarray(_page_to_rgb(Page(np.asarray(image), bits, white), where, reading, wide=True))
    if reading.window is not None:
        raise ImageError(
            f"{where}: reading has the window {reading.window}, but Pillow reads only 8 of the 16 bits of a "
            f"{image.format} in colour; save it as TIFF"
            if sixteen
            else _eight_bits(where, reading.window)
        )
    if reading.channel is not None:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB") if image.mode == "P" else image
        names = image.getbands()
        if reading.channel >= len(names):
            raise _no_channel(reading.channel, len(names), where)
        image = image.getchannel(reading.channel)
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
    else:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            background = Image.new("RGBA", image.size, (0, 0, 0, 255))
            background.alpha_composite(image.convert("RGBA"))
            image = background
        image = image.convert("RGB")
    if sixteen:  # The image contains the upper eight bits; times 257 gives the 16-bit range.
        _check_light(int(np.asarray(image).max()) * 257, where)
    return image


def _load_unmapped(image: Image.Image) -> None:
    """Decode a rotated TIFF without a memory map of its file, with which Pillow reads rows of the rotated length."""
    unmapped: Any = image
    name = getattr(unmapped, "filename", "")
    try:
        unmapped.filename = ""
        unmapped.load()
    finally:
        unmapped.filename = name


def _depth(tags: Any) -> tuple[int, bool]:
    """Return the number of bits of a value in a TIFF, and whether zero is white."""
    bits = tags.get(ExifTags.Base.BitsPerSample, 16)
    white = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return int(bits[0] if isinstance(bits, tuple) else bits), white


def _page_to_rgb(page: Page, where: str, reading: Reading, *, wide: bool = False) -> np.ndarray:
    """Convert the stored values of a page to RGB; values of 9 to 15 bits are first scaled to 16 bits."""
    array = page.values
    if reading.window is None and 8 < page.bits < 16:
        maximum = 2**page.bits - 1
        array = ((array.astype(np.uint32).clip(0, maximum) * 65535 + maximum // 2) // maximum).astype(np.uint16)
    if page.white and reading.window is None and array.dtype == np.uint16:
        return array_to_rgb(65535 - array, where, wide=wide, reading=reading)
    rgb = array_to_rgb(array, where, wide=wide, reading=reading)
    return 255 - rgb if page.white else rgb


def _eight_bits(where: str, window: tuple[float, float]) -> str:
    return f"{where}: reading has the window {window}, but the image has 8 bits, which need none; leave it out"


def _no_channel(channel: int, count: int, where: str) -> ImageError:
    return ImageError(f"{where}: there is no channel {channel}; the image has {count}, counted from 0")


def _check_light(high: int, where: str) -> None:
    """Raise `ImageError` for 16-bit images that would become black; many cameras store 12 bits in 16-bit files."""
    if 0 < high < 4096:
        raise ImageError(
            f"{where}: the highest of the 16-bit values is {high} (of 65535), so the image would become black. "
            "For a 12-bit camera pass reading=cellscan.Reading(window=(0, 4095)), or array * 16; for 8-bit values "
            "array.astype('uint8')"
        )


def array_to_rgb(array: Any, where: str, *, wide: bool = False, reading: Reading = AS_STORED) -> np.ndarray:
    """Convert one image in an array to (H, W, 3) uint8.

    `wide` accepts the signed integers that Pillow uses for 16-bit files.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if reading.channel is not None and array.ndim == 3:
        if reading.channel >= array.shape[-1]:
            raise _no_channel(reading.channel, array.shape[-1], where)
        array = array[..., reading.channel : reading.channel + 1]
    if array.ndim == 3 and array.shape[-1] in (2, *range(5, 17)):
        raise ImageError(
            f"{where}: the array has the shape {array.shape}; expected (H, W, 3). Choose one of the "
            f"{array.shape[-1]} channels: reading=cellscan.Reading(channel=0)"
        )
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        hint = " (channels come last: array.transpose(1, 2, 0))" if array.ndim == 3 else ""
        if array.ndim == 4 and len(array) == 1:
            hint = "; this is a batch of one: pass array[0]"
        raise ImageError(f"{where}: the array has the shape {array.shape}; expected (H, W, 3){hint}")
    _check_size(array.shape[1], array.shape[0], where)
    array = _to_uint8(array, where, wide, reading.window)
    if array.shape[-1] == 4:
        alpha = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * alpha + 127) // 255).astype(np.uint8)
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array)


def _to_uint8(array: np.ndarray, where: str, wide: bool, window: tuple[float, float] | None) -> np.ndarray:
    if window is not None:
        if array.dtype.kind not in "iuf" or array.dtype.itemsize < 2:
            if array.dtype.itemsize == 1:
                raise ImageError(_eight_bits(where, window))
            raise ImageError(
                f"{where}: the array has the dtype {array.dtype}; expected integers or floats, for a window of {window}"
            )
        if not np.isfinite(array).all():
            raise ImageError(
                f"{where}: some values are NaN or infinite; expected finite numbers, for a window of {window}"
            )
        return through_window(array, window)
    if array.dtype == np.uint8:
        return array
    if (array.dtype.kind == "u" and array.dtype.itemsize == 2) or (wide and array.dtype.kind in "iu"):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 65535:
            raise ImageError(f"{where}: the integers are from {low} to {high}; expected 16-bit values, 0 to 65535")
        _check_light(high, where)
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1.0 + 1e-3):  # Rounding may exceed 0 and 1 a little.
            raise ImageError(
                f"{where}: the floats are from {low:.4g} to {high:.4g}; expected values in [0, 1]. "
                "For values from 0 to 255 pass array.astype('uint8')"
            )
        if 1e-3 < high < 1 / 16:
            raise ImageError(
                f"{where}: the highest of the floats is {high:.4g}, so the image would become black. Were the values "
                "divided by 255 twice? For a dark image pass reading=cellscan.Reading(window=(0, 1))"
            )
        return np.rint(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8)
    raise ImageError(
        f"{where}: the array has the dtype {array.dtype}; expected uint8, uint16 or floats in [0, 1]. "
        "For integers from 0 to 255 pass array.astype('uint8')"
    )


LINK_LIMIT = 100
"""Largest number of paths through links to one folder."""


def is_image_name(path: str) -> bool:
    """Whether a path with slashes names an image, without hidden parts and `__MACOSX`."""
    parts = path.split("/")
    return os.path.splitext(parts[-1])[1].lower() in SUFFIXES and not any(
        p.startswith((".", "__MACOSX")) for p in parts
    )


def is_litter(name: str) -> bool:
    """Whether an operating system creates files of this name in folders of images."""
    return name.lower() in _LITTER


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the image files and the other files under `folder`, as sorted paths with slashes relative to it.

    Links are followed, except to a folder that contains them. Both lists leave out hidden files and folders,
    ``__MACOSX`` and files that operating systems create.
    """
    images: list[str] = []
    others: list[str] = []
    reached: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(os.fspath(folder), "", ())]
    while waiting:
        current, below, above = waiting.pop()
        try:
            stat = os.stat(current)
            if (stat.st_dev, stat.st_ino) in above:  # This is a link to a folder that contains it.
                continue
            reached[stat.st_dev, stat.st_ino] += 1
            # Links between ten folders, nine in each, would give 10! paths.
            if reached[stat.st_dev, stat.st_ino] > LINK_LIMIT:
                raise DataError(
                    f"{current}: more than {LINK_LIMIT} paths lead to this folder through links; remove some links"
                )
            for entry in os.scandir(current):
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.is_dir():
                    waiting.append((entry.path, f"{below}{entry.name}/", (*above, (stat.st_dev, stat.st_ino))))
                elif is_image_name(entry.name):
                    images.append(below + entry.name)
                elif not is_litter(entry.name):
                    others.append(below + entry.name)
        except OSError as error:
            raise DataError(f"{current}: the folder cannot be listed ({error.strerror})") from error
    return sorted(images), sorted(others)


def warn_of_others(where: Path, others: Sequence[str]) -> None:
    """Warn about files among the images that are not read."""
    if others:
        warnings.warn(describe_others(where, others), stacklevel=3)


def describe_others(where: Path, others: Sequence[str]) -> str:
    """Return a sentence about files among the images that are not read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellscan.data.images import describe_others
    >>> describe_others(Path("smear"), ["a.txt"]).split(". ")[0]
    'smear: 1 file is not read: a.txt'
    """
    listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    count = f"{len(others)} files are" if len(others) > 1 else "1 file is"
    known = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
    advice = next((f". {name}: {foreign(name)}" for name in others if foreign(name)), "")
    return f"{where}: {count} not read: {listed}. Formats that are read: {known}{advice}"
