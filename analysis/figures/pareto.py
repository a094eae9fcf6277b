"""Studies as Plotly figures. Each function returns one `go.Figure`, for the report and for a notebook alike.

Marks that stand for a trial carry its id as `customdata`; the page finds a clicked trial in every figure by it.
Names and reasons come from the study and are escaped, since Plotly renders a little HTML in hovers and legends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes, theme, trial_marks
from analysis.figures.axes import focus
from analysis.figures.item import ReportFigure
from analysis.figures.theme import GREEN, GREY, PURPLE, VERMILLION, axis_label, escape, figure
from analysis.figures.trial_marks import (
    ON_TEST_DATA,
    below_axis_note,
    draw_baseline_levels,
    draw_ring,
    draw_trials,
    sampling_note,
    size_positions,
)
from analysis.formatting import column_label, counted, format_cell, format_percent
from analysis.stats.published import published
from analysis.stats.summary import REFERENCE, Summary, summarise
from study.records.columns import COLUMNS, label
from study.records.study_folder import Study


def accuracy_vs_size(study: Study) -> go.Figure:
    """Validation accuracy against sparsity, or the compressed file's size where that is the objective: every complete
    trial, the front, the reference with its standard error, other baselines, published results (over sparsity alone,
    since papers give no files) and, where they exist, test results of the front."""
    s = summarise(study)
    drawn = figure(height=520)
    draw_trials(drawn, s, s.searched, x=size_positions(s, s.searched), y="val_accuracy", name="trial")
    draw_baseline_levels(drawn, s, band=True)
    front = s.front
    drawn.add_scatter(
        x=size_positions(s, front),
        y=front["val_accuracy"].tolist(),
        mode="lines+markers",
        name="Pareto front",
        line={"color": VERMILLION, "width": 2, "shape": "vh"},
        marker={"size": 9, "color": VERMILLION},
        **trial_marks.hover(s, front),
    )
    others = s.baselines[s.baselines["baseline"] != REFERENCE[s.study.meta["kind"]]]
    drawn.add_scatter(
        x=size_positions(s, others),
        y=others["val_accuracy"].tolist(),
        mode="markers",
        name=_names(others),
        marker={"size": 12, "symbol": "square", "color": GREEN},
        showlegend=bool(len(others)),
        **trial_marks.hover(s, others),
    )
    if s.best is not None:
        draw_ring(drawn, size_positions(s, pd.DataFrame([s.best])), [s.best["val_accuracy"]], "the answer at the top")
    tested, fresh, papers = _tested(drawn, s), _draw_fresh_seeds(drawn, s), _published(drawn, s)
    if s.least_accuracy is not None:
        drawn.add_hline(y=s.least_accuracy, line={"color": GREY, "width": 1, "dash": "dot"})
    if s.size == "sparsity":
        shown = pd.concat([rows["sparsity"] for rows in (s.searched, others, papers, tested, fresh)])
        drawn.update_xaxes(axes.complement_axis("weights at zero, sparsity (%)", 100.0, axes.remaining_percent(shown)))
    else:
        drawn.update_xaxes(axes.size_axis(axis_label(s.size), [*s.searched[s.size], *others[s.size]]))
    half = fresh.reindex(columns=["test_half"])["test_half"].fillna(0.0)
    kept = pd.concat(
        [
            front["val_accuracy"],
            s.baselines["val_accuracy"],
            fresh["test_accuracy"] - half,
            fresh["test_accuracy"] + half,
            papers["test_accuracy"],
            tested["test_accuracy"],
        ]
    ).astype(float)
    drawn.update_yaxes(title={"text": "accuracy (%)"}, range=focus(kept, s.searched["val_accuracy"]))
    return drawn


def _tested(drawn: go.Figure, s: Summary) -> pd.DataFrame:
    tested = _compressed(s, s.tested)
    if len(tested):
        drawn.add_scatter(
            x=size_positions(s, tested),
            y=tested["test_accuracy"].tolist(),
            mode="markers",
            name=ON_TEST_DATA[0],
            marker={"size": 9, "symbol": "diamond-open", "color": VERMILLION, "line": {"width": 1.6}},
            text=[_at(s, row, row["test_accuracy"], "one seed") for row in tested.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
            customdata=tested["trial_id"].tolist(),
        )
    return tested


def _draw_fresh_seeds(drawn: go.Figure, s: Summary) -> pd.DataFrame:
    fresh = _compressed(s, s.fresh)
    if len(fresh):
        said = [
            _at(s, row, row["test_accuracy"], f"mean of {counted(row['seeds'], 'fresh seed')}", row["test_half"])
            for row in fresh.to_dict("records")
        ]
        drawn.add_scatter(
            x=size_positions(s, fresh),
            y=fresh["test_accuracy"].tolist(),
            mode="markers",
            name=ON_TEST_DATA[1],
            marker={"size": 9, "symbol": "diamond", "color": theme.ORANGE, "line": {"width": 1, "color": VERMILLION}},
            error_y={
                "type": "data",
                "array": fresh["test_half"].fillna(0.0).tolist(),
                "thickness": 1.6,
                "width": 4,
                "color": theme.ORANGE,
            },
            text=said,
            hovertemplate="%{text}<extra></extra>",
            customdata=fresh["trial_id"].tolist(),
        )
    return fresh


def _compressed(s: Summary, rows: pd.DataFrame) -> pd.DataFrame:
    """Of tested rows those that have a place on the axis of size."""
    if s.size not in rows:
        return pd.DataFrame(columns=[s.size, "test_accuracy"])
    return rows[(rows["baseline"] != REFERENCE[s.study.meta["kind"]]) & rows[s.size].notna()]


def _at(s: Summary, row: dict[Any, Any], accuracy: float, how: str, half: float = np.nan) -> str:
    return (
        f"<b>{escape(row['baseline'] or row['trial_id'])}</b>, test data<br>{format_percent(accuracy, half)} at "
        f"{format_cell(s.size, row[s.size])} {COLUMNS[s.size].unit} {COLUMNS[s.size].label}<br>{how}; search saw "
        f"{row['search_val_accuracy']:.2f} % on validation"
    )


def _published(drawn: go.Figure, s: Summary) -> pd.DataFrame:
    papers = published(s.study.meta) if s.size == "sparsity" else published({})
    hover = [
        f"<b>{r.method}</b><br>MNIST test {r.test_accuracy:.2f} % at {r.sparsity:.1f} % sparsity<br>"
        f"published rate {r.rate:.0f}×: {r.definition}<br>{r.source}"
        for r in papers.itertuples()
    ]
    if len(papers):
        drawn.add_scatter(
            x=size_positions(s, papers),
            y=papers["test_accuracy"].tolist(),
            mode="markers",
            name=ON_TEST_DATA[2],
            marker={"size": 11, "symbol": "star", "color": PURPLE, "line": {"width": 0}},
            text=hover,
            hovertemplate="%{text}<extra></extra>",
        )
    return papers


def _names(rows: pd.DataFrame) -> str:
    """In the legend; longer than this a name would take a line of a phone's screen for itself."""
    names = ", ".join(rows["baseline"].unique())
    return escape(names) if names and len(names) <= 30 else "other baselines"


def front_figure(s: Summary) -> ReportFigure:
    shown = s.searched[s.size]
    scale = (
        "sparsity axis is logarithmic in the weights that remain"
        if s.size == "sparsity"
        else "axis of file sizes is logarithmic and runs backwards"
    )
    caption = f"Up and to the right is better. The {scale}."
    if s.reference is not None and np.isfinite(s.error):
        caption += f" The grey band is one standard error around the baseline “{s.reference['baseline']}”."
    if not s.tested.empty:
        caption += " Open diamonds are the same networks on test data."
    if not s.fresh.empty:
        caption += " Filled ones are means over fresh seeds on test data, with 95 % intervals."
    if s.least_accuracy is not None:
        caption += f" Trials below {s.least_accuracy:g} % (dotted line) cannot be on the front."
    drawn = accuracy_vs_size(s.study)
    if any(trace.name == trial_marks.ON_TEST_DATA[2] for trace in drawn.data):
        caption += " Published results are test accuracies under their authors’ protocols."
    caption += below_axis_note(s, drawn, front=True)
    alt = (
        f"Scatter plot of validation accuracy against {label(s.size)} for "
        f"{counted(len(s.searched), 'trial')}, from {format_cell(s.size, shown.min())} to "
        f"{format_cell(s.size, shown.max())}; "
        f"{counted(len(s.front), 'trial')} form{'s' * (len(s.front) == 1)} the Pareto front."
    )
    return ReportFigure("main", drawn, f"Accuracy against {column_label(s.size)}.", caption + sampling_note(s), alt)
