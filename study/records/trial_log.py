"""`trials.log`: rows of `trials.csv` that have changed since that table was written.

Writing a table takes longer the more rows it has, so a study that runs appends each changed row to this file, and
writes the table now and then. The rows of `trials.csv` are those of the table, with the last row of each trial in the
log in their place. The log is removed once the table has them; both say the same in between. So a study that was killed
at any instant has all its rows, and where nothing runs there usually is no log.

A line is one JSON object: column → the text of its cell.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

from study.errors import UserError
from study.records.columns import Row
from study.records.paths import TRIAL_LOG, TRIALS

Cells = dict[str, str]
"""Column → the text of its cell in a table."""

ATTEMPTS = 100
"""How often a reader looks again that a writer overtakes; one attempt takes milliseconds, and a writer writes a table
at most once a second."""


def append_row(folder: Path, row: Row) -> None:
    """Add a row to the log: when this returns it is on the disk, when this raises the log is as it was.

    Raises:
        OSError: the disk is full, or the folder is gone.
    """
    cells = {name: "" if value is None else str(value) for name, value in row.items()}
    line = (json.dumps(cells, separators=(",", ":")) + "\n").encode()
    descriptor = os.open(folder / TRIAL_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            while written < len(line):  # the disk is nearly full: the rest fits, or raises
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)  # what names the trial must not reach the disk before its row
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def remove_log(folder: Path) -> None:
    """Remove the log, whose rows the table has."""
    (folder / TRIAL_LOG).unlink(missing_ok=True)


def table_bytes(path: Path) -> bytes:
    """A table as it is now; `trials.csv` with the rows of its log.

    Raises:
        OSError: it is missing, or cannot be read.
        UserError: its log is damaged, or there without the table.
    """
    log = path.with_name(TRIAL_LOG)
    if path.name != TRIALS:
        return path.read_bytes()
    for _ in range(ATTEMPTS):
        before = _stamp(path)
        changed_rows = _content_of(log)
        try:
            with path.open("rb") as file:
                after, table = _stamp(file.fileno()), file.read()
        except (FileNotFoundError, NotADirectoryError):
            if changed_rows is None:
                raise
            raise UserError(f"{path}: missing, though {TRIAL_LOG} is there; restore it from a copy") from None
        # The log is removed only after the table was replaced: beside the same table it is that table's log.
        if before == after:
            return table if changed_rows is None else merged(table, parse_log(log, changed_rows))
    raise UserError(f"{path}: changes faster than it can be read; try again")


def parse_log(path: Path, content: bytes) -> dict[str, Cells]:
    """Trial id → its last row in the content of a log. A last line without its end was being written as the writer
    died, or still is; whatever waits for it has not happened.

    Raises:
        UserError: a line is damaged.
    """
    rows: dict[str, Cells] = {}
    *lines, _ = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            cells = json.loads(line)
            if not isinstance(cells, dict) or not all(isinstance(cell, str) for cell in cells.values()):
                raise ValueError("no object of texts")
            rows[cells["trial_id"]] = cells
        except (ValueError, KeyError, RecursionError) as error:
            raise UserError(f"{path}: damaged (line {number} is no row of a trial); restore it from a copy") from error
    return rows


def merged(table: bytes, changed_rows: Mapping[str, Cells]) -> bytes:
    """A table in which changed rows replace those of the same trials; new ones follow. A damaged table comes back as it
    is, since its reader says what is wrong with it.

    Raises:
        ValueError: the table is no text.
    """
    text = table.decode("utf-8-sig")
    try:
        head, *lines = [cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if cells]
        place = head.index("trial_id")
    except (ValueError, csv.Error):
        return table
    if not text.endswith("\n") or any(len(cells) != len(head) for cells in lines):
        return table
    rows = [dict(zip(head, cells, strict=True)) for cells in lines]
    there = {cells[place] for cells in lines}
    rows = [changed_rows.get(row["trial_id"], row) for row in rows]
    rows += [row for trial_id, row in changed_rows.items() if trial_id not in there]
    columns = dict.fromkeys([*head, *(name for row in changed_rows.values() for name in row)])
    output = io.StringIO()
    writer = csv.DictWriter(output, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue().encode()


def _content_of(log: Path) -> bytes | None:
    """None where there is none."""
    try:
        return log.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stamp(file: Path | int) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None where there is none.

    Args:
        file: its path, or the number of an open one.
    """
    try:
        facts = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
