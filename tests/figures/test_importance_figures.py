"""The trade-off figures show what `analysis.stats.importance` computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import synthetic

from analysis.figures import effects, importance, interactions
from analysis.stats.importance import ANOVA, TradeOffs, trade_offs
from study.records import columns, paths, study_folder
from study.records.study_folder import load


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> TradeOffs:
    return trade_offs(load(synthetic.write_sws(tmp_path_factory.mktemp("sws"))))


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> TradeOffs:
    return trade_offs(load(synthetic.write_kd(tmp_path_factory.mktemp("kd"))))


def trace(drawn: go.Figure, name: str) -> go.Scatter:
    return next(t for t in drawn.data if t.name == name)


def test_shares_are_drawn_with_their_intervals(sws: TradeOffs) -> None:
    """Every target has a panel and every hyperparameter two marks, whose bars end where the intervals do."""
    drawn, frame = importance.importances(sws), sws.importances()
    assert len(drawn.data) == 2 * len(sws.targets) == 8
    for t in drawn.data:
        panel = int(t.yaxis[1:] or "1") - 1
        rows = frame[(frame["target"] == list(sws.targets)[panel]) & (frame["measure"] == t.name)].iloc[::-1]
        assert np.allclose(t.x, rows["share"]) and np.allclose(np.add(t.x, t.error_x.array), rows["high"])
        assert np.allclose(np.subtract(t.x, t.error_x.arrayminus), rows["low"]) and len(t.y) == 3
    assert {t.marker.symbol for t in drawn.data if t.name == ANOVA} == {"circle"}  # told apart without colour


def test_every_panel_has_its_heading_above_it(sws: TradeOffs) -> None:
    """The target's title stands on the upper edge of its panel; panels have room for it, and for their rows."""
    drawn = importance.importances(sws)
    headings = {note.yref: note for note in drawn.layout.annotations}
    assert len(headings) == len(drawn.layout.annotations) == len(sws.targets)
    for number, target in enumerate(sws.targets.values(), start=1):
        note = headings[f"y{number if number > 1 else ''} domain"]
        assert note.text.replace("<br>", " ") == f"<b>{target.title}</b>" and "<br>" not in target.title
        assert (note.x, note.y, note.xanchor, note.yanchor) == (0, 1, "left", "bottom")
    edges = sorted(drawn.layout[f"yaxis{n if n > 1 else ''}"].domain for n in range(1, len(sws.targets) + 1))
    pixels = drawn.layout.height - importance.CHROME
    assert all((below[1] - below[0]) * pixels >= importance.ROW * len(sws.names) * 0.99 for below in edges)
    gaps = [above[0] - below[1] for below, above in zip(edges, edges[1:], strict=False)]
    assert all(gap * pixels >= importance.HEADING * 0.99 for gap in gaps)


@pytest.mark.parametrize("name", ["tau", "components", "one_minus_pi_zero"])
def test_effects_stand_on_their_axes(sws: TradeOffs, name: str) -> None:
    """The curve is the effect's frame on the scale of the search, its band encloses it, and all hyperparameters share
    one axis of the target."""
    drawn, rows = effects.effect(sws, "val_accuracy", name), sws.effect("val_accuracy", name)
    line, band = trace(drawn, "mean"), trace(drawn, "95 % interval")
    assert np.allclose(line.x, rows["value"])
    assert np.allclose(line.y, rows["mean"])
    assert np.allclose(band.y, [*rows["high"], *rows["low"][::-1]])
    assert drawn.layout.yaxis.range == effects.effect(sws, "val_accuracy", "tau").layout.yaxis.range
    assert drawn.layout.xaxis.type == (None if name == "components" else "log")


@pytest.mark.parametrize(("log", "expected"), [(False, [-4.0, 106.0]), (True, [-0.1, 2.1])])
def test_a_target_has_one_range_for_all_hyperparameters(log: bool, expected: list[float]) -> None:
    """It encloses the interval of every hyperparameter, with a twentieth of the extent at either end; of a target that
    is judged by its logarithm it is in powers of ten. By hand."""
    least = 1.0
    frames = {
        "a": pd.DataFrame({"low": [20.0, least], "high": [30.0, 40.0]}),
        "b": pd.DataFrame({"low": [50.0, 60.0], "high": [101.0 if not log else 100.0, 70.0]}),
    }
    t: Any = SimpleNamespace(
        names=list(frames), targets={"k": SimpleNamespace(log=log)}, effect=lambda key, name, points: frames[name]
    )
    assert effects._shared_range(t, "k") == pytest.approx(expected)


def test_the_plane_has_the_trials_on_it(sws: TradeOffs) -> None:
    """The surface is the interaction's, over the two strongest hyperparameters; each mark is a trial that counted."""
    drawn, found = interactions.interaction(sws, "given"), sws.interaction("given")
    assert found is not None and np.allclose(drawn.data[0].z, found["surface"])
    rows = sws.trials.loc[sws.targets["given"].values.index].set_index("trial_id")
    marks = trace(drawn, "trial")
    assert set(marks.customdata) == set(rows.index)
    x = rows.loc[list(marks.customdata), found["names"][0]]
    assert np.allclose(marks.x, x)


def test_level_line_is_drawn_at_no_gain(kd: TradeOffs) -> None:
    """The solid line is the contour of the gain at zero, the dashed one that of the interval's lower end; neither is
    shown, nor named, where it does not exist."""
    drawn, found = interactions.gain(kd), kd.gain()
    assert found is not None
    solid, dashed = trace(drawn, "as good as the student alone"), trace(drawn, "better, by the 95 % interval")
    assert np.allclose(solid.z, found["gain"]) and np.allclose(dashed.z, found["low"])
    assert (solid.contours.start, solid.contours.end, solid.contours.coloring) == (0, 0, "none")
    assert solid.visible and drawn.data[0].zmid == 0
    assert dashed.visible == dashed.showlegend == bool(found["low"].max() > 0 > found["low"].min())


@pytest.mark.parametrize("state", ["none", "failed"])
def test_studies_without_scores_give_empty_figures(tmp_path: Path, state: str) -> None:
    """With nothing to say the figures are empty and the note remains."""
    t = trade_offs(load(synthetic.write_bare(tmp_path, "kd", state)))
    assert not importance.importances(t).data and not interactions.gain(t).data and len(t.notes) == 1


def test_text_of_a_study_is_no_markup(tmp_path: Path) -> None:
    """Names of trials and hyperparameters reach Plotly escaped."""
    folder = synthetic.write_sws(tmp_path)
    bold = "<b>bold</b>"
    meta = study_folder.read_meta(folder)
    meta["space"][bold] = meta["space"].pop("components")
    study_folder.write_meta(folder, meta)
    trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS).rename(columns={"components": bold})
    study_folder.write_frame(folder / paths.TRIALS, trials)
    study = load(folder)  # which refuses such an id
    t = trade_offs(replace(study, trials=study.trials.assign(trial_id=bold + study.trials["trial_id"])))
    drawn = [importance.importances(t), effects.effect(t, "sparsity", bold), interactions.interaction(t, "sparsity")]
    for figure in drawn:
        for trace in figure.data:
            trace.customdata = None  # ids, which the page looks up and never shows
        assert bold not in json.dumps(figure.to_plotly_json(), default=list)
