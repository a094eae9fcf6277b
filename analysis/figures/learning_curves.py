"""Learning curves: how the trials of a study came to their scores, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import focus
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BASELINE_COLOURS, GREY, VERMILLION, axis_title, escape, figure
from analysis.formatting import below_axis_sentence, capitalise, counted, not_drawn_sentence
from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary, history_of, summarise
from study.records.study_folder import Study

MOST_CURVES = 60
"""Other trials drawn thinly, an even sample by final score: more would be a grey blot and megabytes of page."""

EARLY_PHASES = {"prune": "weights are pruned gradually", "cluster": "the components are still wide then"}
"""Phases whose epochs report what quantising would give → why early values mean little."""


@dataclass(frozen=True)
class CurveData:
    """Curves of one metric.

    Attributes:
        metric: its column.
        history: epochs that have a value of it, in the order of trial and epoch.
        thin: searched trials that are drawn thinly, see `sampled`.
        window: range of the metric's axis; None for all that there is.
    """

    summary: Summary
    metric: str
    history: pd.DataFrame
    thin: pd.DataFrame
    window: list[float] | None

    def highest(self, trials: pd.Series) -> list[float]:
        """The highest values of those of these trials that have a curve."""
        tops = self.history.groupby("trial_id")[self.metric].max()
        return [float(value) for value in tops[tops.index.isin(trials)]]


def curve_data(s: Summary, metric: str = ACCURACY) -> CurveData:
    """Compute what the curves of a metric show; without any of it they are empty."""
    history = history_of(s.study)
    if metric not in history:
        history[metric] = float("nan")
    history = history[history[metric].notna()].sort_values(["trial_id", "epoch"])
    window = None
    if metric == ACCURACY:
        # The first epochs' steep climb is the same for all; below the lower quarter there is little else.
        telling = history[~history["trial_id"].isin(s.guesses["trial_id"])]
        telling = telling if len(telling) else history
        low = telling[metric].quantile(0.25) if len(telling) else np.nan
        window = focus([low], [low, history[metric].max()])
    return CurveData(s, metric, history, sampled(s, history), window)


def sampled(s: Summary, history: pd.DataFrame, most: int = MOST_CURVES) -> pd.DataFrame:
    """Searched trials whose curves are drawn, evenly spaced in the order of their final scores."""
    rows = s.trials[(s.trials["baseline"] == "") & s.trials["trial_id"].isin(history["trial_id"].unique())]
    rows = rows.sort_values(ACCURACY)
    if len(rows) <= most:
        return rows
    step = (len(rows) - 1) / (most - 1)
    return rows.iloc[[round(i * step) for i in range(most)]]


def learning_curves(study: Study, metric: str = ACCURACY) -> go.Figure:
    """`metric` of every epoch: sampled trials thin and grey, baselines and the headline trial on top.

    Where most trials change phase at the same epoch, a dotted line marks it.
    """
    return draw_curves(curve_data(summarise(study), metric))


def draw_curves(data: CurveData) -> go.Figure:
    """The figure of `curve_data`."""
    s, drawing = data.summary, figure(height=340)
    for state, dash in (("pruned", "dot"), ("failed", "dot"), ("running", "dot"), ("complete", "solid")):
        ids = data.thin[data.thin["state"] == state]["trial_id"]
        _draw_bundle(drawing, data, list(ids), state, dash)
    for i, row in enumerate(s.trials[s.trials["baseline"] != ""].to_dict("records")):
        _draw_curve(drawing, data, row["trial_id"], row["baseline"], BASELINE_COLOURS[i % 3], 1.8)
    if s.best is not None:
        _draw_curve(drawing, data, str(s.best["trial_id"]), f"trial {s.best['trial_id']}", VERMILLION, 2.6)
    draw_phases(drawing, data.history)
    drawing.update_xaxes(title={"text": axis_title(s.column("epoch"))}, rangemode="tozero")
    drawing.update_yaxes(title={"text": axis_title(s.column(data.metric))}, range=data.window)
    return drawing


def _draw_bundle(drawing: go.Figure, data: CurveData, ids: list[str], state: str, dash: str) -> None:
    """Many curves as one trace, parted by gaps, since a browser draws one long line faster than many short ones."""
    x: list[float | None] = []
    y: list[float | None] = []
    owners: list[str] = []
    for trial_id, rows in data.history[data.history["trial_id"].isin(ids)].groupby("trial_id", sort=False):
        x += [*rows["epoch"].tolist(), None]
        y += [*rows[data.metric].round(3).tolist(), None]
        owners += [str(trial_id)] * (len(rows) + 1)
    if ids:
        drawing.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=f"{len(ids)} {state}",
            opacity=0.45,
            customdata=owners,
            line={"color": GREY, "width": 1, "dash": dash},
            text=[escape(owner) for owner in owners],
            hovertemplate="%{text}, epoch %{x}: %{y:.2f}<extra></extra>",
        )


def _draw_curve(drawing: go.Figure, data: CurveData, trial_id: str, name: str, colour: str, width: float) -> None:
    rows = data.history[data.history["trial_id"] == trial_id]
    if len(rows):
        drawing.add_scatter(
            x=rows["epoch"].tolist(),
            y=rows[data.metric].tolist(),
            mode="lines",
            name=escape(name),
            line={"color": colour, "width": width},
            customdata=rows["trial_id"].tolist(),
            hovertemplate="epoch %{x}: %{y:.2f}<extra>%{fullData.name}</extra>",
        )


def draw_phases(drawing: go.Figure, history: pd.DataFrame, at_top: bool = False) -> None:
    """A dotted line where most trials change phase at the same epoch, with the name of the phase that begins.

    Args:
        history: one row an epoch of a trial, in order: `trial_id`, `epoch`, `phase`.
        at_top: the name is there, not at the bottom.
    """
    before = history[["trial_id", "phase"]].shift()
    changes = history[(history["trial_id"] == before["trial_id"]) & (history["phase"] != before["phase"])]
    for phase, rows in changes.groupby("phase", sort=False):
        epochs = rows["epoch"]
        common = epochs.mode()
        if len(common) and (epochs == common.iloc[0]).mean() > 0.5:
            at = float(common.iloc[0]) - 0.5
            late = at > 0.7 * history["epoch"].max()
            drawing.add_vline(x=at, line={"color": GREY, "width": 1, "dash": "dot"})
            drawing.add_annotation(
                x=at,
                y=int(at_top),
                yref="paper",
                text=f"{escape(str(phase))} →",
                showarrow=False,
                xanchor="right" if late else "left",
                yanchor="top" if at_top else "bottom",
                font={"size": 11},
            )


def learning_curve_groups(s: Summary) -> list[FigureGroup]:
    """None for a study without a history."""
    return [] if s.study.history.empty else [FigureGroup("Learning curves", learning_curve_figures(s))]


def learning_curve_figures(s: Summary) -> list[ReportFigure]:
    """Curves of accuracy, and of what it costs where every epoch reports that."""
    data = curve_data(s)
    searched = s.trials.loc[s.trials["baseline"] == "", "trial_id"]
    with_curve = int(searched.isin(data.history["trial_id"].unique()).sum())
    count = counted(with_curve, "trial") if with_curve <= MOST_CURVES else f"{MOST_CURVES} of {with_curve:,} trials"
    about = f"{count} thin and grey, baselines and the headline trial in colour."
    accuracy = ReportFigure(
        "curves",
        draw_curves(data),
        "Validation accuracy, epoch by epoch.",
        about + _below_axis(data) + _missing_note(s, ACCURACY),
        f"Line chart of validation accuracy over epochs; {about}",
    )
    return [accuracy, *(_provisional_figure(s, metric) for metric in provisional_metrics(s))]


def _below_axis(data: CurveData) -> str:
    """How many drawn curves lie below the axis from end to end."""
    if data.window is None:
        return ""
    s = data.summary
    ids = [*data.thin["trial_id"], *([] if s.best is None else [s.best["trial_id"]])]
    tops = {"trial": data.highest(pd.Series(ids, dtype=object)), "baseline": data.highest(s.baselines["trial_id"])}
    return below_axis_sentence(data.window[0], tops)


def _missing_note(s: Summary, metric: str) -> str:
    """How many epochs have no finite value of a metric, though others of their phase have one."""
    history = history_of(s.study)
    if metric not in history:
        return ""
    reported = history.groupby("phase")[metric].transform("count") > 0
    return not_drawn_sentence(int((reported & history[metric].isna()).sum()), "epoch", s.column(metric).label)


def provisional_metrics(s: Summary) -> list[str]:
    """Metrics of the size that epochs report before there is one: shares that crowd against 100 %, and the cost."""
    reported = [name for name in s.study.history if name != ACCURACY]
    return [name for name in reported if s.column(name).scale == "complement" or name == s.cost]


def _provisional_figure(s: Summary, metric: str) -> ReportFigure:
    label = s.column(metric).label
    phases = set(s.study.history["phase"])
    reasons = [reason for phase, reason in EARLY_PHASES.items() if phase in phases]
    title, caption = f"{capitalise(label)}, epoch by epoch.", f"The {label} of every epoch that was scored."
    if reasons:
        title = f"Provisional {label}, epoch by epoch."
        caption = f"What quantising at that epoch would give. Early values mean little, since {reasons[0]}."
    return ReportFigure(
        f"{metric}-curves",
        draw_curves(curve_data(s, metric)),
        title,
        caption + _missing_note(s, metric),
        f"Line chart of the {label} over epochs" + (" that quantising at each epoch would give." if reasons else "."),
    )
