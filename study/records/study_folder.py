"""The study folder `results/NAME/`: how its files are written and read. Their names are in `paths`, columns in
`columns`.

Plain files only, so that analysis needs neither Ray nor torch. Each file is written under another name and
then renamed, so a reader, or a crash at any instant, sees either the old file or the new one, complete.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from study.errors import UserError
from study.records.atomic_files import write_bytes
from study.records.columns import COLUMNS, CONFIRMED_COLUMNS, FINAL_STATES, HISTORY_COLUMNS, TRIAL_COLUMNS, Column, Row
from study.records.columns import column as declared
from study.records.paths import CONFIRMED, HISTORY, STUDY, TRIALS, trace_of
from study.records.schema import READABLE, RENAMED, SCHEMA, Meta, upgrade

MISSING = ["", "nan", "NaN"]
"""Cells that have no value. Other words that pandas takes for missing, such as "None", may be values of a choice."""


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
    meta: Meta
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

    def column(self, name: str) -> Column:
        """What is declared of a column: by this version of the harness, by the study itself, or by nobody."""
        if name in COLUMNS or name not in self.meta["columns"]:
            return declared(name)
        return Column(**self.meta["columns"][name])


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
    check_states(folder / TRIALS, study.trials)
    _check_accuracies(folder / TRIALS, study.trials, "val_accuracy")
    _check_accuracies(folder / CONFIRMED, study.confirmed, "val_accuracy", "test_accuracy")
    return study


def missing_file_error(path: Path, there: str) -> UserError:
    """A study whose file is gone, though another one is there: it would start again over what remains of it."""
    return UserError(f"{path}: missing, though {there} is there; restore it from a copy, or choose another --name")


def check_states(path: Path, rows: pd.DataFrame) -> None:
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
            raise UserError(
                f"{path}: {column} {values[wrong[0]]:g} of trial {rows['trial_id'][wrong[0]]!r} is not "
                "between 0 and 100 %; correct it"
            )


def read_meta(folder: Path) -> Meta:
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
    if schema not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise UserError(f"{path}: schema version {schema}, but this version of the harness reads {readable}; update it")
    return upgrade(dict(meta))


def read_frame(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; text columns keep empty cells as `""`. A missing file is an empty table with `columns`."""
    columns = list(columns)
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(columns))
    text = {"trial_id": str, "state": str, "reason": str, "baseline": str, "phase": str}
    try:
        frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=MISSING, **_to_the_last_bit())
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); restore it from a copy") from error
    older = older_names(path.parent, frame.columns)
    frame = frame.rename(columns={old: new for old, new in older.items() if new not in frame.columns})
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; restore the file from a copy")
    for column in text:
        if column in frame.columns:
            frame[column] = frame[column].fillna("")
    return frame


def older_names(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Those of these names in a study folder that are older ones → the name since: as `RENAMED` has them, but not what
    a study of the newest schema itself calls so."""
    renamed = {name: RENAMED[name] for name in names if name in RENAMED}
    if not renamed:
        return {}
    for parent in (folder, folder.parent):  # the ledger of fresh seeds lies in a folder of the study's
        try:
            meta = json.loads((parent / STUDY).read_text(encoding="utf-8"))
            own = {*meta["space"], *meta["objectives"]} if meta["schema"] == SCHEMA else set()
            return {old: new for old, new in renamed.items() if old not in own}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return renamed


def _to_the_last_bit() -> dict[str, str]:
    """What has pandas read numbers exactly: a cut-off trial goes on only if its configuration is the very one it had.

    From 3.1 on it always does so, and deprecates the option.
    """
    major, minor = map(int, pd.__version__.split(".")[:2])
    return {} if (major, minor) >= (3, 1) else {"float_precision": "round_trip"}


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, complete at every instant."""
    write_bytes(path, text.encode("utf-8"))


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    write_text(path, frame.to_csv(index=False))


def write_rows(path: Path, rows: Sequence[Row], order: Sequence[str], always: Sequence[str] | None = None) -> None:
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


def write_meta(folder: Path, meta: Meta) -> None:
    text = json.dumps({**meta, "schema": SCHEMA}, indent=2, ensure_ascii=False)
    # A path need not be UTF-8. Python has its other bytes as lone surrogates, which JSON holds as \uXXXX alone.
    text = re.sub("[\ud800-\udfff]", lambda byte: f"\\u{ord(byte[0]):04x}", text)
    write_text(folder / STUDY, text + "\n")
