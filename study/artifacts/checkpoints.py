"""Where a trial that is not yet done stands: one file a trial, so that another process can go on from its last epoch.

The file lies in the study folder, which every machine of a study sees; the trial writes it after every epoch, and it
is removed when the trial's row is final.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from study.artifacts.weight_trace import Trace
from study.records.atomic_files import write_bytes


@dataclass
class Progress:
    """How far a trial is: the state of each call of `train` that it has made, in order.

    A trial that was stopped runs the same code again with the states it had: a call that had ended returns at once
    with what it had ended with, and the one that was stopped goes on after its last epoch, to the same result.

    Attributes:
        states: numbers and tensors in lists and dicts, as `torch.save` takes them. The last ones are the tensors of
            the training itself, so they are saved before it goes on.
        trace: what the figures need of its weights.
    """

    states: list[dict[str, Any]] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    _calls: int = 0

    def begin(self) -> dict[str, Any] | None:
        """The state that the next call of `train` had, if it had begun."""
        self._calls += 1
        return self.states[self._calls - 1] if self._calls <= len(self.states) else None

    def keep(self, state: dict[str, Any]) -> None:
        """The state of the call that is under way."""
        self.states[self._calls - 1 : self._calls] = [state]


FOLDER = "checkpoints"
SUFFIX = ".pt"
HUNG = ".hung"
WEIGHTS = ".safetensors"


@dataclass
class Checkpoint:
    """An unfinished trial on disk.

    Attributes:
        path: its file.
        config: what determines the trial; a file of another configuration is not read.
        rows: what it reported, one row an epoch.
        seconds: that these epochs took, over all its processes.
        threads: on which it began, and goes on elsewhere, for the same rounding; 0 before it began.
        progress: the state of its training.
    """

    path: Path
    config: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    threads: int = 0
    progress: Progress = field(default_factory=Progress)
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path, config: Mapping[str, Any]) -> Checkpoint:
        """The trial as the file has it; a trial that has not begun if it is missing, damaged, or of another trial."""
        kept = _read(path)
        if kept is None or kept["config"] != dict(config):
            return cls(path, config)
        progress = Progress(kept["states"], Trace(**kept["trace"]))
        return cls(path, config, kept["rows"], kept["seconds"], kept.get("threads", 0), progress)

    @property
    def spent(self) -> float:
        """Seconds of the trial, those of its earlier processes included."""
        return self.seconds + time.monotonic() - self._since

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the epoch that has just ended."""
        self.rows.append(dict(row))
        held = io.BytesIO()
        torch.save(
            {
                "config": dict(self.config),
                "rows": self.rows,
                "seconds": self.spent,
                "threads": torch.get_num_threads(),
                "states": self.progress.states,
                "trace": self.progress.trace.state(),
            },
            held,
        )
        write_bytes(self.path, held.getvalue())


def path_of(folder: Path, trial_id: str) -> Path:
    """Where the checkpoint of a trial lies in a study folder."""
    return folder / FOLDER / (trial_id.replace(" ", "-") + SUFFIX)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What the trial reported, one row an epoch; none if the file is damaged."""
    kept = _read(path)
    return list(kept["rows"]) if kept else []


def _read(path: Path) -> dict[str, Any] | None:
    """Nothing is unpickled but tensors, numbers and text."""
    try:
        kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return kept if {"config", "rows", "seconds", "states", "trace"} <= kept.keys() else None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, AttributeError, ValueError):
        return None


def weights_of(checkpoint: Path) -> Path:
    """Beside it: the weights that the trial ended with, and what else its stage hands on."""
    return checkpoint.with_suffix(WEIGHTS)


def codebook_of(checkpoint: Path) -> Path:
    """Beside it, where the trial compresses: the compressed file."""
    return checkpoint.with_suffix(".codebook")


def where_it_hung(checkpoint: Path) -> str:
    """Where a trial was when its process was taken for hung and ended, as file, line and function; "" if it was not."""
    path = checkpoint.with_suffix(HUNG)
    stack = path.read_text(errors="replace") if path.exists() else ""
    frames = re.findall(r'File "(.+)", line (\d+) in (.+)', stack)
    own = [f for f in frames if "/ray/" not in f[0] and not f[0].endswith(("threading.py", "selectors.py"))]
    return "{}, line {}, in {}".format(*(own or frames)[0]) if frames else ""


def has_untested_results(folder: Path) -> bool:
    """Whether what some trial ended with is still to be tested and kept, or removed; `clear_results` comes
    after that."""
    return any((folder / FOLDER).glob(f"*{WEIGHTS}"))


def clear_results(folder: Path, unfinished: Iterable[Mapping[str, Any]]) -> None:
    """Remove everything but the checkpoints of these rows' trials, which go on in a later command."""
    kept = {path_of(folder, row["trial_id"]) for row in unfinished}
    for path in (folder / FOLDER).glob("*"):
        if path not in kept:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        (folder / FOLDER).rmdir()


def delete_checkpoint(folder: Path, trial_id: str) -> None:
    """Remove the checkpoint of a trial that is done; what it ended with stays."""
    path = path_of(folder, trial_id)
    path.unlink(missing_ok=True)
    path.with_suffix(HUNG).unlink(missing_ok=True)


def delete_result(folder: Path, trial_id: str) -> None:
    """Remove what a trial ended with."""
    path = path_of(folder, trial_id)
    weights_of(path).unlink(missing_ok=True)
    codebook_of(path).unlink(missing_ok=True)
