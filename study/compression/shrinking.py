"""Exact shrinking: a pruned network becomes a smaller one that gives the same outputs.

Units and channels whose weights are all zero are removed, with what feeds and what reads them. Outputs equal those of
the network before it up to float rounding, for finite activations; what cannot be removed exactly stays. Linear and
convolution layers, batch-norm, activations, pooling, flatten, sums, products and concatenations are understood. What
other operations read stays complete, such as the width of a transformer.

Channels of images stay in eights, see `BLOCK`.

A channel without weights need not be zero: behind a bias or batch-norm it is a constant. Constants move into the bias
of the next layer. Under zero padding they cannot, and one constant channel then stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from study.compression.latency import multiply_adds
from study.compression.shrinking_graph import CannotTrace, calls, clean, find_shapes, plain_copy, shape_of, trace
from study.compression.shrinking_operations import rule_for, two_tensors
from study.compression.shrinking_rules import Channels, Opaque
from study.errors import one_line

BLOCK = 8
"""Channels of an image are kept by so many: onnxruntime's convolutions take eight at a time, and are slower with 15
channels than with 16."""

ROUNDING = 1e-4
"""Largest difference of an output, as a share of the largest output, that passes for float rounding."""


@dataclass(frozen=True)
class LayerRow:
    """One layer before and after shrinking; (0, 0) after it where the complete layer was removed.

    Attributes:
        units: outputs, before and after.
        inputs: before and after; of a convolution in groups those of all groups.
    """

    name: str
    units: tuple[int, int]
    inputs: tuple[int, int]


@dataclass(frozen=True)
class ShrinkingReport:
    """What was removed.

    Attributes:
        reason: why nothing was, in one line; None where the network was shrunk.
        layers: one row for each linear and convolution layer, in the order of the module's parts.
        parameters: learned scalars, before and after; those that hold an index or a constant are not among them.
        multiply_adds: of one example, before and after; zeros where the network could not be shrunk.
    """

    reason: str | None
    layers: tuple[LayerRow, ...] = field(default=())
    parameters: tuple[int, int] = (0, 0)
    multiply_adds: tuple[int, int] = (0, 0)


def shrink(model: nn.Module, input_shape: tuple[int, ...], block: int = BLOCK) -> nn.Module:
    """A smaller network with the same outputs; see `shrink_with_report`."""
    try:
        return _shrink(model, input_shape, block)[1]
    except CannotTrace:
        return model


def shrink_with_report(
    model: nn.Module, input_shape: tuple[int, ...], block: int = BLOCK
) -> tuple[nn.Module, ShrinkingReport]:
    """A smaller network with the same outputs, and what was removed.

    Args:
        model: stays as it is.
        input_shape: of one example, (channels, height, width) for images; float32.
        block: a tensor of images keeps a multiple of so many channels, or all that it has; 1 keeps the fewest.
    Returns: the network, new, in evaluation mode and on the CPU, and the report. A network that cannot be traced, or
        does not give the same outputs for random inputs, is returned itself, with the reason in the report.
    """
    before = _parameters(model)
    try:
        original, network, layers = _shrink(model, input_shape, block)
    except CannotTrace as error:
        return model, ShrinkingReport(str(error), (), (before, before))
    costs = (multiply_adds(original, input_shape), multiply_adds(network, input_shape))
    return network, ShrinkingReport(None, layers, (before, _parameters(network)), costs)


def _shrink(
    model: nn.Module, input_shape: tuple[int, ...], block: int
) -> tuple[nn.Module, nn.Module, tuple[LayerRow, ...]]:
    """A copy of the network, the shrunk one, and the table of layers."""
    original = plain_copy(model)
    network = trace(original, input_shape)
    try:
        rules = rules_of(network, input_shape)
        mark(rules, block)
        layers = _cut(network, rules, original)
    except Exception as error:  # an operation that is used in a way that no rule expects: nothing is lost
        raise CannotTrace(f"shrinking fails: {one_line(error)}") from error
    _check(original, network, input_shape)
    return original, network.eval(), layers


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def rules_of(network: fx.GraphModule, input_shape: tuple[int, ...]) -> list[Opaque]:
    """One rule for each operation, in order; operands that are constant become buffers first."""
    while True:
        find_shapes(network, input_shape)
        called, channels, rules = calls(network), dict[fx.Node, Channels](), []
        for node in network.graph.nodes:
            rule = rule_for(node, network, channels, called[str(node.target)])
            rules.append(rule)
            if rule.output is not None:
                channels[node] = rule.output
        if not any([_free_of_constants(node, network, channels) for node in list(network.graph.nodes)]):
            return rules
        clean(network)


def _free_of_constants(node: fx.Node, network: fx.GraphModule, channels: dict[fx.Node, Channels]) -> bool:
    """Replace one operand of which every channel is constant, so that nothing need compute it."""
    pair = two_tensors(node, channels)
    for operand, other in (pair, pair[::-1]) if pair is not None else ():
        values, axis = channels[operand].constant, channels[operand].axis
        if bool(values.isnan().any()) or operand.op == "get_attr" or shape_of(other) != shape_of(node):
            continue
        adds = "add" in getattr(node.target, "__name__", str(node.target))
        if adds and not bool(values.any()):
            node.replace_all_uses_with(other)
            return True
        name, shape = f"{node.name}_constant", [1] * len(shape_of(operand) or ())
        shape[axis] = len(values)
        network.register_buffer(name, values.view(shape).to(torch.get_default_dtype()))
        with network.graph.inserting_before(node):
            buffer = network.graph.get_attr(name)
        buffer.meta["constant"] = (values, axis)
        node.replace_input_with(operand, buffer)
        return True
    return False


def mark(rules: list[Opaque], block: int = 1) -> None:
    """Mark the channels that stay: the fewest with which every rule is content, at least one of each tensor, and in
    blocks where the tensor is an image."""
    while True:
        _spread_demands(rules)
        short = ((rule.output, _missing(rule, block)) for rule in rules if rule.output is not None)
        channels, missing = next(((c, n) for c, n in short if n), (None, 0))
        if channels is None:
            return
        largest_first = (
            channels.constant.abs()
            .nan_to_num(0.0)
            .masked_fill(channels.keep, -1.0)
            .argsort(descending=True, stable=True)
        )
        channels.keep[largest_first[:missing]] = True


def _spread_demands(rules: list[Opaque]) -> None:
    outputs = [rule.output for rule in rules if rule.output is not None]
    kept = -1
    while kept != (kept := sum(int(channels.keep.sum()) for channels in outputs)):
        for rule in reversed(rules):
            rule.demand()


def _missing(rule: Opaque, block: int) -> int:
    """How many channels more the output must keep."""
    assert rule.output is not None
    channels, kept = len(rule.output.keep), int(rule.output.keep.sum())
    image = rule.output.axis == 1 and len(shape_of(rule.node) or ()) > 2
    return min(-kept % block if image and kept else int(not kept), channels - kept)


def _cut(network: fx.GraphModule, rules: list[Opaque], original: nn.Module) -> tuple[LayerRow, ...]:
    """Rewrite every operation; returns the table of layers."""
    for rule in rules:
        rule.rewrite(network)
    clean(network)
    remaining = dict(network.named_modules())
    layers = ((n, m) for n, m in original.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd))
    sizes = [(name, _size(layer), _size(remaining.get(name))) for name, layer in layers]
    return tuple(LayerRow(name, (old[0], new[0]), (old[1], new[1])) for name, old, new in sizes)


def _size(layer: nn.Module | None) -> tuple[int, int]:
    """Units and inputs."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return 0, 0
    groups = getattr(layer, "groups", 1)
    return weight.shape[0], weight.shape[1] * groups


@torch.no_grad()
def _check(original: nn.Module, network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Raises CannotTrace unless both give the same for random inputs; a trace does not see everything."""
    images = torch.randn(3, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        expected, found = original(images.clone()), network(images.clone())
        same = torch.allclose(found, expected, rtol=0, atol=ROUNDING * float(expected.abs().max()))
    except Exception as error:  # whatever a layer raises on a shape that it cannot take
        raise CannotTrace(f"shrinking fails: {one_line(error)}") from error
    if not same:
        raise CannotTrace("its outputs would not stay the same")
