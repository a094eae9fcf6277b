"""What the commands have in common: arguments as a typed dataclass, and errors as one line with status 2."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import functools
import gc
import io
import operator
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from study import process
from study.errors import UserError, system_error
from study.path_arguments import complete_paths

T = TypeVar("T")


def parse(
    options_class: type[T],
    prog: str,
    description: str | None,
    argv: list[str],
    default: T | None = None,
    explain: Callable[[str], str] = lambda flag: "",
) -> T:
    """Arguments as `options_class`, a dataclass; groups of settings in it are groups of the help, and not part of any
    flag. In its paths, `~` is expanded.

    Args:
        default: what is meant without any argument.
        explain: of a flag that is not understood, why there is none, or "".
    Raises:
        UserError: a usage error, or a path that cannot be one, or leads to another kind of file; the message names
            the flag.
        SystemExit: after --help.
    """
    printed = io.StringIO()
    config = (tyro.conf.OmitArgPrefixes,)
    try:
        with contextlib.redirect_stderr(printed):
            if default is None:
                options = tyro.cli(options_class, prog=prog, description=description, args=argv, config=config)
            else:
                options = tyro.cli(
                    options_class, prog=prog, description=description, args=argv, default=default, config=config
                )
    except SystemExit as ended:
        if not ended.code:  # --help
            raise
        raise UserError(_one_line(printed.getvalue(), prog, explain)) from None
    return complete_paths(options, argv)


SHELLS = ("bash", "fish", "zsh")
"""Those whose completion tyro writes by itself."""


def completion(prog: str, kinds: Mapping[str, object], shell: str) -> str:
    """A script that lets a shell complete a command's kinds of study, and the flags and words of each.

    Args:
        prog: name of the command.
        kinds: first argument → its options, a dataclass with every default.
        shell: one of `SHELLS`.
    Raises:
        UserError: another shell, or none.
    """
    if shell not in SHELLS:
        raise UserError(f"--tyro-print-completion {shell}: give {any_of(SHELLS)}")
    parts = [Annotated[type(default), tyro.conf.subcommand(kind, default=default)] for kind, default in kinds.items()]
    either: Any = functools.reduce(operator.or_, parts)
    printed, arguments = io.StringIO(), ["--tyro-print-completion", shell]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(either, prog=prog, args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    return printed.getvalue().rstrip()


def status(command: Callable[[], int], interrupted: str = "Stopped.", prints_result: bool = True) -> int:
    """Run a command and return its exit status.

    It is 2 after bad input, or after an error of the system that nobody foresaw where it came up; both are one line.
    It is 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. A bug raises.

    Args:
        prints_result: whether a command whose output could not be written has failed.
    """
    atexit.register(gc.freeze)  # or Python looks through all that PyTorch and Ray have made, for a second, as it ends
    with process.outputs() as (out, _), process.stop_signals() as received:
        try:
            code = command()
        except KeyboardInterrupt:
            code = INTERRUPTED
            print(f"\n{interrupted}" if sys.stderr.isatty() else interrupted, file=sys.stderr)
        except Exception as error:
            if received:  # what was interrupted need not say so
                code = INTERRUPTED
                print(interrupted, file=sys.stderr)
            elif reason := str(error) if isinstance(error, UserError) else system_error(error):
                code = 2
                print(f"error: {reason}", file=sys.stderr)
            else:
                raise
        out.flush()
        if out.error and prints_result and not code:
            print(f"error: standard output: {out.error.strerror}; not all of the result is there", file=sys.stderr)
            code = 2
    return 128 + received[0] if received and code == INTERRUPTED else code


INTERRUPTED = 130


def say_stage(text: str) -> None:
    """What a command does now, to somebody who waits in front of a terminal."""
    if sys.stdout.isatty():
        print(text, flush=True)


def data_folder(dataset: str, given: Path | None) -> Path | None:
    """Where a data set lies, or is downloaded to: `--data-dir`, or our folder in the user's cache."""
    if given or dataset in ("digits", "folder") or ":" in dataset:
        return given
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compression-study"
    except RuntimeError as error:  # neither HOME nor an entry for this user
        raise UserError(f"--data-dir is missing: there is no home folder to keep data in ({error})") from error


def any_of(names: Sequence[str]) -> str:
    """Names to choose from: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _one_line(box: str, prog: str, explain: Callable[[str], str]) -> str:
    """The message in the box that tyro draws around a usage error, in our words, and the flag it thinks was meant."""
    lines = [line.strip("│| ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    # A rule, of either kind of dash, ends the title and then the message; a corner starts the line with the title.
    rules = [i for i, line in enumerate(lines) if line[:3] in ("───", "---") or line[:1] in ("╭", "╰")]
    first, last = rules[0] + 1, rules[1]
    message = " ".join(lines[first:last])
    near = [line.split()[0].rstrip(",") for line in lines if re.match("--[a-z]", line)]
    given = re.match(r"Unrecognized options?: (--[\w-]+)", message)  # tyro's near names may be rather far
    meant = difflib.get_close_matches(given[1], near, 1, NEAR) if given else []
    hint = f"; did you mean {meant[0]}?" if meant else ""
    for theirs, ours in _WORDS:
        message = re.sub(f"^{theirs}$", ours, message)
    if message.endswith(_NOT_UNDERSTOOD):
        flag = message.removesuffix(_NOT_UNDERSTOOD)
        if reason := "" if hint else explain(re.split(r"[ =]", flag)[0]):
            return f"{flag}: {reason} (see {prog} --help)"
    return f"{message.rstrip('.')}{hint} (see {prog} --help)"


def _choices(match: re.Match[str]) -> str:
    value, flag, listed = match.groups()
    # tyro takes None for what a setting is when its flag is left out.
    choices = sorted({*re.findall("'(.*?)'", listed)} - {"None"})  # in tyro's words they come in any order
    return f"{flag} {value}: give {any_of(choices)}"


def _missing(match: re.Match[str]) -> str:
    arguments = filter(None, re.split(r"\.? \(required\) ?", match[1]))
    return f"missing: {'; '.join(': '.join(a.split(' ', 1)) for a in arguments)}"


NEAR = 0.7
"""How alike two names of flags are, as difflib counts it, when one is taken for a slip of the other."""
_NOT_UNDERSTOOD = ": not understood"
_FLAG = r"(--[\w-]+)"
_WORDS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (rf"Error parsing {_FLAG}: .*invalid literal for int\(\) with base 10: '(.*?)'.*", r"\1 \2: give a whole number"),
    (rf"Error parsing {_FLAG}: .*could not convert string to float: '(.*?)'.*", r"\1 \2: give a number"),
    (rf"Missing value for argument '{_FLAG}'.*", r"\1: its value is missing"),
    (rf"invalid choice '(.*?)' for argument '{_FLAG}'\. Expected one of \((.*)\)\.?", _choices),
    (r"Missing from [^:]*: (.*)", _missing),
    (r"Unrecognized options?: (.*)", lambda match: f"{match[1].replace(',', '')}{_NOT_UNDERSTOOD}"),
]
"""tyro's messages → ours: the flag first, then what would be right."""
