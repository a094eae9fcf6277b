"""Networks whose weights share a few values: which weight has which value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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

    def rounded(self) -> QuantisedWeights:
        """The same with values and scales that float16 has, which the compressed file stores in two bytes each. Those
        that are too large or too small for it stay as they are."""
        return replace(self, values=_half_precision(self.values), scales=_half_precision(self.scales))

    def without_unused(self) -> QuantisedWeights:
        """The same with a codebook of the zero, and of the values that a weight has."""
        used = torch.bincount(self.assignment, minlength=len(self.values)) > 0
        used[0] = True
        return replace(self, assignment=(used.cumsum(0) - 1)[self.assignment], values=self.values[used])

    @torch.no_grad()
    def write(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give the parameters these weights."""
        for p, weights in zip(parameters, self.tensors(parameters), strict=True):
            p.copy_(weights)


def _half_precision(numbers: Tensor) -> Tensor:
    """Rounded to float16, all or none: none if one of them would change by more than its last bit, as tiny ones do."""
    rounded = numbers.half().to(numbers.dtype)
    return rounded if bool(((rounded - numbers).abs() <= _LAST_BIT * numbers.abs()).all()) else numbers


_LAST_BIT = 2.0**-10  # of a float16, relative to the number


def with_integers(levels: Tensor, steps: Tensor) -> QuantisedWeights:
    """Weights that are integers times a step of their tensor; integers that no weight has leave the codebook.

    Args:
        levels: integers, (weights,), float32.
        steps: one for each tensor, (tensors,).
    """
    values, assignment = torch.cat([levels.new_zeros(1), levels]).unique(return_inverse=True)
    zero, index = assignment[0], assignment[1:]
    # Zero moves to the front, and the negative integers up by one.
    order = torch.cat([values[values == 0], values[values != 0]])
    return QuantisedWeights(torch.where(index == zero, 0, torch.where(index < zero, index + 1, index)), order, steps)


def shared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that take part, each once, in the order of the modules.

    These are every tensor of two or more dimensions, and weights and biases of linear and convolution layers. What has
    one number for each channel takes no part, whether batch-norm's vector or a scale of shape (channels, 1, …), as
    weight_norm has. Neither does what `leave_out` names.
    """
    skipped = vars(model).get(_LEFT_OUT, frozenset())
    left_out = {p for name, p in model.named_parameters(remove_duplicate=False) if name in skipped}
    taken = (p for module in model.modules() for p in module.parameters(recurse=False) if _takes_part(module, p))
    return [p for p in dict.fromkeys(taken) if p not in left_out]


_LEFT_OUT = "_left_out_of_compression"
"""Attribute of a network: names of the parameters that `leave_out` left out. A copy of the network has it too."""


def _in_version_1(module: nn.Module, parameter: nn.Parameter) -> bool:
    """The rule of the first compressed files."""
    return isinstance(module, nn.Linear | nn.modules.conv._ConvNd)


def _takes_part(module: nn.Module, parameter: nn.Parameter) -> bool:
    if _in_version_1(module, parameter):
        return True
    return parameter.is_floating_point() and parameter.dim() > 1 and parameter.shape[1:].numel() > 1


def leave_out(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Leave parameters out of compression, in addition to those that take no part anyway. Returns the model.

    Args:
        names: of parameters, or of modules, whose parameters are meant; names that the model does not have are ignored.
    """
    vars(model)[_LEFT_OUT] = frozenset(named_by(model, names))
    return model


def named_by(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Names of the parameters that these names of parameters, or of modules, mean."""
    given = tuple(names)
    return [name for name in names_of_all(model) if any(name == g or name.startswith(f"{g}.") for g in given)]


def leave_out_as_version_1(model: nn.Module) -> nn.Module:
    """Leave out what took no part in the first compressed files: all but linear and convolution layers."""
    taken = {p for module in model.modules() for p in module.parameters(recurse=False) if _in_version_1(module, p)}
    return leave_out(model, [name for name, p in model.named_parameters() if p not in taken])


def names_of_all(model: nn.Module) -> list[str]:
    """Names of all parameters; one that is tied has several."""
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def names_in(listed: str | None) -> tuple[str, ...]:
    """The names in a list with commas, as `--skip` has it."""
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())


def left_out(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that take no part, by name."""
    taken = set(shared_parameters(model))
    return {name: p for name, p in model.named_parameters() if p not in taken}


def flatten(parameters: Sequence[Tensor]) -> Tensor:
    """All of them as one vector, (weights,)."""
    return torch.cat([p.reshape(-1) for p in parameters])


def unit_scales(parameters: Sequence[Tensor]) -> Tensor:
    """Scales that change nothing, one for each tensor, (tensors,)."""
    return parameters[0].new_ones(len(parameters))
