"""The tables of a study folder: how they are written, and read strictly. Their columns are in `columns`.

A table that was cut, or edited by a slip of a hand, is refused with the file's name and the first thing that is wrong:
every line has as many cells as the head, numbers are numbers, ids and names can be part of a path.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.errors import UserError, printable
from study.records import timestamps
from study.records.atomic_files import write_bytes
from study.records.columns import COLUMNS, EPOCHS_REPORTED, TEXT_COLUMNS, TIME_COLUMNS, Row
from study.records.json_file import read_json
from study.records.paths import STUDY, TRIAL_ID, name_problem
from study.records.schema import RENAMED, SCHEMA
from study.records.trial_log import table_bytes

MISSING = ["", "nan", "NaN"]
"""Cells that have no value. Other words that pandas takes for missing, such as "None", may be values of a choice."""

COUNTS = ("epoch", "epochs", EPOCHS_REPORTED, "threads", "seed")
"""Columns of whole numbers, 0 or more."""

MOST = 2**53


class _Damage(Exception):
    """What is wrong with a table, for the user's eyes."""


def read_frame(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table, `trials.csv` with the rows of its log; text columns keep empty cells as `""`. A missing file is an
    empty table with `columns`.

    Raises:
        UserError: a file that cannot be read, or is damaged.
    """
    columns = list(columns)
    try:
        try:
            content = table_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return pd.DataFrame(columns=pd.Index(columns))
        frame = _parse(content)
        older = older_names(path.parent, frame.columns)
        frame = frame.rename(columns={old: new for old, new in older.items() if new not in frame.columns})
        missing = [c for c in columns if c not in frame.columns]
        if missing:
            raise _Damage(f"column {missing[0]!r} is missing")
        _check_text(frame)
        _check_numbers(frame)
    except (_Damage, ValueError, csv.Error, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: damaged ({reason}); restore it from a copy") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it from a copy") from error
    except MemoryError as error:
        raise UserError(f"{path}: is too large for the memory of this machine") from error
    return frame


def _parse(content: bytes) -> pd.DataFrame:
    text = content.decode("utf-8-sig")  # some editors begin a file with a mark
    if "\0" in text:
        raise _Damage("it has bytes that are no text")
    if not text.strip():
        raise _Damage("it is empty")
    _check_lines(text)
    frame = pd.read_csv(
        io.StringIO(text),
        dtype=dict.fromkeys(TEXT_COLUMNS, str),
        keep_default_na=False,
        na_values=MISSING,
        low_memory=False,
        **_to_the_last_bit(),
    )
    for column in TEXT_COLUMNS:
        if column in frame.columns:
            frame[column] = frame[column].fillna("")
    return frame


def _check_lines(text: str) -> None:
    """Refuse a table whose end is cut off, or whose lines differ in their number of cells.

    Raises:
        _Damage: with the line.
    """
    if not text.endswith("\n"):
        raise _Damage("its last line is cut: a table ends with a line end")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    head = next(rows)
    for name in head:
        if not name or not name.isprintable() or head.count(name) > 1:
            raise _Damage(f"its head has {name[:80]!r} {'twice' if head.count(name) > 1 else 'as a column'}")
    lines = text.split("\n")[:-1]
    if '"' not in text and text.count(",") == (len(head) - 1) * len(lines):  # a long table is counted at once
        if all(line.count(",") == len(head) - 1 for line in lines):
            return
    for row in rows:
        if row and len(row) != len(head):
            raise _Damage(f"line {rows.line_num} has {len(row)} cells, and the head {len(head)}")


def _check_text(frame: pd.DataFrame) -> None:
    """Refuse ids, names and phases that this harness gives to nothing: files are called by them.

    Raises:
        _Damage: with the first.
    """
    for column in ("trial_id", "baseline", "phase"):
        for name in frame[column].unique() if column in frame.columns else ():
            if problem := name_problem(name) if name or column == "trial_id" else "":
                raise _Damage(f"{column} {name[:80]!r}: {problem}")
    if {"trial_id", "baseline", "state"} <= set(frame.columns):
        for trial_id in frame["trial_id"][frame["baseline"] == ""]:
            if not TRIAL_ID.fullmatch(trial_id):
                raise _Damage(f"trial_id {trial_id!r}: a searched trial has an id such as t001")
    for column in (c for c in TIME_COLUMNS if c in frame.columns):
        for cell in frame[column].unique():
            try:
                timestamps.parse(cell)
            except ValueError:
                raise _Damage(f"{column} {cell[:80]!r} is no time such as 2026-03-01T09:30:00.125Z") from None
    if "reason" in frame.columns:  # an error's own words may have colours of a terminal
        frame["reason"] = frame["reason"].map(printable)


def _check_numbers(frame: pd.DataFrame) -> None:
    """Refuse a cell of a declared column that is no number, or none that the column can have.

    Raises:
        _Damage: with the first, and whose it is.
    """
    for name in frame.columns:
        if name in COLUMNS and name not in TEXT_COLUMNS and not COLUMNS[name].words:
            cells = frame[name]
            words = pd.api.types.is_bool_dtype(cells)
            values = pd.Series(np.nan, cells.index) if words else pd.to_numeric(cells, errors="coerce").astype(float)
            wrong = cells.notna() & values.isna() | ~_possible(name, values)
            if wrong.any():
                whose = f" of trial {frame['trial_id'][wrong].iloc[0]!r}" if "trial_id" in frame.columns else ""
                raise _Damage(f"{name} {str(cells[wrong].iloc[0])[:80]!r}{whose} is not {_meant(name)}")
    for name in ("epoch", "seed"):
        if name in frame.columns and frame[name].isna().any():
            raise _Damage(f"a row has no {name}")


def _possible(name: str, values: pd.Series) -> pd.Series:
    """Which numbers a column can have; a missing one is no number, and possible."""
    if name in COUNTS:
        return values.isna() | (values >= 0) & (values <= MOST) & (values % 1 == 0)
    if name == "seconds":
        return values.isna() | (values >= 0) & (values <= MOST)
    if COLUMNS[name].unit == "%":
        return values.isna() | (values >= 0) & (values <= 100 + 1e-6)
    return values.isna() | (values >= 0 if COLUMNS[name].scale == "log" else True)


def _meant(name: str) -> str:
    if name in COUNTS:
        return "a whole number, 0 or more"
    if COLUMNS[name].unit == "%":
        return "between 0 and 100 %"
    return "a number, 0 or more" if name == "seconds" or COLUMNS[name].scale == "log" else "a number"


def older_names(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Those of these names in a study folder that are older ones → the name since: as `RENAMED` has them, but not what
    a study of the newest schema itself calls so."""
    renamed = {name: RENAMED[name] for name in names if name in RENAMED}
    if not renamed:
        return {}
    recorded = recorded_study(folder)
    own = {*recorded.get("space", ()), *recorded.get("objectives", ())} if recorded.get("schema") == SCHEMA else set()
    return {old: new for old, new in renamed.items() if old not in own}


def recorded_study(folder: Path) -> dict[str, Any]:
    """The `study.json` to which the tables in a folder belong, as it is written; {} without one that can be read."""
    for parent in (folder, folder.parent):  # the ledger of fresh seeds lies in a folder of the study's
        try:
            return read_json(parent / STUDY)
        except UserError:
            continue
    return {}


def _to_the_last_bit() -> dict[str, Any]:
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
    there: Row = {}
    for row in rows:
        there.update(row)  # a dict keeps the order of its keys
    columns = [c for c in order if c in there or c in (order if always is None else always)]
    columns += [c for c in there if c not in order]
    text = io.StringIO()
    # Not pandas, nor csv.DictWriter: a study of thousands of trials writes this all the time.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(column, "") for column in columns] for row in rows)
    write_text(path, text.getvalue())
