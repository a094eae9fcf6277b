"""The report's figures of which hyperparameter moves what, and the mean effects that its scatter plots carry."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis import importance_figures as drawing
from analysis.importance import ANOVA, TradeOffs
from analysis.items import Group, Item
from analysis.tables import name_of, points
from analysis.theme import left

MOVES = "Which hyperparameter moves what"
_INTERVAL = "with its 95 % interval, which is somewhat too narrow at the ends of the range."


def groups(t: TradeOffs) -> list[Group]:
    """Shares of variance, the two that act together, and what moves accuracy among small networks; a sentence in
    their place where the trials carry none of it."""
    notes = " ".join(t.notes)
    if not t.targets:
        return [Group(MOVES, [], lead=notes)] if notes else []
    items = [_shares(t)]
    if (gain := t.gain()) is not None:
        items.append(_gain(t, float(gain["gain"].max())))
    else:
        items += [_together(t, key) for key in t.targets if key != "hypervolume" and t.interaction(key) is not None]
    found = [Group(MOVES, items, lead=notes)]
    if "given" in t.targets:
        found.append(Group(t.targets["given"].title, [_effect(t, "given", name) for name in t.names], narrow=True))
    return found


def overlay(drawn: go.Figure, t: TradeOffs, key: str, name: str) -> str:
    """Add the mean of an objective over a hyperparameter, with its interval, to the scatter plot of the trials.

    Returns: a sentence for its caption, or "" where the trials carry no mean.
    """
    if key not in t.targets:
        return ""
    for trace in drawing.effect(t, key, name).data:
        if key == "sparsity":  # that axis shows what remains, on a logarithmic scale
            trace.y = left(trace.y)
        trace.showlegend = False
        drawn.add_trace(trace)
    return f" The line is the mean with all other hyperparameters averaged, {_INTERVAL}{_pulled(t, key)}"


def _pulled(t: TradeOffs, key: str) -> str:
    pulled = t.targets[key].pulled
    return f" {pulled} outlier{'s were' if pulled > 1 else ' was'} pulled to the fences for it." if pulled else ""


def _shares(t: TradeOffs) -> Item:
    frame = t.importances()
    alone = frame[frame["measure"] == ANOVA].sort_values("share").groupby("target")["hyperparameter"].last()
    top = [f"{target.title}: {name_of(alone[key])}" for key, target in t.targets.items()]
    details = " ".join(target.detail for target in t.targets.values() if target.detail)
    return Item("importance", drawing.importances(t), "Shares of what the trials differ by.",
                "Functional ANOVA (Hutter et al. 2014): the share of the variance over the whole search space that one "
                "hyperparameter causes by itself. PED-ANOVA (Watanabe et al. 2023): what the best quarter of trials "
                f"has in common; these shares sum to 1, so they are above 0 even where nothing matters. Bars are 95 % "
                f"intervals over random halves of the trials. {details}".strip(),
                f"Dot plot of importances with intervals. Largest by functional ANOVA: {'; '.join(top)}.")


def _together(t: TradeOffs, key: str) -> Item:
    found = t.interaction(key)
    assert found is not None
    first, second = found["names"]
    said = (f"The mean over the two hyperparameters that move it most. {found['share']:.0%} of the variance (95 % "
            f"interval {found['low']:.0%} to {found['high']:.0%}) only both together explain. Away from the trials, "
            f"the circles, it is a guess.")
    return Item(f"interaction-{key}", drawing.interaction(t, key), f"{t.targets[key].title}.", said + _pulled(t, key),
                f"Coloured plane over {first} and {second}. {said}")


def _gain(t: TradeOffs, most: float) -> Item:
    after = f" after epoch {t.epoch}" if t.epoch else ""
    return Item("gain", drawing.gain(t), "Gain over the student alone.",
                f"Mean validation accuracy{after} over the plane minus that of the student alone. It is as good as "
                "that on the solid line; inside the dashed one the whole 95 % interval is above zero. Away from the "
                f"trials, the circles, it is a guess.{_pulled(t, 'val_accuracy')}",
                f"Coloured plane over temperature and alpha of the gain over the student, at most {points(most)}.")


def _effect(t: TradeOffs, key: str, name: str) -> Item:
    return Item(f"effect-{key}-{name}", drawing.effect(t, key, name), f"By {name_of(name)}.",
                f"The mean with all other hyperparameters averaged, {_INTERVAL}{_pulled(t, key)}",
                f"Line chart of the mean of {t.targets[key].title} over {name}.")
