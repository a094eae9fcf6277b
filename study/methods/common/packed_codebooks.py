"""The last phase of every member of a pack: codebooks that are looked up, and trained, at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.compression.codebook_training import ensure_usable, validation_metrics
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.compression.size_metrics import size_metrics
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common.network_stack import Stack, WithWeights
from study.methods.common.packed_training import (
    HparamsT,
    Member,
    MemberResult,
    conclude_members,
    end_unless_finite,
    train,
)
from study.training.batches import Batch
from study.training.loop import Loss
from study.training.torch_optimisers import Adam


def finish(
    stack: Stack,
    quantised: Sequence[QuantisedWeights],
    members: Sequence[Member[HparamsT]],
    data: Splits,
    loss: Loss,
    *,
    seed_offset: int,
) -> list[MemberResult]:
    """`codebook_training.finish` of every member: train the codebooks, score.

    Args:
        quantised: each member's weights; of one that has ended, any.
    """
    common = members[0].hparams
    for member, weights in zip(members, quantised, strict=True):
        try:
            ensure_usable(weights, member.hparams.ALL_PRUNED_HINT)
        except TrialFailed as error:
            member.fail(error)
    codebooks = Codebooks(stack, quantised)
    if common.codebook_epochs:
        train_values(stack, codebooks, members, data, loss, seed_offset)
    epochs = common.epochs + common.codebook_epochs
    return conclude_members(members, codebooks.member, data, epochs, trained=common.codebook_epochs > 0)


def train_values(
    stack: Stack, codebooks: Codebooks, members: Sequence[Member[HparamsT]], data: Splits, loss: Loss, seed_offset: int
) -> None:
    """`codebook_training.train_values` of every member; the codebooks are changed in place.

    Alone, the values are written into a network, whose gradients the chain rule sums up. Here they are looked up, since
    the weights of a stack are arguments. One implementation of both would round a trial alone otherwise than before.
    """
    common = members[0].hparams
    sizes = [size_metrics(q) for q in codebooks.quantised]
    through_codebooks = WithWeights(stack, codebooks.weights)

    def through(model: nn.Module, batch: Batch) -> Tensor:
        return loss(through_codebooks, batch)

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> None:
        scores = stack.scores(stack.with_weights(codebooks.weights(rounded=True)), data)
        for index, member in end_unless_finite(members, losses):
            metrics = validation_metrics(scores[index], sizes[index])
            member.report(common.epochs + epoch, "codebook", losses[index], metrics)

    train(
        stack,
        members,
        data,
        through,
        Adam([codebooks.values], lr=common.codebook_rate, fused=True),
        epochs=common.codebook_epochs,
        seed_offset=seed_offset,
        after_epoch=after_epoch,
    )


class Codebooks:
    """Codebooks of a stack's members, one for each, whose values are trained.

    Attributes:
        quantised: as they were at first.
        values: (members, values), the shorter codebooks followed by values that no weight has; trained.
    """

    def __init__(self, stack: Stack, quantised: Sequence[QuantisedWeights]) -> None:
        self._stack, self.quantised = stack, list(quantised)
        self.values = nn.Parameter(rows([q.values for q in quantised]))
        assignment = torch.stack([q.assignment for q in quantised])
        self._shape = assignment.shape
        # Pruned weights stay zero: only the others are looked up, and have a gradient to add up.
        self._nonzero = assignment.flatten().nonzero().flatten()
        self._places = places(assignment, self.values.shape[1]).flatten()[self._nonzero]

    def weights(self, rounded: bool = False) -> Tensor:
        """(members, weights), from values as they are, or rounded as `QuantisedWeights.rounded` says."""
        values: Tensor = self.values
        if rounded:
            values = rows([self._current(index).rounded().values for index in range(len(self.quantised))])
        flat = values.new_zeros(self._shape.numel())
        return flat.index_copy(0, self._nonzero, values.flatten()[self._places]).view(self._shape)

    @torch.no_grad()
    def member(self, index: int) -> tuple[nn.Module, QuantisedWeights]:
        """One member's network with its present values; the next call overwrites it."""
        network, current = self._stack.member(index), self._current(index)
        current.write(shared_parameters(network))
        return network, current

    def _current(self, index: int) -> QuantisedWeights:
        quantised = self.quantised[index]
        return replace(quantised, values=self.values.detach()[index, : len(quantised.values)].clone())


def rows(vectors: Sequence[Tensor]) -> Tensor:
    """Vectors as the rows of a matrix, the shorter ones followed by zeros: (vectors, length of the longest)."""
    most = max(map(len, vectors))
    return torch.stack([F.pad(vector, (0, most - len(vector))) for vector in vectors])


def occupancy(assignment: Tensor, values: int) -> Tensor:
    """Weights of each member that have each value: (members, weights) → (members, values), on the host."""
    counts = torch.bincount(places(assignment, values).flatten(), minlength=len(assignment) * values)
    return counts.view(len(assignment), values).cpu()


def places(assignment: Tensor, values: int) -> Tensor:
    """Place of each weight's value in a list of all members' values, so many for each: (members, weights)."""
    return assignment + values * torch.arange(len(assignment), device=assignment.device)[:, None]
