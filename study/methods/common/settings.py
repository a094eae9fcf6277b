"""Flags that several compression methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from study.errors import UserError
from study.flag_marks import Common, Heading, Rare
from study.methods.common.training_settings import TeacherTrainingSettings, TrainingSettings
from study.path_arguments import File
from study.setting_bounds import Above, AtLeast
from study.settings import Alpha, Augment, DistillationLoss, Epochs, Rate, Settings, Values, Width, flag
from study.settings_groups import Resources


@dataclass(frozen=True)
class PackedResources(Resources):
    """What a trial gets of the machines. May differ between two commands on one study."""

    pack: Annotated[int, AtLeast(1), Common(heading="Resources")] = 1
    """Small networks trained at once on each GPU. They are one batched program with the baselines: 64 trials
    of sws --variant soft at once trained in a ninth of the time. The searcher learns from trials that have ended, so
    of the first ones at once it learns nothing. A trial that was cut off starts again. One that is stopped leaves its
    place with kd alone, once half of them are. 1 for none; the results differ by rounding alone (and dropout)."""


def check_pack(settings: Settings, alone: Sequence[str] = ()) -> None:
    """Refuse what does not go together with `--pack`.

    Args:
        alone: names of the method's own settings whose trials are trained alone.
    Raises:
        UserError: one line that names both flags.
    """
    values = settings.flat()
    for name in (*alone, "trial_timeout", "memory_per_trial") if settings.resources.pack > 1 else ():
        if values[name]:
            raise UserError(
                f"--pack {settings.resources.pack}: does not go with {flag(name)}; leave out one of the two flags"
            )


@dataclass(frozen=True)
class DistillationSettings(Settings):
    """What a teacher's students are to match; `study.training.distillation_losses` has the formulas."""

    HEADING: ClassVar[Heading] = "Method"

    loss: Annotated[DistillationLoss, Common("NAME")] = "kd"
    """What is matched of a teacher, as in kd, dkd or dist. Of the logits that is kd (probabilities at a temperature,
    Hinton et al.), kd-standardised (the same of standardised logits), dkd (decoupled), dist (correlations), ttm (a
    temperature for the teacher alone), wttm (the same, with weights) or mse (the logits themselves; the temperature has
    no effect)."""
    dkd_beta: Annotated[float, AtLeast(0)] = 8.0
    """With --loss dkd: weight of the classes other than the label."""
    dist_gamma: Annotated[float, AtLeast(0)] = 1.0
    """With --loss dist: weight of the correlation within a class, that within an image having 1."""

    OLDER: ClassVar[Values] = {**Settings.OLDER, "loss": loss, "dkd_beta": dkd_beta, "dist_gamma": dist_gamma}


def loss_without_effect(settings: DistillationSettings) -> dict[str, str]:
    """Hyperparameters that the loss does not have, and why; see `Method.without_effect`."""
    losses = {"dkd_beta": "dkd", "dist_gamma": "dist"}
    others = {name: f"without --loss {loss}" for name, loss in losses.items() if settings.loss != loss}
    return {**others, "temperature": "with --loss mse"} if settings.loss == "mse" else others


@dataclass(frozen=True)
class WeightsSettings(Settings):
    """Which weights are compressed, and where they come from."""

    HEADING: ClassVar[Heading] = "Networks"

    skip: Annotated[str | None, Rare("NAME,NAME", "Method")] = None
    """Names of parameters, or of modules, that stay as they are, with commas: --skip embedding,head.weight. Default:
    every tensor of two or more dimensions is compressed, and the biases of linear and convolution layers."""
    checkpoint: Annotated[File | None, Common()] = None
    """Trained weights from which the network starts. A .safetensors file, or a state dict of torch.save; see
    --normalise. Default: fresh ones."""
    weights: Annotated[str | None, Common()] = None
    """The same from torchvision's published weights, DEFAULT or their name. The last layer starts fresh where the
    number of classes differs."""
    reinit: Annotated[str | None, Rare("NAME,NAME")] = None
    """With --checkpoint or --weights: names of layers that start fresh all the same, with commas, such as fc where the
    number of classes differs."""

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: one line that names the flag.
        """
        super().check()
        for name in ("weights", "reinit"):
            if getattr(self, name) is not None and not getattr(self, name).strip(" ,"):
                raise UserError(f"{flag(name)} {getattr(self, name)!r}: names nothing; leave it out, or give a name")
        if self.checkpoint and self.weights:
            raise UserError(f"--weights {self.weights}: does not go with --checkpoint; leave out one of the two flags")
        if self.reinit is not None and not (self.checkpoint or self.weights):
            raise UserError(f"--reinit {self.reinit}: needs --checkpoint FILE or --weights NAME, which it is about")


@dataclass(frozen=True)
class CodebookSettings(WeightsSettings):
    """Settings of every kind of study that trains a network into a codebook."""

    HEADING: ClassVar[Heading] = "Method"

    weight_rate: Rate = 3e-3
    """Peak rate of Adam for the weights while they are compressed."""
    codebook_epochs: Annotated[int | None, AtLeast(0), Common(heading="Training")] = None
    """Epochs of the codebook alone, after quantising. With quantised training there are none. Default: 20 on digits,
    otherwise 4."""
    codebook_rate: Rate = 1e-3
    """Peak rate of Adam for the codebook's values."""


@dataclass(frozen=True)
class NetworkSettings(WeightsSettings, TrainingSettings):
    """Settings of studies in which every trial starts from the same trained network."""

    HEADING: ClassVar[Heading] = "Networks"

    network: Annotated[str, Common()] = "lenet_300_100"
    """Network to compress, also of torchvision.models, or module:function. Names are lenet_300_100, lenet5,
    minivgg, vgg11/13/16/19, resnet20/32/56/110, and others for CIFAR, which study/README.md lists."""
    network_width: Width = 1.0
    """Multiplies the network's channels (VGG kinds)."""
    pretrain_epochs: Annotated[int | None, AtLeast(0), Common(heading="Training")] = None
    """Epochs of ordinary training, phase one. Default: 40 on digits, otherwise 20. With --checkpoint or --weights there
    is no such phase."""
    finetune_epochs: Annotated[int | None, AtLeast(0), Rare(heading="Training")] = None
    """With --checkpoint or --weights: epochs of ordinary training before compression; 0, unless given, for none. The
    network as it was brought stays the report's reference, and the one after them is a baseline."""
    finetune_rate: Annotated[Rate | None, Rare("RATE", "Training")] = None
    """With --finetune-epochs: peak rate; 1e-4, unless given."""
    batch_size: Annotated[int | None, AtLeast(1), Common(heading="Training")] = None
    """Images a step. Default: 32 on digits, otherwise 256."""
    learning_rate: Annotated[Rate | None, Common("RATE", "Training")] = None
    """Peak rate in phase one, and for the teacher. Default: 1e-3; with sgd and nesterov 0.05."""
    weight_decay: Annotated[float, AtLeast(0), Rare(heading="Training")] = 0.0
    """Weight decay in phase one, and in fine-tuning: decoupled with adamw, otherwise added to the gradient."""
    augment: Annotated[Augment | None, Common(heading="Training")] = None
    """How images are varied, as in flip, shift or crop. In all phases: none, flip (mirror), shift1 (half of the images
    by one pixel), shift (by up to an eighth of the side), crop (flip and shift), resized-crop (mirror, and a random
    part enlarged), resized-crop-jitter (and the colours). Default: flip on CIFAR, otherwise none."""

    WITH_WEIGHTS: ClassVar[Values] = {"pretrain_epochs": 0, "finetune_epochs": 0, "finetune_rate": 1e-4}
    DEFAULTS: ClassVar[Mapping[str, Values]] = {
        "digits": {"pretrain_epochs": 40, "batch_size": 32},
        "cifar10": {"augment": "flip"},
        "cifar100": {"augment": "flip"},
        "": {**Settings.DEFAULTS[""], "pretrain_epochs": 20, "batch_size": 256, "augment": "none"},
    }
    OLDER: ClassVar[Values] = {**TrainingSettings.OLDER, "weight_decay": 0.0}

    def lengths(self) -> Mapping[str, int | None]:
        """See `TrainingSettings.lengths`."""
        return {name: getattr(self, name) for name in ("pretrain_epochs", "finetune_epochs")}

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: one line that names the flag.
        """
        super().check()
        brought = "--checkpoint" if self.checkpoint else "--weights" if self.weights else ""
        if brought and self.pretrain_epochs:
            raise UserError(
                f"--pretrain-epochs {self.pretrain_epochs}: means nothing with {brought}; give --finetune-epochs"
            )
        for name in ("finetune_epochs", "finetune_rate"):
            if not brought and (value := getattr(self, name)) is not None:
                raise UserError(
                    f"{flag(name)} {value:g}: needs --checkpoint FILE or --weights NAME; without them, "
                    "--pretrain-epochs trains the network"
                )


@dataclass(frozen=True)
class CompressionSettings(CodebookSettings, NetworkSettings, TeacherTrainingSettings, DistillationSettings):
    """Settings of studies in which every trial compresses the same trained network by training it."""

    epochs: Annotated[Epochs | None, Common(heading="Training")] = None
    """Epochs of phase two, clustering or pruning. Default: 50 on digits, otherwise 20."""
    teacher: Annotated[str | None, Common(heading="Networks")] = None
    """Network that teaches meanwhile, also self or none. It is trained first, once for all trials; self
    is the uncompressed network, and with none there are labels alone. Default: none."""
    teacher_width: Annotated[Width, Rare(heading="Networks")] = 1.0
    """Multiplies the teacher's channels (VGG kinds)."""
    teacher_epochs: Annotated[Epochs, Rare(heading="Training")] = 20
    """Epochs of the teacher."""
    teacher_checkpoint: Annotated[File | None, Common(heading="Networks")] = None
    """Weights of a trained teacher, instead of training one. A .safetensors file, or a state dict of torch.save."""
    temperature: Annotated[float, Above(0)] = 4.0
    """With a teacher: divides both networks' logits. The soft term carries its square. Of other losses see --loss."""
    alpha: Alpha = 0.9
    """With a teacher: weight of the soft term; the labels have the rest."""

    OLDER: ClassVar[Values] = {**NetworkSettings.OLDER, **DistillationSettings.OLDER}
    DEFAULTS: ClassVar[Mapping[str, Values]] = {
        **NetworkSettings.DEFAULTS,
        "digits": {**NetworkSettings.DEFAULTS["digits"], "epochs": 50, "codebook_epochs": 20},
        "": {**NetworkSettings.DEFAULTS[""], "epochs": 20, "codebook_epochs": 4, "teacher": "none"},
    }

    def lengths(self) -> Mapping[str, int | None]:
        """See `TrainingSettings.lengths`."""
        return {**super().lengths(), "teacher_epochs": None if self.no_teacher() else self.teacher_epochs}

    def no_teacher(self) -> str:
        """See `TeacherTrainingSettings.no_teacher`."""
        if self.teacher in (None, "none", "self"):
            return "needs --teacher NETWORK, a teacher of its own"
        return "means nothing with --teacher-checkpoint, a teacher that is trained" if self.teacher_checkpoint else ""

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: one line that names the flag.
        """
        super().check()
        if self.teacher_checkpoint and self.teacher in (None, "none", "self"):
            raise UserError(
                f"--teacher-checkpoint {self.teacher_checkpoint}: needs --teacher NETWORK, the network whose weights "
                "they are"
            )


def check_quantised_training(quantised_training: bool, epochs: int | None) -> None:
    """Refuse epochs that leave it none.

    Raises:
        UserError: one line that names the flag.
    """
    if quantised_training and epochs is not None and epochs < 2:
        raise UserError(
            f"--epochs {epochs}: must be 2 or more, one for pruning and one for quantised training; or give "
            "--no-quantised-training"
        )


SETTINGS = CompressionSettings
"""Of every method that has no flags of its own."""
