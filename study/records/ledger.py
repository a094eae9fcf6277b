"""The rows of `trials.csv` and `history.csv` while a study runs."""

from __future__ import annotations

import contextlib
import errno
import math
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from study.errors import UserError, no_space
from study.records import timestamps
from study.records.columns import (
    COLUMNS,
    COST_COLUMNS,
    EPOCHS_REPORTED,
    FINAL_STATES,
    HISTORY_COLUMNS,
    TIME_COLUMNS,
    TRIAL_COLUMNS,
    Row,
)
from study.records.identity import check_none_lost, highest_number, ids_elsewhere
from study.records.paths import CONFIRMED, HISTORY, STUDY, TRIAL_ID, TRIAL_LOG, TRIALS
from study.records.schema import Meta
from study.records.search_domains import is_active
from study.records.study_folder import check_rows, missing_file_error, read_frame, read_meta, read_trials, write_rows
from study.records.trial_log import append_row, remove_log
from study.records.trial_states import TrialStates

SHARE = 40
"""A table is written again when that takes at most one in so many of the seconds since it was written last; there are
two of them."""
SHORTEST = 1.0
"""Seconds at least from one writing of a table to the next."""


def history_row(report: Mapping[str, object]) -> Row:
    """What of a trial's report belongs in `history.csv`: all that the trial itself says, declared or not."""
    names = map(sys.intern, str(report.get("reported", "")).split(","))  # a study has hundreds of thousands of reports
    return {name: report[name] for name in names if name in report and name != "trial_id"}


def epochs_reported(row: Row) -> int:
    """The last epoch that a finished trial reported."""
    return int(row[EPOCHS_REPORTED] if EPOCHS_REPORTED in row else row["epochs"])


@dataclass
class Ledger:
    """The rows of `trials.csv` and `history.csv` while a study runs; what is in them is what has happened.

    A trial's row is on the disk when the trial starts (`running`) and when it ends, so a study that was cut off knows
    which configurations it still has to run. A long table takes long to write, so both tables are written now and then,
    and by `flush`. Until then the log has the rows of trials (see `trial_log`), and the trials' checkpoints have the
    history.

    Attributes:
        unwritten: trials with epochs that `history.csv` lacks.
        highest: number of the last trial of which anything is in the folder; the next one gets a higher number.
        states: the trials by state.
        anchor: a file whose absence says that the study folder was removed; nothing is written then.
        full: whether a table could not be written since its disk is full. The study goes on to a good place to stop,
            and `flush` then says so.
    """

    folder: Path
    trials: dict[str, Row] = field(default_factory=dict)
    history: dict[str, list[Row]] = field(default_factory=dict)
    unwritten: set[str] = field(default_factory=set)
    highest: int = 0
    anchor: Path | None = None
    full: bool = False
    states: TrialStates = field(default_factory=TrialStates)
    _next_history_write: float = 0.0
    _next_table_write: float = 0.0
    _has_log: bool = False

    def __post_init__(self) -> None:
        self.highest = max(self.highest, highest_number(self.folder, self.trials))

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """What a study has so far.

        Raises:
            UserError: its tables are damaged, or the trials are gone that other files tell of.
        """
        others = [name for name in (HISTORY, CONFIRMED, TRIAL_LOG) if (folder / name).exists()]
        if others and not (folder / TRIALS).exists():
            raise missing_file_error(folder / TRIALS, others[0])
        elsewhere = ids_elsewhere(folder)  # first: the study may be another one, that runs meanwhile
        history = read_frame(folder / HISTORY, HISTORY_COLUMNS)
        check_rows(folder / HISTORY, history, "trial_id", "epoch")
        # Fresh seeds have a ledger in a folder of the study's, and no search space.
        meta = read_meta(folder) if (folder / STUDY).exists() else {}
        trials = read_trials(folder, meta.get("space", {}))
        check_none_lost(folder, trials["trial_id"], elsewhere)
        rows: list[Row] = [_without_nan(row) for row in trials.to_dict("records")]
        for row in rows:
            _check_complete(folder, row, meta)
        ledger = cls(folder, {row["trial_id"]: row for row in rows})
        for row in history.to_dict("records"):
            # Rows of an unfinished trial are dropped: the trial starts again and reports them again.
            if ledger.trials.get(row["trial_id"], {}).get("state") in FINAL_STATES:
                ledger.history.setdefault(row["trial_id"], []).append(_without_nan(row))
        return ledger

    def of_state(self, *states: str, baseline: bool = False) -> list[Row]:
        return [r for r in self.trials.values() if r["state"] in states and bool(r["baseline"]) == baseline]

    def count(self, state: str, baseline: bool = False) -> int:
        """Trials in this state, baselines not counted, or baselines alone."""
        self.states.note_new(self.trials)
        return self.states.count(state, baseline)

    @property
    def running(self) -> dict[str, Row]:
        """Trial id → row of each that runs, or was cut off."""
        self.states.note_new(self.trials)
        return self.states.running

    @property
    def ended(self) -> list[Row]:
        """Rows in the order in which their trials ended; see `TrialStates`."""
        self.states.note_new(self.trials)
        return self.states.ended

    def start(self, trial_id: str, hyperparameters: Mapping[str, object], baseline: str = "") -> None:
        self.history.pop(trial_id, None)
        row: Row = {
            "trial_id": trial_id,
            "state": "running",
            "reason": "",
            "baseline": baseline,
            **hyperparameters,
            "started": timestamps.now(),
        }
        if TRIAL_ID.fullmatch(trial_id):
            self.highest = max(self.highest, int(trial_id[1:]))
        # In this order: another thread shows the ledger, and must not note the trial itself.
        self.states.note(trial_id, row)
        self.trials[trial_id] = row
        self._record(row)

    def new_id(self) -> str:
        """An id that no trial of the study has had, whatever was lost of it."""
        self.highest += 1
        return f"t{self.highest:03d}"

    def epoch(self, trial_id: str, row: Mapping[str, object]) -> None:
        rows = self.history.setdefault(trial_id, [])
        if rows and rows[-1]["epoch"] >= row["epoch"]:  # the trial was retried: it reports its epochs again
            rows[:] = [r for r in rows if r["epoch"] < row["epoch"]]
        rows.append({"trial_id": trial_id, **row})
        self.unwritten.add(trial_id)
        now = time.monotonic()
        if self._has_log and now >= self._next_table_write and not self.full:
            self._if_there_is_room(self._write_trials)
        # A trial's row is on disk before anything else of it, or it would count as lost.
        if now >= self._next_history_write and not self.full:
            self._if_there_is_room(self._write_history)

    def finish(
        self,
        trial_id: str,
        state: str,
        reason: str = "",
        metrics: Mapping[str, object] | None = None,
        seconds: float = 0,
    ) -> None:
        assert state in FINAL_STATES, state
        row = self.trials[trial_id]
        searched = "epochs" in row  # then the count of those that were reported has a name of its own
        row |= {name: v for name, v in (metrics or {}).items() if name not in (*TRIAL_COLUMNS, *TIME_COLUMNS)}
        row.update(state=state, reason=" ".join(reason.split()), seconds=round(seconds, 3), ended=timestamps.now())
        row[EPOCHS_REPORTED if searched else "epochs"] = self.last_epoch(trial_id)
        self.states.note(trial_id, row)
        self._record(row)

    def last_epoch(self, trial_id: str) -> int:
        """The last that the trial has reported; 0 before the first."""
        rows = self.history.get(trial_id)
        return int(rows[-1]["epoch"]) if rows else 0

    def pause(self) -> None:
        """Write into `trials.csv` what its log has, if that is possible; the log stays where it is not."""
        if self._has_log:
            with contextlib.suppress(OSError):
                self._if_there_is_room(self._write_trials)

    def flush(self) -> None:
        """Write all there is.

        Raises:
            OSError: the disk is full, or the folder was removed.
        """
        if self.trials:
            self._write_trials()
        self._write_history()

    def _record(self, row: Row) -> None:
        """Put a trial's new row on the disk."""
        # The first time, the table: the log that a command leaves when it is killed may end in half a line.
        if time.monotonic() >= self._next_table_write:
            self._if_there_is_room(self._write_trials)
        else:
            self._if_there_is_room(lambda: self._append(row))

    def _append(self, row: Row) -> None:
        self._check_there()
        self._has_log = True
        append_row(self.folder, row)

    def _if_there_is_room(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not no_space(error):
                raise
            self.full = True

    def _check_there(self) -> None:
        """See that the folder was not removed: writing would make it again, with a part of what was in it."""
        if self.anchor and not self.anchor.exists():
            raise FileNotFoundError(errno.ENOENT, "removed or moved while the study ran", str(self.anchor.parent))

    def _write_history(self) -> None:
        self._check_there()
        start = time.monotonic()
        rows = [row for rows in self.history.values() for row in rows]
        write_rows(self.folder / HISTORY, rows, HISTORY_COLUMNS)
        self.unwritten.clear()
        self._next_history_write = _next_write(start)

    def _write_trials(self) -> None:
        self._check_there()
        start = time.monotonic()
        first = [c for c in TRIAL_COLUMNS if c not in COST_COLUMNS]
        write_rows(
            self.folder / TRIALS,
            list(self.trials.values()),
            [*first, *(c for c in COLUMNS if c not in (*first, *COST_COLUMNS)), *COST_COLUMNS],
            always=TRIAL_COLUMNS,
        )
        remove_log(self.folder)  # a kill before this harms nothing: its rows are those of the table
        self._has_log = False
        self._next_table_write = _next_write(start)


class NewlyComplete:
    """Searched trials that have completed since the last look. Baselines are not among them; they may lack objectives.

    Attributes:
        looked_at: rows of `Ledger.ended` that were looked at.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.looked_at = ledger, 0

    def rows(self) -> list[Row]:
        """Their rows, in the order in which they ended; each is given once."""
        ended = self.ledger.ended
        new = ended[self.looked_at :]
        self.looked_at += len(new)
        return [row for row in new if row["state"] == "complete" and not row["baseline"]]


def _next_write(start: float) -> float:
    """When a table is to be written next, whose writing has just ended.

    Args:
        start: of that writing, on the clock of `time.monotonic`, as is what is returned.
    """
    end = time.monotonic()
    return end + max(SHORTEST, SHARE * (end - start))


def _check_complete(folder: Path, row: Row, meta: Meta) -> None:
    """Refuse a trial of the search that lacks what was searched or, once it is complete, an objective.

    Raises:
        UserError: with the first that it lacks.
    """
    measured = meta.get("objectives", ()) if row["state"] == "complete" else ()
    searched = [name for name, domain in meta.get("space", {}).items() if is_active(domain, row)]
    for name in (*searched, *measured) if not row["baseline"] else ():
        value = row.get(name)
        if value is None or isinstance(value, float) and math.isinf(value):
            raise UserError(
                f"{folder / TRIALS}: damaged (trial {row['trial_id']!r} has no {name}); restore it from a copy"
            )


def _without_nan(row: Mapping[Hashable, object]) -> Row:
    return {str(k): v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
