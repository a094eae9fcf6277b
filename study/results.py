"""The study folder `results/NAME/`: every file name, every column name, and how they are written and read.

Plain files only, so that analysis needs neither Ray nor torch. Each file is written beside its place and then
renamed, so a reader, or a crash at any instant, sees either the old file or the new one, whole.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.errors import UserError, no_space
from study.files import replacing

SCHEMA = 1

STUDY = "study.json"
TRIALS = "trials.csv"
HISTORY = "history.csv"
CONFIRMED = "confirmed.csv"
JOURNAL = "optuna.journal"
MODELS = "models"
RAY = "ray"
CACHE = ".cache"
"""Beside the study folders: work that studies share."""
CONFIRM = "confirm"
REPORT = "report.html"
TRACES = "traces"

FINAL_STATES = ("complete", "pruned", "failed")
"""A trial in one of these is done and is never run again; `running` is the fourth state, of a trial not yet done."""

TRIAL_COLUMNS = ("trial_id", "state", "reason", "baseline", "seconds", "epochs")
SPENT = ("seconds", "epochs", "threads")
"""Columns of what a trial took, rather than what it is or what came of it."""
HISTORY_COLUMNS = ("trial_id", "epoch", "phase")
OF_AN_EPOCH = ("epoch", "phase", "entropy_bytes")
"""Columns that say something of an epoch, and nothing more of a whole trial: `trials.csv` has none of them."""
CONFIRMED_COLUMNS = ("trial_id", "baseline", "seed")


@dataclass(frozen=True)
class Column:
    """How a column is named and printed for people."""

    label: str
    unit: str = ""
    digits: int = 2


COLUMNS: dict[str, Column] = {
    "trial_id": Column("trial"),
    "state": Column("state"),
    "reason": Column("reason"),
    "baseline": Column("baseline"),
    "seconds": Column("time", "s", 1),
    "epochs": Column("epochs", "", 0),
    "threads": Column("CPU threads", "", 0),
    "epoch": Column("epoch", "", 0),
    "phase": Column("phase"),
    "seed": Column("seed", "", 0),
    # KD
    "temperature": Column("temperature T", "", 2),
    "alpha": Column("soft-target weight α", "", 3),
    "label_smoothing": Column("label smoothing", "", 2),
    "student_width": Column("student width", "", 3),
    # SWS
    "tau": Column("prior weight τ", "", 4),
    "components": Column("components", "", 0),
    "one_minus_pi_zero": Column("1 − zero proportion π₀", "", 4),
    # magnitude pruning
    "kept": Column("share of weights kept", "", 4),
    "codebook": Column("codebook size", "", 0),
    "bits": Column("bits", "", 0),
    "components_used": Column("codebook values in use", "", 0),
    # metrics
    "train_loss": Column("training loss", "nats", 4),
    "val_loss": Column("validation loss", "nats", 4),
    "val_accuracy": Column("validation accuracy", "%", 2),
    "unquantised_val_accuracy": Column("validation accuracy before quantising", "%", 2),
    "teacher_val_accuracy": Column("validation accuracy of the teacher", "%", 2),
    "accuracy_drop": Column("accuracy lost to compression", "points", 2),
    "test_loss": Column("test loss", "nats", 4),
    "test_accuracy": Column("test accuracy", "%", 2),
    "sparsity": Column("sparsity", "%", 2),
    "nonzero_ratio": Column("1 / nonzero share", "×", 1),
    "entropy_ratio": Column("ratio by the entropy of the symbols", "×", 1),
    "entropy_bytes": Column("size by the entropy of the symbols", "bytes", 0),
    "compression_ratio": Column("compression ratio (file bytes)", "×", 1),
    "file_bytes": Column("compressed file", "bytes", 0),
    "parameters": Column("parameters", "", 0),
}


def label(column: str) -> str:
    """Label with its unit, as an axis or a table heading shows it; an unknown column is its own label."""
    info = COLUMNS.get(column, Column(column.replace("_", " ")))
    return f"{info.label} ({info.unit})" if info.unit else info.label


@dataclass(frozen=True)
class Study:
    """A study folder in memory.

    Attributes:
        folder: where it was read from.
        meta: `study.json` as it stands.
        trials: one row a trial. `trial_id` and `reason` are text (`""` when there is none), `baseline` is the
            baseline's name or `""`.
        history: one row a trial and epoch.
        confirmed: one row a confirmed configuration and seed, with `test_accuracy`; empty before confirmation.
    """

    folder: Path
    meta: dict[str, Any]
    trials: pd.DataFrame
    history: pd.DataFrame
    confirmed: pd.DataFrame

    @property
    def objectives(self) -> dict[str, str]:
        """Column → "min" or "max"."""
        return dict(self.meta["objectives"])

    @property
    def hyperparameters(self) -> list[str]:
        return list(self.meta["space"])


def history_row(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a report belongs in `history.csv`."""
    return {k: v for k, v in result.items() if k in COLUMNS and k != "trial_id"}


def trial_folder(trial_id: str) -> str:
    """Name of a trial, and of its folder, inside Tune's: its id without spaces."""
    return trial_id.replace(" ", "-")


def trace_of(folder: Path, trial_id: str) -> Path:
    """Where the weights of a trial, epoch by epoch, lie in a study folder, if they do; see `study.trace`."""
    return folder / TRACES / f"{trial_folder(trial_id)}.npz"


def read_trace(folder: Path, trial_id: str) -> dict[str, np.ndarray]:
    """The arrays of a trial's trace; none if it left no trace, or a damaged one. Nothing is unpickled."""
    try:
        with trace_of(folder, trial_id).open("rb") as file:
            return dict(np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def load(folder: str | Path) -> Study:
    """Read a study folder, finished or not. Missing tables are read as empty ones.

    Raises:
        UserError: no `study.json` there, a schema this version cannot read, a file that is damaged, a trial with two
            rows or in no state, or an accuracy that is no percentage.
    """
    folder = Path(folder)
    study = Study(
        folder=folder,
        meta=read_meta(folder),
        trials=read_frame(folder / TRIALS, TRIAL_COLUMNS),
        history=read_frame(folder / HISTORY, HISTORY_COLUMNS),
        confirmed=read_frame(folder / CONFIRMED, CONFIRMED_COLUMNS),
    )
    twice = study.trials["trial_id"][study.trials["trial_id"].duplicated()]
    if len(twice):
        raise UserError(f"{folder / TRIALS}: trial {twice.iloc[0]!r} has two rows; remove one")
    _check_states(folder / TRIALS, study.trials)
    _check_accuracies(folder / TRIALS, study.trials, "val_accuracy")
    _check_accuracies(folder / CONFIRMED, study.confirmed, "val_accuracy", "test_accuracy")
    return study


def lost(path: Path, there: str) -> UserError:
    """A study whose file is gone, though another one is there: it would be begun anew over what is left of it."""
    return UserError(f"{path}: missing, though {there} is there; restore it from a copy, or choose another --name")


def _check_states(path: Path, rows: pd.DataFrame) -> None:
    """Refuse a row that was cut, or whose commas are gone: its cells are read as missing."""
    wrong = rows[~rows["state"].isin([*FINAL_STATES, "running"])]
    if len(wrong):
        trial, state = str(wrong["trial_id"].iloc[0])[:80], wrong["state"].iloc[0]
        raise UserError(f"{path}: damaged (trial {trial!r} has the state {state!r}); restore it from a copy")


def _check_accuracies(path: Path, rows: pd.DataFrame, *columns: str) -> None:
    """Refuse what a slip of a hand leaves; analysis takes an accuracy for a share of images."""
    for column in columns:
        values = pd.to_numeric(rows.reindex(columns=[column])[column], errors="coerce")
        wrong = rows.index[(values < 0) | (values > 100 + 1e-6)]
        if len(wrong):
            raise UserError(f"{path}: {column} {values[wrong[0]]:g} of trial {rows['trial_id'][wrong[0]]!r} is not "
                            "between 0 and 100 %; correct it")


def read_meta(folder: Path) -> dict[str, Any]:
    path = folder / STUDY
    if not path.is_file():
        raise UserError(
            f"{folder}: no study here ({STUDY} is missing); give the folder that a study wrote, results/NAME"
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        schema = int(meta["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it or start a study under another --name") from error
    if schema != SCHEMA:
        raise UserError(f"{path}: schema version {schema}, but this version of the harness reads {SCHEMA}")
    return dict(meta)


def read_frame(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; text columns keep empty cells as `""`. A missing file is an empty table with `columns`."""
    columns = list(columns)
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(columns))
    text = {"trial_id": str, "state": str, "reason": str, "baseline": str, "phase": str}
    try:
        frame = pd.read_csv(path, dtype=text, **_to_the_last_bit())
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); restore it from a copy") from error
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; restore the file from a copy")
    for column in text:
        if column in frame.columns:
            frame[column] = frame[column].fillna("")
    return frame


def _to_the_last_bit() -> dict[str, Any]:
    """What has pandas read numbers exactly: a cut-off trial goes on only if its configuration is the very one it had.

    From 3.1 on it always does so, and deprecates being told.
    """
    major, minor = map(int, pd.__version__.split(".")[:2])
    return {} if (major, minor) >= (3, 1) else {"float_precision": "round_trip"}


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole at every instant."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    write_text(path, frame.to_csv(index=False))


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], order: Sequence[str], always: Sequence[str] | None = None
) -> None:
    """Write a table of rows that need not have the same columns; those of `order` first, the others as they come.

    Args:
        always: columns of `order` that are there even if no row has them; all of them unless given.
    """
    there = dict.fromkeys(key for row in rows for key in row)  # a dict keeps their order
    columns = [c for c in order if c in there or c in (order if always is None else always)]
    text = io.StringIO()
    # Not pandas: a study of thousands of trials writes this at every end of one, and this is ten times faster.
    writer = csv.DictWriter(text, [*columns, *(c for c in there if c not in order)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    write_text(folder / STUDY, json.dumps({"schema": SCHEMA, **meta}, indent=2, ensure_ascii=False) + "\n")


@dataclass
class Ledger:
    """The rows of `trials.csv` and `history.csv` while a study runs; what is in them is what has happened.

    A trial's row is written when the trial starts (`running`) and when it ends, so a study that was cut off knows
    which configurations it still owes. History is written now and then, and by `flush`: a long table takes long to
    write. Until then the trials' checkpoints have it.

    Attributes:
        unwritten: trials with epochs that `history.csv` lacks.
        full: whether a table could not be written since its disk is full. The study goes on to a good place to stop,
            and `flush` then says so.
    """

    folder: Path
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unwritten: set[str] = field(default_factory=set)
    full: bool = False
    _next_history_write: float = 0.0

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """What a study has so far.

        Raises:
            UserError: its tables are damaged, or the trials are gone that others tell of.
        """
        left = [name for name in (HISTORY, CONFIRMED) if (folder / name).exists()]
        if left and not (folder / TRIALS).exists():
            raise lost(folder / TRIALS, left[0])
        trials = read_frame(folder / TRIALS, TRIAL_COLUMNS)
        _check_states(folder / TRIALS, trials)
        history = read_frame(folder / HISTORY, HISTORY_COLUMNS)
        rows: list[dict[str, Any]] = [_without_nan(row) for row in trials.to_dict("records")]
        ledger = cls(folder, {row["trial_id"]: row for row in rows})
        for row in history.to_dict("records"):
            # Rows of an unfinished trial are dropped: the trial starts again and reports them anew.
            if ledger.trials.get(row["trial_id"], {}).get("state") in FINAL_STATES:
                ledger.history.setdefault(row["trial_id"], []).append(_without_nan(row))
        return ledger

    def of_state(self, *states: str, baseline: bool = False) -> list[dict[str, Any]]:
        return [r for r in self.trials.values() if r["state"] in states and bool(r["baseline"]) == baseline]

    def count(self, state: str) -> int:
        """Trials in this state, baselines not counted."""
        return len(self.of_state(state))

    def start(self, trial_id: str, hyperparameters: Mapping[str, Any], baseline: str = "") -> None:
        self.history.pop(trial_id, None)
        self.trials[trial_id] = {
            "trial_id": trial_id,
            "state": "running",
            "reason": "",
            "baseline": baseline,
            **hyperparameters,
        }
        self._if_there_is_room(self._write_trials)

    def epoch(self, trial_id: str, row: Mapping[str, Any]) -> None:
        rows = self.history.setdefault(trial_id, [])
        if rows and rows[-1]["epoch"] >= row["epoch"]:  # the trial was retried: its epochs are told again
            rows[:] = [r for r in rows if r["epoch"] < row["epoch"]]
        rows.append({"trial_id": trial_id, **row})
        self.unwritten.add(trial_id)
        if time.monotonic() >= self._next_history_write:
            self._if_there_is_room(self._write_history)

    def finish(
        self, trial_id: str, state: str, reason: str = "", metrics: Mapping[str, Any] | None = None, seconds: float = 0
    ) -> None:
        assert state in FINAL_STATES, state
        row = self.trials[trial_id]
        row.update(state=state, reason=" ".join(reason.split()), seconds=round(seconds, 3), **(metrics or {}))
        row["epochs"] = len(self.history.get(trial_id, []))
        self._if_there_is_room(self._write_trials)

    def flush(self) -> None:
        """Write all there is.

        Raises:
            OSError: the disk is full.
        """
        self._write_history()
        if self.trials:
            self._write_trials()

    def _if_there_is_room(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not no_space(error):
                raise
            self.full = True

    def _write_history(self) -> None:
        start = time.monotonic()
        rows = [row for rows in self.history.values() for row in rows]
        write_rows(self.folder / HISTORY, rows, HISTORY_COLUMNS)
        self.unwritten.clear()
        # Spend at most a twentieth of the time on it.
        self._next_history_write = time.monotonic() + max(1.0, 20 * (time.monotonic() - start))

    def _write_trials(self) -> None:
        first = [c for c in TRIAL_COLUMNS if c not in SPENT]
        write_rows(
            self.folder / TRIALS,
            list(self.trials.values()),
            [*first, *(c for c in COLUMNS if c not in (*first, *SPENT)), *SPENT],
            always=TRIAL_COLUMNS,
        )


def _without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
