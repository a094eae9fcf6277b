"""Learning rates in every step of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from study.training.recipe import Recipe, parse_milestones

RateSchedule = Callable[[Sequence[float], int], list[list[float]]]
"""(peak rate of every group of parameters, steps) → their rates in each of these steps, and after them."""

STEP_FACTOR = 0.1
"""By which the step schedule multiplies every rate at a milestone."""


def cosine_schedule(peaks: Sequence[float], steps: int) -> list[list[float]]:
    """Learning rates in each of so many steps, and after them: from the peaks to zero along half a cosine."""
    rates, schedule = [float(peak) for peak in peaks], []
    for step in range(1, steps + 1):
        schedule.append(list(rates))
        # The same as PyTorch's CosineAnnealingLR to the last bit, which is slow where the rates are on a GPU.
        fall = (1 + math.cos(math.pi * step / steps)) / (1 + math.cos(math.pi * (step - 1) / steps))
        rates = [fall * rate for rate in rates]
    return [*schedule, rates]


def constant_schedule(peaks: Sequence[float], steps: int) -> list[list[float]]:
    """The peaks in each of so many steps, and after them."""
    return [[float(peak) for peak in peaks] for _ in range(steps + 1)]


def step_schedule(peaks: Sequence[float], steps: int, milestones: Sequence[float]) -> list[list[float]]:
    """The peaks, multiplied by `STEP_FACTOR` from each milestone on.

    Args:
        milestones: shares of the steps, rising.
    """
    rates, schedule = [float(peak) for peak in peaks], []
    falls = [round(share * steps) for share in milestones]
    for step in range(steps + 1):
        rates = [rate * STEP_FACTOR ** falls.count(step) for rate in rates]
        schedule.append(list(rates))
    return schedule


def learning_rates(recipe: Recipe, epochs: int, peaks: Sequence[float], steps: int) -> list[list[float]]:
    """The rates of a recipe's schedule after its warm-up: a cosine falls in the steps that are left.

    In step k of a warm-up of W steps, from 1, a rate is k / (W + 1) of its peak. Reference: Goyal et al. (2017), sec.
    2.2, https://arxiv.org/abs/1706.02677.

    Args:
        epochs: of the training that has these steps.
        peaks: of every group of parameters.
    """
    warmup = min(steps, recipe.warmup_epochs * steps // max(1, epochs))
    rising = [[peak * (step + 1) / (warmup + 1) for peak in peaks] for step in range(warmup)]
    if recipe.schedule == "step":
        return rising + step_schedule(peaks, steps, parse_milestones(recipe.milestones))[warmup:]
    body = cosine_schedule if recipe.schedule == "cosine" else constant_schedule
    return rising + body(peaks, steps - warmup)
