"""Flags of magnitude pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import tyro

from study.methods.common.settings import CompressionSettings, PackedResources, check_pack, check_quantised_training
from study.setting_bounds import AtLeast
from study.settings import Rate, Values


@dataclass(frozen=True)
class MagnitudeSettings(CompressionSettings):
    """Magnitude pruning with a k-means codebook, the baseline to soft weight-sharing; searches the share of weights
    that stay and the codebook's size.

    Every trial starts from the same pretrained network, prunes it step by step while training, clusters what is left,
    and trains the codebook (Han et al. 2015). Plain post-training quantisation is among its baselines.
    """

    kind: Annotated[str, tyro.conf.Suppress] = "magnitude"

    weight_rate: Rate = 2e-3
    """Peak rate of Adam for the weights while they are pruned and retrained."""
    score_power: Annotated[float, AtLeast(0)] = 0.0
    """Weights of smallest w² v^p are pruned, v being the mean square of a weight's gradient and p this power. 0 is
    magnitude, and 1 the loss that goes with a weight, by the diagonal of the Fisher information."""
    quantised_training: bool = False
    """After the ramp, train the survivors at their quantised values, rather than retrain them, cluster them by k-means,
    and train the codebook."""
    resources: PackedResources = field(default_factory=PackedResources)

    OLDER: ClassVar[Values] = {**CompressionSettings.OLDER, "score_power": 0.0, "quantised_training": False}

    def check(self) -> None:
        """Refuse what does not go together, and what cannot be packed.

        Raises:
            UserError: one line that names the flag, or both flags.
        """
        super().check()
        check_quantised_training(self.quantised_training, self.epochs)
        check_pack(self)


SETTINGS = MagnitudeSettings
