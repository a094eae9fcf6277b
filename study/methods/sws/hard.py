"""Soft weight-sharing's hard limit: weights are either pinned at zero or have one of a few values.

As the mixture's components become narrow, and its weights move to the nearest one in every step, what is left of the
prior is a price for being away from zero and a codebook that is learned in training: EM at zero temperature. The soft
variant's test for zero takes every weight to be worth the same. Here a weight's worth is what the loss would lose.

`pinning.fit` trains it, with these hyperparameters: pruning by a score of sensitivity, then quantised training.
"""

from __future__ import annotations

from dataclasses import dataclass

from study.methods.common.pinning import PinningHparams


@dataclass(frozen=True, kw_only=True)
class Hparams(PinningHparams):
    """One trial of the hard variant: the searched values first.

    Attributes:
        density: as `PinningHparams` has it; it takes the place of the soft variant's tau and pi_zero.
        components: distinct values of all layers together, the zero included, at least 2.
    """

    density: float = 0.01
    components: int
    ramp: float = 0.45
    ramp_power: float = 8.0
    score_power: float = 1.0
    quantised_training: bool = True

    @property
    def distinct_values(self) -> int:
        """See `PinningHparams`."""
        return self.components

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 2:
            raise ValueError(f"components {self.components} must be at least 2: zero is one of them")
