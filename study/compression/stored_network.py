"""What builds a network, and building it from a stranger's description: its weights are counted before any memory is
taken for them, and a user's code is imported only if its name is given again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from study.data.splits import Splits
from study.errors import UserError, one_line
from study.models import registry
from study.models.custom import is_custom
from study.models.zoo import Options, Shape

MAX_PARAMETERS = 150_000_000
"""Of a network in a file, unless the caller knows better; VGG-19, the largest that is common, has 144 million."""
RAISE_LIMIT = "if you trust it, raise --max-parameters"


@dataclass(frozen=True)
class Network:
    """What builds a network and feeds it.

    Attributes:
        name, options, input_shape, classes: as `models.build` takes them.
        mean, std: of each channel, for pixels scaled to 0…1, as `data.normalise` takes them.
        dataset: name of the data set it was trained on.
        skip: names of parameters, or of modules, that were left out; see `quantised_weights.leave_out`.
        train_mean: mean of each channel over the training part, where `mean` is another one; otherwise empty.
    """

    name: str
    options: Options
    input_shape: Shape
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str
    skip: tuple[str, ...] = ()
    train_mean: tuple[float, ...] = ()


def network_of(name: str, options: Options, data: Splits, skip: tuple[str, ...] = ()) -> Network:
    """The network of this name, trained on these splits."""
    classes, train_mean = len(data.classes), data.train_mean
    return Network(name, options, data.shape, classes, data.mean, data.std, data.name, skip, train_mean)


def build(network: Network, custom: str | None, source: str, max_parameters: int | None = MAX_PARAMETERS) -> nn.Module:
    """The network with fresh weights. A user's code is run only if `custom` is its very name; see `decode`."""
    if is_custom(network.name) and custom != network.name:
        raise UserError(
            f"{source}: its network {network.name} is a user's code, which reading the file would run. If you trust "
            f"it, add --network {network.name}"
        )
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten: leave the caller's sequence alone
        if max_parameters is not None and not is_custom(network.name):
            with _counting(network.name, source, max_parameters):
                _build_without_memory(network)
        with _counting(network.name, source, max_parameters):
            if is_custom(network.name):
                return registry.build(network.name, network.input_shape, network.classes, **network.options)
            return registry.construct(network.name, network.input_shape, network.classes, network.options)


def _build_without_memory(network: Network) -> None:
    """Build the network of tensors that have shapes alone."""
    with _ShapesAlone():
        registry.construct(network.name, network.input_shape, network.classes, network.options)


class _ShapesAlone(TorchFunctionMode):
    """New weights take no memory, and none are drawn: to draw without numbers, torch would load its compiler, which
    takes more than a second. Other tensors are as ever, since torchvision's regnets compute widths with some."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _NEW and kwargs.get("device") is None:
            return function(*args, **{**kwargs, "device": "meta"})
        if function in _DRAWN or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


_NEW = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_DRAWN = (Tensor.normal_, Tensor.uniform_)


@contextlib.contextmanager
def _counting(name: str, source: str, most: int | None) -> Iterator[None]:
    """Stop the building of a network when it registers more parameters and buffers than so: before it fills them.
    Whatever else stops it is a UserError, too."""
    registered: dict[int, Tensor] = {}
    count = 0

    def register(module: nn.Module, key: str, tensor: Tensor | None) -> None:
        nonlocal count
        if most is None or tensor is None or nn.parameter.is_lazy(tensor) or id(tensor) in registered:
            return
        registered[id(tensor)] = tensor  # kept, so that its id is not given to another
        count += tensor.numel()
        if count > most:
            raise ValueError("too many")

    hooks = (
        nn.modules.module.register_module_parameter_registration_hook(register),
        nn.modules.module.register_module_buffer_registration_hook(register),
    )
    try:
        yield
    except Exception as error:  # whatever a network raises on options that it was not made for
        if most is not None and count > most:
            raise UserError(f"{source}: its network {name} has more than {most:,} parameters; {RAISE_LIMIT}") from None
        reason = str(error) if isinstance(error, UserError) else f"network {name} cannot be built ({one_line(error)})"
        raise UserError(f"{source}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
