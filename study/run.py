"""The command line: `python -m study.run kd|sws`. Parses, calls, prints."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from study.errors import UserError
from study.settings import KD, SWS, resolve

Command = (
    Annotated[KD, tyro.conf.subcommand("kd", prefix_name=False)]
    | Annotated[SWS, tyro.conf.subcommand("sws", prefix_name=False)]
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        return _run(resolve(parse(sys.argv[1:] if argv is None else argv)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What finished is kept; the same command continues.", file=sys.stderr)
        return 130


def parse(argv: list[str]) -> KD | SWS:
    """Settings from the arguments; usage errors become one line."""
    settings: KD | SWS = tyro.cli(Command, prog="python -m study.run", description=__doc__, args=argv)
    return settings


def _run(settings: KD | SWS) -> int:
    from study import tuner  # brings torch and Ray, which --help need not wait for

    if settings.dry_run:
        tuner.dry_run(settings)
        return 0
    outcome = tuner.run(settings)

    from analysis import report

    page = report.write(outcome.folder)
    print(f"Study:  {outcome.folder}\nReport: {page}")
    if outcome.finished < outcome.wanted:
        print(f"Stopped with {outcome.finished} of {outcome.wanted} trials finished. The same command continues.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
