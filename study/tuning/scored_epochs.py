"""After which epochs a trial is scored: often enough for its curve and its scheduler, and where the training part is
small, so that scoring would take as long as training, not after every one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

SHARE = 0.15
"""Of a trial's time that scoring should take at most."""
FORWARD = 1 / 3
"""Work of scoring an example over that of training on it, which has a backward pass, too."""
LEAST = 8
"""Points that a curve has, whatever they cost, if there are as many epochs."""


def scored_epochs(epochs: int, training: int, validation: int, rungs: Collection[int] = ()) -> Callable[[int], bool]:
    """Whether an epoch of a trial, by its number from 1, is scored.

    It follows from the sizes of the data alone: the same trial has the same curve everywhere.

    Args:
        epochs: of the trial.
        training, validation: examples.
        rungs: epochs at which a scheduler compares trials.
    """
    cost = FORWARD * validation / training
    every = max(1, min(math.ceil(cost * (1 - SHARE) / SHARE), epochs // LEAST))
    compared = frozenset(rungs)
    return lambda epoch: epoch % every == 0 or epoch in compared
