"""TIFFs of more than one picture: which page is meant, and the slides that are refused.

Pillow decodes a page wherever it can. tifffile, an extra, says which page of an OME-TIFF or of a stack of ImageJ is
meant, and decodes the pages that Pillow cannot: more than four channels, and 16-bit colours of which all bits count.
bioio would do the same through a plug-in for each format, which rest on tifffile too, and brings dask, xarray and zarr.
"""

from __future__ import annotations

import io
import math
import os
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from cellscan.data.reading import Reading
from cellscan.errors import ImageError, MissingExtraError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SCANNERS = ("Aperio", "iScan", "<scn")
"""In descriptions of slides. Makers of cameras stand in descriptions of plain images too, and so do not count."""

_NDPI = 65420
_SUB_IFDS = 330
_TILE_WIDTH = 322

SLIDES = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"))
"""Endings of whole slides, which OpenSlide reads."""

MICROSCOPES = frozenset((".czi", ".lif", ".nd2", ".vsi", ".oib", ".oif", ".lsm"))
"""Endings of makers' files, which bioio and Fiji read."""

_ADVICE = (
    "Open it with OpenSlide (pip install openslide-python openslide-bin) and save what is needed of it: "
    'openslide.OpenSlide(path).read_region((x, y), 0, (width, height)).save("field.png")'
)


@dataclass(frozen=True)
class Page:
    """A page that Pillow cannot decode: (H, W) or (H, W, channels), its bits, and whether zero is white."""

    values: np.ndarray
    bits: int
    white: bool


def is_tiff(file: Any) -> bool:
    """Whether a path or bytes begin as a TIFF does."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file[:4]) in _MAGIC
    try:
        with open(file, "rb") as opened:
            return opened.read(4) in _MAGIC
    except OSError:
        return False


def foreign(where: str) -> str:
    """Return what to do with a file of a slide scanner or a microscope, ``""`` for others.

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
        return "this is a microscope's own format. Export it as OME-TIFF or PNG, with Fiji or bioio"
    return ""


def choose_page(
    image: Image.Image, file: Any, reading: Reading, where: str, limit: int
) -> tuple[Image.Image | Page, Reading]:
    """Return the page of an open TIFF that is meant, and what is then left to be done of `reading`.

    The page is the image, at that page, or a `Page` that Pillow cannot decode, of at most `limit` values.

    Raises
    ------
    ImageError
        Where it is a slide; where it has several pages and none is stated, or no such page.
    MissingExtraError
        Where tifffile must say which page is meant, and is not installed.
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
    count = max(pages, int(counted[1]) if counted else 1)  # a large stack of ImageJ has one page for all its pictures
    if not reading.chooses:
        if count > 1 and second == first:
            raise ImageError(
                f"{where}: a TIFF of {count} pages of one size, which may be channels or planes. Say which: "
                "reading=cellscan.Reading(page=0), or channel=0 of an OME-TIFF; or save the one that is meant alone"
            )
        return image, reading
    told = about.startswith("ImageJ=") or "<OME" in about
    if count > 1 and told:
        return _of_stack(image, file, reading, where, limit)
    if pages > 1 and reading.page is None:
        raise ImageError(
            f"{where}: a TIFF of {pages} pages, which do not say that they are channels. Say which page: "
            "reading=cellscan.Reading(page=0)"
        )
    page = reading.page or 0
    if page >= pages:
        raise ImageError(f"{where}: there is no page {page}; it has {pages}, counted from 0")
    image.seek(page)
    return image, reading


def _slide(where: str, pages: int) -> ImageError:
    return ImageError(f"{where}: this is a whole slide, tiled, of {pages} pages, and not one image. {_ADVICE}")


def _import() -> Any:
    try:
        import tifffile
    except ImportError:
        return None
    return tifffile


def _opened(file: Any, where: str) -> Any:
    tifffile = _import()
    if tifffile is None:
        raise MissingExtraError(f"{where}: this TIFF needs tifffile: pip install 'cellscan[tiff]'")
    return tifffile.TiffFile(io.BytesIO(file) if isinstance(file, (bytes, bytearray, memoryview)) else os.fspath(file))


def _of_stack(
    image: Image.Image, file: Any, reading: Reading, where: str, limit: int
) -> tuple[Image.Image | Page, Reading]:
    """Return the page of a file that says what its pages are."""
    with _opened(file, where) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        channel_axis = axes.index("C") if "C" in axes else -1
        channels = shape[channel_axis] if "C" in axes else 1
        others = [axis for axis, name in enumerate(axes) if name not in "CYXS"]
        pictures = math.prod(shape[axis] for axis in others)
        listed = f"{channels} channels and {pictures} pictures of each ({axes}, {shape})"
        # Without an axis of channels, the channel is one of the samples of a page, which is taken later.
        channel = reading.channel if channel_axis >= 0 else 0
        for name, value, count in (("channel", channel, channels), ("page", reading.page, pictures)):
            if value is None and count > 1:
                raise ImageError(f"{where}: a stack of {listed}. Say which: reading=cellscan.Reading({name}=0)")
            if value is not None and value >= count:
                raise ImageError(f"{where}: there is no {name} {value}; it is a stack of {listed}, counted from 0")
        index: list[Any] = [slice(None)] * len(axes)
        if channel_axis >= 0:
            index[channel_axis] = channel or 0
        for axis, at in zip(
            others, np.unravel_index(reading.page or 0, [shape[a] for a in others] or [1]), strict=False
        ):
            index[axis] = int(at)
        left = replace(reading, channel=None) if channel_axis >= 0 else reading
        frame = series.keyframe
        lead = axes[: len(axes) - len(frame.axes)]
        whole = math.prod(shape[: len(lead)]) == len(series.pages) and not set(frame.axes) - set("YXS")
        if not whole:  # one page for all pictures
            return _page(_decoded(series, where, limit)[tuple(index)], frame), left
        flat = int(np.ravel_multi_index(tuple(index[: len(lead)]), shape[: len(lead)])) if lead else 0
        page = series.pages[flat]
        if page is None:
            raise ImageError(f"{where}: the file lacks this picture of its stack of {listed}")
        if getattr(page, "parent", None) is tiff and isinstance(page.index, int):
            image.seek(page.index)
            return image, left
        return _page(_decoded(page, where, limit), frame), left


def read_page(file: Any, reading: Reading, where: str, limit: int) -> Page:
    """Return a page of a TIFF that Pillow cannot open, or of whose values it keeps but the upper eight bits.

    A page of more than `limit` values is refused before it is decoded.
    """
    with _opened(file, where) as tiff:
        page = reading.page or 0
        if len(tiff.pages) > 1 and reading.page is None:
            raise ImageError(f"{where}: a TIFF of {len(tiff.pages)} pages. Say which: reading=cellscan.Reading(page=0)")
        if page >= len(tiff.pages):
            raise ImageError(f"{where}: there is no page {page}; it has {len(tiff.pages)}, counted from 0")
        chosen = tiff.pages[page]
        return _page(_decoded(chosen, where, limit), chosen)


def has_tifffile() -> bool:
    """Whether the extra is installed."""
    return _import() is not None


def _decoded(page: Any, where: str, limit: int) -> np.ndarray:
    if math.prod(page.shape) > limit:
        raise ImageError(f"{where}: {page.shape} values; the limit is {limit:,}. Crop or shrink it first")
    # tifffile takes what is not there for zeros.
    frame = page.keyframe
    if page is frame or not hasattr(page, "dataoffset"):
        offsets, counts = page.dataoffsets, page.databytecounts
        whole = len(offsets) == len(counts) == math.prod(frame.chunked) and all(offsets) and all(counts)
        ends = [offset + count for offset, count in zip(offsets, counts, strict=False)]
    else:  # one page for all pictures
        whole, ends = page.dataoffset is not None, [(page.dataoffset or 0) + page.nbytes]
    if not whole or max(ends, default=0) > frame.parent.filehandle.size:
        raise ImageError(f"{where}: the file lacks parts of this page; is it whole?")
    try:
        return page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise MissingExtraError(
            f"{where}: the compression of this TIFF needs imagecodecs: pip install 'cellscan[tiff]'"
        ) from error


def _page(values: np.ndarray, frame: Any) -> Page:
    if frame.axes.startswith("S") and values.ndim == 3:  # one plane a channel
        values = np.moveaxis(values, 0, -1)
    values = _turned(np.asarray(values), int(frame.tags.valueof(ExifTags.Base.Orientation, default=1)))
    return Page(values, int(frame.bitspersample), int(frame.photometric) == 0)


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image the right way up, as Pillow does with the pages that it decodes."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values
