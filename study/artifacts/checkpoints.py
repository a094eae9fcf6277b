"""Checkpoints: one file for each unfinished trial, from which another process continues after its last epoch.

The file lies in the study folder, which every machine of a study sees. The trial writes it after every epoch that it
reports, and it is removed when the trial's row is final.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from study.artifacts.weight_trace import Trace, TraceState
from study.records.atomic_files import write_bytes
from study.records.paths import CHECKPOINTS, trial_folder
from study.records.tables import older_names

Row = dict[str, float | str]
"""What an epoch reports: its number, its phase and its metrics."""


class TrainingState(TypedDict):
    """Where one call of `train` is.

    Attributes:
        epoch: the last that is done.
        model: its state dict.
        others: tensors that change and are not part of the model.
        optimiser: its state dict; missing once the call has ended.
        random: states of the random generators.
    """

    epoch: int
    model: dict[str, Tensor]
    others: list[Tensor]
    optimiser: NotRequired[dict[str, object]]
    random: list[Tensor]


class _File(TypedDict):
    """A checkpoint as `torch.save` writes it."""

    config: dict[str, object]
    rows: list[Row]
    seconds: float
    threads: NotRequired[int]  # files written before there was one lack it
    states: list[TrainingState]
    trace: TraceState


@dataclass
class Progress:
    """How far a trial is: the state of each call of `train` that it has made, in order.

    A trial that was stopped runs the same code again with these states. A call that had ended restores its last state
    and returns at once; the call that was stopped continues after its last epoch, to the same result.

    Attributes:
        states: the last one has the very tensors of the training, so they must be saved before it continues.
        trace: what the figures need of its weights.
        is_scored: whether the trial is scored after an epoch, by its number in all of its calls of `train`; it always
            is after the last epoch of a call.
        on_epoch: is called whenever a state is kept: after every epoch, scored or not.
    """

    states: list[TrainingState] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    is_scored: Callable[[int], bool] = lambda epoch: True
    on_epoch: Callable[[], None] = lambda: None
    _calls: int = 0

    def begin(self) -> TrainingState | None:
        """The state of the next call of `train`, if it had started."""
        self._calls += 1
        return self.states[self._calls - 1] if self._calls <= len(self.states) else None

    def restart(self) -> None:
        """Forget the current call, and those after it: the state is that of an older version, which had other parts."""
        del self.states[self._calls - 1 :]

    def keep(self, state: TrainingState) -> None:
        """Replace the state of the current call."""
        self.states[self._calls - 1 : self._calls] = [state]
        self.on_epoch()

    def scores(self, epoch: int, epochs: int) -> bool:
        """Whether the network is scored now, after one of the epochs of the current call of `train`."""
        before = sum(state["epoch"] for state in self.states[: self._calls - 1])
        return epoch == epochs or self.is_scored(before + epoch)


FOLDER = CHECKPOINTS
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
        threads: CPU threads that it started with; it continues with as many, for the same rounding. 0 before the start.
        progress: the state of its training.
    """

    path: Path
    config: Mapping[str, object]
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    threads: int = 0
    progress: Progress = field(default_factory=Progress)
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path, config: Mapping[str, object]) -> Checkpoint:
        """Read the trial's file; where it is missing, damaged or of another trial, a trial that has not started."""
        file = _read(path)
        if file is None or file["config"] != dict(config):
            return cls(path, config)
        progress = Progress(file["states"], Trace(**file["trace"]))
        return cls(path, config, file["rows"], file["seconds"], file.get("threads", 0), progress)

    @property
    def spent(self) -> float:
        """Seconds of the trial, those of its earlier processes included."""
        return self.seconds + time.monotonic() - self._since

    def write(self, row: Mapping[str, float | str]) -> None:
        """Add the epoch that has just ended."""
        self.rows.append(dict(row))
        file: _File = {
            "config": dict(self.config),
            "rows": self.rows,
            "seconds": self.spent,
            "threads": torch.get_num_threads(),
            "states": self.progress.states,
            "trace": self.progress.trace.state(),
        }
        buffer = io.BytesIO()
        torch.save(file, buffer)
        write_bytes(self.path, buffer.getvalue())


def path_of(folder: Path, trial_id: str) -> Path:
    """Where the checkpoint of a trial lies in a study folder."""
    return folder / FOLDER / (trial_folder(trial_id) + SUFFIX)


def rows_of(path: Path) -> list[Row]:
    """What the trial reported, one row an epoch; none if the file is damaged."""
    file = _read(path)
    return list(file["rows"]) if file else []


def _read(path: Path) -> _File | None:
    """A checkpoint with the newest names. Nothing is unpickled but tensors, numbers and text."""
    try:
        _check_archive(path)
        file: _File = torch.load(path, map_location="cpu", weights_only=True)
        names = set(file["config"]).union(*file["rows"])
        older = older_names(path.parent.parent, names)
        file["config"] = {older.get(name, name): value for name, value in file["config"].items()}
        file["rows"] = [{older.get(name, name): value for name, value in row.items()} for row in file["rows"]]
        _check_types(file)
        return file
    except Exception:  # torch, zipfile and pickle raise a dozen kinds for one cause; what can be lost is this trial
        return None


def _check_archive(path: Path) -> None:
    """Refuse a file with a bit flipped, which torch does not notice, or one that says it is larger than it is.

    Raises:
        OSError, zipfile.BadZipFile, ValueError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("torch compresses nothing")
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("larger than its file")
        if archive.testzip() is not None:
            raise ValueError("a checksum is wrong")


def _check_types(file: _File) -> None:
    """Refuse what `Checkpoint.write` did not write.

    Raises:
        TypeError, ValueError, KeyError: with no word for the user: the trial starts again.
    """
    Trace(**file["trace"])
    epochs = [row["epoch"] for row in file["rows"]]
    if not all(isinstance(epoch, int) for epoch in epochs) or epochs != sorted(set(epochs)):
        raise ValueError("epochs that do not ascend")
    if not (isinstance(file["seconds"], float | int) and 0 <= file["seconds"] < math.inf):
        raise ValueError("no time")
    threads = file.get("threads", 0)
    if not (isinstance(threads, int) and 0 <= threads <= 4096) or not isinstance(file["states"], list):
        raise ValueError("no state")


def weights_of(checkpoint: Path) -> Path:
    """Where the trial's final weights, and its other arrays, lie until they are tested."""
    return checkpoint.with_suffix(WEIGHTS)


def codebook_of(checkpoint: Path) -> Path:
    """Where the compressed file lies until it is tested, if the trial compresses."""
    return checkpoint.with_suffix(".codebook")


def where_it_hung(checkpoint: Path) -> str:
    """File, line and function at which a trial's process hung and was ended; "" if it did not hang."""
    path = checkpoint.with_suffix(HUNG)
    stack = path.read_text(errors="replace") if path.exists() else ""
    frames = re.findall(r'File "(.+)", line (\d+) in (.+)', stack)
    own = [f for f in frames if "/ray/" not in f[0] and not f[0].endswith(("threading.py", "selectors.py"))]
    return "{}, line {}, in {}".format(*(own or frames)[0]) if frames else ""


def has_untested_results(folder: Path) -> bool:
    """Whether some trial's final weights are still to be tested; `clear_results` removes them after that."""
    return any((folder / FOLDER).glob(f"*{WEIGHTS}"))


def clear_results(folder: Path, unfinished: Iterable[Mapping[str, object]]) -> None:
    """Remove everything but the checkpoints of these rows' trials, which the next command continues."""
    continued = {path_of(folder, str(row["trial_id"])) for row in unfinished}
    for path in (folder / FOLDER).glob("*"):
        if path not in continued:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        (folder / FOLDER).rmdir()


def delete_checkpoint(folder: Path, trial_id: str) -> None:
    """Remove the checkpoint of a trial that is done; its final weights and compressed file stay."""
    path = path_of(folder, trial_id)
    path.unlink(missing_ok=True)
    path.with_suffix(HUNG).unlink(missing_ok=True)


def delete_result(folder: Path, trial_id: str) -> None:
    """Remove a trial's final weights and compressed file."""
    path = path_of(folder, trial_id)
    weights_of(path).unlink(missing_ok=True)
    codebook_of(path).unlink(missing_ok=True)
