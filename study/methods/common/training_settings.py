"""Flags of ordinary training, which every kind of study has that trains a network; see `study.training.recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from study.errors import UserError
from study.flag_marks import Common, Heading, Rare
from study.records.search_domains import Value
from study.setting_bounds import AtLeast, BelowOne
from study.settings import Rate, Settings, Values, flag
from study.training.recipe import WITH_MOMENTUM, Optimizer, Recipe, Schedule, parse_milestones

SGD_RATE = 0.05
"""Peak rate of sgd and nesterov by default, as in Tian, Krishnan & Isola (2020), https://arxiv.org/abs/1910.10699."""
TEACHER_DECAY = 5e-4
"""Weight decay of a teacher by default."""


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """How networks are trained on their task. While weights are compressed, Adam trains them whatever these say."""

    HEADING: ClassVar[Heading] = "Training"

    optimizer: Annotated[Optimizer, Common("NAME")] = "adamw"
    """adamw, adam, sgd (with --momentum) or nesterov. The last is sgd with Nesterov's momentum. This flag and those up
    to --label-smoothing are for ordinary training: of students and teachers, before compression, and fine-tuning."""
    momentum: Annotated[float | None, BelowOne()] = None
    """Of sgd and nesterov; 0.9, unless given."""
    schedule: Schedule = "cosine"
    """How rates fall from their peak: cosine (to zero along half a cosine), step (see --milestones) or constant."""
    milestones: Annotated[str | None, Rare("SHARE,SHARE")] = None
    """With --schedule step: shares of the training after which rates are divided by ten; 0.625,0.75,0.875, unless
    given."""
    warmup_epochs: Annotated[int, AtLeast(0)] = 0
    """First epochs, in which rates rise linearly to their peak."""
    clip_norm: Annotated[float, AtLeast(0)] = 0.0
    """Gradients whose norm is larger are scaled down to it; 0 for none."""
    ema: Annotated[float, BelowOne()] = 0.0
    """Decay of a moving average of the weights, such as 0.999. It is evaluated and kept in place of the weights, with
    batch-norm's statistics averaged too; 0 for none."""
    mixup: Annotated[float, AtLeast(0)] = 0.0
    """Mix each image with another by a share from Beta(mixup, mixup), and the labels' loss as well (Zhang et al. 2018).
    A student's teacher runs on the mixed images; its own training mixes none. 0 for none."""
    label_smoothing: Annotated[float, BelowOne()] = 0.0
    """Share of a label that goes to all classes alike: in the hard term of students, and before compression. Teachers
    have none, since it takes from what they teach (Müller et al. 2019)."""

    ADAM_RATE: ClassVar[float] = 1e-3
    """Peak rate of adamw and adam by default."""
    OLDER: ClassVar[Values] = {
        **Settings.OLDER,
        "optimizer": "adamw",
        "schedule": "cosine",
        "warmup_epochs": 0,
        "clip_norm": 0.0,
        "ema": 0.0,
        "mixup": 0.0,
        "label_smoothing": 0.0,
    }

    def defaults(self) -> dict[str, Value]:
        """See `Settings.defaults`."""
        return {**super().defaults(), "learning_rate": self.default_rate(self.optimizer)}

    def default_rate(self, optimizer: str) -> float:
        """Peak rate of an optimiser, unless given."""
        return SGD_RATE if optimizer in WITH_MOMENTUM else self.ADAM_RATE

    def with_rate(self) -> Self:
        """The settings of a trial with the default rate of its optimiser, where nothing says another."""
        if self.own().get("learning_rate", self.ADAM_RATE) is not None:
            return self
        return self.changed(learning_rate=self.default_rate(self.optimizer))

    def recipe(self) -> Recipe:
        """How networks are optimised, other than a teacher."""
        return Recipe.part_of(self)

    def recipes(self) -> list[Recipe]:
        """Of all networks that the study trains."""
        return [self.recipe()]

    def lengths(self) -> Mapping[str, int | None]:
        """Setting → epochs of ordinary training."""
        return {}

    def without_effect(self) -> dict[str, str]:
        """See `Settings.without_effect`."""
        return {**super().without_effect(), **recipe_without_effect(self.optimizer, self.schedule)}

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: one line that names the flag.
        """
        super().check()
        if self.milestones is not None:
            try:
                parse_milestones(self.milestones)
            except ValueError as error:
                raise UserError(f"--{error}") from error
        try:
            self.recipes()
        except ValueError as error:  # what no bound of one flag says
            raise UserError(f"--momentum {self.momentum}: {error}") from error
        for name, epochs in self.lengths().items():
            if epochs and self.warmup_epochs >= epochs:
                raise UserError(f"--warmup-epochs {self.warmup_epochs}: must be less than {flag(name)} {epochs}")


def recipe_without_effect(optimizer: str, schedule: str) -> dict[str, str]:
    """Fields of a recipe that this optimiser and this schedule do not use, and why; see `Method.without_effect`."""
    momentum = {} if optimizer in WITH_MOMENTUM else {"momentum": "without --optimizer sgd or nesterov"}
    return momentum if schedule == "step" else {**momentum, "milestones": "without --schedule step"}


@dataclass(frozen=True)
class TeacherTrainingSettings(TrainingSettings):
    """How a teacher is trained where that differs from the other networks."""

    HEADING: ClassVar[Heading] = "Training"

    teacher_optimizer: Optimizer | None = None
    """Of the teacher, as --optimizer, which it follows unless given."""
    teacher_schedule: Schedule | None = None
    """Of the teacher, as --schedule, which it follows unless given."""
    teacher_learning_rate: Rate | None = None
    """Peak rate of the teacher. Unless given, as --learning-rate; with another kind of optimizer, its default."""
    teacher_weight_decay: Annotated[float | None, AtLeast(0)] = None
    """Of the teacher. Unless given, as --weight-decay with kd and kd_sws, and otherwise 5e-4."""

    TEACHER_FLAGS: ClassVar[tuple[str, ...]] = (
        "teacher_optimizer",
        "teacher_schedule",
        "teacher_learning_rate",
        "teacher_weight_decay",
    )

    def no_teacher(self) -> str:
        """Why no teacher is trained, as the end of a message; "" where one is."""
        return ""

    def teacher_recipe(self) -> Recipe:
        """How the teacher is optimised: on images and labels as they are."""
        optimizer, schedule = self.teacher_optimizer or self.optimizer, self.teacher_schedule or self.schedule
        return Recipe.part_of(self, optimizer=optimizer, schedule=schedule, mixup=0.0, label_smoothing=0.0)

    def teacher_rate(self, learning_rate: float | None) -> float:
        """Peak rate of the teacher.

        Args:
            learning_rate: of the other networks.
        """
        if self.teacher_learning_rate is not None:
            return self.teacher_learning_rate
        optimizer = self.teacher_optimizer or self.optimizer
        alike = (optimizer in WITH_MOMENTUM) == (self.optimizer in WITH_MOMENTUM)
        return learning_rate if alike and learning_rate is not None else self.default_rate(optimizer)

    def teacher_decay(self) -> float:
        """Weight decay of the teacher."""
        return TEACHER_DECAY if self.teacher_weight_decay is None else self.teacher_weight_decay

    def used_by_teacher(self) -> frozenset[str]:
        """See `Settings.used_by_teacher`."""
        if self.no_teacher():
            return super().used_by_teacher()
        idle = recipe_without_effect(self.teacher_optimizer or self.optimizer, self.teacher_schedule or self.schedule)
        return super().used_by_teacher() | {"momentum", "milestones"} - idle.keys()

    def recipes(self) -> list[Recipe]:
        """Of all networks that the study trains."""
        return [self.recipe(), *([] if self.no_teacher() else [self.teacher_recipe()])]

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: one line that names the flag.
        """
        super().check()
        for name in self.TEACHER_FLAGS if (reason := self.no_teacher()) else ():
            if (value := getattr(self, name)) is not None:
                raise UserError(f"{flag(name)} {value}: {reason}")
