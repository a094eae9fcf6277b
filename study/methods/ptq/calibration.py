"""How sensitive a trained network's loss is to its weights, measured on a few hundred training examples.

The curvature of a linear or convolution layer is a Kronecker product, as in Martens & Grosse (2015),
https://arxiv.org/abs/1503.05671, and Grosse & Martens (2016), https://arxiv.org/abs/1602.01407: second moments of what
the layer reads, times the mean square of the loss gradient at each of its outputs. Of all other tensors only the mean
square of each row's gradient is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.compression.quantised_weights import shared_parameters
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.models.state import evaluating

BATCH = 32
MOST_COLUMNS = 6144
"""Of a layer whose inputs' moments are taken; of a wider one they would take gigabytes."""
POSITIONS = 256
"""Most positions of one image from which a convolution's inputs are taken; neighbours say nearly the same."""


@dataclass
class Sensitivity:
    """The curvature of the loss in one shared tensor, and in the bias next to it, in nats per example.

    A change Δ of row r, the bias's entry last, costs about ½ outputs[r] Δ inputs[group of r] Δᵀ.

    Attributes:
        weight: the tensor; its rows are its first axis.
        bias: of the same layer, where it is a shared tensor, too; otherwise None.
        groups: of a convolution; 1 for all else.
        inputs: (groups, columns, columns), columns including the bias; None where nothing is known of them.
        outputs: (rows,).
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    groups: int
    inputs: Tensor | None
    outputs: Tensor


def calibration_part(data: Splits, count: int, seed: int) -> Part:
    """So many examples of the training part, drawn without replacement; all of them where there are no more."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:count]
    return data.train[order.to(data.train.labels.device)]


def sensitivities(model: nn.Module, examples: Part, data: Splits, seed: int) -> list[Sensitivity]:
    """The curvature of every shared tensor, each tensor in one entry, in the order of `shared_parameters`.

    Each example's logits get a random gradient whose covariance is the Hessian of cross-entropy in the logits,
    diag(p) − p pᵀ: no labels are needed, and a network that makes no mistakes still has a curvature.

    Args:
        model: left as it is.
        examples: on the model's device.
        seed: of the random signs, and of the positions that are taken.
    Raises:
        TrialFailed: a sensitivity is not a finite number.
    """
    parameters = shared_parameters(model)
    layers = _layers(model, parameters)
    squares = {p: torch.zeros(len(p), device=p.device) for p in parameters}
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        stack.enter_context(_differentiable(model, parameters))
        for module, entry in layers.items():
            stack.callback(module.register_forward_hook(partial(_observe, entry, generator)).remove)
        for images in examples.images.split(BATCH):
            logits = model(normalise(images, data.mean, data.std))
            gradients = torch.autograd.grad(logits, parameters, _random_gradient(logits, generator), allow_unused=True)
            for p, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    squares[p] += gradient.square().reshape(len(p), -1).mean(dim=1)
    return _collected(parameters, layers, squares, len(examples))


@dataclass
class _Moments:
    """Sums over all that one layer reads and gives, (groups, columns, columns) and (rows,); how many outputs those are
    of, an image's positions counted one by one."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    groups: int
    inputs: Tensor | None = None
    outputs: Tensor | None = None
    seen: int = 0

    def add_inputs(self, inputs: Tensor, share: float) -> None:
        """Inputs of this share of all positions, (groups, positions, columns)."""
        if self.bias is not None:
            inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], dim=2)
        moments = (inputs.transpose(1, 2) @ inputs) / share
        self.inputs = moments if self.inputs is None else self.inputs + moments

    def add_outputs(self, gradient: Tensor, channels: int) -> None:
        """The gradient at the outputs, whose channels are this axis."""
        rows = gradient.detach().movedim(channels, -1).reshape(-1, gradient.shape[channels])
        squares = rows.square().sum(dim=0)
        self.outputs = squares if self.outputs is None else self.outputs + squares
        self.seen += len(rows)


def _layers(model: nn.Module, parameters: list[nn.Parameter]) -> dict[nn.Module, _Moments]:
    """Modules whose inputs can be seen → where their moments are summed; modules that share a weight share the sums."""
    shared = set(parameters)
    entries: dict[nn.Parameter, _Moments] = {}
    layers: dict[nn.Module, _Moments] = {}
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        weight, bias = module.weight, module.bias
        if not isinstance(weight, nn.Parameter) or weight not in shared or weight[0].numel() > MOST_COLUMNS:
            continue
        bias = bias if isinstance(bias, nn.Parameter) and bias in shared else None
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        entry = entries.setdefault(weight, _Moments(weight, bias, groups))
        if entry.bias is bias and entry.groups == groups:
            layers[module] = entry
    return layers


def _observe(
    entry: _Moments, generator: torch.Generator, module: nn.Module, args: tuple[Tensor], output: Tensor
) -> None:
    """A forward hook that sums what the layer reads now, and the gradient at its outputs when it arrives."""
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            entry.add_inputs(args[0].reshape(1, -1, module.in_features), share=1.0)
            channels = -1
        else:
            assert isinstance(module, nn.Conv1d | nn.Conv2d)
            entry.add_inputs(*_unfolded(module, args[0], generator))
            channels = 1
    if output.requires_grad:
        output.register_hook(lambda gradient: entry.add_outputs(gradient, channels))


def _unfolded(module: nn.Conv1d | nn.Conv2d, images: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """What a convolution multiplies its weights by, (groups, positions, columns), and of which share of all positions
    it is."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(images, module._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    if isinstance(module, nn.Conv1d):
        padded, kernel, stride, dilation = padded.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    columns = F.unfold(padded, kernel, dilation=dilation, stride=stride)
    examples, _, positions = columns.shape
    if positions > POSITIONS:
        columns = columns[:, :, torch.randperm(positions, generator=generator)[:POSITIONS].to(columns.device)]
    grouped = columns.reshape(examples, module.groups, -1, columns.shape[2])
    rows = grouped.permute(1, 0, 3, 2).reshape(module.groups, examples * columns.shape[2], -1)
    return rows, columns.shape[2] / positions


def _random_gradient(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A vector v for each example with E[v vᵀ] = diag(p) − p pᵀ, (examples, classes): v = √p ξ − p Σ √p ξ, ξ = ±1."""
    p = logits.detach().float().softmax(dim=1)
    signs = torch.randint(0, 2, p.shape, generator=generator).mul_(2).sub_(1).to(p)
    scaled = p.sqrt() * signs
    return (scaled - p * scaled.sum(dim=1, keepdim=True)).to(logits.dtype)


@contextmanager
def _differentiable(model: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within, the model is in evaluation mode and its shared tensors have gradients."""
    frozen = [p for p in parameters if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _collected(
    parameters: list[nn.Parameter], layers: dict[nn.Module, _Moments], squares: dict[nn.Parameter, Tensor], count: int
) -> list[Sensitivity]:
    seen = {e.weight: e for e in layers.values() if e.inputs is not None and e.outputs is not None}
    biases = {e.bias for e in seen.values() if e.bias is not None}
    result = []
    for p in parameters:
        if p in seen:
            entry = seen[p]
            assert entry.inputs is not None and entry.outputs is not None
            result.append(Sensitivity(p, entry.bias, entry.groups, entry.inputs / count, entry.outputs / entry.seen))
        elif p not in biases:
            result.append(Sensitivity(p, None, 1, None, squares[p] / count))
    for its in result:
        if not (its.outputs.isfinite().all() and (its.inputs is None or its.inputs.isfinite().all())):
            raise TrialFailed("the loss's sensitivity to the weights is not a finite number")
    return result
