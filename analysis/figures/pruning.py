"""Figures of how one network was pruned: what is left of each layer by epoch, and which weights the score keeps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import log_axis
from analysis.figures.learning_curves import draw_phases
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.formatting import counted
from analysis.stats import weight_trace
from analysis.stats.pruning import ALL, Scores, boundary, scores, survivors
from analysis.stats.summary import Summary

MOST_LINES = 9
"""Lines of layers: those of the most weights."""
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
DASHES = ("solid", "dash", "dot")


def pruning_groups(s: Summary) -> list[FigureGroup]:
    """Of the trial whose weights are shown; none where no weight was pinned at zero during training."""
    trial_id, trace = weight_trace.shown(s)
    if not trace:
        return []
    rows, scored = survivors(trace), scores(trace)
    figures = [_survivors_figure(rows)] if len(rows) else []
    figures += [_scores_figure(scored)] if scored else []
    return [FigureGroup(f"How {trial_id} was pruned", figures)] if figures else []


def layers_drawn(rows: pd.DataFrame) -> list[str]:
    """Names of the layers of most weights, in their order in the network."""
    sizes = rows[rows["layer"] != ALL].drop_duplicates("layer").set_index("layer")["weights"]
    return [name for name in sizes.index if name in set(sizes.nlargest(MOST_LINES).index)]


def draw_survivors(rows: pd.DataFrame) -> go.Figure:
    """The figure of `survivors`: a line for each layer, and a thick one for all together."""
    drawing = figure(height=380)
    for number, name in enumerate([*layers_drawn(rows), ALL]):
        own = rows[rows["layer"] == name]
        line = {"color": COLOURS[number % 5], "width": 1.8, "dash": DASHES[number // 5 % 3]}
        drawing.add_scatter(
            x=own["epoch"].tolist(),
            y=[round(share, 4) if share else None for share in own["share"]],
            mode="lines",
            name=escape(name) if name else "all together",
            line=line if name else {"color": GREY, "width": 4},
            text=[f"{n:,} of {total:,}" for n, total in own[["survivors", "weights"]].to_numpy()],
            hovertemplate="epoch %{x}: %{text}<extra>%{fullData.name}</extra>",
        )
    trained = rows[(rows["layer"] == ALL) & (rows["epoch"] > 0) & (rows["phase"] != "quantised")]
    draw_phases(drawing, trained.assign(trial_id=""), at_top=True)
    drawing.update_xaxes(title={"text": "epoch"}, rangemode="tozero")
    drawing.update_yaxes(log_axis("weights that are not zero (%)", rows["share"], backwards=False))
    return drawing


def _survivors_figure(rows: pd.DataFrame) -> ReportFigure:
    layers, drawn = rows["layer"].nunique() - 1, len(layers_drawn(rows))
    ends = rows[rows["epoch"] == rows["epoch"].max()].drop_duplicates("layer", keep="last").set_index("layer")["share"]
    overall, parts = ends[ALL], ends.drop(ALL)
    caption = (
        "The share of weights that are not zero, on a logarithmic scale. One threshold over all layers decides, so a "
        f"layer whose line falls lower has more weights of little worth. At the end {overall:.3g} % are left of all, "
        f"and the most of {parts.idxmax()}, {parts.max():.3g} %."
    )
    if not parts.all():
        caption += " A line ends where its layer has none left."
    if layers > drawn:
        caption += f" The {drawn} layers of most weights are drawn, out of {layers}."
    alt = f"Line chart of the share of weights that are not zero over epochs, for {counted(drawn, 'layer')}."
    return ReportFigure("survivors", draw_survivors(rows), "Survivors by epoch.", caption, alt)


def draw_scores(scored: Scores) -> go.Figure:
    """The figure of `scores`: weights by magnitude and gradient, and the thresholds of both ways to prune."""
    drawing, frame = figure(height=440), scored.frame
    kinds = ((False, "pruned", ORANGE, "circle-open"), (True, "survivors", BLUE, "circle"))
    for survives, name, colour, symbol in kinds:
        rows = frame[frame["survives"] == survives]
        drawing.add_scatter(
            x=_rounded(rows["weight"]),
            y=_rounded(rows["gradient"]),
            mode="markers",
            name=name,
            marker={"color": colour, "size": 5, "symbol": symbol, "opacity": 0.7},
            hovertemplate="magnitude %{x}, gradient %{y}<extra>%{fullData.name}</extra>",
        )
    low, high = (float(value) for value in (frame["gradient"].min() / 2, frame["gradient"].max() * 2))
    lines = []
    if scored.threshold:
        heights = np.geomspace(low, high, 20)
        lines.append(("the score’s threshold", boundary(scored, heights), heights, VERMILLION, "solid"))
    if scored.magnitude_threshold:
        limit = np.full(2, scored.magnitude_threshold)
        lines.append(("magnitude’s threshold", limit, np.array([low, high]), GREY, "dot"))
    for name, x, y, colour, dash in lines:
        drawing.add_scatter(
            x=_rounded(x),
            y=_rounded(y),
            mode="lines",
            name=name,
            line={"color": colour, "width": 2, "dash": dash},
            hoverinfo="skip",
        )
    axis = {"type": "log", "exponentformat": "power", "dtick": 1}
    drawing.update_xaxes(axis, title={"text": "magnitude |w|"}, range=_range(frame["weight"]))
    drawing.update_yaxes(axis, title={"text": "root mean square gradient √v̂"}, range=_range(frame["gradient"]))
    return drawing


def _range(values: pd.Series) -> list[float]:
    """The ends of a logarithmic axis that all values but the smallest one in two hundred are on."""
    return [float(np.log10(values.quantile(0.005))) - 0.1, float(np.log10(values.max())) + 0.1]


def _rounded(values: pd.Series | np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _scores_figure(scored: Scores) -> ReportFigure:
    drawn = int(scored.frame["survives"].sum())
    share, total = scored.disputed / scored.survivors, scored.survivors + scored.pruned
    score = f"w² v̂^{scored.power:.3g}" if scored.power != 1 else "w² v̂"
    above = "above the solid line" if scored.threshold else "that have some gradient"
    caption = (
        f"The score {score} keeps the weights {above}, magnitude those to the right of the dotted one; v̂ is the mean "
        "square of a weight’s gradient. A pruned weight is shown as it was when it was pinned at zero, a survivor as "
        "it was at the last pruning. Judged by these magnitudes, magnitude at the same density would have pruned "
        f"{100 * share:.3g} % of the {scored.survivors:,} survivors. {drawn:,} survivors and "
        f"{len(scored.frame) - drawn:,} pruned weights are drawn, at most 1,000 of each, chosen at random."
    )
    if scored.hidden:
        caption += f" {100 * scored.hidden / total:.3g} % of all weights have no gradient, or no value, and no mark."
    alt = (
        f"Scatter plot of {counted(len(scored.frame), 'weight')} by magnitude and gradient; the score keeps those "
        "above a falling line, magnitude those right of a vertical one."
    )
    title = "What the score keeps that magnitude would prune."
    return ReportFigure("scores", draw_scores(scored), title, caption, alt)
