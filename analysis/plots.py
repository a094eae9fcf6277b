"""Every figure of the report as a function: from a study, as `analysis.load` reads it, to a Plotly figure.

    import analysis
    from analysis import plots

    plots.learning_curves(analysis.load("results/NAME")).show()

Each raises `UserError` where the study has nothing that the figure could show. Titles and captions are the page's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from analysis.figures import (
    comparison,
    dark_knowledge,
    effects,
    fresh_seeds,
    interactions,
    latency,
    layers,
    parallel,
    pareto,
    plane,
    progress,
    provisional,
    pruning,
    slices,
    weights,
)
from analysis.figures import importance as importances
from analysis.figures import learning_curves as curves
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.stats.importance import TradeOffs, trade_offs
from analysis.stats.names import ACCURACY
from analysis.stats.several_studies import merge_studies
from analysis.stats.summary import Summary, summarise
from study.errors import UserError
from study.records.study_folder import Study


def main(study: Study) -> go.Figure:
    """The figure next to the answer: the front, or accuracy over the first hyperparameter where nothing is traded."""
    s = _summary(study)
    figure = pareto.front_figure(s) if s.has_cost else slices.main_slice(s)
    return _one(study, [figure] if figure else [], "main")


def hyperparameter_slice(study: Study, hyperparameter: str, objective: str = ACCURACY) -> go.Figure:
    """An objective over one hyperparameter, a mark for each trial."""
    _known(study, hyperparameter, study.hyperparameters)
    _known(study, objective, study.objectives)
    return slices.slice_of(study, hyperparameter, objective)


def hyperparameter_plane(study: Study, first: str, second: str) -> go.Figure:
    """Two hyperparameters as a plane; colour is accuracy."""
    for name in (first, second):
        _known(study, name, study.hyperparameters)
    _summary(study)
    return plane.accuracy_plane(study, (first, second))


def importance(study: Study) -> go.Figure:
    """Which hyperparameter moves which objective: shares of variance with 95 % intervals."""
    return importances.importances(_trade_offs(study))


def effect(study: Study, hyperparameter: str, objective: str = ACCURACY) -> go.Figure:
    """What an objective does on average as one hyperparameter moves."""
    t = _trade_offs(study)
    _known(study, hyperparameter, t.names)
    _known(study, objective, t.targets)
    return effects.effect(t, objective, hyperparameter)


def interaction(study: Study, objective: str = ACCURACY) -> go.Figure:
    """The two hyperparameters that move an objective most, together."""
    return _of_groups(study, importances.importance_groups(_trade_offs(study)), f"interaction-{objective}")


def hyperparameter_pairs(study: Study) -> go.Figure:
    """Any two hyperparameters together, with a menu of them."""
    t = _trade_offs(study)
    return _one(study, interactions.pair_figures(t), "pairs")


def gain(study: Study) -> go.Figure:
    """What distillation adds to the same student alone, over temperature and alpha."""
    return _of_groups(study, importances.importance_groups(_trade_offs(study)), "gain")


def parallel_coordinates(study: Study) -> go.Figure:
    """All hyperparameters and objectives at once, a line for each trial."""
    return _of_groups(study, parallel.parallel_groups(_summary(study)), "parallel")


def learning_curves(study: Study, metric: str = ACCURACY) -> go.Figure:
    """A metric by epoch, a line for each trial."""
    _known(study, metric, study.history.columns)
    return curves.learning_curves(study, metric)


def search_progress(study: Study, over_time: bool = False) -> go.Figure:
    """What the search had reached after each trial, or by the hour."""
    name = "progress-hours" if over_time else "progress-number"
    return _of_groups(study, progress.progress_groups(_summary(study)), name)


def timeline(study: Study) -> go.Figure:
    """When each trial ran, and how many at the same time."""
    return _of_groups(study, progress.progress_groups(_summary(study)), "timeline")


def accuracy_against_latency(study: Study) -> go.Figure:
    """Accuracy over the latency that `--measure latency` measured."""
    return _of_groups(study, latency.latency_groups(_summary(study)), "latency")


def seed_differences(study: Study) -> go.Figure:
    """With `--confirm`: differences of test accuracy from the baseline, paired by seed."""
    return _one(study, fresh_seeds.difference_figures(_summary(study)), "seeds-figure")


def attainment(study: Study) -> go.Figure:
    """With `--confirm`: the fronts that none, half and all of the fresh seeds attain."""
    return _one(study, fresh_seeds.attainment_figures(_summary(study)), "attainment")


def teacher_probabilities(study: Study) -> go.Figure:
    """What a teacher makes of an image of each class, over the temperature."""
    return _of_groups(study, dark_knowledge.dark_knowledge_groups(_summary(study)), "knowledge")


def pruning_survivors(study: Study) -> go.Figure:
    """Weights of each layer that are left, by epoch, of the network that the page shows."""
    return _of_groups(study, pruning.pruning_groups(_summary(study)), "survivors")


def pruning_scores(study: Study) -> go.Figure:
    """Which of its weights the score keeps that magnitude would prune."""
    return _of_groups(study, pruning.pruning_groups(_summary(study)), "scores")


def weight_histogram(study: Study) -> go.Figure:
    """Its weights by value, epoch by epoch."""
    return _weights(study, "weights")


def weight_paths(study: Study) -> go.Figure:
    """Where each of its weights went, before against after."""
    return _weights(study, "joint")


def layer_sparsity(study: Study) -> go.Figure:
    """Zeros of each of its layers."""
    return _weights(study, "layers")


def codebook_use(study: Study) -> go.Figure:
    """How many weights have each value of its codebook."""
    return _weights(study, "occupancy")


def prior_cost(study: Study) -> go.Figure:
    """What a weight costs by its value, under an L2 prior and under the mixture."""
    return _weights(study, "priors")


def layer_facts(study: Study) -> go.Figure:
    """Zeros, bits, bytes and units left of each of its layers."""
    return _of_groups(study, layers.layer_groups(_summary(study)), "layer-facts")


def layer_sensitivity(study: Study) -> go.Figure:
    """With `--sensitivity`: what pruning one layer alone does to accuracy."""
    return _of_groups(study, layers.layer_groups(_summary(study)), "sensitivity")


def early_sizes(study: Study) -> go.Figure:
    """How early in a trial its final size is known."""
    return _of_groups(study, provisional.provisional_groups(_summary(study)), "provisional")


def compared(studies: Sequence[Study]) -> go.Figure:
    """Validation accuracy against bytes of the file, of several studies."""
    return comparison.accuracy_vs_bytes(merge_studies(studies))


def _summary(study: Study) -> Summary:
    """The study's summary.

    Raises:
        UserError: no trial is complete yet.
    """
    s = summarise(study)
    if s.searched.empty:
        raise UserError(f"{study.folder}: no trial is complete yet, so there is nothing to draw")
    return s


def _trade_offs(study: Study) -> TradeOffs:
    _summary(study)
    return trade_offs(study)


def _weights(study: Study, name: str) -> go.Figure:
    return _of_groups(study, weights.weight_groups(_summary(study)), name)


def _of_groups(study: Study, groups: Iterable[FigureGroup], name: str) -> go.Figure:
    return _one(study, [figure for group in groups for figure in group.figures], name)


def _one(study: Study, figures: Iterable[ReportFigure], name: str) -> go.Figure:
    """The figure of this id.

    Raises:
        UserError: there is none.
    """
    for figure in figures:
        if figure.id == name:
            return figure.figure
    raise UserError(f"{study.folder}: the study has nothing that this figure shows ({name})")


def _known(study: Study, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise UserError(f"{study.folder}: {name!r} is not there; there are {', '.join(names)}")
