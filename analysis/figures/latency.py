"""Accuracy against measured latency, next to accuracy against size, for a study with `--measure latency`."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.figures import trial_marks
from analysis.figures.axes import focus, objective_axis, positions
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import GREEN, GREY, VERMILLION, figure
from analysis.figures.trial_marks import draw_baseline_levels, draw_ring, draw_trials, sampling_note
from analysis.formatting import counted
from analysis.stats.names import ACCURACY, LATENCY_RATIO
from analysis.stats.pareto_front import pareto_front
from analysis.stats.summary import Summary


def latency_groups(s: Summary) -> list[FigureGroup]:
    """The figure, where trials have a measured latency and the main figure is not about it already."""
    if LATENCY_RATIO not in s.searched or s.has_cost and s.cost == LATENCY_RATIO:
        return []
    rows = s.searched[s.searched[[LATENCY_RATIO, ACCURACY]].notna().all(axis=1)]
    able = rows[s.told(rows)]  # a network that guesses is on no front
    if able.empty:
        return []
    front = pareto_front(able, {ACCURACY: "max", LATENCY_RATIO: "min"}).sort_values(LATENCY_RATIO, ascending=False)
    fastest = float(able[LATENCY_RATIO].min())
    caption = (
        "Up and to the right is better: less accuracy lost, and less time for one image on one CPU thread, after "
        f"exact shrinking. Latency is divided by that of “{s.shared_baseline}”, which was run in turn with each trial; "
        "1 is as fast as it. The line is the front of these two alone, whatever the study searched for."
        f"{sampling_note(s)}"
    )
    alt = (
        f"Scatter plot of validation accuracy against the ratio of latencies for {counted(len(rows), 'trial')}; the "
        f"smallest ratio is {fastest:.2f}."
    )
    drawn = ReportFigure("latency", _draw(s, rows, front), "Accuracy against latency.", caption, alt)
    return [FigureGroup("Measured latency", [drawn])]


def _draw(s: Summary, rows: pd.DataFrame, front: pd.DataFrame) -> go.Figure:
    column, able = s.column(LATENCY_RATIO), rows[s.told(rows)]
    level = [] if s.reference is None else [s.reference[ACCURACY]]
    drawing = figure(height=480)
    draw_trials(drawing, s, rows, positions(column, rows[LATENCY_RATIO]), rows[ACCURACY].tolist(), "trial")
    draw_baseline_levels(drawing, s, band=True)
    drawing.add_scatter(
        x=positions(column, front[LATENCY_RATIO]),
        y=front[ACCURACY].tolist(),
        mode="lines+markers",
        name="front",
        line={"color": VERMILLION, "width": 2, "shape": "vh"},
        marker={"size": 9, "color": VERMILLION},
        **trial_marks.hover(s, front),
    )
    others = s.baselines[s.baselines["baseline"] != s.reference_name]
    others = others[others.reindex(columns=[LATENCY_RATIO])[LATENCY_RATIO].notna()]
    if len(others):
        drawing.add_scatter(
            x=positions(column, others[LATENCY_RATIO]),
            y=others[ACCURACY].tolist(),
            mode="markers",
            name="other baselines",
            marker={"size": 12, "symbol": "square", "color": GREEN},
            **trial_marks.hover(s, others),
        )
    if s.best is not None and s.best.get(LATENCY_RATIO) == s.best.get(LATENCY_RATIO, float("nan")):
        draw_ring(drawing, positions(column, [s.best[LATENCY_RATIO]]), [s.best[ACCURACY]], "headline trial (see top)")
    drawing.add_vline(x=1, line={"color": GREY, "width": 1, "dash": "dot"})
    drawing.update_xaxes(
        objective_axis(
            column, [1.0, *able[LATENCY_RATIO]], beyond=[*rows[LATENCY_RATIO], *others.get(LATENCY_RATIO, ())]
        )
    )
    drawing.update_yaxes(
        title={"text": "validation accuracy (%)"}, range=focus([*front[ACCURACY], *level], able[ACCURACY])
    )
    return drawing
