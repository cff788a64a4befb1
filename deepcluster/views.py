"""Decoded pixels -> batches that the network sees: the fixed view of every image, and random training crops."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets import Pixels, decoded_side
from datasets.view import BRIGHTER, GROUND, PHOTOGRAPH
from machine.device import sent

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in the paper


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) float32 0..255 -> ImageNet-normalised, in place."""
    mean, std = (sent(torch.tensor(values).view(1, 3, 1, 1) * 255, pixels.device) for values in (MEAN, STD))
    return pixels.sub_(mean).div_(std)


class Frames:
    """The pixels of a dataset where batches are cut from: one tensor on the device if all have one shape."""

    def __init__(self, pixels: Pixels, device: torch.device):
        self.pixels, self.device = pixels, device
        self.shape = pixels.shape
        self.resident: Tensor | None = None
        if device.type == "cuda" and pixels.alike:
            free, _ = torch.cuda.mem_get_info(device)
            if len(pixels) * pixels[0].size < free // 3:
                whole = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8)
                for i in range(len(pixels)):
                    whole[i] = torch.from_numpy(np.array(pixels[i]))
                self.resident = whole.to(device)

    def batch(self, indices: np.ndarray) -> list[Tensor]:
        """The images `indices` as (b, 3, H, W) float32 0..255 on the device, one tensor a run of equal shapes."""
        if self.resident is not None:
            chosen = self.resident[sent(torch.as_tensor(indices), self.device)]
            return [chosen.permute(0, 3, 1, 2).float()]
        groups: list[list[np.ndarray]] = []
        for i in indices:
            image = self.pixels[int(i)]
            if groups and groups[-1][0].shape == image.shape:
                groups[-1].append(image)
            else:
                groups.append([image])
        stacked = (torch.from_numpy(np.stack(group)) for group in groups)
        return [sent(group, self.device).permute(0, 3, 1, 2).float() for group in stacked]


def fixed_view(frames: Frames, indices: np.ndarray, size: int, crop: bool, view: str = PHOTOGRAPH) -> Tensor:
    """What is clustered and explained: (B, 3, size, size), of another view than the photograph (B, 3, height, width).

    With `crop` the central 7/8 of a photograph's shorter side (the paper's centre crop of 224 from 256), else the whole
    central square. The frames of another view are what it shows already.
    """
    views = []
    for group in frames.batch(indices):
        if view != PHOTOGRAPH:
            views.append(group)
            continue
        height, width = group.shape[2:]
        side = round(min(height, width) * size / decoded_side(size)) if crop else min(height, width)
        top, left = round((height - side) / 2), round((width - side) / 2)
        square = group[:, :, top : top + side, left : left + side]
        if side != size:
            square = functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
        views.append(square)
    return normalise(torch.cat(views)).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Augmentation:
    scale: float  # smallest share of the image's area that a crop covers
    rotation: float  # degrees either way
    flip: bool
    jitter: float  # largest relative change of brightness, contrast and saturation


@dataclass(frozen=True)
class Crops:
    """Random crops, one a row: all that is random about a training image, drawn before the pixels are touched."""

    box: Tensor  # (B, 4) top, left, height, width in pixels of the decoded image
    angle: Tensor  # (B,) radians
    flip: Tensor  # (B,) bool
    jitter: Tensor  # (B, 3) factors of brightness, contrast, saturation

    def __getitem__(self, rows: slice) -> "Crops":
        return Crops(self.box[rows], self.angle[rows], self.flip[rows], self.jitter[rows])

    def on(self, device: torch.device) -> "Crops":
        """The same, sent to the device."""
        return Crops(*(sent(part, device) for part in (self.box, self.angle, self.flip, self.jitter)))


def draw_crops(shape: np.ndarray, augmentation: Augmentation, generator: torch.Generator) -> Crops:
    """Boxes as torchvision's RandomResizedCrop draws them (area scale..1, ratio 3/4..4/3, ten tries, then central).

    Args:
        shape: (B, 2) height and width of the decoded images.
        augmentation: how much may vary.
        generator: of chance.
    """
    count, tries = len(shape), 10
    height, width = (torch.as_tensor(shape[:, i], dtype=torch.float64)[:, None] for i in (0, 1))

    def uniform(low: float, high: float, *sizes: int) -> Tensor:
        return low + (high - low) * torch.rand(*sizes, generator=generator, dtype=torch.float64)

    area = height * width * uniform(augmentation.scale, 1, count, tries)
    ratio = torch.exp(uniform(np.log(3 / 4), np.log(4 / 3), count, tries))
    w, h = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    none = ~fits.any(1, keepdim=True)
    w = torch.where(none, torch.minimum(width, torch.round(height * 4 / 3)), w.gather(1, first))
    h = torch.where(none, torch.minimum(height, torch.round(width * 4 / 3)), h.gather(1, first))
    at = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    top = torch.floor(at[:, :1] * (height - h + 1))
    left = torch.floor(at[:, 1:] * (width - w + 1))
    top, left = (
        torch.where(none, torch.floor((height - h) / 2), top),
        torch.where(none, torch.floor((width - w) / 2), left),
    )
    angle = torch.deg2rad(uniform(-augmentation.rotation, augmentation.rotation, count))
    flip = (torch.rand(count, generator=generator) < 0.5) & augmentation.flip
    jitter = uniform(1 - augmentation.jitter, 1 + augmentation.jitter, count, 3)
    return Crops(torch.cat([top, left, h, w], 1), angle, flip, jitter)


def training_views(frames: Frames, indices: np.ndarray, crops: Crops, size: int) -> Tensor:
    """Cut, turn, flip and resize each crop in one bilinear sampling: (B, 3, size, size), normalised.

    Without rotation this equals cutting the box and resizing it bilinearly (half-pixel centres). A crop of twice the
    size or more is first shrunk by a whole number, in means over blocks of pixels, so that nothing finer than a pixel
    aliases.
    """
    views, done, on_device = [], 0, crops.on(frames.device)
    for group in frames.batch(indices):
        rows = slice(done, done + len(group))
        done = rows.stop
        turned = bool((crops.angle[rows] != 0).any())
        grid = _grid(on_device[rows], group.shape[2], group.shape[3], size, turned)
        shrink = (crops.box[rows, 2:].amin(1) / size).floor().clamp_min(1).to(torch.int64)
        sampled = torch.empty((len(group), 3, size, size), device=group.device)
        for times in shrink.unique().tolist():
            chosen = torch.nonzero(shrink == times)[:, 0]
            some = slice(None) if len(chosen) == len(group) else sent(chosen, group.device)
            source = group[some] if times == 1 else functional.avg_pool2d(group[some], times, ceil_mode=True)
            sampled[some] = functional.grid_sample(
                source, _stretched(grid[some], group, source, times),
                mode="bilinear", padding_mode="reflection", align_corners=False,
            )  # fmt: skip
        views.append(sampled)
    pixels = torch.cat(views)
    if bool((crops.jitter != 1).any()):  # asked of the CPU's copy: for the GPU's answer all would have to wait
        pixels = _jitter(pixels, on_device.jitter)
    return normalise(pixels).contiguous(memory_format=torch.channels_last)


ZOOM, SHIFT = 0.08, 0.05  # of an unrolled coin, relative and in radii: what finding it leaves uncertain
LIGHT = 0.75  # of jitter: how much the relief's strength may change along the coin, as with the lamp's direction
LEVEL = 0.25  # of jitter: how much the relief's mean may change, in local deviations


@dataclass(frozen=True)
class Turns:
    """How unrolled coins are turned, moved and lit, one a row: all that is random about a training image."""

    roll: Tensor  # (B,) radians
    zoom: Tensor  # (B,)
    shift: Tensor  # (B, 2) of the centre: radii, radians
    light: Tensor  # (B, 4) factor of the relief; its change from the centre to the rim, and where to; what is added
    opposite: Tensor  # (B,) bool: lit from the other side, so that what rose now falls

    def __getitem__(self, rows: slice) -> "Turns":
        return Turns(self.roll[rows], self.zoom[rows], self.shift[rows], self.light[rows], self.opposite[rows])

    def on(self, device: torch.device) -> "Turns":
        """The same, sent to the device."""
        parts = (self.roll, self.zoom, self.shift, self.light, self.opposite)
        return Turns(*(sent(part, device) for part in parts))


def draw_turns(count: int, augmentation: Augmentation, generator: torch.Generator) -> Turns:
    """Of `count` unrolled coins; `augmentation` says how far they turn, and by its jitter how much light varies."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    jitter = augmentation.jitter
    return Turns(
        torch.deg2rad(uniform(-augmentation.rotation, augmentation.rotation)),
        uniform(1 - ZOOM, 1 + ZOOM),
        torch.stack([uniform(0, SHIFT), uniform(0, 2 * np.pi)], 1),
        torch.stack(
            [
                uniform(1 - LIGHT * jitter, 1 + LIGHT * jitter),
                uniform(0, LIGHT * jitter),
                uniform(0, 2 * np.pi),
                uniform(-LEVEL * jitter, LEVEL * jitter),
            ],
            1,
        ),
        (torch.rand(count, generator=generator) < 0.5) & (jitter > 0),
    )


def turned_views(frames: Frames, indices: np.ndarray, turns: Turns) -> Tensor:
    """Unrolled coins, turned, moved and lit otherwise, in one bilinear sampling: (B, 3, height, width), normalised."""
    (pixels,) = frames.batch(indices)
    height, width = pixels.shape[2:]
    turns = turns.on(pixels.device)
    roll, zoom, off, to = (
        part.view(-1, 1, 1) for part in (turns.roll, turns.zoom, turns.shift[:, 0], turns.shift[:, 1])
    )
    rows, columns = (torch.arange(side, dtype=torch.float64, device=pixels.device) for side in (height, width))
    reach, angle = (rows / height).view(1, -1, 1), (columns * (2 * np.pi / width)).view(1, 1, -1)
    x = reach * zoom * torch.cos(angle + roll) + off * torch.cos(to)
    y = reach * zoom * torch.sin(angle + roll) + off * torch.sin(to)
    down = torch.hypot(x, y) * height
    across = torch.remainder(torch.atan2(y, x), 2 * np.pi) * (width / (2 * np.pi))
    joined = functional.pad(pixels, (0, 1, 0, 0), mode="circular")
    grid = torch.stack([across * (2 / width) - 1, down * (2 / (height - 1)) - 1], 3).float()
    sampled = functional.grid_sample(joined, grid, mode="bilinear", padding_mode="border", align_corners=True)
    factor, change, where, level = (part.view(-1, 1, 1) for part in turns.light.T)
    strength = (factor * (1 + change * reach * torch.cos(angle + where))).float()[:, None]
    zero = sent(torch.tensor([float(GROUND), 0, 0]).view(1, 3, 1, 1), pixels.device)
    sign = torch.where(turns.opposite, -1.0, 1.0).view(-1, 1, 1)
    lit = (sampled - zero) * strength
    lit[:, 0] *= sign  # the grey; the edges' strengths stay
    lit += zero
    lit[:, 0] += (BRIGHTER * level).float()
    return normalise(lit.clamp_(0, 255)).contiguous(memory_format=torch.channels_last)


def _stretched(grid: Tensor, whole: Tensor, shrunk: Tensor, times: int) -> Tensor:
    """The grid of a picture for one that was shrunk, whose last blocks may reach over the edge."""
    if times == 1:
        return grid
    sides = [(whole.shape[3], shrunk.shape[3]), (whole.shape[2], shrunk.shape[2])]
    ratio = sent(torch.tensor([side / (times * small) for side, small in sides]), grid.device)
    return (grid + 1) * ratio - 1


def _grid(crops: Crops, height: int, width: int, size: int, turned: bool) -> Tensor:
    """(B, size, size, 2) sampling positions in grid_sample's -1..1 coordinates.

    `turned`: whether some angle is not 0, which to ask of crops on a GPU means to wait for it.
    """
    top, left, h, w = (crops.box[:, i].view(-1, 1, 1) for i in range(4))
    number = torch.arange(size, dtype=torch.float64, device=crops.box.device)
    steps = (number + 0.5) / size - 0.5  # -.5..+.5 across the crop
    across = torch.where(crops.flip.view(-1, 1, 1), -1.0, 1.0) * steps.view(1, 1, -1) * w
    down = steps.view(1, -1, 1) * h
    if turned:
        c, s = torch.cos(crops.angle).view(-1, 1, 1), torch.sin(crops.angle).view(-1, 1, 1)
        x, y = left + w / 2 + c * across - s * down, top + h / 2 + s * across + c * down
    else:  # stay inside the box, as resizing the cut-out would
        x = torch.clamp(left + w / 2 + across, left + 0.5, left + w - 0.5).expand(-1, size, -1)
        y = torch.clamp(top + h / 2 + down, top + 0.5, top + h - 0.5).expand(-1, -1, size)
    return torch.stack([2 * x / width - 1, 2 * y / height - 1], 3).float()


def _jitter(pixels: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast about the image's mean grey, saturation about each pixel's grey; clipped to 0..255."""
    brightness, contrast, saturation = (factors[:, i].float().view(-1, 1, 1, 1) for i in range(3))
    grey_weights = sent(torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), pixels.device)
    pixels = pixels * brightness
    mean = (pixels * grey_weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = torch.lerp(mean.expand_as(pixels), pixels, contrast.expand_as(pixels))
    grey = (pixels * grey_weights).sum(1, keepdim=True)
    return torch.lerp(grey.expand_as(pixels), pixels, saturation.expand_as(pixels)).clamp_(0, 255)
