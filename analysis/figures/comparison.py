"""Several studies on one plane: validation accuracy against the cost that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import Axis, focus, objective_axis, positions
from analysis.figures.report_figure import ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, axis_title, escape, figure
from analysis.figures.trial_marks import MOST_MARKS
from analysis.formatting import below_axis_sentence, counted, format_cell
from analysis.stats.names import ACCURACY
from analysis.stats.several_studies import OBJECTIVES, MergedStudies, StudyEntry
from analysis.stats.summary import configuration
from study.records.columns import column

LOOKS = [
    *zip(
        (BLUE, VERMILLION, GREEN, ORANGE, PURPLE), ("circle", "square", "diamond", "triangle-up", "cross"), strict=True
    ),
    *zip((VERMILLION, GREEN, ORANGE, PURPLE, BLUE), ("star", "hexagon", "x", "pentagon", "triangle-down"), strict=True),
]
"""Colour and symbol of each study; the symbol alone tells them apart too."""

COST = next(name for name in OBJECTIVES if name != ACCURACY)

DENSE = (
    "A network that is not compressed, such as a distilled student, counts 4 bytes for each parameter (float32). Every "
    "other size is that of the compressed file, including everything that decoding needs."
)

_PREFIXES = ((1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class ComparisonData:
    """What the figure shows.

    Attributes:
        costs: of every trial and baseline of every study.
        window: range of the accuracy axis, see `focus`.
    """

    merged: MergedStudies
    costs: pd.Series
    window: list[float] | None


def comparison_data(merged: MergedStudies) -> ComparisonData:
    """Compute what the figure shows of these studies."""
    everything = pd.concat([rows for entry in merged.entries for rows in (entry.trials, entry.baselines)])
    fronts = pd.concat([entry.front for entry in merged.entries])
    return ComparisonData(merged, everything[COST], focus(fronts[ACCURACY], everything[ACCURACY]))


def accuracy_vs_bytes(merged: MergedStudies) -> go.Figure:
    """Validation accuracy against the size of the file, on a logarithmic axis that runs backwards: every complete
    trial in its study's colour and symbol, large where it is on its study's front, baselines open, and the merged
    front as a line."""
    return draw_comparison(comparison_data(merged))


def draw_comparison(data: ComparisonData) -> go.Figure:
    """The figure of `comparison_data`."""
    drawing, front = figure(height=520), data.merged.front
    drawing.add_scatter(
        x=positions(column(COST), front[COST]),
        y=front[ACCURACY].tolist(),
        mode="lines",
        name="merged front",
        line={"color": GREY, "width": 2.5, "shape": "vh"},
        hoverinfo="skip",
    )
    for i, entry in enumerate(data.merged.entries):
        _draw_study(drawing, entry, i)
    drawing.update_xaxes(_short_axis(data.costs))
    drawing.update_yaxes(title={"text": axis_title(column(ACCURACY))}, range=data.window)
    return drawing


def _draw_study(drawing: go.Figure, entry: StudyEntry, number: int) -> None:
    colour, symbol = LOOKS[number % len(LOOKS)]
    others = entry.trials.drop(entry.front.index)
    if len(others) > MOST_MARKS:
        others = others.sample(MOST_MARKS, random_state=0)
    for rows, size, opacity, shape in (
        (others, 7, 0.55, symbol),
        (entry.front, 10, 1.0, symbol),
        (entry.baselines, 11, 1.0, f"{symbol}-open"),
    ):
        drawing.add_scatter(
            x=positions(column(COST), rows[COST]),
            y=rows[ACCURACY].tolist(),
            mode="markers",
            opacity=opacity,
            name=escape(entry.name),
            legendgroup=str(number),
            showlegend=rows is entry.front,
            marker={"size": size, "symbol": shape, "color": colour, "line": {"width": 1.8 * ("open" in shape)}},
            text=_hover(entry, rows),
            hovertemplate="%{text}<extra></extra>",
            customdata=rows["trial_id"].tolist(),
        )


def _short_axis(sizes: pd.Series) -> Axis:
    """`objective_axis` with short labels, and few of them: dense and compressed networks are decades apart."""
    axis = objective_axis(column(COST), sizes) | {"title": {"text": "size of the network’s file"}}
    ticks = axis["tickvals"]
    if len(ticks) > 6:
        ticks = [tick for tick in ticks if f"{tick:g}".startswith("1")]
    labels = [_short_size(tick) for tick in ticks]
    return {**axis, "tickvals": ticks, "ticktext": labels if len(set(labels)) == len(labels) else axis["ticktext"]}


def _short_size(size: float) -> str:
    scale, unit = next((pair for pair in _PREFIXES if size >= pair[0]), (1.0, "bytes"))
    return f"{float(f'{size / scale:.3g}'):,g} {unit}"


def _hover(entry: StudyEntry, rows: pd.DataFrame) -> list[str]:
    """What a mark says: accuracy, cost, the study's own objectives, and the configuration."""
    columns = dict.fromkeys([*OBJECTIVES, *entry.summary.study.objectives])
    titles = {name: axis_title(entry.summary.column(name)) for name in columns if name in rows}
    texts = []
    for _, row in rows.iterrows():
        lines = [f"<b>{escape(row['trial_id'])}</b> {escape(row['baseline'])}"]
        lines += [
            f"{title}: {format_cell(entry.summary.column(name), row[name])}"
            for name, title in titles.items()
            if pd.notna(row[name])
        ]
        texts.append("<br>".join([*lines, escape(configuration(entry.summary, row))]))
    return texts


def comparison_figures(merged: MergedStudies) -> list[ReportFigure]:
    """The one figure of the page, with its words; none where no trial has a size."""
    if merged.front.empty:
        return []
    data = comparison_data(merged)
    caption = (
        "Up and to the right is better; the axis of sizes is logarithmic and runs backwards. Large marks are on "
        "their study’s front, open ones are baselines, which are on none. The grey line is the front of all "
        f"together. {DENSE}"
    )
    if data.window is not None:
        trials = [value for entry in merged.entries for value in entry.trials[ACCURACY]]
        baselines = [value for entry in merged.entries for value in entry.baselines[ACCURACY]]
        caption += below_axis_sentence(data.window[0], {"trial": trials, "baseline": baselines})
    if any(len(entry.trials) > MOST_MARKS for entry in merged.entries):
        caption += f" Of each study at most {MOST_MARKS:,} trials are drawn, and every member of its front."
    alt = (
        f"Scatter plot of validation accuracy against size in bytes for {len(merged.entries)} studies, one colour and "
        f"symbol each; {counted(len(merged.front), 'trial')} form{'s' * (len(merged.front) == 1)} the merged front."
    )
    return [ReportFigure("main", draw_comparison(data), "Accuracy against size.", caption, alt)]
