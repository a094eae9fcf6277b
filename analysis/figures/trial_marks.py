"""How trials, baselines and the answering trial are drawn, in every figure that has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes, theme
from analysis.figures.theme import BASELINE_COLOURS, BLUE, GREY, VERMILLION, axis_label, escape
from analysis.formatting import below_axis_sentence, format_cell, format_points
from analysis.stats.summary import REFERENCE, Summary

ON_TEST_DATA = ("on test data", "fresh seeds, on test data", "published (test data)")
"""Traces of the figure of the front whose marks are test accuracies."""

MOST_MARKS = 1000
"""Beyond this many trials a figure shows an even sample (the front always whole), half as many of those that are not
complete: the figures in sight follow a moved filter in about a third of a second."""


def draw_trials(
    drawn: go.Figure, s: Summary, rows: pd.DataFrame, x: list[float], y: str, name: str, colour: str = ""
) -> None:
    if len(rows) > MOST_MARKS:
        rows = rows.assign(_x=x).pipe(thin_out)
        x = rows["_x"].tolist()
    marker: dict[str, Any] = {"size": 8, "color": BLUE, "opacity": 0.85}
    if colour and len(rows):
        marker = {
            "size": 11,
            "colorscale": theme.SEQUENTIAL,
            "opacity": 0.95,
            "line": {"color": GREY, "width": 0.6},
            **_hues(rows[colour], s.study.meta["space"].get(colour, {}), axis_label(colour)),
        }
    drawn.add_scatter(
        x=x,
        y=rows[y].tolist(),
        mode="markers",
        name=name,
        marker=marker,
        showlegend=bool(len(rows) and name),
        **hover(s, rows),
    )


def levels(s: Summary) -> pd.DataFrame:
    """Baselines that figures show as lines; where sizes are, that which was not compressed, since its own would leave
    the trials no room on their axis."""
    lines = s.baselines[s.baselines["val_accuracy"].notna()]
    return lines[lines["baseline"] == REFERENCE[s.study.meta["kind"]]] if s.compresses else lines


def draw_baseline_levels(drawn: go.Figure, s: Summary, band: bool, labelled: bool = True) -> None:
    """Baselines as horizontal lines; around the reference a band of one standard error."""
    lines = levels(s)
    if band and s.reference is not None and np.isfinite(s.error):
        level = float(s.reference["val_accuracy"])
        drawn.add_hrect(
            y0=level - s.error, y1=level + s.error, fillcolor=GREY, opacity=0.13, line_width=0, layer="below"
        )
    dashes = ("solid", "dash", "dot", "dashdot")
    for i, row in enumerate(lines.to_dict("records")):
        colour, dash = BASELINE_COLOURS[i % 3], dashes[i % 4]
        drawn.add_hline(y=row["val_accuracy"], line={"color": colour, "width": 1.6, "dash": dash})
        if labelled:  # a line of the layout has no entry in the legend; this empty trace is it
            drawn.add_scatter(
                x=[None],
                y=[None],
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                name=f"{escape(row['baseline'])} {row['val_accuracy']:.1f} %",
                hoverinfo="skip",
            )


def ring_best(drawn: go.Figure, s: Summary, x: str, y: str) -> None:
    if s.best is not None:
        draw_ring(drawn, [s.best[x]], [s.best[y]], "best")


def draw_ring(drawn: go.Figure, x: list[float], y: list[float], name: str) -> None:
    drawn.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        hoverinfo="skip",
        marker={"size": 20, "symbol": "circle-open", "color": VERMILLION, "line": {"width": 2.4}},
    )


def _hues(values: pd.Series, domain: dict[str, Any], title: str) -> dict[str, Any]:
    """Colour by a hyperparameter, on the scale and over the range that its search space gives it."""
    ends = {end: float(domain[name]) for end, name in (("cmin", "low"), ("cmax", "high")) if name in domain}
    if not domain.get("log"):
        return {"color": values.tolist(), "colorbar": axes.colour_bar(title), **ends}
    ticks = [m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5) if domain["low"] <= m * 10.0**e <= domain["high"]]
    bar = {**axes.colour_bar(title), "tickvals": np.log10(ticks).tolist(), "ticktext": [f"{tick:g}" for tick in ticks]}
    return {
        "color": np.log10(values).round(4).tolist(),
        "colorbar": bar,
        **{end: float(np.log10(value)) for end, value in ends.items()},
    }


def size_positions(s: Summary, rows: pd.DataFrame) -> list[float]:
    """Where rows stand on the axis of size: bytes of the file, or the share of the weights left, in percent."""
    return (
        [float(v) for v in rows["file_bytes"]] if s.size == "file_bytes" else axes.remaining_percent(rows["sparsity"])
    )


def thin_out(rows: pd.DataFrame, most: int = MOST_MARKS) -> pd.DataFrame:
    return rows if len(rows) <= most else rows.sample(most, random_state=0).sort_index()


def hover(s: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    """What a mark says and which trial it stands for. Configurations are left out where they would fill megabytes."""
    columns = [
        c
        for c in (*s.study.hyperparameters, *s.study.objectives, "accuracy_drop", "compression_ratio", "entropy_ratio")
        if c in rows
    ]
    if len(s.trials) > MOST_MARKS:
        columns = list(s.study.objectives)
    said = []
    for row in rows[["trial_id", "state", "baseline", "reason", *dict.fromkeys(columns)]].to_dict("records"):
        lines = [f"<b>{escape(row['baseline'] or row['trial_id'])}</b> {escape(row['state'])}"]
        lines += [f"{axis_label(c)}: {escape(format_cell(c, row[c]))}" for c in columns if pd.notna(row[c])]
        said.append("<br>".join([*lines, *([escape(row["reason"][:120])] if row["reason"] else [])]))
    return {"text": said, "hovertemplate": "%{text}<extra></extra>", "customdata": rows["trial_id"].tolist()}


def best_trial_note(s: Summary) -> str:
    if s.best is None:
        return "no trial is complete and accurate enough."
    gain = (
        ""
        if s.reference is None
        else f", {format_points(s.best['val_accuracy'] - s.reference['val_accuracy'])} against the "
        f"{s.reference['baseline']}"
    )
    return f"the best trial has {s.best['val_accuracy']:.1f} percent{gain}."


def below_axis_note(s: Summary, drawn: go.Figure, objective: str = "val_accuracy", front: bool = False) -> str:
    """A cropped axis must say what it crops.

    Args:
        front: the figure shows every baseline and test results, but no pruned trials.
    """
    window = drawn.layout.yaxis.range
    if window is None or objective != "val_accuracy":
        return ""
    stopped = s.trials[(s.trials["baseline"] == "") & (s.trials["state"] == "pruned") & (not front)]
    shown = {
        "trial": [*s.searched[objective], *stopped[objective]],
        "baseline": (s.baselines if front else levels(s))[objective],
        "test result": [y for trace in drawn.data if trace.name in ON_TEST_DATA for y in trace.y],
    }
    return below_axis_sentence(window[0], shown)


def sampling_note(s: Summary) -> str:
    if len(s.searched) <= MOST_MARKS:
        return ""
    return f" {MOST_MARKS:,} of {len(s.searched):,} trials are drawn, the front whole."
