"""How a search went and what it cost, on tables small enough to work out by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis.stats.cost import cost
from analysis.stats.pareto_front import hypervolume
from analysis.stats.progress import progress, reference_point, schedule, volumes
from analysis.stats.summary import summarise
from analysis.text.cost_table import cost_table
from study.records import paths
from study.records.study_folder import Study, load

DAY = "2026-03-01T"


def timed(*times: tuple[str, str], baseline: str = "") -> pd.DataFrame:
    """Rows of trials by when they started and ended, as "09:00"."""
    instant = {"": ""}
    return pd.DataFrame(
        {
            "trial_id": [f"t{i + 1:03d}" for i in range(len(times))],
            "state": "complete",
            "baseline": baseline,
            "started": [instant.get(start, f"{DAY}{start}:00.000Z") for start, _ in times],
            "ended": [instant.get(end, f"{DAY}{end}:00.000Z") for _, end in times],
        }
    )


def of_two(tmp_path: Path, points: list[tuple[float, float]]) -> Study:
    """A study of validation accuracy (chance 10 %) and bytes whose trials ended one minute after another."""
    study = load(synthetic.write_sized(tmp_path, "magnitude", trials=len(points), confirm=False))
    rows = study.trials[study.trials["baseline"] == ""].assign(
        state="complete",
        trial_id=[f"t{i + 1:03d}" for i in range(len(points))],
        val_accuracy=[accuracy for accuracy, _ in points],
        file_bytes=[size for _, size in points],
        started=f"{DAY}09:00:00.000Z",
        ended=[f"{DAY}09:{i + 1:02d}:00.000Z" for i in range(len(points))],
    )
    return dataclasses.replace(study, trials=rows)


def test_hypervolume_after_each_point() -> None:
    """Boxes to the corner (10, 10): 8 × 2, then + 5 × 4, then nothing for a dominated point, then the rest of 9 × 9."""
    costs = np.array([[2.0, 8.0], [5.0, 4.0], [6.0, 9.0], [np.nan, 1.0], [1.0, 1.0]])
    assert volumes(costs, np.array([10.0, 10.0])).tolist() == [16.0, 16 + 5 * 4, 36.0, 36.0, 81.0]
    assert np.isnan(volumes(costs[3:4], np.array([10.0, 10.0]))).all()


def test_volumes_end_where_the_front_does() -> None:
    """The last volume is that of all points, in three objectives as in two."""
    rng = np.random.default_rng(0)
    points = rng.random((60, 3))
    frame = pd.DataFrame(points, columns=list("abc"))
    expected = hypervolume(frame, dict.fromkeys("abc", "min"), dict.fromkeys("abc", 1.0))
    reached = volumes(points, np.ones(3))
    assert reached[-1] == pytest.approx(expected) and (np.diff(reached) >= 0).all()


def test_progress_of_a_hand_made_front(tmp_path: Path) -> None:
    """Bytes count by their logarithm from the worst trial, accuracy in points from chance: 1,000 bytes, the worst, add
    nothing; a tenth of it at 60 % adds 50 × 1, at 80 % 20 × 1 more; a guess and a worse trial nothing."""
    s = summarise(of_two(tmp_path, [(90.0, 1000), (60.0, 100), (80.0, 100), (55.0, 500), (11.0, 1), (95.0, 10)]))
    rows = progress(s)
    assert reference_point(s) == {"val_accuracy": pytest.approx(s.chance), "file_bytes": 1000}
    away = np.array([0, 60 - s.chance, 80 - s.chance, 80 - s.chance, 80 - s.chance, 2 * (95 - s.chance)])
    assert rows["value"].tolist() == pytest.approx(away.tolist())
    assert rows["number"].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows["improved"].tolist() == [True, True, True, False, False, True]
    assert rows["hours"].tolist() == pytest.approx([n / 60 for n in range(1, 7)])


def test_the_order_is_that_of_the_ends(tmp_path: Path) -> None:
    """Not that of the ids; a row without a time comes first, and has no hours."""
    study = of_two(tmp_path, [(50.0, 100), (60.0, 100), (70.0, 100)])
    ends = [f"{DAY}09:05:00.000Z", "", f"{DAY}09:01:00.000Z"]
    rows = progress(summarise(dataclasses.replace(study, trials=study.trials.assign(ended=ends))))
    assert rows["trial_id"].tolist() == ["t002", "t003", "t001"] and math.isnan(rows["hours"].iloc[0])


@pytest.mark.parametrize(("direction", "expected"), [("max", [50.0, 50.0, 70.0]), ("min", [50.0, 40.0, 40.0])])
def test_one_objective_has_a_best_so_far(direction: str, expected: list[float], tmp_path: Path) -> None:
    """The highest or the lowest until then; a failed trial changes nothing, and counts as one that ended."""
    study = load(synthetic.write_kd(tmp_path, trials=4))
    rows = study.trials[study.trials["baseline"] == ""].assign(
        state=["complete", "failed", "complete", "complete"], val_accuracy=[50.0, np.nan, 40.0, 70.0]
    )
    one = dataclasses.replace(study, trials=rows, meta={**study.meta, "objectives": {"val_accuracy": direction}})
    reached = progress(summarise(one))
    assert reached["value"].tolist() == [expected[0], *expected] and reached["number"].iloc[-1] == 4
    assert reached["improved"].sum() == 2


def test_lanes_and_hours_of_a_schedule() -> None:
    """Trials at the same time lie in different lanes; a lane is used again; hours count from the first start."""
    plan = schedule(timed(("09:00", "09:30"), ("09:10", "09:20"), ("09:20", "10:00"), ("", ""), ("09:45", "10:15")))
    assert plan.rows["lane"].tolist() == [0, 1, 1, 0] and plan.hours == pytest.approx(1.25)
    assert plan.rows["start"].tolist() == pytest.approx([0, 1 / 6, 1 / 3, 0.75]) and not plan.breaks


def test_a_night_without_trials_is_left_out() -> None:
    """The clock stands still in a break of two hours, and goes on after a pause of five minutes."""
    plan = schedule(timed(("09:00", "10:00"), ("10:05", "10:30"), ("12:30", "13:00")))
    assert plan.rows["start"].tolist() == pytest.approx([0, 65 / 60, 1.5])
    assert plan.hours == pytest.approx(2.0)
    assert list(plan.breaks.items()) == [(pytest.approx(1.5), pytest.approx(2.0))]


def test_a_clock_that_was_set_back_makes_no_negative_trial() -> None:
    """Its end is its start then."""
    rows = schedule(timed(("09:30", "09:00"), ("09:30", "09:40"))).rows
    assert (rows["end"] >= rows["start"]).all() and rows["end"].max() == pytest.approx(1 / 6)


def test_what_a_study_cost(tmp_path: Path) -> None:
    """Seconds by kind of training; CPU hours are seconds times threads, or the settings' CPUs; GPU hours by the share
    of a GPU; what one process trained together has no hours of its own."""
    study = load(synthetic.write_kd(tmp_path, trials=2))
    trials = study.trials.assign(seconds=[3600.0 if name == "" else 1800.0 for name in study.trials["baseline"]])
    trials["threads"] = [2.0 if name == "" else np.nan for name in trials["baseline"]]
    (tmp_path / paths.CONFIRM).mkdir()
    head = "trial_id,state,reason,baseline,seconds,epochs"
    (tmp_path / paths.CONFIRM / paths.TRIALS).write_text(f"{head}\nt001 seed 1,complete,,t001,900.0,2\n")
    settings = {**study.meta["settings"], "cpus_per_trial": 4.0, "gpus_per_trial": 0.25}
    own = dataclasses.replace(study, trials=trials, meta={**study.meta, "settings": settings})
    table = cost(summarise(own)).set_index("kind")
    others = int((trials["baseline"] != "").sum())
    assert table["trainings"].tolist() == [2, others, 1]
    assert table["seconds"].tolist() == [7200.0, 1800.0 * others, 900.0]
    assert table["cpu_hours"].tolist() == [2.0 * 2, 0.5 * 4 * others, 0.25 * 4]
    assert table["gpu_hours"].tolist() == [2.0 / 4, 0.5 / 4 * others, 0.25 / 4]
    packed = dataclasses.replace(own, meta={**own.meta, "settings": {**settings, "pack": 8}})
    assert cost(summarise(packed))["cpu_hours"].notna().tolist() == [False, False, True]
    lines, words = cost_table(summarise(own))
    assert [row.name for row in lines.rows] == ["searched trials", "baselines", "fresh seeds", "all together"]
    assert lines.rows[0].cells == ["2", "2 hours", "4", "0.5"] and "threads" in words[-1]


def test_a_study_that_has_just_started_has_no_cost(tmp_path: Path) -> None:
    """Neither without tables nor with trials that run."""
    for state in ("none", "running"):
        s = summarise(load(synthetic.write_bare(tmp_path / state, "kd", state)))
        assert not cost_table(s)[0].rows and progress(s).empty and schedule(s.trials).hours == 0


def test_a_damaged_table_of_fresh_seeds_is_left_out(tmp_path: Path) -> None:
    """The page must not fail for it."""
    study = load(synthetic.write_kd(tmp_path, trials=2))
    (tmp_path / paths.CONFIRM).mkdir()
    (tmp_path / paths.CONFIRM / paths.TRIALS).write_text("trial_id,state\nx")
    assert "fresh seeds" not in set(cost(summarise(study))["kind"])
