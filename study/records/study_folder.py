"""The study folder `results/NAME/`: how its files are written and read. Their names are in `paths`, columns in
`columns`.

Plain files only, so that analysis needs neither Ray nor torch. Each file is written under another name and
then renamed, so a reader, or a crash at any instant, sees either the old file or the new one, complete.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from study import addresses
from study.errors import UserError
from study.records import object_store
from study.records.columns import (
    COLUMNS,
    CONFIRMED_COLUMNS,
    EPOCHS_REPORTED,
    FINAL_STATES,
    HISTORY_COLUMNS,
    TRIAL_COLUMNS,
    Column,
)
from study.records.columns import column as declared
from study.records.identity import check_none_lost, check_same_values, ids_in_tables
from study.records.json_file import read_json
from study.records.paths import CONFIRMED, HISTORY, STUDY, TRIALS
from study.records.schema import READABLE, SCHEMA, Meta, upgrade
from study.records.search_domains import domain_from_json
from study.records.study_json import problem_before_upgrade, problem_of
from study.records.tables import older_names, read_frame, write_frame, write_rows, write_text
from study.records.trace_file import read_trace

__all__ = ["older_names", "read_frame", "read_trace", "write_frame", "write_rows", "write_text"]

ROWS_SHOWN = 10
"""Rows of a table that a notebook shows of a study."""


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
        known = {field.name for field in fields(Column)}
        return Column(**{fact: value for fact, value in self.meta["columns"][name].items() if fact in known})

    def __repr__(self) -> str:
        return f"<study {self.folder.name}: {self._size()}>"

    def _size(self) -> str:
        """Trials that were searched, by state."""
        states = self.trials["state"][self.trials["baseline"] == ""]
        counts = ", ".join(f"{count} {state}" for state, count in states.value_counts().items())
        return f"{len(states)} trials{f' ({counts})' if counts else ''}, {len(self.confirmed)} test results"

    def _repr_html_(self) -> str:
        """What a notebook shows: what the study is, and its best trials by the first objective."""
        first, direction = next(iter(self.objectives.items()))
        complete = self.trials[self.trials["state"] == "complete"].reindex(
            columns=["trial_id", "baseline", *dict.fromkeys([*self.hyperparameters, *self.objectives])]
        )
        best = complete.sort_values(first, ascending=direction == "min").head(ROWS_SHOWN)
        table = best.to_html(index=False, na_rep="") if len(best) else ""
        goals = ", ".join(f"{name} {way}" for name, way in self.objectives.items())
        facts = f"{self.meta.get('title', '')}; {goals}; {self._size()}"
        return f"<p><b>{html.escape(self.folder.name)}</b>: {html.escape(facts)}</p>{table}"

    def recorded(self, part: str, name: str) -> Any:
        """A fact of `study.json` that not every reader needs, such as "mean" of "data".

        Raises:
            UserError: it is missing.
        """
        value = self.meta.get(part, {}).get(name)
        if value is None:
            raise UserError(f"{self.folder / STUDY}: {part}.{name} is missing; restore it from a copy")
        return value


def load(folder: str | Path) -> Study:
    """Read a study folder, finished or not. Missing tables are read as empty ones.

    Args:
        folder: or the address of a study in a bucket, s3://BUCKET/FOLDER/NAME.

    Raises:
        UserError: no `study.json` there, a schema this version cannot read, a file that is damaged or cannot be read,
            or tables that do not belong together.
    """
    if isinstance(folder, str) and addresses.is_address(folder):
        folder = addresses.reading_copy(folder, folder)
    folder = Path(folder)
    object_store.refresh(folder)
    meta = read_meta(folder)
    # In this order: a study that runs meanwhile writes a trial's row before anything else of the trial.
    confirmed = read_frame(folder / CONFIRMED, CONFIRMED_COLUMNS)
    history = read_frame(folder / HISTORY, HISTORY_COLUMNS)
    trials = read_trials(folder, meta["space"])
    check_rows(folder / HISTORY, history, "trial_id", "epoch")
    check_rows(folder / CONFIRMED, confirmed, "trial_id", "seed")
    check_none_lost(folder, trials["trial_id"], ids_in_tables(history, confirmed, folder))
    check_same_values(folder / CONFIRMED, confirmed, trials, meta["space"])
    return Study(folder=folder, meta=meta, trials=trials, history=history, confirmed=confirmed)


def read_trials(folder: Path, space: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The table of trials, each with one row and in a state that there is.

    Args:
        space: hyperparameter → domain, as `study.json` has it.
    Raises:
        UserError: it is damaged.
    """
    path = folder / TRIALS
    trials = read_frame(path, TRIAL_COLUMNS)
    check_rows(path, trials, "trial_id")
    check_states(path, trials)
    check_values(path, trials, space)
    return trials


def missing_file_error(path: Path, there: str) -> UserError:
    """A study whose file is gone, though another one is there: it would start again over what remains of it."""
    return UserError(f"{path}: missing, though {there} is there; restore it from a copy, or choose another --name")


def check_rows(path: Path, rows: pd.DataFrame, *key: str) -> None:
    """Refuse two rows of one thing."""
    twice = rows[rows[list(key)].duplicated()]
    if len(twice):
        what = "".join(f", {name} {twice[name].iloc[0]:g}" for name in key[1:])
        raise UserError(f"{path}: trial {twice['trial_id'].iloc[0]!r}{what} has two rows; remove one")


def check_states(path: Path, rows: pd.DataFrame) -> None:
    """Refuse a row that is in no state, or done without a count of its epochs."""
    wrong = rows[~rows["state"].isin([*FINAL_STATES, "running"])]
    if len(wrong):
        trial, state = str(wrong["trial_id"].iloc[0])[:80], str(wrong["state"].iloc[0])[:80]
        raise UserError(f"{path}: damaged (trial {trial!r} has the state {state!r}); restore it from a copy")
    counted = rows.reindex(columns=["epochs", EPOCHS_REPORTED]).notna().any(axis=1)
    wrong = rows[~counted & (rows["state"] != "running")]
    if len(wrong):
        trial = str(wrong["trial_id"].iloc[0])
        raise UserError(f"{path}: damaged (trial {trial!r} has ended without epochs); restore it from a copy")


def check_values(path: Path, rows: pd.DataFrame, space: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a searched value that its domain does not have."""
    searched = rows[rows["baseline"] == ""]
    for name, recorded in space.items():
        if name not in searched or not {"low", "values"} & recorded.keys():
            continue
        domain = domain_from_json(recorded)
        cells = searched[name].dropna()
        wrong = cells[[not domain.contains(value) for value in cells]]
        if len(wrong):
            trial = rows["trial_id"][wrong.index[0]]
            raise UserError(
                f"{path}: {name} {str(wrong.iloc[0])[:80]!r} of trial {trial!r} is not what the study searched "
                f"({domain}); restore the table from a copy"
            )


def read_meta(folder: Path) -> Meta:
    """`study.json`, in the newest schema.

    Raises:
        UserError: there is none, or one that is damaged or of a schema that this version cannot read.
    """
    path = folder / STUDY
    try:
        there = path.exists()
    except OSError as error:
        raise UserError(f"{str(folder)[:200]}: no study can be read there ({error.strerror})") from error
    if not there:
        raise UserError(
            f"{folder}: no study here ({STUDY} is missing); give the folder that a study wrote, results/NAME"
        )
    meta = read_json(path)
    schema = meta.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool):
        problem = "schema: must be a whole number"
    elif schema not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise UserError(f"{path}: schema version {schema}, but this version of the harness reads {readable}; update it")
    else:
        problem = problem_before_upgrade(meta)
    if not problem:
        meta = upgrade(meta)
        problem = problem_of(meta)
    if problem:
        raise UserError(f"{path}: damaged ({problem}); restore it from a copy, or start a study under another --name")
    return meta


def write_meta(folder: Path, meta: Meta) -> None:
    text = json.dumps({**meta, "schema": SCHEMA}, indent=2, ensure_ascii=False)
    # A path need not be UTF-8. Python has its other bytes as lone surrogates, which JSON holds as \uXXXX alone.
    text = re.sub("[\ud800-\udfff]", lambda byte: f"\\u{ord(byte[0]):04x}", text)
    write_text(folder / STUDY, text + "\n")
