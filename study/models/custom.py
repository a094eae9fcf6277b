"""A user's own network, `module:function`: how it is imported, and the hash of its code."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from study.errors import UserError, one_line
from study.models.state import tensors_of
from study.models.zoo import Options, Shape


def is_custom(name: str) -> bool:
    """Whether a network of this name is a user's own code, `module:function`."""
    return ":" in name and not name.startswith("torchvision:")


def identity(name: str, model: nn.Module) -> str:
    """Hash of a user's network: its layers, the shapes of its state, and the files of its code, with the files of the
    same folder that these use.

    torch's own files do not count: its version says what they are. Returns: 16 hexadecimal digits, or "" where some of
    the code is in no file, so that it cannot be compared.
    """
    named = name.partition(":")[0]
    hashed = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode())
    hashed.update(repr([(k, tuple(v.shape)) for k, v in tensors_of(model).items()]).encode())
    for module in sorted({named, *_used_by(named), *(type(m).__module__ for m in model.modules())}):
        file = _file_of(module)
        if file is None:
            return ""
        if module.partition(".")[0] != "torch":
            hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


_INSTALLED = "site-packages"


def _used_by(module: str) -> set[str]:
    """Modules of the same folder or package that this one uses, directly or through another of them."""
    files = [_file_of(name) for name in (module.partition(".")[0], module)]  # a package need not have a file
    folder = next((file.parent for file in files if file), None)
    if folder is None or folder.name == _INSTALLED:  # a file by itself, among all that is installed
        return set()
    used, unread = set(), [module]
    while unread:
        for value in vars(sys.modules[unread.pop()]).copy().values():
            name = str(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None))
            file = _file_of(name)
            inside = file and file.is_relative_to(folder) and _INSTALLED not in file.relative_to(folder).parts
            if inside and name not in used:
                used.add(name)
                unread.append(name)
    return used


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def build_custom(name: str, input_shape: Shape, classes: int, options: Options) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.invalidate_caches()  # the file may be newer than the interpreter's list of its folder
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = "To fix it: run from the folder that holds it, or set PYTHONPATH"
        raise UserError(f"network {name} cannot be imported ({one_line(error)}). {hint}") from error
    except Exception as error:  # a user's module can raise anything
        raise UserError(f"network {name}: importing {module_name} failed ({one_line(error)})") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"network {name}: {module.__name__} has no function {function_name!r}. To fix it: give module:function"
        )
    try:
        model = function(input_shape=input_shape, classes=classes, **options)
    except Exception as error:  # and so can a user's function
        raise UserError(f"network {name}: calling {function_name} failed ({one_line(error)})") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"network {name}: {function_name} returned {type(model).__name__}, not a torch.nn.Module")
    return model
