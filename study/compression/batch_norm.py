"""Batch-norm layers of compressed networks: statistics for weights that have changed, numbers of two bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.data.images import normalise
from study.data.splits import Splits
from study.models.state import evaluating


@torch.no_grad()
def recalibrate(model: nn.Module, data: Splits, batch_size: int = 256) -> bool:
    """Give every batch-norm layer the mean and variance that it has over the training part, with the weights as they
    are: one pass in a fixed order, each batch with the same weight, and everything else as in evaluation.

    Returns: whether there is a layer with statistics; without one nothing is run.
    """
    norms = _norms(model)
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average of all batches
            norm.train()
        for images in data.train.images.split(batch_size):
            if len(images) > 1 or len(data.train) == 1:  # one image has no variance
                model(normalise(images, data.mean, data.std))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return True


@torch.no_grad()
def round_batch_norm(model: nn.Module) -> None:
    """Give batch-norm layers numbers that float16 has, which the compressed file stores in two bytes each.

    A tensor stays as it is where a number is too large for float16, or a variance, with its ε, too small.
    """
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            if tensor is None:
                continue
            rounded = tensor.half().to(tensor.dtype)
            change = (rounded - tensor).abs()
            fits = change <= 2.0**-10 * (tensor + norm.eps) if tensor is norm.running_var else rounded.isfinite()
            if bool(fits.all()):
                tensor.copy_(rounded)


Statistics = list[tuple[Tensor, Tensor]]
"""Mean and variance of each batch-norm layer, (channels,) each, in the order of the modules."""


@torch.no_grad()
def measure(model: nn.Module, data: Splits) -> Statistics:
    """The statistics that `recalibrate` would give; the model is left as it is."""
    buffers = [buffer for norm in _norms(model) for buffer in norm.buffers()]
    own = [buffer.clone() for buffer in buffers]
    recalibrate(model, data)
    measured = [(mean.clone(), variance.clone()) for mean, variance in _statistics(model)]
    for buffer, value in zip(buffers, own, strict=True):
        buffer.copy_(value)
    return measured


@torch.no_grad()
def follow(model: nn.Module, data: Splits, before: Statistics) -> None:
    """Move each layer's statistics by as much as its activations have moved since its weights changed.

    Statistics from training may differ from those of plain images, since training augments them, and are of more images
    than there may be now. `recalibrate` loses both; here only the change is taken from the images. A variance that fell
    is scaled by the same factor, and one that rose grows by the same amount. The mean's distance from that of the
    images keeps its number of standard deviations.

    Args:
        before: what `measure` gave for the same data, before the weights changed.
    """
    now = measure(model, data)
    for (mean, variance), (mean_now, now_variance), (mean_before, before_variance) in zip(
        _statistics(model), now, before, strict=True
    ):
        own = variance.clone()
        fallen = own * now_variance / before_variance.clamp(min=_TINY)
        variance.copy_(torch.where(now_variance < before_variance, fallen, own + now_variance - before_variance))
        ratio = (variance / own.clamp(min=_TINY)).sqrt()
        mean.copy_(mean_now + (mean - mean_before) * ratio)


_TINY = 1e-12  # a variance of nothing


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _statistics(model: nn.Module) -> Statistics:
    """The buffers themselves."""
    pairs = [(norm.running_mean, norm.running_var) for norm in _norms(model)]
    return [(mean, variance) for mean, variance in pairs if mean is not None and variance is not None]
