"""Numbers as people read them, and the page's tables as plain rows of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import EXTRA, format_cell
from study.records.columns import COST_COLUMNS, Column
from study.records.columns import column as declared

Columns = Callable[[str], Column]
"""What is declared of a column, by its name: `Summary.column`, or that of the harness alone."""


@dataclass(frozen=True)
class Row:
    """One line: its name, the page's style for it, and cells in the order of the headings. `trial_id` is "" where the
    line is no trial."""

    name: str
    kind: str
    cells: list[str]
    trial_id: str = ""


MOST_COLUMNS = 7
"""Of a table that a page shows before its reader asks for all, the one with the names of the lines included."""


@dataclass(frozen=True)
class Table:
    """Lines under common headings; all plain text.

    Attributes:
        hidden: places, among all columns with that of the names at 0, of those that the page shows on demand only.
    """

    headings: list[str]
    rows: list[Row]
    hidden: list[int] = field(default_factory=list)


def columns_with_values(frame: pd.DataFrame, columns: list[str]) -> list[str]:
    """Those of the columns that a table has, with a value in a row at least."""
    return [c for c in columns if c in frame and frame[c].notna().any()]


def table(
    groups: list[tuple[str, pd.DataFrame]],
    columns: list[str],
    headings: Mapping[str, str] | None = None,
    column: Columns = declared,
    first: Sequence[str] = (),
) -> Table:
    """Rows of several frames under common columns; a column without any value is dropped.

    Args:
        groups: (kind, frame); a row is named by its baseline, or else by its trial.
        columns: in the order shown.
        headings: for columns whose heading is not the one that was declared.
        column: what is declared of them.
        first: columns that are shown rather than others where there are more than `MOST_COLUMNS`, the first of all
            first.
    """
    everything = pd.concat([frame for _, frame in groups]) if groups else pd.DataFrame()
    shown = columns_with_values(everything, columns)
    facts = {c: EXTRA.get(c) or column(c) for c in shown}
    rows = [
        Row(
            record["baseline"] or record["trial_id"],
            kind,
            [format_cell(c if c in EXTRA else facts[c], record.get(c)) for c in shown],
            record["trial_id"],
        )
        for kind, frame in groups
        for record in frame.to_dict("records")
    ]
    names = [(headings or {}).get(c) or facts[c].heading for c in shown]
    return Table(names, rows, hidden_columns(["", *shown], first))


def hidden_columns(columns: Sequence[str], first: Sequence[str]) -> list[int]:
    """Places of the columns beyond `MOST_COLUMNS`, in their order: those of `first` stay, then others as they come. The
    one at 0 always stays, since it names the line."""
    ranked = dict.fromkeys([*columns[:1], *(c for c in first if c in columns), *columns])
    kept = list(ranked)[:MOST_COLUMNS]
    return [i for i, c in enumerate(columns) if c not in kept]


def trial_records(
    trials: pd.DataFrame,
    hyperparameters: list[str],
    headings: Mapping[str, str] | None = None,
    column: Columns = declared,
    objectives: Sequence[str] = (),
) -> dict[str, Any]:
    """The table of all trials as the page's script takes it: columns with their digits, rows of raw values, and
    `hidden`, see `Table`.

    Args:
        headings, column: see `table`.
        objectives: columns that are shown rather than others, see `hidden_columns`.
    """
    first = ["trial_id", "state", "baseline", *hyperparameters]
    metrics = [c for c in trials.columns if c not in (*first, "reason", *COST_COLUMNS)]
    wanted = [*first, *metrics, "epochs", "seconds", "started", "reason"]
    shown = [c for c in wanted if c in ("trial_id", "state") or _has_values(trials, c)]
    facts = {c: column(c) for c in shown}
    described = [
        {
            "key": c,
            "label": (headings or {}).get(c) or facts[c].heading,
            "short": facts[c].label,
            "digits": facts[c].digits,
            "unit": facts[c].unit,
            "number": bool(pd.api.types.is_numeric_dtype(trials[c])),
        }
        for c in shown
    ]
    cells = trials[shown].astype(object).where(trials[shown].notna(), None)
    finite = [[None if isinstance(v, float) and not np.isfinite(v) else v for v in row] for row in cells.to_numpy()]
    return {
        "columns": described,
        "rows": finite,
        "hidden": hidden_columns(shown, ["state", *objectives, *hyperparameters, "baseline"]),
    }


def _has_values(frame: pd.DataFrame, column: str) -> bool:
    if column not in frame:
        return False
    values = frame[column]
    return bool((values.notna() & (values.astype(str) != "")).any())
