"""How early the size is known: what quantising during training would have given, against what it gave at the end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import objective_axis, positions
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, GREY, ORANGE, escape, figure
from analysis.formatting import counted, not_drawn_sentence
from analysis.stats import weight_trace
from analysis.stats.summary import Summary, summarise
from study.records.columns import Column
from study.records.study_folder import Study

MOST_TRIALS = 300
"""The figure has three marks for each trial; with more of them a browser cannot follow a moved filter."""


def early_column(study: Study) -> Column | None:
    """What is declared of `weight_trace.early_metric`; None for a study without one."""
    name = weight_trace.early_metric(study)
    return study.column(name) if name else None


def provisional_data(study: Study) -> pd.DataFrame:
    """`weight_trace.provisional`; of many trials a sample with a fixed seed."""
    frame = weight_trace.provisional(study)
    trials = frame["trial_id"].drop_duplicates()
    return frame[frame["trial_id"].isin(trials.sample(min(MOST_TRIALS, len(trials)), random_state=0))]


def provisional_sparsity(study: Study) -> go.Figure:
    """What quantising during training would have given, against what each trial ended with."""
    return draw_provisional(study, provisional_data(study))


def draw_provisional(study: Study, frame: pd.DataFrame) -> go.Figure:
    """The figure of `provisional_data`."""
    drawing, column = figure(height=340), early_column(study)
    if column is None:
        return drawing
    colours, symbols = (GREY, ORANGE, BLUE), ("circle-open", "diamond-open", "circle")
    for share, colour, symbol in zip(weight_trace.EARLY, colours, symbols, strict=True):
        rows = frame[frame["share"] == share]
        drawing.add_scatter(
            x=positions(column, rows["provisional"]),
            y=positions(column, rows["final"]),
            mode="markers",
            name=f"after {share:.0%}",
            marker={"color": colour, "size": 8, "symbol": symbol},
            customdata=rows["trial_id"].tolist(),
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            text=[_text(*row) for row in rows[["trial_id", "provisional", "final"]].to_numpy()],
        )
    values = frame[["provisional", "final"]].to_numpy(dtype=float).ravel().tolist()
    guesses = summarise(study).guesses["trial_id"]
    telling = (
        frame.loc[~frame["trial_id"].isin(guesses), ["provisional", "final"]].to_numpy(dtype=float).ravel().tolist()
    )
    telling = telling or values
    places = [place for place in positions(column, telling) if np.isfinite(place)]
    ends = [min(places, default=1.0), max(places, default=100.0)]
    drawing.add_scatter(
        x=ends, y=ends, mode="lines", name="the same", line={"color": GREY, "width": 1, "dash": "dot"}, hoverinfo="skip"
    )
    for update, when in ((drawing.update_xaxes, "provisional"), (drawing.update_yaxes, "final")):
        update(objective_axis(column, telling, most=6, beyond=values))
        update(title={"text": f"{when} {column.label} ({column.unit})"})
    return drawing


def _text(trial_id: str, early: float, final: float) -> str:
    return f"{escape(trial_id)}: {early:.2f} %, then {final:.2f} %"


def provisional_groups(s: Summary) -> list[FigureGroup]:
    """None for a study whose epochs do not report what quantising would give."""
    frame, column = provisional_data(s.study), early_column(s.study)
    lost = int(frame["final"].isna().groupby(frame["trial_id"]).any().sum())
    frame = frame[frame["final"].notna()]
    if frame.empty or column is None:
        return []
    trials = frame["trial_id"].nunique()
    caption = (
        "What quantising at a quarter, half and three quarters of the epochs would have given. Marks on the "
        "dotted line did not change afterwards."
    )
    if trials == MOST_TRIALS:
        caption += f" {MOST_TRIALS} trials are drawn, chosen at random."
    caption += not_drawn_sentence(lost, "trial", column.label)
    report_figure = ReportFigure(
        "provisional",
        draw_provisional(s.study, frame),
        f"Provisional against final {column.label}.",
        caption,
        f"Scatter plot of provisional against final {column.label} of {counted(trials, 'trial')}.",
    )
    return [FigureGroup("How early the size is known", [report_figure])]
