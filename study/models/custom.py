"""A user's own network, `module:function`: how it is built, and the hash of its code."""

from __future__ import annotations

import re

from torch import nn

from study import user_code
from study.errors import UserError
from study.models.state import tensors_of
from study.models.zoo import Options, Shape
from study.user_code import is_custom, only

__all__ = ["build_custom", "identity", "is_custom", "only"]


def identity(name: str, model: nn.Module) -> str:
    """Hash of a user's network: its layers, the shapes of its state, and the files of its code; see
    `user_code.code_hash`."""
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(model)) + repr(
        [(k, tuple(v.shape)) for k, v in tensors_of(model).items()]
    )
    return user_code.code_hash(name, layers.encode(), (type(m).__module__ for m in model.modules()))


def build_custom(name: str, input_shape: Shape, classes: int, options: Options) -> nn.Module:
    function = user_code.import_function("network", name)
    model = user_code.call("network", name, function, input_shape=input_shape, classes=classes, **options)
    if not isinstance(model, nn.Module):
        returned = f"{name.partition(':')[2]} returned {type(model).__name__}"
        raise UserError(f"network {name}: {returned}, not a torch.nn.Module")
    return model
