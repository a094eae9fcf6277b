"""Knowledge distillation's loss and targets: Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.cache import LOGITS, SharedWork
from study.data.splits import Part, Splits
from study.training.batches import SHIFTING, VIEWS, Batch, view_of
from study.training.labels import cross_entropy, label_loss
from study.training.loop import Loss, logits_of
from study.training.network import Training, load_network
from study.training.precision import logits


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
    alpha: float | Tensor,
    hard: Tensor | None = None,
) -> Tensor:
    """Soft-target loss of Hinton et al. (2015), sec. 2.

    α T² KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − α) cross-entropy(student, labels).

    Args:
        student, teacher: logits, (batch, classes); or (members, batch, classes), of several students.
        labels: class ids, (batch,) or (members, batch), int64.
        temperature: T > 0, a number or (members,). The soft term carries T², so its gradient keeps its size as T
            varies.
        alpha: weight of the soft term, in [0, 1], a number or (members,); 0 is plain cross-entropy.
        hard: the labels' term, scalar or (members,), where it is another than plain cross-entropy.
    Returns: nats per example, scalar or (members,).
    """
    divisor = temperature[..., None, None] if isinstance(temperature, Tensor) else temperature
    log_q = F.log_softmax(student / divisor, dim=-1)
    log_p = F.log_softmax(teacher / divisor, dim=-1)
    hard = cross_entropy(student, labels) if hard is None else hard
    return alpha * temperature**2 * divergence(log_q, log_p) + (1 - alpha) * hard


def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(p ‖ q) of each member: (batch, classes) or (members, batch, classes) → scalar or (members,), in nats."""
    if log_q.dim() == 2:  # apart, since one call is faster than two
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=(-2, -1)) / log_q.shape[-2]


@dataclass(frozen=True)
class Targets:
    """The teacher as its student sees it: logits computed once, or the network itself.

    Attributes:
        logits: (views, examples, classes), with the views of `batches.view_of`; view 0 is the image as it is.
        teacher: runs on every batch instead, where augmentation makes too many views to store.
    """

    logits: Tensor | None = None
    teacher: nn.Module | None = None

    def of(self, batch: Batch, precision: str | None = None) -> Tensor:
        """Teacher logits of exactly the views in the batch, (batch, classes) or (members, batch, classes)."""
        if self.logits is not None:
            assert batch.mixed is None, "stored logits are of images as they are"
            return self.logits[batch.view, batch.index]
        assert self.teacher is not None
        with torch.no_grad():
            answers = logits(self.teacher, batch.images.flatten(0, -4), precision)
        return answers.unflatten(0, batch.labels.shape)


def accuracy_loss(
    targets: Targets,
    temperature: float | Tensor,
    alpha: float | Tensor,
    label_smoothing: float = 0.0,
    precision: str | None = None,
    student_logits: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> Loss:
    """`distillation_loss` of a model on a batch, or cross-entropy where alpha is 0.

    Args:
        temperature, alpha: numbers or (members,), as `distillation_loss` takes them.
        label_smoothing: of the labels' term, see `label_loss`.
        student_logits: of the model and the batch's images; `precision.logits` if none.
    """
    of_student = student_logits or partial(logits, precision=precision)
    taught = bool((torch.as_tensor(alpha) != 0).any())

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        student = of_student(model, batch.images)
        hard = label_loss(student, batch, label_smoothing)
        if not taught:  # the teacher's term is exactly zero: do not ask it
            return hard
        return distillation_loss(student, targets.of(batch, precision), batch.labels, temperature, alpha, hard)

    return loss


def teacher_logits(teacher: nn.Module, part: Part, data: Splits, augment: str) -> Tensor:
    """Logits of a part in each of the augmentation's `VIEWS`: (views, examples, classes)."""
    views = [logits_of(teacher, part.images, data)]
    for number in range(1, VIEWS[augment]):  # in pieces: the images may be mapped from a file, and not fit in memory
        shown = (view_of(chunk, augment, number) for chunk in part.images.split(2**14))
        views.append(torch.cat([logits_of(teacher, images, data) for images in shown]))
    return torch.stack(views)


def stored_logits(teacher: nn.Module, part: Part, data: Splits, augment: str) -> dict[str, np.ndarray]:
    """The logits that `targets_from` reads, to store with the weights; none if the teacher is asked in every step."""
    return {} if augment in SHIFTING else {LOGITS: teacher_logits(teacher, part, data, augment).cpu().numpy()}


def targets_from(shared: SharedWork, teacher: Training, data: Splits, augment: str, mixup: float = 0.0) -> Targets:
    """The stored logits of a trained teacher, or the teacher itself where they lack a view that `augment` makes, or
    where images are mixed: then both networks see the same mixed image (Beyer et al. 2022, sec. 3,
    https://arxiv.org/abs/2106.05237).

    Args:
        shared: the teacher's weights and, unless it was trained to be asked in every step, its logits.
        teacher: what the weights are of.
        augment, mixup: of the student's training; the teacher's own may differ.
    Returns: on the data's device. A teacher is in evaluation mode, its weights frozen.
    """
    stored = shared.arrays.get(LOGITS)
    # Every augmentation has the image as it is as view 0; further views are those of one augmentation alone.
    stored_views = augment not in SHIFTING and not mixup
    if stored_views and stored is not None and VIEWS[augment] in (1, len(stored)):
        return Targets(logits=shared.tensors()[LOGITS].to(data.train.images.device))
    return Targets(teacher=load_network(shared.weights().tensors(), teacher, data).eval().requires_grad_(False))
