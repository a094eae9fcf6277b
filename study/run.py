"""The command line: `python -m study.run kd|sws|magnitude|kd_sws|ptq`, or `compression-study kd|…`. Parses, calls,
prints."""

from __future__ import annotations

import difflib
import inspect
import itertools
import os
import shlex
import sys
import textwrap
import typing
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from study import addresses, commandline
from study.errors import UserError, system_error
from study.methods import registry
from study.records import object_store, paths
from study.settings import Settings, flag, resolve

SCRIPT = "compression-study"
"""The command that an installation adds; it has the name of the distribution."""
PROG = SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m study.run"
COMPLETION = "--tyro-print-completion"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return commandline.status(
        lambda: _run(resolve(parse(arguments))),
        "Stopped. What finished is kept; the same command continues.",
        prints_result=False,
    )


def parse(argv: list[str]) -> Settings:
    """Settings from the arguments; usage errors become one line.

    Raises:
        UserError: a usage error.
        SystemExit: after --help, --help-all, --version, and after a shell's completion was printed.
    """
    kinds = registry.names()
    if argv and (answer := _answer(argv, kinds)):
        print(answer)
        raise SystemExit(0)
    if not argv or argv[0] not in kinds:
        raise UserError(_no_study(argv, kinds))
    default = registry.default_settings(argv[0])
    prog = f"{PROG} {argv[0]}"
    if page := _help_of_kind(prog, default, argv[1:]):
        print(page)
        raise SystemExit(0)
    return commandline.parse(type(default), prog, None, argv[1:], default, partial(_explain, argv))


def _answer(argv: list[str], kinds: list[str]) -> str:
    """What a command prints that names no study: help, version or a shell's completion; "" where it is none of them."""
    if argv[0] in ("-h", "--help", "--help-all"):
        return _help(kinds)
    if argv[0] == "--version":
        from importlib import metadata  # which a study need not load

        return f"{SCRIPT} {metadata.version(SCRIPT)}"
    if argv[0] == COMPLETION:
        options = {kind: registry.default_settings(kind) for kind in kinds}
        return commandline.completion(SCRIPT, options, " ".join(argv[1:]))
    return ""


def _help_of_kind(prog: str, default: Settings, arguments: list[str]) -> str:
    """The help that these arguments ask for, or ""."""
    from study import help_text  # which a study need not load

    if "--help-all" in arguments:
        return help_text.full_help(prog, default)
    return help_text.brief_help(prog, default) if {"-h", "--help"} & set(arguments) else ""


def _no_study(argv: list[str], kinds: list[str]) -> str:
    """The message where a command does not begin with the study."""
    first = argv[0] if argv else "nothing given"
    having = [kind for kind in kinds if first.split("=")[0] in map(flag, registry.default_settings(kind).flat())]
    named = [word for word in argv if word in kinds]
    near = difflib.get_close_matches(first, kinds, 1)
    hint = ""
    if named:  # behind its flags
        hint = f"; did you mean {_command(named[0], [word for word in argv if word != named[0]])}?"
    elif near:
        hint = f"; did you mean {_command(near[0], argv[1:])}?"
    elif having:
        hint = f", as in {_command(having[0], argv)}"
    return f"{first}: name the study first: {commandline.any_of(having or kinds)}{hint} (see {PROG} STUDY --help)"


def _command(kind: str, arguments: list[str]) -> str:
    return f"{PROG} {shlex.join([kind, *arguments])}"


def _help(kinds: list[str]) -> str:
    """What there is to study, a paragraph each."""
    lines = [f"usage: {PROG} STUDY [FLAGS]", "", "Runs a study, or continues it. STUDY is one of:", ""]
    for kind in kinds:
        what = inspect.cleandoc(registry.settings_class(kind).__doc__ or "").split("\n\n")[0]
        lines += textwrap.wrap(f"{kind:<11}{' '.join(what.split())}", 79, subsequent_indent=" " * 11)
    ends = (
        f"{PROG} STUDY --help has its common flags, and --help-all every flag.",
        f"{PROG} --version says which version this is.",
    )
    return "\n".join([*lines, "", *ends])


def _explain(argv: list[str], name: str) -> str:
    """Why a kind of study has no flag of this name, or of the nearest, where that can be said; otherwise ""."""
    if not name.startswith("--"):
        return ""
    spaces = {k: _flags_searched(k, argv) for k in registry.names()}  # this imports Ray, which only this message needs
    flags = {k: set(map(flag, registry.default_settings(k).flat())) for k in registry.names()}
    known = set().union(*flags.values(), *spaces.values())
    if name in known:
        return _explain_known(argv, name, spaces)
    near = difflib.get_close_matches(name, sorted(known), 1, commandline.NEAR)
    if not near:
        return ""
    if near[0] in flags[argv[0]]:
        return f"no such flag; did you mean {near[0]}?"
    return f"no such flag; if {near[0]} is meant: {_explain_known(argv, near[0], spaces)}"


def _explain_known(argv: list[str], name: str, spaces: Mapping[str, Mapping[str, _Searched]]) -> str:
    """Why a kind of study has no flag of a name that some kind has, or searches.

    Args:
        spaces: kind of study → its flags that are searched.
    """
    kind = argv[0]
    if name in spaces[kind]:
        searched = spaces[kind][name]
        return (
            f"not a flag, because {searched.command} searches it ({searched.domain}); give "
            f"--fix {name.removeprefix('--').replace('-', '_')}=VALUE, or a --range or --choice of it"
        )
    having = [k for k in registry.names() if name in map(flag, registry.default_settings(k).flat())]
    if having:
        return f"not a flag of {kind}, but of {commandline.any_of(having)}, as in {_command(having[0], [name])}"
    searching = [spaces[k][name].command for k in registry.names() if name in spaces[k]]
    if searching:
        return f"not a flag; {kind} does not have it, and {commandline.any_of(searching)} searches it"
    return ""


class _Searched(NamedTuple):
    """Where a hyperparameter is searched.

    Attributes:
        domain: as text.
        command: of the kind of study, with its variant where that is not the one of this command.
    """

    domain: str
    command: str


def _flags_searched(kind: str, argv: list[str]) -> dict[str, _Searched]:
    """What a kind of study searches, as flags: by the variant of this command first, and then by others."""
    from study.tuning.space import SearchSpace

    default, method = registry.default_settings(kind), registry.method(kind)
    variants = typing.get_args(typing.get_type_hints(type(default)).get("variant"))
    words = " ".join(argv).replace("=", " ").split()
    named = [b for a, b in itertools.pairwise(words) if a == "--variant" and b in variants]
    own = default.changed(variant=named[-1]) if named else default
    commands = {f"{kind} --variant {v}": default.changed(variant=v) for v in variants} | {kind: own}
    searched: dict[str, _Searched] = {}
    for command, settings in commands.items():
        domains = SearchSpace.load(method.search_space(settings)).domains
        searched |= {flag(name): _Searched(str(d), command) for name, d in domains.items()}
    return searched


def _run(settings: Settings) -> int:
    if not settings.resources.address:
        # Anyone who reaches a Ray port can run code here. This variable keeps all ports on 127.0.0.1; it is named after
        # the systems where that is the default. Ray reads it at import.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    commandline.say_stage("Loading PyTorch and Ray ...")
    if _begins_study(settings):
        from study.tuning import ray_start  # this imports Ray

        with ray_start.begun(settings):
            return _run_study(settings)
    return _run_study(settings)


def _begins_study(settings: Settings) -> bool:
    """Whether this is the start of a study on this machine, so that Ray can start while PyTorch is loaded. With a
    monitor its dashboard has to wait until it can be told where that is."""
    if settings.searched.show_space or settings.budget.dry_run:
        return False
    if settings.resources.address or settings.watching.monitor:
        return False
    return "torch" not in sys.modules and not (settings.folder / paths.STUDY).exists()


def _run_study(settings: Settings) -> int:
    # These import torch and Ray, which --help need not wait for.
    from study.pipeline import driver
    from study.pipeline.cost_estimate import dry_run
    from study.tuning.trackers.tracker import open_trackers

    if settings.searched.show_space:
        from study.tuning.space_text import described

        print(described(settings))
        return 0
    if settings.budget.dry_run:
        dry_run(settings)
        return 0
    outcome = driver.run(settings)

    from analysis.page import study_page

    commandline.say_stage("Writing the report ...")
    try:
        page = study_page.write(outcome.folder)
        object_store.send(page)
        trackers = open_trackers(settings, outcome.folder)
        trackers.report(page)
        trackers.close()
    except OSError as error:
        raise UserError(
            f"{outcome.folder}: the study is there, but its report cannot be written "
            f"({system_error(error)}); the same command tries again"
        ) from error
    print(f"Study:  {addresses.shown(outcome.folder)}\nReport: {page}")
    if outcome.stopped:
        advice = "" if outcome.complete else " The same command continues."
        print(f"Stopped: {outcome.stopped}.{advice}", file=sys.stderr)
        return 1
    if outcome.ended:
        done = f"{outcome.finished} of {outcome.wanted} trials"
        print(f"Ended with {done} ({outcome.ended}). The same command goes on.")
        return 0
    if outcome.finished < outcome.wanted:
        done = f"{outcome.finished} of {outcome.wanted} trials finished"
        print(f"Stopped with {done}. The same command continues.", file=sys.stderr)
        return commandline.INTERRUPTED
    if not outcome.complete:
        print("Stopped before the confirmation was done. The same command continues.", file=sys.stderr)
        return commandline.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
