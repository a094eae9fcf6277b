"""Trade-offs as figures: which hyperparameter moves what, how, and which two act together."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import axes, theme
from analysis.figures.axes import hyperparameter_axis, remaining_percent
from analysis.figures.item import FigureGroup, ReportFigure
from analysis.figures.theme import BLUE, ORANGE, axis_label, escape, figure
from analysis.formatting import column_label, format_points
from analysis.stats.functional_anova import Array
from analysis.stats.importance import ANOVA, PED, TradeOffs
from study.records.columns import COLUMNS

MARKS = {ANOVA: (BLUE, "circle"), PED: (ORANGE, "diamond-open")}
ROW, HEADING, CHROME = 34, 66, 116
"""Heights in pixels of a hyperparameter's row, of a target's heading with the ticks above it, and of all the rest."""
INK = "#5A6068"
"""Of lines on a coloured plane, and in the legend on a light page or a dark one."""


def importances(t: TradeOffs) -> go.Figure:
    """Every hyperparameter's share with its 95 % interval, by both measures, one panel a target."""
    frame = t.importances()
    keys, names = list(t.targets), t.names
    height = CHROME + max(1, len(keys)) * (HEADING + ROW * max(1, len(names)))
    drawn = figure(height=height)
    if not keys:
        return drawn
    gap = min(HEADING / (height - CHROME), 0.9 / max(1, len(keys) - 1)) if len(keys) > 1 else 0.0
    drawn = make_subplots(rows=len(keys), cols=1, shared_xaxes=True, vertical_spacing=gap, figure=drawn)
    for i, key in enumerate(keys, start=1):
        for measure, (colour, symbol) in MARKS.items():
            rows = frame[(frame["target"] == key) & (frame["measure"] == measure)].iloc[::-1]
            if len(rows):
                _shares(drawn, rows, measure, colour, symbol, i)
        _heading(drawn, t.targets[key].title, i)
    drawn.update_xaxes(range=[-0.02, 1.03], tickformat=".0%", showticklabels=True)
    drawn.update_xaxes(title={"text": "share"}, row=len(keys), col=1)
    drawn.update_layout(
        scattermode="group",
        scattergap=0.5,
        height=height,
        margin={"t": 82},
        legend={"xref": "container", "x": 0.02, "yref": "container", "y": 0.99, "yanchor": "top"},
    )
    return drawn


def effect(t: TradeOffs, key: str, name: str) -> go.Figure:
    """The target's mean over one hyperparameter, all others averaged, with its 95 % interval as a band. The
    target's axis is the same for all hyperparameters, so that a flat line looks flat."""
    rows = t.effect(key, name)
    domain = t.summary.study.meta["space"][name]
    x, axis = hyperparameter_axis(axis_label(name), domain, rows["value"])
    drawn = figure(height=300)
    drawn.add_scatter(
        x=[*x, *x[::-1]],
        y=[*rows["high"], *rows["low"][::-1]],
        mode="lines",
        fill="toself",
        opacity=0.25,
        fillcolor=BLUE,
        line={"width": 0},
        name="95 % interval",
        hoverinfo="skip",
    )
    digits = _digits(key)
    drawn.add_scatter(
        x=x,
        y=rows["mean"].tolist(),
        mode="lines",
        name="mean",
        line={"color": BLUE, "width": 2.4},
        text=[
            f"{value:.4g}: {mean:,.{digits}f}, 95 % interval {low:,.{digits}f} to {high:,.{digits}f}"
            for value, mean, low, high in rows.itertuples(index=False)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    drawn.update_xaxes(axis)
    drawn.update_yaxes(title={"text": _unit(key)}, range=_span(t, key))
    if t.targets[key].log:
        drawn.update_yaxes(type="log", dtick="D2")
    return drawn


def interaction(t: TradeOffs, key: str) -> go.Figure:
    """The target's mean over its two most important hyperparameters, all others averaged, with the trials."""
    found = t.interaction(key)
    drawn = figure(height=420)
    if found is None:
        return drawn
    surface, bar = found["surface"], axes.colour_bar(_unit(key))
    colours: dict[str, object] = {"colorscale": theme.SEQUENTIAL, "colorbar": bar}
    if t.targets[key].log:
        ticks = [m * 10.0**e for e in range(0, 12) for m in (1, 2, 5) if surface.min() <= m * 10.0**e <= surface.max()]
        colours |= {
            "z": np.log10(surface),
            "colorbar": bar | {"tickvals": np.log10(ticks), "ticktext": [f"{tick:,.0f}" for tick in ticks]},
        }
    _plane(drawn, t, found["names"], found["x"], found["y"], surface, colours, _digits(key))
    _trials(drawn, t, found["names"], t.targets[key].values.index)
    return drawn


def gain(t: TradeOffs) -> go.Figure:
    """KD: the gain over the student alone on the (temperature, alpha) plane. The solid line is where it is zero, the
    level of that baseline; inside the dashed one the whole 95 % interval is above zero."""
    found = t.gain()
    drawn = figure(height=440)
    if found is None:
        return drawn
    limit = max(float(np.abs(found["gain"]).max()), 0.1)
    names = ("temperature", "alpha")
    _plane(
        drawn,
        t,
        names,
        found["x"],
        found["y"],
        found["gain"],
        {
            "colorscale": theme.DIVERGING,
            "zmin": -limit,
            "zmax": limit,
            "zmid": 0,
            "colorbar": axes.colour_bar("gain over the student alone (points)"),
        },
        2,
        (found["low"], found["high"]),
    )
    for values, dash, name in (
        (found["gain"], "solid", "as good as the student alone"),
        (found["low"], "dash", "better, by the 95 % interval"),
    ):
        crossed = bool(values.min() < 0 < values.max())
        drawn.add_contour(
            x=found["x"],
            y=found["y"],
            z=values,
            contours={"start": 0, "end": 0, "size": 1, "coloring": "none"},
            line={"color": INK, "width": 2.6, "dash": dash},
            name=name,
            showlegend=crossed,
            visible=crossed,
            showscale=False,
            hoverinfo="skip",
        )
    _trials(drawn, t, names, t.targets["val_accuracy"].values.index)
    return drawn


def _span(t: TradeOffs, key: str) -> list[float]:
    effects = [t.effect(key, name, 11) for name in t.names]
    ends = np.array([min(rows["low"].min() for rows in effects), max(rows["high"].max() for rows in effects)])
    low, high = np.log10(ends) if t.targets[key].log else ends
    return [float(low - 0.05 * (high - low)), float(high + 0.05 * (high - low))]


def _plane(
    drawn: go.Figure,
    t: TradeOffs,
    names: tuple[str, str],
    x: Array,
    y: Array,
    z: Array,
    colours: dict[str, object],
    digits: int,
    ends: tuple[Array, Array] | None = None,
) -> None:
    space = t.summary.study.meta["space"]
    across, x_axis = hyperparameter_axis(axis_label(names[0]), space[names[0]], x)
    up, y_axis = hyperparameter_axis(axis_label(names[1]), space[names[1]], y)
    said = [
        [
            f"{_short(names[0])} {a:.4g}, {_short(names[1])} {b:.4g}: {z[i, j]:,.{digits}f}"
            + (f"<br>95 % interval {ends[0][i, j]:,.{digits}f} to {ends[1][i, j]:,.{digits}f}" if ends else "")
            for j, a in enumerate(x)
        ]
        for i, b in enumerate(y)
    ]
    drawn.add_contour(
        x=across,
        y=up,
        contours={"coloring": "heatmap"},
        line={"width": 0},
        text=said,
        hovertemplate="%{text}<extra></extra>",
        **{"z": z, **colours},
    )
    drawn.update_xaxes(x_axis | {"range": _ends(across, x_axis), "showgrid": False})
    drawn.update_yaxes(y_axis | {"range": _ends(up, y_axis), "showgrid": False})


def _trials(drawn: go.Figure, t: TradeOffs, names: tuple[str, str], kept: pd.Index) -> None:
    """Where the trials are: away from them a surface is a guess."""
    rows = t.trials.loc[t.trials.index.intersection(kept)]
    space = t.summary.study.meta["space"]
    x, _ = hyperparameter_axis("", space[names[0]], rows[names[0]])
    y, _ = hyperparameter_axis("", space[names[1]], rows[names[1]])
    drawn.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name="trial",
        customdata=rows["trial_id"].tolist(),
        marker={"size": 7, "color": "rgba(255,255,255,0.75)", "line": {"color": INK, "width": 1.2}},
        text=[f"<b>{escape(r['trial_id'])}</b> {r['val_accuracy']:.2f} %" for r in rows.to_dict("records")],
        hovertemplate="%{text}<extra></extra>",
    )


def _shares(drawn: go.Figure, rows: pd.DataFrame, measure: str, colour: str, symbol: str, row: int) -> None:
    drawn.add_scatter(
        x=rows["share"].tolist(),
        y=[_short(name) for name in rows["hyperparameter"]],
        mode="markers",
        name=measure,
        legendgroup=measure,
        showlegend=row == 1,
        offsetgroup=measure,
        orientation="h",
        marker={"size": 10, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (rows["high"] - rows["share"]).tolist(),
            "arrayminus": (rows["share"] - rows["low"]).tolist(),
            "thickness": 2,
            "width": 4,
            "color": colour,
        },
        text=[
            f"{measure}: {share:.0%}, 95 % interval {low:.0%} to {high:.0%}"
            for share, low, high in zip(rows["share"], rows["low"], rows["high"], strict=True)
        ],
        hovertemplate="%{text}<extra>%{y}</extra>",
        row=row,
        col=1,
    )


def _heading(drawn: go.Figure, title: str, row: int) -> None:
    axis = "y" if row == 1 else f"y{row}"
    said = "<br>".join(escape(line) for line in textwrap.wrap(title, 36))
    drawn.add_annotation(
        text=f"<b>{said}</b>",
        xref="paper",
        yref=f"{axis} domain",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        align="left",
        font={"size": 12},
    )


def _ends(values: list[float], axis: dict[str, object]) -> list[float]:
    """The plane fills its axes, backwards where `hyperparameter_axis` runs so."""
    low, high = np.log10([min(values), max(values)]) if axis.get("type") == "log" else (min(values), max(values))
    given = axis.get("range")
    backwards = isinstance(given, list) and given[0] > given[1]
    return [float(high), float(low)] if backwards else [float(low), float(high)]


def _short(name: str) -> str:
    return escape(column_label(name))


def _unit(key: str) -> str:
    return axis_label({"given": "val_accuracy"}.get(key, key))


def _digits(key: str) -> int:
    return COLUMNS[key].digits if key in COLUMNS else 0 if key == "hypervolume" else 2


MOVES = "Which hyperparameter moves what"
_INTERVAL = "with its 95 % interval, which is somewhat too narrow at the ends of the range."


def importance_groups(t: TradeOffs) -> list[FigureGroup]:
    """Shares of variance, the two that act together, and what moves accuracy among small networks; a sentence in
    their place where the trials carry none of it."""
    notes = " ".join(t.notes)
    if not t.targets:
        return [FigureGroup(MOVES, [], lead=notes)] if notes else []
    items = [_shares_figure(t)]
    if (gain := t.gain()) is not None:
        items.append(_gain(t, float(gain["gain"].max())))
    else:
        items += [_together(t, key) for key in t.targets if key != "hypervolume" and t.interaction(key) is not None]
    found = [FigureGroup(MOVES, items, lead=notes)]
    if "given" in t.targets:
        found.append(
            FigureGroup(t.targets["given"].title, [_effect(t, "given", name) for name in t.names], narrow=True)
        )
    return found


def overlay(drawn: go.Figure, t: TradeOffs, key: str, name: str) -> str:
    """Add the mean of an objective over a hyperparameter, with its interval, to the scatter plot of the trials.

    Returns: a sentence for its caption, or "" where the trials carry no mean.
    """
    if key not in t.targets:
        return ""
    for trace in effect(t, key, name).data:
        if key == "sparsity":  # that axis shows what remains, on a logarithmic scale
            trace.y = remaining_percent(trace.y)
        trace.showlegend = False
        drawn.add_trace(trace)
    return f" The line is the mean with all other hyperparameters averaged, {_INTERVAL}{_pulled(t, key)}"


def _pulled(t: TradeOffs, key: str) -> str:
    pulled = t.targets[key].pulled
    return f" {pulled} outlier{'s were' if pulled > 1 else ' was'} pulled to the fences for it." if pulled else ""


def _shares_figure(t: TradeOffs) -> ReportFigure:
    frame = t.importances()
    alone = frame[frame["measure"] == ANOVA].sort_values("share").groupby("target")["hyperparameter"].last()
    top = [f"{target.title}: {column_label(alone[key])}" for key, target in t.targets.items()]
    details = " ".join(target.detail for target in t.targets.values() if target.detail)
    return ReportFigure(
        "importance",
        importances(t),
        "Shares of what the trials differ by.",
        "Functional ANOVA (Hutter et al. 2014): the share of the variance over the whole search space that one "
        "hyperparameter causes by itself. PED-ANOVA (Watanabe et al. 2023): what the best quarter of trials "
        f"has in common; these shares sum to 1, so they are above 0 even where nothing matters. Bars are 95 % "
        f"intervals over random halves of the trials. {details}".strip(),
        f"Dot plot of importances with intervals. Largest by functional ANOVA: {'; '.join(top)}.",
    )


def _together(t: TradeOffs, key: str) -> ReportFigure:
    found = t.interaction(key)
    assert found is not None
    first, second = found["names"]
    said = (
        f"The mean over the two hyperparameters that move it most. {found['share']:.0%} of the variance (95 % "
        f"interval {found['low']:.0%} to {found['high']:.0%}) only both together explain. Away from the trials, "
        f"the circles, it is a guess."
    )
    return ReportFigure(
        f"interaction-{key}",
        interaction(t, key),
        f"{t.targets[key].title}.",
        said + _pulled(t, key),
        f"Coloured plane over {first} and {second}. {said}",
    )


def _gain(t: TradeOffs, most: float) -> ReportFigure:
    after = f" after epoch {t.epoch}" if t.epoch else ""
    return ReportFigure(
        "gain",
        gain(t),
        "Gain over the student alone.",
        f"Mean validation accuracy{after} over the plane minus that of the student alone. It is as good as "
        "that on the solid line; inside the dashed one the whole 95 % interval is above zero. Away from the "
        f"trials, the circles, it is a guess.{_pulled(t, 'val_accuracy')}",
        f"Coloured plane over temperature and alpha of the gain over the student, at most {format_points(most)}.",
    )


def _effect(t: TradeOffs, key: str, name: str) -> ReportFigure:
    return ReportFigure(
        f"effect-{key}-{name}",
        effect(t, key, name),
        f"By {column_label(name)}.",
        f"The mean with all other hyperparameters averaged, {_INTERVAL}{_pulled(t, key)}",
        f"Line chart of the mean of {t.targets[key].title} over {name}.",
    )
