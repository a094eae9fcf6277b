"""What fresh seeds say: each configuration's difference to the reference, with its interval, and what they attain."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.axes import complement_axis, focus, remaining_percent, size_axis
from analysis.figures.item import ReportFigure
from analysis.figures.theme import BLUE, GREEN, GREY, VERMILLION, axis_label, escape, figure
from analysis.formatting import below_axis_sentence, column_label, mean_and_half
from analysis.stats.summary import Summary, summarise
from analysis.stats.test_results import fresh_seed_rows, paired
from analysis.stats.uncertainty import attainment
from study.records.study_folder import Study


def paired_differences(study: Study) -> go.Figure:
    """Test accuracy minus that of the reference with the same seed, in points: each seed a small mark, the mean with
    its 95 % interval a large one, the reference the line at zero. Configurations are rows, in the table's order."""
    s = summarise(study)
    rows = paired(fresh_seed_rows(study), s.fresh_reference)
    means = s.fresh[s.fresh["pairs"] > 0] if len(s.fresh) else s.fresh
    drawn = figure(height=110 + 34 * max(1, len(means)))
    if means.empty:
        return drawn
    drawn.add_vline(x=0, line={"color": GREY, "width": 1.4})
    drawn.add_scatter(
        x=rows["difference"].tolist(),
        y=_names(rows),
        mode="markers",
        name="one seed",
        marker={"size": 7, "symbol": "circle-open", "color": GREY},
        customdata=rows["trial_id"].tolist(),
        text=[
            f"seed {seed}: {test:.2f} % against {other:.2f} %"
            for seed, test, other in zip(rows["seed"], rows["test_accuracy"], rows["reference_accuracy"], strict=True)
        ],
        hovertemplate="%{text}<extra>%{y}</extra>",
    )
    halves = means["difference_half"].fillna(0.0)
    drawn.add_scatter(
        x=means["difference"].tolist(),
        y=_names(means),
        mode="markers",
        name="mean with 95 % interval",
        marker={"size": 10, "symbol": "diamond", "color": VERMILLION},
        customdata=means["trial_id"].tolist(),
        error_x={"type": "data", "array": halves.tolist(), "thickness": 2, "width": 5, "color": VERMILLION},
        text=[
            f"{mean_and_half('difference', row.difference, row.difference_half)} points, "
            + (f"{row.pairs} seeds" if row.pairs > 1 else "one seed")
            for row in means.itertuples()
        ],
        hovertemplate="%{text}<extra>%{y}</extra>",
    )
    # One ruined configuration must not flatten the others; the caption counts those that lie outside. What is ordinary
    # is judged by means alone: among few seeds the ends of intervals lie so far up that zero would be out of sight.
    middle = means["difference"]
    drawn.update_xaxes(
        title={"text": "difference in test accuracy (points)"},
        range=focus([0.0, *rows["difference"], *(middle - halves), *(middle + halves)], [0.0, *middle]),
    )
    drawn.update_yaxes(
        type="category", categoryorder="array", categoryarray=_names(means)[::-1], range=[-0.6, len(means) - 0.4]
    )
    return drawn


def attainment_surfaces(study: Study) -> go.Figure:
    """What a quarter, half and three quarters of the fresh seeds attain on test data, with every seed's networks."""
    s = summarise(study)
    rows = fresh_seed_rows(study)
    rows = rows[rows["baseline"] == ""].dropna(subset=[s.size, "test_accuracy"])
    drawn = figure(height=340)
    place = remaining_percent if s.size == "sparsity" else list
    drawn.add_scatter(
        x=place(rows[s.size]),
        y=rows["test_accuracy"].tolist(),
        mode="markers",
        name="one seed",
        marker={"size": 7, "symbol": "circle-open", "color": GREY},
        customdata=rows["trial_id"].tolist(),
        text=[f"{escape(i)}, seed {n}" for i, n in zip(rows["trial_id"], rows["seed"], strict=True)],
        hovertemplate="%{text}: %{y:.2f} %<extra></extra>",
    )
    surfaces = attainment(rows, {"test_accuracy": "max", s.size: s.study.objectives[s.size]})
    for percentage, colour, dash in ((25, BLUE, "dot"), (50, VERMILLION, "solid"), (75, GREEN, "dash")):
        line = surfaces[surfaces["percentage"] == percentage].sort_values("test_accuracy", ascending=False)
        drawn.add_scatter(
            x=place(line[s.size]),
            y=line["test_accuracy"].tolist(),
            mode="lines",
            name=f"{percentage} % of seeds",
            line={"color": colour, "width": 2, "dash": dash, "shape": "vh"},
            hovertemplate="%{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    if s.size == "sparsity":
        drawn.update_xaxes(complement_axis(axis_label(s.size), 100.0, remaining_percent(rows[s.size]), most=6))
    else:
        drawn.update_xaxes(size_axis(axis_label(s.size), rows[s.size]))
    shown = focus(surfaces["test_accuracy"], rows["test_accuracy"])
    drawn.update_yaxes(title={"text": "test accuracy (%)"}, range=shown)
    return drawn


def _names(rows: pd.DataFrame) -> list[str]:
    return [escape(name) for name in rows["baseline"].where(rows["baseline"] != "", rows["trial_id"])]


def attainment_figure(s: Summary) -> ReportFigure:
    """Median and quartiles of the front over seeds."""
    about = "What a quarter, half and three quarters of the fresh seeds attain: at least this accuracy at this size."
    drawn = attainment_surfaces(s.study)
    window = drawn.layout.yaxis.range
    cropped = "" if window is None else below_axis_sentence(window[0], {"circle": drawn.data[0].y})
    return ReportFigure(
        "attainment",
        drawn,
        "Fronts over fresh seeds.",
        f"{about} Empirical attainment surfaces of the retrained configurations, on test data.{cropped}",
        f"Three staircases of test accuracy against {column_label(s.size)}. {about}",
    )


def differences_figure(s: Summary) -> ReportFigure:
    drawn = paired_differences(s.study)
    rows = s.fresh[s.fresh["pairs"] > 0]
    about = f"Test accuracy minus that of “{s.fresh_reference}” with the same seed"
    caption = f"{about}; the line is “{s.fresh_reference}” itself, each circle one seed."
    hidden = int((rows["difference"] < drawn.layout.xaxis.range[0]).sum())
    if hidden:
        caption += (
            f" {hidden} configuration{'s lie' if hidden > 1 else ' lies'} to the left of what is shown; "
            "double-click shows all."
        )
    return ReportFigure(
        "seeds-figure",
        drawn,
        "Differences by seed.",
        caption,
        f"Dot plot for {len(rows)} configurations. {about}, each seed and the mean with its 95 % interval.",
    )
