"""Flags of soft weight-sharing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro

from study.errors import UserError
from study.flag_marks import Common
from study.methods.common.settings import (
    CodebookSettings,
    CompressionSettings,
    PackedResources,
    check_pack,
    check_quantised_training,
)
from study.records.search_domains import Value
from study.setting_bounds import AtLeast, Within
from study.settings import Augment, Epochs, Rate, Values, flag_with_value

NOT_PACKABLE = ("merge", "layer_scales", "retrain_epochs")
"""What the soft variant leaves out while it is packed: these would give trials different programs."""


@dataclass(frozen=True)
class WeightSharingSettings(CodebookSettings):
    """Settings of clustering under the prior; `study.methods.sws.weight_sharing.Hparams` explains each."""

    retrain_epochs: Annotated[int | None, AtLeast(0)] = None
    """Mixture prior: epochs between clustering and quantising in which the pruned weights stay at zero.
    Default: 0."""
    precision_rate: Rate | None = None
    """Mixture prior: peak rate of Adam for its log-precisions. Default: 1e-2 on digits, whose epochs have few steps,
    otherwise 3e-3."""
    sigma: Rate = 0.05
    """Mixture prior: initial standard deviation of every component, in units of weight."""
    pi_zero_strength: Annotated[float, AtLeast(0)] = 0.0
    """Mixture prior: 0 keeps pi_zero fixed; above it pi_zero is learned under a Beta prior worth this many weights."""
    anneal: Annotated[float, Within(0, 1)] = 0.0
    """Mixture prior: share of the clustering epochs over which tau rises from zero; 0 for tau constant."""
    merge: Annotated[float, AtLeast(0)] = 0.0
    """Mixture prior: components closer than so many nats of symmetric KL divergence become one before quantising; 0 for
    none."""
    layer_scales: bool = False
    """Mixture prior: give every layer its own scale, so that one mixture fits layers of different width."""


HARD_ONLY = ("ramp", "score_power", "quantised_training")
"""Settings of the hard variant alone."""
SOFT_ONLY = ("sigma", "pi_zero_strength", "anneal", "merge", "layer_scales", "retrain_epochs")
"""Settings of the soft variant alone that differ from their default only where they were given."""


@dataclass(frozen=True)
class SWSSettings(WeightSharingSettings, CompressionSettings):
    """Soft weight-sharing: every weight becomes zero or one of a few values; searches density and components, or with
    --variant soft tau, components and pi_zero.

    Every trial starts from the same pretrained network, prunes the weights that the loss misses least, and trains the
    rest at their shared values. With --variant soft it clusters all weights under a Gaussian-mixture prior, and then
    prunes and quantises them.
    """

    kind: Annotated[str, tyro.conf.Suppress] = "sws"

    variant: Annotated[Literal["soft", "hard"], Common()] = "hard"
    """hard prunes and trains at a few values; soft uses a mixture prior. With hard it prunes the weights that the loss
    misses least, trains the rest at a few values, and searches density and components. With soft it is the method of
    the paper: it clusters weights under a mixture prior, and searches tau, components and pi_zero."""
    epochs: Annotated[Epochs | None, Common()] = None
    """Epochs of phase two, compression. They are of pruning and of quantised training, or of clustering. With --variant
    soft 50 on digits, otherwise 20. Default: 70 on digits, otherwise 38."""
    teacher: Annotated[str | None, Common()] = None
    """Network that teaches meanwhile, also self or none. It is trained first, once for all trials; self
    is the uncompressed network, and with none there are labels alone. Default: none, but with --variant hard lenet5 on
    MNIST."""
    augment: Annotated[Augment | None, Common()] = None
    """How images are varied. In all phases: none, flip (mirror), shift1 (half of the images by one pixel), shift (by up
    to an eighth of the side), crop (flip and shift), resized-crop (mirror, and a random part enlarged),
    resized-crop-jitter (and the colours). Default: flip on CIFAR, otherwise none, but with --variant hard shift1 on
    MNIST."""
    ramp: Annotated[float, Within(0, 1)] = 0.45
    """With --variant hard: share of --epochs in which weights are pruned; in the others they train at their values."""
    score_power: Annotated[float, AtLeast(0)] = 1.0
    """With --variant hard: weights of smallest w² v^p are pruned, v being the mean square of a weight's gradient and p
    this power. 1 is the loss that goes with a weight, by the diagonal of the Fisher information, and 0 magnitude."""
    quantised_training: bool = True
    """With --variant hard: train the survivors at their quantised values, rather than cluster them by k-means at the
    end and train the codebook."""
    resources: PackedResources = field(default_factory=PackedResources)

    DEFAULTS: ClassVar[Mapping[str, Values]] = {
        **CompressionSettings.DEFAULTS,
        "digits": {**CompressionSettings.DEFAULTS["digits"], "precision_rate": 1e-2},
        "": {**CompressionSettings.DEFAULTS[""], "retrain_epochs": 0, "precision_rate": 3e-3},
    }

    HARD_DEFAULTS: ClassVar[Mapping[str, Values]] = {
        "digits": {"epochs": 70},
        "mnist": {"epochs": 38, "augment": "shift1", "teacher": "lenet5"},
        "": {"epochs": 38},
    }
    """As `DEFAULTS`, of the hard variant, whose epochs include those of quantised training."""
    OLDER: ClassVar[Values] = {
        **CompressionSettings.OLDER,
        "variant": "soft",
        "ramp": ramp,
        "score_power": score_power,
        "quantised_training": quantised_training,
    }

    def defaults(self) -> dict[str, Value]:
        """See `Settings.defaults`."""
        hard = self.HARD_DEFAULTS.get(self.dataset, self.HARD_DEFAULTS[""]) if self.variant == "hard" else {}
        values = {**super().defaults(), **hard}
        # Whose weights a file has is not known, so that has to be said.
        return {**values, "teacher": "none"} if self.teacher_checkpoint else values

    def check(self) -> None:
        """Refuse what does not go together, and what cannot be packed.

        Raises:
            UserError: one line that names the flag, or both flags.
        """
        super().check()
        for name in HARD_ONLY if self.variant == "soft" else SOFT_ONLY:
            if (value := getattr(self, name)) != (getattr(type(self), name) or 0):
                other = "hard" if self.variant == "soft" else "soft"
                raise UserError(f"{flag_with_value(name, value)}: is for --variant {other}; give that, or leave it out")
        if self.variant == "hard":
            if self.precision_rate != self.defaults()["precision_rate"]:
                raise UserError(
                    f"--precision-rate {self.precision_rate}: is for --variant soft; give that, or leave it out"
                )
            check_quantised_training(self.quantised_training, self.epochs)
        check_pack(self, NOT_PACKABLE)


SETTINGS = SWSSettings
