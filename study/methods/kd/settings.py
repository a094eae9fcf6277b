"""Flags of knowledge distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import tyro

from study.errors import UserError
from study.flag_marks import Common, Rare
from study.methods.common.settings import DistillationSettings, PackedResources, check_pack
from study.methods.common.training_settings import TeacherTrainingSettings
from study.path_arguments import File
from study.setting_bounds import AtLeast
from study.settings import Augment, Epochs, Rate, Values, Width

NOT_PACKABLE = ("clip_norm", "ema")
"""What students leave out while they are packed: a norm would be that of all members, and an average is of one
network."""


@dataclass(frozen=True)
class StudentSettings(TeacherTrainingSettings, DistillationSettings):
    """Settings of studies in which a teacher trains a smaller student."""

    epochs: Annotated[Epochs | None, Common(heading="Training")] = None
    """Epochs of each student. Default: 40 on digits, 75 on CIFAR, otherwise 20."""
    teacher: Annotated[str, Common(heading="Networks")] = "vgg13"
    """Teacher network, also of torchvision.models, or module:function. Names are vgg11/13/16/19, minivgg, lenet5,
    lenet_300_100, resnet20/32/56/110, and others for CIFAR, which study/README.md lists."""
    teacher_width: Annotated[Width | None, Common(heading="Networks")] = None
    """Multiplies its channels (VGG kinds alone). Default: 0.25 on digits, otherwise 1."""
    teacher_epochs: Annotated[Epochs | None, Common(heading="Training")] = None
    """Epochs of the teacher. Default: 20 on digits, 75 on CIFAR, otherwise 20."""
    teacher_checkpoint: Annotated[File | None, Common(heading="Networks")] = None
    """Weights of a trained teacher, instead of training one. A .safetensors file, or a state dict of torch.save; see
    --normalise."""
    student: Annotated[str, Common(heading="Networks")] = "minivgg"
    """Student network; names as for --teacher."""
    student_width: Annotated[Width | None, Common(heading="Networks")] = None
    """Multiplies its channels (VGG kinds alone). Default: 0.25 on digits, otherwise 1."""
    student_examples: Annotated[int | None, AtLeast(0), Common(heading="Data")] = None
    """Training images of each class that students see; 0 for all. Default: 10 on digits, otherwise all."""
    augment: Annotated[Augment | None, Common(heading="Training")] = None
    """How images are varied, as in flip, shift or crop. One of none, flip (mirror), shift1 (half of the images by one
    pixel), shift (by up to an eighth of the side), crop (flip and shift), resized-crop (mirror, and a random part
    enlarged) or resized-crop-jitter (and the colours, too). Of the first three the teacher's logits are stored; with
    the others it runs in every step. Default: flip on CIFAR, otherwise none."""
    batch_size: Annotated[int | None, AtLeast(1), Common(heading="Training")] = None
    """Images a step of a student. The teacher's are 64 at least. Default: 32 on digits, otherwise 128."""
    learning_rate: Annotated[Rate | None, Common("RATE", "Training")] = None
    """Peak rate, for teacher and students. Default: 2e-3; with sgd and nesterov 0.05. Where the optimizer is searched
    or fixed, each trial has the default of its own."""
    weight_decay: Annotated[float, AtLeast(0), Rare(heading="Training")] = 5e-4
    """Weight decay, for teacher and students: decoupled with adamw, otherwise added to the gradient."""

    OLDER: ClassVar[Values] = {**TeacherTrainingSettings.OLDER, **DistillationSettings.OLDER}
    ADAM_RATE: ClassVar[float] = 2e-3
    DEFAULTS: ClassVar[Mapping[str, Values]] = {
        "digits": {
            "epochs": 40,
            "teacher_width": 0.25,
            "teacher_epochs": 20,
            "student_width": 0.25,
            "student_examples": 10,
            "batch_size": 32,
        },
        "cifar10": {"epochs": 75, "teacher_epochs": 75, "augment": "flip"},
        "cifar100": {"epochs": 75, "teacher_epochs": 75, "augment": "flip"},
        "": {
            "scheduler": "asha",
            "epochs": 20,
            "teacher_width": 1.0,
            "teacher_epochs": 20,
            "student_width": 1.0,
            "student_examples": 0,
            "augment": "none",
            "batch_size": 128,
        },
    }

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: one line that names both flags.
        """
        super().check()
        if self.mixup and self.loss == "dkd":
            raise UserError(
                f"--mixup {self.mixup:g}: does not go with --loss dkd, which needs the label of each image; leave out "
                "one of the two"
            )

    def lengths(self) -> Mapping[str, int | None]:
        """See `TrainingSettings.lengths`."""
        return {"epochs": self.epochs, "teacher_epochs": None if self.no_teacher() else self.teacher_epochs}

    def teacher_decay(self) -> float:
        """See `TeacherTrainingSettings.teacher_decay`."""
        return self.weight_decay if self.teacher_weight_decay is None else self.teacher_weight_decay

    def no_teacher(self) -> str:
        """See `TeacherTrainingSettings.no_teacher`."""
        return "means nothing with --teacher-checkpoint, a teacher that is trained" if self.teacher_checkpoint else ""


@dataclass(frozen=True)
class KDSettings(StudentSettings):
    """Knowledge distillation: a teacher trains a smaller student; searches temperature and alpha.

    On digits a full-width MiniVGG reaches 99 % by itself, so the embedded default leaves something to find: a student
    of a quarter of the width that sees ten labelled images of each class, from a teacher that saw all of them (the
    setting of Hinton et al. 2015, sec. 4).
    """

    kind: Annotated[str, tyro.conf.Suppress] = "kd"

    resources: PackedResources = field(default_factory=PackedResources)

    def check(self) -> None:
        """Refuse what does not go together, and what cannot be packed.

        Raises:
            UserError: one line that names both flags.
        """
        super().check()
        check_pack(self, NOT_PACKABLE)


SETTINGS = KDSettings
