"""What the commands have in common: arguments as a typed dataclass, and errors as one line with status 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from study.errors import UserError

T = TypeVar("T")


def parse(kind: type[T] | Any, prog: str, description: str | None, argv: list[str]) -> T:
    """Arguments as `kind`, a dataclass or a union of tyro's subcommands.

    Raises:
        UserError: a usage error; the message names the flag.
        SystemExit: after --help.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: T = tyro.cli(kind, prog=prog, description=description, args=argv)
    except SystemExit as ended:
        if not ended.code:  # --help
            raise
        raise UserError(_one_line(said.getvalue(), prog)) from None
    return parsed


def status(command: Callable[[], int], interrupted: str = "Stopped.") -> int:
    """Run a command and return its exit status: 2 after bad input, of which it prints one line; 130 after Ctrl-C."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130


def data_folder(dataset: str, given: Path | None) -> Path | None:
    """Where a data set lies, or is downloaded to: `--data-dir`, or our folder in the user's cache."""
    if given or dataset in ("digits", "folder"):
        return given
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "compression-study"


def _one_line(box: str, prog: str) -> str:
    """The message in the box that tyro draws around a usage error, and the flag it thinks was meant."""
    lines = [line.strip("│| ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    # A rule, of either kind of dash, ends the title and then the message; a corner begins the line with the title.
    rules = [i for i, line in enumerate(lines) if line[:3] in ("───", "---") or line[:1] in ("╭", "╰")]
    first, last = rules[0] + 1, rules[1]
    message = " ".join(lines[first:last])
    meant = [line.split()[0] for line in lines if re.match("--[a-z]", line)] if "Unrecognized" in message else []
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return f"{message.rstrip('.')}{hint} (see {prog} --help)"
