"""How figures look: the palette, the light and the dark Plotly template, and the axes that several figures share.

Figures carry no colour of their own for text, grid or background; those come from the template, so the page can
turn a drawn figure from light to dark by exchanging the template alone.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, unlabel_rgb

from study.results import label

# Okabe & Ito's set, told apart with any colour vision (https://jfly.uni-koeln.de/color/); the blue is a little lighter
# than theirs so that it keeps its contrast on near-black too. Kinds of marks differ in symbol or dash as well.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#2E8BC7", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
GREY = "#8A8F98"
BASELINE_COLOURS = (GREEN, PURPLE, ORANGE)
DIVERGING = [[0.0, "#0072B2"], [0.3, "#7FB4D6"], [0.5, "#D9D9D9"], [0.7, "#F0A56B"], [1.0, "#D55E00"]]
SEQUENTIAL = [[0.0, "#1F66B0"], [0.5, "#9A958C"], [1.0, "#EDB500"]]

FONT = '"Inter", "Helvetica Neue", Helvetica, Arial, sans-serif'


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on "#rrggbb" or "rgb(…)": at least one has a contrast of 4.58."""
    shares = [part / 255 for part in (hex_to_rgb if colour.startswith("#") else unlabel_rgb)(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)  # WCAG 2.2
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#FFFFFF"


def template(ink: str, muted: str, line: str, card: str) -> go.layout.Template:
    axis = {
        "gridcolor": line, "linecolor": muted, "tickcolor": muted, "zeroline": False, "showline": True,
        "ticks": "outside", "ticklen": 4, "tickfont": {"color": muted, "size": 12}, "automargin": True,
        "title": {"font": {"color": ink, "size": 13}, "standoff": 10},
    }
    layout = {
        "font": {"family": FONT, "color": ink, "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": axis, "yaxis": axis,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0,
                   "font": {"size": 12, "color": ink}, "bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant"},
        "hoverlabel": {"bgcolor": card, "bordercolor": muted, "align": "left",
                       "font": {"family": FONT, "size": 12, "color": ink}},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": muted, "activecolor": ink},
        "coloraxis": {"colorbar": {"outlinewidth": 0, "thickness": 10, "tickfont": {"color": muted}}},
    }
    return go.layout.Template(layout=layout)


LIGHT = template(ink="#1B1F24", muted="#5B6570", line="#E8E8E4", card="#FFFFFF")
DARK = template(ink="#E9EBEE", muted="#9BA5B0", line="#2A3038", card="#1B2026")


def figure(height: int = 400) -> go.Figure:
    """An empty figure in the project's dress; it fills the width it is given."""
    return go.Figure(layout={"template": LIGHT, "height": height, "autosize": True})


def named(column: str) -> str:
    """`label` as Plotly shows it as text, whatever a study calls its columns."""
    return plain(label(column))


def plain(text: str) -> str:
    """`text` as Plotly shows it letter by letter. It renders a few elements and decodes a few entities; that of a
    double quote is not among them, and quotes have no meaning outside a tag."""
    return html.escape(text, quote=False)


def left(sparsity: Iterable[float]) -> list[float]:
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
    return {"title": {"text": title}, "type": "log", "range": [high, low], "tickmode": "array", "tickvals": shown,
            "ticktext": [f"{total - t:.{digits}g}" for t in shown], "tickangle": 0}


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
    return {"title": {"text": title}, "type": "log", "range": [high, low], "tickmode": "array", "tickvals": ticks,
            "ticktext": [f"{tick:,.0f}" for tick in ticks], "tickangle": 0}


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
    return {"title": {"text": title, "side": "right", "font": {"size": 12}}, "thickness": 10, "outlinewidth": 0,
            "len": 0.95, "tickfont": {"size": 11}, "ticks": "", "x": 1.01, "xpad": 4}
