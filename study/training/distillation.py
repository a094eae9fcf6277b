"""Knowledge distillation's loss and targets: Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from study.artifacts.cache import LOGITS, SharedWork
from study.data.splits import Part, Splits
from study.training.batches import SHIFTING, VIEWS, Batch, rows_of, view_of
from study.training.distillation_losses import SOFT_TERMS, SoftTerm
from study.training.labels import cross_entropy, label_loss
from study.training.loop import Loss, logits_of
from study.training.network import Training, load_network
from study.training.precision import logits


@dataclass(frozen=True, kw_only=True)
class LossHparams:
    """Hyperparameters of the loss of every network that a teacher may teach.

    Attributes:
        loss: what the student matches of the teacher's logits, one of `SOFT_TERMS`.
        temperature, alpha: see `distillation_loss`.
        dkd_beta: of loss dkd, at least 0: weight of the classes other than the label; see `decoupled`. 8 is the default
            of the authors' code; 6 is theirs for VGG-13 and VGG-8, and 2 for ResNet-56 and ResNet-20.
        dist_gamma: of loss dist, at least 0: weight of the correlation within a class; see `correlated`. 1 is that of
            the authors' code.
    """

    loss: str = "kd"
    temperature: float = 1.0
    alpha: float
    dkd_beta: float = 8.0
    dist_gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in SOFT_TERMS:
            raise ValueError(f"loss {self.loss!r} must be one of {', '.join(SOFT_TERMS)}")
        for name in ("dkd_beta", "dist_gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 0")

    @property
    def soft_term(self) -> SoftTerm:
        """What `accuracy_loss` takes."""
        return SOFT_TERMS[self.loss].with_options(vars(self))


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
    alpha: float | Tensor,
    soft: SoftTerm = SOFT_TERMS["kd"],
    hard: Tensor | None = None,
) -> Tensor:
    """α · soft term + (1 − α) cross-entropy(student, labels).

    By default Hinton et al. (2015), sec. 2: T² KL(softmax(teacher / T) ‖ softmax(student / T)).

    Args:
        student, teacher: logits, (batch, classes); or (members, batch, classes), of several students.
        labels: class ids, (batch,) or (members, batch), int64.
        temperature: T > 0, a number or (members,). The soft term carries the power of T with which its gradient keeps
            its size as T varies: T² where the student's logits are divided by T, too.
        alpha: weight of the soft term, in [0, 1], a number or (members,); 0 is plain cross-entropy.
        soft: the soft term, one of `distillation_losses.SOFT_TERMS`.
        hard: the labels' term, scalar or (members,), where it is another than plain cross-entropy.
    Returns: nats per example, scalar or (members,).
    """
    hard = cross_entropy(student, labels) if hard is None else hard
    return alpha * temperature**soft.power * soft.of(student, teacher, labels, temperature) + (1 - alpha) * hard


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
            return rows_of(self.logits.flatten(0, 1), batch.view * self.logits.shape[1] + batch.index)
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
    soft: SoftTerm = SOFT_TERMS["kd"],
) -> Loss:
    """`distillation_loss` of a model on a batch, or cross-entropy where alpha is 0.

    Args:
        temperature, alpha: numbers or (members,), as `distillation_loss` takes them.
        label_smoothing: of the labels' term, see `label_loss`.
        student_logits: of the model and the batch's images; `precision.logits` if none.
        soft: as `distillation_loss` takes it.
    """
    of_student = student_logits or partial(logits, precision=precision)
    taught = bool((torch.as_tensor(alpha) != 0).any())

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        student = of_student(model, batch.images)
        hard = label_loss(student, batch, label_smoothing)
        if not taught:  # the teacher's term is exactly zero: do not ask it
            return hard
        return distillation_loss(student, targets.of(batch, precision), batch.labels, temperature, alpha, soft, hard)

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
