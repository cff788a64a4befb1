"""Outlines as masks; free of SciPy, so that what only draws them is imported at once."""

from collections.abc import Sequence

import cv2
import numpy as np


def fill_outline(outline: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(H, W) uint8: 1 within the closed (M, 2) outline of x, y, exact to a sixteenth of a pixel."""
    drawn = np.zeros(tuple(shape[:2]), np.uint8)
    cv2.fillPoly(drawn, [np.round(outline * 16).astype(np.int32)], (1,), shift=4)
    return drawn
