"""One objective against one hyperparameter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes, importance
from analysis.figures.axes import focus, hyperparameter_axis
from analysis.figures.item import FigureGroup, ReportFigure
from analysis.figures.theme import GREY, VERMILLION, axis_label, figure
from analysis.figures.trial_marks import (
    MOST_MARKS,
    below_axis_note,
    best_trial_note,
    draw_baseline_levels,
    draw_trials,
    hover,
    ring_best,
    sampling_note,
    thin_out,
)
from analysis.formatting import capitalise, column_label, counted
from analysis.stats.importance import TradeOffs
from analysis.stats.summary import Summary, summarise
from study.records.columns import label
from study.records.study_folder import Study


def slice_of(study: Study, hyperparameter: str, objective: str, height: int = 340, colour: str = "") -> go.Figure:
    """One objective against one hyperparameter, with the baselines as level lines (accuracy only).

    Args:
        colour: another hyperparameter that colours the trials; without it the front is told apart by colour.
    """
    s = summarise(study)
    drawn = figure(height=height)
    domain = study.meta["space"].get(hyperparameter, {})
    for state, rows in (("pruned", s.trials[s.trials["state"] == "pruned"]), ("complete", s.searched)):
        rows = thin_out(
            rows[rows[hyperparameter].notna() & rows[objective].notna()],
            MOST_MARKS if state == "complete" else MOST_MARKS // 2,
        )
        x, _ = hyperparameter_axis("", domain, rows[hyperparameter])
        if state == "pruned":
            drawn.add_scatter(
                x=x,
                y=rows[objective].tolist(),
                mode="markers",
                name="pruned (score when stopped)",
                marker={"symbol": "x-thin-open", "size": 7, "color": GREY, "line": {"width": 1.2, "color": GREY}},
                showlegend=bool(len(rows)) and bool(colour),
                **hover(s, rows),
            )
        else:
            draw_trials(drawn, s, rows, x=x, y=objective, name="", colour=colour)
    front = s.front[s.front[hyperparameter].notna()]
    if not colour:
        x, _ = hyperparameter_axis("", domain, front[hyperparameter])
        drawn.add_scatter(
            x=x,
            y=front[objective].tolist(),
            mode="markers",
            name="on the front",
            showlegend=False,
            marker={"size": 8, "color": VERMILLION},
            **hover(s, front),
        )
    else:
        ring_best(drawn, s, hyperparameter, objective)
    _, axis = hyperparameter_axis(axis_label(hyperparameter), domain, s.searched[hyperparameter].dropna())
    drawn.update_xaxes(axis)
    drawn.update_yaxes(title={"text": axis_label(objective)})
    if objective == "sparsity":
        _sparsity_upwards(drawn, s)
    elif objective == "file_bytes":
        drawn.update_yaxes(axes.size_axis(axis_label(objective), s.searched[objective]))
    else:
        draw_baseline_levels(drawn, s, band=bool(colour), labelled=bool(colour))
        kept = pd.concat([s.searched[objective].quantile([0.05, 1.0]), s.baselines[objective]])
        drawn.update_yaxes(range=focus(kept, s.searched[objective]))
    return drawn


def _sparsity_upwards(drawn: go.Figure, s: Summary) -> None:
    for trace in drawn.data:
        trace.y = axes.remaining_percent(trace.y)
    axis = axes.complement_axis(axis_label("sparsity"), 100.0, axes.remaining_percent(s.searched["sparsity"]))
    drawn.update_yaxes({**axis})


def accuracy_slice(s: Summary, name: str, colour: str) -> ReportFigure:
    drawn = slice_of(s.study, name, "val_accuracy", height=520, colour=colour)
    hued = column_label(colour)
    caption = f"Each mark is a trial, coloured by its {hued}; lines are the baselines."
    if s.reference is not None and np.isfinite(s.error):
        caption += f" The grey band is one standard error around the {s.reference['baseline']}."
    alt = (
        f"Scatter plot of validation accuracy against {column_label(name)} for "
        f"{counted(len(s.searched), 'trial')} with the baselines as level lines; {best_trial_note(s)}"
    )
    return ReportFigure(
        "main",
        drawn,
        f"Validation accuracy against {column_label(name)}.",
        caption + below_axis_note(s, drawn) + sampling_note(s),
        alt,
    )


def compression_slices(s: Summary, t: TradeOffs) -> list[FigureGroup]:
    found: list[FigureGroup] = []
    for objective in s.study.objectives:
        items: list[ReportFigure] = []
        for name in s.study.hyperparameters:
            if not pd.api.types.is_numeric_dtype(s.searched[name]) or s.searched[name].isna().all():
                continue
            drawn = slice_of(s.study, name, objective, height=300)
            mean = importance.overlay(drawn, t, objective, name)
            items.append(
                ReportFigure(
                    f"slice-{len(found)}-{len(items)}",
                    drawn,
                    capitalise(f"{column_label(objective)} by {column_label(name)}."),
                    "Vermillion marks are on the front." + mean + below_axis_note(s, drawn, objective),
                    f"Scatter plot of {label(objective)} against {column_label(name)} for "
                    f"{counted(len(s.searched), 'trial')}.",
                )
            )
        found.append(FigureGroup(f"What moves {column_label(objective)}", items, narrow=True))
    return found
