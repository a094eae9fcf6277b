"""Soft weight-sharing in three phases: `pretrain`, `cluster`, `quantise`.

Nowlan & Hinton (1992); Ullrich, Meeds & Welling (2017), https://arxiv.org/abs/1702.04008.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.compression.codebook_training import CodebookHparams, finish, score_if_quantised
from study.compression.quantised_weights import QuantisedWeights, flatten, shared_parameters, unit_scales
from study.data.splits import Splits
from study.methods.sws.mixture import Mixture, even_means
from study.training import distillation, network
from study.training.batches import Batch, steps_per_epoch
from study.training.distillation import Targets
from study.training.loop import Loss, Report, epoch_row, train
from study.training.network import Training
from study.training.sparse_layers import SparseLayers
from study.training.torch_optimisers import Adam


@dataclass(frozen=True, kw_only=True)
class Hparams(CodebookHparams):
    """One soft weight-sharing trial: the searched values first.

    Attributes:
        tau: weight of the prior. It multiplies the mixture's negative log-likelihood summed over weights and divided
            by the number of training examples (Ullrich et al. 2017, eq. 3), so it compares across data sets; but not
            with and without a teacher, whose soft targets have gradients several times as large as labels.
        components: all Gaussians of the mixture, the one at zero included.
        pi_zero: mixing proportion of the zero component, in (0, 1).
        mean_rate, precision_rate, proportion_rate: Adam's learning rates for the mixture in phase two; like
            `weight_rate` they fall to zero along half a cosine. The last two move logarithms.
        sigma: initial standard deviation of every component, in units of weight. About the pretrained weights' own:
            with the tutorial's 0.25 the precisions spend the whole phase growing, and weights stay between components.
        gamma_zero_shape, gamma_zero_rate: Gamma hyper-prior on the zero component's precision.
        gamma_rest_shape, gamma_rest_rate: the same for the other components. These are the values of the paper's
            tutorial; narrower hyper-priors leave weights between components, which quantising then ruins.
        pi_zero_strength: 0 keeps pi_zero fixed; above it, pi_zero is learned under a Beta prior with its mode at
            `pi_zero`, worth this many weights seen beforehand (Ullrich et al. 2017, sec. 4).
        anneal: share of phase two over which tau rises linearly from zero; 0 for tau constant.
        merge: components whose symmetric KL divergence, in nats, is below this become one before quantising; 0 for
            none.
        layer_scales: the prior sees each layer's weights divided by how much wider than all weights they were before
            phase two, so that one mixture fits layers of different width; the codebook's training trains the scales.
        retrain_epochs: between phases two and three, while the pruned weights stay at zero; 0 for none.
    """

    tau: float
    components: int
    pi_zero: float
    mean_rate: float = 1e-4
    precision_rate: float = 3e-3
    proportion_rate: float = 3e-3
    sigma: float = 0.05
    gamma_zero_shape: float = 5e3
    gamma_zero_rate: float = 2.0
    gamma_rest_shape: float = 250.0
    gamma_rest_rate: float = 0.1
    pi_zero_strength: float = 0.0
    anneal: float = 0.0
    merge: float = 0.0
    layer_scales: bool = False
    retrain_epochs: int = 0

    ALL_PRUNED_HINT: ClassVar[str] = "tau is too large, or pi_zero too close to 1"


def fit(
    model: nn.Module,
    hparams: Hparams,
    data: Splits,
    on_epoch: Report,
    targets: Targets | None = None,
    progress: Progress | None = None,
) -> tuple[QuantisedWeights, dict[str, float]]:
    """Phases two and three on a pretrained network, which is changed in place.

    Args:
        targets: the teacher, where `alpha` is above 0.
        progress: of a trial that was stopped, to go on from.
    Returns: the quantised weights, and the final metrics.
    Raises:
        TrialFailed: a loss is not a finite number, or `ensure_usable` refuses the quantised weights.
    """
    targets = targets or Targets()
    loss = distillation.accuracy_loss(
        targets, hparams.temperature, hparams.alpha, precision=hparams.precision, soft=hparams.soft_term
    )
    parameters = shared_parameters(model)
    scales = layer_scales(model) if hparams.layer_scales else unit_scales(parameters)
    mixture = cluster(model, scales, hparams, data, loss, on_epoch, progress)
    if hparams.merge:
        mixture = mixture.merged(hparams.merge)
    if hparams.retrain_epochs:
        retrain(model, mixture, scales, hparams, data, loss, on_epoch, progress)
    return finish(
        model,
        quantise(model, mixture, scales),
        loss,
        hparams,
        data,
        on_epoch,
        seed=hparams.seed + 2,
        first_epoch=hparams.epochs + hparams.retrain_epochs + 1,
        progress=progress,
    )


def pretrain(training: Training, data: Splits, on_epoch: Report, progress: Progress | None = None) -> nn.Module:
    """Phase one: an ordinary network, trained on the labels."""
    return network.fit_teacher(training, data, on_epoch, progress)


def cluster(
    model: nn.Module,
    scales: Tensor,
    hparams: Hparams,
    data: Splits,
    loss: Loss,
    on_epoch: Report,
    progress: Progress | None = None,
) -> Mixture:
    """Phase two: move the weights and the mixture towards each other, minimising Ullrich et al. (2017), eq. 3.

    accuracy term + τ / N · (−log p(weights | mixture) − log p(mixture)), N the number of training examples.

    Every epoch reports what quantising now would give. The model is changed in place.

    Args:
        scales: what each shared tensor is divided by before the prior sees it, (tensors,).
        loss: the accuracy term; scalar, nats per example.
    Returns: the mixture at the end.
    Raises:
        TrialFailed: the loss is not a finite number.
    """
    mixture = mixture_over(_scaled(shared_parameters(model), scales), hparams)
    _move(model, mixture, scales, hparams, data, loss, on_epoch, progress, phase="cluster")
    return mixture


@torch.no_grad()
def mixture_over(weights: Tensor, hparams: Hparams) -> Mixture:
    """The mixture at the start of phase two, its means evenly over the weights, (weights,)."""
    means = even_means(weights, hparams.components)
    zero = (hparams.gamma_zero_shape, hparams.gamma_zero_rate)
    rest = (hparams.gamma_rest_shape, hparams.gamma_rest_rate)
    mixture = Mixture(means, hparams.pi_zero, hparams.sigma, zero, rest, hparams.pi_zero_strength)
    return mixture.to(means.device)


def adam(weights: Sequence[Tensor], mixture: Mixture, hparams: Hparams) -> torch.optim.Adam:
    """The optimiser of phase two."""
    return Adam(
        [
            {"params": list(weights), "lr": hparams.weight_rate},
            {"params": [mixture.free_means], "lr": hparams.mean_rate},
            {"params": [mixture.log_precisions], "lr": hparams.precision_rate},
            {"params": [mixture.free_logits, mixture.zero_logit], "lr": hparams.proportion_rate},
        ],
        fused=True,
    )


def under_prior(
    loss: Loss, mixture: Mixture, weights: Callable[[], Tensor], factor: float | Tensor, tau_share: Tensor
) -> Loss:
    """The loss of phase two, of one trial or of each member of a pack: accuracy term + factor · tau_share · complexity.

    Args:
        loss: the accuracy term, scalar or (members,).
        weights: gives the weights that the prior sees, (weights,) or (members, weights).
        factor: τ / N, a number or (members,).
        tau_share: share of τ that annealing has reached, scalar.
    Returns: scalar or (members,), nats per example.
    """

    def total(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model, batch) + factor * tau_share * mixture.complexity(weights())

    return total


def annealing(hparams: Hparams, data: Splits, share: float) -> tuple[Tensor, Callable[[int], None] | None]:
    """Annealing of tau over this share of phase two.

    Returns: the share of tau that is reached, a scalar tensor, and the function that sets it before every step; None
        for the function where tau is constant.
    """
    tau_share, rise = torch.ones((), device=data.train.images.device), _steps(hparams, data) * share

    def anneal(step: int) -> None:
        tau_share.fill_(min(1.0, step / rise))

    return tau_share, anneal if rise else None


def retrain(
    model: nn.Module,
    mixture: Mixture,
    scales: Tensor,
    hparams: Hparams,
    data: Splits,
    loss: Loss,
    on_epoch: Report,
    progress: Progress | None = None,
) -> None:
    """Continue phase two while the pruned weights stay at zero, outside the prior; the others make up for them.

    The model and the mixture are changed in place.
    """
    parameters = shared_parameters(model)
    with torch.no_grad():
        nonzero = mixture.assign(_scaled(parameters, scales)) != 0
        parts = nonzero.split([p.numel() for p in parameters])
        masks = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
        for p, mask in zip(parameters, masks, strict=True):
            p.mul_(mask)
    # Without a gradient from its first step on, Adam leaves a weight where it is.
    hooks = [p.register_hook(mask.mul) for p, mask in zip(parameters, masks, strict=True)]
    try:
        survivors = nonzero.nonzero().flatten()
        loss = SparseLayers(model, parameters, lambda: nonzero).of(loss)
        _move(model, mixture, scales, hparams, data, loss, on_epoch, progress, phase="retrain", survivors=survivors)
    finally:
        for hook in hooks:
            hook.remove()


def quantise(model: nn.Module, mixture: Mixture, scales: Tensor) -> QuantisedWeights:
    """Phase three: set every weight to the mean of its most responsible component; those of component 0 become zero.

    Components that no weight belongs to leave the codebook. The model is changed in place.
    """
    parameters = shared_parameters(model)
    assignment = mixture.assign(_scaled(parameters, scales).detach())
    quantised = QuantisedWeights(assignment, mixture.means.detach(), scales).without_unused()
    quantised.write(parameters)
    return quantised


@torch.no_grad()
def layer_scales(model: nn.Module) -> Tensor:
    """Root mean square of each layer's weight over that of all weights: one for each shared tensor, (tensors,).

    A layer's bias has its weight's scale, and a tensor of zeros that of all weights. Dividing by them leaves the
    mixture's units those of a weight.
    """
    parameters = shared_parameters(model)
    overall = flatten(parameters).square().mean().sqrt()
    size: dict[nn.Parameter, Tensor] = {}
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            for p in layer.parameters(recurse=False):
                size.setdefault(p, layer.weight.square().mean().sqrt())
    sizes = torch.stack([size[p] if p in size else p.square().mean().sqrt() for p in parameters])
    return torch.where(sizes > 0, sizes, overall) / overall


def _scaled(parameters: Sequence[Tensor], scales: Tensor) -> Tensor:
    return flatten([p / s for p, s in zip(parameters, scales, strict=True)])


def _move(
    model: nn.Module,
    mixture: Mixture,
    scales: Tensor,
    hparams: Hparams,
    data: Splits,
    loss: Loss,
    on_epoch: Report,
    progress: Progress | None,
    *,
    phase: str,
    survivors: Tensor | None = None,
) -> None:
    """Train weights and mixture together; with `survivors`, indices, the prior is over these weights alone."""
    parameters = shared_parameters(model)
    clustering = phase == "cluster"
    progress = progress or Progress()
    epochs = hparams.epochs if clustering else hparams.retrain_epochs
    tau_share, anneal = annealing(hparams, data, hparams.anneal if clustering else 0.0)

    def weights() -> Tensor:
        weights = _scaled(parameters, scales) if hparams.layer_scales else flatten(parameters)
        return weights if survivors is None else weights.index_select(0, survivors)

    def after_epoch(epoch: int, train_loss: float) -> None:
        epoch += 0 if clustering else hparams.epochs
        progress.trace.add(epoch, phase, _scaled(parameters, scales), mixture.shape())
        metrics = score_if_quantised(model, lambda: quantise(model, mixture, scales), data)
        on_epoch(epoch_row(epoch, phase, train_loss, metrics))

    if clustering:
        progress.trace.add(0, "before", _scaled(parameters, scales), mixture.shape())

    train(
        model,
        data,
        under_prior(loss, mixture, weights, hparams.tau / len(data.train), tau_share),
        adam(list(model.parameters()), mixture, hparams),
        epochs=epochs,
        batch_size=hparams.batch_size,
        generator=torch.Generator().manual_seed(hparams.seed + (0 if clustering else 1)),
        augment=hparams.augment,
        before_step=anneal,
        after_epoch=after_epoch,
        progress=progress,
    )


def _steps(hparams: Hparams, data: Splits) -> int:
    return hparams.epochs * steps_per_epoch(len(data.train), hparams.batch_size)
