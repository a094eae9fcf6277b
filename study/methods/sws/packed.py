"""Trials of one network trained together as one batched program: small networks leave most of a GPU idle.

Weights lie on a leading axis, so that matrix products become batched ones, as HFTA does by hand (Wang et al., MLSys
2021, https://arxiv.org/abs/2102.02344). Every member has its own hyperparameters, its own randomness and its own end;
what one does is what it would do alone, but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.weight_trace import Trace
from study.compression.codebook_training import ensure_usable, metrics_row, score, trace_end
from study.compression.quantised_weights import QuantisedWeights, Report, shared_parameters, unit_scales
from study.compression.size_metrics import metrics_of_counts, size_metrics
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.sws import weight_sharing
from study.methods.sws.mixture import Mixture
from study.methods.sws.network_stack import Stack
from study.methods.sws.weight_sharing import Hparams
from study.settings import UNPACKED
from study.training.batches import Batch, EpochBatches
from study.training.cuda_graphs import cosine_schedule, make_step, run_epoch
from study.training.distillation import Targets
from study.training.loop import finite
from study.training.precision import autocast_logits, uses_bfloat16


def train(
    stack: Stack,
    data: Splits,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seeds: Sequence[int],
    augment: str = "none",
    before_step: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, list[float]], bool],
) -> None:
    """`training.train` of many networks at once; `loss` gives (members,) and seeds are one a member.

    Args:
        after_epoch: is given the epoch's number, from 1, and each member's mean training loss; False ends the training.
    """
    views = EpochBatches(data, augment, members=stack.members)
    batches = views.split(batch_size)
    total = torch.zeros(stack.members, device=views.order.device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rates = cosine_schedule([group["lr"] for group in optimiser.param_groups], epochs * len(batches))
    run = make_step(stack, views, loss, optimiser, total)
    for epoch in range(1, epochs + 1):
        stack.train()
        total.zero_()
        views.shuffle(*generators)
        run_epoch(run, batches, optimiser, rates, (epoch - 1) * len(batches), before_step)
        if not after_epoch(epoch, (total / len(data.train)).tolist()):
            return


def accuracy_loss(
    targets: Targets, temperature: Tensor, alpha: Tensor, half: bool = False, precision: str | None = None
) -> Callable[[nn.Module, Batch], Tensor]:
    """`kd.distillation_loss` of every member, with its own temperature and alpha, (members,); without a teacher,
    cross-entropy.

    Args:
        temperature, alpha: (members,).
        half: whether the members compute their products in bfloat16.
        precision: of a teacher that runs in every step.
    """
    taught = targets.logits is not None or targets.teacher is not None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        student = autocast_logits(model, batch.images, half)
        hard = F.cross_entropy(student.flatten(0, 1), batch.labels.flatten(), reduction="none")
        hard = hard.view(batch.labels.shape).mean(dim=1)
        if not taught:
            return hard
        if targets.teacher is not None:
            flat = replace(batch, images=batch.images.flatten(0, 1))
            teacher = targets.of(flat, precision).view_as(student)
        else:
            teacher = targets.of(batch)
        t = temperature.view(-1, 1, 1)
        log_q, log_p = F.log_softmax(student / t, dim=-1), F.log_softmax(teacher / t, dim=-1)
        soft = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1).mean(dim=1)
        return alpha * temperature**2 * soft + (1 - alpha) * hard

    return loss


class Member:
    """One trial of a pack, as whoever waits for it sees it.

    Attributes:
        hparams: its own.
        on_epoch: hears its rows; what it raises (a trial that is stopped) ends this member alone.
        trace: of its weights.
        failure: why it takes no part any more; None while it does.

    Args:
        on_failure: hears that at once.
    """

    def __init__(
        self, hparams: Hparams, on_epoch: Report, on_failure: Callable[[Exception], None] = lambda error: None
    ) -> None:
        self.hparams, self._on_epoch, self._on_failure = hparams, on_epoch, on_failure
        self.trace = Trace()
        self.failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End this member alone."""
        if self.failure is None:
            self.failure = error.with_traceback(None)  # which would hold the whole pack
            self._on_failure(self.failure)

    def report(self, epoch: int, phase: str, row: dict[str, float], loss: float) -> None:
        """Tell an epoch's row, unless the loss is no number; that, or what `on_epoch` raises, ends this member."""
        try:
            self._on_epoch({"epoch": epoch, "phase": phase, **row, "train_loss": finite(loss)})
        except Exception as error:
            self.fail(error)


SAME = ("epochs", "batch_size", "weight_rate", "mean_rate", "precision_rate", "proportion_rate", "augment", "precision",
        "codebook_epochs", "codebook_rate", "anneal")  # fmt: skip
"""Hyperparameters that all members have the same."""


def fit(
    networks: Sequence[nn.Module], members: Sequence[Member], data: Splits, targets: Targets | None = None
) -> list[tuple[nn.Module, QuantisedWeights, dict[str, float]] | Exception]:
    """`sws.fit` of many pretrained networks of one architecture at once.

    Returns: for each member its network, quantised weights and final metrics, or why it ended before.
    Raises:
        ValueError: members that cannot be packed.
    """
    common = members[0].hparams
    if any(getattr(m.hparams, name) != getattr(common, name) for m in members for name in SAME):
        raise ValueError(f"members of a pack have the same {', '.join(SAME)}")
    if any(getattr(m.hparams, name) for m in members for name in UNPACKED):
        raise ValueError(f"{', '.join(UNPACKED)} cannot be packed")
    device = data.train.images.device
    stack = Stack(networks)
    loss = accuracy_loss(
        targets or Targets(),
        torch.tensor([m.hparams.temperature for m in members], device=device),
        torch.tensor([m.hparams.alpha for m in members], device=device),
        uses_bfloat16(networks[0], device, common.precision),
        common.precision,
    )
    mixtures = cluster(stack, members, data, loss)
    return finish(stack, mixtures, members, data, loss)


def cluster(
    stack: Stack, members: Sequence[Member], data: Splits, loss: Callable[[nn.Module, Batch], Tensor]
) -> list[Mixture]:
    """`sws.cluster` of every member; the stack is changed in place."""
    common = members[0].hparams
    device = data.train.images.device
    starts = [weight_sharing.mixture_over(w, m.hparams) for w, m in zip(stack.weights().detach(), members, strict=True)]
    mixture = Mixture.stacked(starts)
    factor = torch.tensor([m.hparams.tau / len(data.train) for m in members], device=device)
    risen, anneal = weight_sharing.annealing(common, data, common.anneal)

    def under_prior(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model, batch) + factor * risen * mixture.complexity(stack.weights())

    def alone(index: int) -> Mixture:
        return mixture.member(index, members[index].hparams.components)

    def see(epoch: int, phase: str, weights: Tensor) -> None:
        shapes = mixture.shape()
        for index, member in enumerate(members):
            if not member.failure:
                own = {name: tensor[index, : member.hparams.components] for name, tensor in shapes.items()}
                member.trace.add(epoch, phase, weights[index], own)

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> bool:
        """What quantising now would give, as `sws.cluster` tells it, of all members at once."""
        weights = stack.weights()
        see(epoch, "cluster", weights)
        assignment = mixture.assign(weights)
        unquantised = stack.scores(stack.tensors, data)
        quantised = stack.scores(stack.with_weights(mixture.means.gather(1, assignment)), data)
        counts = occupancy(assignment, mixture.means.shape[1])
        for member, value, before, after, held in zip(members, losses, unquantised, quantised, counts, strict=True):
            if not member.failure:
                row = metrics_row(after, metrics_of_counts(held[: member.hparams.components]))
                member.report(epoch, "cluster", {**row, "unquantised_val_accuracy": before.accuracy}, value)
        return any(not member.failure for member in members)

    see(0, "before", stack.weights().detach())
    train(
        stack,
        data,
        under_prior,
        weight_sharing.adam(stack.parameters(), mixture, common),
        epochs=common.epochs,
        batch_size=common.batch_size,
        seeds=[m.hparams.seed for m in members],
        augment=common.augment,
        before_step=anneal,
        after_epoch=after_epoch,
    )
    return [alone(index) for index in range(stack.members)]


def occupancy(assignment: Tensor, components: int) -> Tensor:
    """How many of each member's weights, (members, weights), belong to each component: (members, components), on the
    host."""
    counts = torch.bincount(places(assignment, components).flatten(), minlength=len(assignment) * components)
    return counts.view(len(assignment), components).cpu()


def places(assignment: Tensor, components: int) -> Tensor:
    """Where each weight's component is among those of all members, one after another: (members, weights)."""
    return assignment + components * torch.arange(len(assignment), device=assignment.device)[:, None]


def finish(
    stack: Stack,
    mixtures: Sequence[Mixture],
    members: Sequence[Member],
    data: Splits,
    loss: Callable[[nn.Module, Batch], Tensor],
) -> list[tuple[nn.Module, QuantisedWeights, dict[str, float]] | Exception]:
    """`quantised.finish` of every member: quantise, train the codebooks, score."""
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

    def through(model: nn.Module, batch: Batch) -> Tensor:
        return loss(codebooks, batch)

    sizes = [size_metrics(q) for q in quantised]

    @torch.no_grad()
    def after_epoch(epoch: int, losses: list[float]) -> bool:
        scores = stack.scores(stack.with_weights(codebooks.weights()), data)
        for member, value, found, size in zip(members, losses, scores, sizes, strict=True):
            if not member.failure:
                member.report(common.epochs + epoch, "codebook", metrics_row(found, size), value)
        return any(not member.failure for member in members)

    if common.codebook_epochs and any(not member.failure for member in members):
        train(
            stack,
            data,
            through,
            torch.optim.Adam([codebooks.values], lr=common.codebook_rate, fused=True),
            epochs=common.codebook_epochs,
            batch_size=common.batch_size,
            seeds=[m.hparams.seed + 2 for m in members],
            augment=common.augment,
            after_epoch=after_epoch,
        )
    found: list[tuple[nn.Module, QuantisedWeights, dict[str, float]] | Exception] = []
    for index, member in enumerate(members):
        if member.failure:
            found.append(member.failure)
            continue
        try:
            network, now = codebooks.member(index)
            ensure_usable(now, member.hparams.ALL_PRUNED_HINT)
            trace_end(member.trace, common.epochs + common.codebook_epochs, network, now)
            found.append((copy.deepcopy(network), now, score(network, now, data)))
        except TrialFailed as error:
            member.fail(error)
            found.append(error.with_traceback(None))
    return found


class Codebooks(nn.Module):
    """A stack whose shared weights are codebook values, which are trained: of every member its own."""

    def __init__(self, stack: Stack, quantised: Sequence[QuantisedWeights]) -> None:
        super().__init__()
        self._stack, self.quantised = [stack], list(quantised)
        most = max(len(q.values) for q in quantised)
        self.values = nn.Parameter(torch.stack([F.pad(q.values, (0, most - len(q.values))) for q in quantised]))
        assignment = torch.stack([q.assignment for q in quantised])
        self._shape = assignment.shape
        # Pruned weights stay zero: only the others are looked up, and have a gradient to add up.
        self._kept = assignment.flatten().nonzero().flatten()
        self._which = places(assignment, most).flatten()[self._kept]

    def weights(self) -> Tensor:
        """(members, weights)."""
        flat = self.values.new_zeros(self._shape.numel())
        return flat.index_copy(0, self._kept, self.values.flatten()[self._which]).view(self._shape)

    def forward(self, images: Tensor) -> Tensor:
        """(members, batch, channels, height, width) → (members, batch, classes)."""
        stack = self._stack[0]
        return stack.through(stack.with_weights(self.weights()), images)

    @torch.no_grad()
    def member(self, index: int) -> tuple[nn.Module, QuantisedWeights]:
        """One member's network with the values as they are now, to be looked at until the next call."""
        network, quantised = self._stack[0].member(index), self.quantised[index]
        now = replace(quantised, values=self.values[index, : len(quantised.values)].clone())
        now.write(shared_parameters(network))
        return network, now
