"""Pictures in a terminal: two pixels in each character, the upper as its colour and the lower as its background."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

UPPER = "\N{UPPER HALF BLOCK}"
LOWER = "\N{LOWER HALF BLOCK}"
CLEAR = 128  # of a pixel's opacity: below it, the terminal shines through


def picture(content: bytes, width: int) -> Text:
    """An encoded picture, at most `width` characters wide."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    scale = min(1.0, width / image.width)
    size = (max(1, int(image.width * scale)), max(2, int(image.height * scale / 2) * 2))
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX)).tolist()  # rows of columns of RGBA
    text = Text(no_wrap=True)
    for y in range(0, size[1], 2):
        for x in range(size[0]):
            text.append(*_cell(pixels[y][x], pixels[y + 1][x]))
        text.append("\n")
    return text


def _cell(upper: list[int], lower: list[int]) -> tuple[str, Style]:
    colours = [None if pixel[3] < CLEAR else Color.from_rgb(*pixel[:3]) for pixel in (upper, lower)]
    if colours[0] is None:
        return (" ", Style()) if colours[1] is None else (LOWER, Style(color=colours[1]))
    return UPPER, Style(color=colours[0], bgcolor=colours[1])
