"""Magnitude pruning with a k-means codebook, the baseline to soft weight-sharing, and post-training quantisation.

Han, Mao & Dally (2015), "Deep Compression", https://arxiv.org/abs/1510.00149, with the gradual pruning of
Zhu & Gupta (2017), https://arxiv.org/abs/1710.01878.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from study.artifacts.checkpoints import Progress
from study.compression.batch_norm import recalibrate, round_batch_norm
from study.compression.codebook_training import ensure_usable, score
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters, with_integers
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common import packed_pinning, pinning
from study.methods.common.packed_training import Member, MemberResult
from study.methods.common.pinning import PinningHparams
from study.training.distillation import Targets
from study.training.loop import Report


@dataclass(frozen=True, kw_only=True)
class Hparams(PinningHparams):
    """One pruning trial: the searched values first.

    Attributes:
        codebook_size: number of distinct values, zero included, at least 2. All layers share them: on MNIST a codebook
            for each layer, as in Han et al. (2015), sec. 3, was no more accurate, and costs more to describe.
        bits: 0, or post-training quantisation to this many bits instead of all the rest.
    """

    codebook_size: int = 16
    bits: int = 0
    weight_rate: float = 2e-3

    @property
    def distinct_values(self) -> int:
        """See `PinningHparams`."""
        return self.codebook_size

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size {self.codebook_size} must be at least 2: zero is one of the values")
        if not (self.bits == 0 or 2 <= self.bits <= 16):
            raise ValueError(f"bits {self.bits} must be 2 to 16, or 0 for pruning")


def fit(
    model: nn.Module,
    hparams: Hparams,
    data: Splits,
    on_epoch: Report,
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """Prune, cluster and quantise a pretrained network, which is changed in place; see `pinning.fit`.

    Post-training quantisation (`bits`) has no epoch to report.

    Args:
        targets: the teacher, where `alpha` is above 0.
        progress: of a trial that was stopped, to go on from.
    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: a loss is not a finite number, or every weight was pruned.
    """
    if hparams.bits:
        quantised = post_training(model, hparams.bits)
        ensure_usable(quantised)
        recalibrate(model, data)
        round_batch_norm(model)
        return quantised, score(model, quantised, data)
    return pinning.fit(model, hparams, data, on_epoch, targets, progress)


def fit_pack(
    networks: Sequence[nn.Module], members: Sequence[Member], data: Splits, targets: Targets | None = None
) -> list[MemberResult]:
    """`fit` of many networks: those that are pruned at once, and those that are only rounded one after another.

    Returns: the outcome of each member.
    """
    pruned = [index for index, member in enumerate(members) if not member.hparams.bits]
    chosen = [networks[index] for index in pruned], [members[index] for index in pruned]
    results = dict(zip(pruned, packed_pinning.fit(*chosen, data, targets), strict=True)) if pruned else {}
    for index, (network, member) in enumerate(zip(networks, members, strict=True)):
        if index not in results:
            try:
                results[index] = (network, *fit(network, member.hparams, data, member.on_epoch))
            except TrialFailed as error:
                member.fail(error)
                results[index] = error
    return [results[index] for index in range(len(members))]


def post_training(model: nn.Module, bits: int) -> QuantisedWeights:
    """Round every weight to a multiple of its tensor's step, max |w| / (2^(bits − 1) − 1).

    Symmetric and uniform, so that zero is a value and has index 0. Integers that no weight has leave the codebook.
    The model is changed in place.
    """
    parameters = shared_parameters(model)
    top = 2 ** (bits - 1) - 1
    with torch.no_grad():
        widest = torch.stack([p.abs().max() for p in parameters])
        steps = torch.where(widest > 0, widest, 1.0) / top  # a tensor of zeros needs a step too; any serves
        levels = flatten([p / step for p, step in zip(parameters, steps, strict=True)]).round().clamp(-top, top)
    quantised = with_integers(levels, steps)
    quantised.write(parameters)
    return quantised
