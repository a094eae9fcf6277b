"""Weights that a pruned network has for nothing: no output depends on them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from study.compression.quantised_weights import flatten, shared_parameters
from study.compression.shrinking import ROUNDING, mark, rules_of
from study.compression.shrinking_graph import CannotTrace, plain_copy, trace
from study.compression.shrinking_rules import Channels, Layer


@torch.no_grad()
def unread(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Which weights can become zero without a change of any output.

    These are the weights of units that nobody reads, and those that read a unit which is always zero. Units of linear
    layers and channels of convolutions are followed, as `shrinking` does. A unit that is constant but not zero is read.

    Args:
        model: stays as it is.
        input_shape: of one example; float32.
    Returns: (weights,), bool, on the model's device; none of a network that cannot be traced.
    """
    parameters = shared_parameters(model)
    nothing = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.bool)
    marked = nothing
    try:
        marked = _marked(plain_copy(model), input_shape)
    except CannotTrace:
        pass
    return marked.to(parameters[0].device)


def _marked(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """The same of a copy on the CPU.

    Raises:
        CannotTrace: nothing is known of the network.
    """
    network = trace(model, input_shape)
    parameters = shared_parameters(model)
    masks = {p: torch.zeros(p.shape, dtype=torch.bool) for p in parameters}
    names = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    try:
        rules = rules_of(network, input_shape)
        for rule in rules:
            if rule.output is not None:  # constants other than zero count as read: nothing takes their place here
                rule.output.constant[rule.output.constant != 0] = torch.nan
        mark(rules)
        for rule in rules:
            if type(rule) is Layer:
                layer = model.get_submodule(str(rule.node.target))
                rows, columns = _without_use(rule.output), _zero(rule.source)
                for p in layer.parameters(recurse=False):
                    if p in masks and names.count(id(p)) == 1:
                        masks[p][rows] = True
                        if p.dim() > 1 and columns is not None:
                            masks[p][:, columns] = True
    except Exception as error:  # an operation that is used in a way that no rule expects: nothing is lost
        raise CannotTrace(str(error)) from error
    marked = flatten([masks[p] for p in parameters])
    _check(model, masks, input_shape)
    return marked


def _without_use(channels: Channels) -> Tensor:
    return ~channels.keep | (channels.constant == 0)


def _zero(channels: Channels | None) -> Tensor | None:
    return None if channels is None else channels.constant == 0


def _check(model: nn.Module, masks: dict[nn.Parameter, Tensor], input_shape: tuple[int, ...]) -> None:
    """Raises CannotTrace unless the outputs for random inputs stay; a trace does not see everything."""
    images = torch.randn(3, *input_shape, generator=torch.Generator().manual_seed(0))
    expected = model(images.clone())
    without = copy.deepcopy(model)
    for p, own in zip(model.parameters(), without.parameters(), strict=True):
        if p in masks:
            own.masked_fill_(masks[p], 0.0)
    if not torch.allclose(without(images), expected, rtol=0, atol=ROUNDING * float(expected.abs().max())):
        raise CannotTrace("its outputs would not stay the same")
