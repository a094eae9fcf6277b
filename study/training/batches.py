"""Batches of a training step: the training part in an epoch's order, augmented on the device where it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from study.data.images import normalise
from study.data.splits import Splits

AUGMENTATIONS = ("none", "flip", "shift1", "shift", "crop", "resized-crop", "resized-crop-jitter")
"""`flip` mirrors half of the images; `shift1` moves half of them by one pixel, up, down, left or right; `shift` moves
each by up to an eighth of its side; `crop` does as `flip` and `shift` do.
`resized-crop` mirrors half of them and enlarges a random part of each, see `resized_crop`; with `-jitter` their
colours change, too, see `jitter`."""

VIEWS = {"none": 1, "flip": 2, "shift1": 5}
"""How many views of an image these augmentations show; view 0 is the image as it is."""

SHIFTING = tuple(augment for augment in AUGMENTATIONS if augment not in VIEWS)
"""Augmentations that make too many views of an image to store a teacher's logits of each."""

_SHIFT1 = ((1, 1), (2, 1), (0, 1), (1, 2), (1, 0))
"""Of each view of `shift1` the row and the column at which it begins in the image with one more pixel on each side."""

_MOVING, _RESIZING = ("shift", "crop"), ("resized-crop", "resized-crop-jitter")
LEAST_AREA = 0.35
"""Of the image, that `resized_crop` shows."""
RATIO = 4 / 3
"""Largest width ÷ height, or height ÷ width, of what it shows."""
JITTER = 0.4
"""By which share brightness, contrast and saturation change at most."""


@dataclass(frozen=True)
class Mixed:
    """What the images of a batch are mixed with: λ times its own, plus 1 − λ times its partner's.

    Reference: Zhang et al. (2018), sec. 2, https://arxiv.org/abs/1710.09412, with one λ a batch as in its code. A
    partner is the example before it in the batch, whose order is random.

    Attributes:
        share: λ of Beta(a, a), scalar or (members,).
        labels: of the partners, (batch,) or (members, batch), int64.
    """

    share: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """One step's examples, on the training device.

    Attributes:
        index: rows of the training part, (batch,), int64.
        view: which view of each example it shows, as `view_of` numbers them, (batch,), int64. Of augmentations that
            also move or enlarge, 1 says that the image is mirrored.
        images: normalised and augmented, (batch, channels, height, width), float32; other data, (batch, …).
        labels: (batch,), int64.
        mixed: with what the images are mixed; None if they are not.

    Of networks that are trained together (`study.methods.common.packed_training`) all have one more axis in front,
    (members, batch, …).
    """

    index: Tensor
    view: Tensor
    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in one epoch, each of two examples or more."""
    return max(1, min(math.ceil(examples / batch_size), examples // 2))


class EpochBatches:
    """The training part as an epoch shows it: its order, and what augmentation does to each example.

    Everything is on the data's device and stays in place from epoch to epoch, as a recorded step needs it.

    Args:
        members: networks that are trained together, each with its own order; 0 for one alone, without that axis.
        mixup: a of the Beta(a, a) that `Mixed.share` comes from; 0 for images as they are.
    """

    def __init__(self, data: Splits, augment: str, members: int = 0, mixup: float = 0.0) -> None:
        self.data, self.augment, self.mixup = data, augment, mixup
        shape = ((members,) if members else ()) + (len(data.train),)
        device = data.train.images.device
        self.order = torch.zeros(shape, dtype=torch.int64, device=device)
        self._flips = torch.zeros(shape, dtype=torch.bool, device=device)
        self._moves = [torch.zeros_like(self.order) for _ in range(2 if augment in _MOVING else 0)]
        chances = (4 if augment in _RESIZING else 0) + (3 if augment.endswith("-jitter") else 0)
        self._chances = [torch.zeros(shape, device=device) for _ in range(chances)]
        self._views = [torch.zeros_like(self.order)] if augment == "shift1" else []
        self._shown = torch.tensor(_SHIFT1, device=device).T
        self._shares = [torch.ones(shape, device=device)] if mixup else []
        self._places = [self.order, self._flips, *self._moves, *self._chances, *self._views, *self._shares]

    def shuffle(self, *generators: torch.Generator) -> None:
        """Draw an epoch on the host, where every device gets the same; one generator a member."""
        epoch = zip(*map(self._draw, generators), strict=True)
        for place, tensors in zip(self._places, epoch, strict=True):
            place.copy_(torch.stack(tensors).view_as(place))

    def _draw(self, generator: torch.Generator) -> list[Tensor]:
        count = len(self.data.train)
        order = torch.randperm(count, generator=generator)
        flips = torch.rand(count, generator=generator).lt(0.5)
        shifts = _shifts(self.data.train.images) if self.augment in _MOVING else ()
        moves = [torch.randint(0, 2 * most + 1, (count,), generator=generator) for most in shifts]
        chances = [torch.rand(count, generator=generator) for _ in self._chances]
        views = [torch.randint(-3, 5, (count,), generator=generator).clamp_(min=0) for _ in self._views]
        shares = [_beta(self.mixup, count, generator) for _ in self._shares]
        return [order, flips, *moves, *chances, *views, *shares]

    def split(self, batch_size: int) -> Sequence[Tensor]:
        """The order in batches, (members, batch) each, which `shuffle` changes in place.

        Their sizes differ by one at most, so no batch has a single example, on which batch normalisation has no
        variance.
        """
        return self.order.tensor_split(steps_per_epoch(len(self.data.train), batch_size), dim=-1)

    def batch(self, index: Tensor) -> Batch:
        """These rows of the training part, as this epoch shows them."""
        images = rows_of(self.data.train.images, index)
        view = torch.zeros_like(index)
        if self.augment in ("flip", "crop", *_RESIZING):
            flipped = self._flips.gather(-1, index)
            images, view = torch.where(flipped[..., None, None, None], images.flip(-1), images), flipped.long()
        for views in self._views:
            view = views.gather(-1, index)
            images = _windows(images, 1, 1, *self._shown[:, view])
        if self.augment in _MOVING:
            images = shift(images, *(move.gather(-1, index) for move in self._moves))
        if self._chances:
            chances = torch.stack([chance.gather(-1, index).flatten() for chance in self._chances])
            views = resized_crop(images.flatten(0, -4).float(), *chances[:4])
            if len(chances) > 4:
                views = jitter(views, *chances[4:])
            images = views.round_().to(torch.uint8).view_as(images)  # bytes, as without augmentation
        normalised = normalise(images, self.data.mean, self.data.std, len(self.data.shape))
        batch = Batch(index, view, normalised, rows_of(self.data.train.labels, index))
        for shares in self._shares:
            batch = _mix(batch, shares.gather(-1, index[..., :1]).squeeze(-1))
        return batch


def rows_of(tensor: Tensor, index: Tensor) -> Tensor:
    """`tensor[index]`, which on a CPU copies element by element: 17 times as slow for 256 images."""
    return tensor.index_select(0, index.flatten()).unflatten(0, index.shape)


def _beta(parameter: float, count: int, generator: torch.Generator) -> Tensor:
    """Numbers from Beta(parameter, parameter), (count,), float32. NumPy's are numbers for small parameters, too."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(parameter, parameter, count)).float()


def _mix(batch: Batch, share: Tensor) -> Batch:
    """A batch whose images are mixed with those of their partners, see `Mixed`."""
    own = share.view(*batch.index.shape[:-1], *[1] * (batch.images.dim() - share.dim()))
    images = own * batch.images + (1 - own) * batch.images.roll(1, batch.index.dim() - 1)
    return replace(batch, images=images, mixed=Mixed(share, batch.labels.roll(1, -1)))


def view_of(images: Tensor, augment: str, number: int) -> Tensor:
    """One of the `VIEWS` of images, (…, channels, height, width): 0 is the images as they are.

    With `flip` 1 is mirrored. With `shift1` 1 to 4 are moved one pixel up, down, left and right; what comes in is
    black.
    """
    if number == 0:
        return images
    if augment == "flip":
        return images.flip(-1)
    height, width = images.shape[-2:]
    down, across = _SHIFT1[number]
    return F.pad(images, (1, 1, 1, 1))[..., down : down + height, across : across + width]


def _shifts(images: Tensor) -> tuple[int, int]:
    """Pixels by which images, (…, height, width), are moved at most: an eighth of their side."""
    height, width = images.shape[-2:]
    return max(1, height // 8), max(1, width // 8)


def shift(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Move each image by its own number of pixels; what comes in is black.

    Args:
        images: (…, channels, height, width).
        down, across: from 0, as far up (to the left) as images go, to twice an eighth of the side, (…), int64.
    """
    return _windows(images, *_shifts(images), down, across)


def _windows(images: Tensor, most_down: int, most_across: int, down: Tensor, across: Tensor) -> Tensor:
    """Of each image, with so many black pixels more on every side, the part of its size that begins there.

    Args:
        images: (…, channels, height, width).
        down, across: first row and column of the part, (…), int64.
    """
    padded = F.pad(images, (most_across, most_across, most_down, most_down)).flatten(0, -4)
    height, width = images.shape[-2:]
    count, channels, rows, columns = padded.shape
    # Line by line: as many pixels from any place are one row of an overlapping view.
    device = images.device
    plane = torch.arange(count * channels, device=device).view(count, channels, 1) * rows
    line = plane + torch.arange(height, device=device) + down.view(-1, 1, 1)
    start = line * columns + across.view(-1, 1, 1)
    lines = padded.flatten().unfold(0, width, 1)
    return lines.index_select(0, start.flatten()).view_as(images)


def resized_crop(images: Tensor, area: Tensor, ratio: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Show a random rectangle of each image, enlarged to the whole size (bilinear).

    The rectangle has 35 to 100 % of the area, and a width ÷ height from 3/4 to 4/3, cut to the image where it would be
    larger. Reference: Szegedy et al. 2015, sec. 6, https://arxiv.org/abs/1409.4842, with a larger least area.

    Args:
        images: (n, channels, height, width), float32.
        area, ratio, down, across: chances from 0 to 1, (n,), of the area, the ratio, and the place.
    """
    height, width = images.shape[-2:]
    share = LEAST_AREA + (1 - LEAST_AREA) * area
    stretch = RATIO ** (2 * ratio - 1)
    # Sides of the rectangle as shares of the image's.
    wide = (share * stretch * height / width).sqrt().clamp(max=1)
    high = (share / stretch * width / height).sqrt().clamp(max=1)
    columns = _centres(width, images.device) * wide[:, None] + ((2 * across - 1) * (1 - wide))[:, None]
    rows = _centres(height, images.device) * high[:, None] + ((2 * down - 1) * (1 - high))[:, None]
    shape = (len(images), height, width)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _centres(count: int, device: torch.device) -> Tensor:
    """Of so many pixels in a row, from −1 to 1, which are the outer edges."""
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation, each by a factor from 0.6 to 1.4.

    Args:
        images: (n, channels, height, width), float32, 0 to 255, as what is returned.
        brightness, contrast, saturation: chances from 0 to 1, (n,). Only colours have a saturation.
    """
    light, contrasting, colourful = (
        (1 + JITTER * (2 * chance - 1))[:, None, None, None] for chance in (brightness, contrast, saturation)
    )
    images = (images * light).clamp_(max=255)
    mean = _grey(images).mean(dim=(-2, -1), keepdim=True)
    images = (mean + (images - mean) * contrasting).clamp_(0, 255)
    if images.shape[1] == 1:
        return images
    grey = _grey(images)
    return (grey + (images - grey) * colourful).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luminance (ITU-R BT.601) of colours, the mean of other channels: (n, 1, height, width)."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
