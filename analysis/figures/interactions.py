"""Two hyperparameters together, all others averaged: a coloured plane with the trials on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes, theme
from analysis.figures.effects import outliers_note, target_column
from analysis.figures.hyperparameters import Domain, domain_of, hyperparameter_axis, hyperparameter_positions, is_choice
from analysis.figures.plane import gain_title
from analysis.figures.report_figure import ReportFigure
from analysis.figures.theme import axis_title, escape, figure
from analysis.formatting import choice_index, format_points, join_words
from analysis.stats.functional_anova import Array
from analysis.stats.importance import TradeOffs
from analysis.stats.names import ACCURACY
from study.records.study_folder import Study

INK = "#5A6068"
"""Of lines on a coloured plane, and in the legend on a light page or a dark one."""

_GUESS = "Circles are trials; far from them the surface is a guess."


def interaction(t: TradeOffs, key: str) -> go.Figure:
    """The target's mean over its two most important hyperparameters, all others averaged, with the trials."""
    plane = t.interaction(key)
    drawing = figure(height=420)
    if plane is None:
        return drawing
    _draw_surface(drawing, t, key, plane)
    _draw_trials(drawing, t, plane["names"], t.targets[key].values.index)
    return drawing


def _draw_surface(drawing: go.Figure, t: TradeOffs, key: str, plane: dict[str, Any]) -> None:
    column, surface = target_column(t, key), plane["surface"]
    bar = axes.colour_bar(axis_title(column))
    colours: dict[str, Any] = {"z": surface, "colorscale": theme.SEQUENTIAL, "colorbar": bar}
    if t.targets[key].log:
        ticks = [m * 10.0**e for e in range(-9, 12) for m in (1, 2, 5) if surface.min() <= m * 10.0**e <= surface.max()]
        labels = [axes.number_label(tick) for tick in ticks]
        colours |= {"z": np.log10(surface), "colorbar": bar | {"tickvals": np.log10(ticks), "ticktext": labels}}
    _draw_plane(drawing, t, plane, _texts(t, plane, surface, column.digits), colours)


def gain_plane(t: TradeOffs) -> dict[str, Any] | None:
    """`TradeOffs.gain` of a study with one objective, with the `names` of its two hyperparameters; None without one."""
    if t.summary.has_cost:
        return None
    plane = t.gain()
    return None if plane is None else {"names": tuple(t.names[:2]), **plane}


def gain(t: TradeOffs) -> go.Figure:
    """The gain in accuracy over the reference, on the plane of two hyperparameters. The solid line is where it is zero,
    the level of that baseline; inside the dashed one the complete 95 % interval is above zero."""
    plane = gain_plane(t)
    drawing = figure(height=440)
    if plane is None:
        return drawing
    limit = max(float(np.abs(plane["gain"]).max()), 0.1)
    bar = axes.colour_bar(gain_title(t.summary))
    colours = {"colorscale": theme.DIVERGING, "zmin": -limit, "zmax": limit, "zmid": 0, "colorbar": bar}
    texts = _texts(t, plane, plane["gain"], 2, (plane["low"], plane["high"]))
    _draw_plane(drawing, t, plane, texts, {"z": plane["gain"], **colours})
    if not _has_choice(t, plane):
        _draw_levels(drawing, t, plane)
    _draw_trials(drawing, t, plane["names"], t.targets[ACCURACY].values.index)
    return drawing


def _draw_levels(drawing: go.Figure, t: TradeOffs, plane: dict[str, Any]) -> None:
    """Add the lines where the gain is zero, and where the lower end of its interval is."""
    for values, dash, name in (
        (plane["gain"], "solid", f"as good as the {escape(t.summary.reference_name)}"),
        (plane["low"], "dash", "better, by the 95 % interval"),
    ):
        crossed = bool(values.min() < 0 < values.max())
        drawing.add_contour(
            x=plane["x"],
            y=plane["y"],
            z=values,
            contours={"start": 0, "end": 0, "size": 1, "coloring": "none"},
            line={"color": INK, "width": 2.6, "dash": dash},
            name=name,
            showlegend=crossed,
            visible=crossed,
            showscale=False,
            hoverinfo="skip",
        )


def _has_choice(t: TradeOffs, plane: dict[str, Any]) -> bool:
    return any(is_choice(domain_of(t.summary.study, name)) for name in plane["names"])


def _texts(
    t: TradeOffs, plane: dict[str, Any], z: Array, digits: int, ends: tuple[Array, Array] | None = None
) -> list[list[str]]:
    """What the pointer says at each place of the plane, (len(y), len(x)).

    Args:
        z: the values, (len(y), len(x)), shown with `digits`; `ends` are those of their 95 % interval.
    """
    across, up = (escape(t.summary.column(name).label) for name in plane["names"])
    columns, rows = (
        _point_labels(domain_of(t.summary.study, name), plane[side])
        for name, side in zip(plane["names"], ("x", "y"), strict=True)
    )
    return [
        [
            f"{across} {a}, {up} {b}: {z[i, j]:,.{digits}f}"
            + (f"<br>95 % interval {ends[0][i, j]:,.{digits}f} to {ends[1][i, j]:,.{digits}f}" if ends else "")
            for j, a in enumerate(columns)
        ]
        for i, b in enumerate(rows)
    ]


def _point_labels(domain: Domain, values: Iterable[Any]) -> list[str]:
    """The values of a surface's points in words."""
    if is_choice(domain):
        return [str(label) for label in hyperparameter_positions(domain, values)]
    return [f"{value:.4g}" for value in values]


def _draw_plane(
    drawing: go.Figure, t: TradeOffs, plane: dict[str, Any], texts: list[list[str]], colours: dict[str, Any]
) -> None:
    study = t.summary.study
    (across, x_axis), (up, y_axis) = (
        (surface_positions(domain_of(study, name), plane[side]), surface_axis(study, name))
        for name, side in zip(plane["names"], ("x", "y"), strict=True)
    )
    surface = {"x": across, "y": up, "text": texts, "hovertemplate": "%{text}<extra></extra>", **colours}
    if _has_choice(t, plane):  # there is nothing between two values of a choice, so each has a stripe of its own
        drawing.add_heatmap(**surface)
    else:
        drawing.add_contour(**surface, contours={"coloring": "heatmap"}, line={"width": 0})
    drawing.update_xaxes(x_axis | {"range": _ends(across, x_axis), "showgrid": False})
    drawing.update_yaxes(y_axis | {"range": _ends(up, y_axis), "showgrid": False})


def _draw_trials(drawing: go.Figure, t: TradeOffs, names: tuple[str, str], used: pd.Index) -> None:
    """Where the trials are that the surface goes through: far from them it is a guess."""
    study, rows = t.summary.study, t.trials.loc[t.trials.index.intersection(used)]
    x, y = (surface_positions(domain_of(study, name), rows[name]) for name in names)
    drawing.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name="trial",
        customdata=rows["trial_id"].tolist(),
        marker={"size": 7, "color": "rgba(255,255,255,0.75)", "line": {"color": INK, "width": 1.2}},
        text=[f"<b>{escape(r['trial_id'])}</b> {r[ACCURACY]:.2f} %" for r in rows.to_dict("records")],
        hovertemplate="%{text}<extra></extra>",
    )


def surface_positions(domain: Domain, values: Iterable[Any]) -> list[float]:
    """Where values of a hyperparameter stand under a surface: those of a choice at their place in the list."""
    if is_choice(domain):
        places = [choice_index(domain, value) for value in values]
        return [np.nan if place is None else float(place) for place in places]
    return hyperparameter_positions(domain, values)


def surface_axis(study: Study, name: str) -> axes.Axis:
    """The axis of a hyperparameter under a surface: of a choice the places in its list, labelled with its values."""
    domain, title = domain_of(study, name), axis_title(study.column(name))
    if not is_choice(domain):
        return hyperparameter_axis(title, domain)
    labels = hyperparameter_positions(domain, domain["values"])
    return {"title": {"text": title}, "tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": labels}


def _ends(values: list[float], axis: axes.Axis) -> list[float]:
    """The plane fills its axes; the stripes of a choice reach half a place beyond its first value and its last."""
    if "ticktext" in axis and axis.get("type") != "log":
        return [-0.5, len(axis["ticktext"]) - 0.5]
    low, high = np.log10([min(values), max(values)]) if axis.get("type") == "log" else (min(values), max(values))
    return [float(low), float(high)]


def interaction_figures(t: TradeOffs) -> list[ReportFigure]:
    """The gain over the reference where there is one, else for each objective the two that act together."""
    plane = gain_plane(t)
    if plane is not None:
        return [_gain_figure(t, plane)]
    planes = {key: t.interaction(key) for key in t.targets if key in (*t.summary.study.objectives, "given")}
    return [_interaction_figure(t, key, plane) for key, plane in planes.items() if plane is not None]


def _interaction_figure(t: TradeOffs, key: str, plane: dict[str, Any]) -> ReportFigure:
    labels = join_words([t.summary.column(name).label for name in plane["names"]])
    caption = (
        f"The mean over the two hyperparameters that move it most. Only both together explain {plane['share']:.0%} of "
        f"the variance (95 % interval {plane['low']:.0%} to {plane['high']:.0%}). {_GUESS}"
    )
    return ReportFigure(
        f"interaction-{key}",
        interaction(t, key),
        f"{t.targets[key].title}.",
        caption + outliers_note(t, key),
        f"Coloured plane over {labels}. {caption}",
    )


def _gain_figure(t: TradeOffs, plane: dict[str, Any]) -> ReportFigure:
    after = f" after epoch {t.epoch}" if t.epoch else ""
    reference, labels = t.summary.reference_name, join_words([t.summary.column(name).label for name in plane["names"]])
    levels = "On the solid line they are equal; inside the dashed one the complete 95 % interval is above zero."
    if _has_choice(t, plane):
        levels = "Orange is better, blue is worse."
    return ReportFigure(
        "gain",
        gain(t),
        f"Gain over the {reference}.",
        f"Mean validation accuracy{after} over the plane, minus that of the {reference}. {levels} {_GUESS}"
        f"{outliers_note(t, ACCURACY)}",
        f"Coloured plane over {labels} of the gain over the {reference}, at most "
        f"{format_points(float(plane['gain'].max()))}.",
    )


MOST_NAMES = 7
"""Hyperparameters whose pairs are drawn, 21 of them; more would be megabytes of page."""
POINTS = 15


def any_pair(t: TradeOffs, keys: list[str]) -> go.Figure:
    """The mean of a target over any two hyperparameters, chosen from a menu; see `pairs`."""
    drawing, names = figure(height=460), [(key, pair) for key in keys for pair in pairs(t)]
    layouts: list[dict[str, Any]] = []
    for key, pair in names:
        one = figure()
        plane = t.plane(key, *pair, points=POINTS)
        _draw_surface(one, t, key, plane)
        _draw_trials(one, t, pair, t.targets[key].values.index)
        surface = one.data[0]
        surface.z = [[float(f"{value:.4g}") for value in row] for row in np.asarray(surface.z, dtype=float)]
        for trace in one.data:
            drawing.add_trace(trace.update(visible=not layouts, showlegend=False))
        layouts.append({side: one.layout[side].to_plotly_json() for side in ("xaxis", "yaxis")})
    buttons = [
        {
            "label": escape(f"{t.targets[key].title}: {' and '.join(t.summary.column(name).label for name in pair)}"),
            "method": "update",
            "args": [{"visible": [j // 2 == i for j in range(2 * len(names))]}, layouts[i]],
        }
        for i, (key, pair) in enumerate(names)
    ]
    drawing.update_layout(layouts[0] | {"updatemenus": [{"buttons": buttons}], "meta": {"pick": "Shown"}})
    return drawing


def pairs(t: TradeOffs) -> list[tuple[str, str]]:
    """Every two of the hyperparameters that move most, in the order of the search space; those first that do most."""
    ranked = t.by_importance()[:MOST_NAMES]
    chosen = [(a, b) for j, b in enumerate(ranked) for a in ranked[:j]]
    return [(a, b) if t.names.index(a) < t.names.index(b) else (b, a) for a, b in chosen]


def pair_figures(t: TradeOffs) -> list[ReportFigure]:
    """Any pair of three hyperparameters or more; of two, the other figures show the only pair."""
    keys = [key for key in t.summary.study.objectives if key in t.targets]
    if len(t.names) < 3 or not keys:
        return []
    labels = join_words([t.summary.column(name).label for name in t.names if name in t.by_importance()[:MOST_NAMES]])
    rest = len(t.names) - MOST_NAMES
    more = f" There are pairs of the {MOST_NAMES} that move most, out of {len(t.names)}." if rest > 0 else ""
    return [
        ReportFigure(
            "pairs",
            any_pair(t, keys),
            "Any two hyperparameters.",
            f"The mean over the two that the menu names, all others averaged. {_GUESS}{more}",
            f"Coloured plane over any two of {labels}, chosen from a menu.",
        )
    ]
