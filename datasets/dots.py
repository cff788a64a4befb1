"""Dots and line: pictures of a horizontal line, a small and a large dot, whose every cause is known.

The class is where the small dot is: on the line, below or above it. The large dot lies anywhere and means nothing; in
the spoilt pictures it lies where the small one does, so that a network can learn the wrong dot and be right.

Lengths are pixels, x to the right and y down, a pixel's centre at whole numbers. Everything comes from one seed in
float64 and is rounded to bytes at the end. White on black; edges are soft over one pixel.
"""

from dataclasses import dataclass, replace

import numpy as np

SIDE = 28
CLASSES = ("0 on", "1 below", "2 above")  # in the order of the logits, which is that of their names
ON, BELOW, ABOVE = range(len(CLASSES))
PARTS = ("line", "small", "large")
COUNTS = {"train": 6000, "test": 3000}
SEED = 4
VERSION = 1  # raise when the same seed draws other pictures

SMALL, LARGE = 1.5, 3.5  # radii
GAP = 2.5  # at least, between the edges of a dot and what it does not touch: soft edges stay apart, too
LINES = (11, 16)  # rows that the line may lie in: each dot fits above and below


@dataclass(frozen=True)
class Scenes:
    """N pictures before they are drawn."""

    label: np.ndarray  # (N,) ON, BELOW or ABOVE: the small dot
    line: np.ndarray  # (N,) row
    small: np.ndarray  # (N, 2) x and y of its centre
    large: np.ndarray  # (N, 2)
    radius: float = LARGE  # of the large dots; 0: there is none

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: np.ndarray | slice) -> "Scenes":
        return Scenes(self.label[rows], self.line[rows], self.small[rows], self.large[rows], self.radius)


def make_scenes(count: int, rng: np.random.Generator, spoilt: bool = False) -> Scenes:
    """`count` scenes, each class as often as the others.

    The large dots are laid first, so that where they lie says nothing of the class, unless spoilt.

    Args:
        count: of them; each class has count / 3, rounded up or down.
        rng: where they come from.
        spoilt: the large dot lies where the small one does: on the line (touching it), below or above it.
    """
    label = rng.permutation(np.arange(count) % len(CLASSES))
    line = rng.integers(LINES[0], LINES[1] + 1, count)
    nowhere = np.full((count, 2), -np.inf)
    large = _scatter(_rows(label if spoilt else None, line, LARGE), LARGE, nowhere, rng)
    low, high = _rows(label, line, SMALL)
    centred = label == ON
    low[centred] = high[centred] = line[centred]
    return Scenes(label, line, _scatter((low, high), SMALL, large, rng), large)


def move_large(
    scenes: Scenes, rng: np.random.Generator, side: np.ndarray | None = None, radius: float = LARGE
) -> Scenes:
    """The same scenes with their large dots elsewhere, at random; none touches the small one or leaves the picture.

    Args:
        scenes: N of them.
        rng: where the places come from.
        side: (N,) ON (touching the line), BELOW or ABOVE (apart from it) for each; None: anywhere.
        radius: of the large dots.
    """
    rows = _rows(side, scenes.line, radius)
    return replace(scenes, large=_scatter(rows, radius, scenes.small, rng, SMALL), radius=radius)


def without_large(scenes: Scenes) -> Scenes:
    """The same scenes without their large dots."""
    return replace(scenes, radius=0.0)


def side_of_large(scenes: Scenes) -> np.ndarray:
    """(N,) ON where the large dot touches the line, else BELOW or ABOVE."""
    below = scenes.large[:, 1] - scenes.line
    return np.where(np.abs(below) < scenes.radius + 0.5, ON, np.where(below > 0, BELOW, ABOVE))


def draw_scenes(scenes: Scenes) -> np.ndarray:
    """(N, SIDE, SIDE) uint8."""
    line = np.arange(SIDE)[:, None] == scenes.line[:, None, None]  # (N, SIDE, 1)
    picture = np.maximum(line, np.clip(SMALL + 0.5 - _from_centre(scenes.small), 0, 1))
    if scenes.radius:
        picture = np.maximum(picture, np.clip(scenes.radius + 0.5 - _from_centre(scenes.large), 0, 1))
    return (picture * 255 + 0.5).astype(np.uint8)


def masks_of(scenes: Scenes) -> dict[str, np.ndarray]:
    """Each of PARTS -> (N, SIDE, SIDE) bool, disjoint: of the line what no dot covers."""
    small = _from_centre(scenes.small) <= SMALL
    large = (_from_centre(scenes.large) <= scenes.radius) & (scenes.radius > 0)
    line = np.arange(SIDE)[:, None] == scenes.line[:, None, None]
    return {"line": line & ~small & ~large, "small": small, "large": large}


def load_scenes(split: str, spoilt: bool = False) -> Scenes:
    """The scenes of a split, a key of COUNTS."""
    rng = np.random.default_rng([SEED, list(COUNTS).index(split), spoilt])
    return make_scenes(COUNTS[split], rng, spoilt)


def _rows(side: np.ndarray | None, line: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest y (N,) of a dot's centre that touches the line, or is apart from it on a side; None: any."""
    reach = 0.5 + radius + GAP
    low, high = np.full(len(line), radius), np.full(len(line), SIDE - 1 - radius)
    if side is None:
        return low, high
    return (
        np.select([side == ON, side == BELOW], [line - radius, line + reach], low),
        np.select([side == ON, side == ABOVE], [line + radius, line - reach], high),
    )


def _scatter(
    rows: tuple[np.ndarray, np.ndarray],
    radius: float,
    others: np.ndarray,
    rng: np.random.Generator,
    other_radius: float = LARGE,
) -> np.ndarray:
    """Centres (N, 2) of dots, drawn evenly between the `rows` and again until none touches its `others` (N, 2)."""
    count = len(others)
    centre = np.empty((count, 2))
    todo = np.arange(count)
    while len(todo):
        centre[todo, 0] = rng.uniform(radius, SIDE - 1 - radius, len(todo))
        centre[todo, 1] = rng.uniform(rows[0][todo], rows[1][todo])
        distance = np.sqrt(((centre[todo] - others[todo]) ** 2).sum(1))
        todo = todo[distance < radius + other_radius + GAP]
    return centre


def _from_centre(centre: np.ndarray) -> np.ndarray:
    """Distance of each pixel from a centre, (N, 2) -> (N, SIDE, SIDE)."""
    axis = np.arange(SIDE)
    x, y = (axis - centre[:, i, None] for i in range(2))  # (N, SIDE)
    return np.sqrt(x[:, None, :] ** 2 + y[:, :, None] ** 2)
