"""How long a study took and what it cost, as a sentence or two and a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.formatting import counted, format_duration
from analysis.stats.cost import cost, retrained
from analysis.stats.progress import schedule
from analysis.stats.summary import Summary
from analysis.text.tables import Row, Table
from study.records import timestamps
from study.records.columns import TIME_COLUMNS

HEADING = "Duration and cost"


def cost_table(s: Summary) -> tuple[Table, list[str]]:
    """The table of `cost` with a row of sums, and sentences above it; both are empty before a trial has ended."""
    rows = cost(s)
    if rows.empty or not rows["seconds"].sum():
        return Table([], []), []
    headings = ["trainings", "time of the trainings"]
    hours = [name for name in ("cpu_hours", "gpu_hours") if rows[name].notna().any() and rows[name].sum() > 0]
    headings += [{"cpu_hours": "CPU hours", "gpu_hours": "GPU hours"}[name] for name in hours]
    lines = [
        Row(str(row["kind"]), "", [f"{row['trainings']:,}", format_duration(row["seconds"]), *_hours(row, hours)])
        for row in rows.to_dict("records")
    ]
    if len(rows) > 1:
        sums = rows[["seconds", *hours]].sum()
        cells = [f"{rows['trainings'].sum():,}", format_duration(sums["seconds"]), *_hours(dict(sums), hours)]
        lines.append(Row("all together", "", cells))
    return Table(headings, lines), [*_duration(s), *_how_counted(s, hours)]


def _hours(row: dict, names: list[str]) -> list[str]:
    return [f"{row[name]:,.3g}" if np.isfinite(row[name]) else "–" for name in names]


def _duration(s: Summary) -> list[str]:
    """From the first start to the last end, those of fresh seeds included."""
    own = schedule(s.trials)
    cells = pd.concat([table.reindex(columns=list(TIME_COLUMNS)) for table in (s.trials, retrained(s))])
    starts, ends = ([i for cell in cells[name] if (i := timestamps.parse(cell))] for name in TIME_COLUMNS)
    if not starts or not ends:
        return []
    span = (max(ends) - min(starts)).total_seconds()
    sentence = f"From the first start to the last end the study took {format_duration(span)}"
    sentence += f" ({timestamps.as_text(min(starts))[:16].replace('T', ' ')} UTC)"
    if own.breaks:
        stood = format_duration(3600 * sum(own.breaks.values()))
        sentence += f", {counted(len(own.breaks), 'break')} of {stood} in all included"
    return [f"{sentence}."]


def _how_counted(s: Summary, hours: list[str]) -> list[str]:
    if not hours:
        return ["Trials that one process trains together share its time, so their hours are not added up."]
    cached = int(((s.trials["baseline"] != "") & (s.trials["started"] == "") & (s.trials["seconds"] > 0)).sum())
    sentence = "CPU hours are a training’s time times its threads."
    if cached and (s.trials["started"] != "").any():
        sentence += f" {counted(cached, 'baseline')} came from the cache: the time is that of the training then."
    return [sentence]
