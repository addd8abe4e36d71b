"""Draw the logo and the icon of the site: a stained red cell with a parasite in the ring form.

    python docs/make_logo.py

Writes logo.svg, and icon.png of 48 px, because not every browser shows an SVG as icon, into docs/_static.
"""

from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent / "_static"
SIDE = 64
ICON = 48
SCALE = 32
"""Pixels drawn per unit of length before the icon is reduced to its size."""

# Discs, drawn in this order: centre and radius in units of 1 / SIDE of the picture, and colour.
DISCS = (
    (32, 32, 31, "#c65b6e"),  # the edge of the cell, which separates it from a white ground
    (32, 32, 28, "#f0a5ab"),
    (31, 34, 17.5, "#46308c"),  # the cytoplasm of the parasite
    (31, 34, 11, "#fbdcda"),  # its vacuole, which makes a ring of the cytoplasm
    (43, 22, 8, "#86094f"),  # its nucleus
)


def make_svg() -> str:
    """Return the logo as SVG."""
    discs = "".join(f'  <circle cx="{x}" cy="{y}" r="{r}" fill="{colour}"/>\n' for x, y, r, colour in DISCS)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">\n{discs}</svg>\n'


def make_icon(size: int) -> Image.Image:
    """Return the logo as an image (size, size) with a transparent ground."""
    image = Image.new("RGBA", (SIDE * SCALE, SIDE * SCALE))
    draw = ImageDraw.Draw(image)
    for x, y, r, colour in DISCS:
        draw.ellipse([value * SCALE for value in (x - r, y - r, x + r, y + r)], colour)
    return image.resize((size, size), Image.Resampling.BOX)


def main() -> None:
    """Write both files."""
    (FOLDER / "logo.svg").write_text(make_svg(), encoding="utf-8")
    make_icon(ICON).save(FOLDER / "icon.png")


if __name__ == "__main__":
    main()
