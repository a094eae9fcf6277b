"""Figures of one trial's weights, from the trained network through clustering to the quantised one. Where the reader
chooses the epoch, a slider does it, and a button plays through all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures import theme
from analysis.figures.animation import animate
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.stats import weight_trace
from analysis.stats.summary import Summary
from analysis.stats.weight_trace import Trace

MOST_FRAMES = 20
MOST_POINTS = 1000
"""Of an animation: these bound what it adds to the page."""


def weight_histogram(trace: Trace) -> go.Figure:
    """How many weights have which value, on a logarithmic scale, with the mixture's expectation and its components."""
    numbers = weight_trace.moments(trace, MOST_FRAMES)
    total = float(trace["counts/0"].sum())
    drawing = figure(height=430)
    animate(
        drawing,
        [(weight_trace.title_of(trace, n), _histogram_marks(trace, n)) for n in numbers],
        _last_before_quantising(numbers),
    )
    drawing.update_xaxes(title={"text": "weight"}, range=[float(trace["edges"][0]), float(trace["edges"][-1])])
    drawing.update_yaxes(
        title={"text": "weights in a bin"},
        type="log",
        range=[-0.4, np.log10(total) + 0.2],
        exponentformat="power",
        dtick=1,
    )
    drawing.update_layout(bargap=0)
    return drawing


def _histogram_marks(trace: Trace, number: int) -> list[Any]:
    bins, parts = weight_trace.histogram(trace, number), weight_trace.mixture(trace, number)
    width = float(bins["weight"].iloc[1] - bins["weight"].iloc[0])
    # The height of a component is what it alone expects in the bin about its mean.
    alone = 2 * weight_trace.ndtr(width / 2 / parts["sigma"].to_numpy()) - 1
    heights = bins["weights"].sum() * parts["proportion"].to_numpy() * alone
    shown = heights > 0.1
    return [
        go.Bar(
            x=_rounded(bins["weight"]),
            y=bins["weights"].tolist(),
            name="weights",
            opacity=0.75,
            marker={"color": BLUE, "line": {"width": 0}},
            hovertemplate="about %{x}: %{y} weights<extra></extra>",
        ),
        go.Scatter(
            x=_rounded(bins["weight"]),
            y=_rounded(bins["expected"].clip(lower=1e-3)),
            name="mixture",
            mode="lines",
            showlegend="means/0" in trace,
            line={"color": VERMILLION, "width": 2},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=_rounded(parts["mean"][shown]),
            y=_rounded(heights[shown]),
            name="components, ± 2σ",
            mode="markers",
            marker={"color": ORANGE, "size": 8, "symbol": "diamond", "line": {"color": GREY, "width": 0.5}},
            error_x={"type": "data", "array": _rounded(2 * parts["sigma"][shown]), "color": ORANGE, "thickness": 1.5},
            text=[f"mean {m:.4g}, σ {s:.3g}, proportion {p:.3g}" for m, s, p in parts[shown].to_numpy()],
            hovertemplate="%{text}<extra></extra>",
        ),
    ]


def joint(trace: Trace) -> go.Figure:
    """Followed weights before and after, with the components' means and bands of ± 2σ."""
    numbers = weight_trace.moments(trace, MOST_FRAMES)
    widest = 1.1 * _largest(trace["edges"][-1:], trace["sample/0"])
    drawing = figure(height=430)
    animate(
        drawing,
        [(weight_trace.title_of(trace, n), _joint_marks(trace, n, widest)) for n in numbers],
        _last_before_quantising(numbers),
    )
    drawing.add_scatter(
        x=[-widest, widest],
        y=[-widest, widest],
        mode="lines",
        name="unchanged",
        line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    before = 1.1 * _largest(trace["sample/0"])
    after = 1.1 * _largest(*(trace[f"sample/{n}"] for n in numbers))
    drawing.update_xaxes(title={"text": "weight before"}, range=[-before, before])
    drawing.update_yaxes(title={"text": "weight at this epoch"}, range=[-after, after])
    return drawing


def _largest(*arrays: np.ndarray) -> float:
    """The largest size of a finite number in these arrays; 1 if there is none, or if all are 0."""
    numbers = np.abs(np.concatenate([np.ravel(array).astype(float) for array in arrays]))
    return float(numbers[np.isfinite(numbers)].max(initial=0.0)) or 1.0


def _joint_marks(trace: Trace, number: int, widest: float) -> list[Any]:
    rows, parts = weight_trace.followed(trace, number), weight_trace.mixture(trace, number)
    rows = rows.iloc[:: max(1, len(rows) // MOST_POINTS)]
    ends: list[float | None] = []
    heights: list[float | None] = []
    for mean, sigma, _ in parts.to_numpy():
        ends += [-widest, widest, widest, -widest, -widest, None]
        low, high = float(f"{mean - 2 * sigma:.4g}"), float(f"{mean + 2 * sigma:.4g}")
        heights += [low, low, high, high, low, None]
    lines = [end for mean in _rounded(parts["mean"]) for end in (mean, mean, None)]
    return [
        go.Scatter(
            x=ends,
            y=heights,
            fill="toself",
            mode="none",
            name="± 2σ",
            fillcolor="rgba(230,159,0,0.22)",
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[-widest, widest, None] * len(parts),
            y=lines,
            mode="lines",
            name="means of components",
            line={"color": VERMILLION, "width": 1},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=_rounded(rows["before"]),
            y=_rounded(rows["after"]),
            mode="markers",
            name="weights",
            marker={"color": BLUE, "size": 4, "opacity": 0.7},
            hovertemplate="%{x} became %{y}<extra></extra>",
        ),
    ]


def prior_shapes(trace: Trace) -> go.Figure:
    """What a weight costs under the L2 prior and under the mixture."""
    frame = weight_trace.priors(trace)
    drawing = figure(height=360)
    for column, name, colour, dash in (
        ("l2", "L2: one Gaussian, as wide as the trained weights", PURPLE, "dash"),
        ("first", "mixture before clustering", GREY, "dot"),
        ("last", "mixture at the end of clustering", VERMILLION, "solid"),
    ):
        drawing.add_scatter(
            x=_rounded(frame["weight"]),
            y=_rounded(frame[column]),
            mode="lines",
            name=name,
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="weight %{x}: %{y} nats<extra></extra>",
        )
    costs = frame[["l2", "first", "last"]].to_numpy()
    costs = costs[np.isfinite(costs)]
    drawing.update_xaxes(title={"text": "weight"})
    drawing.update_yaxes(
        title={"text": "cost −log p(w) (nats)"}, range=[float(costs.min()) - 1, float(np.quantile(costs, 0.98)) + 2]
    )
    return drawing


def layer_sparsity(trace: Trace) -> go.Figure:
    """Share of zeros in each layer."""
    frame = weight_trace.layers(trace).iloc[::-1]
    drawing = figure(height=max(220, 70 + 24 * len(frame)))
    texts = [f"{s:.2f} % of {n:,.0f}" for s, n in zip(frame["sparsity"], frame["weights"], strict=True)]
    drawing.add_bar(
        x=frame["sparsity"].tolist(),
        y=[escape(name) for name in frame["layer"]],
        orientation="h",
        marker={"color": BLUE},
        text=texts,
        textposition="auto",
        insidetextanchor="end",
        textangle=0,
        constraintext="none",
        cliponaxis=False,
        insidetextfont={"color": theme.ink_on(BLUE)},
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    drawing.update_xaxes(title={"text": "weights at zero (%)"}, range=[0, 100])
    return drawing


def codebook_occupancy(trace: Trace) -> go.Figure:
    """How many weights have each value of the codebook."""
    frame = weight_trace.codebook(trace)
    drawing = figure(height=300)
    zero = frame["value"] == 0
    for name, rows, colour, symbol in (("zero", frame[zero], GREY, "square"), ("value", frame[~zero], GREEN, "circle")):
        drawing.add_scatter(
            x=_rounded(rows["value"]),
            y=rows["weights"].tolist(),
            mode="markers",
            name=name,
            marker={"color": colour, "size": 9, "symbol": symbol},
            hovertemplate="%{x}: %{y} weights<extra></extra>",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0] * len(rows),
                "width": 0,
                "color": colour,
                "arrayminus": (rows["weights"] - 0.5).tolist(),
            },
        )
    drawing.update_xaxes(title={"text": "value in the codebook"})
    drawing.update_yaxes(
        title={"text": "weights that have it"},
        type="log",
        exponentformat="power",
        dtick=1,
        range=[-0.3, np.log10(frame["weights"].max()) + 0.3],
    )
    return drawing


def _last_before_quantising(numbers: list[int]) -> int:
    """The last frame before quantising: where the weights lie, and why."""
    return max(0, len(numbers) - 2)


def _rounded(values: Any) -> list[float | None]:
    """Four significant digits, which people see no more of, and which keep the page small."""
    return [None if not np.isfinite(v) else float(f"{v:.4g}") for v in values]


def weight_groups(s: Summary) -> list[FigureGroup]:
    """The weights of `weight_trace.shown`. None for a study without traces."""
    trial_id, trace = weight_trace.shown(s)
    if not trace:
        return []
    return [
        FigureGroup(f"The weights of {trial_id}, epoch by epoch", _moving_figures(trace)),
        FigureGroup(f"What is left of {trial_id}", _remaining_figures(trace)),
    ]


def _moving_figures(trace: Trace) -> list[ReportFigure]:
    total = int(trace["counts/0"].sum())
    followed = min(MOST_POINTS, len(trace["index"]))
    has_mixture = "means/0" in trace
    moments = " before clustering, after its epochs, and quantised." if has_mixture else " as they are pruned."
    mixture = (
        "The line is what the mixture expects in each bin, diamonds are its components with ± 2σ. "
        if has_mixture
        else ""
    )
    return [
        ReportFigure(
            "weights",
            weight_histogram(trace),
            f"All {total:,} weights, by value.",
            mixture + "Counts are on a logarithmic scale; the outermost bins also count what lies beyond them.",
            f"Histogram of {total:,} weights{moments}",
        ),
        ReportFigure(
            "joint",
            joint(trace),
            "Where each weight went.",
            f"{followed:,} weights. Half are drawn uniformly, of which few survive; the other half with probability "
            "proportional to their initial square.",
            f"Scatter plot of {followed:,} weights before against after, epoch by epoch.",
        ),
    ]


def _remaining_figures(trace: Trace) -> list[ReportFigure]:
    layers, values = weight_trace.layers(trace), weight_trace.codebook(trace)
    figures = [
        ReportFigure(
            "layers",
            layer_sparsity(trace),
            "Sparsity of each layer.",
            "Share of weights at zero, of all weights and biases of the layer.",
            f"Bar chart of the sparsity of {len(layers)} tensors, from {layers['sparsity'].min():.1f} to "
            f"{layers['sparsity'].max():.1f} percent.",
        ),
        ReportFigure(
            "occupancy",
            codebook_occupancy(trace),
            "Use of the codebook.",
            "How many weights have each of its values, on a logarithmic scale.",
            f"Stem plot of the {len(values)} values that weights have.",
        ),
    ]
    if len(weight_trace.priors(trace)):
        figures.append(
            ReportFigure(
                "priors",
                prior_shapes(trace),
                "What a weight costs.",
                "L2 regularisation draws every weight to zero. The mixture leaves a weight alone once it has a value "
                "that others have too.",
                "Line chart of the cost of a weight by its value, under an L2 prior and under the mixture.",
            )
        )
    return figures
