"""Hyperparameters on axes and colour bars, on the scale and over the range that their search space gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import axes, theme
from analysis.figures.axes import Axis
from analysis.figures.theme import axis_title, escape
from analysis.formatting import choice_index, choice_label, format_cell
from analysis.stats.summary import Summary
from study.records.study_folder import Study

Domain = Mapping[str, Any]
"""What `study.json` records of a searched hyperparameter: a range with its scale, or the values of a choice."""


def domain_of(study: Study, name: str) -> Domain:
    """The domain of a hyperparameter; {} for one that was not searched."""
    domain: Domain = study.meta["space"].get(name, {})
    return domain


def is_choice(domain: Domain) -> bool:
    """Whether values were chosen from a list, rather than drawn from a range."""
    return domain.get("type") == "choice"


def drawable(s: Summary) -> list[str]:
    """Hyperparameters that trials have a value of and that an axis has a place for: numbers and choices."""
    return [
        name
        for name in s.study.hyperparameters
        if (is_choice(domain_of(s.study, name)) or pd.api.types.is_numeric_dtype(s.searched[name]))
        and s.searched[name].notna().any()
    ]


def numeric(s: Summary) -> list[str]:
    """Those of `drawable` that were drawn from a range."""
    return [name for name in drawable(s) if not is_choice(domain_of(s.study, name))]


def hyperparameter_positions(domain: Domain, values: Iterable[Any]) -> list[Any]:
    """Where values stand on the axis of a hyperparameter: numbers, or the labels of a choice's categories; None for
    a value that was not among the choices."""
    if is_choice(domain):
        labels = [choice_label(domain, value) for value in values]
        return [None if text is None else escape(text) for text in labels]
    return pd.to_numeric(pd.Series(list(values), dtype=object), errors="coerce").astype(float).tolist()


def hyperparameter_axis(title: str, domain: Domain) -> Axis:
    """The axis of a hyperparameter on the scale of its search; of a choice one place for each value, in its order."""
    if is_choice(domain):
        labels = hyperparameter_positions(domain, domain["values"])
        return {
            "title": {"text": title},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": labels,
            "range": [-0.5, len(labels) - 0.5],
        }
    if not domain.get("log"):
        return {"title": {"text": title}}
    low, high = np.log10(float(domain["low"])), np.log10(float(domain["high"]))
    pad, decades = 0.03 * (high - low), high - low
    axis: Axis = {"type": "log", "range": [low - pad, high + pad], "exponentformat": "power"}
    if decades < 3:  # with all four, two decades of them run into each other in a narrow figure
        ticks = [m * 10.0**e for e in range(-9, 9) for m in ((1, 2, 3, 5) if decades < 1.5 else (1, 3))]
        axis |= {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}
    else:
        axis |= {"dtick": 1}
    return {"title": {"text": title}, **axis}


def hyperparameter_colours(study: Study, name: str, values: pd.Series) -> dict[str, Any]:
    """A Plotly marker's colours by a hyperparameter, on the scale and over the range that its search space gives it; a
    choice is coloured by its place in the list."""
    domain, bar = domain_of(study, name), axes.colour_bar(axis_title(study.column(name)))
    if is_choice(domain):
        labels = hyperparameter_positions(domain, domain["values"])
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels}
        places = [choice_index(domain, value) for value in values]
        colours = [np.nan if place is None else place for place in places]
        return {
            "color": colours,
            "colorscale": theme.SEQUENTIAL,
            "colorbar": bar | ticks,
            "cmin": 0,
            "cmax": max(1, len(labels) - 1),
        }
    numbers = pd.to_numeric(values, errors="coerce")
    ends = {end: float(domain[side]) for end, side in (("cmin", "low"), ("cmax", "high")) if side in domain}
    if not domain.get("log"):
        return {"color": numbers.tolist(), "colorscale": theme.SEQUENTIAL, "colorbar": bar, **ends}
    marks = [m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5) if domain["low"] <= m * 10.0**e <= domain["high"]]
    return {
        "color": np.log10(numbers).round(4).tolist(),
        "colorscale": theme.SEQUENTIAL,
        "colorbar": bar | {"tickvals": np.log10(marks).tolist(), "ticktext": [f"{mark:g}" for mark in marks]},
        **{end: float(np.log10(value)) for end, value in ends.items()},
    }


def value_text(s: Summary, name: str, value: Any) -> str:
    """A value of any column as people read it; of a choice, the value that was chosen."""
    domain = domain_of(s.study, name)
    label = choice_label(domain, value) if is_choice(domain) else None
    return format_cell(s.column(name), value) if label is None else label
