"""Knowledge distillation: Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study import models
from study.cache import LOGITS, Shared
from study.data import Part, Splits
from study.training import Progress, evaluate, logits, logits_of, train
from study.views import SHIFTING, Batch

Report = Callable[[dict[str, Any]], None]


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
class Training:
    """How one network is trained: what both the teacher and the student need to know.

    Attributes:
        network, options: as `models.build` takes them.
        learning_rate: peak rate of Adam with decoupled weight decay; it falls to zero along half a cosine.
        augment: one of `views.AUGMENTATIONS`.
        precision: as `training.logits` takes it.
    """

    network: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    augment: str = "none"
    seed: int = 0
    precision: str | None = None


@dataclass(frozen=True)
class Hparams:
    """One distillation trial: the searched values, and the student's training.

    Attributes:
        temperature, alpha: see `distillation_loss`.
        label_smoothing: of the hard term; a baseline uses it, the search leaves it at 0.
    """

    student: Training
    alpha: float
    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 <= self.alpha <= 1):
            raise ValueError(f"temperature {self.temperature} must be above 0, and alpha {self.alpha} within 0 and 1")
        if self.alpha and self.label_smoothing:
            raise ValueError("label smoothing is a baseline without a teacher: alpha must be 0")


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


_SEEDING = threading.Lock()
"""The host's sequence of random numbers is one for all threads."""


def build(training: Training, data: Splits) -> nn.Module:
    """The network, initialised from the seed, on the data's device."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = models.build(training.network, data.shape, len(data.classes), **training.options)
    # Channels last: a step of LeNet-5 takes two thirds of the time on a CPU, and tensor cores want it on a GPU.
    return model.to(data.train.images.device).to(memory_format=torch.channels_last)


def fit(
    hparams: Hparams, data: Splits, targets: Targets, on_epoch: Report, progress: Progress | None = None
) -> nn.Module:
    """Train one student under `distillation_loss` and report every epoch.

    Args:
        targets: may be empty (`Targets()`) when alpha is 0.
        progress: of a trial that was stopped, to go on from.
    Returns: the student after its last epoch.
    Raises:
        TrialFailed: the loss is not a finite number.
    """
    student = hparams.student
    loss = accuracy_loss(targets, hparams.temperature, hparams.alpha, hparams.label_smoothing, student.precision)
    return _train(student, data, loss, on_epoch, progress)


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


def fit_teacher(training: Training, data: Splits, on_epoch: Report, progress: Progress | None = None) -> nn.Module:
    """Train a network on the labels alone, and report every epoch."""
    return _train(training, data, accuracy_loss(Targets(), 1.0, 0.0, precision=training.precision), on_epoch, progress)


def _train(
    training: Training,
    data: Splits,
    loss: Callable[[nn.Module, Batch], Tensor],
    on_epoch: Report,
    progress: Progress | None,
) -> nn.Module:
    model = build(training, data)

    def after_epoch(epoch: int, train_loss: float) -> None:
        score = evaluate(model, data.validation, data)
        on_epoch(
            {
                "epoch": epoch,
                "phase": "train",
                "train_loss": train_loss,
                "val_loss": score.loss,
                "val_accuracy": score.accuracy,
            }
        )

    train(
        model,
        data,
        loss,
        torch.optim.AdamW(model.parameters(), training.learning_rate, weight_decay=training.weight_decay, fused=True),
        epochs=training.epochs,
        batch_size=training.batch_size,
        generator=torch.Generator().manual_seed(training.seed),
        augment=training.augment,
        after_epoch=after_epoch,
        progress=progress,
    )
    return model


def teacher_logits(teacher: nn.Module, part: Part, data: Splits, augment: str) -> Tensor:
    """Logits of a part as it is and, unless `augment` is "none", mirrored: (views, examples, classes)."""
    views = [part.images] if augment == "none" else [part.images, part.images.flip(-1)]
    return torch.stack([logits_of(teacher, images, data) for images in views])


def kept_logits(teacher: nn.Module, part: Part, data: Splits, augment: str) -> dict[str, np.ndarray]:
    """Those that `targets_from` reads, to be kept beside the weights: none where the teacher is asked in every step."""
    return {} if augment in SHIFTING else {LOGITS: teacher_logits(teacher, part, data, augment).cpu().numpy()}


def targets_from(shared: Shared, teacher: Training, data: Splits, augment: str) -> Targets:
    """The teacher's weights and its logits, as its own trial left them, on the data's device and ready for `fit`."""
    if augment in SHIFTING:
        return Targets(teacher=load(shared.weights().tensors(), teacher, data).eval().requires_grad_(False))
    return Targets(logits=shared.tensors()[LOGITS].to(data.train.images.device))


EXAMPLES_ASKED = 500
"""Validation images that the teacher is asked about for `dark_knowledge`: a host without a GPU takes seconds."""


def dark_knowledge(teacher: nn.Module, data: Splits) -> dict[str, np.ndarray]:
    """What a teacher says of one validation image of each class (Hinton et al. 2015, sec. 1), to be looked at.

    Of each class the image that the teacher gets right with the smallest lead over the next class, since it says the
    most; the first one where it gets none right.

    Returns: `images` (classes, channels, height, width), uint8; `labels` (classes,); `logits` (classes, classes).
    """
    of_each = max(1, EXAMPLES_ASKED // len(data.classes))  # those of a folder come class by class
    rows = [(data.validation.labels == label).nonzero().flatten()[:of_each] for label in range(len(data.classes))]
    chosen = torch.cat(rows).sort().values
    images, labels = data.validation.images[chosen], data.validation.labels[chosen]
    logits = logits_of(teacher, images, data)
    best = logits.topk(2, dim=1)
    lead = best.values[:, 0] - best.values[:, 1]
    lead = torch.where(best.indices[:, 0] == labels, lead, torch.inf)
    asked = [(labels == label).nonzero().flatten() for label in labels.unique()]
    chosen = torch.stack([rows[lead[rows].argmin()] for rows in asked])
    found = {"images": images[chosen], "labels": labels[chosen], "logits": logits[chosen]}
    return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def state_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """The state dict as NumPy arrays, on the host."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def load(state: Mapping[str, Tensor], training: Training, data: Splits) -> nn.Module:
    """The network with these weights, on the data's device.

    Raises:
        RuntimeError: the weights are not this network's.
    """
    model = build(training, data)
    model.load_state_dict(state)
    return model
