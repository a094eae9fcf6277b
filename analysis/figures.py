"""Studies as Plotly figures. Each function returns one `go.Figure`, for the report and for a notebook alike.

Marks that stand for a trial carry its id as `customdata`; the page finds a clicked trial in every figure by it.
Names and reasons come from the study and are escaped, since Plotly renders a little HTML in hovers and legends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import theme
from analysis.published import published
from analysis.summary import REFERENCE, Summary, summarise
from analysis.tables import counted, percent, text
from analysis.theme import (
    BASELINE_COLOURS,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    figure,
    focus,
    hyperparameter_axis,
    named,
    plain,
)
from study.results import COLUMNS, Study

ON_TEST_DATA = ("on test data", "fresh seeds, on test data", "published (test data)")
"""Traces of the figure of the front whose marks are test accuracies."""

MOST_MARKS = 1000
"""Beyond this many trials a figure shows an even sample (the front always whole), half as many of those that are not
complete: the figures in sight follow a moved filter in about a third of a second."""


def accuracy_vs_size(study: Study) -> go.Figure:
    """Validation accuracy against sparsity, or the compressed file's size where that is the objective: every complete
    trial, the front, the reference with its standard error, other baselines, published results (over sparsity alone,
    since papers give no files) and, where they exist, test results of the front."""
    s = summarise(study)
    drawn = figure(height=520)
    _trials(drawn, s, s.searched, x=_sizes(s, s.searched), y="val_accuracy", name="trial")
    _level(drawn, s, band=True)
    front = s.front
    drawn.add_scatter(
        x=_sizes(s, front), y=front["val_accuracy"].tolist(), mode="lines+markers", name="Pareto front",
        line={"color": VERMILLION, "width": 2, "shape": "vh"}, marker={"size": 9, "color": VERMILLION},
        **_hover(s, front))
    others = s.baselines[s.baselines["baseline"] != REFERENCE[s.study.meta["kind"]]]
    drawn.add_scatter(
        x=_sizes(s, others), y=others["val_accuracy"].tolist(), mode="markers", name=_names(others),
        marker={"size": 12, "symbol": "square", "color": GREEN}, showlegend=bool(len(others)), **_hover(s, others))
    if s.best is not None:
        _ring(drawn, _sizes(s, pd.DataFrame([s.best])), [s.best["val_accuracy"]], "the answer at the top")
    tested, fresh, papers = _tested(drawn, s), _over_seeds(drawn, s), _published(drawn, s)
    if s.least_accuracy is not None:
        drawn.add_hline(y=s.least_accuracy, line={"color": GREY, "width": 1, "dash": "dot"})
    if s.size == "sparsity":
        shown = pd.concat([rows["sparsity"] for rows in (s.searched, others, papers, tested, fresh)])
        drawn.update_xaxes(theme.complement_axis("weights at zero, sparsity (%)", 100.0, theme.left(shown)))
    else:
        drawn.update_xaxes(theme.size_axis(named(s.size), [*s.searched[s.size], *others[s.size]]))
    half = fresh.reindex(columns=["test_half"])["test_half"].fillna(0.0)
    kept = pd.concat([front["val_accuracy"], s.baselines["val_accuracy"], fresh["test_accuracy"] - half,
                      fresh["test_accuracy"] + half, papers["test_accuracy"], tested["test_accuracy"]]).astype(float)
    drawn.update_yaxes(title={"text": "accuracy (%)"}, range=focus(kept, s.searched["val_accuracy"]))
    return drawn


def accuracy_plane(study: Study) -> go.Figure:
    """KD: each trial at its temperature and alpha, coloured by its gain over the student alone."""
    s = summarise(study)
    drawn = figure(height=420)
    stopped = s.trials[s.trials["state"].isin(["pruned", "failed"]) & (s.trials["baseline"] == "")]
    for state, symbol in (("pruned", "x-thin-open"), ("failed", "triangle-down-open")):
        rows = _thin(stopped[stopped["state"] == state], MOST_MARKS // 2)
        drawn.add_scatter(
            x=rows["temperature"].tolist(), y=rows["alpha"].tolist(), mode="markers", name=state,
            marker={"symbol": symbol, "size": 8, "color": GREY, "line": {"color": GREY, "width": 1.4}},
            showlegend=bool(len(rows)), **_hover(s, rows))
    rows = _thin(s.searched).sort_values("val_accuracy")
    drawn.add_scatter(
        x=rows["temperature"].tolist(), y=rows["alpha"].tolist(), mode="markers", name="complete", showlegend=False,
        marker={"size": 13, "line": {"color": GREY, "width": 0.6}, **_gain_colours(s, rows)}, **_hover(s, rows))
    _ring_best(drawn, s, x="temperature", y="alpha")
    _, axis = hyperparameter_axis(named("temperature"), study.meta["space"]["temperature"], [])
    drawn.update_xaxes(axis)
    drawn.update_yaxes(title={"text": named("alpha")}, range=[-0.04, 1.04])
    return drawn


def slice_of(study: Study, hyperparameter: str, objective: str, height: int = 340, colour: str = "") -> go.Figure:
    """One objective against one hyperparameter, with the baselines as level lines (accuracy only).

    Args:
        colour: another hyperparameter that colours the trials; without it the front is told apart by colour.
    """
    s = summarise(study)
    drawn = figure(height=height)
    domain = study.meta["space"].get(hyperparameter, {})
    for state, rows in (("pruned", s.trials[s.trials["state"] == "pruned"]), ("complete", s.searched)):
        rows = _thin(rows[rows[hyperparameter].notna() & rows[objective].notna()],
                     MOST_MARKS if state == "complete" else MOST_MARKS // 2)
        x, _ = hyperparameter_axis("", domain, rows[hyperparameter])
        if state == "pruned":
            drawn.add_scatter(
                x=x, y=rows[objective].tolist(), mode="markers", name="pruned (score when stopped)",
                marker={"symbol": "x-thin-open", "size": 7, "color": GREY, "line": {"width": 1.2, "color": GREY}},
                showlegend=bool(len(rows)) and bool(colour), **_hover(s, rows))
        else:
            _trials(drawn, s, rows, x=x, y=objective, name="", colour=colour)
    front = s.front[s.front[hyperparameter].notna()]
    if not colour:
        x, _ = hyperparameter_axis("", domain, front[hyperparameter])
        drawn.add_scatter(x=x, y=front[objective].tolist(), mode="markers", name="on the front", showlegend=False,
                          marker={"size": 8, "color": VERMILLION}, **_hover(s, front))
    else:
        _ring_best(drawn, s, hyperparameter, objective)
    _, axis = hyperparameter_axis(named(hyperparameter), domain, s.searched[hyperparameter].dropna())
    drawn.update_xaxes(axis)
    drawn.update_yaxes(title={"text": named(objective)})
    if objective == "sparsity":
        _sparsity_upwards(drawn, s)
    elif objective == "file_bytes":
        drawn.update_yaxes(theme.size_axis(named(objective), s.searched[objective]))
    else:
        _level(drawn, s, band=bool(colour), labelled=bool(colour))
        kept = pd.concat([s.searched[objective].quantile([0.05, 1.0]), s.baselines[objective]])
        drawn.update_yaxes(range=focus(kept, s.searched[objective]))
    return drawn


def _sparsity_upwards(drawn: go.Figure, s: Summary) -> None:
    for trace in drawn.data:
        trace.y = theme.left(trace.y)
    axis = theme.complement_axis(named("sparsity"), 100.0, theme.left(s.searched["sparsity"]))
    drawn.update_yaxes({**axis})


def _trials(
    drawn: go.Figure, s: Summary, rows: pd.DataFrame, x: list[float], y: str, name: str, colour: str = ""
) -> None:
    if len(rows) > MOST_MARKS:
        rows = rows.assign(_x=x).pipe(_thin)
        x = rows["_x"].tolist()
    marker: dict[str, Any] = {"size": 8, "color": BLUE, "opacity": 0.85}
    if colour and len(rows):
        marker = {"size": 11, "colorscale": theme.SEQUENTIAL, "opacity": 0.95, "line": {"color": GREY, "width": 0.6},
                  **_hues(rows[colour], s.study.meta["space"].get(colour, {}), named(colour))}
    drawn.add_scatter(x=x, y=rows[y].tolist(), mode="markers", name=name, marker=marker,
                      showlegend=bool(len(rows) and name), **_hover(s, rows))


def levels(s: Summary) -> pd.DataFrame:
    """Baselines that figures show as lines; where sizes are, that which was not compressed, since its own would leave
    the trials no room on their axis."""
    lines = s.baselines[s.baselines["val_accuracy"].notna()]
    return lines[lines["baseline"] == REFERENCE[s.study.meta["kind"]]] if s.compresses else lines


def _level(drawn: go.Figure, s: Summary, band: bool, labelled: bool = True) -> None:
    """Baselines as horizontal lines; around the reference a band of one standard error."""
    lines = levels(s)
    if band and s.reference is not None and np.isfinite(s.error):
        level = float(s.reference["val_accuracy"])
        drawn.add_hrect(y0=level - s.error, y1=level + s.error, fillcolor=GREY, opacity=0.13, line_width=0,
                        layer="below")
    dashes = ("solid", "dash", "dot", "dashdot")
    for i, row in enumerate(lines.to_dict("records")):
        colour, dash = BASELINE_COLOURS[i % 3], dashes[i % 4]
        drawn.add_hline(y=row["val_accuracy"], line={"color": colour, "width": 1.6, "dash": dash})
        if labelled:  # a line of the layout has no entry in the legend; this empty trace is it
            drawn.add_scatter(x=[None], y=[None], mode="lines", line={"color": colour, "width": 2, "dash": dash},
                              name=f"{plain(row['baseline'])} {row['val_accuracy']:.1f} %", hoverinfo="skip")


def _tested(drawn: go.Figure, s: Summary) -> pd.DataFrame:
    tested = _compressed(s, s.tested)
    if len(tested):
        drawn.add_scatter(
            x=_sizes(s, tested), y=tested["test_accuracy"].tolist(), mode="markers", name=ON_TEST_DATA[0],
            marker={"size": 9, "symbol": "diamond-open", "color": VERMILLION, "line": {"width": 1.6}},
            text=[_at(s, row, row["test_accuracy"], "one seed") for row in tested.to_dict("records")],
            hovertemplate="%{text}<extra></extra>", customdata=tested["trial_id"].tolist())
    return tested


def _over_seeds(drawn: go.Figure, s: Summary) -> pd.DataFrame:
    fresh = _compressed(s, s.fresh)
    if len(fresh):
        said = [_at(s, row, row["test_accuracy"], f"mean of {counted(row['seeds'], 'fresh seed')}", row["test_half"])
                for row in fresh.to_dict("records")]
        drawn.add_scatter(
            x=_sizes(s, fresh), y=fresh["test_accuracy"].tolist(), mode="markers", name=ON_TEST_DATA[1],
            marker={"size": 9, "symbol": "diamond", "color": theme.ORANGE, "line": {"width": 1, "color": VERMILLION}},
            error_y={"type": "data", "array": fresh["test_half"].fillna(0.0).tolist(), "thickness": 1.6, "width": 4,
                     "color": theme.ORANGE},
            text=said, hovertemplate="%{text}<extra></extra>", customdata=fresh["trial_id"].tolist())
    return fresh


def _compressed(s: Summary, rows: pd.DataFrame) -> pd.DataFrame:
    """Of tested rows those that have a place on the axis of size."""
    if s.size not in rows:
        return pd.DataFrame(columns=[s.size, "test_accuracy"])
    return rows[(rows["baseline"] != REFERENCE[s.study.meta["kind"]]) & rows[s.size].notna()]


def _at(s: Summary, row: dict[Any, Any], accuracy: float, how: str, half: float = np.nan) -> str:
    return (f"<b>{plain(row['baseline'] or row['trial_id'])}</b>, test data<br>{percent(accuracy, half)} at "
            f"{text(s.size, row[s.size])} {COLUMNS[s.size].unit} {COLUMNS[s.size].label}<br>{how}; search saw "
            f"{row['search_val_accuracy']:.2f} % on validation")


def _published(drawn: go.Figure, s: Summary) -> pd.DataFrame:
    papers = published(s.study.meta) if s.size == "sparsity" else published({})
    hover = [f"<b>{r.method}</b><br>MNIST test {r.test_accuracy:.2f} % at {r.sparsity:.1f} % sparsity<br>"
             f"published rate {r.rate:.0f}×: {r.definition}<br>{r.source}" for r in papers.itertuples()]
    if len(papers):
        drawn.add_scatter(
            x=_sizes(s, papers), y=papers["test_accuracy"].tolist(), mode="markers", name=ON_TEST_DATA[2],
            marker={"size": 11, "symbol": "star", "color": PURPLE, "line": {"width": 0}},
            text=hover, hovertemplate="%{text}<extra></extra>")
    return papers


def _ring_best(drawn: go.Figure, s: Summary, x: str, y: str) -> None:
    if s.best is not None:
        _ring(drawn, [s.best[x]], [s.best[y]], "best")


def _ring(drawn: go.Figure, x: list[float], y: list[float], name: str) -> None:
    drawn.add_scatter(
        x=x, y=y, mode="markers", name=name, hoverinfo="skip",
        marker={"size": 20, "symbol": "circle-open", "color": VERMILLION, "line": {"width": 2.4}})


def _gain_colours(s: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    """Blue below the reference, orange above it; bad trials saturate instead of washing out the rest."""
    scores = rows["val_accuracy"]
    if s.reference is None or scores.empty:
        return {"color": scores.tolist(), "colorscale": theme.SEQUENTIAL,
                "colorbar": theme.colour_bar(named("val_accuracy"))}
    gains = scores - float(s.reference["val_accuracy"])
    limit = max(abs(float(gains.quantile(0.1))), abs(float(gains.max())), 0.1)
    return {"color": gains.round(4).tolist(), "colorscale": theme.DIVERGING, "cmin": -limit, "cmid": 0, "cmax": limit,
            "colorbar": theme.colour_bar("gain over the student alone (points)")}


def _hues(values: pd.Series, domain: dict[str, Any], title: str) -> dict[str, Any]:
    """Colour by a hyperparameter, on the scale and over the range that its search space gives it."""
    ends = {end: float(domain[name]) for end, name in (("cmin", "low"), ("cmax", "high")) if name in domain}
    if not domain.get("log"):
        return {"color": values.tolist(), "colorbar": theme.colour_bar(title), **ends}
    ticks = [m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5) if domain["low"] <= m * 10.0**e <= domain["high"]]
    bar = {**theme.colour_bar(title), "tickvals": np.log10(ticks).tolist(), "ticktext": [f"{tick:g}" for tick in ticks]}
    return {"color": np.log10(values).round(4).tolist(), "colorbar": bar,
            **{end: float(np.log10(value)) for end, value in ends.items()}}


def _sizes(s: Summary, rows: pd.DataFrame) -> list[float]:
    """Where rows stand on the axis of size: bytes of the file, or the share of the weights left, in percent."""
    return [float(v) for v in rows["file_bytes"]] if s.size == "file_bytes" else theme.left(rows["sparsity"])


def _names(rows: pd.DataFrame) -> str:
    """In the legend; longer than this a name would take a line of a phone's screen for itself."""
    names = ", ".join(rows["baseline"].unique())
    return plain(names) if names and len(names) <= 30 else "other baselines"


def _thin(rows: pd.DataFrame, most: int = MOST_MARKS) -> pd.DataFrame:
    return rows if len(rows) <= most else rows.sample(most, random_state=0).sort_index()


def _hover(s: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    """What a mark says and which trial it stands for. Configurations are left out where they would fill megabytes."""
    columns = [c for c in (*s.study.hyperparameters, *s.study.objectives, "accuracy_drop", "compression_ratio",
                           "entropy_ratio") if c in rows]
    if len(s.trials) > MOST_MARKS:
        columns = list(s.study.objectives)
    said = []
    for row in rows[["trial_id", "state", "baseline", "reason", *dict.fromkeys(columns)]].to_dict("records"):
        lines = [f"<b>{plain(row['baseline'] or row['trial_id'])}</b> {plain(row['state'])}"]
        lines += [f"{named(c)}: {plain(text(c, row[c]))}" for c in columns if pd.notna(row[c])]
        said.append("<br>".join([*lines, *([plain(row["reason"][:120])] if row["reason"] else [])]))
    return {"text": said, "hovertemplate": "%{text}<extra></extra>", "customdata": rows["trial_id"].tolist()}
