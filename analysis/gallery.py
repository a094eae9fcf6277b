"""Which figures a study of each kind gets, in which order, and what is said under and instead of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import closeups, curves, figures, influences, intervals
from analysis.importance import TradeOffs, trade_offs
from analysis.items import Group, Item
from analysis.summary import Summary, history_of
from analysis.tables import below, counted, name_of, points, sentence, text
from study.results import label


def main_figure(s: Summary) -> Item | None:
    """The figure beside the answer; none while no trial is complete."""
    if s.searched.empty or s.front.empty:
        return None
    if s.compresses:
        return _front(s)
    return _plain_slice(s, "temperature", colour="alpha") if "temperature" in s.study.hyperparameters else None


def seeds_figures(s: Summary) -> list[Item]:
    """The figures beside the table of fresh seeds: those for which there are seeds enough."""
    return [*([_differences(s)] if intervals.has_pairs(s) else []),
            *([_attainment(s)] if intervals.has_surfaces(s) else [])]


def _attainment(s: Summary) -> Item:
    """Median and quartiles of the front over seeds."""
    about = "What a quarter, half and three quarters of the fresh seeds attain: at least this accuracy at this size."
    drawn = intervals.attainment_surfaces(s.study)
    window = drawn.layout.yaxis.range
    cropped = "" if window is None else below(window[0], {"circle": drawn.data[0].y})
    return Item("attainment", drawn, "Fronts over fresh seeds.",
                f"{about} Empirical attainment surfaces of the retrained configurations, on test data.{cropped}",
                f"Three staircases of test accuracy against {name_of(s.size)}. {about}")


def _differences(s: Summary) -> Item:
    drawn = intervals.paired_differences(s.study)
    rows = s.fresh[s.fresh["pairs"] > 0]
    about = f"Test accuracy minus that of “{s.fresh_reference}” with the same seed"
    caption = f"{about}; the line is “{s.fresh_reference}” itself, each circle one seed."
    hidden = int((rows["difference"] < drawn.layout.xaxis.range[0]).sum())
    if hidden:
        caption += f" {hidden} configuration{'s lie' if hidden > 1 else ' lies'} to the left of what is shown; " \
                   "double-click shows all."
    return Item("seeds-figure", drawn, "Differences by seed.", caption,
                f"Dot plot for {len(rows)} configurations. {about}, each seed and the mean with its 95 % interval.")


def groups(s: Summary) -> list[Group]:
    """All other figures."""
    found: list[Group] = []
    if not s.searched.empty:
        t = trade_offs(s.study)
        found += _compression_slices(s, t) if s.compresses else _distillation(s)
        found += influences.groups(t)
    if not s.study.history.empty:
        found.append(Group("Learning curves", _curves(s)))
    return [*found, *closeups.groups(s)]


def _front(s: Summary) -> Item:
    shown = s.searched[s.size]
    scale = "sparsity axis is logarithmic in the weights that remain" if s.size == "sparsity" else \
            "axis of file sizes is logarithmic and runs backwards"
    caption = f"Up and to the right is better. The {scale}."
    if s.reference is not None and np.isfinite(s.error):
        caption += f" The grey band is one standard error around the baseline “{s.reference['baseline']}”."
    if not s.tested.empty:
        caption += " Open diamonds are the same networks on test data."
    if not s.fresh.empty:
        caption += " Filled ones are means over fresh seeds on test data, with 95 % intervals."
    if s.least_accuracy is not None:
        caption += f" Trials below {s.least_accuracy:g} % (dotted line) cannot be on the front."
    drawn = figures.accuracy_vs_size(s.study)
    if any(trace.name == figures.ON_TEST_DATA[2] for trace in drawn.data):
        caption += " Published results are test accuracies under their authors’ protocols."
    caption += _below(s, drawn, front=True)
    alt = (f"Scatter plot of validation accuracy against {label(s.size)} for "
           f"{counted(len(s.searched), 'trial')}, from {text(s.size, shown.min())} to {text(s.size, shown.max())}; "
           f"{counted(len(s.front), 'trial')} form{'s' * (len(s.front) == 1)} the Pareto front.")
    return Item("main", drawn, f"Accuracy against {name_of(s.size)}.", caption + _sampled(s), alt)


def _plain_slice(s: Summary, name: str, colour: str) -> Item:
    drawn = figures.slice_of(s.study, name, "val_accuracy", height=520, colour=colour)
    hued = name_of(colour)
    caption = f"Each mark is a trial, coloured by its {hued}; lines are the baselines."
    if s.reference is not None and np.isfinite(s.error):
        caption += f" The grey band is one standard error around the {s.reference['baseline']}."
    alt = (f"Scatter plot of validation accuracy against {name_of(name)} for "
           f"{counted(len(s.searched), 'trial')} with the baselines as level lines; {_best(s)}")
    return Item("main", drawn, f"Validation accuracy against {name_of(name)}.",
                caption + _below(s, drawn) + _sampled(s), alt)


def _distillation(s: Summary) -> list[Group]:
    if not {"temperature", "alpha"} <= set(s.study.hyperparameters):
        return []
    plane = Item("plane", figures.accuracy_plane(s.study), "Where distillation helps.",
                 "Temperature and weight of the soft targets together; crosses were pruned, triangles failed. "
                 "The ring is the best trial.",
                 f"Scatter plot of trials over temperature and alpha, coloured by accuracy; {_best(s)}")
    other = figures.slice_of(s.study, "alpha", "val_accuracy", height=420, colour="temperature")
    alpha = Item("alpha", other, f"Validation accuracy against {name_of('alpha')}.",
                 "The same trials, coloured by their temperature; lines are the baselines." + _below(s, other),
                 f"Scatter plot of validation accuracy against alpha with the baselines as level lines; {_best(s)}")
    return [Group("Temperature and soft-target weight", [plane, alpha])]


def _compression_slices(s: Summary, t: TradeOffs) -> list[Group]:
    found: list[Group] = []
    for objective in s.study.objectives:
        items: list[Item] = []
        for name in s.study.hyperparameters:
            if not pd.api.types.is_numeric_dtype(s.searched[name]) or s.searched[name].isna().all():
                continue
            drawn = figures.slice_of(s.study, name, objective, height=300)
            mean = influences.overlay(drawn, t, objective, name)
            items.append(Item(
                f"slice-{len(found)}-{len(items)}", drawn, sentence(f"{name_of(objective)} by {name_of(name)}."),
                "Vermillion marks are on the front." + mean + _below(s, drawn, objective),
                f"Scatter plot of {label(objective)} against {name_of(name)} for {counted(len(s.searched), 'trial')}."))
        found.append(Group(f"What moves {name_of(objective)}", items, narrow=True))
    return found


def _curves(s: Summary) -> list[Item]:
    history = history_of(s.study)
    told = history.loc[history["val_accuracy"].notna(), "trial_id"].unique()
    begun = int(((s.trials["baseline"] == "") & s.trials["trial_id"].isin(told)).sum())
    some = counted(begun, "trial") if begun <= curves.MOST_CURVES else f"{curves.MOST_CURVES} of {begun:,} trials"
    about = f"{some} thin and grey, baselines and the answering trial in colour."
    drawn = curves.learning_curves(s.study)
    window, highest = drawn.layout.yaxis.range, curves.highest(drawn)
    of_baselines = [highest.pop(i) for i in s.baselines["trial_id"] if i in highest]
    cropped = "" if window is None else below(window[0], {"trial": highest.values(), "baseline": of_baselines})
    items = [Item("curves", drawn, "Validation accuracy, epoch by epoch.", about + cropped,
                  f"Line chart of validation accuracy over epochs; {about}")]
    if "sparsity" in s.study.history:
        why = "weights are pruned gradually" if (s.study.history["phase"] == "prune").any() else \
              "the components are still wide then"
        about = f"What quantising at that epoch would give. Early values mean little, since {why}."
        items.append(Item("sparsity-curves", curves.learning_curves(s.study, "sparsity"),
                          "Provisional sparsity, epoch by epoch.", about,
                          "Line chart of the sparsity over epochs that quantising at each epoch would give."))
    return items


def _best(s: Summary) -> str:
    if s.best is None:
        return "no trial is complete and accurate enough."
    gain = "" if s.reference is None else f", {points(s.best['val_accuracy'] - s.reference['val_accuracy'])} against " \
                                          f"the {s.reference['baseline']}"
    return f"the best trial has {s.best['val_accuracy']:.1f} percent{gain}."


def _below(s: Summary, drawn: go.Figure, objective: str = "val_accuracy", front: bool = False) -> str:
    """A cropped axis must say what it crops.

    Args:
        front: the figure shows every baseline and test results, but no pruned trials.
    """
    window = drawn.layout.yaxis.range
    if window is None or objective != "val_accuracy":
        return ""
    stopped = s.trials[(s.trials["baseline"] == "") & (s.trials["state"] == "pruned") & (not front)]
    shown = {"trial": [*s.searched[objective], *stopped[objective]],
             "baseline": (s.baselines if front else figures.levels(s))[objective],
             "test result": [y for trace in drawn.data if trace.name in figures.ON_TEST_DATA for y in trace.y]}
    return below(window[0], shown)


def _sampled(s: Summary) -> str:
    if len(s.searched) <= figures.MOST_MARKS:
        return ""
    return f" {figures.MOST_MARKS:,} of {len(s.searched):,} trials are drawn, the front whole."
