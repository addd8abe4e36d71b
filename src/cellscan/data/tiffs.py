"""Choose the page of a TIFF with several pictures, and refuse whole slides.

Pillow decodes a page if it can. tifffile, an extra, finds the page of a picture in an OME-TIFF or an ImageJ stack, and
decodes the pages that Pillow cannot: more than four channels, and all bits of 16-bit colours. bioio does the same with
a plug-in for each format; these also use tifffile, and bioio requires dask, xarray and zarr.
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from cellscan.data.reading import Reading
from cellscan.errors import ImageError, MissingExtraError, import_extra

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SCANNERS = ("Aperio", "iScan", "<scn")
"""Words in the descriptions of slides. Names of camera makers are not among them: plain images contain them too."""

_NDPI = 65420
_SUB_IFDS = 330
_TILE_WIDTH = 322

SLIDES = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"))
"""Suffixes of whole slides, which OpenSlide reads."""

MICROSCOPES = frozenset((".czi", ".lif", ".nd2", ".vsi", ".oib", ".oif", ".lsm"))
"""Suffixes of the formats of microscope makers, which bioio and Fiji read."""

_ADVICE = (
    "Open it with OpenSlide (pip install openslide-python openslide-bin) and save the regions that you need: "
    'openslide.OpenSlide(path).read_region((x, y), 0, (width, height)).save("field.png")'
)


@dataclass(frozen=True)
class Page:
    """A page that Pillow cannot decode.

    Attributes
    ----------
    values : numpy.ndarray
        (H, W) or (H, W, channels), the stored values.
    bits : int
        Number of bits of a value.
    white : bool
        Whether zero is white.
    """

    values: np.ndarray
    bits: int
    white: bool


def is_tiff(file: Any) -> bool:
    """Whether a file, or the bytes of one, begins with the signature of a TIFF."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file[:4]) in _MAGIC
    try:
        with open(file, "rb") as opened:
            return opened.read(4) in _MAGIC
    except OSError:
        return False


def foreign(where: str) -> str:
    """Return advice for files of slide scanners and microscopes, ``""`` for other files.

    Examples
    --------
    >>> from cellscan.data.tiffs import foreign
    >>> foreign("a/slide.mrxs")[:42], foreign("a.png")
    ('this is a whole slide, not one image. Open', '')
    """
    suffix = os.path.splitext(where)[1].lower()
    if suffix in SLIDES:
        return f"this is a whole slide, not one image. {_ADVICE}"
    if suffix in MICROSCOPES:
        return "this is the format of a microscope maker. Export it as OME-TIFF or PNG, with Fiji or bioio"
    return ""


def choose_page(
    image: Image.Image, file: Any, reading: Reading, where: str, limit: int
) -> tuple[Image.Image | Page, Reading]:
    """Return the page of an open TIFF that `reading` selects.

    Parameters
    ----------
    image : PIL.Image.Image
        The open TIFF.
    file : path or bytes
        The file of `image`.
    reading : Reading
        The page, channel and window to read.
    where : str
        Name of the image in error messages.
    limit : int
        Largest number of values of a `Page`.

    Returns
    -------
    page : PIL.Image.Image or Page
        `image` at the selected page, or a `Page` if Pillow cannot decode it.
    reading : Reading
        The part of `reading` that remains to be applied to the page.

    Raises
    ------
    ImageError
        If the file is a slide, has several pages and `reading` selects none, or has no such page.
    MissingExtraError
        If tifffile is needed to find the page, but is not installed.
    """
    tags: Any = getattr(image, "tag_v2", {})
    pages = int(getattr(image, "n_frames", 1))
    about = str(tags.get(ExifTags.Base.ImageDescription, ""))[:65536]
    first = image.size
    tiled = _TILE_WIDTH in tags
    scanned = pages > 1 and any(scanner in about for scanner in _SCANNERS)
    if _NDPI in tags or scanned or (tiled and _SUB_IFDS in tags):
        raise _slide(where, pages)
    second = first
    if pages > 1:
        image.seek(1)
        second = image.size
        image.seek(0)
    if tiled and second != first:
        raise _slide(where, pages)
    counted = re.search(r"^images=(\d+)", about, re.MULTILINE) if about.startswith("ImageJ=") else None
    count = max(pages, int(counted[1]) if counted else 1)  # A large ImageJ stack stores all pictures in one page.
    if not reading.chooses:
        if count > 1 and second == first:
            raise ImageError(
                f"{where}: this TIFF has {count} pages of one size, which may be channels or planes. Choose one: "
                "reading=cellscan.Reading(page=0), or channel=0 for an OME-TIFF; or save one page as a file"
            )
        return image, reading
    is_stack = about.startswith("ImageJ=") or "<OME" in about
    if count > 1 and is_stack:
        return _of_stack(image, file, reading, where, limit)
    if pages > 1 and reading.page is None:
        raise ImageError(
            f"{where}: this TIFF has {pages} pages, which are not marked as channels. Choose a page: "
            "reading=cellscan.Reading(page=0)"
        )
    page = reading.page or 0
    if page >= pages:
        raise ImageError(f"{where}: there is no page {page}; the file has {pages}, counted from 0")
    image.seek(page)
    return image, reading


def _slide(where: str, pages: int) -> ImageError:
    return ImageError(f"{where}: this is a whole slide with tiles and {pages} pages, not one image. {_ADVICE}")


def _opened(file: Any, where: str) -> Any:
    tifffile = import_extra("tifffile", "tiff", f"{where}: this TIFF")
    return tifffile.TiffFile(io.BytesIO(file) if isinstance(file, (bytes, bytearray, memoryview)) else os.fspath(file))


def _of_stack(
    image: Image.Image, file: Any, reading: Reading, where: str, limit: int
) -> tuple[Image.Image | Page, Reading]:
    """Return the selected page of a file whose description defines its pages: an OME-TIFF or an ImageJ stack."""
    with _opened(file, where) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        channel_axis = axes.index("C") if "C" in axes else -1
        channels = shape[channel_axis] if "C" in axes else 1
        others = [axis for axis, name in enumerate(axes) if name not in "CYXS"]
        pictures = math.prod(shape[axis] for axis in others)
        listed = f"{channels} channels and {pictures} pictures of each ({axes}, {shape})"
        # Without a channel axis, the channel is a sample of the page; the caller selects it.
        channel = reading.channel if channel_axis >= 0 else 0
        for name, value, count in (("channel", channel, channels), ("page", reading.page, pictures)):
            if value is None and count > 1:
                raise ImageError(
                    f"{where}: this is a stack of {listed}. Choose a {name}: reading=cellscan.Reading({name}=0)"
                )
            if value is not None and value >= count:
                raise ImageError(f"{where}: there is no {name} {value}; this is a stack of {listed}, counted from 0")
        index: list[Any] = [slice(None)] * len(axes)
        if channel_axis >= 0:
            index[channel_axis] = channel or 0
        positions = np.unravel_index(reading.page or 0, [shape[axis] for axis in others] or [1])
        for axis, position in zip(others, positions, strict=False):
            index[axis] = int(position)
        remaining = replace(reading, channel=None) if channel_axis >= 0 else reading
        frame = series.keyframe
        lead = axes[: len(axes) - len(frame.axes)]
        whole = math.prod(shape[: len(lead)]) == len(series.pages) and not set(frame.axes) - set("YXS")
        if not whole:  # One page contains all pictures.
            return _page(_decoded(series, where, limit)[tuple(index)], frame), remaining
        flat = int(np.ravel_multi_index(tuple(index[: len(lead)]), shape[: len(lead)])) if lead else 0
        page = series.pages[flat]
        if page is None:
            raise ImageError(f"{where}: the file lacks this picture of its stack of {listed}")
        if getattr(page, "parent", None) is tiff and isinstance(page.index, int):
            image.seek(page.index)
            return image, remaining
        return _page(_decoded(page, where, limit), frame), remaining


def read_page(file: Any, reading: Reading, where: str, limit: int) -> Page:
    """Return a page of a TIFF that Pillow cannot open, or that it reads with eight bits only.

    Raises `ImageError`, before decoding, if the page has more than `limit` values.
    """
    with _opened(file, where) as tiff:
        page = reading.page or 0
        if len(tiff.pages) > 1 and reading.page is None:
            raise ImageError(
                f"{where}: this TIFF has {len(tiff.pages)} pages. Choose one: reading=cellscan.Reading(page=0)"
            )
        if page >= len(tiff.pages):
            raise ImageError(f"{where}: there is no page {page}; the file has {len(tiff.pages)}, counted from 0")
        chosen = tiff.pages[page]
        return _page(_decoded(chosen, where, limit), chosen)


def has_tifffile() -> bool:
    """Whether tifffile is installed."""
    return importlib.util.find_spec("tifffile") is not None


def _decoded(page: Any, where: str, limit: int) -> np.ndarray:
    if math.prod(page.shape) > limit:
        raise ImageError(f"{where}: the page has {page.shape} values; the limit is {limit:,}. Crop or shrink it first")
    # tifffile replaces missing parts by zeros, so this checks that every part is in the file.
    frame = page.keyframe
    if page is frame or not hasattr(page, "dataoffset"):
        offsets, counts = page.dataoffsets, page.databytecounts
        whole = len(offsets) == len(counts) == math.prod(frame.chunked) and all(offsets) and all(counts)
        ends = [offset + count for offset, count in zip(offsets, counts, strict=False)]
    else:  # One page contains all pictures.
        whole, ends = page.dataoffset is not None, [(page.dataoffset or 0) + page.nbytes]
    if not whole or max(ends, default=0) > frame.parent.filehandle.size:
        raise ImageError(f"{where}: the file lacks parts of this page; is the file complete?")
    try:
        return page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise MissingExtraError(
            f"{where}: the compression of this TIFF needs imagecodecs: pip install 'cellscan[tiff]'"
        ) from error


def _page(values: np.ndarray, frame: Any) -> Page:
    if frame.axes.startswith("S") and values.ndim == 3:  # Each channel is a plane; channels must come last.
        values = np.moveaxis(values, 0, -1)
    values = _turned(np.asarray(values), int(frame.tags.valueof(ExifTags.Base.Orientation, default=1)))
    return Page(values, int(frame.bitspersample), int(frame.photometric) == 0)


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the EXIF orientation to an image, as the caller does to pages that Pillow decodes."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values
