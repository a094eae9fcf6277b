"""Soft weight-sharing's hard limit: weights are either pinned at zero or have one of a few values.

As the mixture's components become narrow, and its weights move to the nearest one in every step, what is left of the
prior is a price for being away from zero and a codebook that is learned in training: EM at zero temperature. The soft
variant's test for zero takes every weight to be worth the same. Here a weight's worth is what the loss would lose.

There are two phases: `pinning.prune` with a score of sensitivity, then `quantised_training.train_quantised`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from study.artifacts.checkpoints import Progress
from study.compression.quantised_weights import QuantisedWeights
from study.data.splits import Splits
from study.methods.common import pinning
from study.methods.common.pinning import PinningHparams
from study.training.distillation import Targets
from study.training.loop import Report


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

    ALL_PRUNED_HINT: ClassVar[str] = "density is too small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 2:
            raise ValueError(f"components {self.components} must be at least 2: zero is one of them")


def fit(
    model: nn.Module,
    hparams: Hparams,
    data: Splits,
    on_epoch: Report,
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """Phases two and three on a pretrained network, which is changed in place; see `pinning.fit`.

    Args:
        targets: the teacher, where `alpha` is above 0.
        progress: of a trial that was stopped, to go on from.
    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: a loss is not a finite number, or every weight was pruned.
    """
    return pinning.fit(model, hparams, hparams.components, data, on_epoch, targets, progress)
