"""Quantised training of every member of a pack at once; alone it is `study.compression.quantised_training`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.weight_trace import nonzero_by_layer
from study.compression.codebook_training import validation_metrics
from study.compression.kmeans import kmeans
from study.compression.quantised_training import DROP_AT, PHASE, adam_over
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.compression.size_metrics import metrics_of_counts
from study.compression.unread_weights import unread
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common.network_stack import Stack, WithWeights
from study.methods.common.packed_codebooks import occupancy, rows
from study.methods.common.packed_training import HparamsT, Member, end_unless_finite, train
from study.training.batches import Batch, steps_per_epoch
from study.training.loop import Loss


class SharedValuesOfMembers:
    """`SharedValues` of every member: the survivors of all members one after another, each member with its values.

    Attributes:
        weights: of the survivors, (survivors,); trained, and never seen by the networks.
        values: the codebooks without their zero, (members, values), the shorter ones followed by values that no weight
            has; trained.
        alive: which survivors may have a value other than zero, (survivors,), bool.

    Args:
        survives: which weights do, (members, weights), bool.
        values: each member's first codebook without its zero.
    """

    def __init__(self, stack: Stack, survives: Tensor, values: Sequence[Tensor]) -> None:
        self.stack, self._shape = stack, survives.shape
        self.survivors = survives.flatten().nonzero().flatten()
        self._slices = _slices(survives)
        self.weights = nn.Parameter(stack.weights().detach().flatten()[self.survivors])
        self.values = nn.Parameter(rows(values).to(self.weights.dtype))
        self.alive = torch.ones_like(self.survivors, dtype=torch.bool)
        self._sizes = [len(v) for v in values]
        missing = ~rows([torch.ones_like(v, dtype=torch.bool) for v in values])
        self._missing = F.pad(missing, (1, 0))  # the zero is there
        self._member = self.survivors // survives.shape[1]

    def codebooks(self) -> Tensor:
        """The values of each member, zero first, (members, values); differentiable."""
        return F.pad(self.values, (1, 0))

    def assignment(self) -> Tensor:
        """Index of the value nearest to each survivor, (survivors,), int64; 0 is zero, which has index 0."""
        values = self.codebooks().detach().masked_fill(self._missing, torch.inf)
        distances = (self.weights.detach()[:, None] - values[self._member]).abs()
        return distances.argmin(dim=1) * self.alive

    def quantised_weights(self) -> Tensor:
        """What the networks compute with, (members, weights): the nearest values.

        A weight has the gradient of its value, as if it had not been rounded, and a value the sum over the weights that
        share it; see `quantised_training.straight_through`.
        """
        codebooks = self.codebooks()
        nearest = codebooks.flatten()[self._member * codebooks.shape[1] + self.assignment()]
        return self._matrix(nearest + (self.weights - self.weights.detach()))  # exactly the value: w − w is 0

    @torch.no_grad()
    def trained_weights(self) -> Tensor:
        """The trained weights, and zero elsewhere, (members, weights)."""
        return self._matrix(self.weights * self.alive)

    def _matrix(self, values: Tensor) -> Tensor:
        """A number for each survivor, and zero for all other weights: (survivors,) → (members, weights)."""
        return values.new_zeros(self._shape.numel()).index_copy(0, self.survivors, values).view(self._shape)

    def counts(self) -> Tensor:
        """Weights of each member that have each value, zero first: (members, values), on the host."""
        return occupancy(self._matrix(self.assignment()), 1 + self.values.shape[1])

    def drop_zeros(self) -> None:
        """Survivors that have the value zero now stay at zero from here on."""
        self.alive &= self.assignment() != 0

    @torch.no_grad()
    def drop_unread(self, members: Sequence[Member[HparamsT]], data: Splits) -> None:
        """Survivors that no output depends on stay at zero from here on, of each member that takes part."""
        quantised = self.quantised()
        for index, member in enumerate(members):
            if not member.failure:
                own, network = self._slices[index], self.network(index, quantised[index])
                marked = unread(network, data.shape)
                self.alive[own] &= ~marked[self.survivors[own] - index * self._shape[1]]

    @torch.no_grad()
    def quantised(self) -> list[QuantisedWeights]:
        """Each network as it would be stored now: values without a weight leave the codebook."""
        codebooks, scales = self.codebooks().detach(), self.values.new_ones(len(self.stack.shared))
        return [
            QuantisedWeights(index, values[: 1 + size], scales).without_unused()
            for index, values, size in zip(self._matrix(self.assignment()), codebooks, self._sizes, strict=True)
        ]

    @torch.no_grad()
    def network(self, index: int, quantised: QuantisedWeights) -> nn.Module:
        """One member's network with these weights; the next call overwrites it."""
        network = self.stack.member(index)
        quantised.write(shared_parameters(network))
        return network


def _slices(survives: Tensor) -> list[slice]:
    """Where each member's survivors are among those of all members."""
    ends = survives.sum(dim=1).cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def train_quantised(
    stack: Stack,
    survives: Tensor,
    codebook_sizes: Sequence[int],
    members: Sequence[Member[HparamsT]],
    data: Splits,
    loss: Loss,
    *,
    epochs: int,
    first_epoch: int,
    before: torch.optim.Optimizer,
) -> SharedValuesOfMembers:
    """`quantised_training.train_quantised` of every member; arguments are as there.

    Args:
        survives: (members, weights), bool.
        codebook_sizes: values of each member, zero included.
    """
    common = members[0].hparams
    shared = _start(stack, survives, codebook_sizes, members, data)
    drop_before = 1 + round(DROP_AT * epochs * steps_per_epoch(len(data.train), common.batch_size))
    through_values = WithWeights(stack, shared.quantised_weights, others_learn=True)

    def straight_through(model: nn.Module, batch: Batch) -> Tensor:
        return loss(through_values, batch)

    def before_step(step: int) -> None:
        if step == drop_before:
            shared.drop_zeros()
            shared.drop_unread(members, data)

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> None:
        weights, counts, quantised = shared.trained_weights(), shared.counts(), shared.quantised_weights()
        scores = stack.scores(stack.with_weights(quantised), data)
        epoch += first_epoch - 1
        for index, member in end_unless_finite(members, losses):
            nonzero = nonzero_by_layer(quantised[index], stack.sizes())
            member.trace.add(epoch, PHASE, weights[index], nonzero=nonzero)
            metrics = validation_metrics(scores[index], metrics_of_counts(counts[index]))
            member.report(epoch, PHASE, losses[index], metrics)

    train(
        stack,
        members,
        data,
        straight_through,
        _adam(stack, shared, common.weight_rate, common.codebook_rate, before),
        epochs=epochs,
        seed_offset=1,
        before_step=before_step,
        after_epoch=after_epoch,
    )
    shared.drop_unread(members, data)
    return shared


def _start(
    stack: Stack, survives: Tensor, codebook_sizes: Sequence[int], members: Sequence[Member[HparamsT]], data: Splits
) -> SharedValuesOfMembers:
    """The survivors that an output depends on, with the values that k-means gives them; none of an ended member."""
    survives, weights = survives.clone(), stack.weights().detach()
    values: list[Tensor] = []
    for index, (member, size) in enumerate(zip(members, codebook_sizes, strict=True)):
        if member.failure:
            survives[index] = False
        else:
            survives[index] &= ~unread(stack.member(index), data.shape)
            if not bool(survives[index].any()):
                member.fail(TrialFailed(f"every weight was pruned: {member.hparams.ALL_PRUNED_HINT}"))
        survivors = weights[index][survives[index]]
        values.append(kmeans(survivors, size - 1) if len(survivors) else survivors)
    return SharedValuesOfMembers(stack, survives, values)


def _adam(
    stack: Stack, shared: SharedValuesOfMembers, weight_rate: float, value_rate: float, before: torch.optim.Optimizer
) -> torch.optim.Adam:
    """`adam_over` all members."""
    own = [stack.tensors[name] for name in stack.shared]
    others = [p for name, p in stack.tensors.items() if isinstance(p, nn.Parameter) and name not in stack.shared]

    def survivors_of(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], dim=1).flatten()[shared.survivors]

    return adam_over(shared.weights, shared.values, others, (weight_rate, value_rate), before, own, survivors_of)
