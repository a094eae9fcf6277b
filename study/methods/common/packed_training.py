"""Trials of one network trained together as one batched program: small networks leave most of a GPU idle.

Weights lie on a leading axis, so that matrix products become batched ones, as HFTA does by hand (Wang et al., MLSys
2021, https://arxiv.org/abs/2102.02344). Every member has its own hyperparameters, its own randomness and its own end.
Its results are those of the same trial alone, but for rounding.

The loss and the training loop are those of a trial alone. What is here is what every pack has, whatever its members
train: failures of single members, one loss and one loop for all of them, and their ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import nn

from study.artifacts.weight_trace import Trace
from study.compression.codebook_training import CodebookHparams, conclude
from study.compression.quantised_weights import QuantisedWeights
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common.network_stack import Stack
from study.training.batches import EpochBatches
from study.training.distillation import LossHparams, Targets, accuracy_loss
from study.training.loop import Loss, Report, epoch_row, require_finite, schedule, train_epochs
from study.training.precision import autocast_logits, uses_bfloat16
from study.training.schedules import RateSchedule, cosine_schedule

LossHparamsT = TypeVar("LossHparamsT", bound=LossHparams)
HparamsT = TypeVar("HparamsT", bound=CodebookHparams)

MemberResult = tuple[nn.Module, QuantisedWeights, dict[str, float]] | Exception
"""Of one member: its network, quantised weights and final metrics, or why it ended before."""

SAME_IN_A_PACK = (
    *("epochs", "batch_size", "weight_rate", "augment", "precision", "codebook_epochs", "codebook_rate"),
    *("loss", "dkd_beta", "dist_gamma"),
)
"""Hyperparameters that all members of any pack share."""


class Member(Generic[LossHparamsT]):
    """One trial of a pack.

    Attributes:
        hparams: its own.
        trace: of its weights.
        failure: what ended it before the others; None while it takes part.

    Args:
        on_epoch: takes its rows; an exception that it raises (a trial that is stopped) ends this member alone.
        on_failure: takes `failure`, at once.
    """

    def __init__(
        self, hparams: LossHparamsT, on_epoch: Report, on_failure: Callable[[Exception], None] = lambda error: None
    ) -> None:
        self.hparams = hparams
        self.trace = Trace()
        self.on_epoch, self._on_failure = on_epoch, on_failure
        self.failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End this member alone."""
        if self.failure is None:
            self.failure = error.with_traceback(None)  # a traceback would keep the tensors of the pack
            self._on_failure(self.failure)

    def report(self, epoch: int, phase: str, train_loss: float, metrics: Mapping[str, float]) -> None:
        """Report an epoch. A loss that is not finite, or an exception of `on_epoch`, ends this member."""
        try:
            self.on_epoch(epoch_row(epoch, phase, require_finite(train_loss), metrics))
        except Exception as error:
            self.fail(error)


def require_same(members: Sequence[Member[LossHparamsT]], names: Sequence[str]) -> LossHparamsT:
    """The hyperparameters of the first member, of which all members have those of these names.

    Raises:
        ValueError: they differ.
    """
    common = members[0].hparams
    if any(getattr(m.hparams, name) != getattr(common, name) for m in members for name in names):
        raise ValueError(f"members of a pack have the same {', '.join(names)}")
    return common


def loss_of_members(
    network: nn.Module,
    members: Sequence[Member[LossHparamsT]],
    data: Splits,
    targets: Targets | None,
    precision: str | None,
    label_smoothing: float = 0.0,
) -> Loss:
    """`accuracy_loss` of all members, each with its own temperature and alpha: of a stack and a batch, (members,).

    Args:
        network: one of the members'; they are of one architecture.
        members: have one `loss` and its options.
        precision: of all members, as `precision.logits` takes it.
        label_smoothing: of all members, as `accuracy_loss` takes it.
    """
    device = data.train.images.device
    return accuracy_loss(
        targets or Targets(),
        torch.tensor([m.hparams.temperature for m in members], device=device),
        torch.tensor([m.hparams.alpha for m in members], device=device),
        label_smoothing,
        precision=precision,
        student_logits=partial(autocast_logits, half=uses_bfloat16(network, device, precision)),
        soft=members[0].hparams.soft_term,
    )


def train(
    stack: Stack,
    members: Sequence[Member[HparamsT]],
    data: Splits,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    seed_offset: int = 0,
    rate_schedule: RateSchedule = cosine_schedule,
    before_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, list[float]], None],
) -> None:
    """`loop.train` of every member, until none takes part any more.

    Args:
        seed_offset: is added to each member's seed.
        after_epoch: takes the epoch's number, from 1, and each member's mean training loss.
    """
    if all(member.failure for member in members):
        return
    common = members[0].hparams
    batches = EpochBatches(data, common.augment, members=stack.members)
    trained = train_epochs(
        stack,
        batches,
        loss,
        optimiser,
        rates=schedule(batches, optimiser, epochs, common.batch_size, rate_schedule),
        generators=[torch.Generator().manual_seed(m.hparams.seed + seed_offset) for m in members],
        epochs=range(1, epochs + 1),
        batch_size=common.batch_size,
        before_step=before_step,
    )
    for epoch, losses in trained:
        after_epoch(epoch, losses)
        if all(member.failure for member in members):
            return


def end_unless_finite(
    members: Sequence[Member[LossHparamsT]], losses: Sequence[float]
) -> list[tuple[int, Member[LossHparamsT]]]:
    """End the members whose loss in an epoch is not a finite number; those that still take part, with their places."""
    for member, loss in zip(members, losses, strict=True):
        try:
            require_finite(loss)
        except TrialFailed as error:
            member.fail(error)
    return [(index, member) for index, member in enumerate(members) if not member.failure]


def conclude_members(
    members: Sequence[Member[HparamsT]],
    ends: Callable[[int], tuple[nn.Module, QuantisedWeights]],
    data: Splits,
    epochs: int,
    *,
    trained: bool,
) -> list[MemberResult]:
    """`codebook_training.conclude` of every member that takes part.

    Args:
        ends: member's place → its network, which is changed and copied, and its quantised weights.
        epochs: that were trained.
    """
    results: list[MemberResult] = []
    for index, member in enumerate(members):
        if not member.failure:
            network, quantised = ends(index)
            try:
                end, metrics = conclude(network, quantised, member.hparams, data, member.trace, epochs, trained=trained)
                results.append((copy.deepcopy(network), end, metrics))
            except TrialFailed as error:
                member.fail(error)
        if member.failure:
            results.append(member.failure)
    return results
