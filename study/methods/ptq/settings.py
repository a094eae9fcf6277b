"""Flags of post-training quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from study.flag_marks import Common
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

    calibration_examples: Annotated[int, AtLeast(1), Common()] = 512
    """Training examples that calibrate sensitivities and batch-norm's statistics."""


SETTINGS = PTQSettings
