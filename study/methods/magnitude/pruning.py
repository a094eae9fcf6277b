"""Magnitude pruning with a k-means codebook, the baseline to soft weight-sharing, and post-training quantisation.

Han, Mao & Dally (2015), "Deep Compression", https://arxiv.org/abs/1510.00149, with the gradual pruning of
Zhu & Gupta (2017), https://arxiv.org/abs/1710.01878.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.compression.batch_norm import recalibrate
from study.compression.codebook_training import CodebookHparams, ensure_usable, finish, score, score_if_quantised
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters, with_integers
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.magnitude.kmeans import kmeans, nearest
from study.training import distillation
from study.training.batches import steps_per_epoch
from study.training.distillation import Targets
from study.training.loop import Loss, Report, epoch_row, train

PRUNINGS = 100
"""Times that the threshold rises. Zhu & Gupta (2017), sec. 3: whether every 100 or 1,000 steps matters little."""


@dataclass(frozen=True, kw_only=True)
class Hparams(CodebookHparams):
    """One pruning trial: the searched values first.

    Attributes:
        density: share of weights that stay, in (0, 1]. One threshold over all shared parameters decides which.
        codebook_size: number of distinct values, zero included, at least 2. All layers share them: on MNIST a codebook
            for each layer, as in Han et al. (2015), sec. 3, was no more accurate, and costs more to describe.
        bits: 0, or post-training quantisation to this many bits instead of all the rest.
        epochs: of pruning, and of retraining the weights that stay.
        ramp: share of `epochs` over which the threshold rises; 0 prunes once, before the first step.
    """

    density: float = 0.05
    codebook_size: int = 16
    bits: int = 0
    weight_rate: float = 2e-3
    ramp: float = 0.5

    ALL_PRUNED_HINT: ClassVar[str] = "density is too small"

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"density {self.density} must be above 0 and at most 1")
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size {self.codebook_size} must be at least 2: zero is one of the values")
        if not (self.bits == 0 or 2 <= self.bits <= 16):
            raise ValueError(f"bits {self.bits} must be 2 to 16, or 0 for pruning")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp {self.ramp} must be between 0 and 1")
        if self.epochs < 1:
            raise ValueError(f"epochs {self.epochs} must be at least 1")


def fit(
    model: nn.Module,
    hparams: Hparams,
    data: Splits,
    on_epoch: Report,
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """Prune, cluster and quantise a pretrained network, which is changed in place.

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
        return quantised, score(model, quantised, data)
    targets = targets or Targets()
    loss = distillation.accuracy_loss(targets, hparams.temperature, hparams.alpha, precision=hparams.precision)
    survives = prune(model, hparams, data, loss, on_epoch, progress)
    return finish(
        model,
        cluster(model, survives, hparams.codebook_size),
        loss,
        hparams,
        data,
        on_epoch,
        seed=hparams.seed + 1,
        first_epoch=hparams.epochs + 1,
        progress=progress,
    )


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


def prune(
    model: nn.Module, hparams: Hparams, data: Splits, loss: Loss, on_epoch: Report, progress: Progress | None = None
) -> Tensor:
    """Set more and more of the smallest weights to zero while training, and then retrain those that stay.

    A pruned weight stays at zero (Zhu & Gupta 2017, sec. 3); on MNIST, letting it return while the threshold rises was
    no better. Every epoch reports what clustering now would give. The model is changed in place.

    Args:
        loss: of the model and a batch; scalar, nats per example.
    Returns: which weights stay, (weights,), bool; round(density × weights) of them.
    Raises:
        TrialFailed: the loss is not a finite number, or every weight was pruned.
    """
    progress = progress or Progress()
    parameters = shared_parameters(model)
    progress.trace.add(0, "before", flatten(parameters))
    sizes = [p.numel() for p in parameters]
    if not round(hparams.density * sum(sizes)):
        rounded = f"{hparams.density} of {sum(sizes)} weights rounds to none"
        raise TrialFailed(f"every weight was pruned: {hparams.ALL_PRUNED_HINT} ({rounded})")
    rise = max(1, round(hparams.ramp * hparams.epochs * steps_per_epoch(len(data.train), hparams.batch_size)))
    every = max(1, rise // PRUNINGS)
    survives = torch.ones(sum(sizes), dtype=torch.bool, device=parameters[0].device)

    @torch.no_grad()
    def zero(*_: object) -> None:
        for p, mask in zip(parameters, survives.split(sizes), strict=True):
            p.mul_(mask.view_as(p))

    def pruning(step: int) -> None:
        if step == rise or (step < rise and step % every == 0):
            share = 1 - pruned_share(step / rise, hparams.density)
            survives.copy_(largest(flatten(parameters).detach(), round(share * len(survives))))
            zero()

    def after_epoch(epoch: int, train_loss: float) -> None:
        progress.trace.add(epoch, "prune", flatten(parameters))
        metrics = score_if_quantised(model, lambda: cluster(model, survives, hparams.codebook_size), data)
        on_epoch(epoch_row(epoch, "prune", train_loss, metrics))

    optimiser = torch.optim.Adam(model.parameters(), lr=hparams.weight_rate, fused=True)
    optimiser.register_step_post_hook(zero)  # Adam's momentum moves a pruned weight even without a gradient
    train(
        model,
        data,
        loss,
        optimiser,
        epochs=hparams.epochs,
        batch_size=hparams.batch_size,
        generator=torch.Generator().manual_seed(hparams.seed),
        augment=hparams.augment,
        before_step=pruning,
        after_epoch=after_epoch,
        progress=progress,
        also=[survives],
    )
    return survives


def pruned_share(progress: float, density: float) -> float:
    """Share of weights at zero: (1 − density) (1 − (1 − progress)³). Zhu & Gupta (2017), eq. 1, from none.

    Args:
        progress: of the ramp, 0 to 1.
        density: at the end of the ramp.
    """
    return (1 - density) * (1 - (1 - progress) ** 3)


def largest(weights: Tensor, count: int) -> Tensor:
    """Mark the `count` weights of largest magnitude. (weights,) → (weights,), bool."""
    marked = torch.zeros_like(weights, dtype=torch.bool)
    marked[weights.abs().topk(count, sorted=False).indices] = True
    return marked


def cluster(model: nn.Module, survives: Tensor, codebook_size: int) -> QuantisedWeights:
    """Give every surviving weight the nearest of `codebook_size` − 1 values, and all others zero.

    The model is changed in place.

    Args:
        survives: (weights,), bool.
    """
    parameters = shared_parameters(model)
    survivors = flatten(parameters).detach()[survives]
    centroids = kmeans(survivors, codebook_size - 1)
    assignment = torch.zeros_like(survives, dtype=torch.int64)
    assignment[survives] = nearest(survivors, centroids) + 1
    values = F.pad(centroids.to(survivors.dtype), (1, 0))
    quantised = QuantisedWeights(assignment, values, values.new_ones(len(parameters)))
    quantised.write(parameters)
    return quantised
