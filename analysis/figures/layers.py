"""Figures of single layers: what is left of each in the chosen network, and how accuracy falls when one is pruned."""

from __future__ import annotations

from plotly.subplots import make_subplots

from analysis.figures.axes import log_axis
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, LIGHT, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.formatting import counted
from analysis.stats.layers import layers_of, left_out_share, sensitivity
from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary

MOST_LAYERS = 40
"""Bars of the figure of layers: those of the most weights. The table has all."""
MOST_LINES = 12
"""Lines of the figure of sensitivity: those of the layers that lose most."""
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "cross")


def layer_groups(s: Summary) -> list[FigureGroup]:
    """Both figures, as far as the study recorded what they show."""
    figures = [*_facts(s), *_sensitivity(s)]
    return [FigureGroup("Layer by layer", figures)] if figures else []


def _facts(s: Summary) -> list[ReportFigure]:
    trial_id, layers = layers_of(s)
    if layers.empty:
        return []
    shown = layers.sort_index() if len(layers) <= MOST_LAYERS else layers.nlargest(MOST_LAYERS, "weights").sort_index()
    shown = shown.iloc[::-1]
    names = [escape(name) for name in shown["tensor"]]
    drawing = make_subplots(rows=1, cols=4, shared_yaxes=True, horizontal_spacing=0.03)
    panels = (
        ("zeros (%)", shown["zeros"], BLUE, "linear"),
        ("bits a weight", shown["bits"], ORANGE, "linear"),
        ("bytes", shown["bytes"], GREEN, "log"),
        ("units left (%)", 100 * shown["units_left"] / shown["units"], PURPLE, "linear"),
    )
    for number, (title, values, colour, scale) in enumerate(panels, 1):
        drawing.add_bar(
            x=values.round(4).tolist(),
            y=names,
            orientation="h",
            marker={"color": colour},
            text=[f"{name}: {value:,.4g} {title}" for name, value in zip(names, values, strict=True)],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
            row=1,
            col=number,
        )
        axis = {"title": {"text": title}, "type": scale, "nticks": 4}
        if title.endswith("(%)"):
            axis["range"] = [0, 100]
        drawing.update_xaxes(axis, row=1, col=number)
    drawing.update_layout(template=LIGHT, height=max(240, 90 + 22 * len(shown)), autosize=True)
    few = f" The {MOST_LAYERS} with the most weights." if len(layers) > len(shown) else ""
    caption = (
        "Zeros, bits that a weight takes in the compressed file, bytes (logarithmic), and the units that exact "
        "shrinking leaves, which is what makes a network faster. Where there is no bar for zeros, the tensor took no "
        f"part; those are {left_out_share(layers):.1f} % of all parameters.{few}"
    )
    alt = f"Bar charts of zeros, bits, bytes and units left of {counted(len(shown), 'tensor')} of {trial_id}."
    return [ReportFigure("layer-facts", drawing, f"What is left of each layer of {trial_id}.", caption, alt)]


def _sensitivity(s: Summary) -> list[ReportFigure]:
    frame, level = sensitivity(s.study)
    if frame.empty:
        return []
    lowest = frame.groupby("tensor", sort=False)[ACCURACY].min()
    names = [name for name in lowest.index if name in set(lowest.nsmallest(MOST_LINES).index)]
    drawing = figure(height=420)
    colours = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
    for number, name in enumerate(names):
        rows = frame[frame["tensor"] == name].sort_values("remaining", ascending=False)
        drawing.add_scatter(
            x=rows["remaining"].tolist(),
            y=rows[ACCURACY].tolist(),
            mode="lines+markers",
            name=escape(name),
            line={"color": colours[number % 5], "width": 2, "dash": DASHES[number // 5 % 3]},
            marker={"size": 7, "symbol": SYMBOLS[number % 4]},
            hovertemplate="%{x} % of the weights kept: %{y:.2f} %",
        )
    if level == level:
        drawing.add_hline(y=level, line={"color": GREY, "width": 1, "dash": "dot"})
    drawing.update_xaxes(log_axis("weights of the layer that are kept (%)", frame["remaining"]))
    drawing.update_yaxes(title={"text": "validation accuracy (%)"})
    others = lowest.size - len(names)
    more = f" Not drawn: {counted(others, 'layer')} that {'lose' if others > 1 else 'loses'} less." if others else ""
    caption = (
        "Each layer alone is pruned by magnitude, without retraining, and all others stay as they were; the dotted "
        f"line is the network itself. A layer that falls early is a candidate for --skip.{more}"
    )
    alt = f"Line chart of validation accuracy against the share of weights kept, for {counted(len(names), 'layer')}."
    return [ReportFigure("sensitivity", drawing, "How much each layer bears.", caption, alt)]
