"""A study with one objective: where in the plane of its first two hyperparameters it gains, and its other slices."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.figures import axes, hyperparameters, theme
from analysis.figures.hyperparameters import domain_of, drawable, hyperparameter_axis, hyperparameter_positions
from analysis.figures.report_figure import FigureGroup, ReportFigure
from analysis.figures.slices import below_axis_note, missing_note, slice_of
from analysis.figures.theme import GREY, axis_title, escape, figure
from analysis.figures.trial_marks import MOST_MARKS, best_trial_note, draw_ring, hover, stopped, thin_out
from analysis.formatting import capitalise, join_words, not_drawn_sentence
from analysis.stats.names import ACCURACY
from analysis.stats.summary import Summary, summarise
from study.records.study_folder import Study


def plane_names(s: Summary) -> tuple[str, str] | None:
    """The hyperparameters of the plane: the first two that were drawn from a range; None where there are fewer."""
    names = hyperparameters.numeric(s)
    return (names[0], names[1]) if len(names) > 1 else None


def gain_title(s: Summary) -> str:
    """Of the colour bar, such as "gain over the student alone (points)"."""
    return escape(f"gain over the {s.reference_name} (points)")


def accuracy_plane(study: Study, names: tuple[str, str] | None = None) -> go.Figure:
    """Each trial at its values of two hyperparameters, coloured by its gain over the reference.

    Args:
        names: of the hyperparameters; without it the first two of the search space.
    """
    s = summarise(study)
    drawing = figure(height=420)
    across, up = names or tuple(study.hyperparameters[:2])
    ended = stopped(s, ("pruned", "failed"))
    for state, symbol in (("pruned", "x-thin-open"), ("failed", "triangle-down-open")):
        rows = thin_out(ended[ended["state"] == state], MOST_MARKS // 2)
        _draw_marks(
            drawing,
            s,
            rows,
            (across, up),
            name=state,
            marker={"symbol": symbol, "size": 8, "color": GREY, "line": {"color": GREY, "width": 1.4}},
            showlegend=bool(len(rows)),
        )
    rows = s.searched[s.searched[[across, up, _objective(s)]].notna().all(axis=1)]
    rows = thin_out(rows).sort_values(_objective(s))
    marker = {"size": 13, "line": {"color": GREY, "width": 0.6}, **_colours(s, rows)}
    _draw_marks(drawing, s, rows, (across, up), name="complete", marker=marker, showlegend=False)
    if s.best is not None:
        place = [hyperparameter_positions(domain_of(study, name), [s.best[name]]) for name in (across, up)]
        draw_ring(drawing, place[0], place[1], "headline trial")
    drawing.update_xaxes(_axis(study, across))
    drawing.update_yaxes(_axis(study, up))
    return drawing


def _draw_marks(drawing: go.Figure, s: Summary, rows: pd.DataFrame, names: tuple[str, str], **look: Any) -> None:
    x, y = (hyperparameter_positions(domain_of(s.study, name), rows[name]) for name in names)
    drawing.add_scatter(x=x, y=y, mode="markers", **look, **hover(s, rows))


def _axis(study: Study, name: str) -> axes.Axis:
    """The axis over the range of the search, so that the plane shows what was left out too."""
    domain = domain_of(study, name)
    axis = hyperparameter_axis(axis_title(study.column(name)), domain)
    if "range" not in axis and {"low", "high"} <= domain.keys():
        low, high = float(domain["low"]), float(domain["high"])
        pad = 0.04 * (high - low)
        axis["range"] = [low - pad, high + pad]
    return axis


def _objective(s: Summary) -> str:
    return next(iter(s.study.objectives))


def _colours(s: Summary, rows: pd.DataFrame) -> dict[str, Any]:
    """Blue below the reference, orange above it; bad trials saturate instead of washing out the rest. Without a
    reference, by the objective."""
    objective = _objective(s)
    scores = rows[objective]
    if s.reference is None or objective != ACCURACY or scores.empty:
        return {
            "color": scores.tolist(),
            "colorscale": theme.SEQUENTIAL,
            "colorbar": axes.colour_bar(axis_title(s.column(objective))),
        }
    gains = scores - float(s.reference[ACCURACY])
    telling = gains[s.told(rows)] if s.told(rows).any() else gains.dropna()
    limit = max(abs(float(telling.quantile(0.1))), abs(float(telling.max())), 0.1) if len(telling) else 0.1
    return {
        "color": gains.round(4).tolist(),
        "colorscale": theme.DIVERGING,
        "cmin": -limit,
        "cmid": 0,
        "cmax": limit,
        "colorbar": axes.colour_bar(gain_title(s)),
    }


def plane_groups(s: Summary) -> list[FigureGroup]:
    """The plane, and the objective against every hyperparameter that the main figure does not have; none for a study
    that searched one hyperparameter."""
    names = drawable(s)
    if len(names) < 2:
        return []
    pair = plane_names(s)
    figures = [_plane_figure(s, pair)] if pair else []
    figures += [_slice_figure(s, name, names[0]) for name in names[1:]]
    heading = capitalise(join_words([s.column(name).label for name in names]))
    return [FigureGroup(heading, figures)]


def _plane_figure(s: Summary, names: tuple[str, str]) -> ReportFigure:
    labels = join_words([s.column(name).label for name in names])
    method = str(s.study.meta["title"])
    return ReportFigure(
        "plane",
        accuracy_plane(s.study, names),
        f"Where {method[:1].lower() + method[1:]} helps.",
        f"{capitalise(labels)} together; crosses are pruned trials, triangles failed ones. The ring is the headline "
        f"trial.{_missing_note(s, names)}",
        f"Scatter plot of trials over {labels}, coloured by {s.column(_objective(s)).label}; {best_trial_note(s)}",
    )


def _missing_note(s: Summary, names: tuple[str, str]) -> str:
    wanted = [*names, _objective(s)]
    missing = int(s.searched[wanted].isna().any(axis=1).sum())
    return not_drawn_sentence(missing, "complete trial", join_words([s.column(name).label for name in wanted]))


def _slice_figure(s: Summary, name: str, colour: str) -> ReportFigure:
    objective = _objective(s)
    what, over = s.column(objective).label, s.column(name).label
    lines = "; lines are the baselines" if objective == ACCURACY else ""
    return ReportFigure(
        f"slice-{name}",
        slice_of(s.study, name, objective, height=420, colour=colour),
        f"{capitalise(what)} against {over}.",
        f"The same trials, coloured by their {s.column(colour).label}{lines}.{below_axis_note(s, objective)}"
        + missing_note(s, name, objective),
        f"Scatter plot of {what} against {over}{' with the baselines as level lines' if lines else ''}; "
        f"{best_trial_note(s)}",
    )
