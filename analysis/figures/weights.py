"""Figures of one trial's weights, from the trained network through clustering to the quantised one. Where the reader
chooses the epoch, a slider does it, and a button plays through all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures import axes, theme
from analysis.figures.item import ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.formatting import counted
from analysis.stats import weight_trace
from analysis.stats.summary import Summary
from analysis.stats.weight_trace import Trace
from study.records.study_folder import Study

MOST_FRAMES = 20
MOST_POINTS = 1000
"""Of an animation: these bound what it adds to the page."""

MOST_TRIALS = 300
"""Of the figure that has three marks for each, so that a browser can follow a moved filter."""


def weight_histogram(trace: Trace) -> go.Figure:
    """How many weights have which value, on a logarithmic scale, with the mixture's expectation and its components."""
    numbers = weight_trace.moments(trace, MOST_FRAMES)
    total = float(trace["counts/0"].sum())
    drawn = figure(height=430)
    animate(drawn, [(weight_trace.title_of(trace, n), _histogram_marks(trace, n)) for n in numbers], _ripe(numbers))
    drawn.update_xaxes(title={"text": "weight"}, range=[float(trace["edges"][0]), float(trace["edges"][-1])])
    drawn.update_yaxes(
        title={"text": "weights in a bin"},
        type="log",
        range=[-0.4, np.log10(total) + 0.2],
        exponentformat="power",
        dtick=1,
    )
    drawn.update_layout(bargap=0)
    return drawn


def _histogram_marks(trace: Trace, number: int) -> list[Any]:
    bins, parts = weight_trace.histogram(trace, number), weight_trace.mixture(trace, number)
    width = float(bins["weight"].iloc[1] - bins["weight"].iloc[0])
    # The height of a component is what it alone expects in the bin about its mean.
    alone = 2 * weight_trace.ndtr(width / 2 / parts["sigma"].to_numpy()) - 1
    heights = bins["weights"].sum() * parts["proportion"].to_numpy() * alone
    shown = heights > 0.1
    return [
        go.Bar(
            x=_short(bins["weight"]),
            y=bins["weights"].tolist(),
            name="weights",
            opacity=0.75,
            marker={"color": BLUE, "line": {"width": 0}},
            hovertemplate="about %{x}: %{y} weights<extra></extra>",
        ),
        go.Scatter(
            x=_short(bins["weight"]),
            y=_short(bins["expected"].clip(lower=1e-3)),
            name="mixture",
            mode="lines",
            showlegend="means/0" in trace,
            line={"color": VERMILLION, "width": 2},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=_short(parts["mean"][shown]),
            y=_short(heights[shown]),
            name="components, ± 2σ",
            mode="markers",
            marker={"color": ORANGE, "size": 8, "symbol": "diamond", "line": {"color": GREY, "width": 0.5}},
            error_x={"type": "data", "array": _short(2 * parts["sigma"][shown]), "color": ORANGE, "thickness": 1.5},
            text=[f"mean {m:.4g}, σ {s:.3g}, proportion {p:.3g}" for m, s, p in parts[shown].to_numpy()],
            hovertemplate="%{text}<extra></extra>",
        ),
    ]


def joint(trace: Trace) -> go.Figure:
    """Followed weights before and after, with the components' means and bands of ± 2σ."""
    numbers = weight_trace.moments(trace, MOST_FRAMES)
    widest = 1.1 * float(np.abs([trace["edges"][-1], *trace["sample/0"]]).max())
    drawn = figure(height=430)
    animate(drawn, [(weight_trace.title_of(trace, n), _joint_marks(trace, n, widest)) for n in numbers], _ripe(numbers))
    drawn.add_scatter(
        x=[-widest, widest],
        y=[-widest, widest],
        mode="lines",
        name="unchanged",
        line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    before = 1.1 * float(np.abs(trace["sample/0"]).max())
    after = 1.1 * max(float(np.abs(trace[f"sample/{n}"]).max()) for n in numbers)
    drawn.update_xaxes(title={"text": "weight before"}, range=[-before, before])
    drawn.update_yaxes(title={"text": "weight at this epoch"}, range=[-after, after])
    return drawn


def _joint_marks(trace: Trace, number: int, widest: float) -> list[Any]:
    rows, parts = weight_trace.followed(trace, number), weight_trace.mixture(trace, number)
    rows = rows.iloc[:: max(1, len(rows) // MOST_POINTS)]
    ends: list[float | None] = []
    heights: list[float | None] = []
    for mean, sigma, _ in parts.to_numpy():
        ends += [-widest, widest, widest, -widest, -widest, None]
        low, high = float(f"{mean - 2 * sigma:.4g}"), float(f"{mean + 2 * sigma:.4g}")
        heights += [low, low, high, high, low, None]
    lines = [end for mean in _short(parts["mean"]) for end in (mean, mean, None)]
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
            x=_short(rows["before"]),
            y=_short(rows["after"]),
            mode="markers",
            name="weights",
            marker={"color": BLUE, "size": 4, "opacity": 0.7},
            hovertemplate="%{x} became %{y}<extra></extra>",
        ),
    ]


def prior_shapes(trace: Trace) -> go.Figure:
    """What a weight costs under the L2 prior and under the mixture."""
    frame = weight_trace.priors(trace)
    drawn = figure(height=360)
    for column, name, colour, dash in (
        ("l2", "L2: one Gaussian, as wide as the trained weights", PURPLE, "dash"),
        ("first", "mixture before clustering", GREY, "dot"),
        ("last", "mixture at the end of clustering", VERMILLION, "solid"),
    ):
        drawn.add_scatter(
            x=_short(frame["weight"]),
            y=_short(frame[column]),
            mode="lines",
            name=name,
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="weight %{x}: %{y} nats<extra></extra>",
        )
    dear = frame[["l2", "first", "last"]].to_numpy()
    drawn.update_xaxes(title={"text": "weight"})
    drawn.update_yaxes(
        title={"text": "cost −log p(w) (nats)"}, range=[float(dear.min()) - 1, float(np.quantile(dear, 0.98)) + 2]
    )
    return drawn


def layer_sparsity(trace: Trace) -> go.Figure:
    """Share of zeros in each layer."""
    frame = weight_trace.layers(trace).iloc[::-1]
    drawn = figure(height=max(220, 70 + 24 * len(frame)))
    said = [f"{s:.2f} % of {n:,.0f}" for s, n in zip(frame["sparsity"], frame["weights"], strict=True)]
    drawn.add_bar(
        x=frame["sparsity"].tolist(),
        y=[escape(name) for name in frame["layer"]],
        orientation="h",
        marker={"color": BLUE},
        text=said,
        textposition="auto",
        insidetextanchor="end",
        textangle=0,
        constraintext="none",
        cliponaxis=False,
        insidetextfont={"color": theme.ink_on(BLUE)},
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    drawn.update_xaxes(title={"text": "weights at zero (%)"}, range=[0, 100])
    return drawn


def codebook_occupancy(trace: Trace) -> go.Figure:
    """How many weights have each value of the codebook."""
    frame = weight_trace.codebook(trace)
    drawn = figure(height=300)
    zero = frame["value"] == 0
    for name, rows, colour, symbol in (("zero", frame[zero], GREY, "square"), ("value", frame[~zero], GREEN, "circle")):
        drawn.add_scatter(
            x=_short(rows["value"]),
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
    drawn.update_xaxes(title={"text": "value in the codebook"})
    drawn.update_yaxes(
        title={"text": "weights that have it"},
        type="log",
        exponentformat="power",
        dtick=1,
        range=[-0.3, np.log10(frame["weights"].max()) + 0.3],
    )
    return drawn


def provisional_sparsity(study: Study) -> go.Figure:
    """What quantising during clustering would have given, against what the trial ended with; of many trials an even
    sample."""
    frame = weight_trace.provisional(study)
    trials = frame["trial_id"].drop_duplicates()
    frame = frame[frame["trial_id"].isin(trials.sample(min(MOST_TRIALS, len(trials)), random_state=0))]
    drawn = figure(height=340)
    colours, symbols = (GREY, ORANGE, BLUE), ("circle-open", "diamond-open", "circle")
    for share, colour, symbol in zip(weight_trace.EARLY, colours, symbols, strict=True):
        rows = frame[frame["share"] == share]
        drawn.add_scatter(
            x=axes.remaining_percent(rows["provisional"]),
            y=axes.remaining_percent(rows["final"]),
            mode="markers",
            name=f"after {share:.0%}",
            marker={"color": colour, "size": 8, "symbol": symbol},
            customdata=rows["trial_id"].tolist(),
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            text=[_said(*row) for row in rows[["trial_id", "provisional", "final"]].to_numpy()],
        )
    rest = axes.remaining_percent(frame[["provisional", "final"]].to_numpy(dtype=float).ravel())
    low, high = (min(rest, default=1.0), max(rest, default=100.0))
    drawn.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        name="the same",
        line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    drawn.update_xaxes(axes.complement_axis("provisional sparsity (%)", 100.0, rest, most=6))
    drawn.update_yaxes(axes.complement_axis("final sparsity (%)", 100.0, rest, most=6))
    return drawn


def _said(trial_id: str, early: float, final: float) -> str:
    return f"{escape(trial_id)}: {early:.2f} %, then {final:.2f} %"


def animate(drawn: go.Figure, frames: list[tuple[str, list[Any]]], start: int) -> None:
    """A slider through frames that each replace the first traces of the figure, and a button that plays them.

    Args:
        frames: (name, traces); the one at `start` is shown first.
    """
    drawn.add_traces(frames[start][1])
    which = list(range(len(frames[0][1])))
    drawn.frames = [go.Frame(name=str(i), data=data, traces=which) for i, (_, data) in enumerate(frames)]
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    playing = {**now, "frame": {"duration": 350, "redraw": True}, "fromcurrent": True}
    steps = [{"label": name, "method": "animate", "args": [[str(i)], now]} for i, (name, _) in enumerate(frames)]
    drawn.update_layout(
        sliders=[
            {
                "steps": steps,
                "active": start,
                "pad": {"t": 46, "l": 56},
                "currentvalue": {"prefix": ""},
                "tickcolor": "rgba(0,0,0,0)",
                "font": {"color": "rgba(0,0,0,0)", "size": 1},
                "bgcolor": GREY,
                "activebgcolor": BLUE,
                "borderwidth": 0,
            }
        ],
        updatemenus=[
            {
                "type": "buttons",
                "x": 0,
                "y": 0,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 52},
                "showactive": False,
                "buttons": [{"label": "▶", "method": "animate", "args": [None, playing]}],
            }
        ],
    )
    # For notebooks, where the template is the light one; the page has a slider of its own.
    drawn.layout.sliders[0].currentvalue.font = {"size": 13, "color": theme.LIGHT.layout.font.color}


def _ripe(numbers: list[int]) -> int:
    """The last frame before quantising: where the weights lie, and why."""
    return max(0, len(numbers) - 2)


def _short(values: Any) -> list[float | None]:
    """Four digits: the page is read by people, and is downloaded."""
    return [None if not np.isfinite(v) else float(f"{v:.4g}") for v in values]


def weight_figures(trace: Trace) -> list[ReportFigure]:
    total = int(trace["counts/0"].sum())
    some = min(MOST_POINTS, len(trace["index"]))
    told = " before clustering, after its epochs, and quantised." if "means/0" in trace else " as they are pruned."
    under = (
        "The line is what the mixture expects in each bin, diamonds are its components with ± 2σ. "
        if "means/0" in trace
        else ""
    )
    items = [
        ReportFigure(
            "weights",
            weight_histogram(trace),
            f"All {total:,} weights, by value.",
            under + "Counts are on a logarithmic scale; the outermost bins hold what lies beyond.",
            f"Histogram of {total:,} weights{told}",
        ),
        ReportFigure(
            "joint",
            joint(trace),
            "Where each weight went.",
            f"{some:,} weights: half of them drawn evenly, half in proportion to their square before, since of those "
            "drawn evenly hardly any survive.",
            f"Scatter plot of {some:,} weights before against after, epoch by epoch.",
        ),
    ]
    return items


def remaining_figures(trace: Trace) -> list[ReportFigure]:
    layers, values = weight_trace.layers(trace), weight_trace.codebook(trace)
    items = [
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
    if "means/0" in trace:
        items.append(
            ReportFigure(
                "priors",
                prior_shapes(trace),
                "What a weight costs.",
                "L2 regularisation draws every weight to zero. The mixture leaves a weight alone once it has a value "
                "that others have too.",
                "Line chart of the cost of a weight by its value, under an L2 prior and under the mixture.",
            )
        )
    return items


def provisional_figure(s: Summary) -> ReportFigure:
    drawn = provisional_sparsity(s.study)
    caption = (
        "What quantising at a quarter, half and three quarters of the epochs would have given; on the dotted "
        "line nothing changed after."
    )
    if len(drawn.data[0].x) == MOST_TRIALS:
        caption += f" {MOST_TRIALS} trials are drawn, chosen at random."
    return ReportFigure(
        "provisional",
        drawn,
        "Provisional against final sparsity.",
        caption,
        f"Scatter plot of provisional against final sparsity of {counted(len(drawn.data[0].x), 'trial')}.",
    )
