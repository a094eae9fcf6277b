"""What fresh seeds say: each configuration's difference from the reference with its interval, and the fronts that a
share of the seeds attains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import Axis, focus, objective_axis, objective_column, positions
from analysis.figures.report_figure import ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, VERMILLION, escape, figure
from analysis.formatting import below_axis_sentence, counted, mean_and_half, not_drawn_sentence
from analysis.stats import summary
from analysis.stats.guessing import told_from_guessing
from analysis.stats.held_out_results import fresh_seed_rows, paired
from analysis.stats.names import TEST_ACCURACY
from analysis.stats.summary import Summary, summarise
from analysis.stats.uncertainty import attainment
from study.records.columns import Column
from study.records.study_folder import Study


@dataclass(frozen=True)
class DifferenceData:
    """Differences in test accuracy from the reference with the same seed, in points.

    Attributes:
        rows: one a configuration and seed, see `paired`.
        means: one a configuration, in the order of the table.
        window: range of the axis, see `focus`; None where there is no pair.
    """

    rows: pd.DataFrame
    means: pd.DataFrame
    window: list[float] | None


def difference_data(s: Summary) -> DifferenceData:
    """Pair the configurations of a study that were trained with fresh seeds."""
    rows = paired(fresh_seed_rows(s.study), s.fresh_reference)
    means = s.fresh[s.fresh["pairs"] > 0] if len(s.fresh) else s.fresh
    if means.empty:
        return DifferenceData(rows, means, None)
    # One ruined configuration must not flatten the others; the caption counts those that lie outside. What is ordinary
    # is judged by means alone: among few seeds the ends of intervals lie so far up that zero would be out of sight.
    middle, halves = means["difference"], means["difference_half"].fillna(0.0)
    ends = [0.0, *rows["difference"], *(middle - halves), *(middle + halves)]
    return DifferenceData(rows, means, focus(ends, [0.0, *middle]))


def paired_differences(study: Study) -> go.Figure:
    """Test accuracy minus that of the reference with the same seed, in points: each seed a small mark, the mean with
    its 95 % interval a large one, the reference the line at zero. Configurations are rows, in the table's order."""
    return draw_differences(difference_data(summarise(study)))


def draw_differences(data: DifferenceData) -> go.Figure:
    """The figure of `difference_data`."""
    rows, means = data.rows, data.means
    drawing = figure(height=110 + 34 * max(1, len(means)))
    if means.empty:
        return drawing
    drawing.add_vline(x=0, line={"color": GREY, "width": 1.4})
    drawing.add_scatter(
        x=rows["difference"].tolist(),
        y=_names(rows),
        mode="markers",
        name="one seed",
        marker={"size": 7, "symbol": "circle-open", "color": GREY},
        customdata=rows["trial_id"].tolist(),
        text=[
            f"seed {seed}: {test:.2f} % against {other:.2f} %"
            for seed, test, other in zip(rows["seed"], rows[TEST_ACCURACY], rows["reference_accuracy"], strict=True)
        ],
        hovertemplate="%{text}<extra>%{y}</extra>",
    )
    halves = means["difference_half"].fillna(0.0).tolist()
    drawing.add_scatter(
        x=means["difference"].tolist(),
        y=_names(means),
        mode="markers",
        name="mean with 95 % interval",
        marker={"size": 10, "symbol": "diamond", "color": VERMILLION},
        customdata=means["trial_id"].tolist(),
        error_x={"type": "data", "array": halves, "thickness": 2, "width": 5, "color": VERMILLION},
        text=[
            f"{mean_and_half('difference', row.difference, row.difference_half)} points, "
            + (f"{row.pairs} seeds" if row.pairs > 1 else "one seed")
            for row in means.itertuples()
        ],
        hovertemplate="%{text}<extra>%{y}</extra>",
    )
    drawing.update_xaxes(title={"text": "difference in test accuracy (points)"}, range=data.window)
    drawing.update_yaxes(
        type="category", categoryorder="array", categoryarray=_names(means)[::-1], range=[-0.6, len(means) - 0.4]
    )
    return drawing


@dataclass(frozen=True)
class AttainmentData:
    """Fronts over fresh seeds.

    Attributes:
        name, cost: the column on the horizontal axis, and what is declared of it.
        rows: retrained configurations, one row a seed.
        surfaces: see `attainment`.
        window: range of the accuracy axis, see `focus`.
        axis: of the cost; networks that guess stretch neither.
    """

    name: str
    cost: Column
    rows: pd.DataFrame
    surfaces: pd.DataFrame
    window: list[float] | None
    axis: Axis


def attainment_data(s: Summary) -> AttainmentData:
    """What a quarter, half and three quarters of the fresh seeds attain in a study that has a cost."""
    rows = fresh_seed_rows(s.study)
    rows = rows[rows["baseline"] == ""].reindex(columns=list(dict.fromkeys([*rows.columns, s.cost])))
    rows = rows.assign(**{s.cost: pd.to_numeric(rows[s.cost], errors="coerce")}).dropna(subset=[s.cost, TEST_ACCURACY])
    surfaces = attainment(rows, {TEST_ACCURACY: "max", s.cost: s.study.objectives[s.cost]})
    told = rows[told_from_guessing(rows[TEST_ACCURACY], s.study.meta, part="test")]
    telling = told if len(told) else rows
    window = focus(surfaces[TEST_ACCURACY], telling[TEST_ACCURACY])
    cost = objective_column(s.study, s.cost)
    axis = objective_axis(cost, telling[s.cost], most=6, beyond=rows[s.cost])
    return AttainmentData(s.cost, cost, rows, surfaces, window, axis)


def attainment_surfaces(study: Study) -> go.Figure:
    """What a quarter, half and three quarters of the fresh seeds attain on test data, with every seed's networks."""
    return draw_attainment(attainment_data(summarise(study)))


def draw_attainment(data: AttainmentData) -> go.Figure:
    """The figure of `attainment_data`."""
    rows, drawing = data.rows, figure(height=340)
    drawing.add_scatter(
        x=positions(data.cost, rows[data.name]),
        y=rows[TEST_ACCURACY].tolist(),
        mode="markers",
        name="one seed",
        marker={"size": 7, "symbol": "circle-open", "color": GREY},
        customdata=rows["trial_id"].tolist(),
        text=[f"{escape(i)}, seed {n}" for i, n in zip(rows["trial_id"], rows["seed"], strict=True)],
        hovertemplate="%{text}: %{y:.2f} %<extra></extra>",
    )
    for percentage, colour, dash in ((25, BLUE, "dot"), (50, VERMILLION, "solid"), (75, GREEN, "dash")):
        line = data.surfaces[data.surfaces["percentage"] == percentage].sort_values(TEST_ACCURACY, ascending=False)
        drawing.add_scatter(
            x=positions(data.cost, line[data.name]),
            y=line[TEST_ACCURACY].tolist(),
            mode="lines",
            name=f"{percentage} % of seeds",
            line={"color": colour, "width": 2, "dash": dash, "shape": "vh"},
            hovertemplate="%{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    drawing.update_xaxes(data.axis)
    drawing.update_yaxes(title={"text": "test accuracy (%)"}, range=data.window)
    return drawing


def _names(rows: pd.DataFrame) -> list[str]:
    return [escape(name) for name in rows["baseline"].where(rows["baseline"] != "", rows["trial_id"])]


def attainment_figures(s: Summary) -> list[ReportFigure]:
    """Median and quartiles of the front over seeds, where there are seeds enough."""
    data = attainment_data(s) if summary.has_surfaces(s) else None
    if data is None or data.rows.empty:
        return []
    about = "What a quarter, half and three quarters of the fresh seeds attain: networks this good in both objectives."
    cropped = "" if data.window is None else below_axis_sentence(data.window[0], {"circle": data.rows[TEST_ACCURACY]})
    return [
        ReportFigure(
            "attainment",
            draw_attainment(data),
            "Fronts over fresh seeds.",
            f"{about} Empirical attainment surfaces of the retrained configurations, on test data.{cropped}"
            + not_drawn_sentence(s.untested, "row", "test accuracy"),
            f"Three staircases of test accuracy against {data.cost.label}. {about}",
        )
    ]


def difference_figures(s: Summary) -> list[ReportFigure]:
    """Differences to the reference by seed, where a seed has both."""
    data = difference_data(s) if summary.has_pairs(s) else None
    if data is None or data.window is None:
        return []
    about = f"Test accuracy minus that of “{s.fresh_reference}” with the same seed"
    hidden = int(np.sum(data.means["difference"] < data.window[0]))
    outside = (
        f" {counted(hidden, 'configuration')} lie{'s' * (hidden == 1)} to the left of what is shown; double-click "
        "shows all."
    )
    return [
        ReportFigure(
            "seeds-figure",
            draw_differences(data),
            "Differences by seed.",
            f"{about}; the line is “{s.fresh_reference}” itself, each circle one seed.{outside if hidden else ''}"
            + not_drawn_sentence(s.untested, "row", "test accuracy"),
            f"Dot plot for {len(data.means)} configurations. {about}, each seed and the mean with its 95 % interval.",
        )
    ]
