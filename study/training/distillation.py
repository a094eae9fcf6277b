"""Knowledge distillation's loss and targets: Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.cache import LOGITS, SharedWork
from study.data.splits import Part, Splits
from study.training.batches import SHIFTING, Batch
from study.training.loop import logits_of
from study.training.network import Training, load_network
from study.training.precision import logits


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """Soft-target loss of Hinton et al. (2015), sec. 2.

    α T² KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − α) cross-entropy(student, labels).

    Args:
        student, teacher: logits, (batch, classes).
        labels: class ids, (batch,), int64.
        temperature: T > 0. The soft term carries T², so its gradient keeps its size as T varies.
        alpha: weight of the soft term, in [0, 1]; 0 is plain cross-entropy.
    Returns: scalar, nats per example.
    """
    log_q = F.log_softmax(student / temperature, dim=1)
    log_p = F.log_softmax(teacher / temperature, dim=1)
    soft = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student, labels)


@dataclass(frozen=True)
class Targets:
    """The teacher as its student sees it: logits computed once, or the network itself.

    Attributes:
        logits: (views, examples, classes); view 0 is the image as it is, view 1, if there is one, its mirror image.
        teacher: runs on every batch instead, where augmentation makes too many views to keep.
    """

    logits: Tensor | None = None
    teacher: nn.Module | None = None

    def of(self, batch: Batch, precision: str | None = None) -> Tensor:
        """Teacher logits of exactly the views in the batch, (batch, classes)."""
        if self.logits is not None:
            return self.logits[batch.flipped.long(), batch.index]
        assert self.teacher is not None
        with torch.no_grad():
            return logits(self.teacher, batch.images, precision)


def accuracy_loss(
    targets: Targets, temperature: float, alpha: float, label_smoothing: float = 0.0, precision: str | None = None
) -> Callable[[nn.Module, Batch], Tensor]:
    """`distillation_loss` of a model on a batch, or cross-entropy where alpha is 0."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        student = logits(model, batch.images, precision)
        if alpha == 0:  # the teacher's term is exactly zero: do not ask it
            return F.cross_entropy(student, batch.labels, label_smoothing=label_smoothing)
        return distillation_loss(student, targets.of(batch, precision), batch.labels, temperature, alpha)

    return loss


def views_of(augment: str) -> int:
    """How many views of an image have logits of their own: the image as it is and, unless "none", mirrored."""
    return 1 if augment == "none" else 2


def teacher_logits(teacher: nn.Module, part: Part, data: Splits, augment: str) -> Tensor:
    """Logits of a part in each of `views_of`: (views, examples, classes)."""
    views = [part.images] if views_of(augment) == 1 else [part.images, part.images.flip(-1)]
    return torch.stack([logits_of(teacher, images, data) for images in views])


def stored_logits(teacher: nn.Module, part: Part, data: Splits, augment: str) -> dict[str, np.ndarray]:
    """The logits that `targets_from` reads, to store with the weights; none if the teacher is asked in every step."""
    return {} if augment in SHIFTING else {LOGITS: teacher_logits(teacher, part, data, augment).cpu().numpy()}


def targets_from(shared: SharedWork, teacher: Training, data: Splits, augment: str) -> Targets:
    """The stored logits of a trained teacher, or the teacher itself where they lack a view that `augment` makes.

    Args:
        shared: the teacher's weights and, unless it was trained to be asked in every step, its logits.
        teacher: what the weights are of.
        augment: of the student's training; the teacher's own may differ.
    Returns: on the data's device. A teacher is in evaluation mode, its weights frozen.
    """
    stored = shared.arrays.get(LOGITS)
    if augment not in SHIFTING and stored is not None and len(stored) >= views_of(augment):
        return Targets(logits=shared.tensors()[LOGITS].to(data.train.images.device))
    return Targets(teacher=load_network(shared.weights().tensors(), teacher, data).eval().requires_grad_(False))
