"""`Reading`: the page, the channel and the range of values to read from image files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellscan.errors import ArgumentError


@dataclass(frozen=True)
class Reading:
    """Settings for reading images: page, channel and range of values. Loaders and predictions take the same settings.

    Attributes
    ----------
    page : int or None
        Page of a TIFF, from 0. In an OME-TIFF or an ImageJ stack: index of the picture within the chosen channel, over
        depth and time in the order of the file. With None, the file must have a single page.
    channel : int or None
        Channel, from 0; it becomes a grey image. None: all channels, which must be grey, RGB, or RGB with alpha.
    window : (float, float) or None
        The stored values that become 0 and 255. Values in between are scaled and rounded, values outside are clipped.
        Use it for images of more than 8 bits: ``(0, 4095)`` fits a 12-bit camera that writes 16-bit files. None: the
        whole range of the type, [0, 1] for floats. If zero means white in a TIFF, the result is inverted.

    Raises
    ------
    ArgumentError
        If `page` or `channel` is not a whole number from 0, or `window` is not two numbers, the lower one first.

    Notes
    -----
    OME-TIFF, ImageJ stacks, and TIFFs that Pillow cannot open need tifffile: ``pip install 'cellscan[tiff]'``.

    Examples
    --------
    >>> import numpy as np, cellscan
    >>> image = np.full((40, 40), 2048, np.uint16)  # from a 12-bit camera
    >>> reading = cellscan.Reading(window=(0, 4095))
    >>> cells = cellscan.CellDataset.from_arrays([image], [0], reading=reading)
    >>> int(cells[0].image.max())
    128
    """

    page: int | None = None
    channel: int | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("page", "channel"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 0:
                raise ArgumentError(f"{name} is {value!r}; expected a whole number from 0, or None")
            object.__setattr__(self, name, int(value))
        if self.window is None:
            return
        try:
            low, high = (float(value) for value in self.window)
        except (TypeError, ValueError):
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ArgumentError(
                f"window is {self.window!r:.80}; expected two numbers, the value that becomes black and the higher "
                "value that becomes white, such as (0, 4095)"
            )
        object.__setattr__(self, "window", (low, high))

    @property
    def mark(self) -> str:
        """Text that is appended to checksums of images; it differs between readings, and is ``""`` for the default.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Reading(window=(0, 4095)).mark
        '|None|None|(0.0, 4095.0)'
        """
        return "" if self == AS_STORED else f"|{self.page}|{self.channel}|{self.window}"

    @property
    def chooses(self) -> bool:
        """Whether a page or a channel is given.

        Examples
        --------
        >>> import cellscan
        >>> cellscan.Reading(channel=1).chooses, cellscan.Reading(window=(0, 4095)).chooses
        (True, False)
        """
        return self.page is not None or self.channel is not None


AS_STORED = Reading()
"""The default: images are read as their files define."""


def check_reading(reading: object) -> Reading:
    """Return `reading`, or the default for None; raise `ArgumentError` for other types.

    Examples
    --------
    >>> from cellscan.data.reading import check_reading
    >>> check_reading(None)
    Reading(page=None, channel=None, window=None)
    """
    if reading is None:
        return AS_STORED
    if not isinstance(reading, Reading):
        raise ArgumentError(f"reading is {reading!r:.80}; expected cellscan.Reading(page=, channel=, window=), or None")
    return reading


def through_window(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Scale values of any shape and number type to uint8, such that the window becomes 0 to 255.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.data.reading import through_window
    >>> through_window(np.array([0, 100, 300, 500, 900]), (100, 500)).tolist()
    [0, 0, 128, 255, 255]
    """
    if values.dtype == np.uint16:  # A lookup table needs an eighth of the memory.
        return through_window(np.arange(2**16), window)[values]
    low, high = window
    scaled = (values.astype(np.float64) - low) * 255 / (high - low)
    return np.floor(np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)
