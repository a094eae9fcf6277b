"""The command line: `python -m study.run kd|sws|magnitude|kd_sws`. Parses, calls, prints."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import Annotated

import tyro

from study.errors import UserError
from study.settings import KD, KDSWS, SWS, Magnitude, resolve

Settings = KD | SWS | Magnitude | KDSWS
Command = (
    Annotated[KD, tyro.conf.subcommand("kd", prefix_name=False)]
    | Annotated[SWS, tyro.conf.subcommand("sws", prefix_name=False)]
    | Annotated[Magnitude, tyro.conf.subcommand("magnitude", prefix_name=False)]
    | Annotated[KDSWS, tyro.conf.subcommand("kd_sws", prefix_name=False)]
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


def parse(argv: list[str]) -> Settings:
    """Settings from the arguments; usage errors become one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            settings: Settings = tyro.cli(Command, prog="python -m study.run", description=__doc__, args=argv)
    except SystemExit as ended:
        if not ended.code:  # --help
            raise
        raise UserError(_one_line(said.getvalue())) from None
    return settings


def _one_line(box: str) -> str:
    """The message in the box that tyro draws around a usage error, and the flag it thinks was meant."""
    lines = [line.strip("│| ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    # A rule, of either kind of dash, ends the title and then the message; a corner begins the line with the title.
    rules = [i for i, line in enumerate(lines) if line[:3] in ("───", "---") or line[:1] in ("╭", "╰")]
    first, last = rules[0] + 1, rules[1]
    message = " ".join(lines[first:last])
    meant = [line.split()[0] for line in lines if re.match("--[a-z]", line)] if "Unrecognized" in message else []
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return f"{message.rstrip('.')}{hint} (see python -m study.run --help)"


def _run(settings: Settings) -> int:
    # These bring torch and Ray, which --help need not wait for.
    from study import tuner
    from study.describe import dry_run

    if settings.dry_run:
        dry_run(settings)
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
