"""Knowledge distillation: Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.models.registry import parameter_count
from study.training.distillation import LossHparams, Targets, accuracy_loss
from study.training.loop import Report, logits_of
from study.training.network import Training, is_listed, train_network, width_option
from study.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Hparams(LossHparams, Recipe):
    """One distillation trial: the loss, the student network, and its training, with the fields of its recipe.

    Attributes:
        loss, temperature, alpha, dkd_beta, dist_gamma: see `LossHparams`.
        student: name of the network, as `models.build` takes it.
        student_width: multiplies the student's channels (VGG kinds).
        epochs, batch_size, learning_rate, weight_decay, augment, seed, precision: see `Training`.
        contiguous: the setting of this name.
    """

    student: str
    student_width: float = 1.0
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    augment: str = "none"
    seed: int = 0
    precision: str | None = None
    contiguous: str | None = None

    def __post_init__(self) -> None:
        LossHparams.__post_init__(self)
        Recipe.__post_init__(self)
        self.check_length(self.epochs)
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be above 0")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha {self.alpha} must be between 0 and 1")
        if self.mixup and self.loss == "dkd":
            raise ValueError("loss dkd needs the label of each image, which mixup does not leave")

    @property
    def training(self) -> Training:
        """What `fit_student` trains."""
        return Training(
            network=self.student,
            options=width_option(self.student_width),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            augment=self.augment,
            seed=self.seed,
            precision=self.precision,
            recipe=Recipe.part_of(self),
            contiguous=is_listed(self.student, self.contiguous),
        )


def fit_student(
    hparams: Hparams,
    data: Splits,
    targets: Targets,
    on_epoch: Report,
    progress: Progress | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Train one student under `distillation_loss` and report every epoch.

    Args:
        targets: may be empty (`Targets()`) when alpha is 0.
        progress: of a trial that was stopped, to go on from.
        initial: weights that the student starts from; see `start_network`.
    Returns: the student after its last epoch, see `train_network`.
    Raises:
        TrialFailed: the loss is not a finite number.
    """
    loss = accuracy_loss(
        targets, hparams.temperature, hparams.alpha, hparams.label_smoothing, hparams.precision, soft=hparams.soft_term
    )
    return train_network(hparams.training, data, loss, on_epoch, progress, initial)


SIZES = ("parameters", "weight_bytes")


def sizes(model: nn.Module) -> dict[str, int]:
    """Metrics of size of a network that is not compressed: a student's, for fronts over its architecture."""
    count = parameter_count(model)
    return dict(zip(SIZES, (count, 4 * count), strict=True))


EXAMPLES_ASKED = 500
"""Validation images that `dark_knowledge` chooses from: a host without a GPU takes seconds for them."""


def dark_knowledge(teacher: nn.Module, data: Splits) -> dict[str, np.ndarray]:
    """A teacher's logits of one validation image of each class (Hinton et al. 2015, sec. 1), for a figure.

    Of each class the image that the teacher gets right with the smallest lead over the next class, since its logits say
    the most; the first image where it gets none right.

    Returns: `images` (classes, channels, height, width), uint8; `labels` (classes,); `logits` (classes, classes);
        nothing for data that cannot be shown as grey or colour images.
    """
    if not data.has_images or data.shape[0] not in (1, 3):
        return {}
    of_each = max(1, EXAMPLES_ASKED // len(data.classes))  # those of a folder come class by class
    rows = [(data.validation.labels == label).nonzero().flatten()[:of_each] for label in range(len(data.classes))]
    chosen = torch.cat(rows).sort().values
    images, labels = data.validation.images[chosen], data.validation.labels[chosen]
    logits = logits_of(teacher, images, data)
    best = logits.topk(2, dim=1)
    lead = best.values[:, 0] - best.values[:, 1]
    lead = torch.where(best.indices[:, 0] == labels, lead, torch.inf)
    of_class = [(labels == label).nonzero().flatten() for label in labels.unique()]
    chosen = torch.stack([rows[lead[rows].argmin()] for rows in of_class])
    shown = {"images": images[chosen], "labels": labels[chosen], "logits": logits[chosen]}
    return {name: tensor.cpu().numpy() for name, tensor in shown.items()}
