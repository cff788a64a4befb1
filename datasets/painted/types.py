"""What can be engraved, and the bits by which a mask tells where it is."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SYMBOLS = ("axe", "flower", "wheel", "torc", "crescent", "spiked circle")


@dataclass(frozen=True)
class CoinType:
    """What was engraved: the symbols of the fields clockwise from top left ('' is empty), and the central dot."""

    name: str
    fields: tuple[str, str, str, str]
    dot: bool
    weight: float  # how common it is


# No two are the same up to turns and mirrors (a test says so); their sizes differ about sixfold.
TYPES = (
    CoinType("01-axe", ("axe", "", "", ""), False, 12),
    CoinType("02-axe-opposite-crescent", ("axe", "", "crescent", ""), False, 10),
    CoinType("03-axe-beside-crescent", ("axe", "crescent", "", ""), False, 6),
    CoinType("04-four-crescents", ("crescent", "crescent", "crescent", "crescent"), False, 9),
    CoinType("05-three-crescents-axe", ("crescent", "crescent", "axe", "crescent"), False, 11),
    CoinType("06-flowers-opposite", ("flower", "", "flower", ""), False, 7),
    CoinType("07-flowers-beside-dot", ("flower", "flower", "", ""), True, 5),
    CoinType("08-wheel-beside-axe", ("wheel", "", "", "axe"), True, 8),
    CoinType("09-wheels-and-crescents", ("wheel", "crescent", "wheel", "crescent"), True, 4),
    CoinType("10-torc-opposite-axe", ("torc", "", "axe", ""), False, 8),
    CoinType("11-torcs-spiked-circle", ("torc", "torc", "spiked circle", ""), False, 3),
    CoinType("12-four-spiked-circles", ("spiked circle",) * 4, True, 6),
    CoinType("13-spiked-circle", ("", "spiked circle", "", ""), True, 5),
    CoinType("14-axe-flower-wheel-torc", ("axe", "flower", "wheel", "torc"), False, 2),
)

# The bits of a mask picture, one byte a pixel.
MASK_BITS = {
    "coin": 1,
    "horizontal": 2,
    "vertical": 4,
    "dot": 8,
    "field0": 16,
    "field1": 32,
    "field2": 64,
    "field3": 128,
}


def read_mask(path: Path) -> dict[str, np.ndarray]:
    """name (MASK_BITS, and `cross` for both bars and the dot) -> (H, W) bool."""
    return split_mask(np.asarray(Image.open(path)))


def split_mask(bits: np.ndarray) -> dict[str, np.ndarray]:
    """Mask bits (H, W) -> what `read_mask` gives."""
    masks = {name: (bits & bit) > 0 for name, bit in MASK_BITS.items()}
    masks["cross"] = masks["horizontal"] | masks["vertical"] | masks["dot"]
    return masks
