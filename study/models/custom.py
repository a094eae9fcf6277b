"""A user's own network, `module:function`: how it is imported, and the hash of its code."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

from torch import nn

from study.errors import UserError, one_line
from study.models.state import tensors_of
from study.models.zoo import Options, Shape


def is_custom(name: str) -> bool:
    """Whether a network of this name is a user's own code, `module:function`."""
    return ":" in name and not name.startswith("torchvision:")


_allowed: Collection[str] | None = None
"""Names of the networks that may be imported; None for any."""


@contextlib.contextmanager
def only(names: Collection[str]) -> Iterator[None]:
    """Meanwhile no user's code is imported but under these names: what asks for it was read from a file."""
    global _allowed
    before, _allowed = _allowed, names
    try:
        yield
    finally:
        _allowed = before


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
    if _allowed is not None and name not in _allowed:
        raise UserError(f"network {name} is a user's code. If you trust it, add --network {name}")
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()  # the file may be newer than the interpreter's list of its folder
    try:
        with _silenced() as printed:
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = "To fix it: run from the folder that holds it, or set PYTHONPATH"
        raise UserError(f"network {name} cannot be imported ({one_line(error)}). {hint}") from error
    except BaseException as error:
        raise _failure(error, f"network {name}: importing {module_name}", printed) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"network {name}: {module.__name__} has no function {function_name!r}. To fix it: give module:function"
        )
    try:
        with _silenced() as printed:
            model = function(input_shape=input_shape, classes=classes, **options)
    except BaseException as error:
        raise _failure(error, f"network {name}: calling {function_name}", printed) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"network {name}: {function_name} returned {type(model).__name__}, not a torch.nn.Module")
    return model


class _LastLine(io.TextIOBase):
    """Output of which the last line is kept, however much it is."""

    line, rest = "", ""

    def write(self, text: str) -> int:
        *lines, rest = (self.rest + text)[-1000:].split("\n")
        self.line = next((line for line in reversed(lines) if line.strip()), self.line)
        self.rest = rest
        return len(text)

    def last(self) -> str:
        """The last line that is not empty."""
        return " ".join((self.rest.strip() or self.line).split())


@contextlib.contextmanager
def _silenced() -> Iterator[_LastLine]:
    """Keep what a user's code prints from the screen: the display is there, and one line after an error."""
    printed = _LastLine()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield printed


def _failure(error: BaseException, what: str, printed: _LastLine) -> UserError:
    """What a user's code raised, as one line. It can be anything, also what would end this command.

    Raises:
        KeyboardInterrupt: Ctrl-C while it ran.
    """
    if type(error) is KeyboardInterrupt:
        raise error
    if isinstance(error, SystemExit):
        said = f"; it printed: {printed.last()[:200]}" if printed.last() else ""
        return UserError(
            f"{what} ended the program (exit status {error.code}{said}). To fix it: read no arguments and exit only "
            'under if __name__ == "__main__"'
        )
    return UserError(f"{what} failed ({one_line(error)})")
