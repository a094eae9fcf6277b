"""Flags of magnitude pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from study.methods.common.settings import CompressionSettings
from study.settings import Rate


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


SETTINGS = MagnitudeSettings
