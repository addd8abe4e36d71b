"""Pictures inside a page, as ``data:`` addresses."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cellscan.errors import ImageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUALITY = 82
"""Quality of the JPEG files."""


def encode_picture(image: np.ndarray, side: int) -> tuple[str, int, int]:
    """Return a picture as JPEG in a ``data:`` address, and its width and height.

    Parameters
    ----------
    image : (H, W, 3) uint8
    side : int
        Longest side of the result in pixels. Smaller images keep their size.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.pages.pictures import encode_picture
    >>> address, width, height = encode_picture(np.zeros((100, 200, 3), np.uint8), 96)
    >>> address[:23], width, height
    ('data:image/jpeg;base64,', 96, 48)
    """
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return _as_address("image/jpeg", file.getvalue()), *picture.size


def encode_figure(draw: Callable[[], Figure]) -> str:
    """Draw a figure, return it as SVG in a ``data:`` address, and close it.

    Names are drawn as plain text, not as formulas. Equal figures give equal addresses.

    Examples
    --------
    >>> from cellscan.pages.pictures import encode_figure
    >>> from cellscan.plots import plot_smears
    >>> encode_figure(lambda: plot_smears([("$a", 0.1, None, None)]))[:26]
    'data:image/svg+xml;base64,'
    """
    from matplotlib import pyplot as plt

    file = io.BytesIO()
    with warnings.catch_warnings(), plt.rc_context({"text.parse_math": False, "svg.hashsalt": "cellscan"}):
        # A name may have characters that the font lacks; the tables of the page contain the name as text.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = draw()
        figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
    return _as_address("image/svg+xml", file.getvalue())


def blend_map(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 with a map (H, W) in [0, 1] over it, opaque where the map is high.

    Examples
    --------
    >>> import numpy as np
    >>> from cellscan.pages.pictures import blend_map
    >>> blend_map(np.full((2, 2, 3), 200, np.uint8), np.zeros((2, 2)))[0, 0].tolist()
    [200, 200, 200]
    """
    from matplotlib import colormaps

    share = 0.8 * heat[..., None]
    mixed = (1 - share) * image + share * 255 * colormaps["magma"](heat)[..., :3]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def read_or_reason(read: Callable[[], np.ndarray]) -> np.ndarray | str:
    """Return the image that a function reads, or the reason why it cannot be read.

    Examples
    --------
    >>> from cellscan.data.images import read_rgb
    >>> from cellscan.pages.pictures import read_or_reason
    >>> read_or_reason(lambda: read_rgb("no.png"))
    'no.png: there is no such file'
    """
    try:
        return read()
    except ImageError as error:
        return str(error)


def _as_address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
