"""Learning curves: how the trials of a study came to their scores, epoch by epoch."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import focus
from analysis.figures.item import ReportFigure
from analysis.figures.theme import BASELINE_COLOURS, GREY, VERMILLION, axis_label, escape, figure
from analysis.formatting import below_axis_sentence, counted
from analysis.stats.summary import Summary, history_of, summarise
from study.records.columns import label
from study.records.study_folder import Study

MOST_CURVES = 60
"""Other trials drawn thinly, an even sample by final score: more would be a grey blot and megabytes of page."""


def learning_curves(study: Study, metric: str = "val_accuracy") -> go.Figure:
    """`metric` of every epoch: sampled trials thin and grey, baselines and the answering trial on top.

    Where most trials change phase at the same epoch, a dotted line marks it.
    """
    s = summarise(study)
    history = history_of(study)
    if metric not in history:
        history[metric] = float("nan")
    history = history[history[metric].notna()].sort_values(["trial_id", "epoch"])
    drawn = figure(height=340)
    others = sampled(s, history)
    for state, dash in (("pruned", "dot"), ("failed", "dot"), ("running", "dot"), ("complete", "solid")):
        ids = others[others["state"] == state]["trial_id"]
        _bundle(drawn, history, metric, list(ids), state, dash)
    for i, row in enumerate(s.trials[s.trials["baseline"] != ""].to_dict("records")):
        _curve(drawn, history, row["trial_id"], metric, row["baseline"], BASELINE_COLOURS[i % 3], 1.8)
    if s.best is not None:
        _curve(drawn, history, str(s.best["trial_id"]), metric, f"trial {s.best['trial_id']}", VERMILLION, 2.6)
    _phases(drawn, history)
    drawn.update_xaxes(title={"text": label("epoch")}, rangemode="tozero")
    drawn.update_yaxes(title={"text": axis_label(metric)})
    if metric == "val_accuracy":
        # The first epochs' steep climb is the same for all; below the lower quarter there is little else.
        low = history[metric].quantile(0.25) if len(history) else float("nan")
        drawn.update_yaxes(range=focus([low], [low, history[metric].max()]))
    return drawn


def highest(drawn: go.Figure) -> dict[str, float]:
    """Of each trial with a curve in such a figure, its highest point."""
    found: dict[str, float] = {}
    for trace in drawn.data:
        for trial_id, value in zip(trace.customdata, trace.y, strict=True):
            if value is not None:  # between two curves of one trace
                found[trial_id] = max(value, found.get(trial_id, value))
    return found


def sampled(s: Summary, history: pd.DataFrame, most: int = MOST_CURVES) -> pd.DataFrame:
    """Searched trials whose curves are drawn, evenly spaced in the order of their final scores."""
    rows = s.trials[(s.trials["baseline"] == "") & s.trials["trial_id"].isin(history["trial_id"].unique())]
    rows = rows.sort_values("val_accuracy")
    if len(rows) <= most:
        return rows
    step = (len(rows) - 1) / (most - 1)
    return rows.iloc[[round(i * step) for i in range(most)]]


def _bundle(drawn: go.Figure, history: pd.DataFrame, metric: str, ids: list[str], state: str, dash: str) -> None:
    """Many curves as one trace, parted by gaps, since a browser draws one long line faster than many short ones."""
    x: list[float | None] = []
    y: list[float | None] = []
    whose: list[str] = []
    for trial_id, rows in history[history["trial_id"].isin(ids)].groupby("trial_id", sort=False):
        x += [*rows["epoch"].tolist(), None]
        y += [*rows[metric].round(3).tolist(), None]
        whose += [str(trial_id)] * (len(rows) + 1)
    if ids:
        drawn.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=f"{len(ids)} {state}",
            opacity=0.45,
            customdata=whose,
            line={"color": GREY, "width": 1, "dash": dash},
            text=[escape(w) for w in whose],
            hovertemplate="%{text}, epoch %{x}: %{y:.2f}<extra></extra>",
        )


def _curve(
    drawn: go.Figure, history: pd.DataFrame, trial_id: str, metric: str, name: str, colour: str, width: float
) -> None:
    rows = history[history["trial_id"] == trial_id]
    if len(rows):
        drawn.add_scatter(
            x=rows["epoch"].tolist(),
            y=rows[metric].tolist(),
            mode="lines",
            name=escape(name),
            line={"color": colour, "width": width},
            customdata=rows["trial_id"].tolist(),
            hovertemplate="epoch %{x}: %{y:.2f}<extra>%{fullData.name}</extra>",
        )


def _phases(drawn: go.Figure, history: pd.DataFrame) -> None:
    before = history[["trial_id", "phase"]].shift()
    changes = history[(history["trial_id"] == before["trial_id"]) & (history["phase"] != before["phase"])]
    for phase, rows in changes.groupby("phase", sort=False):
        epochs = rows["epoch"]
        common = epochs.mode()
        if len(common) and (epochs == common.iloc[0]).mean() > 0.5:
            at = float(common.iloc[0]) - 0.5
            late = at > 0.7 * history["epoch"].max()
            drawn.add_vline(x=at, line={"color": GREY, "width": 1, "dash": "dot"})
            drawn.add_annotation(
                x=at,
                y=0,
                yref="paper",
                text=f"{escape(str(phase))} →",
                showarrow=False,
                xanchor="right" if late else "left",
                yanchor="bottom",
                font={"size": 11},
            )


def learning_curve_figures(s: Summary) -> list[ReportFigure]:
    history = history_of(s.study)
    told = history.loc[history["val_accuracy"].notna(), "trial_id"].unique()
    begun = int(((s.trials["baseline"] == "") & s.trials["trial_id"].isin(told)).sum())
    some = counted(begun, "trial") if begun <= MOST_CURVES else f"{MOST_CURVES} of {begun:,} trials"
    about = f"{some} thin and grey, baselines and the answering trial in colour."
    drawn = learning_curves(s.study)
    window, tops = drawn.layout.yaxis.range, highest(drawn)
    of_baselines = [tops.pop(i) for i in s.baselines["trial_id"] if i in tops]
    cropped = (
        "" if window is None else below_axis_sentence(window[0], {"trial": tops.values(), "baseline": of_baselines})
    )
    items = [
        ReportFigure(
            "curves",
            drawn,
            "Validation accuracy, epoch by epoch.",
            about + cropped,
            f"Line chart of validation accuracy over epochs; {about}",
        )
    ]
    if "sparsity" in s.study.history:
        why = (
            "weights are pruned gradually"
            if (s.study.history["phase"] == "prune").any()
            else "the components are still wide then"
        )
        about = f"What quantising at that epoch would give. Early values mean little, since {why}."
        items.append(
            ReportFigure(
                "sparsity-curves",
                learning_curves(s.study, "sparsity"),
                "Provisional sparsity, epoch by epoch.",
                about,
                "Line chart of the sparsity over epochs that quantising at each epoch would give.",
            )
        )
    return items
