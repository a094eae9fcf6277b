"""Layers of which few weights are left compute with the inputs and outputs that still have one, and so in less time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from study.training.batches import Batch
from study.training.loop import Loss

LEAST = {nn.Linear: 2**14, nn.Conv2d: 2**12}
"""Weights of a layer below which it is not its products that take the time; those of a convolution are used often."""

LARGEST = 0.6
"""Share of a layer's weights that the block may hold; a larger one costs more to select than it saves."""


class SparseLayers:
    """The linear and convolutional layers of a network and, of each, the block that holds all weights that are left.

    A block is the outputs (rows) and inputs (columns) that have a weight left. On a GPU, where a step is recorded and
    the matrix products are not what takes the time, there are none.

    Args:
        parameters: of the network, the shared ones.
        left: tells which of their weights are left, (weights,), bool. All others must be zero in the network. It is
            asked in the first step, since a trial that goes on has restored its state by then, and after `changed`.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter], left: Callable[[], Tensor]) -> None:
        self._layers = [layer for layer in model.modules() if _has_block(layer)]
        self._parameters, self._left = parameters, left
        self._blocks: dict[nn.Module, tuple[Tensor, Tensor]] | None = None

    @property
    def blocks(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Layer → its rows and columns, int64 each; only of layers where that saves time."""
        if self._blocks is None:
            self._blocks = self._found()
        return self._blocks

    def changed(self) -> None:
        """Fewer weights are left than before."""
        self._blocks = None

    def _found(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        parts = self._left().split([p.numel() for p in self._parameters]) if self._layers else []
        masks = dict(zip(self._parameters, parts, strict=bool(parts)))
        blocks = {}
        for layer in self._layers:
            weight = layer.get_parameter("weight")
            if weight not in masks:
                continue
            left = masks[weight].view(*weight.shape[:2], -1).any(dim=2)
            rows, columns = left.any(dim=1).nonzero().flatten(), left.any(dim=0).nonzero().flatten()
            if 0 < len(rows) * len(columns) <= LARGEST * left.numel():
                blocks[layer] = rows, columns
        return blocks

    def of(self, loss: Loss) -> Loss:
        """The same loss, computed with the blocks. What a weight outside of them would have as its gradient is zero."""

        def total(model: nn.Module, batch: Batch) -> Tensor:
            with self._in_use():
                return loss(model, batch)

        return total

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        blocks = self.blocks
        for layer, (rows, columns) in blocks.items():
            layer.forward = partial(_FORWARD[type(layer)], layer, rows, columns)
        try:
            yield
        finally:
            for layer in blocks:
                del layer.forward


def _has_block(layer: nn.Module) -> bool:
    if type(layer) not in _FORWARD or "forward" in vars(layer):
        return False
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
        return False
    weight = layer.weight
    return isinstance(weight, nn.Parameter) and weight.device.type == "cpu" and weight.numel() >= LEAST[type(layer)]


def _linear(layer: nn.Linear, rows: Tensor, columns: Tensor, inputs: Tensor) -> Tensor:
    block = layer.weight.index_select(0, rows).index_select(1, columns)
    return _among_all(F.linear(inputs.index_select(-1, columns), block), layer.bias, layer.out_features, rows, -1)


def _convolution(layer: nn.Conv2d, rows: Tensor, columns: Tensor, inputs: Tensor) -> Tensor:
    block = layer.weight.index_select(0, rows).index_select(1, columns)
    part = F.conv2d(inputs.index_select(-3, columns), block, None, layer.stride, layer.padding, layer.dilation)
    bias = None if layer.bias is None else layer.bias.view(-1, 1, 1)
    return _among_all(part, bias, layer.out_channels, rows, -3)


def _among_all(part: Tensor, bias: Tensor | None, size: int, rows: Tensor, dim: int) -> Tensor:
    """The outputs of a layer: those of its rows, plus its bias."""
    shape = list(part.shape)
    shape[dim] = size
    outputs = part.new_zeros(shape) if bias is None else bias.to(part.dtype).expand(shape)
    return outputs.index_add(dim, rows, part)


_FORWARD: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Linear: _linear, nn.Conv2d: _convolution}
