"""Words on pictures: one font, lines that fit."""

from pathlib import Path

import matplotlib
from PIL import ImageFont


def letters(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, `size` pixels high."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """A text in lines of at most `width` pixels; a word that is longer has its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A text, or its beginning and end around an ellipsis where it is wider than `width` pixels."""
    for kept in range(min(len(text), max(3, int(width))), 2, -1):  # a stranger's text may be a megabyte long
        begin = kept // 3
        short = text if kept == len(text) else f"{text[:begin]}…{text[begin - kept :]}"
        if font.getlength(short) <= width:
            return short
    return text if len(text) < 3 and font.getlength(text) <= width else "…"
