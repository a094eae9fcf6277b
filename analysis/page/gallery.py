"""Which figures a study gets, in which order. Every figure's module says itself when there is something to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analysis.figures.dark_knowledge import dark_knowledge_groups
from analysis.figures.fresh_seeds import attainment_figures, difference_figures
from analysis.figures.importance import importance_groups
from analysis.figures.latency import latency_groups
from analysis.figures.layers import layer_groups
from analysis.figures.learning_curves import learning_curve_groups
from analysis.figures.parallel import parallel_groups
from analysis.figures.pareto import front_figure
from analysis.figures.plane import plane_groups
from analysis.figures.progress import progress_groups
from analysis.figures.provisional import provisional_groups
from analysis.figures.pruning import pruning_groups
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.slices import main_slice, objective_slices
from analysis.figures.weights import weight_groups
from analysis.stats.importance import trade_offs
from analysis.stats.summary import Summary


def main_figure(s: Summary) -> ReportFigure | None:
    """The figure next to the answer; none while no trial is complete."""
    if s.searched.empty or s.front.empty:
        return None
    figures, _ = _guarded(_main_figures, s)
    return figures[0] if figures else None


def _main_figures(s: Summary) -> list[ReportFigure]:
    figure = front_figure(s) if s.has_cost else main_slice(s)
    return [] if figure is None else [figure]


def seeds_figures(s: Summary) -> list[ReportFigure]:
    """The figures next to the table of fresh seeds."""
    drawings = (_guarded(draw, s) for draw in (difference_figures, attainment_figures))
    return [figure for figures, _ in drawings for figure in figures]


def groups(s: Summary) -> list[FigureGroup]:
    """All other figures."""
    families: dict[str, Callable[[Summary], list[FigureGroup]]] = {
        "Measured latency": latency_groups,
        "What moves what": searched_groups,
        "All hyperparameters at once": parallel_groups,
        "Learning curves": learning_curve_groups,
        "How the search went": progress_groups,
    }
    return [*_members(families, s), *closeup_groups(s)]


def _members(families: Mapping[str, Callable[[Summary], list[FigureGroup]]], s: Summary) -> list[FigureGroup]:
    """The groups of these families; of one that cannot be drawn a sentence under its heading."""
    members: list[FigureGroup] = []
    for heading, draw in families.items():
        found, failure = _guarded(draw, s)
        members += [*found, *([FigureGroup(heading, [], lead=failure)] if failure else [])]
    return members


def _guarded(draw: Callable[[Summary], Sequence[Any]], s: Summary) -> tuple[Sequence[Any], str]:
    """What a family of figures draws, and a sentence in its place where it cannot: one damaged file must not cost a
    reader the complete page."""
    try:
        return draw(s), ""
    except Exception as error:  # whatever a damaged trace or table makes a figure raise
        return [], f"Not drawn, since a file of this study is damaged ({type(error).__name__}: {error})."


def searched_groups(s: Summary) -> list[FigureGroup]:
    """What moves the objectives; none while no trial is complete."""
    if s.searched.empty:
        return []
    t = trade_offs(s.study)
    return [*(objective_slices(s, t) if s.has_cost else plane_groups(s)), *importance_groups(t)]


def closeup_groups(s: Summary) -> list[FigureGroup]:
    """Single networks, for a study that recorded what these figures need."""
    families: dict[str, Callable[[Summary], list[FigureGroup]]] = {
        "What the teacher knows": dark_knowledge_groups,
        "Pruning": pruning_groups,
        "Weights": weight_groups,
        "Layer by layer": layer_groups,
        "How early the size is known": provisional_groups,
    }
    return _members(families, s)
