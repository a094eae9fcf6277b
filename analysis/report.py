"""The report: a study folder as one HTML page that needs nothing else, neither files nor a network; of several folders
one page that compares them.

    python -m analysis.report results/NAME
    python -m analysis.report results/A results/B
    python -m analysis.report results/NAME --live
    python -m analysis.report results --live --port 8800

The page is `analysis/page/`: a template, its style and its script; `analysis.page.render` puts them together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from analysis.page import comparison_page, images
from analysis.page.live import OneStudy, serve
from analysis.page.live_index import SeveralStudies, holds_studies
from analysis.page.study_page import build, write_page
from study import commandline
from study.errors import UserError, printable
from study.path_arguments import File, Folder, StudyFolder
from study.records import paths
from study.records.outputs import is_stdout, make_folder

PROG = "python -m analysis.report"


@dataclass(frozen=True)
class Arguments:
    """Write a study's report, or one page that compares several studies, and print its path."""

    folders: Annotated[tuple[StudyFolder, ...], tyro.conf.Positional]
    """The folder that a study wrote, results/NAME. Several are compared on one page. With --live, several studies, or
    the folder that holds them, get an index."""
    out: File | None = None
    """Where the page goes; - is standard output. Default: report.html in the folder; a comparison goes to
    comparison.html next to the first one."""
    live: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Serve the page on 127.0.0.1 instead, and follow the study while it runs."""
    port: int = 0
    """With --live: the port, 0 for any that is free."""
    png: Folder | None = None
    """Write the page's figures into this folder as PNG files, for papers."""
    svg: Folder | None = None
    """The same as SVG files."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Bad input is one line on stderr and exit status 2, bad usage included."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    status = commandline.status(lambda: _run(commandline.parse(Arguments, PROG, None, given)))
    if status:
        raise SystemExit(status)


def _run(arguments: Arguments) -> int:
    if not arguments.folders:
        raise UserError(f"give a study folder, as in: {PROG} results/NAME")
    if arguments.live:
        if arguments.out or arguments.png or arguments.svg:
            raise UserError("--live writes no file: leave out --out, --png and --svg")
        several = len(arguments.folders) > 1 or holds_studies(arguments.folders[0])
        site = SeveralStudies(arguments.folders, build) if several else OneStudy(arguments.folders[0], build)
        serve(site, arguments.port)
        return 0
    if arguments.port:
        raise UserError(f"--port {arguments.port}: needs --live, the server whose port it is")
    if arguments.out and arguments.out.is_dir():
        raise UserError(f"--out {arguments.out}: is a folder; give a file, such as {arguments.out}/{paths.REPORT}")
    try:
        if len(arguments.folders) == 1:
            path, figures = write_page(arguments.folders[0], arguments.out)
        else:
            path, figures = comparison_page.write(arguments.folders, arguments.out)
    except OSError as error:
        raise UserError(f"the page could not be written: {error}") from None
    quiet = is_stdout(arguments.out)  # the page is there, and nothing else
    if not quiet:
        print(printable(str(path)))
    for kind, folder in (("png", arguments.png), ("svg", arguments.svg)):
        if folder is not None:
            make_folder(f"--{kind}", folder)
            for picture in images.write(figures, folder, (kind,)):
                if not quiet:
                    print(printable(str(picture)))
    return 0


if __name__ == "__main__":
    main()
