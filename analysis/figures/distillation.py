"""Where distillation helps: the plane of temperature and alpha."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes, slices, theme
from analysis.figures.axes import hyperparameter_axis
from analysis.figures.item import FigureGroup, ReportFigure
from analysis.figures.theme import GREY, axis_label, figure
from analysis.figures.trial_marks import MOST_MARKS, below_axis_note, best_trial_note, hover, ring_best, thin_out
from analysis.formatting import column_label
from analysis.stats.summary import Summary, summarise
from study.records.study_folder import Study


def accuracy_plane(study: Study) -> go.Figure:
    """KD: each trial at its temperature and alpha, coloured by its gain over the student alone."""
    s = summarise(study)
    drawn = figure(height=420)
    stopped = s.trials[s.trials["state"].isin(["pruned", "failed"]) & (s.trials["baseline"] == "")]
    for state, symbol in (("pruned", "x-thin-open"), ("failed", "triangle-down-open")):
        rows = thin_out(stopped[stopped["state"] == state], MOST_MARKS // 2)
        drawn.add_scatter(
            x=rows["temperature"].tolist(),
            y=rows["alpha"].tolist(),
            mode="markers",
            name=state,
            marker={"symbol": symbol, "size": 8, "color": GREY, "line": {"color": GREY, "width": 1.4}},
            showlegend=bool(len(rows)),
            **hover(s, rows),
        )
    rows = thin_out(s.searched).sort_values("val_accuracy")
    drawn.add_scatter(
        x=rows["temperature"].tolist(),
        y=rows["alpha"].tolist(),
        mode="markers",
        name="complete",
        showlegend=False,
        marker={"size": 13, "line": {"color": GREY, "width": 0.6}, **_gain_colours(s, rows)},
        **hover(s, rows),
    )
    ring_best(drawn, s, x="temperature", y="alpha")
    _, axis = hyperparameter_axis(axis_label("temperature"), study.meta["space"]["temperature"], [])
    drawn.update_xaxes(axis)
    drawn.update_yaxes(title={"text": axis_label("alpha")}, range=[-0.04, 1.04])
    return drawn


def _gain_colours(s: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    """Blue below the reference, orange above it; bad trials saturate instead of washing out the rest."""
    scores = rows["val_accuracy"]
    if s.reference is None or scores.empty:
        return {
            "color": scores.tolist(),
            "colorscale": theme.SEQUENTIAL,
            "colorbar": axes.colour_bar(axis_label("val_accuracy")),
        }
    gains = scores - float(s.reference["val_accuracy"])
    limit = max(abs(float(gains.quantile(0.1))), abs(float(gains.max())), 0.1)
    return {
        "color": gains.round(4).tolist(),
        "colorscale": theme.DIVERGING,
        "cmin": -limit,
        "cmid": 0,
        "cmax": limit,
        "colorbar": axes.colour_bar("gain over the student alone (points)"),
    }


def distillation_figures(s: Summary) -> list[FigureGroup]:
    if not {"temperature", "alpha"} <= set(s.study.hyperparameters):
        return []
    plane = ReportFigure(
        "plane",
        accuracy_plane(s.study),
        "Where distillation helps.",
        "Temperature and weight of the soft targets together; crosses were pruned, triangles failed. "
        "The ring is the best trial.",
        f"Scatter plot of trials over temperature and alpha, coloured by accuracy; {best_trial_note(s)}",
    )
    other = slices.slice_of(s.study, "alpha", "val_accuracy", height=420, colour="temperature")
    alpha = ReportFigure(
        "alpha",
        other,
        f"Validation accuracy against {column_label('alpha')}.",
        "The same trials, coloured by their temperature; lines are the baselines." + below_axis_note(s, other),
        f"Scatter plot of validation accuracy against alpha with the baselines as level lines; {best_trial_note(s)}",
    )
    return [FigureGroup("Temperature and soft-target weight", [plane, alpha])]
