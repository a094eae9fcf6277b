"""Flags of soft weight-sharing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro

from study.errors import UserError
from study.methods.common.settings import CodebookSettings, CompressionSettings, PackedResources, check_pack
from study.records.search_domains import Value
from study.setting_bounds import AtLeast, Within
from study.settings import Rate, Values, flag

NOT_PACKABLE = ("merge", "layer_scales", "retrain_epochs")
"""What the soft variant leaves out while it is packed: these would give trials different programs."""


@dataclass(frozen=True)
class WeightSharingSettings(CodebookSettings):
    """Settings of soft weight-sharing itself; `study.methods.sws.weight_sharing.Hparams` explains each."""

    retrain_epochs: Annotated[int | None, AtLeast(0)] = None
    """Epochs between clustering and quantising in which the pruned weights stay at zero. Default: 0."""
    precision_rate: Rate | None = None
    """Peak rate of Adam for the mixture's log-precisions. Default: 1e-2 on digits, whose epochs have few steps,
    otherwise 3e-3."""
    sigma: Rate = 0.05
    """Initial standard deviation of every component, in units of weight."""
    pi_zero_strength: Annotated[float, AtLeast(0)] = 0.0
    """0 keeps pi_zero fixed; above it pi_zero is learned under a Beta prior worth this many weights."""
    anneal: Annotated[float, Within(0, 1)] = 0.0
    """Share of the clustering epochs over which tau rises from zero; 0 for tau constant."""
    merge: Annotated[float, AtLeast(0)] = 0.0
    """Components closer than this many nats of symmetric KL divergence become one before quantising; 0 for none."""
    layer_scales: bool = False
    """Give every layer its own scale, so that one mixture fits layers of different width."""


HARD_ONLY = ("ramp", "score_power", "quantised_training")
"""Settings of the hard variant alone."""
SOFT_ONLY = ("sigma", "pi_zero_strength", "anneal", "merge", "layer_scales", "retrain_epochs")
"""Settings of the soft variant alone that differ from their default only where they were given."""


@dataclass(frozen=True)
class SWSSettings(WeightSharingSettings, CompressionSettings):
    """Soft weight-sharing: a network is pruned and quantised under a mixture prior; searches tau, components, pi_zero.

    Every trial starts from the same pretrained network, clusters its weights, and is quantised. With --variant hard it
    prunes by a score of sensitivity, trains at quantised values, and searches density and components.
    """

    kind: Annotated[str, tyro.conf.Suppress] = "sws"

    variant: Literal["soft", "hard"] = "soft"
    """soft clusters weights under a mixture prior, and searches tau, components and pi_zero. hard prunes the weights
    that the loss misses least, trains the rest at a few values, and searches density and components."""
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

    HARD_DEFAULTS: ClassVar[Mapping[str, Values]] = {"digits": {"epochs": 70}, "": {"epochs": 38}}
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
        return {**super().defaults(), **hard}

    def check(self) -> None:
        """Refuse what does not go together, and what cannot be packed.

        Raises:
            UserError: one line that names both flags.
        """
        super().check()
        for name in HARD_ONLY if self.variant == "soft" else SOFT_ONLY:
            if (value := getattr(self, name)) != (getattr(type(self), name) or 0):
                other = "hard" if self.variant == "soft" else "soft"
                raise UserError(f"{flag(name)} {value}: is for --variant {other}; leave it out")
        check_pack(self, NOT_PACKABLE)


SETTINGS = SWSSettings
