"""What Ray's dashboard, and `ps`, show of the process that runs a trial: its title, and log lines that name the trial.

Such a process runs one trial after another. Ray reads an actor's name, class and repr once, when the process starts;
its title is read all the time.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import ray

Numbers = Mapping[str, Any]

NOT_SHOWN = ("epoch", "seconds", "spent")
"""Of an epoch's report: what says nothing of the network."""


class TrialOutput(io.TextIOBase):
    """A stream whose lines begin with the trial's id; all else is that of the stream below."""

    def __init__(self, stream: TextIO, trial_id: str) -> None:
        self.stream, self.trial_id, self.at_start = stream, trial_id, True

    def write(self, text: str) -> int:
        lines = text.splitlines(keepends=True)
        named = [f"{self.trial_id}  {line}" if i or self.at_start else line for i, line in enumerate(lines)]
        if lines:
            self.at_start = lines[-1].endswith("\n")
            self.stream.write("".join(named))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


class TrialProcess:
    """Says what this process does.

    Args:
        study, trial_id: their names.
        values: the searched ones.
    """

    def __init__(self, study: str, trial_id: str, values: Numbers) -> None:
        self.study, self.trial_id, self.values = study, trial_id, short(values)
        self.show("starting")

    def epoch(self, row: Numbers) -> None:
        """An epoch has ended, and was reported: Ray gives the process a title of its own at every report."""
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k not in NOT_SHOWN}
        print(f"epoch {row['epoch']}: {short(numbers)}", flush=True)
        self.show(f"epoch {row['epoch']} done")

    def show(self, what: str) -> None:
        """Set the title."""
        set_title(f"ray::{self.study} {self.trial_id} {what}{': ' * bool(self.values)}{self.values}")


@contextlib.contextmanager
def trial_process(study: str, config: Numbers) -> Iterator[TrialProcess]:
    """Let this process be known as that of a trial, and begin its lines with the trial's id.

    Args:
        config: of the trial, as Tune has it.
    """
    values = {k: v for k, v in config.items() if k not in ("trial_id", "seed")}
    trial_id = str(config["trial_id"])
    out, err = TrialOutput(sys.stdout, trial_id), TrialOutput(sys.stderr, trial_id)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        print(f"starts in {study}, seed={config['seed']}, {short(values)}".removesuffix(", "), flush=True)
        process = TrialProcess(study, trial_id, values)
        try:
            yield process
        finally:
            print("has ended", flush=True)
            set_title(f"ray::{study} between two trials")


def short(values: Numbers) -> str:
    """Values as in "alpha=0.9, temperature=4.03"."""
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())


def set_title(title: str) -> None:
    """The title of this process, where Ray has a way to set it."""
    if setter := getattr(ray._raylet, "setproctitle", None):
        setter(title)
