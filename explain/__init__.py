"""A run directory -> results/: which pixels speak for a cluster, as pictures and a gallery.

From Python, for any torch network: `attribute`, `overlay`, `cover`.
"""

from typing import TYPE_CHECKING, Any

import machine  # noqa: F401  before torch
from explain.attribution import METHODS, attribute
from explain.attribution.registry import COLOURS

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["METHODS", "attribute", "cover", "overlay"]


def overlay(heat: Any, photograph: Any, colours: str = COLOURS[0]) -> "Image":
    """Heat laid over a photograph, as the gallery draws it: 0 is the photograph in grey, the map's own maximum yellow.

    Args:
        heat: a map (H, W), (1, H, W) or (1, 1, H, W), tensor or array; what is negative counts as 0.
        photograph: a PIL image, or an array (H, W, 3) uint8 or a tensor (3, H, W) in 0..1; resized to the map's size.
        colours: inferno, viridis or rainbow.

    Raises:
        UserError: if the shapes are others, or there are no such colours.
    """
    from explain.rendering import overlay_of

    return overlay_of(heat, photograph, colours)


def cover(image: Any, position: tuple[float, float], fraction: float, fill: Any = "grey") -> Any:
    """A copy of an image in which a patch is hidden.

    Args:
        image: a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W) or (B, C, H, W).
        position: how far down and across the patch lies, 0 to 1 each: (0, 0) in the top left corner, (1, 1) in the
        bottom
            right one. It always lies within the image.
        fraction: its sides as fractions of the image's, over 0 to 1.
        fill: `grey` (128 of bytes, .5 of numbers), `mean` of each channel, `blur`, or a value that broadcasts.

    Returns:
        The same kind of image.

    Raises:
        UserError: if position, fraction or fill are none.
    """
    from explain.attribution.perturbation import cover

    return cover(image, position, fraction, fill)
