"""Which figures a study of each kind gets, in which order, and what is said under and instead of them."""

from __future__ import annotations

from analysis.figures import dark_knowledge, importance
from analysis.figures.dark_knowledge import dark_knowledge_figure
from analysis.figures.distillation import distillation_figures
from analysis.figures.fresh_seeds import attainment_figure, differences_figure
from analysis.figures.item import FigureGroup, ReportFigure
from analysis.figures.learning_curves import learning_curve_figures
from analysis.figures.pareto import front_figure
from analysis.figures.slices import accuracy_slice, compression_slices
from analysis.figures.weights import provisional_figure, remaining_figures, weight_figures
from analysis.stats import summary, weight_trace
from analysis.stats.importance import trade_offs
from analysis.stats.summary import Summary


def main_figure(s: Summary) -> ReportFigure | None:
    """The figure beside the answer; none while no trial is complete."""
    if s.searched.empty or s.front.empty:
        return None
    if s.compresses:
        return front_figure(s)
    return accuracy_slice(s, "temperature", colour="alpha") if "temperature" in s.study.hyperparameters else None


def seeds_figures(s: Summary) -> list[ReportFigure]:
    """The figures beside the table of fresh seeds: those for which there are seeds enough."""
    return [
        *([differences_figure(s)] if summary.has_pairs(s) else []),
        *([attainment_figure(s)] if summary.has_surfaces(s) else []),
    ]


def groups(s: Summary) -> list[FigureGroup]:
    """All other figures."""
    found: list[FigureGroup] = []
    if not s.searched.empty:
        t = trade_offs(s.study)
        found += compression_slices(s, t) if s.compresses else distillation_figures(s)
        found += importance.importance_groups(t)
    if not s.study.history.empty:
        found.append(FigureGroup("Learning curves", learning_curve_figures(s)))
    return [*found, *closeup_groups(s)]


def closeup_groups(s: Summary) -> list[FigureGroup]:
    """Groups of figures for which the study kept what they need."""
    found = []
    if asked := dark_knowledge.asked(s.study):
        found.append(FigureGroup("What the teacher knows", [dark_knowledge_figure(s, asked)]))
    wanted = [s.best["trial_id"]] if s.best is not None and s.compresses else []
    trial_id, trace = weight_trace.traced(s.study, [*wanted, *s.front["trial_id"], *s.searched["trial_id"]])
    if trace:
        found += [
            FigureGroup(f"The weights of {trial_id}, epoch by epoch", weight_figures(trace)),
            FigureGroup(f"What is left of {trial_id}", remaining_figures(trace)),
        ]
    if len(weight_trace.provisional(s.study)):
        found.append(FigureGroup("How early the size is known", [provisional_figure(s)]))
    return found
