"""The command line: `python -m study.run kd|sws|magnitude|kd_sws`. Parses, calls, prints."""

from __future__ import annotations

import difflib
import os
import sys
import typing
from typing import Annotated

import tyro

from study import commandline
from study.errors import UserError
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws.settings import SWSSettings
from study.settings import resolve

AnySettings = KDSettings | SWSSettings | MagnitudeSettings | KDSWSSettings
Command = (
    Annotated[KDSettings, tyro.conf.subcommand("kd", prefix_name=False)]
    | Annotated[SWSSettings, tyro.conf.subcommand("sws", prefix_name=False)]
    | Annotated[MagnitudeSettings, tyro.conf.subcommand("magnitude", prefix_name=False)]
    | Annotated[KDSWSSettings, tyro.conf.subcommand("kd_sws", prefix_name=False)]
)


PROG = "python -m study.run"
KINDS = {kind.kind: kind for kind in typing.get_args(AnySettings)}
"""First word of the command → its settings."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return commandline.status(
        lambda: _run(resolve(parse(arguments))), "Stopped. What finished is kept; the same command continues."
    )


def parse(argv: list[str]) -> AnySettings:
    """Settings from the arguments; usage errors become one line."""
    if not argv or argv[0] not in [*KINDS, "-h", "--help"]:
        near = difflib.get_close_matches(argv[0], KINDS, 1) if argv else []
        hint = f"; did you mean {near[0]}?" if near else ""
        given = argv[0] if argv else "no study"
        kinds = commandline.any_of([*KINDS])
        raise UserError(f"{given}: the first word is the study, {kinds}{hint} (see {PROG} --help)")
    settings: AnySettings = commandline.parse(Command, PROG, __doc__, argv)
    return settings


def _run(settings: AnySettings) -> int:
    if not settings.address:
        # Every port of Ray's is a way to run code here. So named for where it is the default, this keeps them all on
        # 127.0.0.1; Ray reads it when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # These bring torch and Ray, which --help need not wait for.
    from study.pipeline import driver
    from study.pipeline.cost_estimate import dry_run

    if settings.dry_run:
        dry_run(settings)
        return 0
    outcome = driver.run(settings)

    from analysis.page import study_page

    page = study_page.write(outcome.folder)
    print(f"Study:  {outcome.folder}\nReport: {page}")
    if outcome.stopped:
        left = "" if outcome.whole else " The same command continues."
        print(f"Stopped: {outcome.stopped}.{left}", file=sys.stderr)
        return 1
    if outcome.finished < outcome.wanted:
        print(f"Stopped with {outcome.finished} of {outcome.wanted} trials finished. The same command continues.")
        return 130
    if not outcome.whole:
        print("Stopped before the confirmation was done. The same command continues.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
