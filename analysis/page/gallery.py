"""Which figures a study gets, in which order. Every figure's module says itself when there is something to show."""

from __future__ import annotations

from analysis.figures.dark_knowledge import dark_knowledge_groups
from analysis.figures.fresh_seeds import attainment_figures, difference_figures
from analysis.figures.importance import importance_groups
from analysis.figures.learning_curves import learning_curve_groups
from analysis.figures.pareto import front_figure
from analysis.figures.plane import plane_groups
from analysis.figures.provisional import provisional_groups
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.slices import main_slice, objective_slices
from analysis.figures.weights import weight_groups
from analysis.stats.importance import trade_offs
from analysis.stats.summary import Summary


def main_figure(s: Summary) -> ReportFigure | None:
    """The figure next to the answer; none while no trial is complete."""
    if s.searched.empty or s.front.empty:
        return None
    return front_figure(s) if s.has_cost else main_slice(s)


def seeds_figures(s: Summary) -> list[ReportFigure]:
    """The figures next to the table of fresh seeds."""
    return [*difference_figures(s), *attainment_figures(s)]


def groups(s: Summary) -> list[FigureGroup]:
    """All other figures."""
    return [*searched_groups(s), *learning_curve_groups(s), *closeup_groups(s)]


def searched_groups(s: Summary) -> list[FigureGroup]:
    """What moves the objectives; none while no trial is complete."""
    if s.searched.empty:
        return []
    t = trade_offs(s.study)
    return [*(objective_slices(s, t) if s.has_cost else plane_groups(s)), *importance_groups(t)]


def closeup_groups(s: Summary) -> list[FigureGroup]:
    """Single networks, for a study that recorded what these figures need."""
    return [*dark_knowledge_groups(s), *weight_groups(s), *provisional_groups(s)]
