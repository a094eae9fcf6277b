"""Pruning step by step while training: weights of the smallest score are pinned at zero for good.

The score is a weight's magnitude, or what the loss would lose without it. What survives gets a few shared values, by
k-means afterwards or by quantised training. `magnitude` and the hard variant of `sws` are this with other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.artifacts.weight_trace import nonzero_by_layer
from study.compression.codebook_training import CodebookHparams, conclude, finish, score_if_quantised
from study.compression.kmeans import kmeans, nearest
from study.compression.quantised_training import train_quantised
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.common.decisions import Decisions
from study.training import distillation
from study.training.batches import steps_per_epoch
from study.training.distillation import Targets
from study.training.loop import Loss, Report, epoch_row, train
from study.training.schedules import constant_schedule, cosine_schedule
from study.training.sparse_layers import SparseLayers
from study.training.torch_optimisers import Adam

PRUNINGS = 100
"""Times that the threshold rises. Zhu & Gupta (2017), sec. 3: whether every 100 or 1,000 steps matters little."""

WARM = 50
"""Steps before the ramp of a score that reads Adam's second moment begins: the moment is an average by then."""


@dataclass(frozen=True, kw_only=True)
class PinningHparams(CodebookHparams):
    """What every method has that prunes by a score.

    Attributes:
        density: share of weights that stay, in (0, 1]. One threshold over all shared parameters decides which.
        epochs: of pruning, and of training the weights that stay.
        ramp: share of `epochs` over which the threshold rises; 0 prunes once, before the first step.
        ramp_power: how steeply the ramp begins; 3 is that of Zhu & Gupta (2017). See `pruned_share`.
        score_power: p of the score w² v̂ᵖ, at least 0, v̂ being Adam's estimate of the squared gradient; 0 is the order
            of magnitudes. 1 is the loss that goes with a weight, by the diagonal of the Fisher information.
        quantised_training: after the ramp the survivors train at their quantised values, in place of retraining,
            k-means and the training of values alone.
    """

    density: float = 0.05
    ramp: float = 0.5
    ramp_power: float = 3.0
    score_power: float = 0.0
    quantised_training: bool = False

    ALL_PRUNED_HINT: ClassVar[str] = "density is too small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise ValueError(f"density {self.density} must be above 0 and at most 1")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp {self.ramp} must be between 0 and 1")
        if not 1 <= self.ramp_power < float("inf"):
            raise ValueError(f"ramp_power {self.ramp_power} must be at least 1")
        if not 0 <= self.score_power < float("inf"):
            raise ValueError(f"score_power {self.score_power} must be at least 0")
        least = 2 if self.quantised_training else 1
        if self.epochs < least:
            raise ValueError(f"epochs {self.epochs} must be at least {least}")

    @property
    def distinct_values(self) -> int:
        """Of all layers together, zero included, at least 2: what a method searches under a name of its own."""
        raise NotImplementedError

    @property
    def pruning_epochs(self) -> int:
        """Epochs before quantised training; all, where there is none."""
        if not self.quantised_training:
            return self.epochs
        return min(max(1, round(self.ramp * self.epochs)), self.epochs - 1)


def fit(
    model: nn.Module,
    hparams: PinningHparams,
    data: Splits,
    on_epoch: Report,
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """Prune and quantise a pretrained network, which is changed in place.

    Args:
        targets: the teacher, where `alpha` is above 0.
        progress: of a trial that was stopped, to go on from.
    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: a loss is not a finite number, or every weight was pruned.
    """
    targets, progress = targets or Targets(), progress or Progress()
    loss = distillation.accuracy_loss(
        targets, hparams.temperature, hparams.alpha, precision=hparams.precision, soft=hparams.soft_term
    )
    survives, optimiser = prune(model, hparams, data, loss, on_epoch, progress)
    if not hparams.quantised_training:
        return finish(
            model,
            cluster(model, survives, hparams.distinct_values),
            loss,
            hparams,
            data,
            on_epoch,
            seed=hparams.seed + 1,
            first_epoch=hparams.epochs + 1,
            progress=progress,
        )
    quantised = train_quantised(
        model,
        survives,
        hparams.distinct_values,
        loss,
        hparams,
        data,
        on_epoch,
        epochs=hparams.epochs - hparams.pruning_epochs,
        first_epoch=hparams.pruning_epochs + 1,
        seed=hparams.seed + 1,
        before=optimiser,
        progress=progress,
    )
    return conclude(model, quantised, hparams, data, progress.trace, hparams.epochs, trained=True)


def prune(
    model: nn.Module,
    hparams: PinningHparams,
    data: Splits,
    loss: Loss,
    on_epoch: Report,
    progress: Progress | None = None,
) -> tuple[Tensor, torch.optim.Optimizer]:
    """Pin more and more of the weights of smallest score at zero while training.

    Those that stay are retrained after the ramp, unless quantised training follows. A pinned weight stays at zero (Zhu
    & Gupta 2017, sec. 3); on MNIST, letting it return while the threshold rises was no better. Every epoch reports what
    clustering now would give. The model is changed in place.

    Args:
        loss: of the model and a batch; scalar, nats per example. Scores are from its gradient alone.
    Returns: which weights stay, (weights,), bool, round(density × weights) of them, and the optimiser.
    Raises:
        TrialFailed: the loss is not a finite number, or every weight was pruned.
    """
    progress = progress or Progress()
    parameters = shared_parameters(model)
    _trace(progress, 0, "before", parameters)
    weights = require_survivors(hparams, sum(p.numel() for p in parameters))
    ramp = ramp_steps(hparams, steps_per_epoch(len(data.train), hparams.batch_size))
    survives = torch.ones(weights, dtype=torch.bool, device=parameters[0].device)
    decisions = Decisions(survives, hparams.score_power)
    zero, sparse = _zeroing(parameters, survives), SparseLayers(model, parameters, lambda: survives)

    def pruning(step: int) -> None:
        if (count := survivors_after(step, ramp, hparams, weights)) is not None:
            moments = second_moments(optimiser, parameters) if decisions.power else None
            now = flatten(parameters).detach()
            survives.copy_(survivors(now, flatten(moments) if moments else None, survives, count, decisions))
            zero()
            sparse.changed()

    def after_epoch(epoch: int, train_loss: float) -> None:
        _trace(progress, epoch, "prune", parameters)
        metrics = score_if_quantised(model, lambda: cluster(model, survives, hparams.distinct_values), data)
        on_epoch(epoch_row(epoch, "prune", train_loss, metrics))

    optimiser = Adam(model.parameters(), lr=hparams.weight_rate, fused=True)
    optimiser.register_step_post_hook(zero)  # Adam's momentum moves a pruned weight even without a gradient
    train(
        model,
        data,
        sparse.of(loss),
        optimiser,
        epochs=hparams.pruning_epochs,
        batch_size=hparams.batch_size,
        generator=torch.Generator().manual_seed(hparams.seed),
        augment=hparams.augment,
        rate_schedule=constant_schedule if hparams.quantised_training else cosine_schedule,
        before_step=pruning,
        after_epoch=after_epoch,
        progress=progress,
        also=[survives, *decisions.state],
    )
    progress.trace.fixed |= decisions.arrays(survives)
    return survives, optimiser


def _trace(progress: Progress, epoch: int, phase: str, parameters: Sequence[nn.Parameter]) -> None:
    weights = flatten(parameters)
    progress.trace.add(epoch, phase, weights, nonzero=nonzero_by_layer(weights, [p.numel() for p in parameters]))


def _zeroing(parameters: Sequence[nn.Parameter], survives: Tensor) -> Callable[..., None]:
    """What sets the weights to zero that do not survive, (weights,), whenever it is called."""
    parts = survives.split([p.numel() for p in parameters])

    @torch.no_grad()
    def zero(*_: object) -> None:
        for p, mask in zip(parameters, parts, strict=True):
            p.mul_(mask.view_as(p))

    return zero


def require_survivors(hparams: PinningHparams, weights: int) -> int:
    """The number of weights, where the density leaves one or more of them.

    Raises:
        TrialFailed: it leaves none.
    """
    if not round(hparams.density * weights):
        rounded = f"{hparams.density} of {weights} weights rounds to none"
        raise TrialFailed(f"every weight was pruned: {hparams.ALL_PRUNED_HINT} ({rounded})")
    return weights


def ramp_steps(hparams: PinningHparams, steps_an_epoch: int) -> tuple[int, int, int]:
    """The step after which the ramp begins, the step at which it ends, and how many steps lie between two prunings."""
    total = hparams.pruning_epochs * steps_an_epoch
    if not hparams.quantised_training:
        rise = max(1, round(hparams.ramp * total))
    else:
        rise = total if hparams.ramp else 1
    start = min(WARM, total - 1) if hparams.score_power else 0
    rise = max(start + 1, rise)
    return start, rise, max(1, rise // PRUNINGS)


def survivors_after(step: int, ramp: tuple[int, int, int], hparams: PinningHparams, weights: int) -> int | None:
    """How many weights stay when those of the smallest score are pinned before this step; None where none are pinned.

    Args:
        ramp: as `ramp_steps` gives it.
        weights: of the network.
    """
    start, rise, every = ramp
    if step != rise and not (start < step < rise and step % every == 0):
        return None
    share = 1 - pruned_share((step - start) / (rise - start), hparams.density, hparams.ramp_power)
    return round(share * weights)


def pruned_share(progress: float, density: float, power: float = 3) -> float:
    """Share of weights at zero: (1 − density) (1 − (1 − progress)^power), from none.

    Zhu & Gupta (2017), eq. 1, has the power 3. A larger one prunes most of the weights early, while that costs little,
    and leaves more of the ramp for those that are dear.

    Args:
        progress: of the ramp, 0 to 1.
        density: at the end of the ramp.
    """
    return (1 - density) * (1 - (1 - progress) ** power)


def pruning_scores(weights: Tensor, moments: Tensor | None, power: float) -> Tensor:
    """What a weight is worth, by which the smallest are pruned: w² v̂ᵖ, or |w| for p = 0, which has the same order.

    A weight at zero costs the loss about ½ B v̂ w² nats, where v̂ is the mean square of its gradient over batches of B
    examples: the diagonal of the empirical Fisher information, from p = 1. Soft weight-sharing's own test for zero is
    w² against one threshold, which takes every weight to be worth the same.

    Args:
        weights: (weights,).
        moments: v̂ of each, (weights,); None for ones, as before Adam's first step.
    Returns: (weights,), at least 0.
    """
    if not power:
        return weights.abs()
    return weights.square() if moments is None else weights.square() * moments.pow(power)


@torch.no_grad()
def second_moments(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """v̂ of each parameter, in its shape: Adam's second moment, corrected for bias. None before its first step."""
    states = [optimiser.state.get(p, {}) for p in parameters]
    if not any(states):
        return None
    beta = optimiser.param_groups[0]["betas"][1]
    return [
        state["exp_avg_sq"] / (1 - beta ** state["step"].to(p.device)) if state else torch.zeros_like(p)
        for p, state in zip(parameters, states, strict=True)
    ]


def survivors(weights: Tensor, moments: Tensor | None, survives: Tensor, count: int, decisions: Decisions) -> Tensor:
    """Mark the `count` weights of largest score among those that survive so far; (weights,), bool.

    Args:
        weights: of one network, (weights,).
        moments: v̂ of each, (weights,); None before Adam's first step, or where the score does not read it.
        survives: which are not pinned yet, (weights,), bool.
        decisions: records what was decided on.
    """
    decisions.update(weights, moments, undecided=survives)
    return largest(pruning_scores(weights, moments, decisions.power).masked_fill(~survives, -1.0), count)


def largest(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` weights of largest score. (weights,) → (weights,), bool."""
    marked = torch.zeros_like(scores, dtype=torch.bool)
    marked[scores.topk(count, sorted=False).indices] = True
    return marked


def cluster(model: nn.Module, survives: Tensor, codebook_size: int) -> QuantisedWeights:
    """Give every surviving weight the nearest of `codebook_size` − 1 values, and all others zero.

    The model is changed in place.

    Args:
        survives: (weights,), bool.
    """
    parameters = shared_parameters(model)
    quantised = quantise(flatten(parameters).detach(), survives, codebook_size, len(parameters))
    quantised.write(parameters)
    return quantised


def quantise(weights: Tensor, survives: Tensor, codebook_size: int, tensors: int) -> QuantisedWeights:
    """What `cluster` gives a network of so many shared tensors, from its weights, (weights,)."""
    survivors = weights[survives]
    centroids = kmeans(survivors, codebook_size - 1)
    assignment = torch.zeros_like(survives, dtype=torch.int64)
    assignment[survives] = nearest(survivors, centroids) + 1
    values = F.pad(centroids.to(survivors.dtype), (1, 0))
    return QuantisedWeights(assignment, values, values.new_ones(tensors))
