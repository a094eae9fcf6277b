"""What a tracker is, and the thread that feeds the trackers of a command.

Not Ray's own callbacks for these trackers, which do not fit a study that goes on:

- a trial that continues reports its epochs again, and they would start a second run and log each epoch twice;
- MLflow's sends two requests for each number from the loop that starts trials, and an error in it ends the study;
- W&B's starts two processes for each trial, and asks for a key offline, too;
- none of them has the compressed file, or the names and numbers of our trials.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from study import addresses
from study.errors import one_line, require_package
from study.records.columns import TIME_COLUMNS, TRIAL_COLUMNS, Row
from study.settings import Settings

PACKAGES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "tensorboardX"}
"""Tracker → the package that writes for it; our extra has the tracker's name."""
PATIENCE = 120.0
"""Seconds that the end of a command waits for trackers that do not answer."""


@dataclass(frozen=True)
class StudyFacts:
    """What all runs of a study have in common.

    Attributes:
        folder: of the study; the trackers' own files go there.
        place: the folder as people know it, which tells studies of one name apart.
    """

    name: str
    kind: str
    dataset: str
    folder: Path
    place: str

    @classmethod
    def of(cls, settings: Settings, folder: Path) -> StudyFacts:
        return cls(folder.name, settings.kind, settings.dataset, folder, addresses.shown(folder))

    def tags(self, trial_id: str, seed: int) -> dict[str, str]:
        """What a run is found by."""
        return {**self.study_tags(), "trial_id": trial_id, "seed": str(seed)}

    def study_tags(self) -> dict[str, str]:
        return {"study": self.name, "kind": self.kind, "dataset": self.dataset, "study_folder": self.place}


class Tracker(Protocol):
    """Writes runs, one for each trial, and one for the study itself. A trial that continues has its run again."""

    def start(self, trial_id: str, seed: int, values: Mapping[str, object]) -> None:
        """A trial starts, or continues, with these hyperparameters."""

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch has ended; it may have been reported before."""

    def end(self, trial_id: str, state: str, metrics: Mapping[str, float], file: bytes | None) -> None:
        """A trial has ended, with its compressed file if it has one."""

    def report(self, page: Path) -> None:
        """The study's report is written."""

    def close(self) -> None:
        """Nothing follows."""


class Trackers:
    """Those of a command. They get what happens in a thread of their own, so that none of them delays a study; one
    that fails says so once, and harms nothing."""

    def __init__(self, trackers: Mapping[str, Tracker], seed: int = 0) -> None:
        self.trackers, self.seed = trackers, seed
        self._events: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._failed: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        if trackers:
            self._thread.start()

    def start(self, row: Row, values: Mapping[str, object]) -> None:
        """A trial starts.

        Args:
            row: of the trial, in `trials.csv`.
            values: its configuration.
        """
        own = {name: value for name, value in values.items() if name not in ("trial_id", "seed")}
        seed = int(str(values.get("seed", self.seed)))
        self._tell(lambda tracker: tracker.start(row["trial_id"], seed, own))

    def epoch(self, trial_id: str, row: Row) -> None:
        """An epoch has ended."""
        metrics = numbers_of(row, but=("epoch",))
        self._tell(lambda tracker: tracker.epoch(trial_id, int(row["epoch"]), metrics))

    def end(self, row: Row, values: Mapping[str, object], file: Path) -> None:
        """A trial has ended, with this compressed file if it is there: it may be removed when this returns."""
        if self.trackers:
            content = file.read_bytes() if file.exists() else None
            metrics = numbers_of(row, but=(*values, *TIME_COLUMNS))
            trial_id, state = str(row["trial_id"]), str(row["state"])
            self._tell(lambda tracker: tracker.end(trial_id, state, metrics, content))

    def report(self, page: Path) -> None:
        """The report is written."""
        self._tell(lambda tracker: tracker.report(page))

    def close(self) -> None:
        """Wait until all is sent."""
        if self.trackers and self._thread.is_alive():
            self._tell(lambda tracker: tracker.close())
            self._events.put(None)
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                print(f"{', '.join(self.trackers)}: not all was sent in {PATIENCE:.0f} s", file=sys.stderr)

    def _tell(self, event: Callable[[Tracker], None]) -> None:
        if self.trackers:
            self._events.put(event)

    def _work(self) -> None:
        while event := self._events.get():
            for name, tracker in self.trackers.items():
                try:
                    event(tracker)
                except Exception as error:  # each package raises its own
                    if name not in self._failed:
                        self._failed.add(name)
                        print(f"--track {name}: {one_line(error)}; the study goes on", file=sys.stderr)


def numbers_of(row: Mapping[str, object], but: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of a row."""
    skipped = {*but, *TRIAL_COLUMNS}
    return {
        name: float(value)
        for name, value in row.items()
        if name not in skipped and isinstance(value, float | int) and not isinstance(value, bool)
    }


def check_installed(settings: Settings) -> None:
    """See that the trackers can be used, before anything starts.

    Raises:
        UserError: a package is missing, with what to type.
    """
    for name in settings.tracking.track:
        require_package(f"--track {name}", PACKAGES[name], name)


def open_trackers(settings: Settings, folder: Path) -> Trackers:
    """The trackers that the settings name.

    Raises:
        UserError: a package is missing, or its server does not answer.
    """
    check_installed(settings)
    study = StudyFacts.of(settings, folder)
    trackers: dict[str, Tracker] = {name: _make(name, study) for name in dict.fromkeys(settings.tracking.track)}
    return Trackers(trackers, settings.seed)


def _make(name: str, study: StudyFacts) -> Tracker:
    if name == "mlflow":
        from study.tuning.trackers.mlflow_runs import MLflowRuns

        return MLflowRuns(study)
    if name == "wandb":
        from study.tuning.trackers.wandb_runs import WandbRuns

        return WandbRuns(study)
    from study.tuning.trackers.tensorboard_files import TensorBoardFiles

    return TensorBoardFiles(study)
