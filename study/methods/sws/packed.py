"""Trials of one network trained together as one batched program: small networks leave most of a GPU idle.

Weights lie on a leading axis, so that matrix products become batched ones, as HFTA does by hand (Wang et al., MLSys
2021, https://arxiv.org/abs/2102.02344). Every member has its own hyperparameters, its own randomness and its own end.
Its results are those of the same trial alone, but for rounding.

The loss, the prior and the training loop are those of a trial alone. What is here is what only a pack has: failures of
single members, scores of all members at once, and codebooks that are looked up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.weight_trace import Trace
from study.compression.codebook_training import conclude, ensure_usable, validation_metrics
from study.compression.quantised_weights import QuantisedWeights, shared_parameters, unit_scales
from study.compression.size_metrics import metrics_of_counts, size_metrics
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.sws import weight_sharing
from study.methods.sws.mixture import Mixture
from study.methods.sws.network_stack import Stack
from study.methods.sws.settings import NOT_PACKABLE
from study.methods.sws.weight_sharing import Hparams
from study.training.batches import Batch, EpochBatches
from study.training.distillation import Targets, accuracy_loss
from study.training.loop import Loss, Report, epoch_row, require_finite, schedule, train_epochs
from study.training.precision import autocast_logits, uses_bfloat16

MemberResult = tuple[nn.Module, QuantisedWeights, dict[str, float]] | Exception
"""Of one member: its network, quantised weights and final metrics, or why it ended before."""


class Member:
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
        self, hparams: Hparams, on_epoch: Report, on_failure: Callable[[Exception], None] = lambda error: None
    ) -> None:
        self.hparams = hparams
        self.trace = Trace()
        self._on_epoch, self._on_failure = on_epoch, on_failure
        self.failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End this member alone."""
        if self.failure is None:
            self.failure = error.with_traceback(None)  # a traceback would keep the tensors of the pack
            self._on_failure(self.failure)

    def report(self, epoch: int, phase: str, train_loss: float, metrics: Mapping[str, float]) -> None:
        """Report an epoch. A loss that is not finite, or an exception of `on_epoch`, ends this member."""
        try:
            self._on_epoch(epoch_row(epoch, phase, require_finite(train_loss), metrics))
        except Exception as error:
            self.fail(error)


SAME_IN_A_PACK = ("epochs", "batch_size", "weight_rate", "mean_rate", "precision_rate", "proportion_rate", "augment",
                  "precision", "codebook_epochs", "codebook_rate", "anneal")  # fmt: skip
"""Hyperparameters that all members share."""


def fit(
    networks: Sequence[nn.Module], members: Sequence[Member], data: Splits, targets: Targets | None = None
) -> list[MemberResult]:
    """`weight_sharing.fit` of many pretrained networks of one architecture at once.

    Returns: the outcome of each member.
    Raises:
        ValueError: members that cannot be packed.
    """
    common = members[0].hparams
    if any(getattr(m.hparams, name) != getattr(common, name) for m in members for name in SAME_IN_A_PACK):
        raise ValueError(f"members of a pack have the same {', '.join(SAME_IN_A_PACK)}")
    if any(getattr(m.hparams, name) for m in members for name in NOT_PACKABLE):
        raise ValueError(f"{', '.join(NOT_PACKABLE)} cannot be packed")
    device = data.train.images.device
    stack = Stack(networks)
    loss = accuracy_loss(
        targets or Targets(),
        torch.tensor([m.hparams.temperature for m in members], device=device),
        torch.tensor([m.hparams.alpha for m in members], device=device),
        precision=common.precision,
        student_logits=partial(autocast_logits, half=uses_bfloat16(networks[0], device, common.precision)),
    )
    mixtures = cluster(stack, members, data, loss)
    return finish(stack, mixtures, members, data, loss)


def train(
    stack: Stack,
    members: Sequence[Member],
    data: Splits,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    seed_offset: int = 0,
    before_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, list[float]], None],
) -> None:
    """`loop.train` of every member, until none takes part any more.

    Args:
        seed_offset: is added to each member's seed.
        after_epoch: takes the epoch's number, from 1, and each member's mean training loss.
    """
    common = members[0].hparams
    batches = EpochBatches(data, common.augment, members=stack.members)
    trained = train_epochs(
        stack,
        batches,
        loss,
        optimiser,
        rates=schedule(batches, optimiser, epochs, common.batch_size),
        generators=[torch.Generator().manual_seed(m.hparams.seed + seed_offset) for m in members],
        epochs=range(1, epochs + 1),
        batch_size=common.batch_size,
        before_step=before_step,
    )
    for epoch, losses in trained:
        after_epoch(epoch, losses)
        if all(member.failure for member in members):
            return


def cluster(stack: Stack, members: Sequence[Member], data: Splits, loss: Loss) -> list[Mixture]:
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


def occupancy(assignment: Tensor, components: int) -> Tensor:
    """Weights of each member in each component: (members, weights) → (members, components), on the host."""
    counts = torch.bincount(places(assignment, components).flatten(), minlength=len(assignment) * components)
    return counts.view(len(assignment), components).cpu()


def places(assignment: Tensor, components: int) -> Tensor:
    """Place of each weight's component in a list of all members' components: (members, weights)."""
    return assignment + components * torch.arange(len(assignment), device=assignment.device)[:, None]


def finish(
    stack: Stack, mixtures: Sequence[Mixture], members: Sequence[Member], data: Splits, loss: Loss
) -> list[MemberResult]:
    """`codebook_training.finish` of every member: quantise, train the codebooks, score."""
    common = members[0].hparams
    quantised: list[QuantisedWeights] = []
    for index, (member, mixture) in enumerate(zip(members, mixtures, strict=True)):
        network = stack.member(index)
        quantised.append(weight_sharing.quantise(network, mixture, unit_scales(shared_parameters(network))))
        try:
            ensure_usable(quantised[-1], member.hparams.ALL_PRUNED_HINT)
        except TrialFailed as error:
            member.fail(error)
    codebooks = Codebooks(stack, quantised)
    if common.codebook_epochs and not all(member.failure for member in members):
        train_values(stack, codebooks, members, data, loss)
    results: list[MemberResult] = []
    for index, member in enumerate(members):
        if not member.failure:
            network, now = codebooks.member(index)
            try:
                epochs, trained = common.epochs + common.codebook_epochs, common.codebook_epochs > 0
                now, metrics = conclude(network, now, member.hparams, data, member.trace, epochs, trained=trained)
                results.append((copy.deepcopy(network), now, metrics))
            except TrialFailed as error:
                member.fail(error)
        if member.failure:
            results.append(member.failure)
    return results


def train_values(stack: Stack, codebooks: Codebooks, members: Sequence[Member], data: Splits, loss: Loss) -> None:
    """`codebook_training.train_values` of every member; the codebooks are changed in place.

    Alone, the values are written into a network, whose gradients the chain rule sums up. Here they are looked up, since
    the weights of a stack are arguments. One implementation of both would round a trial alone otherwise than before.
    """
    common = members[0].hparams
    sizes = [size_metrics(q) for q in codebooks.quantised]

    def through_codebooks(model: nn.Module, batch: Batch) -> Tensor:
        return loss(codebooks, batch)

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> None:
        scores = stack.scores(stack.with_weights(codebooks.weights()), data)
        for index, member in enumerate(members):
            if not member.failure:
                metrics = validation_metrics(scores[index], sizes[index])
                member.report(common.epochs + epoch, "codebook", losses[index], metrics)

    train(
        stack,
        members,
        data,
        through_codebooks,
        torch.optim.Adam([codebooks.values], lr=common.codebook_rate, fused=True),
        epochs=common.codebook_epochs,
        seed_offset=2,
        after_epoch=after_epoch,
    )


class Codebooks(nn.Module):
    """A stack whose shared weights are values of codebooks, one for each member, which are trained."""

    def __init__(self, stack: Stack, quantised: Sequence[QuantisedWeights]) -> None:
        super().__init__()
        self._stack, self.quantised = [stack], list(quantised)
        most = max(len(q.values) for q in quantised)
        self.values = nn.Parameter(torch.stack([F.pad(q.values, (0, most - len(q.values))) for q in quantised]))
        assignment = torch.stack([q.assignment for q in quantised])
        self._shape = assignment.shape
        # Pruned weights stay zero: only the others are looked up, and have a gradient to add up.
        self._nonzero = assignment.flatten().nonzero().flatten()
        self._places = places(assignment, most).flatten()[self._nonzero]

    def weights(self) -> Tensor:
        """(members, weights)."""
        flat = self.values.new_zeros(self._shape.numel())
        return flat.index_copy(0, self._nonzero, self.values.flatten()[self._places]).view(self._shape)

    def forward(self, images: Tensor) -> Tensor:
        """(members, batch, channels, height, width) → (members, batch, classes)."""
        stack = self._stack[0]
        return stack.through(stack.with_weights(self.weights()), images)

    @torch.no_grad()
    def member(self, index: int) -> tuple[nn.Module, QuantisedWeights]:
        """One member's network with its present values; the next call overwrites it."""
        network, quantised = self._stack[0].member(index), self.quantised[index]
        now = replace(quantised, values=self.values[index, : len(quantised.values)].clone())
        now.write(shared_parameters(network))
        return network, now
