"""Numbers as people read them, and the page's tables as plain rows of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import EXTRA, format_cell
from study.records.columns import COLUMNS, COST_COLUMNS, Column, label


@dataclass(frozen=True)
class Row:
    """One line. `name` heads it, `kind` says which of the page's styles it wears, `cells` follow the headings."""

    name: str
    kind: str
    cells: list[str]
    trial_id: str = ""


@dataclass(frozen=True)
class Table:
    headings: list[str]
    rows: list[Row]


def columns_with_values(frame: pd.DataFrame, columns: list[str]) -> list[str]:
    return [c for c in columns if c in frame and frame[c].notna().any()]


def table(groups: list[tuple[str, pd.DataFrame]], columns: list[str], headings: dict[str, str] | None = None) -> Table:
    """Rows of several frames under common columns; a column without any value is dropped.

    Args:
        groups: (kind, frame); a row is named by its baseline, or else by its trial.
        columns: in the order shown.
        headings: for columns whose heading is not the one of `study.records.columns.COLUMNS`.
    """
    everything = pd.concat([frame for _, frame in groups]) if groups else pd.DataFrame()
    shown = columns_with_values(everything, columns)
    names = {c: (headings or {}).get(c) or _heading(c) for c in shown}
    rows = [
        Row(
            record["baseline"] or record["trial_id"],
            kind,
            [format_cell(c, record.get(c)) for c in shown],
            record["trial_id"],
        )
        for kind, frame in groups
        for record in frame.to_dict("records")
    ]
    return Table([names[c] for c in shown], rows)


def _heading(column: str) -> str:
    info = EXTRA.get(column)
    return f"{info.label} ({info.unit})" if info and info.unit else info.label if info else label(column)


def trial_records(
    trials: pd.DataFrame, hyperparameters: list[str], headings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The whole trial table as the page's script takes it: columns with their digits, and rows of raw values.

    Args:
        headings: see `table`.
    """
    first = ["trial_id", "state", "baseline", *hyperparameters]
    metrics = [c for c in trials.columns if c not in (*first, "reason", *COST_COLUMNS)]
    wanted = [*first, *metrics, "epochs", "seconds", "reason"]
    shown = [c for c in wanted if c in ("trial_id", "state") or _has_values(trials, c)]
    facts = {c: COLUMNS.get(c, Column(c.replace("_", " "))) for c in shown}
    described = [
        {
            "key": c,
            "label": (headings or {}).get(c) or label(c),
            "short": facts[c].label,
            "digits": facts[c].digits,
            "unit": facts[c].unit,
            "number": bool(pd.api.types.is_numeric_dtype(trials[c])),
        }
        for c in shown
    ]
    cells = trials[shown].astype(object).where(trials[shown].notna(), None)
    finite = [[None if isinstance(v, float) and not np.isfinite(v) else v for v in row] for row in cells.to_numpy()]
    return {"columns": described, "rows": finite}


def _has_values(frame: pd.DataFrame, column: str) -> bool:
    if column not in frame:
        return False
    values = frame[column]
    return bool((values.notna() & (values.astype(str) != "")).any())
