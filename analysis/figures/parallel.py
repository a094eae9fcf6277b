"""Parallel coordinates: every trial as a line through its hyperparameters and what it reached.

Plotly's own `parcoords` needs WebGL, which not every reader and no printer has, and its lines cannot be marked. These
are plain lines; `page/report.js` lets a reader brush the axes, which filters the complete page.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from analysis.figures import theme
from analysis.figures.axes import CLOSEST, FULL, number_label, objective_column
from analysis.figures.hyperparameters import domain_of, drawable, is_choice
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import GREY, escape, figure
from analysis.figures.trial_marks import MOST_MARKS, thin_out
from analysis.formatting import choice_index, choice_label, counted, format_cell, not_drawn_sentence
from analysis.stats.search_space import Array
from analysis.stats.summary import Summary
from study.records.columns import Column

FEWEST = 3
"""Trials, below which lines through axes say nothing that the table does not."""
MOST_AXES = 12
BINS = 5
"""Colours of lines: fifths of the trials by the last objective."""


@dataclass(frozen=True)
class ParallelAxis:
    """One vertical axis.

    Attributes:
        key: column of the table of trials.
        scale: linear, log or complement: what is linear in height, see `Column`.
        low, high: at the bottom and at the top, on that scale; better is up.
        choices: values of a choice from the bottom to the top; then scale and ends mean nothing.
        ticks: height in [0, 1] → text.
    """

    key: str
    title: str
    scale: str
    low: float
    high: float
    choices: tuple[Any, ...]
    ticks: dict[float, str]

    def places(self, values: pd.Series) -> Array:
        """Heights in [0, 1]; NaN for a value that the axis does not have."""
        if self.choices:
            indices = [choice_index({"values": self.choices}, value) for value in values]
            heights = [np.nan if i is None else i / max(1, len(self.choices) - 1) for i in indices]
            return np.array(heights, dtype=float)
        return (_scaled(self.scale, values.to_numpy(dtype=float)) - self.low) / (self.high - self.low)


def _scaled(scale: str, values: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "complement":
            return np.asarray(np.log10(np.maximum(FULL - values, CLOSEST)))
        return np.asarray(np.log10(values) if scale == "log" else values)


def parallel_axes(s: Summary) -> list[ParallelAxis]:
    """Hyperparameters over their ranges, then objectives over what the trials that may answer reached."""
    rows = s.sets_axis(s.searched)
    made = []
    for name in drawable(s)[: MOST_AXES - len(s.study.objectives)]:
        column, domain = s.column(name), domain_of(s.study, name)
        if is_choice(domain):
            labels = [str(choice_label(domain, value)) for value in domain["values"]]
            heights = np.linspace(0, 1, len(labels)) if len(labels) > 1 else [0.0]
            ticks = {float(at): text for at, text in zip(heights, labels, strict=True)}
            made.append(ParallelAxis(name, column.label, "linear", 0, 1, tuple(domain["values"]), ticks))
        else:
            ends = [float(domain[end]) for end in ("low", "high")] if "low" in domain else rows[name]
            made.append(_numeric_axis(column, name, "log" if domain.get("log") else "linear", ends))
    for name in s.study.objectives:
        column = objective_column(s.study, name)
        made.append(_numeric_axis(column, name, column.scale, rows[name], column.direction == "min"))
    return made


def _numeric_axis(column: Column, key: str, scale: str, values: Any, downwards: bool = False) -> ParallelAxis:
    places = _scaled(scale, np.asarray(values, dtype=float))
    places = places[np.isfinite(places)]
    low, high = (float(places.min()), float(places.max())) if len(places) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if downwards != (scale == "complement"):
        low, high = high, low
    ticks = {}
    for height in (0.0, 0.5, 1.0):
        at = low + height * (high - low)
        value = FULL - 10**at if scale == "complement" else 10**at if scale == "log" else at
        ticks[height] = number_label(value) if scale == "log" else format_cell(column, value)
    return ParallelAxis(key, column.heading, scale, low, high, (), ticks)


def parallel_rows(s: Summary, axes: list[ParallelAxis]) -> pd.DataFrame:
    """Trials that are drawn, with a column of heights for each axis, 0, 1, …, and the `bin` of their colour.

    A trial that lies beyond an axis, as one that guesses may, stands at its end.
    """
    heights = pd.DataFrame({i: axis.places(s.searched[axis.key]) for i, axis in enumerate(axes)}, s.searched.index)
    rows = pd.concat([s.searched[["trial_id"]], heights.clip(0, 1)], axis=1)[heights.notna().all(axis=1)]
    ranks = rows[len(axes) - 1].rank(pct=True, method="average")
    return thin_out(rows.assign(bin=np.minimum((ranks * BINS).astype(float), BINS - 1e-9).astype(int)))


def draw_parallel(axes: list[ParallelAxis], rows: pd.DataFrame) -> go.Figure:
    """The figure of `parallel_rows`: a bundle of lines for each colour, parted by gaps, worst first."""
    drawing, width = figure(height=420), len(axes)
    colours = sample_colorscale(theme.SEQUENTIAL, [i / (BINS - 1) for i in range(BINS)])
    # The page's script puts here what its filters leave out.
    drawing.add_scatter(
        x=[None], y=[None], mode="lines", line={"color": GREY, "width": 1}, opacity=0.15, hoverinfo="skip",
        showlegend=False, customdata=[""],
    )  # fmt: skip
    for number, colour in enumerate(colours):
        own = rows[rows["bin"] == number]
        if own.empty:
            continue
        heights = np.column_stack([own[list(range(width))].to_numpy(), np.full(len(own), np.nan)]).round(4)
        drawing.add_scatter(
            x=[*range(width), None] * len(own),
            y=[None if np.isnan(value) else float(value) for value in heights.ravel()],
            mode="lines",
            line={"color": colour, "width": 1.4},
            opacity=0.75,
            customdata=np.repeat(own["trial_id"].to_numpy(), width + 1).tolist(),
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        )
    for i, axis in enumerate(axes):
        drawing.add_vline(x=i, line={"color": GREY, "width": 1.2})
        for height, text in axis.ticks.items():
            drawing.add_annotation(
                x=i, y=height, text=escape(text), showarrow=False, xanchor="right" if i else "left",
                yanchor="bottom", xshift=-3 if i else 3, font={"size": 10.5},
            )  # fmt: skip
        side = "left" if i == 0 else "right" if i == width - 1 else "center"
        title = "<br>".join(escape(line) for line in textwrap.wrap(axis.title, 12))
        drawing.add_annotation(
            x=i, y=0, yref="paper", yanchor="top", yshift=-34 if i % 2 and width > 4 else -3, text=title,
            showarrow=False, align=side, xanchor=side, font={"size": 11},
        )  # fmt: skip
    drawing.update_xaxes(visible=False, range=[-0.02, width - 0.98], fixedrange=True)
    drawing.update_yaxes(visible=False, range=[-0.02, 1.08], fixedrange=True)
    drawing.update_layout(margin={"b": 92 if width > 4 else 62})
    facts = [
        {"column": escape(a.key), "scale": a.scale, "low": a.low, "high": a.high, "choices": _labels(a.choices)}
        for a in axes
    ]
    drawing.update_layout(meta={"axes": facts}, dragmode=False)
    return drawing


def _labels(choices: tuple[Any, ...]) -> list[str]:
    """Values of a choice as the page's script compares them with those of the table."""
    return [escape(str(value)) for value in choices]


def parallel_groups(s: Summary) -> list[FigureGroup]:
    """Parallel coordinates; none for fewer than three trials, or without a hyperparameter."""
    if s.searched.empty or not drawable(s):
        return []
    axes = parallel_axes(s)
    rows = parallel_rows(s, axes)
    if len(rows) < FEWEST:
        return []
    last = objective_column(s.study, list(s.study.objectives)[-1])
    left_out = max(0, len(drawable(s)) - (MOST_AXES - len(s.study.objectives)))
    complete = pd.concat([pd.Series(axis.places(s.searched[axis.key])).notna() for axis in axes], axis=1).all(axis=1)
    caption = (
        f"Each line is a trial, from its hyperparameters to what it reached; the yellower, the better in {last.label}. "
        "On the axes of objectives better is up. Drag along an axis to keep the trials in a range, on the complete "
        "page; a click on the axis lets go. With the keyboard: the arrows move an axis’ lower end, with Shift its "
        "upper one."
    )
    caption += not_drawn_sentence(int((~complete).sum()), "complete trial", "value on one of the axes")
    if left_out:
        caption += f" {counted(left_out, 'hyperparameter')} more {'has' if left_out == 1 else 'have'} no room here."
    if len(rows) == MOST_MARKS:
        caption += f" {MOST_MARKS:,} of {int(complete.sum()):,} trials are drawn, chosen at random."
    figure_ = ReportFigure(
        "parallel",
        draw_parallel(axes, rows),
        "Parallel coordinates.",
        caption,
        f"Parallel coordinates of {counted(len(rows), 'trial')} over {', '.join(axis.title for axis in axes)}.",
    )
    return [FigureGroup("All hyperparameters at once", [figure_])]
