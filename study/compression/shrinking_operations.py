"""Which rule an operation of a network follows when channels are removed."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from study.compression.shrinking_graph import BATCH_NORMS, CONVOLUTIONS, shape_of
from study.compression.shrinking_rules import Channels, Grouped, Harmless, Layer, Opaque, Tied, tensor

# One value from one value, so that a constant channel gives a constant one.
_POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardshrink, nn.Softshrink,
)  # fmt: skip
_POINTWISE_FUNCTIONS = {
    torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.neg, F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu,
    F.silu, F.mish, F.sigmoid, F.tanh, F.hardtanh, F.hardswish, F.hardsigmoid, F.softplus, operator.neg,
}  # fmt: skip
_POINTWISE_METHODS = {"relu", "sigmoid", "tanh", "clamp", "contiguous", "neg"}
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}
_BINARY: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    operator.add: torch.add, torch.add: torch.add, "add": torch.add,
    operator.sub: torch.sub, torch.sub: torch.sub, "sub": torch.sub,
    operator.mul: torch.mul, torch.mul: torch.mul, "mul": torch.mul,
}  # fmt: skip
# Max pools pad with -inf, and adaptive pools not at all: the pool of a constant is the constant.
_POOL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
_POOL_FUNCTIONS = {
    F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
}  # fmt: skip
_AVERAGE_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_AVERAGE_FUNCTIONS = {F.avg_pool1d, F.avg_pool2d, F.avg_pool3d}


def rule_for(node: fx.Node, network: fx.GraphModule, channels: Mapping[fx.Node, Channels], called: int) -> Opaque:
    """The rule that an operation follows, with the channels of its output; `Opaque` where none is known.

    Args:
        channels: of the tensors before it that can be cut.
        called: how often its module is called, where it is one.
    """
    inputs = [channels[source] for source in node.all_input_nodes if source in channels]
    rule: Opaque | None = None
    if node.op == "call_module" and node.args and isinstance(node.args[0], fx.Node) and len(node.args) == 1:
        rule = _of_module(node, network.get_submodule(str(node.target)), channels.get(node.args[0]), called)
    elif node.op == "get_attr" and "constant" in node.meta:
        rule = constant_source(node)
    elif inputs and node.op in ("call_function", "call_method"):
        rule = _reads_size(node, channels) or _of_function(node, channels)
    if rule is not None and rule.output is not None:
        shape, output = shape_of(node) or (), rule.output
        if len(shape) <= output.axis or shape[output.axis] != len(output.constant):  # a pool across channels
            rule = None
    return rule or Opaque(node, inputs)


def two_tensors(node: fx.Node, channels: Mapping[fx.Node, Channels]) -> tuple[fx.Node, fx.Node] | None:
    """The operands of a sum, difference or product of two tensors of the same channels."""
    if node.op not in ("call_function", "call_method") or node.target not in _BINARY or len(node.args) != 2:
        return None
    one, two = node.args
    if node.kwargs or not (isinstance(one, fx.Node) and isinstance(two, fx.Node)):
        return None
    if one not in channels or two not in channels:
        return None
    shapes = [shape_of(one) or (), shape_of(two) or ()]
    axes = {channels[one].axis, channels[two].axis}
    if len(shapes[0]) != len(shapes[1]) or len(axes) > 1:
        return None
    axis = axes.pop()
    return (one, two) if shapes[0][axis] == shapes[1][axis] else None


def constant_source(node: fx.Node) -> Tied:
    """A buffer with one value for each channel; `node.meta["constant"]` has its values and its axis."""
    values, axis = node.meta["constant"]
    output = Channels.of(axis, values)

    def cut(network: fx.GraphModule) -> None:
        buffer = network.get_buffer(str(node.target))
        network.register_buffer(str(node.target), buffer.index_select(axis, output.keep.nonzero().flatten()))

    return Tied(node, [], [], output, cut)


def _of_module(node: fx.Node, module: nn.Module, source: Channels | None, called: int) -> Opaque | None:
    # Exact types: a subclass may compute something else.
    kind, before = type(module), shape_of(node.args[0]) or ()  # type: ignore[arg-type]
    if kind in CONVOLUTIONS and called == 1 and len(before) == tensor(module, "weight").dim():
        if source is not None and source.axis != 1:
            return None
        assert isinstance(module.groups, int)
        return Layer(node, module, source, 1) if module.groups == 1 else Grouped(node, module, source, module.groups)
    if kind is nn.Linear and called == 1 and len(before) >= 2:
        last = len(before) - 1
        return Layer(node, module, source, last) if source is None or source.axis == last else None
    if source is None:
        return None
    if kind in _POINTWISE_MODULES:
        return _pointwise(node, source, module)
    if kind in BATCH_NORMS and called == 1 and source.axis == 1 and module.running_mean is not None:
        return _batch_norm(node, source, module)
    if kind in _POOL_MODULES and source.axis == 1 and not getattr(module, "return_indices", False):
        return _same(node, source, source.constant)
    if kind in _AVERAGE_MODULES and source.axis == 1:
        exact = not _any(module.padding) and getattr(module, "divisor_override", None) is None
        return _same(node, source, _only_zeros(source.constant, exact))
    return None


def _of_function(node: fx.Node, channels: Mapping[fx.Node, Channels]) -> Opaque | None:
    if node.target is torch.cat:
        return _concatenation(node, channels)
    pair = two_tensors(node, channels)
    if pair is not None:
        return _binary(node, channels[pair[0]], channels[pair[1]])
    first = node.args[0] if node.args else None
    source = channels.get(first) if isinstance(first, fx.Node) else None
    tensors = [n for n in node.all_input_nodes if shape_of(n) is not None]
    if source is None or tensors != [first]:
        return None
    target, axis = node.target, source.axis
    if target is torch.flatten and axis == 1:
        return _flatten(node, source)
    if target in _POOL_FUNCTIONS and axis == 1 and not node.kwargs.get("return_indices"):
        return _same(node, source, source.constant)
    if target in _AVERAGE_FUNCTIONS and axis == 1:
        padding = node.args[3] if len(node.args) > 3 else node.kwargs.get("padding", 0)
        exact = not _any(padding) and len(node.args) < 7 and node.kwargs.get("divisor_override") is None
        return _same(node, source, _only_zeros(source.constant, exact))
    if target in (torch.mean, "mean") and _over_space(node, axis):
        return _same(node, source, source.constant)
    if target is F.pad and axis == 1:
        return _pad(node, source)
    if target is operator.getitem and _strides_over_space(node.args[1], axis):
        return _same(node, source, source.constant)
    return _function_of_one(node, source)


def _function_of_one(node: fx.Node, source: Channels) -> Opaque | None:
    target, rest, named = node.target, node.args[1:], node.kwargs
    if any(isinstance(value, fx.Node) for value in (*rest, *named.values())):
        return None
    scalar = target in _BINARY and len(rest) == 1 and not named and isinstance(rest[0], int | float)
    dropout = target in _DROPOUTS and (named.get("training") is False or (len(rest) > 1 and rest[1] is False))
    if node.op == "call_method" and (scalar or target in _POINTWISE_METHODS):
        return _pointwise(node, source, lambda x: getattr(x, str(target))(*rest, **named))
    if node.op == "call_function" and (scalar or dropout or target in _POINTWISE_FUNCTIONS):
        assert callable(target)
        return _pointwise(node, source, lambda x: target(x, *rest, **named))
    return None


def _same(node: fx.Node, source: Channels, constant: Tensor) -> Tied:
    origin = torch.arange(len(constant))
    return Tied(node, [source], [origin], Channels.of(source.axis, constant))


def _pointwise(node: fx.Node, source: Channels, function: Callable[[Tensor], Tensor]) -> Tied:
    value = function(source.constant.clone())
    return _same(node, source, torch.where(source.fixed, value, torch.nan))


def _batch_norm(node: fx.Node, source: Channels, norm: nn.Module) -> Tied:
    """y = γ (x − μ) / σ + β; where γ is 0 it is β whatever is read."""
    mean, variance, eps = tensor(norm, "running_mean"), tensor(norm, "running_var"), norm.eps
    ones = torch.ones(len(mean), dtype=torch.float64)
    weight, bias = (ones if norm.weight is None else tensor(norm, "weight").double()), torch.zeros_like(ones)
    bias = bias if norm.bias is None else tensor(norm, "bias").double()
    slope = weight / (variance.double() + eps).sqrt()  # type: ignore[operator]
    constant = torch.where(slope == 0, bias, slope * (source.constant - mean.double()) + bias)
    rule = _same(node, source, constant)
    keep = rule.output.keep  # type: ignore[union-attr]

    def cut(network: fx.GraphModule) -> None:
        new = copy.deepcopy(norm)
        for name, value in (*norm.named_parameters(), *norm.named_buffers()):
            if value.dim():
                cut_value = value.detach()[keep].clone()
                setattr(new, name, nn.Parameter(cut_value) if isinstance(value, nn.Parameter) else cut_value)
        new.num_features = int(keep.sum())  # type: ignore[assignment]
        network.set_submodule(str(node.target), new)

    rule.cut = cut
    return rule


def _binary(node: fx.Node, one: Channels, two: Channels) -> Tied:
    function = _BINARY[node.target]
    constant = function(one.constant, two.constant)
    if function is torch.mul:
        constant = torch.where((one.constant == 0) | (two.constant == 0), 0.0, constant)
    origin = torch.arange(len(constant))
    return Tied(node, [one, two], [origin, origin], Channels.of(one.axis, constant))


def _concatenation(node: fx.Node, channels: Mapping[fx.Node, Channels]) -> Tied | None:
    parts = node.args[0]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if not isinstance(parts, list | tuple) or not isinstance(dim, int):
        return None
    sources = [channels.get(part) for part in parts if isinstance(part, fx.Node)]
    known = [source for source in sources if source is not None]
    axis, dims = (known[0].axis if known else 0), len(shape_of(node) or ())
    if not known or len(known) < len(parts) or any(source.axis != axis for source in known) or dim % dims != axis:
        return None
    constant = torch.cat([source.constant for source in known])
    origins, start = [], 0
    for source in known:
        origin = torch.full((len(constant),), -1)
        origin[start : start + len(source.constant)] = torch.arange(len(source.constant))
        origins.append(origin)
        start += len(source.constant)
    return Tied(node, known, origins, Channels.of(axis, constant))


def _flatten(node: fx.Node, source: Channels) -> Tied | None:
    after = shape_of(node) or ()
    if len(after) != 2 or node.args[1:] != (1,):
        return None
    pixels = after[1] // len(source.constant)
    origin = torch.arange(len(source.constant)).repeat_interleave(pixels)
    return Tied(node, [source], [origin], Channels.of(1, source.constant[origin]))


def _pad(node: fx.Node, source: Channels) -> Tied | None:
    """Zeros around the channels, and around the image, such as the shortcuts of ResNets for CIFAR have."""
    pads, (before, dims) = node.args[1], (0, len(shape_of(node) or ()))
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    if mode != "constant" or value not in (None, 0) or not isinstance(pads, list | tuple):
        return None
    if not all(isinstance(n, int) and n >= 0 for n in pads) or len(pads) > 2 * (dims - 1):
        return None
    around, at = [int(n) for n in pads], 2 * (dims - 2)  # type: ignore[arg-type]
    around += [0] * (2 * (dims - 1) - len(around))
    before, behind = around[at : at + 2]
    zeros, channels = [torch.zeros(n, dtype=torch.float64) for n in (before, behind)], len(source.constant)
    inside = _only_zeros(source.constant, not any(around[:at]))
    output = Channels.of(1, torch.cat([zeros[0], inside, zeros[1]]))
    none = [torch.full((n,), -1) for n in (before, behind)]
    origin = torch.cat([none[0], torch.arange(channels), none[1]])

    def cut(network: fx.GraphModule) -> None:
        kept = [int(part.sum()) for part in output.keep.split([before, channels, behind])]
        node.update_arg(1, (*around[:at], kept[0], kept[2]))

    return Tied(node, [source], [origin], output, cut)


def _reads_size(node: fx.Node, channels: Mapping[fx.Node, Channels]) -> Harmless | None:
    """The size of a tensor along axes that are not cut."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or first not in channels:
        return None
    axis, dims = channels[first].axis, len(shape_of(first) or ())
    if node.op == "call_method" and node.target in ("size", "dim"):
        axes = [node.args[1:]] if len(node.args) > 1 else [user.args[1:] for user in node.users]
        axes = [] if node.target == "dim" else axes
    elif node.op == "call_function" and node.target is getattr and node.args[1] == "shape":
        axes = [user.args[1:] for user in node.users]
    else:
        return None
    whole = (len(a) == 1 and isinstance(a[0], int) and a[0] % dims != axis for a in axes)
    return Harmless(node, []) if all(whole) else None


def _over_space(node: fx.Node, axis: int) -> bool:
    """Whether a mean is over axes behind that of the channels."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    wanted = dims if isinstance(dims, list | tuple) else [dims]
    rank = len(shape_of(node.args[0]) or ())  # type: ignore[arg-type]
    return bool(wanted) and all(isinstance(d, int) and d % rank > axis for d in wanted)


def _strides_over_space(index: Any, axis: int) -> bool:
    """Whether an index takes all examples and channels, and slices of the rest."""
    if not isinstance(index, tuple) or len(index) <= axis or not all(isinstance(part, slice) for part in index):
        return False
    return all(part == slice(None) for part in index[: axis + 1])


def _only_zeros(constant: Tensor, exact: bool) -> Tensor:
    """The constants, of which only zeros remain constant where the border is not exact."""
    return constant if exact else torch.where(constant == 0, 0.0, torch.nan)


def _any(padding: Any) -> bool:
    return not isinstance(padding, int | tuple | list) or any(torch.as_tensor(padding).flatten().tolist())
