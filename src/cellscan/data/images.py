"""Whatever holds an image -> RGB uint8, and the one resize rule of the library.

Conversions: EXIF orientation is applied; grey and palette images become RGB; transparent pixels lie
on black, as what surrounds a cell does; 16-bit greys are scaled by 255 / 65535, and refused where they use less
than a sixteenth of that range, because they would come out black; where a TIFF says that zero is white, it is
inverted; CMYK goes through Pillow; float images must lie in [0, 1]. Of an animation the first frame counts; a TIFF
of several pages of one size is refused, because its pages may be channels. A `Reading` states page, channel and the
values that are black and white; slides are refused.

What the machine cannot do at the moment (no memory, too many open files, a disk that does not answer) is no fault of
an image: it is tried again, and then a `DataError`, never an `ImageError`.
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
"""The one resize rule, as a card states it: Pillow's antialiased bilinear filter, both sides stretched."""

FIT = {"filter": "bilinear", "fit": "pad"}
"""Of whole fields: the same filter, both sides by one factor, black to the right or below where room is left."""

Size: TypeAlias = "int | tuple[int, int]"
"""Side of a square that is stretched to; or height and width that is fitted into."""

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
"""Errors of the machine or of its network, not of a file."""


def _is_of_the_machine(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE)


def with_patience(call: Callable[[], T], where: str) -> T:
    """Return what `call` does; where the machine fails, try again, and after three times raise `DataError`."""
    for pause in (0.05, 0.5, None):
        try:
            return call()
        except (OSError, MemoryError) as error:
            if not _is_of_the_machine(error):
                raise
            if pause is None:
                raise DataError(
                    f"{where}: the machine failed three times, not the image ({type(error).__name__}: {error}). Free "
                    "some memory, close files (or allow more: ulimit -n), wait for the disk, and call again"
                ) from error
            time.sleep(pause)
    raise AssertionError


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


def read_rgb(
    image: ImageLike, size: Size | None = None, *, where: str | None = None, reading: Reading = AS_STORED
) -> np.ndarray:
    """Return `image` as (H, W, 3) uint8 in memory of its own, at its own size or resized as `Size` says.

    `where` names the image in errors; a path names itself. `ImageError` says what is wrong with the image, `DataError`
    what is wrong with the machine.
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
    except (OSError, ValueError):  # a pipe
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
        data.close()  # a coroutine, which would else warn that nobody waited for it
    raise ImageError(
        f"{where}: read() of this {type(file).__name__} gives a {type(data).__name__}; expected bytes. Open the file "
        'with open(path, "rb"); of an upload that is read with await, pass what it gives, or its .file'
    )


def read_header(file: Any) -> tuple[int, int, str]:
    """Return width and height, as `read_rgb` will have them, and format of an image file, without decoding it."""
    with Image.open(file, formats=_formats()) as image:
        width, height = image.size
        # Of the base class: a PNG's own method decodes the image in search of a block behind it. A TIFF's size has
        # been turned by Pillow already.
        if image.format != "TIFF" and Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) >= 5:  # by a quarter
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
            one = "a Pillow image is at a page already: seek to it" if isinstance(image, Image.Image) else "array[page]"
            raise ImageError(f"{where}: page {reading.page} of an image that is no file; pass {one}")
        if isinstance(image, Image.Image):
            rgb = _pil_to_rgb(image, where, reading)
        elif isinstance(image, Page):
            rgb = Image.fromarray(_page_to_rgb(image, where, reading))
        else:
            rgb = Image.fromarray(array_to_rgb(image, where, reading=reading))
        if size is None:
            return np.asarray(rgb)
        wanted = (size, size) if isinstance(size, int) else fitted(*rgb.size, size)
        if rgb.size != wanted:
            rgb = rgb.resize(wanted, Image.Resampling.BILINEAR)
        array = np.asarray(rgb)
        if not isinstance(size, int) and wanted != size[::-1]:
            array = np.pad(array, ((0, size[0] - wanted[1]), (0, size[1] - wanted[0]), (0, 0)))
        return array
    except MissingExtraError as error:
        if stated != AS_STORED:
            raise
        raise ImageError(str(error)) from error  # nobody asked for more than this file
    except CellscanError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        if _is_of_the_machine(error):
            raise
        raise ImageError(f"{where}: {_reason(error, where)}") from error
    finally:
        if isinstance(opened, Image.Image):
            opened.close()


def _open(file: Any, where: str, reading: Reading) -> Image.Image | Page:
    """Open a file by Pillow; or else the page of a TIFF by tifffile, where that is installed or asked for."""
    try:
        return _open_pillow(file, where)
    except Image.UnidentifiedImageError:
        if foreign(where) or not is_tiff(file) or not (reading.chooses or has_tifffile()):
            raise
    return read_page(file, reading, where, PIXEL_LIMIT)


def _page_of(image: Image.Image, file: Any, where: str, reading: Reading) -> tuple[Image.Image | Page, Reading]:
    """Return the page of an open file that is meant, and what is then left to be done of `reading`."""
    if foreign(where):
        raise ImageError(f"{where}: {foreign(where)}")
    if image.format != "TIFF":
        if reading.page:
            raise ImageError(f"{where}: page {reading.page} of a {image.format}; only a TIFF has pages")
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
    """Whether a file holds more than eight bits a colour, of which Pillow keeps the upper eight."""
    sixteen = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3)
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 1)
    sixteen = sixteen or (bits[0] if isinstance(bits, tuple) else bits) > 8
    return sixteen and image.mode != "F" and not image.mode.startswith("I")


def _is_planar(image: Image.Image) -> bool:
    """Whether a TIFF has a plane a colour, which Pillow reads right in eight bits only."""
    return getattr(image, "tag_v2", {}).get(ExifTags.Base.PlanarConfiguration) == 2


def _pil_to_rgb(image: Image.Image, where: str, reading: Reading) -> Image.Image:
    _check_size(*image.size, where)
    # Both stand in what the file says of itself, which is gone once the image is loaded or turned.
    tags: Any = getattr(image, "tag_v2", {})
    sixteen = _is_wide_colour(image)
    if sixteen and _is_planar(image):
        raise ImageError(f"{where}: a TIFF with a plane of 16 bits a colour, which Pillow reads wrong; pass its path")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        if image.format == "TIFF":
            _load_unmapped(image)
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        bits, white = _depth(tags)
        if white and not image.mode.startswith("I;16"):
            raise ImageError(f"{where}: a TIFF of {bits} bits in which zero is white; save it with 8 or 16 bits")
        return Image.fromarray(_page_to_rgb(Page(np.asarray(image), bits, white), where, reading, wide=True))
    if reading.window is not None:
        raise ImageError(
            f"{where}: a window of {reading.window}, but Pillow keeps 8 of the 16 bits of a {image.format} in colour; "
            "save it as TIFF"
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
            ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
            ground.alpha_composite(image.convert("RGBA"))
            image = ground
        image = image.convert("RGB")
    if sixteen:  # of which Pillow keeps the upper eight
        _check_light(int(np.asarray(image).max()) * 257, where)
    return image


def _load_unmapped(image: Image.Image) -> None:
    """Decode a turned TIFF; from a memory map of its file Pillow takes rows to be as long as they are once turned."""
    held: Any = image
    name = getattr(held, "filename", "")
    try:
        held.filename = ""
        held.load()
    finally:
        held.filename = name


def _depth(tags: Any) -> tuple[int, bool]:
    """Return how many bits a value of a TIFF has, and whether zero is white."""
    bits = tags.get(ExifTags.Base.BitsPerSample, 16)
    white = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return int(bits[0] if isinstance(bits, tuple) else bits), white


def _page_to_rgb(page: Page, where: str, reading: Reading, *, wide: bool = False) -> np.ndarray:
    """Convert the stored values of a page, 16 bits being the whole range unless the page has fewer."""
    array = page.values
    if reading.window is None and 8 < page.bits < 16:
        most = 2**page.bits - 1
        array = ((array.astype(np.uint32).clip(0, most) * 65535 + most // 2) // most).astype(np.uint16)
    if page.white and reading.window is None and array.dtype == np.uint16:
        return array_to_rgb(65535 - array, where, wide=wide, reading=reading)
    rgb = array_to_rgb(array, where, wide=wide, reading=reading)
    return 255 - rgb if page.white else rgb


def _eight_bits(where: str, window: tuple[float, float]) -> str:
    return f"{where}: a window of {window}, but the image has 8 bits, which need none; leave it out"


def _no_channel(channel: int, count: int, where: str) -> ImageError:
    return ImageError(f"{where}: there is no channel {channel}; it has {count}, counted from 0")


def _check_light(high: int, where: str) -> None:
    """Refuse 16-bit values that would come out as black: few cameras have 16 bits, many write their 12 into 16."""
    if 0 < high < 4096:
        raise ImageError(
            f"{where}: 16-bit values of at most {high}, a range of 65535 that is nearly all unused, would come out as "
            "black. Of a camera with 12 bits pass reading=cellscan.Reading(window=(0, 4095)), or array * 16; of 8-bit "
            "values array.astype('uint8')"
        )


def array_to_rgb(array: Any, where: str, *, wide: bool = False, reading: Reading = AS_STORED) -> np.ndarray:
    """Convert one image held in an array to (H, W, 3) uint8.

    `wide` allows the signed integers that Pillow uses for 16-bit files.
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
            f"{where}: an array of shape {array.shape}; expected (H, W, 3). Of {array.shape[-1]} channels choose one: "
            "reading=cellscan.Reading(channel=0)"
        )
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        hint = " (channels come last: array.transpose(1, 2, 0))" if array.ndim == 3 else ""
        if array.ndim == 4 and len(array) == 1:
            hint = ", and this is a batch of one: pass array[0]"
        raise ImageError(f"{where}: an array of shape {array.shape}; expected (H, W, 3){hint}")
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
            eight = array.dtype.itemsize == 1
            raise ImageError(_eight_bits(where, window) if eight else f"{where}: an array of dtype {array.dtype}")
        if not np.isfinite(array).all():
            raise ImageError(f"{where}: values that are NaN or infinite; expected numbers, for a window of {window}")
        return through_window(array, window)
    if array.dtype == np.uint8:
        return array
    if (array.dtype.kind == "u" and array.dtype.itemsize == 2) or (wide and array.dtype.kind in "iu"):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 65535:
            raise ImageError(f"{where}: integers from {low} to {high}; expected 16-bit values, 0 to 65535")
        _check_light(high, where)
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1.0 + 1e-3):  # sums of floats miss 0 and 1 by a little
            raise ImageError(
                f"{where}: floats from {low:.4g} to {high:.4g}; expected values in [0, 1]. "
                "For values from 0 to 255 pass array.astype('uint8')"
            )
        return np.rint(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8)
    raise ImageError(
        f"{where}: an array of dtype {array.dtype}; expected uint8, uint16 or floats in [0, 1]. "
        "For integers from 0 to 255 pass array.astype('uint8')"
    )


LINK_LIMIT = 100
"""Paths through links by which one folder may be reached below another."""


def is_image_name(path: str) -> bool:
    """Whether a path with slashes names an image that counts: hidden parts and `__MACOSX` do not."""
    parts = path.split("/")
    return os.path.splitext(parts[-1])[1].lower() in SUFFIXES and not any(
        p.startswith((".", "__MACOSX")) for p in parts
    )


def is_litter(name: str) -> bool:
    """Whether a file name is one that an operating system leaves in folders of images."""
    return name.lower() in _LITTER


def image_files(folder: Path) -> list[str]:
    """Return the image files under `folder`, sorted, as paths with slashes relative to it."""
    return list_folder(folder)[0]


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the image files under `folder`, and the files passed over, as sorted paths with slashes relative to it.

    Links are followed, but not to a folder that they lie in. Hidden files and folders, ``__MACOSX`` and what operating
    systems leave count as neither.
    """
    images: list[str] = []
    others: list[str] = []
    reached: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(os.fspath(folder), "", ())]
    while waiting:
        here, below, above = waiting.pop()
        try:
            stat = os.stat(here)
            if (stat.st_dev, stat.st_ino) in above:  # a link to a folder that this one is in
                continue
            reached[stat.st_dev, stat.st_ino] += 1
            if reached[stat.st_dev, stat.st_ino] > LINK_LIMIT:  # links across: ten folders of nine links are 10! paths
                raise DataError(f"{here}: more than {LINK_LIMIT} paths lead to this folder through links; remove some")
            for entry in os.scandir(here):
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.is_dir():
                    waiting.append((entry.path, f"{below}{entry.name}/", (*above, (stat.st_dev, stat.st_ino))))
                elif is_image_name(entry.name):
                    images.append(below + entry.name)
                elif not is_litter(entry.name):
                    others.append(below + entry.name)
        except OSError as error:
            raise DataError(f"{here}: the folder cannot be listed ({error.strerror})") from error
    return sorted(images), sorted(others)


def warn_of_others(where: Path, others: Sequence[str]) -> None:
    """Warn of files that lie among the images and are not read."""
    if others:
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        what = f"{len(others)} files are" if len(others) > 1 else "1 file is"
        known = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        strange = next((f". {name}: {foreign(name)}" for name in others if foreign(name)), "")
        warnings.warn(f"{where}: {what} not read: {listed}. What is read: {known}{strange}", stacklevel=3)
