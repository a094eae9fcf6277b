"""The mean of a target over one hyperparameter, with all others averaged: as a figure, and over a scatter plot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import objective_column, positions
from analysis.figures.hyperparameters import (
    domain_of,
    hyperparameter_axis,
    hyperparameter_positions,
    is_choice,
    value_text,
)
from analysis.figures.report_figure import ReportFigure
from analysis.figures.theme import BLUE, axis_title, escape, figure
from analysis.stats.importance import TradeOffs
from analysis.stats.names import ACCURACY
from study.records.columns import Column

GIVEN, HYPERVOLUME = "given", "hypervolume"
"""Targets that are no objective: accuracy among the trials of a low cost, and what a trial alone dominates."""

_INTERVAL = "with its 95 % interval, which is somewhat too narrow at the ends of the range."


def target_column(t: TradeOffs, key: str) -> Column:
    """What is declared of the values of a target."""
    if key == HYPERVOLUME:
        return Column(HYPERVOLUME, digits=0)
    return objective_column(t.summary.study, ACCURACY if key == GIVEN else key)


def effect(t: TradeOffs, key: str, name: str) -> go.Figure:
    """The target's mean over one hyperparameter, all others averaged, with its 95 % interval. The target's axis is the
    same for all hyperparameters, so that a flat line looks flat."""
    drawing, column = figure(height=300), target_column(t, key)
    for trace in _traces(t, key, name):
        drawing.add_trace(trace)
    study = t.summary.study
    drawing.update_xaxes(hyperparameter_axis(axis_title(study.column(name)), domain_of(study, name)))
    drawing.update_yaxes(title={"text": axis_title(column)}, range=_shared_range(t, key))
    if t.targets[key].log:
        drawing.update_yaxes(type="log", dtick="D2")
    return drawing


def overlay(drawing: go.Figure, t: TradeOffs, key: str, name: str) -> str:
    """Add the mean of an objective over a hyperparameter, with its interval, to the scatter plot of the trials.

    Returns: a sentence for its caption, or "" where the trials carry no mean.
    """
    if key not in t.targets or name not in t.names:
        return ""
    column = objective_column(t.summary.study, key)
    for trace in _traces(t, key, name, column):
        drawing.add_trace(trace.update(showlegend=False))
    return f" {_what_is_drawn(t, name)}, {_INTERVAL}{outliers_note(t, key)}"


def _traces(t: TradeOffs, key: str, name: str, axis: Column | None = None) -> list[go.Scatter]:
    """The interval and the mean: of a range a band with a line, of a choice a mark with a bar for each value.

    Args:
        axis: the column whose `objective_axis` they are drawn on; without it the axis shows the target's own unit.
    """
    rows, domain = t.effect(key, name), domain_of(t.summary.study, name)
    x = hyperparameter_positions(domain, rows["value"])
    mean, low, high = (positions(axis, rows[c]) if axis else rows[c].tolist() for c in ("mean", "low", "high"))
    texts = _texts(t, key, name, rows)
    return _points(x, mean, low, high, texts) if is_choice(domain) else _line(x, mean, low, high, texts)


def _line(x: list[float], mean: list[float], low: list[float], high: list[float], texts: list[str]) -> list[go.Scatter]:
    band = go.Scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        mode="lines",
        fill="toself",
        opacity=0.25,
        fillcolor=BLUE,
        line={"width": 0},
        name="95 % interval",
        hoverinfo="skip",
    )
    line = go.Scatter(
        x=x,
        y=mean,
        mode="lines",
        name="mean",
        line={"color": BLUE, "width": 2.4},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
    )
    return [band, line]


def _points(x: list[str], mean: list[float], low: list[float], high: list[float], texts: list[str]) -> list[go.Scatter]:
    """Of a choice there is nothing between two values, so no line joins them."""
    ends = np.sort(np.stack([low, high]), axis=0)
    bars = {
        "type": "data",
        "symmetric": False,
        "array": (ends[1] - mean).tolist(),
        "arrayminus": (np.asarray(mean) - ends[0]).tolist(),
        "thickness": 2,
        "width": 8,
        "color": BLUE,
    }
    return [
        go.Scatter(
            x=x,
            y=mean,
            mode="markers",
            name="mean",
            marker={"symbol": "line-ew", "size": 22, "color": BLUE, "line": {"color": BLUE, "width": 2.4}},
            error_y=bars,
            text=texts,
            hovertemplate="%{text}<extra></extra>",
        )
    ]


def _texts(t: TradeOffs, key: str, name: str, rows: pd.DataFrame) -> list[str]:
    digits, domain = target_column(t, key).digits, domain_of(t.summary.study, name)
    return [
        f"{escape(value_text(t.summary, name, value)) if is_choice(domain) else f'{value:.4g}'}: {mean:,.{digits}f}, "
        f"95 % interval {low:,.{digits}f} to {high:,.{digits}f}"
        for value, mean, low, high in rows[["value", "mean", "low", "high"]].itertuples(index=False)
    ]


def _shared_range(t: TradeOffs, key: str) -> list[float]:
    """Of the target's axis, for all hyperparameters; in powers of ten on a logarithmic one."""
    effects = [t.effect(key, name, 11) for name in t.names]
    ends = np.array([min(rows["low"].min() for rows in effects), max(rows["high"].max() for rows in effects)])
    low, high = np.log10(ends) if t.targets[key].log else ends
    return [float(low - 0.05 * (high - low)), float(high + 0.05 * (high - low))]


def outliers_note(t: TradeOffs, key: str) -> str:
    """How many outliers were clipped before the fit, with a space before it; "" for none."""
    clipped = t.targets[key].pulled
    if not clipped:
        return ""
    return f" Before the fit, {clipped} outlier{'s were' if clipped > 1 else ' was'} clipped to Tukey's fences."


def effect_figure(t: TradeOffs, key: str, name: str) -> ReportFigure:
    """`effect` with its words."""
    over = t.summary.column(name).label
    return ReportFigure(
        f"effect-{key}-{name}",
        effect(t, key, name),
        f"By {over}.",
        f"The mean with all other hyperparameters averaged, {_INTERVAL}{outliers_note(t, key)}",
        f"Line chart of the mean of {t.targets[key].title} over {over}.",
    )


def _what_is_drawn(t: TradeOffs, name: str) -> str:
    mark = "Each horizontal mark" if is_choice(domain_of(t.summary.study, name)) else "The line"
    return f"{mark} is the mean with all other hyperparameters averaged"
