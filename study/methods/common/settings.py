"""Flags that several compression methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from study.settings import Augment, Scheduler, Settings


@dataclass(frozen=True)
class CodebookSettings(Settings):
    """Settings of every kind of study that ends in a codebook."""

    weight_rate: float = 3e-3
    """Peak rate of Adam for the weights while they are compressed."""
    codebook_epochs: int | None = None
    """Epochs in which the codebook's values alone are trained after quantising. Default: 20 on digits, otherwise 4."""
    codebook_rate: float = 1e-3
    """Peak rate of Adam for the codebook's values."""


@dataclass(frozen=True)
class CompressionSettings(CodebookSettings):
    """Settings of studies in which every trial compresses the same trained network."""

    network: str = "lenet_300_100"
    """Network to compress: lenet_300_100, lenet5, minivgg, vgg11/13/16/19, a torchvision.models name, or
    module:function."""
    network_width: float = 1.0
    """Multiplies the network's channels (VGG kinds)."""
    pretrain_epochs: int | None = None
    """Epochs of phase one, ordinary training. Default: 40 on digits, otherwise 20."""
    epochs: int | None = None
    """Epochs of phase two, clustering or pruning. Default: 50 on digits, otherwise 20."""
    batch_size: int | None = None
    """Images a step. Default: 32 on digits, otherwise 256."""
    learning_rate: float = 1e-3
    """Peak rate of Adam in phase one, and for the teacher; falls to zero along half a cosine."""
    augment: Augment | None = None
    """In all phases: none, flip (mirror), shift (by up to an eighth of the side), crop (both). Default: flip on CIFAR,
    otherwise none."""
    teacher: str = "none"
    """Network that teaches while the other is compressed (names as for --network), trained first, once for all trials;
    self for the uncompressed network; none for labels alone."""
    teacher_width: float = 1.0
    """Multiplies the teacher's channels (VGG kinds)."""
    teacher_epochs: int = 20
    """Epochs of the teacher."""
    temperature: float = 4.0
    """With a teacher: both networks' logits are divided by it in the soft term, which carries its square."""
    alpha: float = 0.9
    """With a teacher: weight of the soft term; the labels have the rest."""
    scheduler: Scheduler = "none"
    """asha stops trials that fall behind in what quantising now would give, by non-dominated rank over the objectives
    (see study.tuning.halving). none lets every trial finish."""

    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        "digits": dict(pretrain_epochs=40, epochs=50, codebook_epochs=20, batch_size=32),
        "cifar10": dict(augment="flip"),
        "cifar100": dict(augment="flip"),
        "": dict(pretrain_epochs=20, epochs=20, codebook_epochs=4, batch_size=256, augment="none"),
    }
