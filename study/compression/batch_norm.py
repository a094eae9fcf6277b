"""Batch-norm layers of compressed networks: statistics for weights that have changed, numbers of two bytes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.data.images import normalise
from study.data.splits import Splits


@torch.no_grad()
def recalibrate(model: nn.Module, data: Splits, batch_size: int = 256) -> bool:
    """Give every batch-norm layer the mean and variance that it has over the training part, with the weights as they
    are: one pass in a fixed order, each batch with the same weight, and everything else as in evaluation.

    Returns: whether there is a layer with statistics; without one nothing is run.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return False
    modes, momenta = [(m, m.training) for m in model.modules()], [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches
        norm.train()
    for images in data.train.images.split(batch_size):
        if len(images) > 1 or len(data.train) == 1:  # one image has no variance
            model(normalise(images, data.mean, data.std))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode
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
