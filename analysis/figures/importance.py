"""Which hyperparameter moves what: shares of variance with their intervals, and the figures that follow from them."""

from __future__ import annotations

import textwrap

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.effects import GIVEN, effect_figure
from analysis.figures.interactions import interaction_figures, pair_figures
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, ORANGE, escape, figure
from analysis.stats.importance import ANOVA, PED, TradeOffs

MARKS = {ANOVA: (BLUE, "circle"), PED: (ORANGE, "diamond-open")}
ROW, HEADING, CHROME = 34, 66, 116
"""Heights in pixels of a hyperparameter's row, of a target's heading with the ticks above it, and of all the rest."""

MOVES = "Which hyperparameter moves what"


def importances(t: TradeOffs) -> go.Figure:
    """Every hyperparameter's share with its 95 % interval, by both measures, one panel a target."""
    frame = t.importances()
    keys, names = list(t.targets), t.names
    height = CHROME + max(1, len(keys)) * (HEADING + ROW * max(1, len(names)))
    drawing = figure(height=height)
    if not keys:
        return drawing
    gap = min(HEADING / (height - CHROME), 0.9 / max(1, len(keys) - 1)) if len(keys) > 1 else 0.0
    drawing = make_subplots(rows=len(keys), cols=1, shared_xaxes=True, vertical_spacing=gap, figure=drawing)
    for i, key in enumerate(keys, start=1):
        for measure, (colour, symbol) in MARKS.items():
            rows = frame[(frame["target"] == key) & (frame["measure"] == measure)].iloc[::-1]
            if len(rows):
                labels = [escape(t.summary.column(name).label) for name in rows["hyperparameter"]]
                _draw_shares(drawing, rows, labels, measure, colour, symbol, i)
        _draw_heading(drawing, t.targets[key].title, i)
    drawing.update_xaxes(range=[-0.02, 1.03], tickformat=".0%", showticklabels=True)
    drawing.update_xaxes(title={"text": "share"}, row=len(keys), col=1)
    drawing.update_layout(
        scattermode="group",
        scattergap=0.5,
        height=height,
        margin={"t": 82},
        legend={"xref": "container", "x": 0.02, "yref": "container", "y": 0.99, "yanchor": "top"},
    )
    return drawing


def _draw_shares(
    drawing: go.Figure, rows: pd.DataFrame, labels: list[str], measure: str, colour: str, symbol: str, panel: int
) -> None:
    drawing.add_scatter(
        x=rows["share"].tolist(),
        y=labels,
        mode="markers",
        name=measure,
        legendgroup=measure,
        showlegend=panel == 1,
        offsetgroup=measure,
        orientation="h",
        marker={"size": 10, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (rows["high"] - rows["share"]).tolist(),
            "arrayminus": (rows["share"] - rows["low"]).tolist(),
            "thickness": 2,
            "width": 4,
            "color": colour,
        },
        text=[
            f"{measure}: {share:.0%}, 95 % interval {low:.0%} to {high:.0%}"
            for share, low, high in zip(rows["share"], rows["low"], rows["high"], strict=True)
        ],
        hovertemplate="%{text}<extra>%{y}</extra>",
        row=panel,
        col=1,
    )


def _draw_heading(drawing: go.Figure, title: str, panel: int) -> None:
    axis = "y" if panel == 1 else f"y{panel}"
    lines = "<br>".join(escape(line) for line in textwrap.wrap(title, 36))
    drawing.add_annotation(
        text=f"<b>{lines}</b>",
        xref="paper",
        yref=f"{axis} domain",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        align="left",
        font={"size": 12},
    )


def importance_groups(t: TradeOffs) -> list[FigureGroup]:
    """Shares of variance, the two that act together, and what moves accuracy among the trials of a low cost; a sentence
    in their place where the trials carry none of it."""
    notes = " ".join(t.notes)
    if not t.targets:
        return [FigureGroup(MOVES, [], lead=notes)] if notes else []
    groups = [FigureGroup(MOVES, [_shares_figure(t), *interaction_figures(t), *pair_figures(t)], lead=notes)]
    if GIVEN in t.targets:
        effects = [effect_figure(t, GIVEN, name) for name in t.names]
        groups.append(FigureGroup(t.targets[GIVEN].title, effects, narrow=True))
    return groups


def _shares_figure(t: TradeOffs) -> ReportFigure:
    frame = t.importances()
    alone = frame[frame["measure"] == ANOVA].sort_values("share").groupby("target")["hyperparameter"].last()
    largest = [f"{target.title}: {t.summary.column(alone[key]).label}" for key, target in t.targets.items()]
    details = " ".join(target.detail for target in t.targets.values() if target.detail)
    return ReportFigure(
        "importance",
        importances(t),
        "Shares of what the trials differ by.",
        "Functional ANOVA (Hutter et al. 2014): the share of the variance over the complete search space that one "
        "hyperparameter causes by itself. PED-ANOVA (Watanabe et al. 2023): what the best quarter of trials "
        "has in common; these shares sum to 1, so they are above 0 even where nothing matters. Bars are 95 % "
        f"intervals over random halves of the trials. {details}".strip(),
        f"Dot plot of importances with intervals. Largest by functional ANOVA: {'; '.join(largest)}.",
    )
