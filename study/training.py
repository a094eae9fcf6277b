"""The one training loop, and `evaluate`. It knows no tuner, no method and no data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.data import Part, Splits, normalise
from study.errors import TrialFailed

AUGMENTATIONS = ("none", "flip", "crop")
"""`flip` mirrors half of the images; `crop` shifts them by up to an eighth of their side as well."""


@dataclass(frozen=True)
class Batch:
    """One step's examples, on the training device.

    Attributes:
        index: rows of the training part, (batch,), int64.
        flipped: which of them are mirrored, (batch,), bool.
        images: normalised and augmented, (batch, channels, height, width), float32.
        labels: (batch,), int64.
    """

    index: Tensor
    flipped: Tensor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Score:
    """`loss` is the mean cross-entropy in nats per example, `accuracy` a percentage."""

    loss: float
    accuracy: float


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in one epoch, each of two examples or more."""
    return max(1, min(math.ceil(examples / batch_size), examples // 2))


def batches(data: Splits, batch_size: int, augment: str, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch over the training part in a fresh order.

    Batch sizes differ by one at most, so that no batch is left over with a single example, on which batch
    normalisation has no variance.
    """
    train = data.train
    device = train.images.device
    order = torch.randperm(len(train), generator=generator).to(device)
    flips = torch.rand(len(train), generator=generator).lt(0.5).to(device)
    for index in order.tensor_split(steps_per_epoch(len(train), batch_size)):
        images = train.images[index]
        flipped = flips[index] if augment != "none" else torch.zeros_like(index, dtype=torch.bool)
        if augment != "none":
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        if augment == "crop":
            images = _shift(images, generator)
        yield Batch(index, flipped, normalise(images, data.mean, data.std), train.labels[index])


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by its own whole number of pixels, up to an eighth of its side; what comes in is black."""
    n, _, height, width = images.shape
    down, across = max(1, height // 8), max(1, width // 8)
    padded = F.pad(images, (across, across, down, down))
    dy = torch.randint(0, 2 * down + 1, (n,), generator=generator).to(images.device)
    dx = torch.randint(0, 2 * across + 1, (n,), generator=generator).to(images.device)
    rows = (dy[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    example = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[example, channel, rows, columns]


def train(
    model: nn.Module,
    data: Splits,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    augment: str = "none",
    after_epoch: Callable[[int, float], None],
) -> None:
    """Minimise `loss` for `epochs`, every learning rate falling to zero along half a cosine.

    Args:
        loss: of a model and a batch; scalar, nats per example.
        after_epoch: is given the epoch's number, from 1, and its mean training loss.
    Raises:
        TrialFailed: the training loss of an epoch is not a finite number.
    """
    steps = epochs * steps_per_epoch(len(data.train), batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, steps))
    for epoch in range(1, epochs + 1):
        model.train()
        total = torch.zeros((), device=data.train.images.device)
        for batch in batches(data, batch_size, augment, generator):
            value = loss(model, batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            schedule.step()
            total += value.detach() * len(batch.index)
        mean = float(total) / len(data.train)
        if not math.isfinite(mean):
            raise TrialFailed(f"the training loss became {mean} in epoch {epoch}")
        after_epoch(epoch, mean)


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor, data: Splits, batch_size: int = 512) -> Tensor:
    """Logits in evaluation mode of uint8 images, (n, channels, height, width) → (n, classes)."""
    model.eval()
    return torch.cat([model(normalise(x, data.mean, data.std)) for x in images.split(batch_size)])


def evaluate(model: nn.Module, part: Part, data: Splits) -> Score:
    """Score a model on a part, which lies on the model's device and is normalised as the training part is."""
    logits = logits_of(model, part.images, data)
    loss = float(F.cross_entropy(logits, part.labels))
    return Score(loss, 100.0 * float((logits.argmax(dim=1) == part.labels).double().mean()))
