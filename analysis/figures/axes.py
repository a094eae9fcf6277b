"""Axes that several figures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def remaining_percent(sparsity: Iterable[float]) -> list[float]:
    """The share of the weights that is left, in percent. Nothing left at all has no place on a logarithmic axis, and
    stands where one in a hundred thousand would."""
    found: list[float] = np.maximum(100 - np.asarray(list(sparsity), dtype=float), 1e-3).tolist()
    return found


def complement_axis(title: str, total: float, values: Iterable[float], most: int = 9) -> dict[str, Any]:
    """An axis for shares that crowd against `total` (sparsity near 100 %, π₀ near 1).

    The caller plots `total − share`, of sparsity `left`; the axis is logarithmic in it, runs backwards, and is labelled
    with the share, so 90, 99 and 99.9 % are equally far apart. At most about `most` labels.
    """
    rest = np.array([v for v in values if np.isfinite(v) and v > 0] or [total])
    low, high = np.log10(rest.min()) - 0.12, np.log10(rest.max()) + 0.08
    shown: list[float] = []
    for steps in ((1.0, 0.5, 0.2), (1.0, 0.2), (1.0,), (1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)):
        ticks = [total * step * 10.0**e for e in range(0, -8, -1) for step in steps]
        shown = [tick for tick in ticks if low <= np.log10(tick) <= high]
        if 3 <= len(shown) <= most:
            break
    if len(shown) < 2:
        shown, low, high = _ends(rest)
    digits = next((d for d in range(6, 16) if len({f"{total - t:.{d}g}" for t in shown}) == len(shown)), 16)
    return {
        "title": {"text": title},
        "type": "log",
        "range": [high, low],
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [f"{total - t:.{digits}g}" for t in shown],
        "tickangle": 0,
    }


def size_axis(title: str, values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis of sizes that runs backwards, so that better is to the right, or up, as for sparsity."""
    sizes = np.array([v for v in values if np.isfinite(v) and v > 0] or [1.0])
    low, high = np.log10(sizes.min()) - 0.08, np.log10(sizes.max()) + 0.08
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 2, 3, 4, 5, 7)):
        ticks = [m * 10.0**e for e in range(0, 12) for m in steps if low <= np.log10(m * 10.0**e) <= high]
        if len(ticks) >= 3:
            break
    if len(ticks) < 2:
        ticks, low, high = _ends(sizes)
    return {
        "title": {"text": title},
        "type": "log",
        "range": [high, low],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:,.0f}" for tick in ticks],
        "tickangle": 0,
    }


def _ends(values: np.ndarray) -> tuple[list[float], float, float]:
    """Ticks at the smallest and the largest value, where no round one lies near, and in powers of ten the ends of an
    axis on which their labels do not touch."""
    ticks = np.unique([values.min(), values.max()])
    pad = min(0.08, np.ptp(np.log10(ticks)) or 0.08)
    return ticks.tolist(), float(np.log10(ticks[0]) - pad), float(np.log10(ticks[-1]) + pad)


def hyperparameter_axis(
    title: str, domain: Mapping[str, Any], values: Iterable[float]
) -> tuple[list[float], dict[str, Any]]:
    """Coordinates and axis for a hyperparameter on the scale its search space gives it."""
    plotted = [float(v) for v in values]
    if domain.get("log"):
        low, high = np.log10(float(domain["low"])), np.log10(float(domain["high"]))
        pad = 0.03 * (high - low)
        axis: dict[str, Any] = {"type": "log", "range": [low - pad, high + pad], "exponentformat": "power"}
        decades = high - low
        if decades < 3:  # with all four, two decades of them run into each other in a narrow figure
            ticks = [m * 10.0**e for e in range(-9, 9) for m in ((1, 2, 3, 5) if decades < 1.5 else (1, 3))]
            axis |= {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}
        else:
            axis |= {"dtick": 1}
        return plotted, {"title": {"text": title}, **axis}
    return plotted, {"title": {"text": title}}


def focus(kept: Iterable[float], everything: Iterable[float]) -> list[float] | None:
    """A range for an accuracy axis that the worst trials do not flatten: `kept` is shown unless it lies far below.

    Returns: [low, high], or None where there is nothing to show.
    """
    keep = np.array([v for v in kept if np.isfinite(v)])
    scores = np.array([v for v in everything if np.isfinite(v)])
    if not len(keep) or not len(scores):
        return None
    top = max(keep.max(), scores.max())
    floor = top - max(3.0, 3 * (top - float(np.median(scores))))
    low = max(float(keep.min()), floor)
    pad = max(0.06 * (top - low), 0.05)
    return [low - pad, top + pad]


def colour_bar(title: str) -> dict[str, Any]:
    """The legend of a colour scale, beside the figure."""
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
