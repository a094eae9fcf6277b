"""Axes that several figures share. An axis asks the column that it shows how to be drawn; none is drawn by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from analysis.figures.theme import axis_title
from study.records.columns import Column
from study.records.study_folder import Study

FULL = 100.0
"""What a complement scale measures its distance from, in percent."""
CLOSEST = 1e-3
"""Where the full 100 % stands: a logarithmic axis has no place for a distance of zero."""

Axis = dict[str, Any]
"""Properties of a Plotly axis."""


def objective_column(study: Study, name: str) -> Column:
    """What is declared of an objective, with the direction that this study gives it."""
    return dataclasses.replace(study.column(name), direction=study.objectives.get(name, ""))


def positions(column: Column, values: Iterable[float]) -> list[float]:
    """Where values of a column stand on its `objective_axis`: what is missing to 100 % on a complement scale, else the
    values themselves."""
    numbers = np.asarray(list(values), dtype=float)
    placed = np.maximum(FULL - numbers, CLOSEST) if column.scale == "complement" else numbers
    return [float(value) for value in placed]


def objective_axis(column: Column, values: Iterable[float], most: int = 9, beyond: Iterable[float] = ()) -> Axis:
    """The axis of a metric, on the scale that its column declares. On a logarithmic scale, and on that of a complement,
    better is to the right, or up.

    Args:
        values: all that the figure has room for, in the column's unit.
        most: labels that have room on an axis of a complement.
        beyond: values that are drawn too, but do not stretch the axis: those of networks that guess.
    """
    title, values = axis_title(column), [v for v in values if np.isfinite(v)]
    if column.scale == "complement":
        axis = complement_axis(title, FULL, positions(column, values), most)
        return axis | {"range": axis["range"][::-1]} if column.direction == "min" else axis
    if column.scale == "log":
        return log_axis(title, values, backwards=column.direction == "min")
    outside = [v for v in beyond if np.isfinite(v) and values and not min(values) <= v <= max(values)]
    if not outside:
        return {"title": {"text": title}}
    pad = 0.05 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 1.0
    return {"title": {"text": title}, "range": [min(values) - pad, max(values) + pad]}


def is_outside(column: Column, axis: Axis, values: Iterable[float]) -> list[bool]:
    """Which values of a column the range of its `objective_axis` leaves out."""
    places = np.asarray(positions(column, values))
    if "range" not in axis:
        return [False] * len(places)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log10(places) if axis.get("type") == "log" else places
    low, high = sorted(axis["range"])
    return [bool(out) for out in (scaled < low) | (scaled > high)]


def better_is_right(column: Column) -> bool:
    """Whether better values of a metric stand to the right on its `objective_axis`, or further up."""
    return column.scale != "linear" or column.direction != "min"


def scale_sentence(column: Column, axis: str = "horizontal") -> str:
    """What a reader must know of a metric's axis, with a space before it; "" for a plain one."""
    if column.scale == "complement":
        return f" The {axis} axis is logarithmic in the distance from {FULL:.0f} %."
    if column.scale == "log":
        return f" The {axis} axis is logarithmic{' and runs backwards' if column.direction == 'min' else ''}."
    return ""


def complement_axis(title: str, total: float, values: Iterable[float], most: int = 9) -> Axis:
    """An axis for shares that crowd against `total` (sparsity near 100 %, π₀ near 1).

    The caller plots `total − share`. The axis is logarithmic in it, runs backwards, and is labelled with the share, so
    90, 99 and 99.9 % are equally far apart.

    Args:
        values: what is plotted.
        most: labels that have room.
    """
    rest = np.array([v for v in values if np.isfinite(v) and v > 0] or [total])
    low, high = np.log10(rest.min()) - 0.12, np.log10(rest.max()) + 0.08
    ticks: list[float] = []
    for steps in ((1.0, 0.5, 0.2), (1.0, 0.2), (1.0,), (1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)):
        candidates = [total * step * 10.0**e for e in range(0, -8, -1) for step in steps]
        ticks = [tick for tick in candidates if low <= np.log10(tick) <= high]
        if 3 <= len(ticks) <= most:
            break
    if len(ticks) < 2:
        ticks, low, high = _ends(rest)
    labels = _distinct([total - tick for tick in ticks], range(6, 17), lambda value, digits: f"{value:.{digits}g}")
    return _labelled_log_axis(title, [high, low], ticks, labels)


def log_axis(title: str, values: Iterable[float], backwards: bool = True) -> Axis:
    """A logarithmic axis for sizes, times and ratios, with round labels.

    Args:
        backwards: from the largest value on the left to the smallest on the right.
    """
    numbers = np.array([v for v in values if np.isfinite(v) and v > 0] or [1.0])
    low, high = np.log10(numbers.min()) - 0.08, np.log10(numbers.max()) + 0.08
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 2, 3, 4, 5, 7)):
        ticks = [m * 10.0**e for e in range(-9, 12) for m in steps if low <= np.log10(m * 10.0**e) <= high]
        if len(ticks) >= 3:
            break
    if len(ticks) < 2:
        ticks, low, high = _ends(numbers)
    return _labelled_log_axis(title, [high, low] if backwards else [low, high], ticks, _distinct(ticks, range(3, 17)))


def number_label(value: float, digits: int = 3) -> str:
    """A number on an axis: whole numbers with all their digits, others with so many significant ones."""
    whole = value >= 1 and (value == round(value) or value >= 10**digits)
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def _distinct(values: Sequence[float], digits: range, write: Callable[[float, int], str] = number_label) -> list[str]:
    """Labels with as few digits as tell them apart."""
    labels = [[write(value, count) for value in values] for count in digits]
    return next((words for words in labels if len(set(words)) == len(words)), labels[-1])


def _labelled_log_axis(title: str, ends: list[float], ticks: list[float], labels: list[str]) -> Axis:
    return {
        "title": {"text": title},
        "type": "log",
        "range": ends,
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": labels,
        "tickangle": 0,
    }


def _ends(values: np.ndarray) -> tuple[list[float], float, float]:
    """Ticks at the smallest and the largest value, where no round one lies near, and in powers of ten the ends of an
    axis on which their labels do not touch."""
    ticks = np.unique([values.min(), values.max()])
    pad = min(0.08, np.ptp(np.log10(ticks)) or 0.08)
    return ticks.tolist(), float(np.log10(ticks[0]) - pad), float(np.log10(ticks[-1]) + pad)


def focus(important: Iterable[float], everything: Iterable[float]) -> list[float] | None:
    """A range for an accuracy axis that the worst trials do not flatten.

    Args:
        important: what the range includes, unless it lies far below the rest.
        everything: what decides where the rest is.
    Returns: [low, high], or None where there is nothing to show.
    """
    wanted = np.array([v for v in important if np.isfinite(v)])
    scores = np.array([v for v in everything if np.isfinite(v)])
    if not len(wanted) or not len(scores):
        return None
    top = max(wanted.max(), scores.max())
    floor = top - max(3.0, 3 * (top - float(np.median(scores))))
    low = max(float(wanted.min()), floor)
    pad = max(0.06 * (top - low), 0.05)
    return [low - pad, top + pad]


def colour_bar(title: str) -> dict[str, Any]:
    """The legend of a colour scale, to the right of the figure."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 12}},
        "thickness": 10,
        "outlinewidth": 0,
        "len": 0.95,
        "tickfont": {"size": 11},
        "ticks": "",
        "x": 1.01,
        "xpad": 4,
    }
