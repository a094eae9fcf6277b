"""Pinning of every member of a pack at once: alone it is `study.methods.common.pinning`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from study.artifacts.weight_trace import nonzero_by_layer
from study.compression.codebook_training import validation_metrics
from study.compression.quantised_weights import QuantisedWeights
from study.compression.size_metrics import size_metrics
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common import packed_training, pinning
from study.methods.common.decisions import Decisions
from study.methods.common.network_stack import Stack
from study.methods.common.packed_codebooks import finish
from study.methods.common.packed_quantised import train_quantised
from study.methods.common.packed_training import (
    Member,
    MemberResult,
    conclude_members,
    end_unless_finite,
    loss_of_members,
    require_same,
    train,
)
from study.methods.common.pinning import PinningHparams
from study.training.batches import steps_per_epoch
from study.training.distillation import Targets
from study.training.loop import Loss
from study.training.schedules import constant_schedule, cosine_schedule
from study.training.torch_optimisers import Adam

Members = Sequence[Member[PinningHparams]]
"""Of one pack."""

SAME_IN_A_PACK = (*packed_training.SAME_IN_A_PACK, "ramp", "quantised_training")
"""Hyperparameters that all members share."""


def fit(
    networks: Sequence[nn.Module], members: Members, data: Splits, targets: Targets | None = None
) -> list[MemberResult]:
    """`pinning.fit` of many pretrained networks of one architecture at once.

    Returns: the outcome of each member.
    Raises:
        ValueError: members that cannot be packed.
    """
    common = require_same(members, SAME_IN_A_PACK)
    stack = Stack(networks)
    loss = loss_of_members(networks[0], members, data, targets, common.precision)
    survives, optimiser = prune(stack, members, data, loss)
    sizes = [member.hparams.distinct_values for member in members]
    if not common.quantised_training:
        quantised = _quantise(stack, survives, sizes, members)
        return finish(stack, quantised, members, data, loss, seed_offset=1)
    shared = train_quantised(
        stack,
        survives,
        sizes,
        members,
        data,
        loss,
        epochs=common.epochs - common.pruning_epochs,
        first_epoch=common.pruning_epochs + 1,
        before=optimiser,
    )
    ends = shared.quantised()
    return conclude_members(members, lambda i: (shared.network(i, ends[i]), ends[i]), data, common.epochs, trained=True)


def prune(stack: Stack, members: Members, data: Splits, loss: Loss) -> tuple[Tensor, torch.optim.Optimizer]:
    """`pinning.prune` of every member; the stack is changed in place.

    Returns: which weights stay, (members, weights), bool, and the optimiser.
    """
    common, weights = members[0].hparams, stack.weights().detach()
    for index, member in enumerate(members):
        member.trace.add(0, "before", weights[index], nonzero=nonzero_by_layer(weights[index], stack.sizes()))
        try:
            pinning.require_survivors(member.hparams, weights.shape[1])
        except TrialFailed as error:
            member.fail(error)
    survives = torch.ones_like(weights, dtype=torch.bool)
    decisions = [Decisions(own, member.hparams.score_power) for own, member in zip(survives, members, strict=True)]
    zero = _zeroing(stack, survives)

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> None:
        """What clustering now would give, as `pinning.prune` reports it, of all members at once."""
        weights = stack.weights()
        clustered, sizes = weights.clone(), dict[int, dict[str, float]]()
        for index, member in end_unless_finite(members, losses):
            member.trace.add(epoch, "prune", weights[index], nonzero=nonzero_by_layer(weights[index], stack.sizes()))
            size = member.hparams.distinct_values
            quantised = pinning.quantise(weights[index], survives[index], size, len(stack.shared))
            clustered[index], sizes[index] = quantised.values[quantised.assignment], size_metrics(quantised)
        before, after = stack.scores(stack.tensors, data), stack.scores(stack.with_weights(clustered), data)
        for index, size_of_member in sizes.items():
            metrics = validation_metrics(after[index], size_of_member, unquantised=before[index])
            members[index].report(epoch, "prune", losses[index], metrics)

    optimiser = Adam(stack.parameters(), lr=common.weight_rate, fused=True)
    optimiser.register_step_post_hook(zero)  # Adam's momentum moves a pruned weight even without a gradient
    train(
        stack,
        members,
        data,
        loss,
        optimiser,
        epochs=common.pruning_epochs,
        rate_schedule=constant_schedule if common.quantised_training else cosine_schedule,
        before_step=_pinning(stack, survives, decisions, zero, optimiser, members, data),
        after_epoch=after_epoch,
    )
    for index, member in enumerate(members):
        if not member.failure:
            member.trace.fixed |= decisions[index].arrays(survives[index])
    return survives, optimiser


def _pinning(
    stack: Stack,
    survives: Tensor,
    decisions: Sequence[Decisions],
    zero: Callable[..., None],
    optimiser: torch.optim.Optimizer,
    members: Members,
    data: Splits,
) -> Callable[[int], None]:
    """What pins weights at zero before a step, of the members whose ramp has it so; nothing waits for a GPU."""
    parameters, weights = [stack.tensors[name] for name in stack.shared], survives.shape[1]
    steps = steps_per_epoch(len(data.train), members[0].hparams.batch_size)
    ramps = [pinning.ramp_steps(member.hparams, steps) for member in members]

    @torch.no_grad()
    def pin(step: int) -> None:
        counts = {
            index: count
            for index, (member, ramp) in enumerate(zip(members, ramps, strict=True))
            if not member.failure
            and (count := pinning.survivors_after(step, ramp, member.hparams, weights)) is not None
        }
        if not counts:
            return
        now, moments = stack.weights(), None
        if any(members[index].hparams.score_power for index in counts):
            parts = pinning.second_moments(optimiser, parameters)
            moments = torch.cat([part.flatten(1) for part in parts], dim=1) if parts else None
        for index, count in counts.items():
            own = None if moments is None else moments[index]
            survives[index] = pinning.survivors(now[index], own, survives[index], count, decisions[index])
        zero()

    return pin


def _zeroing(stack: Stack, survives: Tensor) -> Callable[..., None]:
    """What sets the weights to zero that do not survive, (members, weights), whenever it is called."""
    pairs = [(stack.tensors[name], part) for name, part in zip(stack.shared, stack.split(survives), strict=True)]

    @torch.no_grad()
    def zero(*_: object) -> None:
        for p, mask in pairs:
            p.mul_(mask.view(p.shape))

    return zero


def _quantise(stack: Stack, survives: Tensor, sizes: Sequence[int], members: Members) -> list[QuantisedWeights]:
    """`pinning.quantise` of every member; of one that has ended, no weight."""
    weights, tensors = stack.weights().detach(), len(stack.shared)
    none = QuantisedWeights(
        torch.zeros_like(survives[0], dtype=torch.int64), weights.new_zeros(1), weights.new_ones(tensors)
    )
    return [
        none if member.failure else pinning.quantise(own, marks, size, tensors)
        for member, own, marks, size in zip(members, weights, survives, sizes, strict=True)
    ]
