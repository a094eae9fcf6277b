"""How trials, baselines and the headline trial are drawn, in every figure that has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.hyperparameters import hyperparameter_colours, value_text
from analysis.figures.theme import BASELINE_COLOURS, BLUE, GREY, VERMILLION, axis_title, escape
from analysis.formatting import format_points
from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary
from study.records.columns import COLUMNS

RELATIVE_UNITS = ("×", "points")
"""Units of metrics that compare a trial with the network it started from; hover texts have them."""

MOST_MARKS = 1000
"""Beyond this many trials a figure shows an even sample, with every member of the front, and half as many of those that
are not complete. The figures in sight then follow a moved filter in about a third of a second."""


def draw_trials(
    figure: go.Figure, s: Summary, rows: pd.DataFrame, x: list[Any], y: list[float], name: str, colour: str = ""
) -> None:
    """Add one mark a trial.

    Args:
        x, y: where the trials of `rows` stand.
        name: in the legend; "" for no entry.
        colour: a hyperparameter that colours them; "" for one colour.
    """
    if len(rows) > MOST_MARKS:
        rows = rows.assign(_x=x, _y=y).pipe(thin_out)
        x, y = rows["_x"].tolist(), rows["_y"].tolist()
    marker: dict[str, Any] = {"size": 8, "color": BLUE, "opacity": 0.85}
    if colour and len(rows):
        colours = hyperparameter_colours(s.study, colour, rows[colour])
        marker = {"size": 11, "opacity": 0.95, "line": {"color": GREY, "width": 0.6}, **colours}
    figure.add_scatter(
        x=x, y=y, mode="markers", name=name, marker=marker, showlegend=bool(len(rows) and name), **hover(s, rows)
    )


def levels(s: Summary) -> pd.DataFrame:
    """Baselines that figures show as lines: of a study with a cost the reference alone, since the others have a cost of
    their own and are no level."""
    lines = s.baselines[s.baselines[ACCURACY].notna()]
    return lines[lines["baseline"] == s.reference_name] if s.has_cost else lines


def has_band(s: Summary) -> bool:
    """Whether there is a band of one standard error around the reference."""
    return s.reference is not None and bool(np.isfinite(s.error))


def draw_baseline_levels(figure: go.Figure, s: Summary, band: bool, labelled: bool = True) -> None:
    """Baselines as horizontal lines at their accuracy; around the reference a band of one standard error."""
    if band and s.reference is not None and has_band(s):
        level = float(s.reference[ACCURACY])
        figure.add_hrect(
            y0=level - s.error, y1=level + s.error, fillcolor=GREY, opacity=0.13, line_width=0, layer="below"
        )
    dashes = ("solid", "dash", "dot", "dashdot")
    for i, row in enumerate(levels(s).to_dict("records")):
        colour, dash = BASELINE_COLOURS[i % 3], dashes[i % 4]
        figure.add_hline(y=row[ACCURACY], line={"color": colour, "width": 1.6, "dash": dash})
        if labelled:  # a line of the layout has no entry in the legend; this empty trace is it
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                name=f"{escape(row['baseline'])} {row[ACCURACY]:.1f} %",
                hoverinfo="skip",
            )


def draw_ring(figure: go.Figure, x: list[Any], y: list[Any], name: str) -> None:
    """A ring around the headline trial."""
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        hoverinfo="skip",
        marker={"size": 20, "symbol": "circle-open", "color": VERMILLION, "line": {"width": 2.4}},
    )


def thin_out(rows: pd.DataFrame, most: int = MOST_MARKS) -> pd.DataFrame:
    """At most so many rows, drawn at random with a fixed seed."""
    return rows if len(rows) <= most else rows.sample(most, random_state=0).sort_index()


def hover(s: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    """What a mark says, and which trial it stands for. In a study of many trials it says the objectives alone, since
    all configurations would fill megabytes of page."""
    columns = list(s.study.objectives) if len(s.trials) > MOST_MARKS else _hover_columns(s)
    titles = {c: axis_title(s.column(c)) for c in columns if c in rows}
    texts = []
    for row in rows[["trial_id", "state", "baseline", "reason", *titles]].to_dict("records"):
        lines = [f"<b>{escape(row['baseline'] or row['trial_id'])}</b> {escape(row['state'])}"]
        lines += [f"{title}: {escape(value_text(s, c, row[c]))}" for c, title in titles.items() if pd.notna(row[c])]
        texts.append("<br>".join([*lines, *([escape(row["reason"][:120])] if row["reason"] else [])]))
    return {"text": texts, "hovertemplate": "%{text}<extra></extra>", "customdata": rows["trial_id"].tolist()}


def _hover_columns(s: Summary) -> list[str]:
    """Its configuration, its objectives, how it compares with the network it started from, and what a method measures
    that nobody declared."""
    numbers = [c for c in s.trials if pd.api.types.is_numeric_dtype(s.trials[c])]
    more = [c for c in numbers if c not in COLUMNS or s.column(c).unit in RELATIVE_UNITS]
    return list(dict.fromkeys([*s.study.hyperparameters, *s.study.objectives, *more]))


def best_trial_note(s: Summary) -> str:
    """How accurate the headline trial is, for an alternative text."""
    if s.best is None:
        return "no trial is complete and accurate enough."
    gain = ""
    if s.reference is not None:
        difference = format_points(s.best[ACCURACY] - s.reference[ACCURACY])
        gain = f", {difference} against the {s.reference['baseline']}"
    return f"the headline trial has {s.best[ACCURACY]:.1f} percent on validation data{gain}."


def sampling_note(s: Summary) -> str:
    """A sentence for a figure that does not show all trials, with a space before it."""
    if len(s.searched) <= MOST_MARKS:
        return ""
    return f" {MOST_MARKS:,} of {len(s.searched):,} trials are drawn, and every member of the front."


def stopped(s: Summary, states: Iterable[str] = ("pruned",)) -> pd.DataFrame:
    """Searched trials that did not run to their end."""
    return s.trials[(s.trials["baseline"] == "") & s.trials["state"].isin(list(states))]
