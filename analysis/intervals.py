"""What fresh seeds say: every configuration's difference to the reference, seed by seed, with its interval."""

from __future__ import annotations

import html

import pandas as pd
import plotly.graph_objects as go

from analysis.confirmation import fresh, paired
from analysis.summary import Summary, summarise
from analysis.theme import GREY, VERMILLION, figure, focus
from study.results import Study


def paired_differences(study: Study) -> go.Figure:
    """Test accuracy minus that of the reference with the same seed, in points: each seed a small mark, the mean with
    its 95 % interval a large one, the reference the line at zero. Configurations are rows, in the table's order."""
    s = summarise(study)
    rows = paired(fresh(study), s.fresh_reference)
    means = s.fresh[s.fresh["pairs"] > 0] if len(s.fresh) else s.fresh
    drawn = figure(height=110 + 34 * max(1, len(means)))
    if means.empty:
        return drawn
    drawn.add_vline(x=0, line={"color": GREY, "width": 1.4})
    drawn.add_scatter(
        x=rows["difference"].tolist(), y=_names(rows), mode="markers", name="one seed",
        marker={"size": 7, "symbol": "circle-open", "color": GREY}, customdata=rows["trial_id"].tolist(),
        text=[f"seed {seed}: {test:.2f} % against {other:.2f} %" for seed, test, other in
              zip(rows["seed"], rows["test_accuracy"], rows["reference_accuracy"], strict=True)],
        hovertemplate="%{text}<extra>%{y}</extra>")
    halves = means["difference_half"].fillna(0.0)
    drawn.add_scatter(
        x=means["difference"].tolist(), y=_names(means), mode="markers", name="mean with 95 % interval",
        marker={"size": 10, "symbol": "diamond", "color": VERMILLION}, customdata=means["trial_id"].tolist(),
        error_x={"type": "data", "array": halves.tolist(), "thickness": 2, "width": 5, "color": VERMILLION},
        text=[f"{row.difference:+.2f} ± {row.difference_half:.2f} points, {row.pairs} seeds" if row.pairs > 1 else
              f"{row.difference:+.2f} points, one seed" for row in means.itertuples()],
        hovertemplate="%{text}<extra>%{y}</extra>")
    # One ruined configuration must not flatten the others; the caption counts those that lie outside.
    drawn.update_xaxes(title={"text": "difference in test accuracy (points)"},
                       range=focus([0.0, *rows["difference"], *(means["difference"] - halves)],
                                   [0.0, *(means["difference"] + halves)]))
    drawn.update_yaxes(type="category", categoryorder="array", categoryarray=_names(means)[::-1],
                       range=[-0.6, len(means) - 0.4])
    return drawn


def has_pairs(s: Summary) -> bool:
    return bool(len(s.fresh)) and bool((s.fresh["pairs"] > 0).any())


def _names(rows: pd.DataFrame) -> list[str]:
    return [html.escape(name) for name in rows["baseline"].where(rows["baseline"] != "", rows["trial_id"])]
