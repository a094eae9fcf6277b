"""Packs of soft weight-sharing: one prior for all members, and what quantising now would give, of all at once.

The prior is that of a trial alone; `study.methods.common.packed_training` says what a pack is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from study.compression.codebook_training import validation_metrics
from study.compression.quantised_weights import shared_parameters, unit_scales
from study.compression.size_metrics import metrics_of_counts
from study.data.splits import Splits
from study.methods.common import packed_training
from study.methods.common.network_stack import Stack
from study.methods.common.packed_codebooks import finish, occupancy
from study.methods.common.packed_training import Member, MemberResult, loss_of_members, require_same, train
from study.methods.sws import weight_sharing
from study.methods.sws.mixture import Mixture
from study.methods.sws.settings import NOT_PACKABLE
from study.methods.sws.weight_sharing import Hparams
from study.training.distillation import Targets
from study.training.loop import Loss

SAME_IN_A_PACK = (*packed_training.SAME_IN_A_PACK, "mean_rate", "precision_rate", "proportion_rate", "anneal")
"""Hyperparameters that all members share."""


def fit(
    networks: Sequence[nn.Module], members: Sequence[Member[Hparams]], data: Splits, targets: Targets | None = None
) -> list[MemberResult]:
    """`weight_sharing.fit` of many pretrained networks of one architecture at once.

    Returns: the outcome of each member.
    Raises:
        ValueError: members that cannot be packed.
    """
    common = require_same(members, SAME_IN_A_PACK)
    if any(getattr(m.hparams, name) for m in members for name in NOT_PACKABLE):
        raise ValueError(f"{', '.join(NOT_PACKABLE)} cannot be packed")
    stack = Stack(networks)
    loss = loss_of_members(networks[0], members, data, targets, common.precision)
    mixtures = cluster(stack, members, data, loss)
    quantised = []
    for index, mixture in enumerate(mixtures):
        network = stack.member(index)
        quantised.append(weight_sharing.quantise(network, mixture, unit_scales(shared_parameters(network))))
    return finish(stack, quantised, members, data, loss, seed_offset=2)


def cluster(stack: Stack, members: Sequence[Member[Hparams]], data: Splits, loss: Loss) -> list[Mixture]:
    """`weight_sharing.cluster` of every member; the stack is changed in place."""
    common = members[0].hparams
    starts = [weight_sharing.mixture_over(w, m.hparams) for w, m in zip(stack.weights().detach(), members, strict=True)]
    mixture = Mixture.stacked(starts)
    factor = torch.tensor([m.hparams.tau / len(data.train) for m in members], device=data.train.images.device)
    tau_share, anneal = weight_sharing.annealing(common, data, common.anneal)

    def add_frames(epoch: int, phase: str, weights: Tensor) -> None:
        shapes = mixture.shape()
        for index, member in enumerate(members):
            if not member.failure:
                own = {name: tensor[index, : member.hparams.components] for name, tensor in shapes.items()}
                member.trace.add(epoch, phase, weights[index], own)

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> None:
        """What quantising now would give, as `weight_sharing.cluster` reports it, of all members at once."""
        weights = stack.weights()
        add_frames(epoch, "cluster", weights)
        assignment = mixture.assign(weights)
        before = stack.scores(stack.tensors, data)
        after = stack.scores(stack.with_weights(mixture.means.gather(1, assignment)), data)
        counts = occupancy(assignment, mixture.means.shape[1])
        for index, member in enumerate(members):
            if not member.failure:
                size = metrics_of_counts(counts[index, : member.hparams.components])
                metrics = validation_metrics(after[index], size, unquantised=before[index])
                member.report(epoch, "cluster", losses[index], metrics)

    add_frames(0, "before", stack.weights().detach())
    train(
        stack,
        members,
        data,
        weight_sharing.under_prior(loss, mixture, stack.weights, factor, tau_share),
        weight_sharing.adam(stack.parameters(), mixture, common),
        epochs=common.epochs,
        before_step=anneal,
        after_epoch=after_epoch,
    )
    return [mixture.member(index, member.hparams.components) for index, member in enumerate(members)]
