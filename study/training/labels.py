"""What a network is trained on by its labels: cross-entropy, smoothed or of mixed images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from study.training.batches import Batch


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each member: (batch, classes) or (members, batch, classes) → scalar or (members,), in nats."""
    if logits.dim() == 2:  # apart, since `mean` rounds otherwise than the loss itself
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    examples = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return examples.view(labels.shape).mean(dim=-1)


def label_loss(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of a batch. Where its images are mixed: λ times that of their own labels, plus 1 − λ times that of
    their partners'. Reference: Zhang et al. (2018), sec. 2, https://arxiv.org/abs/1710.09412.

    Args:
        logits: (batch, classes) or (members, batch, classes).
        label_smoothing: share of the target that goes to all classes alike, in [0, 1).
    Returns: nats per example, scalar or (members,).
    """
    own = cross_entropy(logits, batch.labels, label_smoothing)
    if batch.mixed is None:
        return own
    other = cross_entropy(logits, batch.mixed.labels, label_smoothing)
    return batch.mixed.share * own + (1 - batch.mixed.share) * other
