"""How a search went: what it had reached after each trial and each hour, and when its trials ran."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import objective_axis, objective_column, positions
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.figures.trial_marks import MOST_MARKS, thin_out
from analysis.formatting import counted, format_cell, format_duration, join_words, unit_of_time
from analysis.stats.names import ACCURACY
from analysis.stats.outlook import gain_of_doubling
from analysis.stats.progress import Schedule, progress, reference_point, schedule
from analysis.stats.summary import Summary

FEWEST = 3
"""Trials that may answer, below which there is no course to draw."""
BAR = 11
"""Height in pixels of a trial in the timeline; lanes are as far apart as `LANE`."""
LANE = 18
HEADING = "How the search went"


def progress_groups(s: Summary) -> list[FigureGroup]:
    """What was reached by trial and by hour, and the timeline; none of a study with fewer than three answers."""
    rows, times = progress(s), schedule(s.trials)
    figures = []
    if len(s.feasible) >= FEWEST:
        figures = [_progress_figure(s, rows, times, "number")]
        if rows["hours"].notna().all() and times.hours > 0:
            figures.append(_progress_figure(s, rows, times, "hours"))
    if len(times.rows) >= FEWEST and times.hours > 0:
        figures.append(_timeline_figure(s, times))
    return [FigureGroup(HEADING, figures)] if figures else []


def draw_progress(s: Summary, rows: pd.DataFrame, times: Schedule, by: str) -> go.Figure:
    """The figure of `progress`: a staircase of what was reached, with a mark where a trial raised it.

    Args:
        by: "number" or "hours", what is across.
    """
    drawing, (values, texts, axis) = figure(height=340), _shown_values(s, rows)
    known = rows["value"].notna().to_numpy()
    steps = rows["improved"].to_numpy() | (np.arange(len(rows)) == len(rows) - 1)
    unit, per_hour = _unit(times)
    x = (rows["hours"] * per_hour).round(4) if by == "hours" else rows[by]
    drawing.add_scatter(
        x=x[known & steps].tolist(),
        y=values[known & steps].tolist(),
        mode="lines",
        line={"color": BLUE, "width": 2.2, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    better = rows["improved"].to_numpy()
    drawing.add_scatter(
        x=x[better].tolist(),
        y=values[better].tolist(),
        mode="markers",
        marker={"size": 8, "color": BLUE},
        customdata=rows.loc[better, "trial_id"].tolist(),
        text=[text for text, is_better in zip(texts, better, strict=True) if is_better],
        hovertemplate="<b>%{customdata}</b> %{text}<extra></extra>",
        showlegend=False,
    )
    _draw_reference(drawing, s)
    drawing.update_xaxes(title={"text": unit if by == "hours" else "trials that ended"}, rangemode="tozero")
    drawing.update_yaxes(axis)
    if by == "hours":
        _draw_breaks(drawing, times)
    return drawing


def _shown_values(s: Summary, rows: pd.DataFrame) -> tuple[pd.Series, list[str], dict[str, Any]]:
    """Where the values stand, what the pointer says of each, and their axis."""
    values = rows["value"]
    if len(s.study.objectives) > 1:
        final = values.iloc[-1]
        shares = (100 * values / final if final > 0 else values * np.nan).round(3)
        title = "hypervolume (% of that at the end)"
        return shares, [f"{share:.1f} %" for share in shares], {"title": {"text": title}, "rangemode": "tozero"}
    column = objective_column(s.study, next(iter(s.study.objectives)))
    texts = [f"{format_cell(column, value)} {column.unit}".rstrip() for value in values]
    places = pd.Series(positions(column, values), values.index)
    return places, texts, objective_axis(column, values.dropna())


def _draw_reference(drawing: go.Figure, s: Summary) -> None:
    """The reference baseline as a level line, in a study of accuracy alone."""
    if list(s.study.objectives) == [ACCURACY] and s.reference is not None:
        drawing.add_hline(
            y=float(s.reference[ACCURACY]),
            line={"color": GREEN, "width": 1.6},
            annotation={"text": escape(str(s.reference["baseline"])), "font": {"size": 11}},
            annotation_position="bottom right",
        )


def _unit(times: Schedule) -> tuple[str, float]:
    """The unit of an axis of time, and how many of it an hour has; a study of days has hours."""
    unit, length = unit_of_time(min(3600 * times.hours, 86_400.0))
    return unit, 3600 / length


def _draw_breaks(drawing: go.Figure, times: Schedule) -> None:
    for at in times.breaks:
        drawing.add_vline(x=at * _unit(times)[1], line={"color": GREY, "width": 1, "dash": "dot"})


def _outlook(s: Summary) -> str:
    """What more trials would probably bring, by how the value rose so far."""
    gain = gain_of_doubling(s)
    if gain is None:
        return ""
    if len(s.study.objectives) > 1:
        amount = f"{100 * gain:.1f} % of hypervolume"
    else:
        column = objective_column(s.study, next(iter(s.study.objectives)))
        amount = f"{gain:.{column.digits}f} {'points' if column.unit == '%' else column.unit}".rstrip()
    return f" By how it rose so far, as many trials again would probably add {amount}."


def _breaks_note(times: Schedule) -> str:
    if not times.breaks:
        return ""
    number, seconds = len(times.breaks), 3600 * sum(times.breaks.values())
    lines = "line" if number == 1 else "lines"
    return f" At the dotted {lines} nothing ran for {format_duration(seconds)}, which is left out."


def _progress_figure(s: Summary, rows: pd.DataFrame, times: Schedule, by: str) -> ReportFigure:
    several = len(s.study.objectives) > 1
    column = objective_column(s.study, next(iter(s.study.objectives)))
    what = "Hypervolume" if several else f"Best {column.label} so far"
    caption = f"Marks are trials that improved {'the front' if several else 'it'}."
    if several:
        caption += f" {_reference_words(s)}"
    caption += _last_improvement(rows, times) if by == "hours" else f" {_share_words(rows, several)}{_outlook(s)}"
    return ReportFigure(
        f"progress-{by}",
        draw_progress(s, rows, times, by),
        f"{what} {'over time' if by == 'hours' else 'by trial'}.",
        caption.strip() + (_breaks_note(times) if by == "hours" else ""),
        f"Staircase of {what[0].lower()}{what[1:]} over {'time' if by == 'hours' else 'trials'}: "
        f"{counted(int(rows['improved'].sum()), 'trial')} of {len(rows)} improved it.",
    )


def _reference_words(s: Summary) -> str:
    parts = []
    for name, value in reference_point(s).items():
        column = s.column(name)
        parts.append(f"{column.label} {format_cell(column, value)} {column.unit}".rstrip())
    scaled = [s.column(name) for name in s.study.objectives if s.column(name).scale != "linear"]
    logs = join_words([c.label for c in scaled if c.scale == "log"]) if any(c.scale == "log" for c in scaled) else ""
    rest = join_words([c.label for c in scaled if c.scale == "complement"]) if len(scaled) > (bool(logs)) else ""
    words = f"It is measured from {join_words(parts)}"
    words += f", with {logs} on a logarithmic scale" if logs else ""
    words += f", with the distance of {rest} from 100 % on a logarithmic scale" if rest else ""
    return f"{words}."


def _share_words(rows: pd.DataFrame, several: bool) -> str:
    """After how many trials 95 and 99 % were reached; of one objective, after how many the best came."""
    final = rows["value"].iloc[-1]
    if not several or not final > 0:
        last = rows[rows["improved"]].iloc[-1]
        return f"The best trial, {last['trial_id']}, was number {int(last['number'])} of {len(rows)}."
    at = [int(rows.loc[rows["value"] >= share * final, "number"].iloc[0]) for share in (0.95, 0.99)]
    return f"95 % were reached after {counted(at[0], 'trial')}, 99 % after {at[1]:,} of {len(rows):,}."


def _last_improvement(rows: pd.DataFrame, times: Schedule) -> str:
    last = rows[rows["improved"]].iloc[-1]
    return f" The last improvement came after {format_duration(3600 * last['hours'])} of {_length(times)}."


def _length(times: Schedule) -> str:
    return format_duration(3600 * times.hours)


def timeline_rows(s: Summary, times: Schedule) -> pd.DataFrame:
    """Rows of the schedule that the timeline draws, with the `kind` of each; see `MOST_MARKS`."""
    front = times.rows["trial_id"].isin(s.front["trial_id"])
    kinds = times.rows["state"].where(times.rows["baseline"] == "", "baseline").where(~front, "on the front")
    return thin_out(times.rows.assign(kind=kinds))


def draw_timeline(s: Summary, times: Schedule) -> go.Figure:
    """Each trial as a bar from its start to its end; bars at the same time lie in different lanes."""
    rows = timeline_rows(s, times)
    lanes, (unit, per_hour) = int(times.rows["lane"].max()) + 1, _unit(times)
    drawing = figure(height=int(np.clip(110 + LANE * lanes, 180, 700)))
    looks = {
        "complete": (BLUE, 0.7), "on the front": (VERMILLION, 1.0), "pruned": (GREY, 0.7), "failed": (PURPLE, 1.0),
        "baseline": (GREEN, 0.9), "running": (ORANGE, 0.9),
    }  # fmt: skip
    for kind, (colour, opacity) in looks.items():
        own = rows[rows["kind"] == kind]
        if own.empty:
            continue
        ends = own[["start", "end"]].to_numpy() * per_hour
        x = np.column_stack([ends[:, 0], ends.mean(axis=1), ends[:, 1], np.full(len(own), np.nan)]).round(5)
        drawing.add_scatter(
            x=[None if np.isnan(value) else float(value) for value in x.ravel()],
            y=np.repeat(own["lane"].to_numpy() + 1, 4).tolist(),
            mode="lines",
            name=kind,
            line={"color": colour, "width": BAR if lanes < 32 else 5},
            opacity=opacity,
            customdata=np.repeat(own["trial_id"].to_numpy(), 4).tolist(),
            hovertemplate="<b>%{customdata}</b> at %{x:.3~f} " + unit + "<extra>%{fullData.name}</extra>",
        )
    _draw_breaks(drawing, times)
    drawing.update_xaxes(title={"text": unit}, rangemode="tozero")
    drawing.update_yaxes(
        title={"text": "trials at the same time"}, range=[0.4, lanes + 0.6], dtick=max(1, lanes // 8), showgrid=False
    )
    return drawing


def _timeline_figure(s: Summary, times: Schedule) -> ReportFigure:
    lanes, rows = int(times.rows["lane"].max()) + 1, times.rows
    busy = float((rows["end"] - rows["start"]).sum()) / (lanes * times.hours)
    missing = int(s.trials["state"].isin(("complete", "pruned", "failed")).sum()) - len(rows)
    caption = (
        f"Each bar is a trial from its start to its end; those in one column ran at the same time, at most {lanes}. "
        f"{busy:.0%} of that room was in use over {_length(times)}."
    )
    if missing > 0:
        caption += f" {counted(missing, 'trial')} without a recorded time {'is' if missing == 1 else 'are'} not drawn."
    if len(rows) > MOST_MARKS:
        caption += f" {MOST_MARKS:,} of {len(rows):,} trials are drawn, chosen at random."
    return ReportFigure(
        "timeline",
        draw_timeline(s, times),
        "Timeline.",
        caption + _breaks_note(times),
        f"Gantt chart of {counted(len(rows), 'trial')} over {_length(times)}, at most {lanes} at a time.",
    )
