"""The logits under every flip of an image, exactly and fast: one flip changes one window of each map, and nothing else.

What a network would say of an image with one block of pixels inverted is computed from what it said of the image
itself. A dense first layer moves by the block's change times its columns of weights. Maps of convolutions change in one
window, which grows by kernel - 1 with each convolution and halves at a pool; of it the *change* alone is carried on:

    change of the pre-activation  d' = kernel * d               (linear: bias, padding, all outside cancel)
    change of the activation      d  = f(base + d') - f(base)   (f: ReLU, max-pool; base: the image's own map)

A batch norm in eval mode is an affine function of each channel: its scale goes into the next layer's weights, its shift
cancels. The first dense layer after the maps changes by the window's change times the window's weights; the few layers
after it are computed as usual.

The same flip of many images is one batch: its windows lie alike in all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from console import UserError

CACHED = 4  # images whose hidden units under every flip stay in a core's cache
BOUNDED, BOUNDED_TOGETHER = 32, 256  # images whose bounds do; images in a batch where there are bounds
FEW = 32  # classes: of more, the table of bounds would be large
SLACK = 4.0  # times the largest error of bfloat16 that was seen
Logits = Callable[[Tensor], Tensor]


def invert(images: Tensor) -> Tensor:
    """What a flipped pixel becomes: inverted and pushed to an extreme, x' = 1 if x < .5, else 0, each channel alike.

    The study prints this formula with its two cases exchanged (x' = 0 if 1 - x > .5, else 1), which would leave black
    black and white white. Its text says "inverted, then rounded to an extreme", and this is that; x = .5 goes to 0.

    Args:
        images: any shape, 0..1.

    Raises:
        UserError: if a value lies outside.
    """
    if not bool(((images >= 0) & (images <= 1)).all()):
        low, high = float(images.min()), float(images.max())
        raise UserError(f"flips are defined for images in 0..1, and these reach from {low:g} to {high:g}: rescale them")
    return (images < 0.5).to(images.dtype)


def count_flips(height: int, width: int, patch: int) -> tuple[int, int]:
    """How many blocks of `patch` x `patch` pixels cover an image, down and across; the last of each may be smaller."""
    return -(-height // patch), -(-width // patch)


def flipped_images(image: Tensor, flips: Tensor, patch: int = 1) -> Tensor:
    """The image (C, H, W) with each of the blocks `flips` (F,), numbered row by row, inverted in turn: (F, C, H, W)."""
    channels, height, width = image.shape
    across = count_flips(height, width, patch)[1]
    inside = torch.arange(patch, device=image.device)
    rows = ((flips // across * patch)[:, None] + inside).clamp_max(height - 1)[:, :, None]  # (F, patch, 1)
    columns = ((flips % across * patch)[:, None] + inside).clamp_max(width - 1)[:, None, :]
    every = image.permute(1, 2, 0).expand(len(flips), height, width, channels)
    out = every.clone(memory_format=torch.contiguous_format)  # a copy also of a single one
    out[torch.arange(len(flips), device=image.device)[:, None, None], rows, columns] = invert(image).permute(1, 2, 0)[
        rows, columns
    ]
    return out.permute(0, 3, 1, 2)


def flip_naive(logits: Logits, images: Tensor, patch: int = 1, batch: int = 784) -> Tensor:
    """The logits (B, F, K) of images (B, C, H, W) under each of F flips, each flipped image computed as a whole."""
    down, across = count_flips(images.shape[2], images.shape[3], patch)
    every = torch.arange(down * across, device=images.device)
    parts = [[logits(flipped_images(image, flips, patch)) for flips in every.split(batch)] for image in images]
    return torch.stack([torch.cat(part) for part in parts])


# --- the network, taken apart ---


@dataclass(frozen=True)
class Stage:
    """A convolution of stride 1, and what follows it up to the next."""

    layers: nn.Sequential  # to the pre-activation, as the network computes it
    after: nn.Sequential  # from there on, as the network computes it
    weight: Tensor  # (out, in, k, k) from a change of what came in to the change of the pre-activation
    padding: int
    relu: bool
    sign: (
        Tensor | None
    )  # (C,) where a batch norm before the pool turns a channel round, so that its maximum is the minimum
    pool: bool


@dataclass(frozen=True)
class Parts:
    """A network as `take_apart` finds it."""

    stages: list[Stage]
    dense: nn.Linear
    scale: Tensor | None  # (C,) of the maps that come into `dense`
    rest: list[nn.Module]


def take_apart(layers: Sequence[nn.Module]) -> Parts | None:
    """Stages, first dense layer and rest of a chain of layers in eval mode; None if it holds what is not known here.

    Known are, in this order: convolutions of stride 1 and odd kernel, each perhaps with batch norm, ReLU, batch norm,
    max-pool of 2, batch norm; then Flatten, Linear, and any of ReLU, BatchNorm1d, Linear.
    """
    chain = [layer for layer in layers if not isinstance(layer, nn.Dropout | nn.Dropout2d | nn.Identity)]
    flat = next((i for i, layer in enumerate(chain) if isinstance(layer, nn.Flatten)), None)
    if flat is None or any(layer.training for layer in chain) or not isinstance(chain[flat + 1], nn.Linear):
        return None
    stages: list[Stage] = []
    scale: Tensor | None = None
    todo = chain[:flat]
    while todo:
        found = _take_stage(todo, scale)
        if found is None:
            return None
        stage, scale, todo = found
        stages.append(stage)
    rest = chain[flat + 2 :]
    if not all(isinstance(layer, nn.ReLU | nn.Linear) or _norm_scale(layer) is not None for layer in rest):
        return None
    return Parts(stages, chain[flat + 1], scale, rest)  # type: ignore[arg-type]


def _take_stage(layers: list[nn.Module], scale: Tensor | None) -> tuple[Stage, Tensor | None, list[nn.Module]] | None:
    """The first stage, the scale of its maps that the next layer has to bear, and the layers that are left."""
    conv, layers = layers[0], layers[1:]
    if not isinstance(conv, nn.Conv2d) or _padding(conv) is None:
        return None
    weight = conv.weight.detach() if scale is None else conv.weight.detach() * scale[None, :, None, None]
    before: list[nn.Module] = [conv]
    if layers and (norm := _norm_scale(layers[0])) is not None:
        weight = weight * norm[:, None, None, None]
        before.append(layers.pop(0))
    after: list[nn.Module] = []
    if relu := bool(layers) and isinstance(layers[0], nn.ReLU):
        after.append(layers.pop(0))
    scale, sign, pool = None, None, False
    while layers and not isinstance(layers[0], nn.Conv2d):
        layer = layers.pop(0)
        after.append(layer)
        norm = _norm_scale(layer)
        if norm is not None:
            scale = norm if scale is None else scale * norm
        elif _is_pool(layer) and not pool:
            pool = True
            if scale is not None and bool((scale < 0).any()):
                sign, scale = torch.where(scale < 0, -1.0, 1.0), scale.abs()
        else:
            return None
    padding = _padding(conv)
    assert padding is not None
    stage = Stage(nn.Sequential(*before), nn.Sequential(*after), weight, padding, relu, sign, pool)
    return stage, scale, layers


def _padding(conv: nn.Conv2d) -> int | None:
    """Of a convolution that `Stage` can describe; None for another."""
    size = conv.kernel_size[0]
    plain = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    if not plain or conv.kernel_size != (size, size) or size % 2 == 0:
        return None
    if isinstance(conv.padding, str):
        return size // 2 if conv.padding == "same" else 0
    padding = conv.padding[0]
    return padding if conv.padding == (padding, padding) and padding < size else None


def _norm_scale(layer: nn.Module) -> Tensor | None:
    """(C,) the factor of a batch norm that uses its running statistics."""
    if not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) or layer.running_var is None or layer.training:
        return None
    factor = (layer.running_var + layer.eps).rsqrt()
    return factor if layer.weight is None else factor * layer.weight.detach()


def _is_pool(layer: nn.Module) -> bool:
    def two(value: object) -> bool:
        return value in (2, (2, 2))

    return (
        isinstance(layer, nn.MaxPool2d)
        and two(layer.kernel_size)
        and two(layer.stride)
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not layer.ceil_mode
    )


# --- where the windows lie ---

Span = tuple[int, int]  # along one axis, cells begin .. end - 1 of a map


@dataclass(frozen=True)
class Reach:
    """Along one axis, what one flip changes of a stage's maps: cut off at their edges."""

    moved: Span  # of what a full convolution of the change gives, the part that lies in the map
    before: Span  # of the pre-activation; with a pool, whole cells of its grid
    inset: int  # from there to where `moved` goes
    after: Span  # of what the next layer gets


@dataclass(frozen=True)
class Flip:
    """One block of pixels, and what it changes."""

    number: int
    block: tuple[Span, Span]  # rows, columns
    reaches: list[tuple[Reach, Reach]]  # of each stage
    last: tuple[Span, Span]  # of what goes into the dense layer


NOTHING = ((0, 0), (0, 0))  # the window of a flip that changes nothing: in an odd last row that a pool leaves out


Trace = tuple[Span, list[Reach], Span]  # a block's pixels, its reach in each stage, and in what the dense layer gets


def meet(number: int, rows: Trace, columns: Trace) -> Flip:
    """The flip of the block where these rows and columns meet."""
    reaches = list(zip(rows[1], columns[1], strict=True))
    empty = any(reach.before[0] == reach.before[1] for reach in (*rows[1], *columns[1]))
    return Flip(number, (rows[0], columns[0]), reaches, NOTHING if empty else (rows[2], columns[2]))


def trace(length: int, patch: int, stages: Sequence[Stage]) -> list[Trace]:
    """Each block along an axis of so many pixels."""
    found = []
    for begin in range(0, length, patch):
        block = span = (begin, min(begin + patch, length))
        reaches, side = [], length
        for stage in stages:
            kernel = stage.weight.shape[2]
            side += 2 * stage.padding - (kernel - 1)
            whole = side // 2 * 2 if stage.pool else side  # an odd last cell is in no cell of the pool
            low, high = span[0] - (kernel - 1) + stage.padding, span[1] + stage.padding
            first = min(max(low, 0), whole)
            last = max(first, min(high, whole))
            before = (first - first % 2, last + last % 2) if stage.pool else (first, last)
            span = (before[0] // 2, before[1] // 2) if stage.pool else before
            side = side // 2 if stage.pool else side
            reaches.append(Reach((first - low, last - low), before, first - before[0], span))
        found.append((block, reaches, span))
    return found


class FlipLogits:
    """The logits of images under every flip, by windows.

    Args:
        parts: the network, from `take_apart`.
        shape: (C, H, W) of its images.
        patch: pixels of a block's side.
    """

    def __init__(self, parts: Parts, shape: tuple[int, int, int], patch: int = 1):
        self.parts, self.patch = parts, patch
        down, across = (trace(length, patch, parts.stages) for length in shape[1:])
        flips = [meet(number, rows, columns) for number, (rows, columns) in enumerate(product(down, across))]
        self.count = len(flips)
        self._flips: dict[tuple[Span, Span], list[Flip]] = {}  # by their window of what goes into the dense layer
        for flip in flips:
            self._flips.setdefault(flip.last, []).append(flip)
        self._kernels = [stage.weight.contiguous(memory_format=torch.channels_last) for stage in parts.stages]
        self._dense: dict[tuple[Span, Span], Tensor] = {}  # the windows' weights, (h * w * C, units)
        self._rises = self._most_rises(shape)
        self._highest = None if self._rises is None else self._rises.amax((0, 3))  # (K, K) of any pixel

    def batch(self, device: torch.device) -> int:
        """How many images at a time are fastest: their windows stay in the cache."""
        if device.type == "cuda":
            return 512
        return 32 if self.parts.stages else 64

    def together(self, device: torch.device) -> int:
        """How many to look at together: more, where most of them need no look at their flips."""
        return max(self.batch(device), 1 if self._rises is None else BOUNDED_TOGETHER)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in 0..1 -> (B, flips, K)."""
        change = invert(images) - images
        if not self.parts.stages and self.patch == 1:
            return self._of_dense(change, images)
        change = change.permute(0, 2, 3, 1).contiguous()
        befores, afters, maps = self._look_at(images)
        hidden = self.parts.dense(maps.flatten(1))
        logits: Tensor | None = None
        for window, flips in self._flips.items():
            changes = torch.stack([self._change(change, befores, afters, flip).flatten(1) for flip in flips])
            out = (changes.flatten(0, 1) @ self._dense_of(window, maps)).view(len(flips), *hidden.shape).add_(hidden)
            out = out.flatten(0, 1)
            for layer in self.parts.rest:
                out = layer(out)
            if logits is None:
                logits = out.new_empty((self.count, len(images), out.shape[1]))
            logits[[flip.number for flip in flips]] = out.view(len(flips), len(images), -1)
        assert logits is not None
        return logits.transpose(0, 1)

    def may_change(self, images: Tensor, logits: Tensor, slack: float) -> tuple[Tensor, Tensor] | None:
        """The flips that may bring another logit to within `slack` of the answer's; the others need no look.

        A ReLU moves by at most as much as what comes in, and to the same side. So in a network of two dense layers, w
        and then v, a flip that changes pixel p by c raises logit k over the answer's, a, by at most
        sum_u max(0, (v_ku - v_au) w_up c).

        Args:
            images: (B, C, H, W) in 0..1.
            logits: (B, K) of them.
            slack: of a logit.

        Returns:
            (M,) image and (M,) flip, ascending. None: of this network no bound is known.
        """
        if self._rises is None or self._highest is None:
            return None
        answers = logits.argmax(1)
        short = logits - logits.gather(1, answers[:, None]) + slack  # (B, K), what is left of it must rise to 0
        short.scatter_(1, answers[:, None], -torch.inf)
        rows, rivals = (short + self._highest[answers] > 0).nonzero(as_tuple=True)
        change = (invert(images) - images).flatten(1)
        found = [rows.new_empty(0)]
        at_a_time = BOUNDED if images.device.type == "cpu" else max(1, len(rows))
        for row, rival in zip(rows.split(at_a_time), rivals.split(at_a_time), strict=True):
            moved, pair = change[row], (answers[row], rival)
            rise = torch.where(moved > 0, self._rises[0][pair], self._rises[1][pair]).mul_(moved.abs_())
            one, flip = (rise > -short[row, rival][:, None]).nonzero(as_tuple=True)
            found.append(row[one] * self.count + flip)
        whole = torch.cat(found).unique()  # a flip may be open for several rivals
        return whole // self.count, whole % self.count

    def of_flips(self, images: Tensor, image: Tensor, flip: Tensor) -> Tensor:
        """The logits (M, K) of single flips: of images (B, C, H, W), number `image` (M,) under flip number `flip` (M,).

        For networks of which `may_change` knows a bound: two dense layers.
        """
        pixel = images.flatten(1)[image, flip][:, None]
        out = self.parts.dense(images.flatten(1))[image]
        out.addcmul_(invert(pixel) - pixel, self.parts.dense.weight.T[flip])
        for layer in self.parts.rest:
            out = layer(out)
        return out

    def _most_rises(self, shape: tuple[int, int, int]) -> Tensor | None:
        """(2, K, K, pixels) by how much a pixel that changes by 1, or by -1, raises logit k over logit a at most."""
        rest = self.parts.rest
        if self.parts.stages or self.patch > 1 or shape[0] > 1 or len(rest) != 2:
            return None
        if not isinstance(rest[0], nn.ReLU) or not isinstance(rest[1], nn.Linear) or rest[1].out_features > FEW:
            return None
        first, last = self.parts.dense.weight.detach(), rest[1].weight.detach()
        over = (last[None] - last[:, None]).unsqueeze(3)  # (a, k, units, 1)
        both = [torch.stack([(sign * a * first).clamp_min(0).sum(1) for a in over]) for sign in (1, -1)]
        return torch.stack(both)

    def _of_dense(self, change: Tensor, images: Tensor) -> Tensor:
        """Of a network without convolutions: a rank-one update of the first layer; flips run along the last axis."""
        change = change.flatten(2)  # (B, C, flips)
        weight = self.parts.dense.weight
        weight = weight.view(len(weight), *change.shape[1:])  # (units, C, flips)
        hidden = self.parts.dense(images.flatten(1))[:, :, None]
        at_a_time = CACHED if images.device.type == "cpu" else len(images)
        parts = [
            self._columns(*some, weight) for some in zip(hidden.split(at_a_time), change.split(at_a_time), strict=True)
        ]
        return torch.cat(parts).transpose(1, 2)

    def _columns(self, hidden: Tensor, change: Tensor, weight: Tensor) -> Tensor:
        """(b, units, 1) and (b, C, flips) -> logits (b, K, flips)."""
        out = hidden
        for channel in range(change.shape[1]):
            out = torch.addcmul(out, weight[:, channel], change[:, channel : channel + 1])
        for layer in self.parts.rest:
            if isinstance(layer, nn.Linear):
                out = torch.bmm(layer.weight.expand(len(out), -1, -1), out)  # matmul would turn and copy `out`
                out = out if layer.bias is None else out.add_(layer.bias[:, None])
            else:
                out = torch.relu_(out) if isinstance(layer, nn.ReLU) else layer(out)
        return out

    def _look_at(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Of the images themselves each stage's pre-activation and what comes of it, (B, H, W, C); the last maps."""
        maps, befores, afters = images, [], []
        for stage in self.parts.stages:
            before = stage.layers(maps)
            maps = stage.after(before)
            height, width = before.shape[2:]
            if stage.pool:
                before = before[:, :, : height // 2 * 2, : width // 2 * 2]
            befores.append(before.permute(0, 2, 3, 1).contiguous())
            afters.append(_activate(befores[-1], stage))
        return befores, afters, maps

    def _change(self, change: Tensor, befores: list[Tensor], afters: list[Tensor], flip: Flip) -> Tensor:
        """What a flip changes of what goes into the dense layer: (B, h, w, C)."""
        if flip.last == NOTHING:
            return change[:, :0, :0]
        change = _cut(change, *flip.block)
        stages = zip(self.parts.stages, self._kernels, befores, afters, flip.reaches, strict=True)
        for stage, kernel, before, after, (down, across) in stages:
            moved = _cut(_convolve(change, kernel), down.moved, across.moved)
            now = _cut(before, down.before, across.before)
            if moved.shape == now.shape:
                now = now + moved
            else:
                now = now.clone(memory_format=torch.contiguous_format)  # also where it is the whole map
                _cut(now, _from(down.inset, moved.shape[1]), _from(across.inset, moved.shape[2])).add_(moved)
            change = _activate(now, stage).sub_(_cut(after, down.after, across.after))
        return change

    def _dense_of(self, window: tuple[Span, Span], maps: Tensor) -> Tensor:
        """The window's weights in the dense layer, (h * w * C, units)."""
        if window not in self._dense:
            weight = self.parts.dense.weight.detach().view(-1, *maps.shape[1:])
            if self.parts.scale is not None:
                weight = weight * self.parts.scale[:, None, None]
            self._dense[window] = _cut(weight.permute(0, 2, 3, 1), *window).flatten(1).T.contiguous()
        return self._dense[window]


class Screen:
    """Of which images some flip comes near to changing the answer, told in bfloat16.

    Some processors multiply bfloat16 many times faster. Its logits are off by some tenths, so an image is passed over
    only where every flip leaves the answer's logit by `slack` above all others; the others are looked at exactly. The
    slack is `SLACK` times the largest error seen under all flips of sample images: no proof, as `may_change` is one.

    Args:
        rough: a network's logits by windows in bfloat16.
        fast: the same in float32.
        sample: (B, C, H, W) in 0..1.
    """

    def __init__(self, rough: FlipLogits, fast: FlipLogits, sample: Tensor):
        self._rough = rough
        error = self._logits(sample) - fast(sample)
        self.slack = SLACK * float((error.amax(2) - error.amin(2)).amax())  # of one logit less another

    def _logits(self, images: Tensor) -> Tensor:
        return self._rough(images.bfloat16()).float()

    def near(self, images: Tensor, answers: Tensor) -> Tensor:
        """The rows of images (B, C, H, W), whose answers are (B,), that must be looked at: (M,), ascending."""
        found = self._logits(images)
        at = answers[:, None, None].expand(-1, found.shape[1], 1)
        own = found.gather(2, at)[:, :, 0]
        lead = own - found.scatter_(2, at, -torch.inf).amax(2)
        return (~(lead.amin(1) > self.slack)).nonzero()[:, 0]  # also where it is no number


def _cut(maps: Tensor, rows: Span, columns: Span) -> Tensor:
    """A window of maps (B, H, W, C), a view."""
    return maps[:, rows[0] : rows[1], columns[0] : columns[1]]


def _convolve(change: Tensor, kernel: Tensor) -> Tensor:
    """The full convolution of a change (B, h, w, C) with a kernel (out, C, k, k): (B, h + k - 1, w + k - 1, out)."""
    if change.shape[1:] == (1, 1, 1):  # of one grey pixel: the kernel itself, turned round
        return change * kernel[:, 0].flip(1, 2).permute(1, 2, 0)
    out = functional.conv2d(change.permute(0, 3, 1, 2), kernel, padding=kernel.shape[2] - 1)
    return out.permute(0, 2, 3, 1)


def _from(begin: int, size: int) -> Span:
    return begin, begin + size


def _activate(maps: Tensor, stage: Stage) -> Tensor:
    """ReLU and pool of maps (B, H, W, C), a new tensor. ReLU comes last where it may: it keeps the order of four."""
    if stage.sign is not None:
        maps = (torch.relu(maps) if stage.relu else maps) * stage.sign
    if stage.pool:
        maps = torch.maximum(maps[:, ::2], maps[:, 1::2])  # max_pool2d would note where the maxima are
        maps = torch.maximum(maps[:, :, ::2], maps[:, :, 1::2])
    if stage.relu and stage.sign is None:
        return torch.relu(maps)
    return maps if stage.sign is not None or stage.pool else maps.clone()
