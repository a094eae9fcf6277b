"""Flags that several compression methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from study.setting_bounds import Above, AtLeast
from study.settings import Alpha, Augment, Epochs, Rate, Settings, Values, Width


@dataclass(frozen=True)
class CodebookSettings(Settings):
    """Settings of every kind of study that ends in a codebook."""

    weight_rate: Rate = 3e-3
    """Peak rate of Adam for the weights while they are compressed."""
    codebook_epochs: Annotated[int | None, AtLeast(0)] = None
    """Epochs in which the codebook's values alone are trained after quantising. Default: 20 on digits, otherwise 4."""
    codebook_rate: Rate = 1e-3
    """Peak rate of Adam for the codebook's values."""
    skip: str | None = None
    """Names of parameters, or of modules, that stay as they are, with commas: --skip embedding,head.weight. Default:
    every tensor of two or more dimensions is compressed, and the biases of linear and convolution layers."""


@dataclass(frozen=True)
class CompressionSettings(CodebookSettings):
    """Settings of studies in which every trial compresses the same trained network."""

    network: str = "lenet_300_100"
    """Network to compress: lenet_300_100, lenet5, minivgg, vgg11/13/16/19, a torchvision.models name, or
    module:function."""
    network_width: Width = 1.0
    """Multiplies the network's channels (VGG kinds)."""
    pretrain_epochs: Annotated[int | None, AtLeast(0)] = None
    """Epochs of phase one, ordinary training. Default: 40 on digits, otherwise 20."""
    epochs: Epochs | None = None
    """Epochs of phase two, clustering or pruning. Default: 50 on digits, otherwise 20."""
    batch_size: Annotated[int | None, AtLeast(1)] = None
    """Images a step. Default: 32 on digits, otherwise 256."""
    learning_rate: Rate = 1e-3
    """Peak rate of Adam in phase one, and for the teacher; falls to zero along half a cosine."""
    augment: Augment | None = None
    """In all phases: none, flip (mirror), shift (by up to an eighth of the side), crop (both), resized-crop (mirror,
    and a random part enlarged), resized-crop-jitter (and the colours). Default: flip on CIFAR, otherwise none."""
    teacher: str = "none"
    """Network that teaches while the other is compressed (names as for --network), trained first, once for all trials;
    self for the uncompressed network; none for labels alone."""
    teacher_width: Width = 1.0
    """Multiplies the teacher's channels (VGG kinds)."""
    teacher_epochs: Epochs = 20
    """Epochs of the teacher."""
    temperature: Annotated[float, Above(0)] = 4.0
    """With a teacher: both networks' logits are divided by it in the soft term, which carries its square."""
    alpha: Alpha = 0.9
    """With a teacher: weight of the soft term; the labels have the rest."""

    DEFAULTS: ClassVar[Mapping[str, Values]] = {
        "digits": {"pretrain_epochs": 40, "epochs": 50, "codebook_epochs": 20, "batch_size": 32},
        "cifar10": {"augment": "flip"},
        "cifar100": {"augment": "flip"},
        "": {
            **Settings.DEFAULTS[""],
            "pretrain_epochs": 20,
            "epochs": 20,
            "codebook_epochs": 4,
            "batch_size": 256,
            "augment": "none",
        },
    }


SETTINGS = CompressionSettings
"""Of every method that has no flags of its own."""
