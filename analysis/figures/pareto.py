"""The main figure of a study with two objectives: validation accuracy against what it costs, with the Pareto front.

Marks that stand for a trial carry its id as `customdata`; the page finds a clicked trial in every figure by it.
Names and reasons come from the study and are escaped, since Plotly renders a little HTML in hovers and legends.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import trial_marks
from analysis.figures.axes import (
    Axis,
    better_is_right,
    focus,
    is_outside,
    objective_axis,
    objective_column,
    positions,
    scale_sentence,
)
from analysis.figures.report_figure import ReportFigure
from analysis.figures.theme import GREEN, GREY, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.figures.trial_marks import draw_baseline_levels, draw_ring, draw_trials, has_band, sampling_note
from analysis.formatting import below_axis_sentence, counted, format_cell, format_percent, not_drawn_sentence
from analysis.stats.names import ACCURACY, TEST_ACCURACY
from analysis.stats.published import published
from analysis.stats.summary import Summary, summarise
from study.records.columns import Column
from study.records.study_folder import Study

TESTED, FRESH, PAPERS = "on test data", "fresh seeds, on test data", "published (test data)"
"""Names of the traces whose marks are test accuracies."""


@dataclass(frozen=True)
class FrontData:
    """What the figure shows.

    Attributes:
        cost: the column on the horizontal axis, with the direction of the objective.
        front: the Pareto front, the best in cost last, as its line goes.
        others: baselines other than the reference, which is a level line.
        tested: the search's own networks on test data, those that have a place on the axis of cost.
        fresh: means over fresh seeds on test data, likewise.
        papers: published results, likewise; see `published`.
        papers_left_out: how many others there are for this network, which do not count this cost.
        accuracies: range of the accuracy axis, see `focus`; None where nothing has an accuracy.
        costs: the axis of cost; networks that guess stretch neither of the two.
    """

    summary: Summary
    cost: Column
    front: pd.DataFrame
    others: pd.DataFrame
    tested: pd.DataFrame
    fresh: pd.DataFrame
    papers: pd.DataFrame
    papers_left_out: int
    accuracies: list[float] | None
    costs: Axis


def front_data(s: Summary) -> FrontData:
    """Compute what the figure of a study that has a cost shows."""
    cost = objective_column(s.study, s.cost)
    every_paper = published(s.study.meta)
    papers = every_paper.reindex(columns=list(dict.fromkeys([*every_paper.columns, s.cost]))).dropna(subset=[s.cost])
    tested, fresh = _with_cost(s, s.tested), _with_cost(s, s.fresh)
    half = fresh.reindex(columns=["test_half"])["test_half"].fillna(0.0)
    important = [
        s.front[ACCURACY],
        s.baselines.loc[s.told(s.baselines), ACCURACY],
        fresh[TEST_ACCURACY] - half,
        fresh[TEST_ACCURACY] + half,
        papers[TEST_ACCURACY],
        tested[TEST_ACCURACY],
    ]
    others = s.baselines[s.baselines["baseline"] != s.reference_name]
    told = [s.sets_axis(s.searched), others[s.told(others)], papers, tested, fresh]
    return FrontData(
        summary=s,
        cost=cost,
        front=s.front.sort_values(s.cost, ascending=cost.direction != "min", kind="stable"),
        others=others,
        tested=tested,
        fresh=fresh,
        papers=papers,
        papers_left_out=len(every_paper) - len(papers),
        accuracies=focus(pd.concat(important).astype(float), s.sets_axis(s.searched)[ACCURACY]),
        costs=objective_axis(
            cost,
            [value for rows in told for value in rows[s.cost].astype(float)],
            beyond=[*s.searched[s.cost], *others[s.cost]],
        ),
    )


def _with_cost(s: Summary, rows: pd.DataFrame) -> pd.DataFrame:
    """Of tested rows those that have a place on the axis of cost."""
    if s.cost not in rows:
        return pd.DataFrame(columns=["baseline", s.cost, TEST_ACCURACY])
    rows = rows.assign(**{s.cost: pd.to_numeric(rows[s.cost], errors="coerce")})
    return rows[(rows["baseline"] != s.reference_name) & rows[s.cost].notna()]


def accuracy_vs_cost(study: Study) -> go.Figure:
    """Validation accuracy against the other objective: every complete trial, the front, the reference with its standard
    error, other baselines and, where they exist, published results and test results of the front."""
    return draw_front(front_data(summarise(study)))


def draw_front(data: FrontData) -> go.Figure:
    """The figure of `front_data`."""
    s, cost, front, drawing = data.summary, data.cost, data.front, figure(height=520)
    draw_trials(drawing, s, s.searched, positions(cost, s.searched[s.cost]), s.searched[ACCURACY].tolist(), "trial")
    draw_baseline_levels(drawing, s, band=True)
    drawing.add_scatter(
        x=positions(cost, front[s.cost]),
        y=front[ACCURACY].tolist(),
        # With a third objective the front is a surface, and a line through its members would show no trade-off.
        mode="lines+markers" if len(s.study.objectives) == 2 else "markers",
        name="Pareto front",
        line={"color": VERMILLION, "width": 2, "shape": "vh"},
        marker={"size": 9, "color": VERMILLION},
        **trial_marks.hover(s, front),
    )
    drawing.add_scatter(
        x=positions(cost, data.others[s.cost]),
        y=data.others[ACCURACY].tolist(),
        mode="markers",
        name=_names(data.others),
        marker={"size": 12, "symbol": "square", "color": GREEN},
        showlegend=bool(len(data.others)),
        **trial_marks.hover(s, data.others),
    )
    if s.best is not None:
        draw_ring(drawing, positions(cost, [s.best[s.cost]]), [s.best[ACCURACY]], "headline trial (see top)")
    _draw_test_results(drawing, data)
    if s.least_accuracy is not None:
        drawing.add_hline(y=s.least_accuracy, line={"color": GREY, "width": 1, "dash": "dot"})
    drawing.update_xaxes(data.costs)
    drawing.update_yaxes(title={"text": "accuracy (%)"}, range=data.accuracies)
    return drawing


def _draw_test_results(drawing: go.Figure, data: FrontData) -> None:
    """Add the marks of those test accuracies that there are, each with its text."""
    fresh = data.fresh.to_dict("records")
    if len(data.tested):
        texts = [_hover(data, row, row[TEST_ACCURACY], _one_seed(row)) for row in data.tested.to_dict("records")]
        look = {"size": 9, "symbol": "diamond-open", "color": VERMILLION, "line": {"width": 1.6}}
        _draw_marks(drawing, data, data.tested, TESTED, texts, look)
    if len(fresh):
        seeds = [f"mean of {counted(row['seeds'], 'fresh seed')}" for row in fresh]
        texts = [
            _hover(data, row, row[TEST_ACCURACY], how, row["test_half"]) for row, how in zip(fresh, seeds, strict=True)
        ]
        look = {"size": 9, "symbol": "diamond", "color": ORANGE, "line": {"width": 1, "color": VERMILLION}}
        halves = data.fresh["test_half"].fillna(0.0).tolist()
        bars = {"type": "data", "array": halves, "thickness": 1.6, "width": 4, "color": ORANGE}
        _draw_marks(drawing, data, data.fresh, FRESH, texts, look, error_y=bars)
    if len(data.papers):
        texts = [
            f"<b>{r['method']}</b><br>test accuracy {r[TEST_ACCURACY]:.2f} % at {_cost_text(data, r, 1)}<br>"
            f"published rate {r['rate']:.0f}×: {r['definition']}<br>{r['source']}"
            for r in data.papers.to_dict("records")
        ]
        look = {"size": 11, "symbol": "star", "color": PURPLE, "line": {"width": 0}}
        _draw_marks(drawing, data, data.papers, PAPERS, texts, look)


def _draw_marks(
    drawing: go.Figure,
    data: FrontData,
    rows: pd.DataFrame,
    name: str,
    texts: list[str],
    look: dict[str, Any],
    **more: Any,
) -> None:
    if "trial_id" in rows:
        more["customdata"] = rows["trial_id"].tolist()
    drawing.add_scatter(
        x=positions(data.cost, rows[data.summary.cost]),
        y=rows[TEST_ACCURACY].tolist(),
        mode="markers",
        name=name,
        marker=look,
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        **more,
    )


def _hover(data: FrontData, row: dict[Any, Any], accuracy: float, how: str, half: float = np.nan) -> str:
    return (
        f"<b>{escape(row['baseline'] or row['trial_id'])}</b>, test data<br>{format_percent(accuracy, half)} at "
        f"{_cost_text(data, row)}<br>{how}; search saw {row['search_val_accuracy']:.2f} % on validation"
    )


def _one_seed(row: dict[Any, Any]) -> str:
    """What a network of the search is, with its own accuracy where the search saw a mean over seeds."""
    own = row["own_val_accuracy"]
    return "one seed" if own == row["search_val_accuracy"] else f"one seed, {own:.2f} % on validation itself"


def _cost_text(data: FrontData, row: dict[Any, Any], digits: int | None = None) -> str:
    """Such as "97.25 % sparsity"."""
    column = data.cost if digits is None else dataclasses.replace(data.cost, digits=digits)
    number = format_cell(column, row[data.summary.cost])
    return escape(" ".join(part for part in (number, column.unit, column.label) if part))


def _names(rows: pd.DataFrame) -> str:
    """In the legend; longer than this a name would take a line of a phone's screen for itself."""
    names = ", ".join(rows["baseline"].unique())
    return escape(names) if names and len(names) <= 30 else "other baselines"


def front_figure(s: Summary) -> ReportFigure:
    """Accuracy against cost, with its words."""
    data = front_data(s)
    name, costs = data.cost.label, s.searched[s.cost]
    unit = f" ({data.cost.unit})" if data.cost.unit else ""
    ends = [format_cell(data.cost, end) for end in (costs.min(), costs.max())]
    alt = (
        f"Scatter plot of validation accuracy against {name}{unit} for {counted(len(s.searched), 'trial')}, from "
        f"{ends[0]} to {ends[1]}; {counted(len(s.front), 'trial')} form{'s' * (len(s.front) == 1)} the Pareto front."
    )
    return ReportFigure("main", draw_front(data), f"Accuracy against {name}.", _caption(data), alt)


def _caption(data: FrontData) -> str:
    s = data.summary
    sentences = [f"Up and to the {'right' if better_is_right(data.cost) else 'left'} is better."]
    sentences[0] += scale_sentence(data.cost)
    if s.reference is not None and has_band(s):
        sentences.append(f"The grey band is one standard error around the baseline “{s.reference['baseline']}”.")
    if len(data.tested):
        sentences.append("Open diamonds are the same networks on test data.")
    if len(data.fresh):
        sentences.append("Filled diamonds are means over fresh seeds on test data, with 95 % intervals.")
    if s.least_accuracy is not None:
        sentences.append(f"Trials below {s.least_accuracy:g} % (dotted line) cannot be on the front.")
    if len(data.papers):
        sentences.append("Published results are test accuracies under their authors’ protocols.")
        if data.papers_left_out:
            others = counted(data.papers_left_out, "other published result")
            verb = "report" if data.papers_left_out > 1 else "reports"
            sentences.append(f"{others} of this network {verb} no {data.cost.label}.")
    missing = int(s.searched[[s.cost, ACCURACY]].isna().any(axis=1).sum())
    left_out = not_drawn_sentence(missing, "trial", f"accuracy or {data.cost.label}")
    return " ".join(sentences) + _below_axis(data) + left_out + sampling_note(s)


def _below_axis(data: FrontData) -> str:
    if data.accuracies is None:
        return ""
    return below_axis_sentence(
        data.accuracies[0],
        {
            # A network that guesses lies below all others, or to the side of them.
            "trial": data.summary.searched[ACCURACY].mask(
                is_outside(data.cost, data.costs, data.summary.searched[data.summary.cost]), -np.inf
            ),
            "baseline": data.summary.baselines[ACCURACY],
            "test result": [y for rows in (data.tested, data.fresh, data.papers) for y in rows[TEST_ACCURACY]],
        },
    )
