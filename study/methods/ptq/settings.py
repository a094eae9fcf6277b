"""Flags of post-training quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from study.methods.common.settings import NetworkSettings
from study.setting_bounds import AtLeast


@dataclass(frozen=True)
class PTQSettings(NetworkSettings):
    """Post-training quantisation, for networks that cannot be trained again: weights are rounded by what they are worth
    to the loss and by their bits; searches the bits per weight, the sensitivity's power and the rate's weight.

    Every trial rounds the same trained network, which a few hundred training examples calibrate. Minutes instead of
    hours; plain rounding to 8 and 4 bits is among its baselines.
    """

    kind: Annotated[str, tyro.conf.Suppress] = "ptq"

    calibration_examples: Annotated[int, AtLeast(1)] = 512
    """Examples of the training part that calibrate: sensitivities, and the statistics of batch-norm. Default: 512."""


SETTINGS = PTQSettings
