"""Paths on a command line: `~` is expanded, and what cannot be meant is refused, for every command in one place."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from study import addresses
from study.errors import UserError

LONGEST_PATH = 3500
"""Bytes of a path: systems take 4,096, of which the names of what lies below it need some."""
LONGEST_NAME = 255
"""Bytes of each name in it."""


@dataclasses.dataclass(frozen=True)
class PathTo:
    """What a path must lead to, if there is anything.

    Attributes:
        in_bucket: what the address of a bucket may stand for, if it may: the folder of studies that are run, or what
            is read of one.
    """

    kind: Literal["file", "folder"]
    in_bucket: Literal["", "results", "read"] = ""


File = Annotated[Path, PathTo("file")]
Folder = Annotated[Path, PathTo("folder")]
ResultsFolder = Annotated[Path, PathTo("folder", "results")]
StudyFolder = Annotated[Path, PathTo("folder", "read")]
StudyFile = Annotated[Path, PathTo("file", "read")]


def complete_paths(options: Any, argv: Sequence[str]) -> Any:
    """The dataclass with `~` expanded in every path of it, at any depth.

    Args:
        argv: what it was parsed from.
    Raises:
        UserError: a path that cannot be one, or leads to another kind of file; the message names the flag, if typed.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    changed: dict[str, object] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        argument = _Argument(f"--{field.name.replace('_', '-')}", next(_marks(hints[field.name]), None), argv)
        if dataclasses.is_dataclass(value):
            changed[field.name] = complete_paths(value, argv)
        elif isinstance(value, Path):
            changed[field.name] = argument.path(value)
        elif isinstance(value, tuple):
            changed[field.name] = tuple(argument.path(v) if isinstance(v, Path) else v for v in value)
    return dataclasses.replace(options, **changed)


def _marks(hint: object) -> Iterator[PathTo]:
    yield from (mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, PathTo))
    for part in typing.get_args(hint):
        yield from _marks(part)


@dataclasses.dataclass(frozen=True)
class _Argument:
    """An argument that is a path, or several: its flag, what it must lead to, and the command that it is part of."""

    flag: str
    to: PathTo | None
    argv: Sequence[str]

    def path(self, path: Path) -> Path:
        """The path with `~` expanded; of a bucket's address that may stand here, where its copy on this machine is.

        Raises:
            UserError: it cannot be one, or leads to another kind of file.
        """
        if address := self._address(path):
            scheme = address.partition(":")[0]
            if self.to and self.to.in_bucket == "results":
                return addresses.results_folder(self._named(address), address)
            if self.to and self.to.in_bucket == "read":
                return addresses.reading_copy(self._named(address), address)
            raise UserError(
                f"{self._named(address)}: {scheme}:// is not supported; give a path on this machine, such as a folder "
                "where it is mounted"
            )
        named = self._named(str(path))
        try:
            path = path.expanduser()
            longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
            if longest > LONGEST_NAME or len(os.fsencode(path.absolute())) > LONGEST_PATH:
                raise UserError(f"{named}: is too long; give a shorter path")
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            return path
        except OSError as error:
            raise UserError(f"{named}: cannot be used ({error.strerror or error}); give another path") from error
        except (RuntimeError, ValueError) as error:  # a home of nobody; a character that no path has
            raise UserError(f"{named}: is no path ({error}); give another one") from error
        if self.to and is_folder != (self.to.kind == "folder"):
            raise UserError(f"{named}: is {'a folder' if is_folder else 'no folder'}; give a {self.to.kind}")
        return path

    def _named(self, path: str) -> str:
        """The argument as a message names it: with its flag, if that was typed."""
        shown = path if len(path) <= 200 else f"{path[:199]}…"
        typed = {argument.split("=")[0].replace("_", "-") for argument in self.argv}
        return f"{self.flag} {shown}" if self.flag in typed else shown

    def _address(self, path: Path) -> str:
        """The path as it was typed, where that is an address such as s3://bucket; otherwise ""."""
        typed = (re.sub("^--[^=]*=", "", argument) for argument in self.argv)
        return next((text for text in typed if addresses.is_address(text) and Path(text) == path), "")
