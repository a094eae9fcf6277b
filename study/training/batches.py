"""Batches of a training step: the training part in an epoch's order, augmented on the device where it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from study.data.images import normalise
from study.data.splits import Splits

AUGMENTATIONS = ("none", "flip", "shift", "crop")
"""`flip` mirrors half of the images; `shift` moves each by up to an eighth of its side; `crop` does both."""

SHIFTING = ("shift", "crop")
"""Augmentations that make too many views of an image to store a teacher's logits of each."""


@dataclass(frozen=True)
class Batch:
    """One step's examples, on the training device.

    Attributes:
        index: rows of the training part, (batch,), int64.
        flipped: which of them are mirrored, (batch,), bool.
        images: normalised and augmented, (batch, channels, height, width), float32.
        labels: (batch,), int64.

    Of networks that are trained together (`study.methods.sws.packed`) all have one more axis in front,
    (members, batch, …).
    """

    index: Tensor
    flipped: Tensor
    images: Tensor
    labels: Tensor


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in one epoch, each of two examples or more."""
    return max(1, min(math.ceil(examples / batch_size), examples // 2))


class EpochBatches:
    """The training part as an epoch shows it: its order, and what augmentation does to each example.

    Everything is on the data's device and stays in place from epoch to epoch, as a recorded step needs it.

    Args:
        members: networks that are trained together, each with its own order; 0 for one alone, without that axis.
    """

    def __init__(self, data: Splits, augment: str, members: int = 0) -> None:
        self.data, self.augment = data, augment
        shape = ((members,) if members else ()) + (len(data.train),)
        device = data.train.images.device
        self.order = torch.zeros(shape, dtype=torch.int64, device=device)
        self._flips = torch.zeros(shape, dtype=torch.bool, device=device)
        self._moves = [torch.zeros_like(self.order) for _ in range(2 if augment in SHIFTING else 0)]
        self._places = [self.order, self._flips, *self._moves]

    def shuffle(self, *generators: torch.Generator) -> None:
        """Draw an epoch on the host, where every device gets the same; one generator a member."""
        epoch = zip(*map(self._draw, generators), strict=True)
        for place, tensors in zip(self._places, epoch, strict=True):
            place.copy_(torch.stack(tensors).view_as(place))

    def _draw(self, generator: torch.Generator) -> list[Tensor]:
        count = len(self.data.train)
        order = torch.randperm(count, generator=generator)
        flips = torch.rand(count, generator=generator).lt(0.5)
        shifts = _shifts(self.data.train.images) if self.augment in SHIFTING else ()
        return [order, flips, *(torch.randint(0, 2 * most + 1, (count,), generator=generator) for most in shifts)]

    def split(self, batch_size: int) -> Sequence[Tensor]:
        """The order in batches, (members, batch) each, which `shuffle` changes in place.

        Their sizes differ by one at most, so no batch has a single example, on which batch normalisation has no
        variance.
        """
        return self.order.tensor_split(steps_per_epoch(len(self.data.train), batch_size), dim=-1)

    def batch(self, index: Tensor) -> Batch:
        """These rows of the training part, as this epoch shows them."""
        images = self.data.train.images[index]
        flipped = torch.zeros_like(index, dtype=torch.bool)
        if self.augment in ("flip", "crop"):
            flipped = self._flips.gather(-1, index)
            images = torch.where(flipped[..., None, None, None], images.flip(-1), images)
        if self.augment in SHIFTING:
            images = shift(images, *(move.gather(-1, index) for move in self._moves))
        return Batch(index, flipped, normalise(images, self.data.mean, self.data.std), self.data.train.labels[index])


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
    most_down, most_across = _shifts(images)
    *lead, channels, height, width = images.shape
    padded = F.pad(images, (most_across, most_across, most_down, most_down)).flatten(0, -4)
    device = images.device
    rows = (down.reshape(-1, 1) + torch.arange(height, device=device))[:, None, :, None]
    columns = (across.reshape(-1, 1) + torch.arange(width, device=device))[:, None, None, :]
    example = torch.arange(len(padded), device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[example, channel, rows, columns].view(*lead, channels, height, width)
