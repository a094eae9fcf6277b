"""How a search went, as figures: what is drawn, when nothing is, and what captions say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import synthetic

from analysis.figures.progress import draw_progress, draw_timeline, progress_groups
from analysis.page import study_page
from analysis.stats.progress import progress, schedule
from analysis.stats.summary import summarise
from study.records import timestamps
from study.records.study_folder import Study, load


def with_times(study: Study, at_once: int = 2) -> Study:
    """Each trial starts when the one before the last ended, and takes its `seconds`."""
    free = [pd.Timestamp("2026-03-01T09:00:00Z")] * at_once
    started, ended = [], []
    for i, seconds in enumerate(study.trials["seconds"].fillna(5.0)):
        started.append(timestamps.as_text(free[i % at_once]))
        free[i % at_once] += pd.Timedelta(seconds=float(seconds))
        ended.append(timestamps.as_text(free[i % at_once]))
    return dataclasses.replace(study, trials=study.trials.assign(started=started, ended=ended))


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return with_times(load(synthetic.write_kd(tmp_path_factory.mktemp("kd"), trials=20, epochs=6)))


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return with_times(load(synthetic.write_sws(tmp_path_factory.mktemp("sws"), trials=20, epochs=6)))


@pytest.mark.parametrize(("kind", "axis"), [("kd", "validation accuracy"), ("sws", "hypervolume")])
@pytest.mark.parametrize("by", ["number", "hours"])
def test_the_staircase_shows_what_was_reached(request: pytest.FixtureRequest, kind: str, axis: str, by: str) -> None:
    """One objective: its best; several: shares of the final hypervolume, which end at 100 %. A mark is a trial that
    improved it."""
    s = summarise(request.getfixturevalue(kind))
    rows = progress(s)
    line, marks = draw_progress(s, rows, schedule(s.trials), by).data
    assert line.line.shape == "hv" and list(marks.customdata) == rows[rows["improved"]]["trial_id"].tolist()
    assert axis in draw_progress(s, rows, schedule(s.trials), by).layout.yaxis.title.text
    assert line.y[-1] == pytest.approx(100 if kind == "sws" else s.feasible["val_accuracy"].max())
    assert list(line.y) == sorted(line.y)


def test_the_captions_say_what_a_reader_asks(kd: Study, sws: Study) -> None:
    """Which trial was the best one, of several objectives how soon nearly all was reached, and from where it counts."""
    one, two = ({f.id: f for f in progress_groups(summarise(study))[0].figures} for study in (kd, sws))
    assert list(one) == list(two) == ["progress-number", "progress-hours", "timeline"]
    assert "The best trial, " in one["progress-number"].caption and "of 20." in one["progress-number"].caption
    assert "It is measured from validation accuracy 10" in two["progress-number"].caption
    assert "99 % after" in two["progress-number"].caption
    assert "The last improvement came after" in two["progress-hours"].caption
    assert "at most 2" in one["timeline"].caption and one["timeline"].alt.startswith("Gantt chart")


def test_the_timeline_has_every_trial_once(kd: Study) -> None:
    """From its start over its middle to its end, in a lane of its own at any time, under the name of its state."""
    s = summarise(kd)
    plan = schedule(s.trials)
    bars = {}
    for trace in draw_timeline(s, plan).data:
        for i in range(0, len(trace.x), 4):
            bars[trace.customdata[i]] = (trace.x[i], trace.x[i + 2], trace.y[i], trace.name)
            assert trace.x[i + 3] is None
    assert set(bars) == set(s.trials["trial_id"])
    row = plan.rows.set_index("trial_id").loc["t003"]
    scale = bars["t003"][1] / row["end"]
    assert bars["t003"][:3] == (pytest.approx(row["start"] * scale, abs=1e-4), row["end"] * scale, row["lane"] + 1)
    assert {name for *_, name in bars.values()} >= {"baseline", "complete", "on the front"}


def test_an_older_folder_has_no_clock(tmp_path: Path) -> None:
    """Without starts and ends only the figure by trial is drawn; a continued one has a timeline of what is known."""
    study = load(synthetic.write_sws(tmp_path, trials=12, epochs=3))
    ids = [f.id for g in progress_groups(summarise(study)) for f in g.figures]
    assert ids == ["progress-number"]
    later = with_times(study)
    half = later.trials["started"].where(later.trials.index > 6, "")
    mixed = dataclasses.replace(later, trials=later.trials.assign(started=half))
    (group,) = progress_groups(summarise(mixed))
    assert [f.id for f in group.figures] == ["progress-number", "timeline"]
    assert "7 trials without a recorded time are not drawn" in group.figures[1].caption


@pytest.mark.parametrize("complete", [0, 1, 2])
def test_few_trials_have_no_course(complete: int, sws: Study) -> None:
    """With two that may answer there is nothing to see; the page is built without the figures."""
    done = sws.trials.index[(sws.trials["baseline"] == "") & (sws.trials["state"] == "complete")][:complete]
    states = sws.trials["state"].where(sws.trials.index.isin(done), "running")
    few = dataclasses.replace(sws, trials=sws.trials.assign(state=states, started="", ended=""))
    assert progress_groups(summarise(few)) == []
    study_page.build(few)


def test_states_of_any_kind_are_drawn(kd: Study) -> None:
    """Pruned and failed trials count among those that ended, are in the timeline, and improve nothing."""
    states = kd.trials["state"].to_list()
    searched = [i for i, name in enumerate(kd.trials["baseline"]) if name == ""]
    for i, state in zip(searched[:6], ["failed", "pruned"] * 3, strict=True):
        states[i] = state
    s = summarise(dataclasses.replace(kd, trials=kd.trials.assign(state=states)))
    rows = progress(s).set_index("trial_id")
    stopped = s.trials[s.trials["state"].isin(["failed", "pruned"])]["trial_id"]
    assert not rows.loc[stopped, "improved"].any()
    assert {"pruned", "failed"} <= {trace.name for trace in draw_timeline(s, schedule(s.trials)).data}


def test_a_long_study_is_thinned_out(tmp_path: Path) -> None:
    """The timeline of 1,500 trials draws 1,000 of them, and says so."""
    s = summarise(with_times(load(synthetic.write_kd(tmp_path, trials=1500, epochs=3)), at_once=40))
    timeline = progress_groups(s)[0].figures[-1]
    assert sum(len(trace.x) for trace in timeline.figure.data) == 4 * 1000
    assert "1,000 of 1,5" in timeline.caption and len(timeline.figure.to_json()) < 200_000
