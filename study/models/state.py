"""A network's state as tensors alone: a module may add anything else to its state dict, with `get_extra_state`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and then each of its parts in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def tensors_of(model: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """The tensors of a state dict by name, in its order.

    Args:
        keep_vars: as `state_dict` takes it: whether parameters come as themselves.
    """
    return {k: v for k, v in model.state_dict(keep_vars=keep_vars).items() if isinstance(v, Tensor)}


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the state that `tensors_of` had; what is no tensor stays as it is.

    Raises:
        RuntimeError: the tensors are not this network's.
    """
    own = model.state_dict()
    state = OrderedDict({**{k: v for k, v in own.items() if not isinstance(v, Tensor)}, **tensors})
    if state.keys() == own.keys():  # then it is of this version of the network, which some networks look at
        state._metadata = own._metadata  # type: ignore[attr-defined]
    model.load_state_dict(state)
