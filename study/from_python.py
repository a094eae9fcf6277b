"""Studies from Python and from notebooks: `launch(SWS(dataset="mnist", num_samples=16))`.

A study runs in a process of its own, by the same command as in a shell. So it is the same study, a notebook stays free
while it runs, and neither Ray nor torch is loaded here.
"""

from __future__ import annotations

import contextlib
import html
import inspect
import os
import signal
import site
import subprocess
import sys
import sysconfig
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from study import help_text, run
from study.errors import UserError
from study.methods import registry
from study.records import paths
from study.settings import Settings, flag, flag_with_value, resolve

if TYPE_CHECKING:
    import pandas as pd

LOOK = 0.2
"""Seconds between two looks at what a study prints."""
COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables by which a notebook asks for colours. With them the display would write a terminal's control codes."""


class StudyKind:
    """Makes the settings of one kind of study: `SWS(dataset="mnist", num_samples=16)`.

    Names are those of the flags: --num-samples is `num_samples`. A flag that may be given several times takes a list,
    and None stands for the default. `SWS.help()` prints what there is.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def __signature__(self) -> inspect.Signature:
        """Every flag with its default, for editors and notebooks."""
        default = registry.default_settings(self.kind)
        values, keyword = default.flat(), inspect.Parameter.KEYWORD_ONLY
        names = (entry.name for entry in help_text.entries(default))
        flags = [inspect.Parameter(name, keyword, default=values[name]) for name in names]
        return inspect.Signature(flags, return_annotation=type(default))

    def __call__(self, **values: object) -> Settings:
        """Settings with these values.

        Raises:
            UserError: what the command line would refuse, with the same message.
        """
        try:
            return run.parse([self.kind, *_arguments(self.kind, values)])
        except SystemExit:
            raise UserError(f"help is no setting; {self.kind.upper()}.help() prints the settings") from None

    def help(self) -> None:
        """Print every setting, by its flag."""
        print(help_text.full_help(f"{run.PROG} {self.kind}", registry.default_settings(self.kind)))

    def __repr__(self) -> str:
        return f"<settings of a {self.kind} study; call it with names of flags>"


def launch(settings: Settings, block: bool = True) -> LaunchedStudy:
    """Run a study, or continue it, as `python -m study.run` does.

    Args:
        settings: of one kind of study, such as `SWS(dataset="mnist")`.
        block: whether to wait until the study has ended, and to print meanwhile what it says. A study that is not
            waited for goes on when this process ends.
    Raises:
        UserError: bad input, or a study that stopped by itself; the message is that of the command line.
    """
    folder = resolve(settings).folder.absolute()  # bad values are refused here, before anything starts
    study = LaunchedStudy(folder, settings)
    if block:
        try:
            study.wait()
        except KeyboardInterrupt:
            study.stop()
            raise
    return study


class LaunchedStudy:
    """A study that `launch` started.

    Attributes:
        folder: the study folder.
        settings: what it was launched with.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        number, self._log = tempfile.mkstemp(prefix="study-", suffix=".log")
        default = registry.default_settings(settings.kind).flat()
        given = {name: value for name, value in settings.flat().items() if value != default[name]}
        command = [sys.executable, "-m", "study.run", settings.kind, *_arguments(settings.kind, given)]
        with open(number, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,  # Ctrl-C here is passed on by `stop` alone
            )
        self._reader: TextIO = open(self._log, errors="replace")  # noqa: SIM115
        self._unfinished = self._last_line = ""
        self._asked_to_stop = False
        weakref.finalize(self, _remove, self._log, self._reader)

    @property
    def running(self) -> bool:
        """Whether the study still runs."""
        return self._process.poll() is None

    def wait(self, timeout: float | None = None) -> LaunchedStudy:
        """Print what the study says until it has ended, or until so many seconds are over.

        Raises:
            UserError: the study was refused, or stopped by itself.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running and (deadline is None or time.monotonic() < deadline):
            self._show_progress()
            time.sleep(LOOK)
        self._show_progress()
        if not self.running and self._process.returncode and not self._asked_to_stop:
            raise UserError(self._last_line.removeprefix("error: ") or "the study ended without a message")
        return self

    def stop(self) -> None:
        """End the study as Ctrl-C does, and wait for it. What finished is there, and `launch` continues."""
        self._asked_to_stop = True
        if self.running:
            self._process.send_signal(signal.SIGTERM)  # a notebook may ignore SIGINT, and its children with it
        self.wait()

    def _show_progress(self) -> None:
        """Print new lines, but for the one that becomes an exception."""
        *lines, self._unfinished = (self._unfinished + self._reader.read()).split("\n")
        for line in lines:
            self._last_line = line
            if not line.startswith("error: "):
                print(line, flush=True)

    @property
    def trials(self) -> pd.DataFrame:
        """`trials.csv`: one row a trial; none before the study has a folder.

        Raises:
            UserError: the study folder is damaged.
        """
        study = self._read()
        return study.trials if study else _empty()

    @property
    def front(self) -> pd.DataFrame:
        """Rows of `trials` that no other one dominates, as the report has them."""
        from analysis.stats.summary import summarise

        study = self._read()
        if study is None:
            return _empty()
        return study.trials[study.trials["trial_id"].isin(summarise(study).front["trial_id"])]

    @property
    def report(self) -> Path:
        """The page about it; it is there once the study has ended."""
        return self.folder / paths.REPORT

    def _read(self) -> Any:
        """The study folder as `analysis.load` reads it, or None before there is one."""
        from study.records import study_folder

        return study_folder.load(self.folder) if (self.folder / paths.STUDY).exists() else None

    def __repr__(self) -> str:
        return f"<study {self.folder.name}: {self._state()}>"

    def _state(self) -> str:
        states = self.trials["state"][self.trials["baseline"] == ""] if len(self.trials) else ()
        done = sum(state != "running" for state in states)
        return f"{done} of {self.settings.budget.num_samples} trials, {'running' if self.running else 'ended'}"

    def _repr_html_(self) -> str:
        from study.records import study_folder

        front = self.front.dropna(axis=1, how="all").head(study_folder.ROWS_SHOWN)
        where = f"<p>Report: <code>{html.escape(str(self.report))}</code></p>" if self.report.exists() else ""
        heading = f"<p><b>{html.escape(self.folder.name)}</b>: {self._state()}</p>"
        return heading + (f"<p>Front:</p>{front.to_html(index=False)}" if len(front) else "") + where


def _arguments(kind: str, values: Mapping[str, object]) -> list[str]:
    """Values as they are typed."""
    repeatable = {n for n, v in registry.default_settings(kind).flat().items() if isinstance(v, tuple)}
    typed: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            typed.append(flag_with_value(name, value))
            continue
        several = value if isinstance(value, list | tuple) else [value]
        for text in map(str, several) if name in repeatable else [",".join(map(str, several))]:
            typed += [f"{flag(name)}={text}"] if text.startswith("-") else [flag(name), text]
    return typed


def _environment() -> dict[str, str]:
    """That of this process, so that the study writes plain lines, and finds the modules that are found here."""
    environment = {name: value for name, value in os.environ.items() if name not in COLOURS}
    own = sysconfig.get_paths()
    installed = [Path(p).resolve() for p in (own["stdlib"], own["purelib"], *site.getsitepackages())]
    added = []
    for folder in filter(os.path.isdir, sys.path):
        here = Path(folder).resolve()  # packages put folders of theirs on the path, such as ray/thirdparty_files
        if here != Path(sys.prefix).resolve() and not any(here.is_relative_to(place) for place in installed):
            added.append(folder)
    if added:
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(added))
    return {**environment, "NO_COLOR": "1"}


def _empty() -> pd.DataFrame:
    import pandas as pd

    from study.records.columns import TRIAL_COLUMNS

    return pd.DataFrame(columns=list(TRIAL_COLUMNS))


def _remove(path: str, reader: TextIO) -> None:
    reader.close()
    with contextlib.suppress(OSError):
        os.unlink(path)
