"""A network as a graph of tensor operations in a plain form: shapes known, nothing in place, batch-norm folded."""

from __future__ import annotations

import copy
import inspect
import operator
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from study.errors import one_line
from study.models.registry import main_logits

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BATCH = 2


class CannotTrace(Exception):
    """The network has no graph of tensor operations; the message is the reason, in one line."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return _does_nothing(module) or super().is_leaf_module(module, name)


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, on the CPU.

    Raises:
        CannotTrace: it has hooks, or cannot be copied.
    """
    hooked = [n for n, m in model.named_modules() if not _is_free_of_hooks(m)]
    if hooked:  # such as torch.nn.utils.prune: the weight is computed by the hook
        raise CannotTrace(f"module {hooked[0] or type(model).__name__} has forward hooks")
    try:
        copied = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # whatever a user's attribute raises
        raise CannotTrace(one_line(error)) from error
    for module in copied.modules():  # a trace sees no hook, so what it is compared with has none
        module._forward_hooks.clear()
    return copied


def _is_free_of_hooks(module: nn.Module) -> bool:
    """Whether a module has no hook but our own, which leaves a tensor alone; other outputs are not traced."""
    hooks = module._forward_hooks.values()
    return not module._forward_pre_hooks and all(getattr(hook, "func", None) is main_logits for hook in hooks)


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """A network in evaluation mode as a graph that computes the same, with modules of its own.

    What does nothing in evaluation mode is left out, and batch-norm is folded into the layer in front of it.

    Raises:
        CannotTrace: it branches on its input, takes several inputs, or fails on a batch of zeros.
    """
    try:
        graph = (tracer := _Tracer()).trace(copy.deepcopy(model))
        network = fx.GraphModule(tracer.root, graph)
        find_shapes(network, input_shape)
    except Exception as error:  # whatever a user's code raises when it is given symbols
        raise CannotTrace(one_line(error)) from error
    _replace_in_place(network)
    for node in list(graph.nodes):
        if node.op == "call_module" and _does_nothing(network.get_submodule(str(node.target))):
            node.replace_all_uses_with(node.args[0])
        elif _flattens(node):
            with graph.inserting_before(node):
                flat = graph.call_function(torch.flatten, (node.args[0], 1))
            flat.meta = node.meta
            node.replace_all_uses_with(flat)
    _fold_batch_norms(network)
    return clean(network)


def clean(network: fx.GraphModule) -> fx.GraphModule:
    """The network without the operations and modules that nothing reads."""
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
    return network


def find_shapes(network: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
    """Note the shape of every tensor, for `shape_of`."""
    with torch.no_grad():
        ShapeProp(network).propagate(torch.zeros(_BATCH, *input_shape))


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of what an operation gives for a batch of two; None where that is no tensor."""
    meta = node.meta.get("tensor_meta")
    return None if meta is None or not hasattr(meta, "shape") else tuple(meta.shape)


def calls(network: fx.GraphModule) -> Counter[str]:
    """How often each module is called."""
    return Counter(str(node.target) for node in network.graph.nodes if node.op == "call_module")


def _does_nothing(module: nn.Module) -> bool:
    """In evaluation mode. torchvision's StochasticDepth is known by name: not every network needs torchvision."""
    return isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth"


def _flattens(node: fx.Node) -> bool:
    """Whether it makes one row of each example, whatever the way in which that is written."""
    named = node.op == "call_method" and node.target in ("view", "reshape", "flatten")
    if not named and not (node.op == "call_function" and node.target in (torch.flatten, torch.reshape)):
        if node.op != "call_module" or not isinstance(_module(node), nn.Flatten):
            return False
    source = node.args[0]
    before, after = shape_of(source) if isinstance(source, fx.Node) else None, shape_of(node)
    return before is not None and after == (before[0], torch.Size(before[1:]).numel())


def _module(node: fx.Node) -> nn.Module:
    owner = node.graph.owning_module
    assert owner is not None
    return owner.get_submodule(str(node.target))


def _replace_in_place(network: fx.GraphModule) -> None:
    """What overwrites its input gives a new tensor instead, and who reads the input later reads that one."""
    order = {node: at for at, node in enumerate(network.graph.nodes)}
    for node in list(network.graph.nodes):
        if not _overwrites(node, network):
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)
        for user in list(source.users):
            if order[user] > order[node]:
                user.replace_input_with(source, node)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]


_IN_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}


def _overwrites(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether it writes over its first input. Where it can, it is rewritten so that it does not."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        if not name.endswith("_") or name.endswith("__"):
            return False
        if hasattr(Tensor, name[:-1]):
            node.target = name[:-1]
        return True
    if node.op != "call_function" or not callable(node.target):
        return False
    if node.target in _IN_PLACE:
        node.target = _IN_PLACE[node.target]
        return True
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):  # written in C
        return getattr(node.target, "__name__", "").endswith("_")
    if bound.arguments.get("inplace"):
        bound.arguments["inplace"] = False
        node.args, node.kwargs = bound.args, bound.kwargs
        return True
    return False


def _fold_batch_norms(network: fx.GraphModule) -> None:
    """Batch-norm right behind a convolution or linear layer that nothing else reads becomes part of it."""
    called = calls(network)
    for node in list(network.graph.nodes):
        layer = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(layer, fx.Node) or layer.op != "call_module":
            continue
        norm, name = network.get_submodule(str(node.target)), str(layer.target)
        before = network.get_submodule(name)
        if type(norm) not in BATCH_NORMS or norm.running_mean is None or len(layer.users) > 1 or called[name] > 1:
            continue
        fused: nn.Module
        with torch.no_grad():  # in double precision: rounded once, at the end
            if type(before) in CONVOLUTIONS:
                fused = fuse_conv_bn_eval(_double(before), _double(norm))
            elif type(before) is nn.Linear and len(shape_of(layer) or ()) == 2:
                fused = fuse_linear_bn_eval(_double(before), _double(norm))
            else:
                continue
        weight = before.weight
        assert isinstance(weight, Tensor)
        network.set_submodule(name, fused.to(weight.dtype))
        node.replace_all_uses_with(layer)


def _double(module: nn.Module) -> Any:
    return copy.deepcopy(module).double()
