"""A run directory -> results/: which pixels speak for a cluster, as pictures and a gallery.

From Python, for any torch network: `attribute`, `overlay`.
"""

from typing import TYPE_CHECKING, Any

import machine  # noqa: F401  before torch
from explain.attribution import METHODS, attribute

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["METHODS", "attribute", "overlay"]


def overlay(heat: Any, photograph: Any) -> "Image":
    """Heat laid over a photograph, as the gallery draws it: 0 is blue, the map's own maximum red.

    Args:
        heat: a map (H, W), (1, H, W) or (1, 1, H, W), tensor or array; what is negative counts as 0.
        photograph: a PIL image, or an array (H, W, 3) uint8 or a tensor (3, H, W) in 0..1; resized to the map's size.

    Raises:
        UserError: if the shapes are others.
    """
    from explain.rendering import overlay_of

    return overlay_of(heat, photograph)
