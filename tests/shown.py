"""What an epoch shows, for tests that look at every batch of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from study.data.splits import Splits
from study.training.batches import Batch, EpochBatches


def batches(data: Splits, batch_size: int, augment: str, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch over the training part in a fresh order."""
    views = EpochBatches(data, augment)
    views.shuffle(generator)
    return (views.batch(index) for index in views.split(batch_size))
