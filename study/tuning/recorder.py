"""What happens in Ray Tune's trials, into the ledger, the display and Ray's metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ray import tune
from ray.tune.experiment import Trial

from study.artifacts import checkpoints
from study.errors import says_no_space
from study.methods import registry
from study.records import paths
from study.records.columns import ACCURACY, EPOCH_ONLY, FINAL_STATES, TIME_COLUMNS, TRIAL_COLUMNS, Row
from study.records.ledger import Ledger, history_row
from study.settings import Settings
from study.tuning import searcher
from study.tuning.display import Display
from study.tuning.journal import Journal
from study.tuning.nondominated import RunningFront
from study.tuning.searcher import LedgerSearch
from study.tuning.study_metrics import StudyMetrics
from study.tuning.trackers.tracker import Trackers
from study.tuning.trial_tasks import TrialTasks

FULL_DISK = "no space left on the disk; free some"

FEW = 4
"""Failures that may happen before most trials failing stops a study."""


class Recorder(tune.Callback):
    """Writes what Tune's trials report into the ledger and onto the display.

    Attributes:
        searcher: asks for the trials that are recorded; it stops when most of them fail, or when there is no room
            for what they write.
        stopped: why it stopped, or "".
        journal: of the study, where the trials are the study's own.
        tasks: of Ray's dashboard, where there is one.
        trackers: hear of the trials as well.
    """

    def __init__(
        self, ledger: Ledger, display: Display, objectives: Mapping[str, str], settings: Settings, folder: Path
    ) -> None:
        self.ledger, self.display, self.objectives = ledger, display, objectives
        self.settings, self.folder = settings, folder
        self.shared_work = registry.method(settings.kind).shared_work.name
        self.searcher: LedgerSearch | None = None
        self.stopped = ""
        self.journal: Journal | None = None
        self.tasks: TrialTasks | None = None
        self.ended, self.reasons = 0, Counter[str]()
        self.done: list[str] = []
        self.front: set[str] = set()
        self._running_front = RunningFront(ledger, objectives, settings.search.min_accuracy)
        self.metrics = StudyMetrics(folder.name, ledger, objectives, settings.search.min_accuracy)
        self.trackers = Trackers({})

    def __getstate__(self) -> Row:
        return {}  # Tune pickles its callbacks; nothing is restored from that

    def on_start(self, row: Row) -> None:
        """A trial starts, with this row in the ledger."""
        if self.journal:
            self.journal.start(row)
        if self.tasks:
            self.tasks.start(row["trial_id"], row["baseline"] or row["trial_id"], _hyperparameters(row))
        self.metrics.trials(len(self.front))

    def on_trial_start(self, iteration: int, trials: list, trial: Trial, **info: object) -> None:
        self.trackers.start(self.ledger.trials[trial.config["trial_id"]], trial.config)

    def on_trial_result(self, iteration: int, trials: list, trial: Trial, result: Row, **info: object) -> None:
        if "epoch" in result and not result.get("finished") and not result.get("failure"):
            row = history_row(result)
            self.ledger.epoch(trial.config["trial_id"], row)
            self.trackers.epoch(trial.config["trial_id"], row)
            if self.journal:
                self.journal.epoch(trial.config["trial_id"], row)
            self.metrics.epoch(trial.config["trial_id"], row)

    def on_trial_complete(self, iteration: int, trials: list, trial: Trial, **info: object) -> None:
        shared = self.ledger.trials[trial.config["trial_id"]]["baseline"] == self.shared_work
        # The shared work is no answer to the study's question, and may lack what only trials can be measured by.
        objectives = [ACCURACY] if shared else list(self.objectives)
        state, reason = searcher.final_state(trial.last_result, objectives, error=False)
        self._end(trial, state, reason)

    def on_trial_error(self, iteration: int, trials: list, trial: Trial, **info: object) -> None:
        reason = last_error(trial)
        if says_no_space(reason):
            self._stop(FULL_DISK)  # the trial's row stays `running`: it runs again
            return
        if "[Errno" in reason and str(self.folder) in reason:
            self._stop(reason)  # no trial can write into the folder, so this one has not failed
            return
        if where := checkpoints.where_it_hung(checkpoints.path_of(self.folder, trial.config["trial_id"])):
            reason = (
                f"hung: no epoch ended within --trial-timeout {self.settings.budget.trial_timeout:g} s (at {where})"
            )
        self._end(trial, "failed", reason)

    def _end(self, trial: Trial, state: str, reason: str) -> None:
        trial_id, result = trial.config["trial_id"], trial.last_result or {}
        row = self.ledger.trials[trial_id]
        metrics = {k: v for k, v in history_row(result).items() if k not in EPOCH_ONLY and k not in row}
        self.ledger.finish(trial_id, state, reason, metrics, result.get("spent", 0.0))
        if self.ledger.full:
            self._stop(FULL_DISK)
        elif self.journal:
            self.journal.end(row)
        self.trackers.end(row, trial.config, checkpoints.codebook_of(checkpoints.path_of(self.folder, trial_id)))
        self._tidy(trial_id)
        self._count(state, reason)
        if self.tasks:
            self.tasks.end(trial_id, state, reason, row["seconds"])
        self.metrics.ended(trial_id)
        self.metrics.trials(len(self.front))
        self.display.trial_ended(self.ledger.trials[trial_id], len(self.front))

    def _tidy(self, trial_id: str) -> None:
        """Remove checkpoints of trials whose epochs are in history.csv, and weights and traces of dominated ones."""
        self.done.append(trial_id)
        saved = [i for i in self.done if i not in self.ledger.unwritten]
        for i in saved:
            checkpoints.delete_checkpoint(self.folder, i)
        self.done = [i for i in self.done if i not in saved]
        front = self._running_front.members()
        mine = {trial_id} if not self.ledger.trials[trial_id]["baseline"] else set()
        for i in (self.front | mine) - front:
            checkpoints.delete_result(self.folder, i)
            paths.trace_of(self.folder, i).unlink(missing_ok=True)
        self.front = front

    def _count(self, state: str, reason: str) -> None:
        self.ended += 1
        if state == "failed":
            self.reasons[reason] += 1
        failed = self.reasons.total()
        if failed >= FEW and 2 * failed > self.ended:
            commonest, times = self.reasons.most_common(1)[0]
            self._stop(f"{failed} of {self.ended} trials failed, {times} of them with: {commonest}")

    def _stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        if self.searcher is not None:
            self.searcher.stop(reason)

    def close(self) -> None:
        """Write all history, and delete the checkpoints that are then no longer needed."""
        self.ledger.flush()
        self.metrics.trials(len(self.front), last=True)
        self.metrics.close()
        for trial_id in self.done:
            if self.ledger.trials[trial_id]["state"] in FINAL_STATES:
                checkpoints.delete_checkpoint(self.folder, trial_id)
        self.done = []


def _hyperparameters(row: Row) -> Row:
    """Those of a trial that starts, whose row has no metrics yet."""
    return {k: v for k, v in row.items() if k not in (*TRIAL_COLUMNS, *TIME_COLUMNS)}


def last_error(trial: Trial) -> str:
    """One line from the error that ended a Tune trial: its last line is what was raised."""
    path = trial.error_file  # where Tune has it first; the copy in the study folder comes later
    text = Path(path).read_text(errors="replace") if path and Path(path).exists() else ""
    if "ActorDiedError" in text.rpartition("Failure #")[2]:
        return "the trial's process died; usually the machine ran out of memory, or somebody killed it"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else "the trial's process died"
