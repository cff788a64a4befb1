"""What the head of an image file says of the photograph: its size, the camera and the day."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from console import plain
from datasets.decoding import FORMATS
from machine.reading import open_regular

MAKE, MODEL, CHANGED, TURNED = 271, 272, 306, 274  # tags of EXIF
DETAILS, TAKEN = 0x8769, 36867
SIDEWAYS = (5, 6, 7, 8)  # orientations in which width and height change places
MOST = 60  # characters of a camera's name


@dataclass(frozen=True)
class Header:
    """Of one image file."""

    width: int  # pixels, as the picture is shown
    height: int
    camera: str  # make and model; '': not told
    day: str  # "2021-04-03", of the photograph, else of the file's last change by a program that tells; '': not told


def read_header(path: Path) -> Header | None:
    """The head of an image file; None if it is none, or none that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
                # of a PNG without EXIF, Pillow would decode the whole picture in search of some
                told = image.getexif() if image.format != "PNG" or "exif" in image.info else Image.Exif()
                width, height = image.size
                if told.get(TURNED) in SIDEWAYS:
                    width, height = height, width
                taken = told.get_ifd(DETAILS).get(TAKEN) or told.get(CHANGED)
                return Header(width, height, _camera(told), _day(taken))
    except Exception:  # readers of EXIF raise nearly anything on damaged bytes
        return None


def _camera(told: Image.Exif) -> str:
    make, model = (_text(told.get(tag)) for tag in (MAKE, MODEL))
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def _day(taken: object) -> str:
    found = re.match(r"([12][0-9]{3})[:-]([01][0-9])[:-]([0-3][0-9])", _text(taken))
    return "-".join(found.groups()) if found else ""


def _text(value: object) -> str:
    """A tag's text in one line, or ''."""
    return plain(value.replace("\0", " ").strip()[:MOST]) if isinstance(value, str) else ""
