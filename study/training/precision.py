"""In which precision a network computes its layers."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import torch
from torch import Tensor, nn

PRECISIONS = ("float32", "bfloat16")


@functools.cache
def has_bfloat16(device: str) -> bool:
    """Whether this machine's GPU, or CPU, has instructions for it: GPUs since Ampere, CPUs with AVX512_BF16 or AMX."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", Path("/proc/cpuinfo").read_text()) is not None
    except OSError:  # not Linux
        return False


def logits(model: nn.Module, images: Tensor, precision: str | None = None) -> Tensor:
    """Logits of a batch while a network trains, float32.

    Args:
        precision: of `PRECISIONS`, in which a network with convolutions computes its layers' products, with weights,
            normalisation and losses in float32; others compute in float32. None: what the processor does best.
    """
    return autocast_logits(model, images, uses_bfloat16(model, images.device, precision))


def uses_bfloat16(model: nn.Module, device: torch.device, precision: str | None) -> bool:
    """Whether a network's products are computed in bfloat16."""
    if not any(isinstance(layer, nn.modules.conv._ConvNd) for layer in model.modules()):
        return False
    return (precision or best_precision(device.type)) == "bfloat16"


def best_precision(device: str) -> str:
    """The precision that a kind of device of this machine does best: "cpu" or "cuda"."""
    return PRECISIONS[has_bfloat16(device)]


def autocast_logits(model: nn.Module, images: Tensor, half: bool) -> Tensor:
    """Logits, float32, from products in bfloat16 or not."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        output: Tensor = model(images)
    return output.float()
