"""`optuna.journal`: the study as optuna-dashboard shows it.

A copy of the ledger that nobody learns from: the search asks an Optuna study in memory. The two are apart because the
journal has the epochs of every trial, and Optuna's TPE ranks pruned trials by them; with several objectives it raises
instead. Baselines were not searched, so they have an Optuna study of their own in the same file.

In the study of the search, trial t007 has the number 6: Optuna counts from 0, in the order of the ids. Ids have gaps
only where somebody removed rows of `trials.csv`; the user attribute `trial_id` is right even then.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.errors import no_space
from study.records import study_folder, timestamps
from study.records.atomic_files import write_bytes
from study.records.columns import ACCURACY, CONFIRMED_COLUMNS, FINAL_STATES, TIME_COLUMNS, Row
from study.records.ledger import Ledger
from study.records.paths import CONFIRMED, JOURNAL
from study.settings import Settings
from study.tuning.searcher import directions, recorded_trial
from study.tuning.space import SearchSpace

BASELINES = "{} baselines"
"""Name of the Optuna study that has the baselines."""
TESTED = "test_accuracy"
NO_ATTRIBUTE = ("state", *TIME_COLUMNS)
"""Columns of `trials.csv` that Optuna has a place of its own for."""
FIRST = ("trial_id", "baseline", "reason", TESTED, "file_bytes")
EVERY = 1.0
"""Seconds between two writes of epochs."""

_ENDED = create_trial(state=TrialState.FAIL)
"""In the place of each trial that has ended, in the memory of Optuna's storage."""


class _Lines(BaseJournalBackend):
    """What Optuna would write, as lines that wait until they are written together.

    Only the command that holds the study's lock writes the journal, so there is no other writer to look out for.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._logs: list[dict[str, Any]] = []
        self._dropped = 0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        del self._logs[: log_number_from - self._dropped]  # the storage has applied these
        self._dropped = log_number_from
        return list(self._logs)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self.lines += lines
        self._logs += map(json.loads, lines)

    def take(self) -> bytes:
        """The lines that wait, which no longer do then."""
        text = "".join(f"{line}\n" for line in self.lines)
        self.lines.clear()
        return text.encode()


class Journal:
    """The journal of a study that runs. Opening it writes it again from the ledger.

    Raises:
        UserError: a trial of the ledger that is none of this search.
    """

    def __init__(self, ledger: Ledger, space: SearchSpace, settings: Settings) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path, self.ledger, self.space = ledger.folder / JOURNAL, ledger, space
        self.min_accuracy, self.objectives = settings.search.min_accuracy, list(space.objectives)
        self.created = _created(ledger.folder)
        self.tested = _test_accuracies(ledger.folder, settings.seed)
        self.backend = _Lines()
        self.storage = JournalStorage(self.backend)
        self.numbers: dict[str, int] = {}
        self.next_write = 0.0
        name = ledger.folder.name
        self.studies = {
            baseline: self._study(BASELINES.format(name) if baseline else name) for baseline in (False, True)
        }
        for row in sorted(ledger.trials.values(), key=_order):
            self._add(row, self.frozen(row))
        for file in self.path.parent.glob(self.path.name + ".*"):  # locks of Optuna's, which an older version took
            file.unlink()
        write_bytes(self.path, self.backend.take())

    def _study(self, name: str) -> int:
        study = optuna.create_study(storage=self.storage, study_name=name, directions=directions(self.space))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(self.objectives)
        if name == self.ledger.folder.name:
            study.set_user_attr("trial ids", "t007 has the number 6: Optuna counts from 0")
        return study._study_id

    def _add(self, row: Row, trial: FrozenTrial | None) -> None:
        if trial is not None:
            number = self.storage.create_new_trial(self.studies[bool(row["baseline"])], trial)
            self.numbers[row["trial_id"]] = number
            if trial.state.is_finished():
                self._forget(number)

    def start(self, row: Row) -> None:
        """A trial starts, or starts again; `row` is its row in the ledger."""
        number = self.numbers.get(row["trial_id"])
        if number is None:
            self._add(row, self.frozen(row, TrialState.RUNNING))
        else:
            self.storage.set_trial_state_values(number, TrialState.RUNNING)
        self._write()

    def epoch(self, trial_id: str, row: Mapping[str, object]) -> None:
        """An epoch of a trial that runs."""
        number, accuracy = self.numbers.get(trial_id), row.get(ACCURACY)
        if number is not None and accuracy is not None:
            self.storage.set_trial_intermediate_value(number, int(str(row["epoch"])), float(str(accuracy)))
        if time.monotonic() >= self.next_write:
            self._write()

    def end(self, row: Row) -> None:
        """A trial has ended; `row` is its row in the ledger."""
        number, trial = self.numbers.get(row["trial_id"]), self.frozen(row)
        if number is None or trial is None:
            return
        for name, value in trial.user_attrs.items():
            self.storage.set_trial_user_attr(number, name, value)
        for name, value in trial.system_attrs.items():
            self.storage.set_trial_system_attr(number, name, value)
        self.storage.set_trial_state_values(number, trial.state, trial.values)
        self._forget(number)
        self._write()

    def _forget(self, number: int) -> None:
        """Drop what the storage remembers of a trial that has ended, which the file has: 2 kB, and more with epochs."""
        trials = getattr(getattr(self.storage, "_replay_result", None), "_trials", {})
        if number in trials:
            trials[number] = _ENDED

    def _write(self) -> None:
        self.next_write = time.monotonic() + EVERY
        try:
            with self.path.open("ab") as file:
                file.write(self.backend.take())
        except OSError as error:  # the study stops at a good place by itself; then this file is written again
            if not no_space(error):
                raise

    def frozen(self, row: Row, unfinished: TrialState = TrialState.WAITING) -> FrozenTrial | None:
        """A row of the ledger as the journal has it; None for a complete baseline without a value for an objective,
        which Optuna has no state for.

        Args:
            unfinished: state of a row that is in no final one.
        """
        if row["state"] == "complete" and any(not _is_finite(row.get(name)) for name in self.objectives):
            return None
        if row["baseline"] or row["state"] not in FINAL_STATES:
            trial = self._free_trial(row, unfinished)
        else:
            trial = recorded_trial(row, self.space, self.min_accuracy)
        epochs = self.ledger.history.get(row["trial_id"], [])
        trial.intermediate_values = {int(e["epoch"]): float(e[ACCURACY]) for e in epochs if _is_finite(e.get(ACCURACY))}
        trial.user_attrs = self._attributes(row, trial.params)
        if trial.state != TrialState.WAITING:
            trial.datetime_start, trial.datetime_complete = self._times(row)
        return trial

    def _free_trial(self, row: Row, unfinished: TrialState) -> FrozenTrial:
        """A trial of the hyperparameters that a row has: a baseline has some of them, perhaps outside their ranges."""
        known = self.space.distributions()
        params = {n: self.space.cast(n, row[n]) for n in known if n in row and _contains(known[n], row[n])}
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return create_trial(
            state=state.get(row["state"], unfinished),
            params=params,
            distributions={name: known[name] for name in params},
            values=[float(row[name]) for name in self.objectives] if row["state"] == "complete" else None,
        )

    def _attributes(self, row: Row, params: Mapping[str, object]) -> dict[str, Any]:
        """The row without what it has of hyperparameters, state and times, and the test accuracy if it was tested."""
        values = {**row, TESTED: self.tested.get(row["trial_id"], "")}
        names = dict.fromkeys([*FIRST, *values])  # the dashboard shows the first ones
        return {n: values[n] for n in names if n not in (*NO_ATTRIBUTE, *params) and values.get(n, "") != ""}

    def _times(self, row: Row) -> tuple[datetime | None, datetime | None]:
        """Start and end of a trial, as Optuna has them: in this machine's time zone. A row without them is of an older
        version, or of a network that was trained before: it ends as the study begins, so that its duration is right."""
        start, end = (timestamps.parse(row.get(name)) for name in TIME_COLUMNS)
        if row["state"] not in FINAL_STATES:
            return _local(start or self.created), None
        end = end or self.created or datetime.fromtimestamp(0).astimezone()
        start = start or end - timedelta(seconds=float(row.get("seconds", 0.0)))
        return _local(start), _local(end)


def _created(folder: Path) -> datetime | None:
    """When the study was started; None where `study.json` does not say so, or no instant: no result depends on it."""
    try:
        return timestamps.parse(study_folder.read_meta(folder).get("created"))
    except (ValueError, OverflowError):
        return None


def _order(row: Row) -> tuple[bool, int]:
    """Trials of the search in the order of their ids, then baselines."""
    trial_id = row["trial_id"]
    return bool(row["baseline"]), 0 if row["baseline"] else int(trial_id[1:])


def _local(instant: datetime | None) -> datetime:
    return (instant or datetime.now()).astimezone().replace(tzinfo=None)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:  # what a choice does not have
        return False


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _test_accuracies(folder: Path, seed: int) -> dict[str, float]:
    """Trial id → accuracy (%) on the test part, of the networks that the search itself left."""
    frame = study_folder.read_frame(folder / CONFIRMED, CONFIRMED_COLUMNS)
    rows = frame[frame["seed"] == seed].to_dict("records")
    return {row["trial_id"]: float(row[TESTED]) for row in rows if _is_finite(row.get(TESTED))}
