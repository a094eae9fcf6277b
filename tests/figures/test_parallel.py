"""Parallel coordinates and planes over any pair of hyperparameters: what is drawn, and when nothing is."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import synthetic

from analysis.figures.interactions import any_pair, pair_figures, pairs
from analysis.figures.parallel import BINS, draw_parallel, parallel_axes, parallel_groups, parallel_rows
from analysis.stats.importance import trade_offs
from analysis.stats.summary import summarise
from study.records.study_folder import Study, load


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("sws"), trials=40, epochs=3))


def with_choice(study: Study) -> Study:
    """The study with another hyperparameter, a choice among words and a number."""
    space = {**study.meta["space"], "loss": {"type": "choice", "values": ["kd", "dkd", 3]}}
    losses = np.resize(np.array(["kd", "3", "dkd"], dtype=object), len(study.trials))
    return dataclasses.replace(study, trials=study.trials.assign(loss=losses), meta={**study.meta, "space": space})


def test_every_trial_is_a_line_at_its_values(sws: Study) -> None:
    """A range is as high as its axis, on the scale of its search; of objectives the better end is at the top."""
    s = summarise(sws)
    axes = parallel_axes(s)
    assert [axis.key for axis in axes] == ["tau", "components", "one_minus_pi_zero", "val_accuracy", "sparsity"]
    drawing = draw_parallel(axes, parallel_rows(s, axes))
    lines = {}
    for trace in drawing.data[1:]:
        for i in range(0, len(trace.x), 6):
            assert list(trace.x[i : i + 6]) == [0, 1, 2, 3, 4, None]
            lines[trace.customdata[i]] = trace.y[i : i + 5]
    rows = s.searched.set_index("trial_id")
    assert set(lines) == set(rows.index)
    for trial_id in ("t003", "t011"):
        row = rows.loc[trial_id]
        assert lines[trial_id][0] == pytest.approx(np.log10(row["tau"] / 1e-3) / 3, abs=1e-3)
        assert lines[trial_id][1] == pytest.approx((row["components"] - 4) / 60, abs=1e-3)
    best = rows["sparsity"].idxmax()
    assert lines[best][4] == 1 and lines[rows["val_accuracy"].idxmax()][3] == 1


def test_fewer_bytes_are_further_up(tmp_path: Path) -> None:
    """An objective that is to be small has its smallest value at the top, and its ends as labels."""
    s = summarise(load(synthetic.write_sized(tmp_path, "magnitude", trials=20)))
    axis = next(axis for axis in parallel_axes(s) if axis.key == "file_bytes")
    heights = axis.places(s.searched["file_bytes"])
    assert heights[s.searched["file_bytes"].to_numpy().argmin()] == pytest.approx(1)
    assert axis.ticks[1.0] == f"{s.searched['file_bytes'].min():,.0f}"


def test_a_choice_has_a_place_for_each_value(sws: Study) -> None:
    """In the order of the search space, words and numbers alike, labelled; a value that is none has no line."""
    s = summarise(with_choice(sws))
    axis = next(axis for axis in parallel_axes(s) if axis.key == "loss")
    assert axis.ticks == {0.0: "kd", 0.5: "dkd", 1.0: "3"}
    places = dict(zip(s.searched["loss"].astype(str), axis.places(s.searched["loss"]), strict=True))
    assert places == {"kd": 0.0, "dkd": 0.5, "3": 1.0}
    (group,) = parallel_groups(s)
    assert group.figures[0].figure.layout.meta["axes"][3]["choices"] == ["kd", "dkd", "3"]


def test_better_lines_lie_on_top(sws: Study) -> None:
    """Trials are in five bundles of about the same size, the best by the last objective drawn last."""
    s = summarise(sws)
    rows = parallel_rows(s, parallel_axes(s))
    sizes = rows["bin"].value_counts()
    assert len(sizes) == BINS and sizes.max() - sizes.min() <= 1
    scores = s.searched.set_index("trial_id")["sparsity"]
    means = rows.groupby("bin")["trial_id"].apply(lambda ids: scores[ids].mean())
    assert means.is_monotonic_increasing


def test_few_trials_and_missing_values_have_no_lines(sws: Study) -> None:
    """Two trials make no figure; a trial without an objective is counted in the caption."""
    done = sws.trials.index[(sws.trials["baseline"] == "") & (sws.trials["state"] == "complete")]
    for left in (0, 1, 2):
        states = sws.trials["state"].where(~sws.trials.index.isin(done[left:]), "failed")
        assert not parallel_groups(summarise(dataclasses.replace(sws, trials=sws.trials.assign(state=states))))
    trials = sws.trials.copy()
    trials.loc[done[0], "sparsity"] = np.nan
    (group,) = parallel_groups(summarise(dataclasses.replace(sws, trials=trials)))
    assert "1 complete trial has no finite value on one of the axes" in group.figures[0].caption


def test_every_pair_has_a_plane_in_the_menu(sws: Study) -> None:
    """Three pairs for each objective; each choice of the menu shows one surface with its trials, on its own axes."""
    t = trade_offs(sws)
    keys = [key for key in sws.objectives if key in t.targets]
    expected = {frozenset(pair) for pair in itertools.combinations(t.names, 2)}
    assert {frozenset(pair) for pair in pairs(t)} == expected and len(pairs(t)) == 3
    drawing = any_pair(t, keys)
    buttons = drawing.layout.updatemenus[0].buttons
    assert len(buttons) == 3 * len(keys) == len(drawing.data) / 2
    for i, button in enumerate(buttons):
        visible = button.args[0]["visible"]
        assert [j for j, is_shown in enumerate(visible) if is_shown] == [2 * i, 2 * i + 1]
        assert button.args[1]["xaxis"]["title"]["text"] in {sws.column(name).heading for name in t.names}
    assert [trace.visible for trace in drawing.data[:3]] == [True, True, False]


def test_a_plane_of_the_menu_is_that_of_the_response(sws: Study) -> None:
    """Its surface is the mean over the two, all others averaged, to four digits."""
    t = trade_offs(sws)
    key = next(key for key in sws.objectives if key in t.targets)
    pair = pairs(t)[0]
    surface = np.array(any_pair(t, [key]).data[0].z, dtype=float)
    assert np.allclose(surface, t.plane(key, *pair, points=15)["surface"], rtol=1e-3)
    assert np.allclose(t.interaction(key)["surface"], t.plane(key, *t.interaction(key)["names"])["surface"])


def test_two_hyperparameters_need_no_menu(tmp_path: Path) -> None:
    """Their only pair has a figure already."""
    assert not pair_figures(trade_offs(load(synthetic.write_kd(tmp_path, trials=30, epochs=3))))
