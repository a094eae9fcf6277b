"""One objective against one hyperparameter, for every pair of them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.figures import effects
from analysis.figures.axes import Axis, focus, is_outside, objective_axis, objective_column, positions
from analysis.figures.hyperparameters import domain_of, drawable, hyperparameter_axis, hyperparameter_positions
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import GREY, VERMILLION, axis_title, figure
from analysis.figures.trial_marks import (
    MOST_MARKS,
    best_trial_note,
    draw_baseline_levels,
    draw_ring,
    draw_trials,
    has_band,
    hover,
    levels,
    sampling_note,
    stopped,
    thin_out,
)
from analysis.formatting import below_axis_sentence, capitalise, counted, not_drawn_sentence
from analysis.stats.importance import TradeOffs
from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary, summarise
from study.records.study_folder import Study


def accuracy_range(s: Summary) -> list[float] | None:
    """Range of the accuracy axis of a slice: the best 95 % of the trials and the baselines."""
    scores = s.sets_axis(s.searched)[ACCURACY]
    levels_told = s.baselines.loc[s.told(s.baselines), ACCURACY]
    return focus(pd.concat([scores.quantile([0.05, 1.0]), levels_told]), scores)


def below_axis_note(s: Summary, objective: str = ACCURACY) -> str:
    """How many trials and baselines `accuracy_range` leaves out, with a space before it; "" for another objective,
    whose axis has room for all trials but those that guess."""
    window = accuracy_range(s)
    if objective != ACCURACY:
        outside = sum(is_outside(objective_column(s.study, objective), _axis(s, objective), s.searched[objective]))
        lie = "lies" if outside == 1 else "lie"
        return f" {counted(outside, 'guessing trial')} {lie} outside the visible range." if outside else ""
    if window is None:
        return ""
    trials = [*s.searched[ACCURACY], *stopped(s)[ACCURACY]]
    return below_axis_sentence(window[0], {"trial": trials, "baseline": levels(s)[ACCURACY]})


def missing_note(s: Summary, hyperparameter: str, objective: str) -> str:
    """How many complete trials have no place in a slice, with a space before it; "" for none."""
    missing = len(s.searched) - len(_with_both(s.searched, hyperparameter, objective))
    return not_drawn_sentence(
        missing, "complete trial", f"{s.column(hyperparameter).label} or {s.column(objective).label}"
    )


def slice_of(study: Study, hyperparameter: str, objective: str, height: int = 340, colour: str = "") -> go.Figure:
    """One objective against one hyperparameter; of accuracy with the baselines as level lines.

    Args:
        colour: another hyperparameter that colours the trials; without it the front is told apart by colour.
    """
    s = summarise(study)
    drawing, domain, column = (
        figure(height=height),
        domain_of(study, hyperparameter),
        objective_column(study, objective),
    )
    _draw_stopped(drawing, s, hyperparameter, objective, bool(colour))
    rows = _with_both(s.searched, hyperparameter, objective)
    rows = thin_out(rows)
    x, y = hyperparameter_positions(domain, rows[hyperparameter]), positions(column, rows[objective])
    draw_trials(drawing, s, rows, x, y, name="", colour=colour)
    if not colour:
        front = s.front[s.front[hyperparameter].notna()]
        drawing.add_scatter(
            x=hyperparameter_positions(domain, front[hyperparameter]),
            y=positions(column, front[objective]),
            mode="markers",
            name="on the front",
            showlegend=False,
            marker={"size": 8, "color": VERMILLION},
            **hover(s, front),
        )
    elif s.best is not None:
        x = hyperparameter_positions(domain, [s.best[hyperparameter]])
        draw_ring(drawing, x, positions(column, [s.best[objective]]), "headline trial")
    drawing.update_xaxes(hyperparameter_axis(axis_title(study.column(hyperparameter)), domain))
    drawing.update_yaxes(_axis(s, objective))
    if objective == ACCURACY:
        draw_baseline_levels(drawing, s, band=bool(colour), labelled=bool(colour))
        drawing.update_yaxes(range=accuracy_range(s))
    return drawing


def _axis(s: Summary, objective: str) -> Axis:
    column = objective_column(s.study, objective)
    return objective_axis(column, s.sets_axis(s.searched)[objective], beyond=s.searched[objective])


def _with_both(rows: pd.DataFrame, hyperparameter: str, objective: str) -> pd.DataFrame:
    return rows[rows[hyperparameter].notna() & rows[objective].notna()]


def _draw_stopped(drawing: go.Figure, s: Summary, hyperparameter: str, objective: str, in_legend: bool) -> None:
    """Add trials that a scheduler stopped, at the score that they had then."""
    rows = _with_both(stopped(s), hyperparameter, objective)
    rows = thin_out(rows, MOST_MARKS // 2)
    drawing.add_scatter(
        x=hyperparameter_positions(domain_of(s.study, hyperparameter), rows[hyperparameter]),
        y=positions(objective_column(s.study, objective), rows[objective]),
        mode="markers",
        name="pruned (score when stopped)",
        marker={"symbol": "x-thin-open", "size": 7, "color": GREY, "line": {"width": 1.2, "color": GREY}},
        showlegend=bool(len(rows)) and in_legend,
        **hover(s, rows),
    )


def main_slice(s: Summary) -> ReportFigure | None:
    """The main figure of a study with one objective: over its first hyperparameter, coloured by the second. None for a
    study that searched nothing."""
    names = drawable(s)
    if not names:
        return None
    (objective, *_), (name, *others) = s.study.objectives, names
    drawing = slice_of(s.study, name, objective, height=520, colour=others[0] if others else "")
    sentences = ["Each mark is a trial" + (f", coloured by its {s.column(others[0]).label}" if others else "")]
    sentences[0] += "; lines are the baselines." if objective == ACCURACY else "."
    if s.reference is not None and has_band(s) and others and objective == ACCURACY:
        sentences.append(f"The grey band is one standard error around the {s.reference['baseline']}.")
    what, over = s.column(objective).label, s.column(name).label
    lines = " with the baselines as level lines" if objective == ACCURACY else ""
    return ReportFigure(
        "main",
        drawing,
        f"{capitalise(what)} against {over}.",
        " ".join(sentences) + below_axis_note(s, objective) + missing_note(s, name, objective) + sampling_note(s),
        f"Scatter plot of {what} against {over} for {counted(len(s.searched), 'trial')}{lines}; {best_trial_note(s)}",
    )


def objective_slices(s: Summary, t: TradeOffs) -> list[FigureGroup]:
    """For each objective of a study with several a group of figures, one a hyperparameter."""
    names = drawable(s)
    return [
        FigureGroup(
            f"What moves {s.column(objective).label}",
            [_slice_figure(s, t, objective, name, f"slice-{i}-{j}") for j, name in enumerate(names)],
            narrow=True,
        )
        for i, objective in enumerate(s.study.objectives)
    ]


def _slice_figure(s: Summary, t: TradeOffs, objective: str, name: str, identifier: str) -> ReportFigure:
    column, over = s.column(objective), s.column(name).label
    drawing = slice_of(s.study, name, objective, height=300)
    mean = effects.overlay(drawing, t, objective, name)
    unit = f" ({column.unit})" if column.unit else ""
    return ReportFigure(
        identifier,
        drawing,
        capitalise(f"{column.label} by {over}."),
        f"Vermillion marks are on the front.{mean}{below_axis_note(s, objective)}{missing_note(s, name, objective)}",
        f"Scatter plot of {column.label}{unit} against {over} for {counted(len(s.searched), 'trial')}.",
    )
