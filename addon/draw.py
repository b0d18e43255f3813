"""Draw icon.png and logo.png: a house, and in it a voice.

pip install ".[draw]" && python addon/draw.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
SCALE = 8  # drawn larger, then made smaller: Pillow's shapes have no smooth edges

TILE_TOP, TILE_BOTTOM = (44, 124, 200), (30, 78, 158)
WHITE = (255, 255, 255, 255)
GREY = (116, 126, 140, 255)  # read on white and on black alike
BARS = (0.34, 0.62, 1.0, 0.62, 0.34)
"""Heights of the voice, of the tallest."""


def main() -> None:
    mark(128).save(HERE / "icon.png", optimize=True)
    logo().save(HERE / "logo.png", optimize=True)


def mark(size: int) -> Image.Image:
    """Return the mark, `size` pixels square, with transparent corners."""
    side = size * SCALE
    tile = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    tile.paste(_gradient(side), mask=_rounded_square(side))
    _house(ImageDraw.Draw(tile), side)
    return tile.resize((size, size), Image.Resampling.LANCZOS)


def _gradient(side: int) -> Image.Image:
    column = Image.new("RGB", (1, side))
    for y in range(side):
        part = y / (side - 1)
        mixed = [round(a + (b - a) * part) for a, b in zip(TILE_TOP, TILE_BOTTOM, strict=True)]
        column.putpixel((0, y), (mixed[0], mixed[1], mixed[2]))
    return column.resize((side, side))


def _rounded_square(side: int) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    edge = round(side * 0.03)
    box = (edge, edge, side - edge, side - edge)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=round(side * 0.22), fill=255)
    return mask


def _house(draw: ImageDraw.ImageDraw, side: int) -> None:
    """Draw walls and roof as one thick line, and the bars of a voice inside."""
    points = [(0.255, 0.47), (0.255, 0.79), (0.745, 0.79), (0.745, 0.47)]
    roof = [(0.17, 0.515), (0.5, 0.215), (0.83, 0.515)]
    for line in (points, roof):
        _thick_line(draw, [(x * side, y * side) for x, y in line], side * 0.058)
    middle, tallest, width, step = 0.585, 0.27, 0.046, 0.079
    for number, height in enumerate(BARS):
        x = 0.5 + (number - len(BARS) // 2) * step
        half = tallest * height / 2
        ends = [(x * side, (middle - half) * side), (x * side, (middle + half) * side)]
        _thick_line(draw, ends, width * side)


def _thick_line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: float) -> None:
    """Draw a line with round ends and corners."""
    draw.line(points, fill=WHITE, width=round(width))
    for x, y in points:
        radius = width / 2
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=WHITE)


def logo() -> Image.Image:
    """Return mark and name, 250 by 100 pixels, on nothing."""
    image = Image.new("RGBA", (250 * SCALE, 100 * SCALE), (0, 0, 0, 0))
    square = mark(84 * SCALE)
    image.paste(square, (4 * SCALE, 8 * SCALE), square)
    draw = ImageDraw.Draw(image)
    for text, y in (("Wyoming", 20), ("Whisper", 54)):
        font = ImageFont.load_default(32 * SCALE)
        draw.text((98 * SCALE, y * SCALE), text, font=font, fill=GREY, anchor="lt")
    return image.resize((250, 100), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
