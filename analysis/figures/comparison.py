"""Several studies on one plane: validation accuracy against bytes of the compressed file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes
from analysis.figures.axes import focus
from analysis.figures.item import ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, escape, figure
from analysis.figures.trial_marks import MOST_MARKS
from analysis.formatting import below_axis_sentence, counted, format_cell
from analysis.stats.several_studies import MergedStudies, StudyEntry
from analysis.stats.summary import configuration
from study.records.columns import label

LOOKS = [
    *zip(
        (BLUE, VERMILLION, GREEN, ORANGE, PURPLE), ("circle", "square", "diamond", "triangle-up", "cross"), strict=True
    ),
    *zip((VERMILLION, GREEN, ORANGE, PURPLE, BLUE), ("star", "hexagon", "x", "pentagon", "triangle-down"), strict=True),
]
"""Colour and symbol of each study; the symbol alone tells them apart too."""

DENSE = (
    "A distilled student and an uncompressed network are dense: their size is 4 bytes for each parameter "
    "(float32). Every other size is that of the compressed file, everything included that decoding needs."
)


def accuracy_vs_bytes(m: MergedStudies) -> go.Figure:
    """Validation accuracy against the size of the file, on a logarithmic axis that runs backwards: every complete
    trial in its study's colour and symbol, large where it is on its study's front, baselines open, and the merged
    front as a line."""
    drawn = figure(height=520)
    drawn.add_scatter(
        x=m.front["file_bytes"].tolist(),
        y=m.front["val_accuracy"].tolist(),
        mode="lines",
        name="merged front",
        line={"color": GREY, "width": 2.5, "shape": "vh"},
        hoverinfo="skip",
    )
    for i, side in enumerate(m.sides):
        colour, symbol = LOOKS[i % len(LOOKS)]
        others = side.trials.drop(side.front.index)
        if len(others) > MOST_MARKS:
            others = others.sample(MOST_MARKS, random_state=0)
        for rows, size, opacity, shape in (
            (others, 7, 0.55, symbol),
            (side.front, 10, 1.0, symbol),
            (side.baselines, 11, 1.0, f"{symbol}-open"),
        ):
            drawn.add_scatter(
                x=rows["file_bytes"].tolist(),
                y=rows["val_accuracy"].tolist(),
                mode="markers",
                opacity=opacity,
                name=escape(side.name),
                legendgroup=str(i),
                showlegend=rows is side.front,
                marker={"size": size, "symbol": shape, "color": colour, "line": {"width": 1.8 * ("open" in shape)}},
                text=_hover(side, rows),
                hovertemplate="%{text}<extra></extra>",
                customdata=rows["trial_id"].tolist(),
            )
    everything = pd.concat([rows for side in m.sides for rows in (side.trials, side.baselines)])
    drawn.update_xaxes(_size_axis(everything["file_bytes"]))
    fronts = pd.concat([side.front for side in m.sides])
    drawn.update_yaxes(
        title={"text": label("val_accuracy")}, range=focus(fronts["val_accuracy"], everything["val_accuracy"])
    )
    return drawn


def _size_axis(sizes: pd.Series) -> dict[str, Any]:
    """`theme.size_axis` with short labels, and few of them: dense and compressed networks are decades apart."""
    axis = axes.size_axis("size of the network’s file", sizes)
    ticks = axis["tickvals"]
    if len(ticks) > 6:
        ticks = [tick for tick in ticks if f"{tick:g}".startswith("1")]
    said = [_short(tick) for tick in ticks]
    return {**axis, "tickvals": ticks, "ticktext": said if len(set(said)) == len(said) else axis["ticktext"]}


def _short(size: float) -> str:
    scale, unit = next((pair for pair in ((1e6, "MB"), (1e3, "kB")) if size >= pair[0]), (1.0, "bytes"))
    return f"{float(f'{size / scale:.3g}'):,g} {unit}"


def _hover(side: StudyEntry, rows: pd.DataFrame) -> list[str]:
    said = []
    for _, row in rows.iterrows():
        lines = [
            f"<b>{escape(row['trial_id'])}</b> {escape(row['baseline'])}",
            f"{row['val_accuracy']:.2f} % validation accuracy",
            f"{row['file_bytes']:,.0f} bytes",
        ]
        if np.isfinite(row.get("sparsity", np.nan)):
            lines.append(f"{format_cell('sparsity', row['sparsity'])} % of the weights at zero")
        said.append("<br>".join([*lines, escape(configuration(side.summary, row))]))
    return said


def comparison_figures(m: MergedStudies) -> list[ReportFigure]:
    if m.front.empty:
        return []
    drawn = accuracy_vs_bytes(m)
    caption = (
        "Up and to the right is better; the axis of sizes is logarithmic and runs backwards. Large marks are on "
        "their study’s front, open ones are baselines, which are on none. The grey line is the front of all "
        f"together. {DENSE}"
    )
    window = drawn.layout.yaxis.range
    if window is not None:
        caption += below_axis_sentence(
            window[0],
            {
                noun: [y for side in m.sides for y in getattr(side, f"{noun}s")["val_accuracy"]]
                for noun in ("trial", "baseline")
            },
        )
    if any(len(side.trials) > MOST_MARKS for side in m.sides):
        caption += f" Of each study at most {MOST_MARKS:,} trials are drawn, its front whole."
    alt = (
        f"Scatter plot of validation accuracy against size in bytes for {len(m.sides)} studies, one colour and "
        f"symbol each; {counted(len(m.front), 'trial')} form{'s' * (len(m.front) == 1)} the merged front."
    )
    return [ReportFigure("main", drawn, "Accuracy against size.", caption, alt)]
