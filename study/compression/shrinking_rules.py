"""What each operation of a network does to channels: which are constant, which are read, how it loses some.

A channel is a column of a tensor along one axis: axis 1 behind a convolution, the last behind a linear layer. An
operation that has no rule is `Opaque`: all that it reads stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn


@dataclass
class Channels:
    """The channels of one tensor.

    Attributes:
        axis: of the tensor.
        constant: the value that a channel has everywhere and for every input, (channels,), float64; NaN where it
            varies.
        keep: which channels the shrunk network has, (channels,), bool.
    """

    axis: int
    constant: Tensor
    keep: Tensor

    @classmethod
    def of(cls, axis: int, constant: Tensor) -> Channels:
        """None kept yet."""
        return cls(axis, constant, torch.zeros(len(constant), dtype=torch.bool))

    @property
    def fixed(self) -> Tensor:
        """Which channels are constant, (channels,), bool."""
        return ~self.constant.isnan()


class Opaque:
    """An operation that is not understood: it reads every channel, and what it gives cannot be cut."""

    def __init__(self, node: fx.Node, inputs: Sequence[Channels]) -> None:
        self.node = node
        self.inputs = inputs
        self.output: Channels | None = None

    def demand(self) -> None:
        """Mark in the inputs, and the output, the channels that must stay; called until nothing changes."""
        for channels in self.inputs:
            channels.keep.fill_(True)

    def rewrite(self, network: fx.GraphModule) -> None:
        """Cut the operation down to the channels kept."""


class Harmless(Opaque):
    """An operation that reads no channel, such as the size of a batch."""

    def demand(self) -> None:
        """Nothing."""


class Tied(Opaque):
    """An operation that keeps channels apart: each channel of its output comes from one of each input."""

    def __init__(
        self,
        node: fx.Node,
        inputs: Sequence[Channels],
        origins: Sequence[Tensor],
        output: Channels,
        cut: Callable[[fx.GraphModule], None] | None = None,
    ) -> None:
        """
        Args:
            origins: for each input, the channel that each channel of the output comes from, (channels of the
                output,), int64; -1 where it comes from none.
            cut: what the operation itself must be told, where it knows the number of channels.
        """
        super().__init__(node, inputs)
        self.output = output
        self._origins = origins
        self.cut = cut

    def demand(self) -> None:
        """A channel is in all of its inputs and its output, or in none."""
        assert self.output is not None
        keep = self.output.keep
        for channels, origin in zip(self.inputs, self._origins, strict=True):
            comes = origin >= 0
            channels.keep[origin[keep & comes]] = True
            keep[comes] |= channels.keep[origin[comes]]

    def rewrite(self, network: fx.GraphModule) -> None:
        """See `Opaque.rewrite`."""
        if self.cut is not None:
            self.cut(network)


class Layer(Opaque):
    """A linear layer, or a convolution of one group."""

    def __init__(self, node: fx.Node, layer: nn.Module, source: Channels | None, axis: int) -> None:
        """
        Args:
            source: of the input; None where nothing of it can be cut.
            axis: of the output.
        """
        super().__init__(node, [source] if source else [])
        self.layer, self.source = layer, source
        weight = tensor(layer, "weight").double()
        self._weight = weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(2)  # (out, in, kernel)
        self._reads = (self._weight != 0).any(2)
        self._padded = _pads_with_zeros(layer)
        unknown = torch.full((weight.shape[1],), torch.nan, dtype=torch.float64)
        self._constant = source.constant if source else unknown
        self.output: Channels = Channels.of(
            axis, constant_outputs(self._weight.sum(2), self._reads, self._constant, bias_of(layer), self._padded)
        )

    def demand(self) -> None:
        """An input is needed if it varies and an output that is kept reads it. Constants move into the bias.

        Under zero padding they cannot: at the border there are zeros. One constant channel then stands for all.
        """
        if self.source is None:
            return
        read = self._reads[self.output.keep].any(0)
        self.source.keep |= read & ~self.source.fixed
        if self._padded and bool((read & self._nonzero_constants()).any()):
            self.source.keep[self._representative()] = True

    def rewrite(self, network: fx.GraphModule) -> None:
        """See `Opaque.rewrite`."""
        rows = self.output.keep
        columns = self.source.keep if self.source else torch.ones(self._weight.shape[1], dtype=torch.bool)
        gather = None
        if isinstance(self.layer, nn.Linear):
            used = self._reads[rows].any(0)[columns]
            gather = used if 2 * int(used.sum()) <= len(used) and len(used) > 1 else None
        if bool(rows.all()) and bool(columns.all()) and gather is None:
            return
        weight, bias = self._weight[rows].clone(), bias_of(self.layer)[rows]
        removed = ~columns & self._nonzero_constants()
        if bool(removed.any()):
            constants = self._constant[removed]
            if self._padded:
                one = self._representative()
                share = constants / self._constant[one]
                weight[:, one] += torch.einsum("oik,i->ok", weight[:, removed], share)
            else:
                bias = bias + weight[:, removed].sum(2) @ constants
        weight = weight[:, columns]
        if gather is not None:
            weight = self._gather(network, gather, weight)
        shape = (*weight.shape[:2], *tensor(self.layer, "weight").shape[2:])
        replace_layer(network, self.node, weight.reshape(shape), bias)

    def _gather(self, network: fx.GraphModule, used: Tensor, weight: Tensor) -> Tensor:
        """Read only the inputs in use, where that is at most half of them; returns the weight for those."""
        index = used.nonzero().flatten() if bool(used.any()) else torch.zeros(1, dtype=torch.int64)
        name = f"{self.node.name}_inputs"
        network.register_buffer(name, index)
        graph = network.graph
        with graph.inserting_before(self.node):
            args = (self.node.args[0], -1, graph.get_attr(name))
            self.node.args = (graph.call_function(torch.index_select, args),)
        return weight[:, index]

    def _nonzero_constants(self) -> Tensor:
        return ~self._constant.isnan() & (self._constant != 0)

    def _representative(self) -> int:
        return int(self._constant.abs().nan_to_num(0.0).argmax())


class Grouped(Opaque):
    """A convolution in groups, such as a depthwise one: a group stays or goes as one."""

    def __init__(self, node: fx.Node, layer: nn.Module, source: Channels | None, groups: int) -> None:
        super().__init__(node, [source] if source else [])
        self.layer, self.source = layer, source
        weight = tensor(layer, "weight").double().flatten(2)  # (out, in of a group, kernel)
        inputs, outputs = weight.shape[1], len(weight) // groups
        self._group_in = torch.arange(groups).repeat_interleave(inputs)
        self._group_out = torch.arange(groups).repeat_interleave(outputs)
        unknown = torch.full((groups * inputs,), torch.nan, dtype=torch.float64)
        constant = (source.constant if source else unknown).view(groups, inputs)[self._group_out]
        reads = (weight != 0).any(2)
        self.output: Channels = Channels.of(
            1, constant_outputs(weight.sum(2), reads, constant, bias_of(layer), _pads_with_zeros(layer))
        )

    def demand(self) -> None:
        """See `Opaque.demand`."""
        if self.source is None:
            self.output.keep.fill_(True)
            return
        groups = torch.zeros(int(self._group_out[-1]) + 1, dtype=torch.bool)
        groups[self._group_in[self.source.keep]] = True
        groups[self._group_out[self.output.keep]] = True
        self.source.keep |= groups[self._group_in]
        self.output.keep |= groups[self._group_out]

    def rewrite(self, network: fx.GraphModule) -> None:
        """See `Opaque.rewrite`."""
        rows = self.output.keep
        if not bool(rows.all()):
            groups = len(self._group_out[rows].unique())
            weight = tensor(self.layer, "weight")[rows]
            replace_layer(network, self.node, weight, bias_of(self.layer)[rows], groups)


def constant_outputs(sums: Tensor, reads: Tensor, constant: Tensor, bias: Tensor, padded: bool) -> Tensor:
    """The value of each output of a layer that only reads constants, (out,), float64; NaN of the others.

    Args:
        sums, reads: of the weight over its kernel: the sum, and whether it has a nonzero, (out, in).
        constant: of the inputs, (in,) or (out, in).
        padded: whether zeros are read at the border, so that a constant other than 0 gives no constant.
    """
    varies = constant.isnan() | (padded & (constant != 0))
    value = bias + (sums * constant.nan_to_num(0.0)).sum(1)
    return torch.where((reads & varies).any(1), torch.nan, value)


def tensor(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of a module, without its gradient."""
    value = getattr(module, name)
    assert isinstance(value, Tensor)
    return value.detach()


def bias_of(layer: nn.Module) -> Tensor:
    """Of a layer, (out,), float64; zeros where it has none."""
    if layer.bias is None:
        return torch.zeros(len(tensor(layer, "weight")), dtype=torch.float64)
    return tensor(layer, "bias").double()


def replace_layer(network: fx.GraphModule, node: fx.Node, weight: Tensor, bias: Tensor, groups: int = 1) -> None:
    """Put a layer with these weights in the place of one that has more of them."""
    old = network.get_submodule(str(node.target))
    new, dtype = copy.copy(old), tensor(old, "weight").dtype
    new._parameters = dict(old._parameters)
    new.weight = nn.Parameter(weight.to(dtype).contiguous())
    new.bias = None if old.bias is None and not bool(bias.any()) else nn.Parameter(bias.to(dtype))
    if isinstance(new, nn.Linear):
        new.out_features, new.in_features = weight.shape
    else:
        for name, value in (("out_channels", weight.shape[0]), ("in_channels", weight.shape[1] * groups)):
            setattr(new, name, value)
        new.groups = groups  # type: ignore[assignment]
    network.set_submodule(str(node.target), new)


def _pads_with_zeros(layer: nn.Module) -> bool:
    """Whether a convolution reads zeros beyond the border; other kinds of padding repeat what is inside."""
    padding = getattr(layer, "padding", 0)
    if getattr(layer, "padding_mode", "zeros") != "zeros" or padding == "valid":
        return False
    return padding == "same" or any(torch.as_tensor(padding).flatten().tolist())
