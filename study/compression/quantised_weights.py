"""Networks whose weights share a few values: which weight has which value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantisedWeights:
    """Which value every weight has: weight = scale of its tensor × codebook value.

    Attributes:
        assignment: (weights,), int64; 0 is pruned.
        values: the codebook, (components,), float32; the first is zero.
        scales: one for each tensor of `shared_parameters`, (tensors,), float32; ones where layers have no scale.
    """

    assignment: Tensor
    values: Tensor
    scales: Tensor

    def tensors(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The weights in the shapes of these parameters."""
        parts = self.assignment.split([p.numel() for p in parameters])
        return [
            (self.values.index_select(0, index) * scale).view_as(p)
            for p, index, scale in zip(parameters, parts, self.scales, strict=True)
        ]

    @torch.no_grad()
    def write(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give the parameters these weights."""
        for p, weights in zip(parameters, self.tensors(parameters), strict=True):
            p.copy_(weights)


def shared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that take part: weights and biases of linear and convolution layers. Batch-norm does not."""
    layers = (m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd))
    return list(dict.fromkeys(p for layer in layers for p in layer.parameters(recurse=False)))


def flatten(parameters: Sequence[Tensor]) -> Tensor:
    """All of them as one vector, (weights,)."""
    return torch.cat([p.reshape(-1) for p in parameters])


def unit_scales(parameters: Sequence[Tensor]) -> Tensor:
    """Scales that change nothing, one for each tensor, (tensors,)."""
    return parameters[0].new_ones(len(parameters))
