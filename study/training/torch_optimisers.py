"""torch's optimisers, without the compiler that they load, a second and 160 MB of every process that trains.

They load it to keep themselves out of what it compiles, and nothing compiles a step here. A network that is compiled
loads it by itself.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

_Kind = TypeVar("_Kind", bound=type[Optimizer])

_KEPT_OUT = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods that torch wraps to keep the compiler out."""


def _without_compiler(kind: _Kind) -> _Kind:
    """The class with its methods as they are within torch's wrappers. A step needs the part of its own that turns
    gradients off."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in (*_KEPT_OUT, "step")}
    methods["step"] = torch.no_grad()(methods["step"])
    for name, method in methods.items():
        setattr(kind, name, method)
    return kind


@_without_compiler
class Adam(torch.optim.Adam):
    """`torch.optim.Adam`."""


@_without_compiler
class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`."""


@_without_compiler
class SGD(torch.optim.SGD):
    """`torch.optim.SGD`."""
