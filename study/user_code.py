"""A user's own code, `module:function`: permission to import it, the import, the call, and the hash of its files."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from study.errors import UserError, one_line


def is_custom(name: str) -> bool:
    """Whether a network or data set of this name is a user's own code, `module:function`."""
    return ":" in name and not name.startswith("torchvision:")


_allowed: dict[str, Collection[str]] = {}
"""Flag → the names that may be imported under it; any, under a flag that is not here."""


@contextlib.contextmanager
def only(networks: Collection[str], datasets: Collection[str] = ()) -> Iterator[None]:
    """Meanwhile no user's code is imported but under these names: what asks for it was read from a file."""
    global _allowed
    before, _allowed = _allowed, {"network": networks, "dataset": datasets}
    try:
        yield
    finally:
        _allowed = before


def import_function(what: str, name: str) -> Callable[..., Any]:
    """The function `module:function`.

    Args:
        what: "network" or "--dataset", as messages call it; the flag that allows it is of the same name.
    Raises:
        UserError: it is not allowed, cannot be imported, or is no function.
    """
    flag = what.removeprefix("--")
    if name not in _allowed.get(flag, (name,)):
        raise UserError(f"{flag} {name} is a user's code. If you trust it, add --{flag} {name}")
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()  # the file may be newer than the interpreter's list of its folder
    try:
        with _silenced() as printed:
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = "To fix it: run from the folder that holds it, or set PYTHONPATH"
        raise UserError(f"{what} {name} cannot be imported ({one_line(error)}). {hint}") from error
    except BaseException as error:
        raise _failure(error, f"{what} {name}: importing {module_name}", printed) from error
    function: object = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"{what} {name}: {module.__name__} has no function {function_name!r}. To fix it: give module:function"
        )
    return function


def call(what: str, name: str, function: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """What a user's function returns; what it prints is kept from the screen.

    Raises:
        UserError: it raised anything.
    """
    try:
        with _silenced() as printed:
            return function(*arguments, **options)
    except BaseException as error:
        raise _failure(error, f"{what} {name}: calling {name.partition(':')[2]}", printed) from error


def code_hash(name: str, start: bytes, modules: Iterable[str] = ()) -> str:
    """Hash of `start` and of the files of a user's code, with the files of the same folder that these use.

    torch's own files do not count: its version says what they are.

    Args:
        modules: names of more modules that belong to it.
    Returns: 16 hexadecimal digits, or "" where some of the code is in no file, so that it cannot be compared.
    """
    named = name.partition(":")[0]
    hashed = hashlib.sha256(start)
    for module in sorted({named, *_used_by(named), *modules}):
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
